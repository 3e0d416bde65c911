"""One self-contained page for a finished experiment: what was asked, the numbers, the figures.

Figures are embedded; nothing is loaded from elsewhere and nothing runs. Equal results give equal bytes.
"""

import base64
import html
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from jaxmod import files, reports
from jaxmod.reports import Results

__all__ = ["write_report"]

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 56rem; padding: 1.5rem 1rem 4rem; background: #fff; color: #222;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid #e3e3e3; }
p { margin: .5rem 0; }
.facts, .note, figcaption { color: #5c5c5c; font-size: .9rem; }
.question { font-size: 1.05rem; margin-top: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; min-width: 50%; }
th, td { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #ececec; }
thead th { border-bottom: 2px solid #cfcfcf; }
tbody td:first-child { font-weight: 600; }
tr.total > * { border-bottom: 2px solid #cfcfcf; }
.numbers th, .numbers td { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.yes { color: #00664b; font-weight: 600; }
.no { color: #b34700; font-weight: 700; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; display: block; }
code { font: .85rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
""".strip()


def write_report(
    results: Results, config: Mapping[str, Any], figures: Mapping[str, str | PathLike[str]], path: str | Path
) -> None:
    """Writes the page to `path`, which is replaced only when it is complete.

    Args:
      results: the contents of `results.json`; `question` and `notes` (sentences) are shown if there.
      config: every value of the run.
      figures: `{caption: path of a PNG}`, from `figures.draw_all`.
      path: of the page.
    """
    tables = reports.tables(results)
    title = ", ".join(str(results[key]) for key in ("experiment", "study", "model") if key in results)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *_introduction(results),
        *(_table(table) for table in tables if not table.detail),
        *(["<h2>Figures</h2>"] if figures else []),
        *(_figure(caption, Path(file)) for caption, file in figures.items()),
        *(_table(table) for table in tables if table.detail),
        _table(_configuration(config)),
    ]
    page = "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)} - jaxmod</title>",
            f"<style>\n{_CSS}\n</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>\n",
        ]
    ).encode()

    def write(file: BinaryIO) -> None:
        file.write(page)

    files.write_atomically(path, write)


def _introduction(results: Results) -> list[str]:
    facts = []
    if "preset" in results:
        facts.append(f"preset {results['preset']}")
    if "runs" in results:
        facts.append(
            "1 run" if results["runs"] == 1 else f"{results['runs']} runs, mean ± standard deviation"
        )
    lines = [f'<p class="facts">{html.escape("; ".join(facts))}</p>'] if facts else []
    if results.get("question"):
        lines.append(f'<p class="question">{html.escape(results["question"])}</p>')
    return lines + [f'<p class="note">{html.escape(note)}</p>' for note in results.get("notes", [])]


def _table(table: reports.Table) -> str:
    head = _row("th", table.header, [_style(table, i, "") for i in range(len(table.header))])
    rows = []
    for row in table.rows:
        line = _row("td", row, [_style(table, i, cell) for i, cell in enumerate(row)])
        rows.append(f'<tr class="total">{line}</tr>' if "total" in row[: table.words] else f"<tr>{line}</tr>")
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    numbers = ' class="numbers"' if table.words < len(table.header) else ""
    return "\n".join(
        [
            f"<h2>{html.escape(table.title)}</h2>{note}",
            f'<div class="scroll"><table{numbers}><thead><tr>{head}</tr></thead><tbody>',
            *rows,
            "</tbody></table></div>",
        ]
    )


def _style(table: reports.Table, column: int, cell: str) -> str:
    if table.header[column] == "holds":
        return {"yes": "yes", "NO": "no"}.get(cell, "")
    return "" if column < table.words else "number"


def _row(tag: str, cells: list[str], styles: list[str]) -> str:
    return "".join(
        f'<{tag} class="{style}">{html.escape(cell)}</{tag}>'
        if style
        else f"<{tag}>{html.escape(cell)}</{tag}>"
        for cell, style in zip(cells, styles, strict=True)
    )


def _figure(caption: str, file: Path) -> str:
    image = base64.b64encode(file.read_bytes()).decode()
    text = html.escape(caption)
    short = html.escape(caption.split(". ")[0], quote=True)
    image = f'<img alt="{short}" src="data:image/png;base64,{image}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _configuration(config: Mapping[str, Any]) -> reports.Table:
    rows = [[name, reports.format_value(value)] for name, value in config.items()]
    return reports.Table("Configuration", ["setting", "value"], rows, words=2)
