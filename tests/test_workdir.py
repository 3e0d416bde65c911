import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import records, workdir
from jaxmod.workdir import Workdir, fingerprint

ROOT = Path(__file__).parents[1]
CONFIG = {"seeds": 3, "model": {"hidden": (400, 200), "beta": 1e-4}, "clip_norm": float("inf")}


def child(code, *arguments, **environment):
    """Starts Python with `code` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_open_makes_the_folder_and_records_config_and_environment(tmp_path):
    path = tmp_path / "deep" / "run"
    with Workdir.open(path, CONFIG) as run:
        assert run.path == path
        assert run.results() is None
    config = json.loads((path / "config.json").read_text())
    assert config == {"seeds": 3, "model": {"hidden": [400, 200], "beta": 1e-4}, "clip_norm": "inf"}
    environment = json.loads((path / "environment.json").read_text())
    assert environment["jax"] == jax.__version__
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["platform"] == jax.default_backend()
    assert {"jaxlib", "jaxmod", "numpy", "flax", "optax", "device"} <= set(environment)


def test_the_same_config_opens_again(tmp_path):
    for _ in range(2):
        Workdir.open(tmp_path, CONFIG).close()
    same = {
        "seeds": np.int64(3),
        "model": {"hidden": [400, 200], "beta": np.float64(1e-4)},
        "clip_norm": np.inf,
    }
    Workdir.open(str(tmp_path), same).close()


def test_another_config_is_refused_by_key(tmp_path):
    Workdir.open(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").read_bytes()
    other = {"seeds": 5, "model": {"hidden": (400, 300), "beta": 1e-4}, "preset": "quick"}
    with pytest.raises(ValueError, match="another workdir, or delete this one") as caught:
        Workdir.open(tmp_path, other)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "seeds: 3 there, 5 here" in message
    assert "model.hidden: [400, 200] there, [400, 300] here" in message
    assert "preset: absent there, 'quick' here" in message
    assert "clip_norm: 'inf' there, absent here" in message
    assert "beta" not in message
    assert (tmp_path / "config.json").read_bytes() == before
    Workdir.open(tmp_path, CONFIG).close()  # the refusal let go of the folder


@pytest.mark.parametrize("content", ["", '{"seeds": 3', "[1, 2]", "\xff\x00"])
def test_a_damaged_config_is_an_error(tmp_path, content):
    Workdir.open(tmp_path, CONFIG).close()
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json (cannot be read|holds no JSON object).*delete"):
        Workdir.open(tmp_path, CONFIG)


def test_another_environment_is_a_warning(tmp_path, monkeypatch):
    Workdir.open(tmp_path, CONFIG).close()
    monkeypatch.setattr(records.importlib.metadata, "version", lambda name: "0.0.1")
    with pytest.warns(UserWarning, match=rf"jax: '{jax.__version__}' there, '0\.0\.1' here") as caught:
        Workdir.open(tmp_path, CONFIG).close()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_folder_that_cannot_be_written(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"workdir .*file.* cannot be written: (File exists|Not a directory)"
    ):
        Workdir.open(tmp_path / "file" / below, CONFIG)


def test_a_folder_where_no_file_can_be_made(tmp_path, monkeypatch):
    """Such as a full disk: opening the lock file works, writing does not."""
    Workdir.open(tmp_path, CONFIG).close()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(workdir.tempfile, "TemporaryFile", full)
        with pytest.raises(
            ValueError, match=f"workdir {tmp_path} cannot be written: No space left on device"
        ):
            Workdir.open(tmp_path, CONFIG)
    Workdir.open(tmp_path, CONFIG).close()


OPENS_AND_WAITS = """
import sys, time
from jaxmod.workdir import Workdir

