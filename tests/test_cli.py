import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jaxmod as jm
from jaxmod import cli, configs, plots
from jaxmod.workdir import Workdir
from tests.results import make_results


@dataclasses.dataclass
class Config:
    seeds: int = 10
    hidden: tuple[int, ...] = (2000, 2000)
    rates: tuple[float, ...] = (0.1,)
    names: tuple[str, ...] = ("add", "mul")
    model: str = "fnn"
    beta: float = 1e-4
    keep: float | None = None
    copied: bool = False


OPTIONS = "--preset, --workdir, --data_dir, --distributed or --config.FIELD=VALUE"
PRESETS = {"quick": Config(seeds=1, hidden=(400,)), "paper": Config()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("/tmp/a,runs/b-1", ("/tmp/a", "runs/b-1")),
        ("order and noise,twice the steps", ("order and noise", "twice the steps")),
        ("a, b", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("'a','b'", ("a", "b")),
        ("1st", ("1st",)),
        ("", ()),
    ],
)
def test_words_need_no_quotes(given, words):
    assert cli.parse("toy", PRESETS, [f"--config.names={given}"]).config.names == words


def check(config):
    configs.check_choice("model", config.model, ("fnn", "lstm"))
    configs.check_positive(config, "seeds", "hidden")


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    monkeypatch.setitem(plots.STYLE, "savefig.dpi", 30)


class Runs:
    """Counts how often the experiment really ran; each call ends as told."""

    def __init__(self, *endings):
        self.endings = list(endings)
        self.configs = []

    def __call__(self, config, workdir=None, progress=False):
        assert isinstance(workdir, Workdir) and progress
        self.configs.append(config)
        if self.endings and (ending := self.endings.pop(0)) is not None:
            raise ending
        return {
            k: v for k, v in make_results(runs=1).items() if k not in ("experiment", "preset", "confusion")
        }


