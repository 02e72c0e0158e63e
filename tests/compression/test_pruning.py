"""Pruning a trained uniform table: what is cut, that it retrains like any ticket, and what is
refused."""

import shutil

import numpy as np
import pytest
import tiny

from compression.loaded_run import load_uniform
from compression.pruning import methods, random_mask
from compression.pruning.methods import prune
from engine import snapshots, stages
from engine.checkpoint import load_checkpoint
from engine.run import Unfinished
from utils.files import read_record, write_record

DATA = tiny.dataset()
SIZE = sum(tiny.SIZES.values()) * tiny.SETTINGS["latent_dim"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a trained uniform table, to be copied; its id."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        return out, tiny.train(out, embedding="uniform")["run_id"]


@pytest.fixture
def trained(source, tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    shutil.copytree(source[0], tmp_path, dirs_exist_ok=True)
    return load_uniform(source[1][:6], tiny.context(tmp_path))


def retrain(out, folder, **changes):
    place = tiny.context(out, alias=folder.name)
    return stages.retrain(tiny.settings(retrain_emb_param="all", **changes), 1, place)


def test_a_training_keeps_what_it_has_trained(trained, tmp_path):
    weights = load_checkpoint(tmp_path / "runs" / trained.run.run_id / "model.safetensors")["model"]
    assert np.array_equal(trained.table, weights["embedding.weight"].numpy())
    others = {name for name in weights if not name.startswith("embedding.")}
    assert set(trained.initial[1]) == others
    assert not np.array_equal(trained.table, trained.initial[0])
    searched = tiny.train(tmp_path, embedding="pep", candidate_p=[SIZE], threshold_init=-15.0)
    assert not (tmp_path / "runs" / searched["run_id"] / "model.safetensors").exists()


def test_magnitude_keeps_the_largest_and_retrains_from_the_initial_values(trained, tmp_path):
    tables = methods.by_magnitude(trained, [300, 100])
    folder = prune(trained, "magnitude", tables, tiny.context(tmp_path))
    assert folder.name == "movielens_magnitude_d4_seed1"
    for count, table in tables.items():
        kept = table != 0
        assert kept.sum() == count
        assert np.array_equal(table[kept], trained.table[kept])
        assert np.abs(trained.table[kept]).min() >= np.abs(trained.table[~kept]).max()
    snapshot, _ = snapshots.read(folder / "100.npz")
    assert snapshot.meta == {"source": "magnitude", "budgets": [100], "run_id": trained.run.run_id,
                             "num_embedding_params": 100}
    initial, others = snapshots.read(folder / "initial.npz")
    assert np.array_equal(initial.table, trained.initial[0])
    assert set(others) == set(trained.initial[1])
    results = retrain(tmp_path, folder)
    assert [result["num_embedding_params"] for result in results] == [300, 100]
    assert {result["snapshot"]["source"] for result in results} == {"magnitude"}


def test_iterative_pruning_descends_in_rounds_that_are_not_repeated(trained, tmp_path, monkeypatch):
    trained_under = []
    original = stages.execute

    def spied(run, model, *others, **named):
        trained_under.append(int(model.embedding.mask.sum()))
        assert np.array_equal(model.embedding.weight.detach().numpy(),
                              trained.initial[0] * model.embedding.mask.numpy())
        return original(run, model, *others, **named)

    monkeypatch.setattr(stages, "execute", spied)
    place = tiny.context(tmp_path)
    tables = methods.iteratively(trained, [150, 120], 0.5, place)
    assert trained_under == [SIZE // 2, SIZE // 4]
    assert {count: int((table != 0).sum()) for count,
            table in tables.items()} == {150: 150, 120: 120}
    first = snapshots.cut_to(trained.table, np.abs(trained.table), SIZE // 2) != 0
    assert not (tables[120] != 0)[~first].any()
    again = methods.iteratively(trained, [120, 150], 0.5, place)
    assert len(trained_under) == 2
    assert all(np.array_equal(tables[count], again[count]) for count in tables)
    [one_shot] = methods.by_magnitude(trained, [120]).values()
    assert not np.array_equal(one_shot != 0, tables[120] != 0)
    results = retrain(tmp_path, prune(trained, "imp", tables, place))
    assert [result["num_embedding_params"] for result in results] == [150, 120]


def test_random_masks_have_their_number_and_their_shares():
    generator = np.random.default_rng(0)
    mask = random_mask.uniform((200, 4), 300, generator)
    assert (mask.shape, mask.dtype, mask.sum()) == ((200, 4), bool, 300)
    assert not np.array_equal(mask, random_mask.uniform((200, 4), 300, generator))
    like = np.zeros((200, 4), bool)
    like[:10], like[150:190, 2] = True, True
    sizes = tuple(tiny.SIZES.values())
    drawn = random_mask.per_field(like, sizes, generator)
    starts = np.cumsum((0, *sizes[:-1]))
    assert np.array_equal(np.add.reduceat(drawn.sum(1), starts),
                          np.add.reduceat(like.sum(1), starts))
    assert not np.array_equal(drawn, like)
    with pytest.raises(ValueError, match="has 200 rows, the fields have 3"):
        random_mask.per_field(like, (1, 2), generator)
    with pytest.raises(ValueError, match="between 1 and the table's 8 entries, got 9"):
        random_mask.uniform((4, 2), 9, generator)


@pytest.mark.parametrize("budgets", [[0], [SIZE + 1], [-3, 10], []])
def test_budgets_outside_the_table_are_refused(trained, tmp_path, budgets):
    with pytest.raises(ValueError, match=f"between 1 and the table's {SIZE} parameters"):
        methods.by_magnitude(trained, budgets)
    with pytest.raises(ValueError, match=f"between 1 and the table's {SIZE} parameters"):
        methods.iteratively(trained, budgets, 0.5, tiny.context(tmp_path))


@pytest.mark.parametrize("keep", [0.0, 1.0, 1.5, -1.0])
def test_rounds_must_keep_some_and_not_all(trained, tmp_path, keep):
    with pytest.raises(ValueError, match="between 0 and 1, got"):
        methods.iteratively(trained, [10], keep, tiny.context(tmp_path))


def test_runs_that_cannot_be_pruned_are_refused(trained, tmp_path):
    place, run_id = tiny.context(tmp_path), trained.run.run_id
    with pytest.raises(FileNotFoundError, match="there is no finished run 'nosuch'"):
        load_uniform("nosuch", place)
    other = tiny.train(tmp_path, embedding="uniform", seed=2)["run_id"]
    with pytest.raises(ValueError, match="the run's id is empty"):
        load_uniform("", place)
    for name in ("same1", "same2"):
        shutil.copytree(tmp_path / "runs" / other, tmp_path / "runs" / name)
    with pytest.raises(ValueError, match="several runs begin with 'same': same1, same2"):
        load_uniform("same", place)
    searched = tiny.train(tmp_path, embedding="pep", candidate_p=[SIZE],
                          threshold_init=-15.0)["run_id"]
    with pytest.raises(ValueError, match=f"run {searched} is a search with embedding pep; only a "
                                         f"trained uniform"):
        load_uniform(searched, place)
    linear = tiny.train(tmp_path, model="linear")["run_id"]
    with pytest.raises(ValueError, match=f"run {linear} is a train with embedding none"):
        load_uniform(linear, place)
    (tmp_path / "runs" / other / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError,
                       match=r"has kept no weights .* run it again with --force; `repro"):
        load_uniform(other, place)
    path = tmp_path / "runs" / run_id / "result.json"
    write_record(path, {**read_record(path), "manifest": "else"})
    with pytest.raises(ValueError, match="was trained on other data"):
        load_uniform(run_id, place)


def test_at_a_dry_place_nothing_is_written(trained, tmp_path):
    place = tiny.context(tmp_path, dry_run=True)
    assert not prune(trained, "magnitude", methods.by_magnitude(trained, [100]), place).exists()
    with pytest.raises(Unfinished, match="is not finished"):
        methods.iteratively(trained, [100], 0.5, place)


def test_an_alias_folder_of_another_run_is_not_overwritten(trained, tmp_path):
    tables = methods.by_magnitude(trained, [100])
    prune(trained, "magnitude", tables, tiny.context(tmp_path, alias="mine"))
    prune(trained, "magnitude", tables, tiny.context(tmp_path, alias="mine"))
    with pytest.raises(FileExistsError, match="belongs to another search"):
        prune(trained, "random", tables, tiny.context(tmp_path, alias="mine"))
