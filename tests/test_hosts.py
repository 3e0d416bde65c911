"""Hosts, as far as one process can tell; two of them are in `test_spread.py`."""

import dataclasses

import jax
import pytest

from jaxmod import cli, files, hosts


def test_one_host_is_the_first_and_talks_to_itself():
    assert hosts.is_first()
    assert hosts.exchange({"a": [1, None]}) == [{"a": [1, None]}]
    assert hosts.on_first(lambda: 7) == 7
    with pytest.raises(OSError, match="full"):
        hosts.on_first(lambda: (_ for _ in ()).throw(OSError("full")))


class TwoHosts:
    """Host 1 of two, and what host 0 says."""

    def __init__(self, monkeypatch, first):
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(hosts, "exchange", lambda own: [first, own])


def test_what_host_0_refuses_stops_the_others(monkeypatch, tmp_path):
    TwoHosts(monkeypatch, [False, "the folder is in use"])
    with pytest.raises(ValueError, match="^the folder is in use$"):
        hosts.on_first(lambda: pytest.fail("called on host 1"))
    TwoHosts(monkeypatch, [True, "the disk is full"])
    with pytest.raises(OSError, match="^the disk is full$"):
        hosts.on_first(lambda: pytest.fail("called on host 1"))
    files.write_json(tmp_path / "results.json", {"a": 1})
    assert not list(tmp_path.iterdir())
    TwoHosts(monkeypatch, None)
    assert hosts.on_first(lambda: pytest.fail("called on host 1")) is None


def test_together_an_error_of_one_host_stops_all(monkeypatch):
    TwoHosts(monkeypatch, None)
    assert hosts.together(lambda: 7) == 7
    with pytest.raises(KeyError):  # its own error, as it was, and told to the others
        hosts.together(lambda: {}["missing"])
    TwoHosts(monkeypatch, [False, "not here"])
    with pytest.raises(ValueError, match="^not here$"):
        hosts.together(lambda: 7)


@pytest.fixture
def joined(monkeypatch):
    """Returns the arguments that `jax.distributed.initialize` was given."""
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: given.append(arguments))
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    return given


def test_the_environment_says_who_belongs_together(joined, monkeypatch):
    hosts.initialize()  # SLURM and TPU pods: JAX asks them
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    hosts.initialize()
    assert joined == [{}, {"coordinator_address": "a:1234", "num_processes": 2, "process_id": 0}]
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES=two: expected a whole number"):
        hosts.initialize()


def test_without_surroundings_the_sentence_says_what_to_set(joined, monkeypatch):
    del joined

    def nobody(**arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nobody)
    with pytest.raises(ValueError, match="coordinator_address should be defined. Start .*JAX_PROCESS_ID"):
        hosts.initialize()


def test_the_flag_of_every_experiment(joined):
    @dataclasses.dataclass
    class Config:
        seeds: int = 1

    assert not cli.parse("name", {"quick": Config()}, []).distributed
    assert cli.parse("name", {"quick": Config()}, ["--distributed"]).distributed

    def check(config):
        assert joined == [{}]  # before anything else
        raise ValueError("enough")

    with pytest.raises(SystemExit):
        cli.main("name", {"quick": Config()}, lambda *args, **kwargs: {}, check, ["--distributed"])
