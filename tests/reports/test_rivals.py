"""The table and the figure of all schemes."""

import pytest
from made_results import search, ticket

from reports import rivals
from reports.rivals import entries, table


def run(name, stage="train", seed=1, params=8, auc=0.8, model="fm", source=None, **own):
    settings = {"model": model, "dataset": "movielens", "embedding": "uniform", **own}
    snapshot = {"snapshot": {"source": source, "budgets": [params], "run_id": "s"}} if source else {}
    return {"run_id": name, "stage": stage, "seed": seed, "num_embedding_params": params, "inference_bytes": 4 * params,
            "test_auc": auc, "test_logloss": 1 - auc, "manifest": "m", "settings": settings,
            "identity": {"settings": own}, **snapshot}


RUNS = [run("lr", model="linear", params=0, auc=0.7),
        run("a", embedding="mde", mde_alpha=0.1, params=20), run("b", seed=2, embedding="mde", mde_alpha=0.1, params=20,
                                                                 auc=0.82),
        run("c", embedding="mde", mde_alpha=0.3, params=30), run("d", embedding="mde", mde_alpha=0.2, params=9),
        run("p", "retrain", params=10, source="cut", embedding="masked"),
        run("q", "retrain", params=5, source="cut_last", embedding="masked"),
        run("m", "retrain", params=10, source="magnitude", embedding="masked", auc=0.85),
        run("i", "retrain", params=40, source="imp_round", embedding="masked"),
        run("r", "retrain", params=10, source="random_per_field", embedding="masked"),
        run("s", "search", embedding="pep")]
TUNED = {"mde": [{"run_id": "a", "settings": {"mde_alpha": 0.1}}, {"run_id": "c", "settings": {"mde_alpha": 0.3}},
                 {"run_id": "gone", "settings": {"mde_alpha": 0.9}}]}


def test_chosen_settings_of_all_seeds_and_every_kind_of_snapshot():
    found = entries(RUNS, TUNED)
    assert [(entry.scheme, entry.settings, [result["run_id"] for result in entry.results]) for entry in found] == [
        ("LR", "", ["lr"]), ("PEP", "", ["q"]), ("PEP", "", ["p"]), ("mde", "mde_alpha 0.1", ["a", "b"]),
        ("mde", "mde_alpha 0.3", ["c"]), ("magnitude pruning", "", ["m"]),
        ("random mask, PEP's share a field", "", ["r"])]
    assert [entry.from_last for entry in found] == [False, True, *[False] * 5]
    lines = table(found).splitlines()
    assert lines[3] == "| PEP † |  | 5 | 20 | 0.8000 | 0.2000 | 1 |"
    assert lines[5] == "| mde | mde_alpha 0.1 | 20 | 80 | 0.8100 ± 0.0141 | 0.1900 ± 0.0141 | 2 |"


def test_the_figure_has_both_scores_against_parameters_and_bytes(tmp_path):
    figure = rivals.picture(entries(RUNS, TUNED), "fm on movielens")
    left, right, below, last = figure.axes
    mde = {axes: next(bars for bars in axes.containers if bars.get_label() == "MDE").lines[0].get_xydata().tolist()
           for axes in figure.axes}
    assert mde[left] == [[20, pytest.approx(0.81)], [30, 0.8]]
    assert mde[right] == [[80, pytest.approx(0.81)], [120, 0.8]]
    assert mde[below] == [[20, pytest.approx(0.19)], [30, pytest.approx(0.2)]]
    assert mde[last] == [[80, pytest.approx(0.19)], [120, pytest.approx(0.2)]]
    assert [axes.get_ylabel() for axes in (left, below)] == ["test AUC (mean ± s.d. over seeds)",
                                                             "test log-loss (mean ± s.d. over seeds)"]
    assert [axes.get_xlabel() for axes in (below, last)] == ["embedding parameters", "bytes at inference"]


def test_without_results_the_shell_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rivals", str(tmp_path), "movielens", "fm"])
    with pytest.raises(SystemExit, match="there are no results of fm on movielens"):
        rivals.main()


def test_between_the_sizes_that_pep_was_tuned_at_it_is_shown_as_published():
    results = [search("s1"), *(ticket(f"t{budget}", budget=budget) for budget in (50, 72, 150, 300, 500))]
    tuned = {"pep": [{"run_id": f"t{budget}", "settings": {"threshold_init": -15.0, "retrain_emb_param": budget}}
                     for budget in (72, 300)]}
    assert [(entry.settings, entry.mean("num_embedding_params")) for entry in entries(results, tuned)] == [
        ("threshold_init -15.0", 72), ("as published", 150), ("threshold_init -15.0", 300)]
