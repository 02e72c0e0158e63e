import json

import numpy as np
import pytest
import tiny
import torch

from engine import snapshots, stages
from engine.evaluate import Split, measure, measure_test
from engine.run import derive
from models.build import build_embedding
from models.embedding.masked import Masked

DATA = tiny.dataset()
BUDGETS = [500, 300, 40]
SEARCH = {"embedding": "pep", "candidate_p": BUDGETS, "max_epochs": 12}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A DeepFM search: its folder, its result, and the state of its model before the first step."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        initial = tiny.spy(patch)
        out = tmp_path_factory.mktemp("lottery")
        result = tiny.train(out, model="deepfm", **SEARCH)
    return out, result, initial[0][1]


@pytest.fixture
def retrain(searched, monkeypatch):
    """Retrain one budget; return the result, the model, its state before the first step, and the
    snapshot."""
    tiny.install(monkeypatch, DATA)
    seen = tiny.spy(monkeypatch)
    out, search, _ = searched

    def run(budget, **changes):
        settings = tiny.settings(**{"model": "deepfm", "retrain_emb_param": budget, **SEARCH,
                                    **changes})
        [result] = stages.retrain(settings, 1, tiny.context(out, force=True))
        model, before = seen[-1]
        snapshot, _ = snapshots.read(folder(out, search) / f"{budget}.npz")
        return result, model, before, snapshot

    return run


def folder(out, search):
    return out / "embedding" / "deepfm" / search["alias"]


def test_the_search_leaves_one_snapshot_a_budget_and_the_initial_table(searched):
    out, search, _ = searched
    assert search["stop_reason"] == "max_epochs"
    assert search["budgets_not_reached"] == [40]
    assert search["snapshots"] == ["500", "300", "40", "40.magnitude"]
    sources = {}
    for name in search["snapshots"]:
        snapshot, _ = snapshots.read(folder(out, search) / f"{name}.npz")
        assert snapshot.num_params() == int(name.split(".")[0])
        assert snapshot.meta["run_id"] == search["run_id"]
        assert 0.4 < snapshot.meta["without_retraining"]["validation_auc"] <= 1
        sources[name] = snapshot.meta["source"]
    assert sources == {"500": "cut", "300": "cut", "40": "cut_last",
                       "40.magnitude": "cut_last_magnitude"}


def test_the_initial_table_is_the_one_before_the_first_step(searched):
    out, search, before = searched
    initial, others = snapshots.read(folder(out, search) / "initial.npz")
    values = tiny.settings(model="deepfm", **SEARCH).flat()
    fresh = build_embedding(DATA.schema.sizes, values, derive(1, "table"))
    assert np.array_equal(initial.table, fresh.weight.detach())
    assert np.array_equal(initial.table, before["embedding.weight"])
    assert others.keys() == {name for name in before if not name.startswith("embedding.")}
    assert all(np.array_equal(value, before[name]) for name, value in others.items())


def test_a_snapshot_scores_what_its_table_scores_in_the_searched_model(searched, monkeypatch):
    out = searched[0]
    tiny.install(monkeypatch, DATA)
    seen = tiny.spy(monkeypatch)
    again = tiny.train(out / "again", model="deepfm", **SEARCH)
    model, _ = seen[0]
    snapshot, _ = snapshots.read(folder(out / "again", again) / "40.npz")
    model.embedding = Masked.of_table(torch.from_numpy(snapshot.table), DATA.schema.num_fields)
    scores = snapshot.meta["without_retraining"]
    measured = measure(model, split("validation"))
    assert (measured.auc, measured.logloss) == (scores["validation_auc"],
                                                scores["validation_logloss"])
    assert measure_test(model, split("test"), 64).items() <= scores.items()
    # the search's own result is that of the whole last table
    assert again["test_auc"] != scores["test_auc"]


