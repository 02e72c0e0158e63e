"""Which runs may stand in a page, and which are averaged."""

import json

import pytest
from synthetic_results import lr, result, search, ticket

from engine.settings import identity, parse
from studies import pooling
from studies.published import PRESETS
from studies.series import series_of


def reason(run, *others, tuned=False):
    every = [run, *others]
    data = pooling.data_of([run], every, run["settings"]["dataset"])
    return pooling.why_not(run, pooling.by_run(every), pooling.rows_by_manifest(every), data, tuned)


def cut(run_id="a", most=20, **more):
    return result(run_id, stop_reason="max_epochs", own={"max_epochs": most}, **more)


@pytest.mark.parametrize("dataset", ["movielens", "criteo", "avazu"])
@pytest.mark.parametrize("model", ["linear", "fm", "deepfm", "autoint"])
@pytest.mark.parametrize("embedding", ["pep", "uniform"])
def test_the_scripts_own_settings_are_the_published_ones(dataset, model, embedding):
    settings = parse({**PRESETS[dataset], "model": model, "embedding": embedding})
    stage = "search" if embedding == "pep" and model != "linear" else "train"
    run = {"stage": stage, "settings": json.loads(json.dumps(settings.flat())),
           "identity": {"settings": json.loads(identity(settings))}}
    run["settings"] |= {"weight_decay": 1e-5, "l2_penalty": 0.0}  # in today's words
    assert pooling.as_published(run)
    assert pooling.LENGTH[dataset] == settings.train.max_epochs


@pytest.mark.parametrize(("run", "full"), [
    (cut(most=1), False), (cut(most=99), False), (cut(most=100), True), (cut(most=300), True),
    (cut(most=29, dataset="criteo"), False), (cut(most=30, dataset="criteo"), True),
    (result("a", own={"max_epochs": 20}), True),  # stopped early
    (search("s", stop_reason="max_epochs", own={"max_epochs": 100}), True),
    (search("s", stop_reason="max_epochs", own={"max_epochs": 10}), False),
    (search("s", stop_reason="max_epochs", own={"max_epochs": 200}), False),
    (search("s", epochs=99, own={"max_epochs": 200}), True),
    (search("s", epochs=150, own={"max_epochs": 200}), False)])
def test_full_length(run, full):
    assert pooling.full_length(run) == full


@pytest.mark.parametrize(("own", "published"), [
    ({}, True), ({"lr": 0.1}, False), ({"early_stop": 1}, False), ({"with_ids": True}, False),
    ({"l2_regularization": 1e-4}, False), ({"weight_decay": 1e-4}, False),
    ({"weight_decay": None}, True),
    ({"l2_penalty": 1e-5}, False), ({"latent_dim": 16}, True), ({"candidate_p": [9]}, True),
    ({"mde_alpha": 0.3}, True)])
def test_published_settings_of_a_training(own, published):
    assert pooling.as_published(result("a", own=own)) == published


def test_a_search_of_another_width_or_start_is_no_published_one():
    assert pooling.as_published(search("s"))
    assert not pooling.as_published(search("s", own={"latent_dim": 16}))
    assert not pooling.as_published(search("s", dataset="criteo", own={"threshold_init": -15.0}))
    assert not pooling.as_published(search("s", own={"threshold_init": -8.0}))


def test_a_run_is_left_out_by_the_first_rule_that_it_breaks():
    sample = {"rows": 10_000, "positives": 1, "field_sizes": {}}
    assert reason(result("a")) is None
    assert reason(cut(most=1)) == "other lengths"
    assert reason(result("a", own={"lr": 0.1})) == "other settings"
    assert reason(result("a", own={"lr": 0.1}), tuned=True) is None
    # it alone is to be shown
    assert reason({**result("a", manifest="x"), "data": sample}, result("b")) is None
    every = [{**result("a", manifest="x"), "data": sample}, result("b")]
    kept, left = pooling.usable(every, every, "movielens")
    assert ([run["run_id"] for run in kept], left) == (["b"], {"other data": 1})
    elsewhere = result("c")
    elsewhere["settings"]["split"] = "ids:rows.npz"
    assert reason(elsewhere) == "other data"


def test_a_ticket_counts_like_its_search():
    short = search("s1", stop_reason="max_epochs", own={"max_epochs": 5})
    assert reason(ticket("t"), short) == "other lengths"
    assert reason(ticket("t"), search("s1", own={"threshold_init": -8.0})) == "other settings"
    assert reason(ticket("t"), search("s1")) is None


def test_older_records_are_of_the_rows_that_newer_ones_of_their_data_have():
    old = result("a")
    del old["data"]
    assert reason(old, result("b")) is None
    assert (
        pooling.data_of([old], [old], "movielens").words
        == "data of which no record says how many rows they have"
    )
    every = [old, result("b", manifest="n")]
    assert pooling.usable(every, every, "movielens")[1] == {"other data": 1}


def test_of_samples_the_one_with_most_runs_is_shown():
    runs = [{**result(name, manifest=manifest), "data": {"rows": rows}} for name, manifest, rows in
            (("a", "x", 500), ("b", "y", 900), ("c", "x", 500))]
    assert pooling.data_of(runs, runs, "movielens") == ("x", "a sample of 500 of 739,012 rows")
    assert [run["run_id"] for run in pooling.usable(runs, runs, "movielens")[0]] == ["a", "c"]


