"""Table 3: the data, rows, fields, features and positives, beside the paper's."""

from pathlib import Path
from typing import Any

from studies.kinds import Results
from studies.page import OPEN, RUNS, Number, Page, runs_of, shown
from studies.pooling import ROWS

# it says nothing of positives
PAPER = {"movielens": {"rows": 739_015, "fields": 7, "features": 3_864},
         "criteo": {"rows": 45_840_617, "fields": 39, "features": 1_086_810},
         "avazu": {"rows": 40_400_000, "fields": 22, "features": 645_394}}
WHY = {("movielens", "rows", 739_012): "three rows; the paper does not say how it counts",
       ("movielens", "features",
        4_129): "the 264,256 parameters of its Figure 5 are 4,129 features of width 64",
       ("avazu", "rows", 40_428_967): "the paper rounds"}  # by our number
UNUSED = "unused_unknown_rows"  # older results lack it
LISTED = 3  # runs that are named of many


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set; `model` and `out` are not looked at.

    Args:
        results: of any data sets and models; those before the field `data` are named as such.
    """
    page = Page("table3", dataset, None, f"Table 3: the data of {shown(dataset)}")
    own = [result for result in results if result["settings"]["dataset"] == dataset]
    by_manifest: dict[str, list[dict[str, Any]]] = {}
    for result in own:
        by_manifest.setdefault(result["manifest"], []).append(result)
    if not own:
        page.missing.append(f"any run on {shown(dataset)}")
    for manifest, members in by_manifest.items():
        known = [result for result in members if "data" in result]
        if not known:
            more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
            page.missing.append(f"data {manifest}: no run says what they are; those made from them "
                                f"are older and have no `data`: {runs_of(members[:LISTED])}{more}")
            continue
        page.behind += known
        named = f", data {manifest}" if len(by_manifest) > 1 else ""
        newer = [result for result in known if UNUSED in result["data"]]
        counts = _counts((newer or known)[0]["data"])
        whole = counts["rows"] == ROWS.get(dataset, counts["rows"])
        paper = PAPER.get(dataset, {}) if whole else {}
        page.numbers += [_number(dataset, name, count, named, paper.get(name)) for name,
                         count in counts.items()]
        page.rows.append({"data": manifest, **counts,
                          **{f"paper_{name}": count for name, count in paper.items()},
                          RUNS: runs_of(known)})
        if not whole:
            page.notes.append(f"Nothing of the paper stands beside a sample: {counts['rows']:,} of "
                              f"{ROWS[dataset]:,} rows{named}.")
        page.notes.append(f"Features of each field, its row for unknown values with them{named}: "
                          + ", ".join(
            f"{field} {known[0]['data']['field_sizes'][field]:,}"
            for field in _fields(known[0]["data"])) + ".")
    return page


def _fields(data: dict[str, Any]) -> list[str]:
    """In the table's order; older results have them by their names alone."""
    return data.get("fields") or list(data["field_sizes"])


def _counts(data: dict[str, Any]) -> dict[str, int]:
    """As the paper counts: without rows for unknown values that nothing fell into."""
    sizes = data["field_sizes"]
    features = sum(sizes.values()) - data.get(UNUSED, 0)
    return {"rows": data["rows"], "fields": len(sizes), "features": features,
            "positives": data["positives"]}


def _number(dataset: str, name: str, count: int, named: str, paper: int | None) -> Number:
    why = "" if paper is None or paper == count else WHY.get((dataset, name, count), OPEN)
    return Number(name + named, [count], paper=paper, why=why, form=",.0f")
