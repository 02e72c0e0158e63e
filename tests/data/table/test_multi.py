"""Columns with several values in a cell: cells against pandas, training, and what refuses them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from compression.loaded_run import LoadedRun
from data import vocabulary
from data.schema import Schema
from data.split import split_rows
from data.table import spool
from data.table.encode import describe, open_table
from data.table.options import SPLIT_SEED, OwnTable, TableOptions
from engine import stages
from engine.evaluate import auc
from engine.run import RunContext
from engine.settings import parse
from models.build import EMBEDDINGS, MODELS, build_embedding, build_model
from models.embedding.base import TableEmbedding
from models.serving.scorer import load
from serving.export import export
from studies import sizes
from studies.kept_widths import kept_of

GENRES = ["Drama", "Comedy", "Sci-Fi", "Zürich|", "War"]
SEPARATOR = "/"
SETTINGS = {"dataset": "films", "label": "liked", "multi": {"genres": SEPARATOR}, "min_count": 2,
            "split": "auto", "latent_dim": 4, "batch_size": 128, "lr": 0.02, "max_epochs": 2,
            "eval_interval": 1, "threshold_init": -3.0, "log_interval": 1, "tensorboard": False,
            "candidate_p": [60, 30], "mlp_dims": [8]}


def films(rows=800, seed=0):
    rng = np.random.default_rng(seed)
    many = rng.integers(0, 4, rows)
    genres = [SEPARATOR.join(rng.choice(GENRES, number, replace=False)) for number in many]
    genres[7] = "rare/Drama//War"  # an empty value between two separators
    liked = [str(int(("Drama" in cell) ^ (rng.random() < 0.02))) for cell in genres]
    return pd.DataFrame({"user": rng.integers(0, 20, rows).astype(str), "genres": genres,
                         "year": rng.choice(["1999", "2001"], rows), "liked": liked})


def opened(tmp_path, frame, split="auto", vocabulary="all", **options):
    options = TableOptions.of({"label": "liked", "min_count": 2, "multi": {"genres": SEPARATOR},
                               **options})
    request = OwnTable("films", options, split, vocabulary)
    return open_table(frame, tmp_path / "cache", request)


@pytest.mark.parametrize("kept", ["all", "train"])
def test_every_slot_is_as_pandas_says_and_slots_share_their_rows(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(spool, "MOST_LABELS", 3)
    frame = films()
    made = opened(tmp_path, frame, vocabulary=kept)
    slots = frame["genres"].str.split(SEPARATOR, expand=True).fillna("")
    assert made.schema.fields == ("user", "genres", *(f"genres.{n}" for n in (2, 3, 4)), "year")
    assert made.schema.sizes[2:5] == (0, 0, 0)
    rng = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(frame))
    tenth = len(frame) // 10
    parts = np.split(rng, [len(frame) - 2 * tenth, len(frame) - tenth])
    order = np.concatenate([np.sort(part) for part in parts])
    counted = slots if kept == "all" else slots.iloc[parts[0]]
    counts = counted.stack().value_counts()
    known = sorted(counts.index[counts >= 2], key=lambda value: (-counts[value], value))
    first = made.schema.offsets[1]
    wanted = slots.map(lambda value: first + (known.index(value) if value in known
                                              else len(known)))
    assert np.array_equal(made.ids[:, 1:5], wanted.to_numpy()[order])
    assert made.schema.sizes[1] == len(known) + 1
    assert made.schema.num_rows == sum(made.schema.sizes) == made.vocabulary.size
    genres = made.vocabulary.field("genres")
    assert genres.lookup(["War", "rare", ""]).tolist() == [
        first + known.index("War"), genres.unknown, first + known.index("")]
    found = {value: count for _, value, count in genres.entries()}
    assert {value: found[value or None] for value in known} == counts[known].to_dict()
    # a written set is read back
    assert opened(tmp_path, frame, vocabulary=kept).hash == made.hash


def test_the_summary_has_one_line_for_all_slots(tmp_path):
    made = opened(tmp_path, films())
    lines = [line.split() for line in describe(made).splitlines()]
    assert [line[1:4] for line in lines if line and line[0] == "genres"] == [["up", "to", "4"]]
    assert not any(line[0].startswith("genres.") for line in lines if line)
    assert "genres.2" not in vocabulary.described(made.vocabulary)
    kept = np.arange(made.schema.num_rows)
    assert [field.name for field in sizes.sizes_of(made, kept)] == ["user", "genres", "year"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_every_model_and_embedding_reads_shared_rows(model, embedding):
    field_sizes, values = (9, 6, 0, 0, 5), {"model": model, "embedding": embedding,
                                            "latent_dim": 4, "mlp_dims": (8,), "qr_collisions": 2,
                                            "hash_rows": 4, "tt_rank": 2, "mde_blocks": 2,
                                            "mgqe_centroids": 4, "mgqe_subspaces": 2}
    made = build_embedding(field_sizes, values, 1, lambda: torch.arange(1, 21))
    whole = build_model(field_sizes, values, 1, made)
    ids = torch.tensor([[0, 9, 9, 14, 15], [8, 10, 12, 9, 19]])
    logits = whole(ids)
    assert logits.shape == (2,)
    logits.sum().backward()
    if isinstance(made, TableEmbedding):
        with torch.no_grad():
            assert torch.allclose(made(ids), made.table()[ids])


def run_all(tmp_path, embedding, **more):
    path = tmp_path / "films.csv"
    if not path.exists():
        films().to_csv(path, index=False)
    context = RunContext(tmp_path / "out", tmp_path / "cache", str(path), "cpu")
    settings = parse({**SETTINGS, "embedding": embedding, **more})
    return stages.train(settings, 1, context), settings, context


def test_rows_that_come_twice_in_a_cell_or_row_get_the_whole_gradient(tmp_path):
    aucs = []
    for update in ("auto", "dense"):
        (tmp_path / update).mkdir()
        result = run_all(tmp_path / update, "uniform", table_update=update, max_epochs=60,
                         lr=0.05)[0]
        aucs.append(result["validation_auc"])
    assert aucs[0] == pytest.approx(aucs[1], abs=1e-6)
    assert aucs[0] > 0.85  # drama is found in whatever slot it stands


def test_pep_counts_shared_rows_once_and_its_tickets_are_retrained(tmp_path):
    search, settings, context = run_all(tmp_path, "pep")
    rows = sum(search["data"]["field_sizes"].values())
    assert search["num_embedding_params_dense"] == 4 * rows
    tickets = stages.retrain(settings, 1, context)
    assert [ticket["num_embedding_params"] for ticket in tickets] == [60, 30]
    _, dataset, kept = kept_of(tickets[0]["run_id"], None, context)
    assert kept.sum() == 60
    assert len(kept) == rows == dataset.schema.num_rows


@pytest.mark.parametrize("scheme", ["pep", "qr"])
def test_an_exported_model_reads_cells_with_several_values(tmp_path, scheme, caplog):
    result, settings, context = run_all(tmp_path, scheme, qr_collisions=2)
    if scheme == "pep":
        result = stages.retrain(settings, 1, context)[0]
    export(result["run_id"], tmp_path / "model", context=context)
    scorer = load(tmp_path / "model")
    frame = films()
    held_out = frame.iloc[split_rows(len(frame), SPLIT_SEED)[1]]
    scores = scorer.score(held_out)
    assert auc(held_out["liked"].astype(int).to_numpy(), scores) == pytest.approx(
        result["validation_auc"], abs=1e-6)
    frame.iloc[:30].to_csv(tmp_path / "new.csv", index=False)
    scorer.score_file(tmp_path / "new.csv", tmp_path / "scores.csv")
    scored = pd.read_csv(tmp_path / "scores.csv")["probability"].to_numpy()
    assert np.allclose(scored, scorer.score(frame.iloc[:30]), atol=1e-6)
    many = scorer.score({"user": ["1"], "genres": ["a/b/c/d/e"], "year": ["1999"]})
    assert np.isnan(many[0])
    assert "5 values in 'genres', the model takes 4" in caplog.text


def test_other_methods_say_that_they_do_not_know_slots(tmp_path):
    made = opened(tmp_path, films())
    loaded = LoadedRun(dataclasses.make_dataclass("R", ["dataset"])(made), None, "abc", 0, 1)
    with pytest.raises(ValueError, match=r"multi.*UMEC does not know.*compress.py magnitude"):
        loaded.with_one_value_a_field("UMEC")


@pytest.mark.parametrize(("options", "why"), [
    ({"multi": {"genres": ("/", 3)}}, r"4 values in row 8, more than 3.*\['/', 4\]"),
    ({"multi": {"genres": ""}}, "what stands between the values"),
    ({"multi": {"genres": 3}}, r"what stands between the values.*got \[3\]"),
    ({"dates": {"genres": 3}}, "unknown part"),
    ({"multi": {"genres": ("/", 1)}}, "2 to 1000"),
    ({"multi": {"genre": "/"}}, "multi: the table has no such column.*'genres'"),
    ({"multi": {"liked": "/"}}, "multi names the label"),
    ({"dates": {"genres": "hour"}}, "in multi and also in dates"),
    ({"ignore": ("genres",)}, "in multi and also in ignore")])
def test_what_does_not_fit_is_refused(tmp_path, options, why):
    with pytest.raises(ValueError, match=why):
        opened(tmp_path, films(), **options)


def test_a_column_that_has_the_name_of_a_slot_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a column 'genres.3'; rename"):
        opened(tmp_path, films().assign(**{"genres.3": "x"}))


def test_a_slot_needs_a_field_before_it():
    with pytest.raises(ValueError, match="a field with values before it"):
        Schema("films", ("a", "b"), (0, 3))


def test_a_set_of_before_stays_valid():
    assert "multi" not in TableOptions(label="y").identity()
    assert TableOptions.of({"multi": {"g": "|"}}).identity()["multi"] == {"g": ["|", 16]}
