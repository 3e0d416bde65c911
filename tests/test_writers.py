"""Progress: plain lines where nobody watches, a bar on a terminal."""

import io
import sys

import numpy as np

from jaxmod.writers import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_name_stage_step_and_metrics():
    file = io.StringIO()
    progress = Progress("masks", 20_000, file)
    assert file.getvalue() == ""  # nothing before there is something to say
    progress.update(1000, {"loss": np.array([[0.5, 0.7]]), "accuracy": np.array(0.25)})
    progress.update(20_000, {"loss": 1e-7})
    first, last = file.getvalue().splitlines()
    assert first == "masks: step 1,000 of 20,000  loss 0.6  accuracy 0.25  (0 s)"
    assert last == "masks: step 20,000 of 20,000  loss 1e-07  (0 s)"
    assert "\r" not in file.getvalue()


def test_a_terminal_gets_a_bar():
    file = Terminal()
    progress = Progress("masks", 30, file)
    progress.update(10, {"loss": np.array([1.0, 3.0])})
    progress.update(30, {"loss": np.array([1.0, 1.5])})
    text = file.getvalue()
    assert text.count("\r") >= 3 and "\nmasks: step" not in text
    last = text.rsplit("\r", 1)[-1]
    assert last.startswith("masks: 100%") and "30/30" in last and "loss 1.25" in last
    assert text.endswith("\n")  # closed: what is printed next has its own line


def test_a_bar_that_starts_in_the_middle_shows_the_step():
    file = Terminal()
    progress = Progress("masks", 100, file)
    progress.update(60, {})
    assert "60/100" in file.getvalue().rsplit("\r", 1)[-1]
    progress.update(100, {})


def test_the_default_is_standard_error(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    Progress("network", 2).update(1, {})
    assert file.getvalue().startswith("network: step 1 of 2")
