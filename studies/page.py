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
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from studies import sampling
from studies.figures import budget_curve
from studies.figures.styles import RED
from studies.kinds import Results
from studies.names import shown
from studies.table import Table, spread
from utils.files import atomic_path
from utils.text import counted

HEAD = ("number", "ours (mean ± s.d.)", "seeds", "paper", "difference", "sampling error", "why")
OPEN = "not explained yet"  # of a difference
LETTERS = 18  # of a line of the picture's title that fit into an inch
OLDER = ("**Warning:** the picture is older than this page, because runs or files that it shows "
         "are missing now (see the end). Its numbers may differ from those below.")
SAMPLING = ("Sampling error: the standard error of the AUC on so many test rows (Hanley and "
            "McNeil), which the spread over seeds does not hold, since all seeds share the test "
            "rows.")
DRAWN = "Drawn from"  # in a picture's file: the files behind it, beside the records
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
    # of an AUC: its standard error on the test rows (`studies.sampling`)
    sampling: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else statistics.mean(self.values) - self.paper

    @property
    def spread(self) -> float:
        """Standard deviation of a sample; 0 for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def verdict(self) -> str:
        """Ours beside the paper's: equal where they differ by no more than one standard deviation
        over seeds, or one sampling error of the test rows.

        >>> [Number("AUC", [0.80, 0.82], 2, paper).verdict for paper in (0.8, 0.7)]
        ['equal', 'higher']
        """
        difference = self.difference or 0.0
        if abs(difference) <= max(self.spread, self.sampling or 0.0):
            return "equal"
        return "higher" if difference > 0 else "lower"

    def cells(self) -> tuple[str, ...]:
        """Under HEAD.

        >>> Number("AUC", [0.80, 0.82], 2, paper=0.8, why="another split", sampling=0.0014).cells()
        ('AUC', '0.8100 ± 0.0141', '2', '0.8000', '+0.0100', '± 0.0014', 'another split')
        >>> Number("rows", [739012], form=",.0f").cells()
        ('rows', '739,012', '-', '', '', '', '')
        >>> Number("gain", [0.01], 1, form="+.2f", beside="one seed shows nothing").cells()[1]
        '+0.01 (one seed shows nothing)'
        """
        ours = spread(self.values, self.form) + (f" ({self.beside})" if self.beside else "")
        paper = difference = sampling = ""
        if self.paper is not None and self.difference is not None:
            paper = format(self.paper, self.form)
            difference = format(self.difference, f"+{self.form.lstrip('+')}")
            if self.sampling is not None:
                sampling = f"± {format(self.sampling, self.form)}"
        return self.what, ours, str(self.seeds or "-"), paper, difference, sampling, self.why


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
    # what the picture shows, which runs were chosen
    notes: list[str] = field(default_factory=list, init=False)
    # of the csv; each has RUNS
    rows: list[dict[str, Any]] = field(default_factory=list, init=False)
    numbers: list[Number] = field(default_factory=list, init=False)
    missing: list[str] = field(default_factory=list, init=False)
    # the results that were used
    behind: list[dict[str, Any]] = field(default_factory=list, init=False)
    figure: Figure | None = field(default=None, init=False)
    tables: list[Table] = field(default_factory=list, init=False)
    # what the page comes to, a sentence each
    verdicts: list[str] = field(default_factory=list, init=False)
    # which runs may not stand here, and how many
    left_out: list[str] = field(default_factory=list, init=False)
    # what the picture is drawn from, beside records
    drawn: set[str] = field(default_factory=set, init=False)
    lost: set[str] = field(default_factory=set, init=False)  # such files that are not here now
    # by manifest; older records lack it
    data: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    sample: str = field(default="", init=False)  # the data in words, where not all rows are there

    @property
    def stem(self) -> str:
        """Of its files: fig10_movielens_fm."""
        return "_".join(part for part in (self.name, self.dataset, self.model) if part)

    @property
    def body(self) -> list[str | Table]:
        """Paragraphs and tables below the picture, in their order."""
        parts: list[str | Table] = list(self.notes) if self.behind else []
        parts += [*self.left_out, *self.tables]
        if self.numbers:
            cells = [number.cells() for number in self.shown_numbers]
            parts.append(Table(HEAD, cells))
            if any(line[HEAD.index("sampling error")] for line in cells):
                parts.append(SAMPLING)
        return parts

    def of_sample(self, words: str) -> None:
        """Say in the title that the data are a sample; then nothing stands beside the paper."""
        if not self.sample:
            self.sample = words
            self.title += f", {words}"

    @property
    def shown_numbers(self) -> list[Number]:
        """The numbers as they are printed: without the paper's where the data are a sample."""
        if not self.sample:
            return self.numbers
        return [_without_paper(one) for one in self.numbers]

    def lose(self, file: str, line: str) -> None:
        """Note that a file which the picture would show cannot be had, and list it as missing.

        Args:
            file: its name, the same that `drawn` has of a file that can be had.
            line: about it, for the list of what is missing.
        """
        self.lost.add(file)
        self.list_missing(line)

    def list_missing(self, line: str) -> None:
        """Add a line to what is missing, once."""
        if line not in self.missing:
            self.missing.append(line)


