"""The table and the figure of all schemes."""

import json

import pytest
from synthetic_results import lr, result, search, ticket

from studies import tuning
from studies.figures import baselines
from studies.figures.baselines import entries, table
from studies.page import Page

RUNS = [lr("lr"), result("a", embedding="mde", params=20, own={"mde_alpha": 0.1}),
        result("b", seed=2, embedding="mde", params=20, auc=0.82, own={"mde_alpha": 0.1}),
        result("c", embedding="mde", params=30, own={"mde_alpha": 0.3}),
        result("d", embedding="mde", params=9, own={"mde_alpha": 0.2}),
        ticket("p", budget=10, searched="s"),
        ticket("q", budget=5, source="cut_last", searched="s"),
        ticket("m", budget=10, source="magnitude", searched="u", auc=0.85),
        ticket("i", budget=40, source="imp_round", searched="u"),
        ticket("r", budget=10, source="random_per_field", searched="u"),
        ticket("o", budget=10, searched="s", own={"lr": 0.1}, auc=0.9), search("s")]
TUNED = {"mde": [{"run_id": "a", "settings": {"mde_alpha": 0.1}},
                 {"run_id": "c", "settings": {"mde_alpha": 0.3}},
                 {"run_id": "gone", "settings": {"mde_alpha": 0.9}}]}


def found(results, tuned=None):
    page = Page("baselines", "movielens", "fm", "FM on MovieLens-1M")
    return entries(page, results, TUNED if tuned is None else tuned), page


def test_chosen_settings_of_all_seeds_and_published_ones_of_what_is_not_tuned():
    made, page = found(RUNS)
    assert [(entry.scheme, entry.settings, [run["run_id"] for run in entry.results])
            for entry in made] == [
        ("LR", "", ["lr"]), ("PEP", "", ["q"]), ("PEP", "", ["p"]),
        ("mde", "mde_alpha 0.1", ["a", "b"]),
        ("mde", "mde_alpha 0.3", ["c"]), ("magnitude pruning", "", ["m"]),
        ("random mask, PEP's share a field", "", ["r"])]
    assert [entry.from_last for entry in made] == [False, True, *[False] * 5]
    assert page.missing == ["mde (mde_alpha 0.9): the run that the tuning chose, gone, is not here "
                            "or may not stand here"]
    lines = table(made).markdown().splitlines()
    assert lines[3] == "| PEP † |  | 5 | 20 | 0.8000 | 0.4000 | 1 |"
    assert lines[5] == "| MDE | mde_alpha 0.1 | 20 | 80 | 0.8100 ± 0.0141 | 0.3900 ± 0.0141 | 2 |"


def test_a_seed_counts_once_whatever_its_limit():
    same = [result(f"u{most}", own={"max_epochs": most}, auc=0.8 + most / 1e4)
            for most in (100, 150, 300)]
    (entry,), _ = found([*same, result("v", seed=2, own={"max_epochs": 150}, auc=0.85)], {})
    assert (entry.scheme, [run["run_id"] for run in entry.results]) == ("uniform", ["u300", "v"])


def test_a_run_of_another_key_takes_no_seed_away():
    runs = [result(f"u{seed}", seed=seed) for seed in (1, 2, 3)]
    other = {**result("z", own={"max_epochs": 300}), "manifest": "another encoding"}
    (entry,), _ = found([*runs, other], {})
    assert [run["run_id"] for run in entry.results] == ["u1", "u2", "u3"]


def test_shipped_settings_count_where_one_of_their_runs_is_there(tmp_path, monkeypatch):
    shipped, own = tmp_path / "shipped", tmp_path / "out" / "tuned"
    for folder, name, run_id in ((shipped, "mde", "a"), (shipped, "qr", "nowhere"),
                                 (shipped, "pep", "s"), (own, "pep", "p")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"movielens_fm_{name}.json").write_text(json.dumps(
            {"chosen": [{"run_id": run_id, "settings": {}}]}))
    monkeypatch.setattr(tuning, "SHIPPED", shipped)
    chosen = baselines.tuned_in(own.parent, "movielens", "fm", RUNS)
    assert {name: trials[0]["run_id"] for name, trials in chosen.items()} == {
        "pep": "p", "mde": "a"}


def test_points_with_the_embedding_alone_rewound_are_missing():
    old = [ticket(f"e{seed}", seed, budget=10, own={"rewind": "embedding"}) for seed in (1, 2)]
    tuned = {"pep": [{"run_id": "e1",
                      "settings": {"threshold_init": -15.0, "retrain_emb_param": 10}}]}
    for given, name in ((tuned, "PEP (threshold_init -15.0)"), ({}, "PEP")):
        made, page = found(old, given)
        assert made == []
        assert page.missing == [f"{name} at 10 parameters: no run (seeds 1, 2, 3); tickets with "
                                "the embedding alone rewound exist (seeds 1, 2) and do not count"]
    # the tuning's settings, wholly rewound
    made, page = found([*old, ticket("n", 2, budget=10)], tuned)
    assert [[run["run_id"] for run in entry.results] for entry in made] == [["n"]]
    assert page.missing == []


def test_the_label_of_a_decay_says_what_it_is_of():
    run = result("a", own={"l2_regularization": 1e-4, "weight_decay": 1e-5})
    (entry,), _ = found([run], {"uniform": [{"run_id": "a",
                                             "settings": {"l2_regularization": 1e-4}}]})
    assert entry.settings == "l2_regularization 0.0001 (embedding alone; the rest 1e-05)"


def test_the_figure_has_both_scores_against_parameters_and_bytes(tmp_path):
    figure = baselines.picture(found(RUNS)[0], "fm on movielens")
    left, right, below, last = figure.axes
    mde = {axes: next(bars for bars in axes.containers
                      if bars.get_label() == "MDE").lines[0].get_xydata().tolist()
           for axes in figure.axes}
    assert mde[left] == [[20, pytest.approx(0.81)], [30, 0.8]]
    assert mde[right] == [[80, pytest.approx(0.81)], [120, 0.8]]
    assert mde[below] == [[20, pytest.approx(0.39)], [30, pytest.approx(0.4)]]
    assert mde[last] == [[80, pytest.approx(0.39)], [120, pytest.approx(0.4)]]
    assert [axes.get_ylabel() for axes in (left, below)] == ["test AUC (mean ± s.d. over seeds)",
                                                             "test log-loss (mean ± s.d. over "
                                                             "seeds)"]
    assert [axes.get_xlabel() for axes in (below, last)] == ["embedding parameters",
                                                             "bytes at inference"]


def test_beside_the_sizes_that_pep_was_tuned_at_it_is_shown_as_published():
    results = [search("s1"),
               *(ticket(f"t{budget}", budget=budget) for budget in (50, 72, 150, 300, 500))]
    tuned = {"pep": [{"run_id": f"t{budget}",
                      "settings": {"threshold_init": -15.0, "retrain_emb_param": budget}}
                     for budget in (72, 300)]}
    assert [(entry.settings, entry.mean("num_embedding_params"))
            for entry in found(results, tuned)[0]] == [
        ("threshold_init -15.0", 72), ("as published", 150), ("threshold_init -15.0", 300),
            ("as published", 500)]
