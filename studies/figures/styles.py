"""One colour, marker and line for each method, the same in every figure.

Okabe and Ito's colours, for all kinds of eyes, and darker ones where those do not suffice. A
family shares a colour or two shades of it and differs in marker and line: PEP and its variants are
blue, pruning after training is vermilion and dashed, random masks are grey. The baselines of UMEC
and AFM are never in a figure with the schemes whose colours they repeat.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np

from studies.kinds import PEP

# for what is no method
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, RED, GREEN, PINK, ORANGE, SKY = COLOURS
DISTINCT = (*COLOURS, "#000000", "#999999", "#882255", "#8A8A1F")
BLACK, GREY, WINE, OLIVE, INDIGO, ROSE = (
    *DISTINCT[len(COLOURS):],
    "#332288",
    "#CC6677",
)
NAVY, PALE, SLATE = "#003A5D", "#7FB8DA", "#5E7C99"  # other blues: variants of PEP
RUST = "#8A3B00"  # a darker vermilion
INK = "#555555"  # of axes, and of levels across them, as of LR

Style = tuple[str, str, str]  # colour, marker, line

STYLES: dict[str, Style] = {
    PEP: (BLUE, "o", "-"), "uniform": (BLACK, "s", "-"), "mde": (GREEN, "^", "-"),
    "mgqe": (PINK, "D", "-"),
    "darts": (ORANGE, "v", "-"), "hash": (SKY, "<", "-"), "qr": (WINE, ">", "-"),
    "tt": (OLIVE, "1", "-."),
    "magnitude pruning": (RED, "P", "--"), "iterative pruning": (RUST, "X", "--"),
    "random mask": (GREY, "*", ":"), "random mask, PEP's share a field": (GREY, "d", "-."),
    "random mask, PEP's size of a feature": (GREY, "X", "--"),
    "cut by |V| alone": (BLUE, "p", "--")}
# of variants, where no method of their colour has that marker
MARKERS, DASHES = "dXv^*h", ("-.", "--", ":")
RE_INIT: Style = (NAVY, "^", "--")  # PEP's mask on fresh values
NO_RETRAINING: Style = (PALE, "", "-.")
GRANULARITIES: dict[str, Style] = {  # by threshold_type; those of the paper's Figure 10
    "global": (SLATE, "s", ":"), "dimension": (NAVY, "^", "--"), "feature": (PALE, "D", "-."),
    "feature_dim": STYLES[PEP]}
AFM: dict[str, Style] = {  # AFM and its baselines
    "afm": (INDIGO, "o", "-"), "afm, longer": (INDIGO, "^", "--"), "svd": (ROSE, "s", "-"),
    "random": (GREY, "*", ":"),
    "tt": (OLIVE, "2", "--")}
UMEC: dict[str, Style] = {  # UMEC and its baselines
    "umec": (INDIGO, "o", "-"), "umec, faithful": (INDIGO, "^", "--"),
    "umec, scratch": (INDIGO, "D", "-."),
    "umec, one descent": (INDIGO, "d", ":"),
    "magnitude": (RED, "P", "--"), "as-umec": (PINK, "X", "--"), "taylor": (GREEN, "v", "--"),
    "group-lasso": (ORANGE, "s", "--"), "handmade": (SKY, "<", "-."), "random": (GREY, "*", ":")}


def colours_of(count: int) -> list[Any]:
    """As many colours as are asked for, no two of them the same."""
    if count <= len(DISTINCT):
        return list(DISTINCT[:count])
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def styles_for(labels: Iterable[str]) -> dict[str, Style]:
    """The style of each label. A variant of a method ("PEP, lr 0.1") has its colour, and a marker
    and line of its own.

    >>> found = styles_for(["PEP", "PEP, lr 0.1", "PEP, lr 0.2"])
    >>> [(marker, line) for _, marker, line in found.values()]
    [('o', '-'), ('d', '-.'), ('X', '--')]
    """
    found: dict[str, Style] = {}
    variants: Counter[str] = Counter()
    for label in labels:
        if label in STYLES:
            found[label] = STYLES[label]
            continue
        method = label.split(",")[0]
        colour, *_ = STYLES.get(method, (INK,))
        taken = {marker for other, marker, _ in STYLES.values() if other == colour}
        free = [marker for marker in MARKERS if marker not in taken]
        round_, place = divmod(variants[method], len(free))
        found[label] = colour, free[place], DASHES[(place + round_) % len(DASHES)]
        variants[method] += 1
    return found
