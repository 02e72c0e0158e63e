"""Where thresholds start: which tickets belong together, and what validation chooses."""

from argparse import Namespace

import pytest
from synthetic_results import put, result, search, ticket

from studies import planned_runs, starts
from studies.figures import fig2, table4
from studies.figures import starts as page_of_starts
from studies.page import write
from studies.starts import PUBLISHED, Start

BUDGET = table4.PAPER["movielens"][table4.FM].params


def pair(name, seed, init=-15.0, penalty=0.0, auc=0.8, of_ticket=None, **own):
    """A search and its ticket at the paper's budget."""
    start = {} if init == -15.0 else {"threshold_init": init}
    penalised = {"l2_penalty": penalty} if penalty else {}
    own_ticket = penalised if of_ticket is None else of_ticket
    made = [search(f"s{name}{seed}", seed, own={**start, **penalised, **own}),
            ticket(f"t{name}{seed}", seed, budget=BUDGET, searched=f"s{name}{seed}", auc=auc,
                   own=own_ticket)]
    for run in made:  # `l2_penalty` has another name there
        identity = run["identity"]["settings"]
        run["identity"]["settings"] = {
            "vector_penalty" if key == "l2_penalty" else key: value
            for key, value in identity.items()}
    return made


def made():
    runs = []
    for seed in (1, 2, 3):
        runs += pair("published", seed, auc=0.80 + seed / 1000)
        runs += pair("best", seed, -5.0, auc=0.83 + seed / 1000)
    runs += pair("single", 1, -4.0, auc=0.9)  # better, with one seed
    runs += pair("penalty", 1, -5.0, 1e-3, auc=0.81)
    return runs


def test_tickets_are_grouped_by_their_searches_start_and_penalty():
    groups = starts.by_start(made())[BUDGET]
    assert {start: len(runs) for start, runs in groups.items()} == {
        PUBLISHED: 3, Start(-5.0, 0.0, "all"): 3, Start(-4.0, 0.0, "all"): 1,
        Start(-5.0, 1e-3, "all"): 1}


@pytest.mark.parametrize("other", [
    pair("o", 1, -5.0, lr=0.1), pair("o", 1, -5.0, 1e-3, of_ticket={}),
    pair("o", 1, -5.0, of_ticket={"re_init": True})])
def test_runs_that_differ_in_more_do_not_count(other):
    assert not starts.by_start(other)


def test_validation_chooses_among_those_of_most_seeds_that_are_rewound_whole():
    runs = made()
    for seed in (1, 2, 3):
        runs += pair("alone", seed, -6.0, auc=0.95, of_ticket={"rewind": "embedding"})
    assert starts.chosen(starts.by_start(runs)[BUDGET]) == Start(-5.0, 0.0, "all")
    assert starts.chosen({}) is None


def test_a_first_order_part_stands_apart_and_is_not_chosen(tmp_path):
    runs, added = made(), {"with_linear": True}
    for seed in (1, 2, 3):
        runs += pair("linear", seed, -5.0, auc=0.95, of_ticket=added, **added)
    groups = starts.by_start(runs)[BUDGET]
    assert len(groups[Start(-5.0, 0.0, "all", first_order=True)]) == 3
    assert starts.chosen(groups) == Start(-5.0, 0.0, "all")
    assert starts.first_choice(groups, 2) == Start(-5.0, 0.0, "all")
    page = page_of_starts.build([put(tmp_path, run) for run in runs], tmp_path, "movielens", "fm")
    assert [row[0] for row in page.tables[0].rows] == ["-5, first-order part", "-4", "-5", "-5",
                                                       "-15"]
    assert sum(row["with_linear"] for row in page.rows) == 3


def test_autoint_is_planned_with_the_first_order_part_too(tmp_path, monkeypatch):
    given = Namespace(dataset="movielens", model="autoint", seeds=[1], out=str(tmp_path),
                      dense=4129 * 64)
    monkeypatch.setattr(planned_runs, "results_in", lambda out, shipped: [])
    planned = [run.what for run in planned_runs.runs_behind(given, "starts")]
    with_part = [what for what in planned if "with_linear=True" in what]
    assert len(with_part) == len(starts.INITS) * len(starts.PENALTIES)


def test_a_start_of_more_budgets_is_shown_beside_the_chosen_one():
    runs = made()
    for seed in (1, 2, 3):
        runs += pair("chosen", seed, -6.0, 3e-4, auc=0.9)
    runs += [ticket("larger", 1, budget=9_000, searched="sbest1", auc=0.9)]
    drawn = starts.drawn(starts.by_start(runs), BUDGET)
    assert [(start.init, sorted(by_size)) for start, by_size in drawn.items()] == [
        (-15.0, [BUDGET]), (-6.0, [BUDGET]), (-5.0, [BUDGET, 9_000])]
    assert [start.init for start in starts.drawn(starts.by_start(made()), BUDGET)] == [-15.0, -5.0]


