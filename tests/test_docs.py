"""The API page is the one that the docstrings give."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_api_page_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["render"]()
    assert (ROOT / "docs" / "api.md").read_text() == page, "run `make docs`"
