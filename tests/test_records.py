"""What hosts are told of each other; records in files are tested with the folders they are in."""

import pytest

from jaxmod import hosts, records


def test_a_host_with_other_values_is_named(monkeypatch):
    there = {"config": {"steps": 3}, "data": "f00"}
    records.check_hosts_agree(there, "workdir x")
    monkeypatch.setattr(hosts, "exchange", lambda own: [own, own])
    records.check_hosts_agree(there, "workdir x")
    monkeypatch.setattr(hosts, "exchange", lambda own: [own, own, {**own, "data": "ba5"}])
    message = (
        "workdir x was given other values on host 2:\n  data: 'f00' on host 0, 'ba5' on host 2\nGive every"
    )
    with pytest.raises(ValueError, match=message):
        records.check_hosts_agree(there, "workdir x")