def mark_synthetic(page: Page, kind: str) -> Page:
    """Say in title, file name, picture, every row and every number that the data are synthetic.

    Args:
        kind: of synthetic data, as the folder with the runs is named.
    """
    real = shown(page.dataset)
    page.dataset = f"planted_{page.dataset}"
    if page.sample:  # synthetic data are never all rows of the real ones
        page.title, page.sample = page.title.removesuffix(f", {page.sample}"), ""
    made = f"synthetic {kind.replace('_', ' ')} in {real}'s format"
    title = page.title.replace(f"on {real}", f"on {made}").replace(f"of {real}", f"of {made}")
    page.title = f"SYNTHETIC DATA. {title}" + ("" if made in title else f", {made}")
    page.verdicts = []
    page.rows = [{"data": "synthetic", **row} for row in page.rows]
    page.numbers = [_without_paper(one) for one in page.numbers]
    page.notes.insert(0, f"The data are synthetic: a file in {real}'s raw format with labels from "
                         f"a known teacher. It shows that the code works, not what a method does "
                         f"on {real}, and nothing stands beside the paper.")
    if page.figure is not None:
        for axes in page.figure.axes:
            axes.title.set_text(axes.get_title().replace(real, f"synthetic {real}"))
        fits = int(LETTERS * page.figure.get_figwidth())
        page.figure.suptitle(textwrap.fill(page.title, fits), fontsize=7, color=RED)
        page.figure.text(0.5, 0.5, "synthetic data", fontsize=34, color=RED, alpha=0.15,
                         rotation=20, ha="center", va="center")
    return page


def _without_paper(one: Number) -> Number:
    return one._replace(paper=None, why="" if one.paper is not None else one.why)


def write(page: Page, folder: Path) -> list[Path]:
    """Write folder/<stem>.csv, .png where there is a picture, and .md, each whole or not at all;
    the text comes last.

    Raises:
        ValueError: a row names no run.
    """
    table, (content, is_older) = _csv(page.rows), picture(page, folder)
    written = [_put(folder / f"{page.stem}.csv", table.encode())]
    if content is not None and not is_older:
        written.append(_put(folder / f"{page.stem}.png", content))
    said = text(page, older_picture=is_older)
    return [*written, _put(folder / f"{page.stem}.md", said.encode())]


def picture(page: Page, folder: Path) -> tuple[bytes | None, bool]:
    """The page's PNG, None without one; and whether it is an older one, kept in `folder`.

    A picture there that shows more than can be drawn now is kept: the files behind it (curves,
    weights, snapshots) are not in every copy of the records.
    """
    path = folder / f"{page.stem}.png"
    if path.exists() and (page.figure is None or _shows_more(path, page)):
        return path.read_bytes(), True
    if page.figure is None:
        return None, False
    return budget_curve.png(page.figure, {DRAWN: " ".join(sorted(page.drawn))}), False