def split(name):
    return Split(*DATA.split(name))


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_ticket_starts_from_the_masked_initial_table_and_stays_zero_outside(searched, retrain,
                                                                                budget):
    out, search, _ = searched
    result, model, before, snapshot = retrain(budget)
    initial = snapshots.read(folder(out, search) / "initial.npz")[0].table
    kept = snapshot.table != 0
    assert np.array_equal(before["embedding.weight"], initial * kept)
    after = model.embedding.weight.detach().numpy()
    assert (after[~kept] == 0).all()
    assert (after[kept] != initial[kept]).all()
    assert np.array_equal(model.embedding.table() != 0, kept)
    assert result["num_embedding_params"] == budget == int(kept.sum())
    assert result["num_embedding_params_dense"] == kept.size
    assert result["snapshot"] == snapshot.meta
    assert result["stage"] == "retrain"


def test_with_the_embedding_rewound_alone_everything_else_starts_fresh(searched, retrain):
    _, _, search_start = searched
    _, _, before, _ = retrain(300, rewind="embedding")
    for name in ("linear.layer.fc.weight", "mlp.mlp.0.weight"):
        assert not torch.equal(before[name], search_start[name])


def test_by_default_every_initial_value_is_restored(searched, retrain):
    _, _, search_start = searched
    _, _, before, snapshot = retrain(300)
    others = [name for name in before if not name.startswith("embedding.")]
    assert len(others) > 8
    assert all(torch.equal(before[name], search_start[name]) for name in others)
    assert np.array_equal(before["embedding.weight"], search_start["embedding.weight"].numpy()
                          * (snapshot.table != 0))


@pytest.mark.parametrize(("rewind", "runs"), [("all", 2), ("embedding", 1)])
def test_a_mask_over_other_initial_weights_is_another_run(searched, tmp_path, monkeypatch, rewind,
                                                          runs):
    tiny.install(monkeypatch, DATA)
    out, search, _ = searched
    initial, others = snapshots.read(folder(out, search) / "initial.npz")
    # as a training draws them
    other = {name: np.asarray(value + 1) for name, value in others.items()}
    settings = tiny.settings(**{**SEARCH, "model": "deepfm", "rewind": rewind, "max_epochs": 1})
    whole, results = np.ones_like(initial.table), []
    for source, rest in (("cut", others), ("magnitude", other)):
        ticket = snapshots.pruned_table(whole, {"source": source})
        results.append(stages.retrain_one(settings, 1, tiny.context(tmp_path), DATA, ticket,
                                          initial.table, rest))
    assert len({result["run_id"] for result in results}) == runs
    assert len({result["train_loss"] for result in results}) == runs


def test_re_init_keeps_the_mask_and_draws_fresh_values(searched, retrain):
    result, model, before, snapshot = retrain(300, re_init=True)
    ticket, _, rewound, _ = retrain(300)
    kept = snapshot.table != 0
    fresh = before["embedding.weight"].numpy()
    assert np.array_equal(fresh != 0, kept)
    assert (fresh[kept] != rewound["embedding.weight"].numpy()[kept]).all()
    assert np.abs(fresh).max() <= np.sqrt(6 / sum(kept.shape))
    assert (model.embedding.weight.detach().numpy()[~kept] == 0).all()
    assert result["run_id"] != ticket["run_id"]
    for name in ("linear.layer.fc.weight", "mlp.mlp.0.weight"):
        assert torch.equal(before[name], rewound[name])


def test_all_retrains_every_budget_largest_first_and_leaves_out_the_magnitude_cuts(searched,
                                                                                   monkeypatch):
    tiny.install(monkeypatch, DATA)
    settings = tiny.settings(model="deepfm", retrain_emb_param="all", **{**SEARCH, "max_epochs": 1})
    results = stages.retrain(settings, 1, tiny.context(searched[0]))
    assert [result["num_embedding_params"] for result in results] == BUDGETS
    assert len({result["run_id"] for result in results}) == 3
    again = stages.retrain(settings, 1, tiny.context(searched[0]))
    # read, not run again: even the times are the same
    assert again == json.loads(json.dumps(results))