run = Workdir.open(sys.argv[1], {"seeds": 3})
run.stage("add").log(1, {"loss": 0.5})
print("open", flush=True)
time.sleep(600)
"""


def test_one_owner_at_a_time_and_a_dead_one_blocks_nobody(tmp_path):
    process = child(OPENS_AND_WAITS, tmp_path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        with pytest.raises(
            ValueError, match=f"workdir {tmp_path} is in use by the running process {process.pid};"
        ):
            Workdir.open(tmp_path, {"seeds": 3})
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Workdir.open(tmp_path, {"seeds": 3}):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match=f"running process {os.getpid()};"):
            Workdir.open(tmp_path, {"seeds": 3})
    assert len(metrics(tmp_path)) == 1


def test_results(tmp_path):
    with Workdir.open(tmp_path, CONFIG) as run:
        run.write_results({"accuracy": np.float64(0.25), "layers": ("a", "b")})
    with Workdir.open(tmp_path, CONFIG) as run:
        assert run.results() == {"accuracy": 0.25, "layers": ["a", "b"]}
        with pytest.raises(ValueError, match="accuracy is nan"):
            run.write_results({"accuracy": float("nan")})
        assert run.results() == {"accuracy": 0.25, "layers": ["a", "b"]}
    (tmp_path / "results.json").write_text('{"accuracy": 0.')
    with (
        Workdir.open(tmp_path, CONFIG) as run,
        pytest.raises(ValueError, match=r"results\.json cannot be read"),
    ):
        run.results()


def test_log_writes_json_lines(tmp_path):
    with Workdir.open(tmp_path, CONFIG) as run:
        run.stage("add").log(10, {"loss": jnp.float32(0.5), "accuracy": [1.0, float("nan")], "task": "add"})
        assert metrics(tmp_path) == [
            {"phase": "add", "step": 10, "loss": 0.5, "accuracy": [1.0, None], "task": "add"}
        ]
        run.stage("mul").log(20, {"loss": -np.inf, "seen": np.int64(7)})
        assert metrics(tmp_path)[1] == {"phase": "mul", "step": 20, "loss": None, "seen": 7}


def test_a_stage_resumes_from_its_checkpoint(tmp_path):
    tree = {"logits": jnp.arange(3.0), "none": None}
    with Workdir.open(tmp_path, CONFIG) as run:
        add, mul = run.stage("add"), run.stage("mul")
        assert add.restore(tree) is None
        for step in (10, 20, 30):
            for stage in (add, mul):
                stage.log(step, {"loss": 1 / step})
            if step < 30:
                add.save(step, {**tree, "logits": tree["logits"] + step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "mul", "step": 40, "lo')  # killed while writing
    with Workdir.open(tmp_path, CONFIG) as run:
        assert len(metrics(tmp_path)) == 6
        restored = run.stage("add").restore(jax.eval_shape(lambda: tree))
        assert restored is not None
        step, found = restored
        assert step == 20
        np.testing.assert_array_equal(found["logits"], np.arange(3.0) + 20)
        kept = [(line["phase"], line["step"]) for line in metrics(tmp_path)]
        assert kept == [("add", 10), ("mul", 10), ("add", 20), ("mul", 20), ("mul", 30)]
        # A stage without a checkpoint begins anew, and its lines with it.
        assert run.stage("mul").restore(tree) is None
        assert [(line["phase"], line["step"]) for line in metrics(tmp_path)] == [("add", 10), ("add", 20)]
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["add"]


def test_restore_drops_a_line_cut_short(tmp_path):
    with Workdir.open(tmp_path, CONFIG) as run:
        run.stage("add").log(1, {})
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"phase": "mul", "st')
        run.stage("mul").restore({})
        assert metrics(tmp_path) == [{"phase": "add", "step": 1}]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "-rf", ".hidden", "a\nb", "a\x00", "ä", "x" * 101]
)
def test_odd_stage_names_are_refused(tmp_path, name):
    with (
        Workdir.open(tmp_path, CONFIG) as run,
        pytest.raises(ValueError, match="cannot name a stage, part or task"),
    ):
        run.stage(name)


def test_usual_stage_names_are_fine(tmp_path):
    with Workdir.open(tmp_path, CONFIG) as run:
        for name in ("dense", "control", "pair 1", "masks-add.2", "beta=1e-4, S=4"):
            assert run.stage(name).name == name


FINGERPRINT = """
import jax, numpy as np
from jaxmod.workdir import fingerprint

