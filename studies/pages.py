"""The pages of the papers' figures and tables, by name.

Each module has `build(results, out, dataset, model) -> Page`, which reads result files and the run
folders under `out`; `studies.page.write` writes what it returns.
"""

from collections.abc import Callable
from pathlib import Path

from studies.figures import (
    afm_page,
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
)
from studies.kinds import Results
from studies.page import Page

PAGES: dict[str, Callable[[Results, Path, str, str], Page]] = {
    "fig2": fig2.build,  # and 3 and 4, by the data set
    "fig5": fig5.build, "fig6": fig6.build, "fig8": fig8.build,  # and 9
    "fig10": fig10.build, "fig11": fig11.build,
    "table1": table1.build, "table2": table2.build, "table3": table3.build, "table4": table4.build,
    "thresholds": thresholds.build, "extreme": extreme.build, "stability": stability.build,
    "umec-fig2": umec_fig2.build, "umec-fig3": umec_fig3.build,
    "afm": afm_page.build}
