"""The pages of the papers' figures and tables by name, and the ways to write them.

Each module has `build(results, out, dataset, model) -> Page`, which reads result files and the run
folders under `out`; `studies.page.write` writes what it returns.

    python -m studies.pages experiments              # every page and picture there, drawn anew
    python -m studies.pages tmp fig2 table4 --new    # or some of them, also those not there yet
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from studies import choice, html_report, page, pooling
from studies.collect import results_in
from studies.figures import (
    afm_page,
    budget_curve,
    extreme,
    fig2,
    fig5,
    fig6,
    fig8,
    fig10,
    fig11,
    stability,
    table1,
    table2,
    table3,
    table4,
    thresholds,
    umec_fig2,
    umec_fig3,
    waterline,
)
from studies.kinds import PEP, Results
from studies.page import Page

# of the raw files that were made for shipped runs: manifest -> kind of synthetic data
SYNTHETIC = {"c6df12f646e9fb35": "20000_rows_10_values"}
MODELS = ("fm", "deepfm", "autoint")
PAGES: dict[str, Callable[[Results, Path, str, str], Page]] = {
    "fig2": fig2.build,  # and 3 and 4, by the data set
    "fig5": fig5.build, "fig6": fig6.build, "fig8": fig8.build,  # and 9
    "fig10": fig10.build, "fig11": fig11.build,
    "table1": table1.build, "table2": table2.build, "table3": table3.build, "table4": table4.build,
    "thresholds": thresholds.build, "extreme": extreme.build, "stability": stability.build,
    "umec-fig2": umec_fig2.build, "umec-fig3": umec_fig3.build,
    "afm": afm_page.build, "waterline": waterline.build}


def draw(name: str, out: Path, dataset: str, model: str, synthetic: bool) -> list[str]:
    """Write the page of a figure or table; returns its files and what is missing, a line each.

    Args:
        out: the folder with the runs; the page goes to out/figures.
        synthetic: all that is in `out` was made from synthetic data.
    """
    made = PAGES[name](results_in(out), out, dataset, model)
    if synthetic:
        made = page.mark_synthetic(made, out.name)
    files = page.write(made, out / "figures")
    return [*map(str, files), *(f"missing: {line}" for line in made.missing)]


def every(out: Path, names: Sequence[str] = tuple(PAGES), kind: str = "") -> Iterator[Page]:
    """The pages of all data sets and models that have runs in a folder.

    Args:
        kind: of the synthetic data that all runs there were made from. Without one, the runs from a
            file of SYNTHETIC have pages of their own.
    """
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in results_in(out):
        sets[kind or SYNTHETIC.get(run["manifest"], "")].append(run)
    for kind, own in sets.items() if sets else [("", [])]:
        datasets = sorted({run["settings"]["dataset"] for run in own})
        for dataset in datasets or ["movielens"]:  # to say what is missing where there is no run
            seen: set[str] = set()
            for name in names:
                for model in MODELS:
                    built = PAGES[name](own, out, dataset, model)
                    if built.stem not in seen:  # some show all models
                        seen.add(built.stem)
                        yield page.mark_synthetic(built, kind) if kind else built


def redraw(out: Path, names: Sequence[str] = tuple(PAGES), new: bool = False) -> list[str]:
    """Write each page of out/figures anew, and each model's budget curve; returns a line a page.

    A page that needs files which are not here now is left as it is.

    Args:
        new: write pages that are not there yet, too.
    """
    lines, folder = [], out / "figures"
    for built in every(out, names):
        there = (folder / f"{built.stem}.md").exists()
        if there and (built.lost or not built.rows):
            lost = ", ".join(sorted(built.lost)[:3]) or "its records"
            lines.append(f"left as it is: {built.stem}; not here: {lost}")
        elif built.rows and (there or new):
            lines.append(f"written: {page.write(built, folder)[-1]}")
    results = results_in(out)
    for dataset in sorted({run["settings"]["dataset"] for run in results}):
        for model in MODELS:
            path = folder / f"{dataset}_{model}.png"
            own = _as_published(results, dataset, model) if path.exists() else []
            if budget_curve.draw(own, dataset, model, folder):
                lines.append(f"written: {path}")
    return lines


def _as_published(results: Results, dataset: str, model: str) -> list[dict[str, Any]]:
    """PEP's tickets and uniform tables of the published settings: a model's budget curve."""
    found = choice.of(Page("", dataset, model, ""), results, model, kinds=(PEP, "uniform"))
    by_id = pooling.by_run(results)
    tickets = [run for run in choice.tickets(found)
               if not pooling.rewound_alone(run) and pooling.published(run, by_id)]
    return tickets + [run for run in found if run["stage"] == "train"]


def report(out: Path, synthetic: Path) -> Path:
    """Write out/report.html with every page of every data set and model; synthetic ones come last.

    Args:
        out: the folder with the runs.
        synthetic: the one with a folder for each kind of synthetic data.
    """
    made = [(built, out / "figures") for built in every(out)]
    for folder in sorted(path for path in synthetic.glob("*") if path.is_dir()):
        made += [(built, folder / "figures") for built in every(folder, kind=folder.name)]
    return html_report.write(made, results_in(out), out / "report.html")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, draw."""
    options = argparse.ArgumentParser(description="Draw the pages of a folder of runs anew from "
                                                  "its records; nothing is trained.")
    options.add_argument("folder", type=Path, help="with runs/, tuned/ and figures/")
    options.add_argument("pages", nargs="*", choices=[[], *PAGES], metavar="page",
                         help=f"some of {', '.join(PAGES)}; all when absent")
    options.add_argument("--new", action="store_true", help="pages that are not there yet, too")
    given = options.parse_args(arguments)
    if not (given.folder / "runs").exists():
        sys.exit(f"{given.folder} has no runs/; give the folder that --out named, such as tmp")
    print("\n".join(redraw(given.folder, given.pages or tuple(PAGES), given.new)))


if __name__ == "__main__":
    main()
