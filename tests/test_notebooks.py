"""The notebooks run without an error, and are kept as they were executed: with outputs and figures."""

import os
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def figures(notebook):
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["compose_transforms", "mask_any_model"]


@each_notebook
def test_a_notebook_is_kept_as_executed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert figures(notebook)
    assert all(
        output.output_type != "error" and output.get("name") != "stderr" for output in outputs(notebook)
    )
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [place for place in ("/home/", "/root/", "/tmp/", str(ROOT)) if place in path.read_text()]


@each_notebook
def test_a_notebook_runs(path, monkeypatch):
    # The kernel is a process of its own, which has to find the repository too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])]))
    executed = runpy.run_path(str(ROOT / "notebooks" / "execute.py"))["execute"](path)
    kept = nbformat.read(path, as_version=4)
    assert len(figures(executed)) == len(figures(kept))
    assert not [output for output in outputs(executed) if output.get("name") == "stderr"]


def test_the_transforms_are_composed_in_under_forty_lines():
    notebook = nbformat.read(ROOT / "notebooks" / "compose_transforms.ipynb", as_version=4)
    lines = [line for cell in code_cells(notebook) for line in cell.source.splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 40
    assert not any("find_modules" in line for line in lines)
