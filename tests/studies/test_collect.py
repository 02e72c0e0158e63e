"""Results are found, and what cannot be read is said."""

import json

import pytest
from synthetic_results import factored, result, ticket

from studies import pages
from studies.collect import results_in
from studies.figures import PAGES


def put(out, name, text):
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)


def test_results_come_in_the_order_of_run_ids(tmp_path, capsys):
    for name in ("b", "a"):
        put(tmp_path, name, json.dumps(result(name)))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert [result["run_id"] for result in results_in(tmp_path)] == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_older_words_are_translated(tmp_path):
    old, new = result("a"), result("b")
    old["settings"] |= {"l2_regularization": 1e-4, "l2_penalty": 1e-5}
    new["settings"] |= {"l2_regularization": 1e-4, "l2_penalty": 1e-5, "weight_decay": None}
    for made in (old, new):
        put(tmp_path, made["run_id"], json.dumps(made))
    found = [(made["settings"]["weight_decay"], made["settings"]["l2_penalty"])
             for made in results_in(tmp_path)]
    assert found == [(1e-5, 0.0), (None, 1e-5)]


def without(made, *names):
    """As JSON, without what lies at nested names."""
    inner = made
    for name in names[:-1]:
        inner = inner[name]
    del inner[names[-1]]
    return json.dumps(made)


BROKEN = {
    "half": '{"run_id": "b", ', "list": "[]", "number": "7", "nothing": "{}",
    "nameless": without(result("b"), "run_id"),
    "settings empty": json.dumps({**result("b"), "settings": {}}),
    "settings null": json.dumps({**result("b"), "settings": None}),
    "identity empty": json.dumps({**result("b"), "identity": {}}),
    "no width": without(result("b"), "settings", "latent_dim"),
    "no snapshot": without(ticket("b"), "snapshot"),
    "no source": without(ticket("b"), "snapshot", "source"),
    "no log-loss": without(result("b"), "test_logloss"),
    "AUC null": json.dumps({**result("b"), "test_auc": None}),
    "no dense size": without(result("b"), "num_embedding_params_dense"),
    "no published protocol": without(result("b"), "published_protocol"),
    "no loss": without(result("b"), "train_loss"),
    "no compression": without(factored("b"), "compression"),
    "stage of no kind": json.dumps({**result("b"), "stage": []})}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_unreadable_results_are_listed_and_the_others_kept(tmp_path, capsys, text):
    put(tmp_path, "a", json.dumps(result("a")))
    put(tmp_path, "b", text)
    assert [made["run_id"] for made in results_in(tmp_path)] == ["a"]
    said = capsys.readouterr().err
    assert "1 result left out, because unreadable" in said
    assert str(tmp_path / "runs" / "b" / "result.json") in said


def test_what_was_not_trained_has_no_loss(tmp_path):
    made = factored("c", epochs=0)
    put(tmp_path, "c", json.dumps({**made, "epochs": 0, "train_loss": None}))
    assert [found["run_id"] for found in results_in(tmp_path)] == ["c"]


def test_no_page_fails_beside_them(tmp_path):
    for name, text in BROKEN.items():
        put(tmp_path, name, text)
    for name in PAGES:
        pages.draw(name, tmp_path, "movielens", "fm", synthetic=False)


@pytest.mark.parametrize("name", ["inference_bytes", "validation_auc", "commit", "data"])
def test_what_older_results_lack_is_no_reason(tmp_path, name):
    put(tmp_path, "a", without(result("a"), name))
    assert len(results_in(tmp_path)) == 1


def test_bytes_that_are_no_text_are_listed(tmp_path, capsys):
    put(tmp_path, "a", "")
    (tmp_path / "runs" / "a" / "result.json").write_bytes(b"\xff\xfe\x00")
    assert results_in(tmp_path) == []
    assert "result.json" in capsys.readouterr().err
