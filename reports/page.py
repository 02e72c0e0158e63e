"""One page of the report: a figure or table of the paper, as a csv, a picture and a Markdown file.

A page is written with whatever runs there are, and lists in words what is missing.
"""

import csv
import io
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from reports import budget_curve
from reports.kinds import Results
from reports.names import shown
from reports.styles import RED
from reports.summary import markdown
from utils.files import atomic_path

HEAD = ("number", "ours (mean ± s.d.)", "seeds", "paper", "difference", "why")
OPEN = "not explained yet"  # of a difference
LETTERS = 18  # of a line of the picture's title that fit into an inch
RUNS = "runs"  # the column of a csv that names the runs behind a row


class Number(NamedTuple):
    """One number of ours, beside the paper's where it gives one."""

    what: str
    values: Sequence[float]  # one a run
    seeds: int = 0  # among the runs; 0 for what no seed changes
    paper: float | None = None
    why: str = ""  # the difference, in one clause
    form: str = ".4f"
    beside: str = ""  # what the value needs to be read, such as its confidence interval

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else statistics.mean(self.values) - self.paper

    @property
    def spread(self) -> float:
        """Standard deviation of a sample; 0 for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def cells(self) -> tuple[str, ...]:
        """Under HEAD.

        >>> Number("AUC", [0.80, 0.82], 2, paper=0.8, why="another split").cells()
        ('AUC', '0.8100 ± 0.0141', '2', '0.8000', '+0.0100', 'another split')
        >>> Number("rows", [739012], form=",.0f").cells()
        ('rows', '739,012', '-', '', '', '')
        >>> Number("gain", [0.01], 1, form="+.2f", beside="one seed shows nothing").cells()[1]
        '+0.01 (one seed shows nothing)'
        """
        ours = format(statistics.mean(self.values), self.form)
        if len(self.values) > 1:
            ours += f" ± {format(self.spread, self.form.lstrip('+'))}"
        ours += f" ({self.beside})" if self.beside else ""
        paper = "" if self.paper is None else format(self.paper, self.form)
        difference = "" if self.difference is None else format(self.difference, f"+{self.form.lstrip('+')}")
        return self.what, ours, str(self.seeds or "-"), paper, difference, self.why


@dataclass
class Page:
    """What is found for one figure or table; the parts are added one by one.

    Args:
        name: of the figure or table, such as fig10.
        dataset, model: that it shows; model None where it shows them all.
        title: a line.
    """

    name: str
    dataset: str
    model: str | None
    title: str
    notes: list[str] = field(default_factory=list, init=False)  # what the picture shows, which runs were chosen
    rows: list[dict[str, Any]] = field(default_factory=list, init=False)  # of the csv; each has RUNS
    numbers: list[Number] = field(default_factory=list, init=False)
    missing: list[str] = field(default_factory=list, init=False)
    behind: list[dict[str, Any]] = field(default_factory=list, init=False)  # the results that were used
    figure: Figure | None = field(default=None, init=False)
    cells: list[tuple[str, ...]] = field(default_factory=list, init=False)  # a table in words, its head first

    @property
    def stem(self) -> str:
        """Of its files: fig10_movielens_fm."""
        return "_".join(part for part in (self.name, self.dataset, self.model) if part)

    def list_missing(self, line: str) -> None:
        """Add a line to what is missing, once."""
        if line not in self.missing:
            self.missing.append(line)


def mark_planted(page: Page, kind: str) -> Page:
    """Say in title, file name, picture, every row and every number that the data are planted and not the real ones.

    Args:
        kind: of planted data, as the folder with the runs is named.
    """
    real = shown(page.dataset)
    page.dataset = f"planted_{page.dataset}"
    made = f"planted {kind.replace('_', ' ')} in {real}'s format"
    title = page.title.replace(f"on {real}", f"on {made}").replace(f"of {real}", f"of {made}")
    page.title = f"PLANTED DATA. {title}" + ("" if made in title else f", {made}")
    page.rows = [{"data": "planted", **row} for row in page.rows]
    page.numbers = [one._replace(paper=None, why="" if one.paper is not None else one.why) for one in page.numbers]
    page.notes.insert(0, f"The data are made: a file in {real}'s raw format with labels from a known teacher. It shows "
                         f"that the code works, not what a method does on {real}, and nothing stands beside the paper.")
    if page.figure is not None:
        for axes in page.figure.axes:
            axes.title.set_text(axes.get_title().replace(real, f"planted {real}"))
        fits = int(LETTERS * page.figure.get_figwidth())
        page.figure.suptitle(textwrap.fill(page.title, fits), fontsize=7, color=RED)
        page.figure.text(0.5, 0.5, "planted data", fontsize=34, color=RED, alpha=0.15, rotation=20, ha="center",
                         va="center")
    return page


def write(page: Page, folder: Path) -> list[Path]:
    """Write folder/<stem>.csv, .png where there is a picture, and .md, each whole or not at all; the text comes last.

    A picture that an earlier writing left is removed where there is none now, lest it pass for today's.

    Raises:
        ValueError: a row names no run.
    """
    written = [_put(folder / f"{page.stem}.csv", _csv(page.rows))]
    picture = folder / f"{page.stem}.png"
    if page.figure is not None:
        written.append(budget_curve.save(page.figure, picture))
    else:
        picture.unlink(missing_ok=True)
    return [*written, _put(folder / f"{page.stem}.md", text(page))]


def text(page: Page) -> str:
    """The page in Markdown."""
    parts = [f"# {page.title}"]
    parts += warnings(page.behind)
    if not page.behind:
        parts.append("There is nothing to show yet.")
    if page.figure is not None:
        parts.append(f"![{page.title}]({page.stem}.png)")
    if page.behind:
        parts += page.notes
    if page.cells:
        parts.append(markdown(page.cells[0], page.cells[1:]))
    if page.numbers:
        parts.append(markdown(HEAD, [number.cells() for number in page.numbers]))
    parts.append("\n".join(["Missing:\n", *(f"- {line}" for line in page.missing)]) if page.missing
                 else "Nothing is missing.")
    if page.rows:
        parts.append(f"Every row of `{page.stem}.csv` names the runs behind it.")
    return "\n\n".join(parts) + "\n"


def warnings(results: Results) -> list[str]:
    """A line for results of several commits, and one for results of several data manifests.

    >>> warnings([{"run_id": "a", "commit": "c" * 40, "manifest": "m"}, {"run_id": "b", "manifest": "m"}])
    ['**Warning:** the runs come from 2 commits: ccccccc (1 run), none recorded (1 run).']
    """
    distinct = list({result["run_id"]: result for result in results}.values())
    return [*_several("commits", [_short(result.get("commit")) for result in distinct]),
            *_several("data manifests", [result["manifest"] for result in distinct])]


def needs(page: Page, field_name: str, results: Results, why: str) -> list[dict[str, Any]]:
    """The results that have a field; those that lack it (older ones) are named among what is missing."""
    for result in results:
        if field_name not in result:
            page.missing.append(f"run {result['run_id']} (seed {result['seed']}) has no `{field_name}`: {why}")
    return [result for result in results if field_name in result]


def runs_of(results: Iterable[dict[str, Any]]) -> str:
    """Their ids, as a csv row names them."""
    return " ".join(result["run_id"] for result in results)


def number(what: str, results: Results, value: Callable[[dict[str, Any]], float], paper: float | None = None,
           why: str = "", form: str = ".4f") -> Number:
    """Mean and spread of a value over results."""
    return Number(what, [value(result) for result in results], len({result["seed"] for result in results}), paper,
                  why, form)


def _several(what: str, found: Sequence[str]) -> list[str]:
    counts = Counter(found)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{name} ({count} run{'s' * (count > 1)})" for name, count in counts.most_common())
    return [f"**Warning:** the runs come from {len(counts)} {what}: {listed}."]


def _short(commit: str | None) -> str:
    if not commit:
        return "none recorded"
    name, plus, changes = commit.partition("+")
    return name[:7] + plus + changes


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    nameless = [row for row in rows if not row.get(RUNS)]
    if nameless:
        raise ValueError(f"a row of a page names no run: {nameless[0]}")
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != RUNS]
    file = io.StringIO()
    writer = csv.DictWriter(file, [*columns, RUNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _put(path: Path, content: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(content)
    return path
