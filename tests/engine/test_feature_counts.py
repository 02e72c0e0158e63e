"""Counts of popularity: of the training rows, or of a file, which belongs to the run by its
content."""

import numpy as np
import pytest
import tiny
import torch

from data.registry import DATASETS
from engine import feature_counts
from engine.settings import parse
from models.build import EMBEDDINGS, build_embedding

DATA = tiny.dataset(rows=600)
ROWS = DATA.schema.num_rows
MDE = {"embedding": "mde", "mde_blocks": 4, "mde_alpha": 0.4, "max_epochs": 1}


@pytest.fixture(autouse=True)
def data(monkeypatch):
    tiny.install(monkeypatch, DATA)


@pytest.fixture
def write(tmp_path):
    """Save an array under a name; the path as a setting has it."""
    def save(name, array):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)
    return save


def test_counts_are_those_of_the_training_rows_alone():
    expected = np.zeros(ROWS, int)
    for row in DATA.ids[:DATA.counts[0]]:
        for code in row:
            expected[code] += 1
    counts = feature_counts.count(DATA)
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected.tolist()
    assert int(counts.sum()) == 4 * DATA.counts[0] < 4 * 600


def test_the_rows_are_counted_in_pieces(monkeypatch):
    whole = feature_counts.count(DATA)
    monkeypatch.setattr(feature_counts, "COUNTED", 7)
    assert torch.equal(feature_counts.count(DATA), whole)


def test_a_file_of_the_training_rows_counts_gives_the_same_model_and_other_counts_another(tmp_path,
                                                                                          write):
    counts = feature_counts.count(DATA).numpy()
    counted = tiny.train(tmp_path / "a", **MDE)
    given = tiny.train(tmp_path / "b", **MDE, popularity=write("same.npy", counts))
    floats = tiny.train(tmp_path / "c", **MDE,
                        popularity=write("floats.npy", counts.astype(np.float32)))
    other = tiny.train(tmp_path / "d", **MDE, popularity=write("other.npy", counts[::-1]))
    for result in (given, floats):
        assert (result["test_auc"], result["num_embedding_params"]) == (
            counted["test_auc"], counted["num_embedding_params"])
    assert other["test_auc"] != counted["test_auc"]
    assert given["run_id"] == floats["run_id"]  # by content, whatever the file is called
    assert len({result["run_id"] for result in (counted, given, other)}) == 3
    assert "popularity" not in given["identity"]["settings"]


@pytest.mark.parametrize("settings",
                         [{"embedding": "uniform"}, {"model": "linear", "embedding": "mde"}])
def test_where_nothing_is_made_by_popularity_the_file_is_not_looked_for(tmp_path, settings):
    plain = tiny.train(tmp_path, **settings, max_epochs=1)
    assert tiny.train(tmp_path, **settings, max_epochs=1,
                      popularity="absent.npy")["run_id"] == plain["run_id"]


REFUSED = {
    "text": (np.array(["a"] * ROWS), "holds <U1 of shape"),
    "booleans": (np.ones(ROWS, bool), "holds bool of shape"),
    "a table": (np.ones((ROWS, 1)), rf"holds float64 of shape \({ROWS}, 1\)"),
    "negative": (np.r_[np.ones(ROWS - 1, int), -3],
                 rf"entry {ROWS - 1} of .* is -3; counts are whole numbers"),
    "shares": (np.full(ROWS, 0.5), "entry 0 of .* is 0.5"),
    "not a number": (np.r_[1.0, np.nan, np.ones(ROWS - 2)], "entry 1 of .* is nan"),
    "infinite": (np.r_[np.inf, np.ones(ROWS - 1)], "entry 0 of .* is inf"),
    "too short": (np.ones(ROWS - 1, int),
                  rf"popularity must be {ROWS} counts .*; got torch.int64 of shape "
                                          rf"\({ROWS - 1},\)"),
    "too long": (np.ones(ROWS + 1, int), rf"of shape \({ROWS + 1},\)"),
    "empty": (np.ones(0, int), r"of shape \(0,\)"),
    "all zero": (np.zeros(ROWS, int), "no feature occurs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_counts_that_cannot_be_used_are_refused_before_anything_is_trained(tmp_path, write, what):
    array, message = REFUSED[what]
    path = write("counts.npy", array)
    with pytest.raises(ValueError, match=message):
        tiny.train(tmp_path / "out", **MDE, popularity=path)
    assert not list((tmp_path / "out").glob("runs/*/curve.jsonl"))


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no file"), (b"", "cannot be read"), (b"noise", "cannot be read"),
    (b"PK\x03\x04noise", "cannot be read")])
def test_what_is_no_file_of_numpy_is_refused_before_data_is_looked_for(tmp_path, monkeypatch,
                                                                       content, message):
    path = tmp_path / "counts.npy"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setitem(DATASETS, "movielens", None)
    with pytest.raises(ValueError, match=f"popularity: .*{message}.*an .npy file with one count "
                                         f"for each feature"):
        tiny.train(tmp_path / "out", **MDE, popularity=str(path))


def test_several_arrays_and_pickled_ones_are_refused(tmp_path):
    np.savez(tmp_path / "several.npz", a=np.ones(2), b=np.ones(2))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    for name, message in (("several.npz", "holds several arrays"),
                          ("pickled.npy", "cannot be read")):
        with pytest.raises(ValueError, match=message):
            feature_counts.read(str(tmp_path / name))


@pytest.mark.parametrize(("counts", "message"), [
    (torch.ones(8), "got torch.float32"), (torch.tensor([1] * 7 + [-1]), "got -1 for feature 7"),
    (torch.ones(3, dtype=torch.int64), r"popularity must be 8 counts .*of shape \(3,\)")])
@pytest.mark.parametrize("embedding", ["mde", "mgqe"])
def test_whoever_builds_an_embedding_is_told_what_counts_it_needs(embedding, counts, message):
    values = parse({"embedding": embedding, "latent_dim": 8, "mgqe_centroids": 4}).flat()
    with pytest.raises(ValueError, match=message):
        build_embedding((5, 3), values, 1, lambda: counts)
    with pytest.raises(ValueError,
                       match="needs to know how often each feature occurs; give `popularity`"):
        build_embedding((5, 3), values, 1)


def test_only_those_that_are_made_by_popularity_ask_for_it():
    asked = set()
    for name in EMBEDDINGS:
        values = parse({"embedding": name, "latent_dim": 8, "mgqe_centroids": 4,
                        "hash_rows": 4}).flat()
        build_embedding((9, 3), values, 1, lambda name=name: (asked.add(name), torch.arange(12))[1])
    assert asked == set(feature_counts.COUNTING)
