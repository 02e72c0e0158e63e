"""Budgets to the extreme: paired intervals, and budgets that no run reached."""

import pytest
from synthetic_results import put, result, search, ticket

from studies import paired
from studies.figures import extreme
from studies.page import write


def made(out):
    runs = []
    for seed in (1, 2, 3):
        runs += [put(out, search(f"s{seed}", seed)),
                 put(out, ticket(f"p{seed}", seed, budget=4129, searched=f"s{seed}",
                                 auc=0.80 + seed / 100)),
                 put(out, ticket(f"q{seed}", seed, budget=500, source="cut_last",
                                 searched=f"s{seed}", auc=0.78)),
                 put(out, ticket(f"m{seed}", seed, budget=4129, source="magnitude", searched="u",
                                 auc=0.79 + seed / 100 + (seed - 2) / 1000)),
                 put(out, result(f"w{seed}", seed=seed, params=4129, auc=0.81,
                                 own={"latent_dim": 1}))]
    return runs


def test_differences_are_paired_by_seed_with_their_interval(tmp_path):
    page = extreme.build(made(tmp_path), tmp_path, "movielens", "fm")
    numbers = {number.what: number for number in page.numbers}
    gain = numbers["PEP less magnitude pruning at 4,129 parameters, paired"]
    assert gain.values == pytest.approx([0.011, 0.01, 0.009])
    assert gain.beside == "95 % interval ± 0.0025: higher"  # t(2) = 4.303, s.d. 0.001, three seeds
    assert numbers["PEP less uniform at 4,129 parameters, paired"].beside.endswith(
        "no difference shown"
    )
    assert gain.cells()[1] == "+0.0100 ± 0.0010 (95 % interval ± 0.0025: higher)"
    assert "test AUC, PEP at 500 parameters †" in numbers


def test_budgets_without_a_run_are_listed(tmp_path):
    page = extreme.build(made(tmp_path), tmp_path, "movielens", "fm")
    absent = [budget for budget in extreme.BUDGETS if budget not in (4129, 500)]
    for budget in absent:
        assert f"PEP at {budget:,} parameters: no run (seeds 1, 2, 3)" in page.missing
    assert "uniform d 2: no run (seeds 1, 2, 3)" in page.missing
    written = write(page, tmp_path / "pages")
    assert [path.suffix for path in written] == [".csv", ".png", ".md"]


def test_seeds_that_one_side_lacks_are_not_paired():
    ours, theirs = [result("a", seed=1, auc=0.9),
                    result("b", seed=2, auc=0.8)], [result("c", seed=2, auc=0.7)]
    assert paired.differences(ours, theirs, "test_auc") == pytest.approx([0.1])
    assert paired.interval([0.1]).holds is None


def test_without_a_size_in_common_the_right_panel_says_so(tmp_path):
    left, right = extreme.build([result("w1", own={"latent_dim": 1})], tmp_path, "movielens",
                                "fm").figure.axes
    assert [text.get_text() for text in right.texts] == ["no size that PEP and another have"]
    assert not len(right.get_xticks())
    assert left.get_ylabel() == "test AUC (one seed)"