def test_beside_a_published_start_that_is_chosen_no_other_is_shown():
    runs = [ticket("larger", 1, budget=9_000, searched="sother1")]
    for seed in (1, 2, 3):
        runs += pair("published", seed, auc=0.9) + pair("other", seed, -5.0)
    assert [*starts.drawn(starts.by_start(runs), BUDGET)] == [PUBLISHED]
    assert starts.drawn({}, BUDGET) == {}


def test_the_page_table_4_and_figure_2_show_both_starts(tmp_path):
    runs = [put(tmp_path, run) for run in made()]
    page = page_of_starts.build(runs, tmp_path, "movielens", "fm")
    [table] = page.tables
    assert [row[0] for row in table.rows] == ["-4", "-5", "-5", "-15"]
    named = [number.what for number in page.numbers]
    assert named == [f"test AUC at {BUDGET:,} parameters, start {init}" for init in (-15, -5)]
    absent = [line.partition(";")[0] for line in page.missing]
    assert absent == ["start -15: no ticket with l2_penalty 0.0003, 0.001",
                      "start -8: no ticket with l2_penalty 0, 0.0003, 0.001",
                      "start -6: no ticket with l2_penalty 0, 0.0003, 0.001",
                      "start -5: no ticket with l2_penalty 0.0003",
                      "start -4: no ticket with l2_penalty 0.0003, 0.001"]
    assert [path.suffix for path in write(page, tmp_path / "pages")] == [".csv", ".png", ".md"]
    lines = [row["method"] for row in table4.build(runs, tmp_path, "movielens", "fm").rows]
    assert lines == [table4.FM] * 3 + [f"{table4.FM}, start -5"] * 3
    series = [row["scheme"] for row in fig2.build(runs, tmp_path, "movielens", "fm").rows]
    assert series == ["PEP"] * 3 + ["PEP, start -5"] * 3


def test_without_a_ticket_of_the_budget_the_page_says_so(tmp_path):
    page = page_of_starts.build([put(tmp_path, result("u"))], tmp_path, "movielens", "fm")
    assert page.missing == [f"no ticket of {BUDGET:,} parameters"]


def test_what_is_shipped_chooses_and_is_run_again_in_a_folder_of_ones_own(tmp_path, monkeypatch):
    given = Namespace(dataset="movielens", model="fm", seeds=[1, 2, 3], out=str(tmp_path),
                      dense=4129 * 64)
    monkeypatch.setattr(planned_runs, "results_in", lambda out, shipped: made() if shipped else [])
    planned = [run.what for run in planned_runs.runs_behind(given, "starts")]
    assert len(planned) == len(set(planned))
    of_budget = [what for what in planned if f"retrain_emb_param={BUDGET} " in what]
    assert len([what for what in of_budget if what.endswith("seed 1")]) == (
        len(starts.INITS) * len(starts.PENALTIES))
    best = [what for what in of_budget if what.endswith("seed 3")]
    assert len(best) == 2  # of the published start, and of the one that shipped runs choose


def test_runs_that_a_record_has_are_not_planned_again(tmp_path, monkeypatch):
    given = Namespace(dataset="movielens", model="fm", seeds=[1, 2, 3], out=str(tmp_path),
                      dense=4129 * 64)
    monkeypatch.setattr(planned_runs, "results_in", lambda out, shipped: made())
    needs = planned_runs.runs_behind(given, "starts")
    planned = [run.what for run in needs]
    budgets = {tuple(need.run.args[2]["candidate_p"]) for need in needs
               if "retrain_emb_param=100000 " in need.what}
    assert budgets == {(100_000, 50_000)}  # a search of its own, that ends early
    at_paper = [what for what in planned if f"retrain_emb_param={BUDGET} " in what]
    # four of the first seed are there, and two of the best one are wanted
    assert len(at_paper) == len(starts.INITS) * len(starts.PENALTIES) - 4 + 2
    assert not [what for what in at_paper if "threshold_init=-15.0 l2_penalty=0.0 " in what]
    larger = [what for what in planned if what not in at_paper]  # of both starts, with all seeds
    assert len(larger) == 4 * 2 * 3
    # the start that is best with the first seed, though it has no other yet, and the published one
    assert all("threshold_init=-15.0 l2_penalty=0.0" in what
               or "threshold_init=-4.0 l2_penalty=0.0" in what for what in larger)
