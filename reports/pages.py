"""The pages of the paper's figures and tables, by name.

Each module has `build(results, out, dataset, model) -> Page`, which reads result files and the run folders under `out`;
`reports.page.write` writes what it returns.
"""

from collections.abc import Callable
from pathlib import Path

from reports import afm_page, fig2, fig5, fig6, fig8, fig10, fig11, table3, table4
from reports.page import Page
from reports.series import Results

PAGES: dict[str, Callable[[Results, Path, str, str], Page]] = {
    "fig2": fig2.build,  # and 3 and 4, by the data set
    "fig5": fig5.build, "fig6": fig6.build, "fig8": fig8.build,  # and 9
    "fig10": fig10.build, "fig11": fig11.build,
    "table3": table3.build, "table4": table4.build,
    "afm": afm_page.build}
