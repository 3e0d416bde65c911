"""Executes the notebooks in place, so that they are kept with their outputs: python notebooks/execute.py."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def execute(path: Path) -> nbformat.NotebookNode:
    """Returns the notebook, executed afresh; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    # No times, no Python version: what is kept changes only when code or results do.
    NotebookClient(
        notebook, timeout=600, record_timing=False, extra_arguments=["--log-level=ERROR"]
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main(names: list[str]) -> None:
    """Executes the notebooks of these names, by default all."""
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        print(f"executing {path.name} ...", flush=True)
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
