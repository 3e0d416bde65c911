"""Exports: every finite number of metrics.jsonl once, under its name."""

import contextlib
import json
import sys
import types

import pytest

from jaxmod import exports
from jaxmod.workdir import Workdir


@pytest.fixture
def workdir(tmp_path):
    with Workdir.open(tmp_path / "run", {"seeds": 2}) as folder:
        stage = folder.stage("masks")
        stage.log(10, {"task": "add", "loss": [0.5, 0.25], "steps_per_second": 3.0})
        stage.log(20, {"task": "add", "loss": [0.125, float("nan")]})
    return folder.path


def test_scalars_are_named_and_nan_is_left_out(workdir):
    assert list(exports.read_scalars(workdir)) == [
        ("masks/add/loss/run 0", 10, 0.5),
        ("masks/add/loss/run 1", 10, 0.25),
        ("masks/add/steps_per_second", 10, 3.0),
        ("masks/add/loss/run 0", 20, 0.125),
    ]


def test_wandb_gets_config_and_values(workdir, monkeypatch):
    logged, started = [], {}

    @contextlib.contextmanager
    def init(**options):
        started.update(options)
        yield types.SimpleNamespace(log=logged.append)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    exports.main([str(workdir), "--to=wandb", "--out=project"])
    assert started == {"project": "project", "name": "run", "config": json.loads('{"seeds": 2}')}
    assert logged[0] == {"masks/add/loss/run 0": 0.5, "step": 10} and len(logged) == 4


def test_tensorboard_gets_values(workdir, monkeypatch):
    written = []
    writer = types.SimpleNamespace(
        add_scalar=lambda *x: written.append(x), close=lambda: written.append("closed")
    )
    summary = types.SimpleNamespace(Writer=lambda logdir: written.append(logdir) or writer)
    monkeypatch.setitem(sys.modules, "tensorboard", types.SimpleNamespace(summary=summary))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", summary)
    exports.main([str(workdir), "--to=tensorboard", "--out=logs"])
    assert (
        written[0] == "logs" and written[1] == ("masks/add/loss/run 0", 0.5, 10) and written[-1] == "closed"
    )


def test_what_is_missing_is_said_in_a_sentence(workdir, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        exports.main([str(tmp_path), "--to=wandb", "--out=x"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit, match="2"):
        exports.main([str(workdir), "--to=wandb", "--out=x"])
    assert "jaxmod[wandb]" in capsys.readouterr().err
