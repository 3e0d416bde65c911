import re

import pytest

from jaxmod import figures, pages
from tests.results import make_results, make_study


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = make_results()
    drawn = figures.draw_all(results, folder)
    pages.write_report(results, {"experiment": "addmul", "hidden": (8, 8)}, drawn, folder / "report.html")
    return (folder / "report.html").read_text()


def test_the_page_is_self_contained(page):
    assert "http" not in page
    assert "<script" not in page and "<link" not in page and "url(" not in page
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(re.findall("<img", page)) == 5


def test_the_page_says_what_was_asked_and_found(page):
    assert "Which weights add &amp; which multiply? &lt;b&gt;" in page
    assert "<b>" not in page
    for text in ("Validation is not disjoint", "60.0 ± 2.0", "8,8", 'class="no">NO', "Half-mask", "log10 p"):
        assert text in page
    assert page.count("<table") == page.count("</table>") == 8


def test_equal_results_give_equal_pages(tmp_path, page):
    results = make_results()
    drawn = figures.draw_all(results, tmp_path)
    pages.write_report(results, {"experiment": "addmul", "hidden": (8, 8)}, drawn, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page


def test_a_study_has_a_page(tmp_path):
    results = make_study("temperature")
    pages.write_report(results, {}, figures.draw_all(results, tmp_path), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h1>robustness, temperature, fnn</h1>" in page and "control accuracy (%)" in page
