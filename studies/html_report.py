"""All pages in one HTML file that needs nothing else: no server, no network, readable on a
phone."""

import base64
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from itertools import chain
from pathlib import Path

from studies.kinds import Results
from studies.names import shown
from studies.page import OLDER, Page, picture, warnings
from studies.table import Table
from utils.files import atomic_path
from utils.text import counted

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem;
       color: #222; }
h1, h2, p, ul { max-width: 46rem; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; }
td, th { border-bottom: 1px solid #ddd; padding: 0.2rem 0.6rem; text-align: left;
         vertical-align: top; }
td { white-space: nowrap; }
td:first-child, td:last-child { white-space: normal; min-width: 8rem; }
.about { color: #555; }
.warning { background: #fff3cd; padding: 0.4rem 0.8rem; }
.missing { color: #8a3b00; }
"""
Shown = tuple[Page, Path]  # and the folder with its pictures


def write(pages: Sequence[Shown], results: Results, path: Path) -> Path:
    """Write what the runs come to, a list of contents, the pages, and at the end what has not been
    run; whole or not at all.

    Args:
        pages: each with the folder that its pictures are in.
        results: of all runs, for the line on when and where they were made.
    """
    filled = [(page, folder) for page, folder in pages if page.rows]
    anchors = {id(page): f"page{place}" for place, (page, _) in enumerate(filled)}
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<title>PEP, reproduced</title><style>{STYLE}</style></head><body>",
             "<h1>PEP, reproduced</h1>", *_verdict([page for page, _ in filled]), _about(results),
             *_contents([page for page, _ in filled], anchors),
             *(_section(page, folder, anchors[id(page)]) for page, folder in filled),
             *_missing([page for page, _ in pages]), "</body></html>"]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return path


def _verdict(pages: Sequence[Page]) -> list[str]:
    """What the pages come to, and how many of the paper's numbers are met."""
    lines = list(dict.fromkeys(chain.from_iterable(page.verdicts for page in pages)))
    numbers = chain.from_iterable(page.shown_numbers for page in pages)
    beside = [number for number in numbers
              if number.paper is not None and number.sampling is not None]
    if beside:
        found = Counter(number.verdict for number in beside)
        counts = ", ".join(f"{count} {word}" for word, count in found.most_common())
        lines.append(f"AUCs that the paper gives too: {counts} (equal is within one standard "
                     f"deviation over seeds, or one sampling error of the test rows).")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return ["<h2>Verdict</h2>", f"<ul>{items}</ul>"] if lines else []


def _about(results: Results) -> str:
    """When and where."""
    devices = Counter(run.get("device") or "an unnamed device" for run in results)
    listed = ", ".join(f"{name} ({count})" for name, count in devices.most_common())
    runs = f"{counted(len(results), 'run')}, by device: {listed}." if results else "No run yet."
    machine = escape(f"{platform.system()} {platform.machine()}")
    return f'<p class="about">Written on {date.today()} on {machine}. {escape(runs)}</p>'


def _contents(pages: Sequence[Page], anchors: Mapping[int, str]) -> list[str]:
    if not pages:
        return ["<p>Nothing has been run yet.</p>"]
    parts = ["<h2>Contents</h2>"]
    for dataset in dict.fromkeys(page.dataset for page in pages):
        items = "".join(f'<li><a href="#{anchors[id(page)]}">{escape(page.title)}</a></li>'
                        for page in pages if page.dataset == dataset)
        parts.append(f"<p>{escape(shown(dataset))}</p><ul>{items}</ul>")
    return parts


def _section(page: Page, folder: Path, anchor: str) -> str:
    parts = [f'<h2 id="{anchor}">{escape(page.title)}</h2>']
    content, is_older = picture(page, folder)
    said = [*warnings(page.behind), *([OLDER] if is_older else [])]
    parts += [f'<p class="warning">{escape(line.replace("*", ""))}</p>' for line in said]
    if content is not None:
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        parts.append(f'<img alt="{escape(page.title)}" src="{source}">')
    parts += [f"<p>{escape(part)}</p>" if isinstance(part, str) else _table(part)
              for part in page.body]
    return "\n".join(parts)


def _table(table: Table) -> str:
    """One that scrolls in its own box where it is wider than the page."""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>"
                   for line in table.rows)
    return f'<div class="table"><table><tr>{head}</tr>{rows}</table></div>'


def _missing(pages: Sequence[Page]) -> list[str]:
    """What has not been run, folded."""
    lines = []
    for page in pages:
        absent = page.missing or ([] if page.rows else ["no run yet"])
        lines += [f"<li>{escape(page.title)}: {escape(line)}</li>" for line in absent]
    if not lines:
        return ["<p>Nothing is missing.</p>"]
    how_many = counted(len(lines), "line")
    return [f'<details class="missing"><summary>What has not been run ({how_many})</summary>'
            f"<ul>{''.join(lines)}</ul></details>"]
