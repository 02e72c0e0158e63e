"""The table of everything: runs that are no equals have no mean in common."""

from made_results import result, ticket

from studies.summary import summarise


def lines(*results):
    return [(scheme, auc, seeds) for _, scheme, _, auc, _, _, seeds in summarise(results)]


def test_runs_of_other_lengths_have_a_row_of_their_own_and_a_seed_counts_once():
    short = [result(f"s{seed}", seed=seed, auc=0.7, stop_reason="max_epochs", own={"max_epochs": 1})
             for seed in (1, 2)]
    whole = [result("a", own={"max_epochs": 150}), result("b", own={"max_epochs": 300}),
             result("c", seed=2, auc=0.82)]
    assert lines(*short, *whole) == [("uniform, d 8", "0.8100 ± 0.0141", "2"),
                                     ("uniform, cut at 1 epoch, d 8", "0.7000 ± 0.0000", "2")]


def test_samples_and_tickets_with_the_embedding_alone_rewound_are_called_so():
    sample = {**result("a", manifest="x"), "data": {"rows": 500}}
    assert ("uniform, data x, 500 rows, d 8", "0.8000", "1") in lines(sample, result("b", seed=2))
    assert lines(ticket("p", own={"rewind": "embedding"}), ticket("q", 2)) == [
        ("PEP", "0.8000", "1"), ("PEP, embedding alone rewound", "0.8000", "1")]
