"""Table 2: seconds of a training epoch of the base model, DartsEmb and PEP, for three models.

The times are those of `benchmarks.bench_epoch`, which takes them side by side in one process; its
record says on which device. The paper's are of a TITAN V on Criteo.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from studies.kinds import Results
from studies.names import MODELS
from studies.page import RUNS, Number, Page, shown

VARIANTS = {"base": "base model", "darts": "DartsEmb", "pep": "PEP"}
PAPER = {"criteo": {"fm": {"base": 1_039, "darts": 2_239, "pep": 1_341},
                    "deepfm": {"base": 1_222, "darts": 2_285, "pep": 1_525},
                    "autoint": {"base": 1_642, "darts": 3_154, "pep": 1_963}}}
INCREASE = {"darts": 98.02, "pep": 24.47}  # the paper's averages, percent of the base model's time
NEEDED = ("manifest", "commit", "device", "threads", "batches", "rounds", "steps_per_round",
          "ms_per_step_of_rounds")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set with all models; `results` and `model` are not looked at.

    Args:
        out: the folder that holds benchmarks/.
    """
    page = Page("table2", dataset, None, f"Table 2: time of an epoch on {shown(dataset)}")
    path = record_of(out, dataset)
    if (record := record_at(page, path)) is None:
        return page
    page.behind = [{"run_id": path.stem, "commit": record["commit"],
                    "manifest": record["manifest"]}]
    seconds = {name: _medians(record, record["ms_per_step_of_rounds"][name]) for name in MODELS
               if name in record["ms_per_step_of_rounds"]}
    for name, by_variant in seconds.items():
        for variant, spent in by_variant.items():
            each = [ms * record["batches"] / 1e3
                    for ms in record["ms_per_step_of_rounds"][name][variant]]
            paper = PAPER.get(dataset, {}).get(name, {}).get(variant)
            page.numbers.append(Number(
                f"seconds of an epoch, {shown(name)}, {VARIANTS[variant]}", [spent], paper=paper,
                form=",.2f",
                why=f"rounds {min(each):,.2f} to {max(each):,.2f}"
                + ("; another machine" if paper else "")))
            page.rows.append({"model": name, "variant": variant, "seconds_of_an_epoch": spent,
                              "ms_per_step": 1e3 * spent / record["batches"], "least": min(each),
                              "most": max(each),
                              "device": record["device"], "threads": record["threads"],
                              "paper_seconds": paper or "",
                              RUNS: path.stem})
    for variant, average in INCREASE.items():
        more = [100 * (by_variant[variant] / by_variant["base"] - 1)
                for by_variant in seconds.values()]
        listed = ", ".join(f"{shown(name)} {each:+.0f}" for name,
                           each in zip(seconds, more, strict=True))
        page.numbers.append(
            Number(
                f"{VARIANTS[variant]} over the base model, %, mean of the models",
                [statistics.mean(more)],
                paper=average if dataset in PAPER else None,
                form="+.1f",
                why=listed + ("" if dataset in PAPER else f"; the paper has {average:+} on Criteo"),
            )
        )
    page.notes.append("Medians over {rounds} rounds of {steps_per_round} steps of each variant in "
                      "turns, times the {batches:,} steps of an epoch; {device}, {threads} "
                      "threads. Evaluation is not in it.".format(
                          **record))
    return page


def record_of(out: Path, dataset: str) -> Path:
    """Where the benchmark's record of a data set stands."""
    return out / "benchmarks" / f"epoch_{dataset}.json"


def record_at(page: Page, path: Path) -> dict[str, Any] | None:
    """The benchmark's record; None, and a line among what is missing, where there is no whole
    one."""
    try:
        record = json.loads(path.read_text())
        if lacking := [name for name in NEEDED if name not in record]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        if odd := [name for name, times in record["ms_per_step_of_rounds"].items()
                   if set(times) != set(VARIANTS)]:
            raise ValueError(f"the variants of {', '.join(odd)} are not {', '.join(VARIANTS)}")
        return record
    except FileNotFoundError:
        page.missing.append(f"times of an epoch: there is no {path.name}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        page.missing.append(f"times of an epoch: {path.name} cannot be read ({error}); delete it "
                            f"and measure again")
    return None


def _medians(record: dict[str, Any], times: dict[str, list[float]]) -> dict[str, float]:
    """Seconds of an epoch by variant."""
    return {variant: statistics.median(times[variant]) * record["batches"] / 1e3
            for variant in VARIANTS}
