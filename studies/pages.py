"""Drawing pages from records; nothing is trained.

    python -m studies.pages                          # every page and picture of experiments/figures
    python -m studies.pages tmp                      # those of tmp/figures
    python -m studies.pages tmp fig2 table4 --new    # or some of them, also those not there yet
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine import cli
from studies import choice, docs, html_report, page, pooling, runs_csv
from studies.collect import require_results, results_in
from studies.curves import RUNS_CSV, SHIPPED
from studies.figures import OF_OTHER_DATA, PAGES, budget_curve, build, scale_curve
from studies.kinds import PEP, Results
from studies.names import MODELS
from studies.page import Page
from utils.text import unknown

FIGURES = "figures"  # the folder of pages and pictures, beside the records


def draw(name: str, out: Path, dataset: str, model: str, synthetic: bool) -> list[str]:
    """Write the page of a figure or table; returns its files and what is missing, a line each.

    Args:
        out: the folder with the runs; the page goes to out/figures.
        synthetic: all that is in `out` was made from synthetic data.
    """
    made = build(name, results_in(out), out, dataset, model)
    if synthetic:
        made = page.mark_synthetic(made, out.name)
    files = page.write(made, out / FIGURES)
    return [*map(str, files), *(f"missing: {line}" for line in made.missing)]


def every(out: Path, names: Sequence[str] = tuple(PAGES), kind: str = "") -> Iterator[Page]:
    """The pages of all data sets and models that have runs in a folder.

    Args:
        kind: of the synthetic data that all runs there were made from.
    """
    results = results_in(out)
    datasets = sorted({run["settings"]["dataset"] for run in results})
    for dataset in datasets or ["movielens"]:  # to say what is missing where there is no run
        seen: set[str] = set()
        for name in names:
            for model in MODELS:
                built = build(name, results, out, dataset, model)
                if built.stem not in seen:  # some show all models
                    seen.add(built.stem)
                    yield page.mark_synthetic(built, kind) if kind else built


def existing(folder: Path = SHIPPED, out: Path | None = None) -> Iterator[Page]:
    """The pages whose text is in folder/figures, made anew from the records in `folder`.

    Args:
        out: where the files of runs are looked for before those in folder/curves; absent: `folder`.

    Raises:
        ValueError: a csv is of another form, or a page is of no figure or table that we know.
    """
    if (folder / RUNS_CSV).exists():
        kinds = runs_csv.kinds(folder / RUNS_CSV)
        results = {kind: results_in(folder, planted=kind) for kind in kinds}
    else:  # a folder of runs, or one of those that reproduce.py --planted makes
        results = dict.fromkeys(["", folder.resolve().name], results_in(folder))
    for path in sorted((folder / FIGURES).glob("*.md")):
        name, dataset, model, synthetic = _parts(path.stem)
        if name not in {*PAGES, *OF_OTHER_DATA}:
            raise ValueError(f"{path} is of no page that we know; there are: {', '.join(PAGES)}")
        for kind in results:
            if bool(kind) == synthetic:
                made = build(name, results[kind], out or folder, dataset, model)
                yield page.mark_synthetic(made, kind) if synthetic else made


def _parts(stem: str) -> tuple[str, str, str, bool]:
    """Page, data set, model, and whether the data are synthetic, of a file's name.

    >>> _parts("umec-fig2_planted_criteo_dlrm"), _parts("table2_movielens")
    (('umec-fig2', 'criteo', 'dlrm', True), ('table2', 'movielens', 'fm', False))
    >>> _parts("umec-fig2_planted_fields_dlrm")
    ('umec-fig2', 'planted_fields', 'dlrm', False)
    """
    name, _, rest = stem.partition("_")
    dataset, _, model = rest.rpartition("_")
    if model not in (*MODELS, "dlrm"):  # the page shows all of them
        dataset, model = rest, MODELS[0]
    synthetic = dataset.startswith("planted_") and dataset != "planted_fields"
    return name, dataset.removeprefix("planted_") if synthetic else dataset, model, synthetic


def redraw(folder: Path = SHIPPED, names: Sequence[str] = tuple(PAGES), new: bool = False,
           to: Path | None = None) -> list[str]:
    """Write each page of folder/figures anew, and each model's budget curve, and the picture of
    the benchmark that is shipped; returns a line a page or picture.

    A picture that shows more than can be drawn now stays, and its page says so.

    Args:
        names: those of the pages to write.
        new: write pages that are not there yet, too.
        to: the folder to write to; absent: folder/figures.
    """
    shown = folder / FIGURES
    to = to or shown
    wanted = {*names, *(other for other, (name, _) in OF_OTHER_DATA.items() if name in names)}
    found = every(folder, names, runs_csv.kind_of(folder)) if new else existing(folder)
    lines = [f"written: {page.write(made, to)[-1]}" for made in found
              if made.rows and made.name in wanted]
    if set(names) != set(PAGES):
        return lines
    results = results_in(folder)
    for dataset in sorted({run["settings"]["dataset"] for run in results}):
        for model in MODELS:
            path = shown / f"{dataset}_{model}.png"
            own = _as_published(results, dataset, model) if path.exists() else []
            if budget_curve.draw(own, dataset, model, to, settings=", published settings"):
                lines.append(f"written: {to / path.name}")
    if folder.resolve() == SHIPPED.resolve():
        path = scale_curve.draw(docs.scale_records(), "fm", to / "scale_fm.png")
        lines.append(f"written: {path}")
    return lines


def _as_published(results: Results, dataset: str, model: str) -> Results:
    """PEP's tickets and uniform tables of the published settings: a model's budget curve.

    Tickets with the embedding alone rewound, which the legend calls so, stand for the others where
    there are no others.
    """
    found = choice.of(Page("", dataset, model, ""), results, model, kinds=(PEP, "uniform"))
    by_id = pooling.by_run(results)
    tickets = [run for run in choice.tickets(found) if pooling.published(run, by_id)]
    whole = [run for run in tickets if not pooling.rewound_alone(run)]
    return (whole or tickets) + [run for run in found if run["stage"] == "train"]


def report(out: Path, synthetic: Path) -> Path:
    """Write out/report.html with every page of every data set and model; synthetic ones come last.

    Args:
        out: the folder with the runs.
        synthetic: the one with a folder for each kind of synthetic data.
    """
    made = [(built, out / FIGURES) for built in every(out)]
    for folder in sorted(path for path in synthetic.glob("*") if path.is_dir()):
        made += [(built, folder / FIGURES) for built in every(folder, kind=folder.name)]
    return html_report.write(made, results_in(out), out / "report.html")


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?", default=SHIPPED,
                         help="with the records and figures/ (default: the shipped records)")
    options.add_argument("pages", nargs="*", metavar="page",
                         help=f"some of {', '.join(PAGES)}; all when absent")
    options.add_argument("--new", action="store_true", help="pages that are not there yet, too")
    given = options.parse_args()
    require_results(given.folder)
    for name in given.pages:
        if name not in PAGES:
            raise ValueError(unknown("page", name, tuple(PAGES)))
    print("\n".join(redraw(given.folder, given.pages or tuple(PAGES), given.new)))


if __name__ == "__main__":
    cli.main(main, trains=False)