def test_early_stopped_runs_of_any_limit_are_averaged_with_those_cut_at_the_longest():
    runs = [result("a", seed=1, own={"max_epochs": 150}), cut("b", 300, seed=2),
            cut("c", 100, seed=3),
            result("d", seed=4, own={"lr": 0.1})]
    assert [[run["run_id"] for run in each]
            for each in pooling.averaged(runs, {})] == [["d"], ["a", "b"]]


def test_a_seed_counts_once_with_its_longest_limit_and_its_newest_form_of_record():
    old = result("a", own={"max_epochs": 150})
    del old["data"]
    assert [run["run_id"]
            for run in pooling.one_a_seed([old, result("b", own={"max_epochs": 150})])] == ["b"]
    assert [run["run_id"]
            for run in pooling.one_a_seed([result("b"),
                                           result("c", own={"max_epochs": 300})])] == ["c"]
    few, many = search("s", snapshots=["9"]), search("z", snapshots=["9", "8"])
    assert [run["run_id"] for run in pooling.one_a_seed([few, many])] == ["z"]


def test_a_run_that_was_cut_before_others_had_ended_is_no_seed_of_theirs():
    ended = result("a", seed=1, own={"max_epochs": 60}) | {"epochs": 26}
    for most, kept in ((2, ["a"]), (26, ["a", "b"]), (60, ["a", "b"])):
        found = pooling.one_a_seed([ended, cut("b", most, seed=2)])
        assert [run["run_id"] for run in found] == kept


def test_old_and_new_words_of_one_decay_are_one_setting():
    old, new = (result("a", own=own) for own in ({"l2_regularization": 1e-5, "weight_decay": 1e-5},
                                                 {"l2_regularization": 1e-5, "weight_decay": None}))
    assert pooling.settings_of(old) == pooling.settings_of(new)
    alone, every = (result("a", own={"l2_regularization": 1e-4, "weight_decay": decay})
                    for decay in (1e-5, None))
    assert pooling.settings_of(alone) != pooling.settings_of(every)
    assert "l2_regularization" not in pooling.settings_of(lr("l"))


def test_how_much_was_rewound_sets_tickets_apart():
    whole, alone = ticket("a"), ticket("b", 2, own={"rewind": "embedding"})
    assert [pooling.rewound_alone(run) for run in (whole, alone, result("u"))] == [False, True,
                                                                                   False]
    assert len(pooling.averaged([whole, alone], {})) == 2
    assert pooling.key(whole, {}, rewind=False) == pooling.key(alone, {}, rewind=False)


def test_tickets_of_searches_of_other_lengths_are_apart_where_no_length_is_published():
    """Where one is, the page leaves out what is of another length."""
    for dataset, groups in (("clicks", 2), ("movielens", 1)):
        searches = [search(f"s{seed}", seed, dataset=dataset, own={"max_epochs": epochs})
                    for seed, epochs in ((1, 2), (2, 60), (3, 60))]
        runs = [ticket(f"t{seed}", seed, source="cut_last", searched=f"s{seed}", dataset=dataset)
                for seed in (1, 2, 3)]
        by_id = pooling.by_run([*searches, *runs])
        assert len(pooling.averaged(runs, by_id)) == groups
        labels = series_of([*searches, *runs])
        assert len(labels) == groups
        assert all(("search max_epochs" in label) == (groups == 2) for label in labels)


def test_runs_with_the_published_protocol_are_counted_and_named_as_such():
    own = {"early_stop_metric": "published_protocol", "eval_interval": 5, "early_stop": 40}
    run = result("p", own=own)
    assert reason(run) == reason(run, tuned=True) == "the published protocol"
    assert reason(ticket("t", searched="s"), search("s", own=own)) == "the published protocol"
    assert list(series_of([run, result("u")])) == ["uniform", "uniform, published protocol"]


def test_a_published_run_of_another_width_or_length_is_named():
    own = {"early_stop_metric": "published_protocol", "eval_interval": 5, "early_stop": 40}
    runs = [ticket("a", own={**own, "latent_dim": 32}), ticket("b", own={**own, "latent_dim": 64}),
            ticket("c", own={**own, "latent_dim": 32, "max_epochs": 20}, stop_reason="max_epochs")]
    assert set(series_of(runs)) == {"PEP, published protocol",
                                    "PEP, latent_dim 64, published protocol",
                                    "PEP, published protocol, cut at 20 epochs"}


def test_tickets_that_depart_from_their_searches_are_apart_from_those_that_do_not():
    searches = [search("s1"), search("s2", 2, own={"lr": 0.01})]
    runs = [ticket("a", 1, searched="s1", own={"lr": 0.01}),
            ticket("b", 2, searched="s2", own={"lr": 0.01})]
    searches[0]["settings"]["lr"] = 0.001  # which its identity, at the default, does not name
    by_id = pooling.by_run([*searches, *runs])
    assert len(pooling.averaged(runs, by_id)) == 2
    assert list(series_of([*searches, *runs])) == ["PEP", "PEP, search lr 0.001"]


def test_the_length_is_a_setting_of_a_cosine():
    runs = [result(f"r{seed}", seed=seed, own={"lr_schedule": schedule, "max_epochs": epochs})
            for seed, schedule, epochs in ((1, "cosine", 14), (2, "cosine", 28),
                                           (3, "constant", 150), (4, "constant", 300))]
    assert [[run["run_id"] for run in each]
            for each in pooling.averaged(runs, {})] == [["r3", "r4"], ["r1"], ["r2"]]