def refusal(capsys, *argv, run=None, check=check):
    """Returns the one sentence with which the command is refused, before any work."""
    run = run or Runs()
    with pytest.raises(SystemExit) as end:
        cli.main("fake", PRESETS, run, check, argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert run.configs == [] and out == ""
    assert err.startswith("fake: ") and err.count("\n") == 1
    return err.removeprefix("fake: ").strip()


@pytest.mark.parametrize(
    "argv, changes",
    [
        ([], {}),
        (["--config.seeds=3"], {"seeds": 3}),
        (["--config.seeds", "3"], {"seeds": 3}),
        (["--config.hidden=800,400,800"], {"hidden": (800, 400, 800)}),
        (["--config.hidden=800"], {"hidden": (800,)}),
        (["--config.hidden=800,"], {"hidden": (800,)}),
        (["--config.hidden=(8, 4)"], {"hidden": (8, 4)}),
        (["--config.rates=1,0.5"], {"rates": (1.0, 0.5)}),
        (["--config.names=mul,sub"], {"names": ("mul", "sub")}),
        (["--config.names=mul"], {"names": ("mul",)}),
        (["--config.beta=1"], {"beta": 1.0}),
        (["--config.keep=0.5"], {"keep": 0.5}),
        (["--config.copied"], {"copied": True}),
        (["--config.copied=true"], {"copied": True}),
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_overrides_are_applied_to_the_preset(argv, changes, preset):
    command = cli.parse("fake", PRESETS, [f"--preset={preset}", *argv])
    assert command.config == dataclasses.replace(PRESETS[preset], **changes)
    assert all(type(x) is float for x in command.config.rates)
    assert command.preset == preset and command.workdir == Path(f"runs/fake-{preset}")


def test_presets_are_not_changed_by_overrides():
    before = {name: dataclasses.asdict(config) for name, config in PRESETS.items()}
    cli.parse("fake", PRESETS, ["--config.seeds=77", "--config.hidden=7"])
    assert {name: dataclasses.asdict(config) for name, config in PRESETS.items()} == before


def test_an_override_equal_to_another_preset_s_default_counts():
    assert cli.parse("fake", PRESETS, ["--preset=quick", "--config.seeds=10"]).config.seeds == 10


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--preset=qick"], "--preset=qick: expected one of quick, paper."),
        (
            ["--config.hiden=3"],
            "--config.hiden: expected one of hidden, seeds, rates, names, model, beta, keep, copied.",
        ),
        (["--config.seeds=3.5"], "--config.seeds=3.5: expected an integer."),
        (["--config.seeds=1e4"], "--config.seeds=1e4: expected an integer."),
        (["--config.beta=much"], "--config.beta=much: expected a number."),
        (["--config.beta=nan"], "--config.beta=nan: expected a finite number."),
        (["--config.rates=nan"], "--config.rates=nan: expected numbers separated by commas."),
        (["--config.keep=some"], "--config.keep=some: expected a number."),
        (["--config.copied=maybe"], "--config.copied=maybe: expected true or false."),
        (["--config.hidden=8,8.5"], "--config.hidden=8,8.5: expected integers separated by commas."),
        (["--config.hidden=8,x"], "--config.hidden=8,x: expected integers separated by commas."),
        (["--config.hidden=8 8"], "--config.hidden=8 8: expected integers separated by commas."),
        (["--config.hidden=True"], "--config.hidden=True: expected integers separated by commas."),
        (["--config.hidden="], "hidden=: expected one or more numbers above 0."),
        (["--config.hidden=8,0"], "hidden=8,0: expected one or more numbers above 0."),
        (["--config.seeds=0"], "seeds=0: expected a number above 0."),
        (["--config.model=lstn"], "model='lstn': expected one of lstm, fnn."),
        (["--config=x"], "--config=x: set one field at a time, --config.FIELD=VALUE."),
        (
            ["--wrkdir=x"],
            f"--wrkdir is no option; expected {OPTIONS}.",
        ),
        (
            ["quick"],
            f"'quick' is no option; expected {OPTIONS}.",
        ),
        (["--config.seeds"], "Missing value for flag --config.seeds."),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, *argv) == sentence
    assert list(tmp_path.iterdir()) == []


def test_help_lists_fields_and_presets(capsys):
    cli.main("fake", PRESETS, Runs(), check, ["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "quick (default), paper" in "".join(lines)
    assert ["hidden", "400", "2000,2000"] in [line.split() for line in lines]


def test_a_run_leaves_everything_and_a_finished_one_is_not_computed_again(capsys, tmp_path):
    folder = tmp_path / "deep" / "run"
    argv = [f"--workdir={folder}", "--config.seeds=2"]
    run = Runs()
    cli.main("fake", PRESETS, run, check, argv)
    out = capsys.readouterr().out
    assert "Sharing (%)" in out and "The paper's statements" in out
    assert f"Report: {folder / 'report.html'}" in out and "Finished in " in out
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"] == "fake" and config["seeds"] == 2 and "preset" not in config
    results = json.loads((folder / "results.json").read_text())
    assert (results["experiment"], results["preset"]) == ("fake", "quick")
    images = sorted((folder / "figures").iterdir())
    assert len(images) == 4

    made = {path: path.stat().st_mtime_ns for path in [*images, folder / "report.html"]}
    cli.main("fake", PRESETS, run, check, argv)
    again = capsys.readouterr().out
    assert again.startswith("This run is finished; nothing is computed again. Report: ")
    assert "Sharing (%)" in again
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert len(run.configs) == 1


@pytest.mark.parametrize("lost", ["report.html", "figures/weights.png"])
def test_what_a_kill_after_the_results_left_out_is_made_later(lost, capsys, tmp_path):
    run = Runs()
    cli.main("fake", PRESETS, run, check, [f"--workdir={tmp_path}"])
    before = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    cli.main("fake", PRESETS, run, check, [f"--workdir={tmp_path}"])
    assert (tmp_path / lost).read_bytes() == before
    assert len(run.configs) == 1


def test_ctrl_c_says_how_to_go_on(capsys, tmp_path):
    run = Runs(KeyboardInterrupt(), None)
    with pytest.raises(SystemExit) as end:
        cli.main("fake", PRESETS, run, check, [f"--workdir={tmp_path}"])
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "Interrupted. The same command resumes where it stopped."
    cli.main("fake", PRESETS, run, check, [f"--workdir={tmp_path}"])  # the workdir was given up
    assert (tmp_path / "results.json").exists()


def test_a_workdir_of_another_config_is_refused(capsys, tmp_path):
    cli.main("fake", PRESETS, Runs(), check, [f"--workdir={tmp_path}"])
    capsys.readouterr()
    run = Runs()
    with pytest.raises(SystemExit) as end:
        cli.main("fake", PRESETS, run, check, [f"--workdir={tmp_path}", "--config.seeds=3"])
    err = capsys.readouterr().err
    assert end.value.code == 2 and run.configs == []
    assert "seeds: 1 there, 3 here" in err and "Traceback" not in err


def test_a_finished_run_is_shown_without_its_data_but_none_is_begun(capsys, tmp_path):
    def missing(config):
        raise ValueError("mnist is not on this computer")

    folder = tmp_path / "run"
    assert refusal(capsys, f"--workdir={folder}", check=missing) == "mnist is not on this computer"
    assert not folder.exists()
    cli.main("fake", PRESETS, Runs(), check, [f"--workdir={folder}"])
    capsys.readouterr()
    run = Runs()
    cli.main("fake", PRESETS, run, missing, [f"--workdir={folder}"])
    assert run.configs == [] and "This run is finished" in capsys.readouterr().out


def test_the_estimator_is_recorded_and_another_one_is_refused(capsys, tmp_path):
    def estimator(config):
        return jm.gumbel_sigmoid(temperature=1e4 * config.beta)

    argv = [f"--workdir={tmp_path}"]
    cli.main("fake", PRESETS, Runs(), check, argv, estimator=estimator)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["estimator"] == jm.gumbel_sigmoid(temperature=1.0).name
    assert config["key_impl"] == "threefry2x32"
    assert config["estimator"] in (tmp_path / "report.html").read_text().replace("&#x27;", "'")
    with pytest.raises(SystemExit):
        other = jm.gumbel_sigmoid(noise="jax")
        cli.main("fake", PRESETS, Runs(), check, argv, estimator=lambda _: other)
    err = capsys.readouterr().err
    assert "estimator: " in err and "noise='mix32'" in err and "noise='jax'" in err


def test_a_workdir_that_cannot_be_is_refused(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(capsys, f"--workdir={tmp_path / 'file'}")


@pytest.mark.parametrize(
    "error",
    [OSError("No space left"), FloatingPointError("run 2 is not finite"), cli.Refused("too few questions")],
)
def test_what_the_user_can_mend_is_one_sentence(error, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        cli.main("fake", PRESETS, Runs(error), check, [f"--workdir={tmp_path}"])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"fake: {error}\n"


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(ValueError, match="a bug"):
        cli.main("fake", PRESETS, Runs(ValueError("a bug")), check, [f"--workdir={tmp_path}"])


def test_as_a_module_of_its_own(tmp_path):
    source = """
        import dataclasses
        from jaxmod import cli, plots
        from tests.results import make_results

        @dataclasses.dataclass
        class Config:
            seeds: int = 1

        def run(config, workdir=None, progress=False):
            import warnings
            warnings.warn("layer 'a' is empty")
            return {k: v for k, v in make_results(runs=2).items() if k != "confusion"}

        if __name__ == "__main__":
            cli.main("tiny", {"quick": Config()}, run)
    """
    (tmp_path / "tiny.py").write_text(textwrap.dedent(source))
    root = Path(__file__).parent.parent
    # A terminal that can only show ASCII must not end the run.
    env = {**os.environ, "PYTHONPATH": f"{root}", "PYTHONIOENCODING": "ascii", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "warning: layer 'a' is empty\n"
    assert (tmp_path / "runs" / "tiny-quick" / "report.html").exists()
    bad = [*command, "--config.sed=1"]
    refused = subprocess.run(bad, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "tiny: --config.sed: expected seeds.\n"


def test_the_folder_of_data_sets_reaches_the_loaders_and_not_the_config(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMOD_DATA", "/elsewhere")
    command = cli.parse("toy", PRESETS, ["--data_dir=/data"])
    assert command.data_dir == "/data" and cli.parse("toy", PRESETS, []).data_dir is None
    seen = []

    def run(config, workdir=None, progress=False):
        seen.append(os.environ["JAXMOD_DATA"])
        return Runs()(config, workdir, progress)

    cli.main("toy", PRESETS, run, check, ["--data_dir=/data", f"--workdir={tmp_path}"])
    assert seen == ["/data"]
    assert "/data" not in (tmp_path / "config.json").read_text()