print(fingerprint({"w": np.arange(6.0), "key": jax.random.key(3), "none": None, "b": jax.numpy.ones((2, 3))}))
"""


def test_fingerprint_is_the_same_in_every_process():
    tree = {"b": np.ones((2, 3), np.float32), "w": np.arange(6.0), "key": jax.random.key(3), "none": None}
    process = child(FINGERPRINT, PYTHONHASHSEED="17")
    assert process.communicate()[0].strip() == fingerprint(tree)


def test_fingerprint_sees_paths_dtypes_shapes_and_contents():
    trees = [
        {"w": np.zeros(6)},
        {"v": np.zeros(6)},
        {"w": np.zeros((2, 3))},
        {"w": np.zeros(6, np.int64)},
        {"w": np.eye(1, 6)[0]},
        {"w": np.zeros(3), "x": np.zeros(3)},
        {"w": -np.zeros(6)},
        {"key": jax.random.key(0)},
        {"key": jax.random.key(1)},
        {"key": jax.random.key_data(jax.random.key(0))},
        {},
    ]
    assert len({fingerprint(tree) for tree in trees}) == len(trees)


def test_fingerprint_refuses_objects():
    with pytest.raises(ValueError, match="'model/f' is .* expected an array"):
        fingerprint({"model": {"f": len}})


def test_a_stage_goes_on_with_what_it_was_begun_with(tmp_path):
    with workdir.Workdir.open(tmp_path, {}) as folder:
        stage = folder.stage("masks")
        stage.guard({"config": {"beta": 1e-4}, "params": "abc"})
        stage.guard({"config": {"beta": 1e-4}, "params": "abc"})
        with pytest.raises(ValueError, match=r"stage 'masks'.*\n.*config.beta: 0.0001 there, 0.001 here"):
            stage.guard({"config": {"beta": 1e-3}, "params": "abc"})
        with workdir.open_stage(folder, "other", lambda: {"a": 1}) as other:
            assert other is not None and other.name == "other"
        with pytest.raises(ValueError, match="a: 1 there, 2 here"):
            with workdir.open_stage(other, "other", lambda: {"a": 2}):
                pass
    with workdir.open_stage(None, "masks", lambda: 1 / 0) as nothing:
        assert nothing is None


def test_stages_whose_names_have_dots_are_apart(tmp_path):
    with Workdir.open(tmp_path, {}) as workdir:
        for q in (0.1, 0.2):
            workdir.stage(f"masks, q={q}").guard({"q": q})
        workdir.stage("masks, q=0.1").guard({"q": 0.1})


def test_only_leftovers_of_our_own_are_removed(tmp_path):
    theirs, ours = tmp_path / ".notes.tmp", tmp_path / f".results.json.{'0' * 32}.tmp"
    theirs.write_text("theirs")
    ours.write_text("half")
    with workdir.Workdir.open(tmp_path, {}):
        assert theirs.exists() and not ours.exists()


def test_a_part_is_computed_once_and_is_what_json_keeps(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"n_cuts": (1.5, 2.0), "p": None}

    expected = {"n_cuts": [1.5, 2.0], "p": None}
    with Workdir.open(tmp_path, CONFIG) as run:
        assert run.part("mnist, k=4", compute) == expected
    with Workdir.open(tmp_path, CONFIG) as run:
        assert run.part("mnist, k=4", compute) == expected and len(calls) == 1
        (tmp_path / "parts" / "mnist, k=4.json").write_text('{"value": {"n_cuts": [1.')
        with pytest.raises(ValueError, match="cut short or edited\\? Delete the file to compute it again"):
            run.part("mnist, k=4", compute)
        with pytest.raises(ValueError, match="'../x' cannot name a stage, part or task"):
            run.part("../x", compute)


def test_a_part_that_fails_leaves_nothing(tmp_path):
    with Workdir.open(tmp_path, CONFIG) as run:
        with pytest.raises(ZeroDivisionError):
            run.part("half", lambda: 1 / 0)
        assert run.part("half", lambda: 0.5) == 0.5
