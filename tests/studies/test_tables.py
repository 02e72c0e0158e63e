"""Tables 3 and 4: ours beside the paper's."""

import csv

import pytest
from synthetic_results import lr, result, search, ticket

from studies.figures import table3, table4
from studies.page import OPEN, write


def older(run_id, **more):
    made = result(run_id, **more)
    del made["data"]
    return made


def test_the_data_beside_the_papers(tmp_path):
    page = table3.build([result("a"), older("b"), result("c", dataset="criteo")], tmp_path,
                        "movielens", "fm")
    assert [(number.what, number.values, number.paper) for number in page.numbers] == [
        ("rows", [739_012], 739_015), ("fields", [4], 7), ("features", [100], 3_864),
        ("positives", [554_259], None)]
    assert (page.missing, page.stem, page.figure) == ([], "table3_movielens", None)
    table, _ = write(page, tmp_path)
    (row,) = csv.DictReader(table.open())
    assert (row["features"], row["paper_features"], row["runs"]) == ("100", "3864", "a")


def test_a_difference_has_its_reason_where_it_is_ours(tmp_path):
    made = result("a")
    made["data"] |= {"rows": 739_012}
    page = table3.build([made], tmp_path, "movielens", "fm")
    assert page.numbers[0].difference == -3
    assert page.numbers[0].why.startswith("three rows")
    assert page.numbers[2].why == OPEN


def test_runs_that_do_not_say_their_data_are_named(tmp_path):
    page = table3.build([older(name) for name in "abcde"], tmp_path, "movielens", "fm")
    assert page.missing == ["data m: no run says what they are; those made from them are older and "
                            "have no `data`: a b c and 2 more"]
    assert page.numbers == []


def test_two_sets_of_data_are_told_apart(tmp_path):
    page = table3.build([result("a"), result("b", manifest="n")], tmp_path, "movielens", "fm")
    assert [number.what for number in page.numbers if "rows" in number.what] == ["rows, data m",
                                                                                 "rows, data n"]


def test_pep_0_of_each_model_and_what_is_missing(tmp_path):
    runs = [lr("l1"), *(search(f"s{seed}", seed) for seed in (1, 2, 3)),
            *(ticket(f"t{seed}", seed, 6541, searched=f"s{seed}", auc=0.84 + seed / 1000)
              for seed in (1, 2, 3)),
            ticket("other", 1, 9281), ticket("fresh", 1, 6541, re_init=True),
            ticket("d", 2, 8604, model="deepfm", source="cut_last", auc=0.83)]
    page = table4.build(runs, tmp_path, "movielens", "fm")
    assert [(number.what, pytest.approx(sum(number.values) / len(number.values)), number.seeds,
             number.paper)
            for number in page.numbers] == [
        ("LR: AUC, published protocol", 0.771, 1, 0.7717),
        ("LR: AUC, selected on validation", 0.77, 1, 0.7717),
        ("PEP-0 (FM): parameters", 6541, 3, 6541),
        ("PEP-0 (FM): AUC, published protocol", 0.843, 3, 0.8368),
        ("PEP-0 (FM): AUC, selected on validation", 0.842, 3, 0.8368),
        ("PEP-0 (DeepFM) †: parameters", 8604, 1, 8604),
        ("PEP-0 (DeepFM) †: AUC, published protocol", 0.831, 1, 0.8491),
        ("PEP-0 (DeepFM) †: AUC, selected on validation", 0.83, 1, 0.8491)]
    assert page.missing == ["LR: seeds 2, 3", "PEP-0 (DeepFM) at 8,604 parameters: seeds 1, 3",
                            "PEP-0 (AutoInt) at 9,281 parameters: no run (seeds 1, 2, 3)"]
    assert [number.why for number in page.numbers if number.what.startswith("PEP-0 (FM): AUC")] == [
        "our uniform tables score higher than the paper's too"] * 2
    assert "the paper does not say how it got there" in page.numbers[-1].why
    assert [row["runs"] for row in page.rows] == ["l1", "t1", "t2", "t3", "d"]


def test_pep_0_of_a_short_search_or_with_the_embedding_alone_rewound_is_missing():
    short = search("s1", stop_reason="max_epochs", own={"max_epochs": 2})
    runs = [short, search("s2", 2), ticket("t1", 1, 6541, searched="s1"),
            ticket("t2", 2, 6541, searched="s2", own={"rewind": "embedding"})]
    page = table4.build(runs, None, "movielens", "fm")
    assert page.numbers == []
    assert ("PEP-0 (FM) at 6,541 parameters: no run (seeds 1, 2, 3); tickets with the embedding "
            "alone rewound exist (seed 2) and do not count") in page.missing
    assert page.left_out[0].startswith("Left out (FM): 2 runs of other lengths.")


def test_a_sample_stands_beside_nothing_of_the_papers(tmp_path):
    runs = [{**ticket(f"t{seed}", seed, 1067, dataset="criteo"),
             "data": {"rows": 10_000, "positives": 2500, "field_sizes": {"a": 9}}}
            for seed in (1, 2, 3)]
    for page in (table4.build(runs, tmp_path, "criteo", "fm"),
                 table3.build(runs, tmp_path, "criteo", "fm")):
        table, words = write(page, tmp_path)
        assert "paper_" not in table.read_text()
        assert all(number.paper is None for number in page.shown_numbers)
        assert "of 45,840,617 rows" in words.read_text()


def test_aucs_beside_the_papers_have_their_sampling_error(tmp_path):
    page = table4.build([lr("a")], tmp_path, "movielens", "fm")
    assert [number.sampling for number in page.numbers] == [pytest.approx(0.0018, abs=5e-5)] * 2
    close = table4.build([lr("a", published_protocol={"best_test_auc": 0.7727})], tmp_path,
                         "movielens", "fm")
    assert close.numbers[0].why == "within one sampling error of the test rows"


def test_a_difference_within_the_spread_needs_no_other_reason(tmp_path):
    runs = [ticket("a", 1, 6541, auc=0.83), ticket("b", 2, 6541, auc=0.845)]
    page = table4.build(runs, tmp_path, "movielens", "fm")
    assert page.numbers[-1].why == "within one standard deviation over seeds"


def test_autoint_with_first_order_weights_is_a_row_of_its_own(tmp_path):
    with_linear = {"with_linear": True}
    runs = [ticket("a", 1, 3116, model="autoint", dataset="criteo"),
            ticket("w", 1, 1117, model="autoint", dataset="criteo", own=with_linear),
            ticket("no", 1, 1117, model="autoint", dataset="criteo")]
    page = table4.build(runs, tmp_path, "criteo", "fm")
    assert [(row["method"], row["runs"]) for row in page.rows] == [("PEP-0 (AutoInt)", "a"),
                                                                   ("PEP-0 (AutoInt+LR)", "w")]


def test_data_that_the_paper_does_not_use(tmp_path):
    page = table4.build([], tmp_path, "planted", "fm")
    assert (page.rows,
            page.missing) == ([], ["the paper's budgets for planted: it does not use these data"])


def test_features_are_counted_without_rows_for_unknown_values_that_nothing_fell_into(tmp_path):
    counted = result("b")
    counted["data"]["unused_unknown_rows"] = 3
    for results in ([counted], [result("a"), counted]):
        page = table3.build(results, tmp_path, "movielens", "fm")
        assert [number.values for number in page.numbers if number.what == "features"] == [[97]]
        assert page.rows[0]["features"] == 97