def _shows_more(picture: Path, page: Page) -> bool:
    """Whether a picture was drawn from files that are not here now.

    One that does not say what it was drawn from may have been, where any file is missing.
    """
    try:
        with Image.open(picture) as opened:
            content = opened.info.get(DRAWN)
    except OSError:  # no picture at all: nothing is lost
        return False
    return bool(page.lost if content is None else page.lost & set(content.split()))


def text(page: Page, older_picture: bool = False) -> str:
    """The page in Markdown.

    Args:
        older_picture: the picture beside it is of an earlier writing.
    """
    parts = [f"# {page.title}", *warnings(page.behind)]
    if not page.behind:
        parts.append("There is nothing to show yet.")
    if page.figure is not None or older_picture:
        parts.append(f"![{page.title}]({page.stem}.png)")
    if older_picture:
        parts.append(OLDER)
    parts += [part if isinstance(part, str) else part.markdown() for part in page.body]
    if page.missing:
        parts.append("\n".join(["Missing:\n", *(f"- {line}" for line in page.missing)]))
    else:
        parts.append("Nothing is missing.")
    if page.rows:
        parts.append(f"Every row of `{page.stem}.csv` names the runs behind it.")
    return "\n\n".join(parts) + "\n"


def warnings(results: Results) -> list[str]:
    """A line for results of several commits, and one for results of several data manifests.

    >>> warnings([{"run_id": "a", "commit": "c" * 40, "manifest": "m"},
    ...           {"run_id": "b", "manifest": "m"}])
    ['**Warning:** the runs come from 2 commits: ccccccc (1 run), none recorded (1 run).']
    """
    distinct = list({result["run_id"]: result for result in results}.values())
    return [*_several("commits", [_short(result.get("commit")) for result in distinct]),
            *_several("data manifests", [result["manifest"] for result in distinct])]


def needs(page: Page, field_name: str, results: Results, why: str) -> list[dict[str, Any]]:
    """The results that have a field; those that lack it (older ones) are named among what is
    missing."""
    for result in results:
        if field_name not in result:
            page.missing.append(f"run {result['run_id']} (seed {result['seed']}) has no "
                                f"`{field_name}`: {why}")
    return [result for result in results if field_name in result]


def runs_of(results: Iterable[dict[str, Any]]) -> str:
    """Their ids, as a csv row names them."""
    return " ".join(result["run_id"] for result in results)


def number(what: str, results: Results, value: Callable[[dict[str, Any]], float],
           paper: float | None = None,
           why: str = "", form: str = ".4f") -> Number:
    """Mean and spread of a value over results."""
    return Number(what, [value(result) for result in results],
                  len({result["seed"] for result in results}), paper,
                  why, form)


def with_sampling_error(auc: Number, data: dict[str, Any] | None) -> Number:
    """An AUC with its standard error on the test rows of `data`, where these are known."""
    return auc._replace(sampling=sampling.of_data(statistics.mean(auc.values), data))


def bytes_counted(results: Results) -> list[str]:
    """A line for results of which some count bytes as the file of an exported model takes them, and
    some, older ones, with more for every row and entry. A table without anything beside its values
    counts the same in both ways.

    >>> bytes_counted([{"run_id": "a", "num_embedding_params": 2, "inference_bytes": 30},
    ...                {"run_id": "b", "num_embedding_params": 2, "inference_bytes": 12,
    ...                 "bytes_counted": "exported file"}])  # doctest: +ELLIPSIS
    ['**Warning:** the runs come from 2 ways of counting bytes: older, ... exported file (1 run).']
    """
    distinct = {result["run_id"]: result for result in results}.values()
    beside = [result for result in distinct
              if result.get("inference_bytes") != 4 * result["num_embedding_params"]]
    return _several("ways of counting bytes", [result.get("bytes_counted", "older, larger")
                                               for result in beside])


def _several(what: str, found: Sequence[str]) -> list[str]:
    counts = Counter(found)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{name} ({counted(count, 'run')})" for name,
                       count in counts.most_common())
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
    names = dict.fromkeys(chain.from_iterable(rows))
    columns = [name for name in names if name != RUNS]
    file = io.StringIO()
    writer = csv.DictWriter(file, [*columns, RUNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _put(path: Path, content: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
