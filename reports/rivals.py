"""PEP beside its rivals: test AUC and log-loss against parameters and bytes, as a table and a figure.

    python -m reports.rivals tmp movielens fm        # writes tmp/figures/rivals_movielens_fm.png, prints the table
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import budget_curve
from reports.collect import results_in
from reports.kinds import PEP, Results, kind
from reports.names import shown
from reports.series import by_budget, from_last, series_of
from reports.styles import STYLES, Style, looks
from reports.summary import markdown, spread

SIZE = (7.0, 5.6)  # inches: both columns of a page
QUANTITIES = {"num_embedding_params": "embedding parameters", "inference_bytes": "bytes at inference"}  # across
SCORES = {"test_auc": "test AUC", "test_logloss": "test log-loss"}  # up
HEAD = ("scheme", "settings", "parameters", "bytes", "test AUC", "test log-loss", "seeds")


class Entry(NamedTuple):
    """One scheme at one size, over seeds."""

    scheme: str
    settings: str  # that set it apart, as text
    results: Results
    from_last: bool  # cut from a search's last table

    def mean(self, name: str) -> float:
        """Of a field of the results."""
        return statistics.mean(result[name] for result in self.results)

    def of(self, name: str) -> list[float]:
        """A field of all results."""
        return [result[name] for result in self.results]

    def has(self, name: str) -> bool:
        """Whether all results have a field; older ones lack `inference_bytes`."""
        return all(name in result for result in self.results)


def tuned_in(out: Path, dataset: str, model: str) -> dict[str, Sequence[dict[str, Any]]]:
    """The chosen trials of each tuned scheme, from out/tuned; none without that folder.

    Raises:
        ValueError: a file there is corrupt.

    >>> tuned_in(Path("no/such/folder"), "movielens", "fm")
    {}
    """
    found = {}
    for path in sorted((out / "tuned").glob(f"{dataset}_{model}_*.json")):
        try:
            found[path.stem.removeprefix(f"{dataset}_{model}_")] = json.loads(path.read_text())["chosen"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is corrupt ({error}); delete it, or run `reproduce.py tune`") from error
    return found


def entries(results: Results, tuned: dict[str, Sequence[dict[str, Any]]]) -> list[Entry]:
    """Every scheme at every size, by scheme and rising parameters; LR first.

    Args:
        results: of one data set and model, and of LR.
        tuned: scheme -> its chosen trials; of such a scheme only runs with their settings are taken, and of PEP those
            as published at budgets in between. Of the others, tickets of every setting are, as curves of their own.
    """
    by_id = {result["run_id"]: result for result in results}
    found, done = [], set()
    for trials in tuned.values():
        for trial in trials:
            if trial["run_id"] in by_id:
                own = by_id[trial["run_id"]]
                same = [result for result in results if signature(result, by_id) == signature(own, by_id)]
                text = ", ".join(f"{name} {_short(value)}" for name, value in trial["settings"].items()
                                 if name != "retrain_emb_param")
                found.append(Entry(kind(own), text, same, from_last(same)))
                done.add(kind(own))
    for label, members in series_of(results).items():
        if label == PEP and PEP in done:
            found += _between(members, [budget for entry in found if entry.scheme == PEP
                                        for budget in by_budget(entry.results)])
        elif members[0]["stage"] == "retrain" and kind(members[0]) not in done:
            found += [Entry(label, "", group, from_last(group)) for group in by_budget(members).values()]
        elif members[0]["settings"]["model"] == "linear":
            found.append(Entry(label, "", members, False))
    order = {name: number for number, name in enumerate(("LR", *STYLES))}
    return sorted(found, key=lambda entry: (order.get(entry.scheme, len(order)), entry.scheme,
                                            entry.mean("num_embedding_params")))


def _between(published: Results, tuned: Sequence[int]) -> list[Entry]:
    """PEP as published at the budgets between those that it was tuned at."""
    return [Entry(PEP, "as published", group, from_last(group)) for budget, group in by_budget(published).items()
            if min(tuned) < budget < max(tuned) and budget not in tuned]


def signature(result: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    """What results that differ in nothing but the seed have in common."""
    snapshot = result.get("snapshot", {})
    searched = by_id.get(snapshot.get("run_id"), {}).get("identity", {}).get("settings")
    return (result["stage"], kind(result), snapshot.get("budgets"), snapshot.get("how"),
            result["identity"]["settings"], searched, result["manifest"])


def table(found: Sequence[Entry]) -> str:
    """The entries in Markdown."""
    return markdown(HEAD, [(entry.scheme + (" †" if entry.from_last else ""), entry.settings,
                            f"{round(entry.mean('num_embedding_params')):,}",
                            f"{round(entry.mean('inference_bytes')):,}" if entry.has("inference_bytes") else "-",
                            spread(entry.of("test_auc")), spread(entry.of("test_logloss")),
                            str(len(set(entry.of("seed")))))
                           for entry in found])


def draw(found: Sequence[Entry], title: str, path: Path) -> Path:
    """Write `picture` as PNG."""
    return budget_curve.save(picture(found, title), path)


def picture(found: Sequence[Entry], title: str, absent: Sequence[int] = ()) -> Figure:
    """Four panels: test AUC and log-loss against parameters, and against bytes, which older results lack.

    Args:
        absent: budgets that no run has; crosses on the lower edge of the left panels.
    """
    figure = budget_curve.new_figure(SIZE)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    curves: dict[str, list[Entry]] = defaultdict(list)
    for entry in found:
        curves[entry.scheme].append(entry)
    styles = looks(curves)
    several = any(len(entry.results) > 1 for entry in found)
    for (score, told), row in zip(SCORES.items(), panels, strict=True):
        for quantity, axes in zip(QUANTITIES, row, strict=True):
            for scheme, points in curves.items():
                if known := [entry for entry in points if entry.has(quantity)]:
                    _curve(axes, scheme, known, (quantity, score), styles[scheme])
            budget_curve.log_sizes(axes)
            budget_curve.tidy(axes)
        budget_curve.mark_missing(row[0], absent)
        row[0].set_ylabel(budget_curve.score_label(told, several), fontsize=8)
    for axes, told in zip(panels[-1], QUANTITIES.values(), strict=True):
        axes.set_xlabel(told, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6.5, frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle(title, fontsize=8)
    return figure


def _curve(axes: Axes, scheme: str, points: Sequence[Entry], against: tuple[str, str], style: Style) -> None:
    quantity, score = against
    if points[0].mean("num_embedding_params") == 0:
        budget_curve.horizontal(axes, scheme, points[0].mean(score))
        return
    budget_curve.with_bars(axes, [(entry.mean(quantity), entry.of(score)) for entry in points], scheme, style)


def _short(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Read the command line, print, draw."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m reports.rivals FOLDER DATASET MODEL")
    out, dataset, model = Path(sys.argv[1]), *sys.argv[2:]
    results = [result for result in results_in(out) if result["settings"]["dataset"] == dataset
               and result["settings"]["model"] in (model, "linear")]
    found = entries(results, tuned_in(out, dataset, model))
    if not found:
        sys.exit(f"there are no results of {model} on {dataset} in {out}")
    print(table(found))
    print(draw(found, f"{shown(model)} on {shown(dataset)}", out / "figures" / f"rivals_{dataset}_{model}.png"))


if __name__ == "__main__":
    main()
