"""Writing pages from whatever has been run: one of them, or all in one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from studies import html_report, page
from studies.collect import results_in
from studies.pages import PAGES


def draw(name: str, out: Path, dataset: str, model: str, planted: bool) -> list[str]:
    """Write the page of a figure or table; returns its files and what is missing, a line each.

    Args:
        out: the folder with the runs; the page goes to out/figures.
        planted: all that is in `out` was made from planted data.
    """
    made = PAGES[name](results_in(out), out, dataset, model)
    files = page.write(page.mark_planted(made, out.name) if planted else made, out / "figures")
    return [*map(str, files), *(f"missing: {line}" for line in made.missing)]


def report(out: Path, planted: Path, datasets: Sequence[str], models: Sequence[str]) -> Path:
    """Write out/report.html with every page of every data set and model; planted ones are marked
    and come last.

    Args:
        out: the folder with the runs.
        planted: the one with a folder for each kind of planted data.
    """
    made: list[page.Page] = []
    for folder in (out, *sorted(path for path in planted.glob("*") if path.is_dir())):
        results = results_in(folder)
        ran = [dataset for dataset in datasets
               if any(run["settings"]["dataset"] == dataset for run in results)]
        shown = ran or ([datasets[0]] if folder == out else [])
        built = [build(results, folder, dataset, model) for dataset in shown
                 for build in PAGES.values()
                 for model in models]
        pages = {each.stem: each for each in built}.values()  # some show all models
        made += pages if folder == out else (page.mark_planted(each, folder.name) for each in pages)
    return html_report.write(made, out / "report.html")
