"""Bytes of shipped runs, counted anew from their weights."""

import csv
import shutil

import pytest
import tiny

from engine import stages
from studies import recount, runs_csv
from utils import flat

DATA = tiny.dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a ticket, a search, a mixed-width and a quantised table, to be copied; the
    results of those that have weights."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        tiny.train(out, embedding="pep", candidate_p=[300], lr=0.05, max_epochs=40)
        made = stages.retrain(tiny.settings(retrain_emb_param=300), 1, tiny.context(out))
        made += [tiny.train(out, embedding="mde", mde_blocks=2),
                 tiny.train(out, embedding="mgqe", mgqe_subspaces=2, mgqe_centroids=8)]
    return out, made


@pytest.fixture
def shipped(trained, tmp_path, monkeypatch):
    """A csv of these runs, counted in the old way; what their records say."""
    tiny.install(monkeypatch, DATA)
    out, made = tmp_path / "out", trained[1]
    shutil.copytree(trained[0], out)
    path = tmp_path / "shipped" / "runs.csv"
    path.parent.mkdir()
    runs_csv.append(path, out)
    true = {result["run_id"]: result["inference_bytes"] for result in made}
    lines = runs_csv.lines(path)
    old = {made[0]["run_id"]: 99_999, made[1]["run_id"]: true[made[1]["run_id"]] + 2 * 200}
    for line in lines:
        other = flat.load(line["other"])
        del other[recount.COUNTED]
        line["other"] = flat.dump(other)
        line["inference_bytes"] = str(old.get(line["run_id"], line["inference_bytes"]))
    write(path, lines)
    return path, out, true


def write(path, lines):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, runs_csv.HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def test_what_follows_from_weights_and_records_is_counted_anew(shipped):
    path, out, true = shipped
    before = path.read_text()
    recount.main([str(out), "--csv", str(path)])
    assert path.read_text() == before
    recount.main([str(out), "--csv", str(path), "--write"])
    found = {result["run_id"]: result for result in runs_csv.read(path)}
    for run_id, size in true.items():
        assert (found[run_id]["inference_bytes"], found[run_id][recount.COUNTED]) == (
            size, recount.FILE)
    assert len(found) == 4
    assert [result["stage"] for result in found.values() if recount.COUNTED not in result] == [
        "search"]
    after = path.read_text()
    recount.main([str(out), "--csv", str(path), "--write"])
    assert path.read_text() == after


def test_a_snapshot_of_the_same_mask_is_enough(shipped):
    path, out, true = shipped
    for weights in out.glob("runs/*/model.safetensors"):
        weights.unlink()
    assert recount.recount(path, [out], True)["counted anew"] == 3
    assert {result["inference_bytes"] for result in runs_csv.read(path)} >= set(true.values())


def test_a_ticket_without_weights_stays_as_it_is(shipped, tmp_path, capsys):
    path, _, _ = shipped
    recount.main([str(tmp_path), "--csv", str(path), "--write"])
    assert "1 runs left as they are (retrain)" in capsys.readouterr().out
    sizes = {result["inference_bytes"] for result in runs_csv.read(path)}
    assert 99_999 in sizes


def test_weights_of_another_run_are_refused(shipped):
    path, out, _ = shipped
    lines = runs_csv.lines(path)
    for line in lines:
        if line["stage"] == "retrain":
            line["num_embedding_params"] = "299"
    write(path, lines)
    with pytest.raises(ValueError, match=r"keeps 300 entries .* says 299"):
        recount.recount(path, [out], True)
