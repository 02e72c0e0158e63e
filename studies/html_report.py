"""All pages in one HTML file that needs nothing else: no server, no network, readable on a
phone."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from studies.page import HEAD, Page, warnings
from utils.files import atomic_path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; color: #222; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
td, th { border-bottom: 1px solid #ddd; padding: 0.2rem 0.6rem; text-align: left; white-space: nowrap; }
.warning { background: #fff3cd; padding: 0.4rem 0.8rem; }
.missing { color: #8a3b00; }
"""


def write(pages: Sequence[Page], path: Path) -> Path:
    """Write the pages with something to show, then a list of what has not been run; whole or not at
    all."""
    with_rows = [page for page in pages if page.rows]
    contents = "\n".join(f'<li><a href="#page{place}">{escape(page.title)}</a>{_state(page)}</li>'
                         for place, page in enumerate(with_rows))
    missing = "\n".join(f"<li>{escape(page.title)}: {escape(line)}</li>" for page in pages
                        for line in
                        (page.missing if page.rows else page.missing or ["no run yet"]))
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<title>PEP, reproduced</title><style>{STYLE}</style></head><body>",
             "<h1>PEP, reproduced</h1>",
             f"<ul>{contents}</ul>" if contents else "<p>Nothing has been run yet.</p>",
             *(_section(place, page) for place, page in enumerate(with_rows)),
             f'<h2>What has not been run</h2><ul class="missing">{missing}</ul>' if missing else
             "<p>Nothing is missing.</p>", "</body></html>"]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return path


def _state(page: Page) -> str:
    return f' <span class="missing">({len(page.missing)} missing)</span>' if page.missing else ""


def _section(place: int, page: Page) -> str:
    parts = [f'<h2 id="page{place}">{escape(page.title)}</h2>']
    parts += [f'<p class="warning">{escape(line.replace("*", ""))}</p>'
              for line in warnings(page.behind)]
    if page.figure is not None:
        parts.append(f'<img alt="{escape(page.title)}" src="data:image/png;base64,{_png(page)}">')
    parts += [f"<p>{escape(note)}</p>" for note in (*page.notes, *page.left_out)]
    if page.cells:
        parts.append(_table(page.cells[0], page.cells[1:]))
    if page.numbers:
        parts.append(_table(HEAD, [number.cells() for number in page.shown_numbers]))
    return "\n".join(parts)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """One that is scrolled where it is wider than the page."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
                   for line in lines)
    return f'<div class="wide"><table><tr>{names}</tr>{rows}</table></div>'


def _png(page: Page) -> str:
    buffer = io.BytesIO()
    assert page.figure is not None
    page.figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
