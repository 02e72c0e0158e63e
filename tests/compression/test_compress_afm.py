"""`compress.py afm` end to end: records, control, resuming, baselines, and what is refused."""

import json
import statistics

import numpy as np
import pytest
import tiny
import torch
from makers import tree
from safetensors.torch import load_file

import compress
import engine.trainer
from compression import finetune
from compression.afm import command as compress_afm
from compression.afm import compress as compressing
from compression.afm.compress import Choice
from compression.afm.structure import empty_like
from compression.finetune import FineTuning
from compression.loaded_run import load_model
from engine import stages
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.evaluate import Split, measure
from engine.initial_model import fresh_model
from engine.optim import step as optim
from engine.run import pick_device
from utils.files import read_record, write_record

DATA = tiny.dataset(rows=3000)
SETTINGS = {"model": "deepfm", "embedding": "uniform", "latent_dim": 10, "mlp_dims": [12, 10],
            "max_epochs": 8}
ROWS, WIDTH = sum(tiny.SIZES.values()), 10


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    tiny.install(monkeypatch, DATA)
    monkeypatch.setattr(compress_afm, "SECONDS", 0.0)
    monkeypatch.setattr(compress_afm, "BATCHES", (1, 64))
    monkeypatch.setattr(finetune, "DRAWS", 10)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a trained DeepFM, to be copied; its id."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        out = tmp_path_factory.mktemp("trained")
        return out, tiny.train(out, **SETTINGS)["run_id"]


@pytest.fixture
def out(source, tmp_path):
    run = tmp_path / "runs" / source[1]
    run.mkdir(parents=True)
    for name in ("result.json", "model.safetensors"):
        (run / name).write_bytes((source[0] / "runs" / source[1] / name).read_bytes())
    return tmp_path


def afm(out, source, *words):
    """Run the subcommand; the records that it leaves, the factored one first."""
    compress.factor(compress.options().parse_args(["afm", "--run", source[1], "--out", str(out),
                                                   "--device", "cpu",
                                                     *words]))
    found = [json.loads(path.read_text()) for path in (out / "runs").glob("*/result.json")]
    made = [result for result in found if result["stage"] == "finetune"]
    return sorted(made, key=lambda result: result["compression"]["method"] == "dense")


def test_end_to_end(out, source, capsys, monkeypatch):
    tiny.publish(monkeypatch, {**tiny.SETTINGS, **SETTINGS}, rows=3000)
    before = tree(out / "runs" / source[1])
    result, control = afm(out, source, "--emb-rank", "2", "--mlp-rank", "3", "--finetune-epochs",
                          "2")
    assert tree(out / "runs" / source[1]) == before
    made = result["compression"]
    assert made["structure"] == {"ranks": [2] * 4, "fused": True, "layers": {"mlp.mlp.4": 3},
                                 "act": "none"}
    assert made["parameters"] == {"embedding": 2 * ROWS + 4 * 2 * WIDTH + 4 * WIDTH,
                                  "linear": ROWS + 1,
                                  "mlp": (8 * 12 + 12) + 2 * 12 + 3 * (12 + 10) + 3 + 10 + 2 * 10
                                  + 11}
    assert made["parameters_dense"]["embedding"] == ROWS * WIDTH == control["num_embedding_params"]
    path = out / "runs" / result["run_id"] / "model.safetensors"
    assert made["file_bytes"] == path.stat().st_size < 0.6 * made["file_bytes_dense"]
    assert not any(value.shape[:1] == (ROWS,) and WIDTH in value.shape[1:]
                   for value in load_file(path).values())  # no table of the full width is left
    assert set(made["spectra"]["fields"]) == set(tiny.SIZES)
    assert (result["settings"]["max_epochs"], result["epochs"], control["epochs"]) == (2, 2, 2)
    assert result["settings"]["lr"] == pytest.approx(0.001)
    assert result["without_finetuning"]["test_auc"] < result["test_auc"]
    trained = json.loads((out / "runs" / source[1] / "result.json").read_text())
    assert control["without_finetuning"]["test_auc"] == trained["test_auc"]
    assert set(trained) <= set(result)
    assert {file.name for file in (out / "pages").iterdir()} == {f"afm_movielens_deepfm.{end}"
                                                                for end in ("md", "csv", "png")}
    assert "emb-rank 2, mlp-rank 3" in (out / "pages" / "afm_movielens_deepfm.md").read_text()
    assert result["run_id"] in capsys.readouterr().out


def with_control(trained, choice, how=None):
    """What `afm` does but for the page: the factored model's record, with intervals, and the
    control's."""
    how = how or FineTuning()
    made, control = compress_afm.factored(trained, choice, how,
                                          pick_device("cpu")), compress_afm.control(trained, how)
    return compress_afm.compared(trained, made, control,
                               finetune.run_of(trained, how, choice.identity())), control


def test_intervals_hold_both_models_against_each_other_on_the_same_test_rows(out, source,
                                                                             monkeypatch):
    monkeypatch.setattr(finetune, "DRAWS", 200)
    trained = load_model(source[1], tiny.context(out))
    result, control = with_control(trained, Choice(emb_rank=1))
    found = result["intervals"]
    assert (found["against"], found["draws"]) == (control["run_id"], 200)
    for name in ("test_auc", "test_logloss"):
        low, high = found[name]
        assert low < result[name] < high
        low_less, high_less = found[f"{name}_less"]
        assert low_less < result[name] - control[name] < high_less
        assert high_less - low_less < high - low  # what both get wrong cancels
    path = out / "runs" / result["run_id"] / "result.json"
    write_record(path, {name: value for name, value in result.items() if name != "intervals"})
    # an older record gets them
    assert with_control(trained, Choice(emb_rank=1))[0] == result == read_record(path)
    monkeypatch.setattr(finetune, "resample_test", None)  # and none is measured twice
    assert with_control(trained, Choice(emb_rank=1))[0] == result


def test_a_frozen_table_stays_as_it_was_factored_and_the_rest_moves(out, source):
    trained = load_model(source[1], tiny.context(out))
    made = compress_afm.calibrated(trained, Choice(emb_rank=2), pick_device("cpu")).model
    runs = with_control(trained, Choice(emb_rank=2), FineTuning(freeze_embedding=True))
    assert {run["run_id"] for run in runs}.isdisjoint(
        {run["run_id"] for run in with_control(trained, Choice(emb_rank=2), FineTuning())})
    for run, model in zip(runs, (made, trained.model), strict=True):
        assert run["compression"]["freeze_embedding"]
        weights = load_checkpoint(out / "runs" / run["run_id"] / "model.safetensors")["model"]
        moved = {name.split(".")[0] for name, value in model.named_parameters()
                 if not torch.equal(weights[name], value)}
        assert moved == {"linear", "mlp"}
    given = compress.options().parse_args(["afm", "--run", "x", "--emb-rank", "2", "--freeze-emb"])
    assert compress_afm.checked(given)[1].freeze_embedding


def test_a_finished_one_is_not_run_again(out, source, monkeypatch):
    first = afm(out, source, "--ratio", "0.3")
    files = tree(out / "runs")
    monkeypatch.setattr(compress_afm, "calibrated", None)
    assert afm(out, source, "--ratio", "0.3") == first
    assert tree(out / "runs") == files


def test_what_was_trained_on_is_read_back_and_scores_the_same(out, source):
    result, _ = afm(out, source, "--emb-energy", "0.8", "--mlp-energy", "0.9", "--act", "relu")
    trained = load_model(source[1], tiny.context(out))
    weights = load_checkpoint(out / "runs" / result["run_id"] / "model.safetensors")["model"]
    model = empty_like(fresh_model(trained.run), result["compression"]["structure"],
                       DATA.schema.sizes)
    model.load_state_dict(weights, strict=True)
    assert measure(model, Split(*DATA.split("validation"))).auc == result["validation_auc"]
    assert len(set(result["compression"]["structure"]["ranks"])) > 1


def test_killed_while_training_on_it_goes_on_to_the_same_bits(out, source, tmp_path_factory,
                                                              monkeypatch):
    words = ("--emb-rank", "2", "--mlp-rank", "3", "--no-control")
    [whole] = afm(out, source, *words)
    expected = (out / "runs" / whole["run_id"] / "model.safetensors").read_bytes()
    for path in (out / "runs" / whole["run_id"]).iterdir():
        path.unlink()
    step, saver, calls = optim.Step.__call__, engine.trainer.Checkpoint, []
    # after each step
    monkeypatch.setattr(engine.trainer, "Checkpoint", lambda save, seconds: saver(save, 0.0))

    def killed(self, ids, labels):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return step(self, ids, labels)

    monkeypatch.setattr(optim.Step, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        afm(out, source, *words)
    assert not (out / "runs" / whole["run_id"] / "result.json").exists()
    left = out / "runs" / whole["run_id"] / "checkpoint.safetensors"
    save_checkpoint(left, {**load_checkpoint(left), "processor_seconds": 1000.0})
    [again] = afm(out, source, *words)
    assert 1000 < again["processor_seconds"] < 1000 + again["seconds"] * 9  # of both processes
    # the ten steps that were saved are not taken again
    assert len(calls) - 11 == whole["steps"] - 10
    assert (out / "runs" / whole["run_id"] / "model.safetensors").read_bytes() == expected
    assert again["test_auc"] == whole["test_auc"]


def test_a_source_that_was_trained_again_is_calibrated_again(out, source):
    trained, choice = load_model(source[1], tiny.context(out)), Choice(mlp_rank=3)
    first = compress_afm.calibrated(trained, choice, pick_device("cpu")).spectra["layers"]
    path = out / "runs" / source[1] / "model.safetensors"
    content = load_checkpoint(path)
    content["model"] = {name: value * 2 for name, value in content["model"].items()}
    save_checkpoint(path, content)
    trained = load_model(source[1], tiny.context(out))
    again = compress_afm.calibrated(trained, choice, pick_device("cpu")).spectra["layers"]
    assert all(again[name][0] > 3 * values[0] for name, values in first.items())


def test_an_interrupted_calibration_goes_on_to_the_same_moments(out, source, monkeypatch):
    monkeypatch.setattr("compression.calibration.BATCH", 100)
    monkeypatch.setattr("compression.calibration.SAVE_EVERY", 0.0)
    trained, choice = load_model(source[1], tiny.context(out)), Choice(mlp_rank=3)
    device = pick_device("cpu")
    compress_afm.calibrated(trained, choice, device)
    [kept] = (out / "afm").rglob("*.safetensors")
    expected = kept.read_bytes()
    kept.unlink()
    forward, calls = trained.model.forward, []

    def stops(ids):
        calls.append(len(ids))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return forward(ids)

    monkeypatch.setattr(trained.model, "forward", stops)
    with pytest.raises(KeyboardInterrupt):
        compress_afm.calibrated(trained, choice, device)
    assert load_checkpoint(kept)["done"] == 6
    compress_afm.calibrated(trained, choice, device)
    assert kept.read_bytes() == expected
    assert sum(calls) == 2400 + 100  # every row once, and the batch that was lost


@pytest.mark.parametrize("words", [("--method", "svd", "--emb-rank", "3", "--mlp-rank", "4"),
                                   ("--method", "random", "--emb-rank", "3", "--mlp-rank", "4"),
                                   ("--method", "tt", "--emb-rank", "3"),
                                   ("--emb-rank", "3", "--mlp-rank", "4", "--sequential",
                                    "--no-fuse"),
                                   ("--mlp-rank", "4", "--layers", "1,2", "--max-samples", "500"),
                                   ("--mlp-rank", "4", "--act", "relu", "--act-init", "shift")])
def test_every_way_leaves_a_record_without_training_on(out, source, words):
    [result] = afm(out, source, *words, "--finetune-epochs", "0")
    assert result["epochs"] == 0
    assert result["train_loss"] is None
    assert result["without_finetuning"]["test_auc"] == result["test_auc"]
    assert result["num_embedding_params"] <= ROWS * WIDTH
    structure = result["compression"]["structure"]
    assert structure.get("fused", True) == ("--no-fuse" not in words)
    assert list(structure["layers"]) == {"1,2": ["mlp.mlp.0", "mlp.mlp.4"]}.get(
        words[-3] if "--layers" in words else "", ["mlp.mlp.4"] if "--mlp-rank" in words else [])


def test_ranks_by_field_come_from_a_file(out, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "ranks.json"
    path.write_text(json.dumps({"gender": 1, "user": 3, "item": 2, "genre": 0}))
    [result] = afm(out, source, "--field-rank-file", str(path), "--finetune-epochs", "0")
    assert result["compression"]["structure"]["ranks"] == [3, 2, 0, 1]
    fields = "one rank for each of the fields user, item, genre, gender; got ranks for user"
    for content, message in (('{"user": 3}', fields), ("[3, 2]", "must hold a rank for each field"),
                             ("{", "cannot be read"),
                             ('{"gender": 1, "user": 11, "item": 2, "genre": 0}',
                                                       "between 0 and the width 10, got 11")):
        path.write_text(content)
        assert message in refused(out, source, "--field-rank-file", str(path))


def test_the_shifted_start_scores_as_the_linear_one(out, source):
    trained = load_model(source[1], tiny.context(out))
    linear, shifted, published = (
        compress_afm.factored(trained, Choice(mlp_rank=4, **how), FineTuning(0),
                              pick_device("cpu"))["test_logloss"]
        for how in ({}, {"act": "relu", "act_init": "shift"}, {"act": "relu"}))
    # test rows may lie below the least of the calibration rows
    assert shifted == pytest.approx(linear, abs=1e-3)
    assert abs(published - linear) > 1e-3


def test_afm_beats_svd_untrained_and_comes_back_to_the_dense_model_at_a_quarter(tmp_path):
    """What the method promises in kind, on data whose truth is of rank 2: means over three seeds
    and four ranks.

    No theorem: at rank 2 alone SVD is 0.002 ahead here.
    """
    untrained: dict[str, list[float]] = {"afm": [], "svd": [], "random": []}
    gaps, device, validation = [], pick_device("cpu"), Split(*DATA.split("validation"))
    for seed in (1, 2, 3):
        trained = load_model(tiny.train(tmp_path, seed=seed, **SETTINGS)["run_id"],
                             tiny.context(tmp_path))
        for method, scores in untrained.items():
            made = [compress_afm.calibrated(trained, Choice(method, emb_rank=rank), device)
                    for rank in (1, 2, 3, 4)]
            scores += [measure(each.model, validation).auc for each in made]
        how = FineTuning(2)
        tuned = compress_afm.factored(trained, Choice(emb_rank=2), how, device)
        gaps.append(compress_afm.control(trained, how)["test_auc"] - tuned["test_auc"])
        assert tuned["compression"]["parameters"]["embedding"] == 0.26 * ROWS * WIDTH
    means = {method: statistics.mean(scores) for method, scores in untrained.items()}
    assert means["afm"] > means["svd"] > means["random"] + 0.1
    assert statistics.mean(gaps) < 0.002


def refused(out, source, *words):
    before = tree(out)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        afm(out, source, *words)
    assert {name: file for name, file in tree(out).items() if not name.startswith("afm")} == before
    return str(caught.value)


@pytest.mark.parametrize(("words", "message"), [
    (("--emb-rank", "0"), "--emb-rank must be at least 1, got 0"),
    (("--emb-rank", "11"), "between 1 and the width 10, got 11"),
    (("--emb-rank", "3", "--act", "relu"),
     "--act and --sequential are about layers: give --mlp-rank"),
    (("--emb-rank", "3", "--sequential"), "--act and --sequential are about layers"),
    (("--mlp-rank", "3", "--smoothing", "5"), "--smoothing and --no-fuse are about the table"),
    (("--mlp-rank", "3", "--no-fuse"), "--smoothing and --no-fuse are about the table"),
    (("--emb-rank", "3", "--max-samples", "50"), "--max-samples is about layers"),
    (("--emb-rank", "3", "--smoothing", "inf"), "--smoothing must be a number from 0, got inf"),
    (("--emb-rank", "3", "--finetune-lr", "inf"), "a positive factor of lr, got 1 and inf"),
    (("--emb-rank", "10000", "--method", "tt"),
     "10000 is more than a tensor train of this table can have: "),
    (("--emb-rank", "3", "--method", "tt", "--no-fuse"),
     "tt knows no --smoothing and no --no-fuse"),
    (("--mlp-rank", "3", "--layers", ""), "no layer ''"),
    (("--mlp-rank", "11"), "between 1 and the width 10, got 11"),
    (("--mlp-rank", "5", "--max-samples", "4"), "rank 5 cannot be estimated from 4 samples"),
    (("--mlp-rank", "5", "--max-samples", "0"), "no calibration data: 0 samples"),
    (("--emb-energy", "1.0"), "--emb-energy must lie between 0 and 1"),
    (("--mlp-energy", "0"), "--mlp-energy must lie between 0 and 1"),
    (("--ratio", "1.5"), "--ratio must lie between 0 and 1"),
    (("--ratio", "0.001"), "fewer than the"),
    ((), "nothing to factor"),
    (("--mlp-rank", "3", "--layers", "7"), "no layer '7' to factor; the model has 1 (mlp.mlp.0)"),
    (("--emb-rank", "3", "--layers", "2"), "--layers names what to factor"),
    (("--mlp-rank", "3", "--act-init", "shift"), "needs --act relu"),
    (("--method", "tt", "--ratio", "0.5"), "name its rank with --emb-rank"),
    (("--emb-rank", "3", "--smoothing", "-1"), "must be a number from 0, got -1.0"),
    (("--emb-rank", "3", "--finetune-epochs", "-1"), "0 epochs or more"),
    (("--emb-rank", "3", "--finetune-lr", "0"), "positive factor of lr"),
    (("--emb-rank", "3", "--run", "nosuchrun"), "no finished run 'nosuchrun'"),
])
def test_bad_input_is_refused_and_nothing_is_written(out, source, words, message):
    assert message in refused(out, source, *words)


def test_a_checkpoint_of_another_model_is_refused(out, source):
    path = out / "runs" / source[1] / "result.json"
    record = read_record(path)
    write_record(path, {**record, "settings": {**record["settings"], "mlp_dims": [9, 9]}})
    assert "has the weights of another model" in refused(out, source, "--emb-rank", "3")
    write_record(path, {**record, "settings": {**record["settings"], "embedding": "darts"}})
    assert "is DartsEmb's" in refused(out, source, "--emb-rank", "3")
    write_record(path, {**record, "stage": "search"})
    assert "only a trained or retrained model" in refused(out, source, "--emb-rank", "3")
    write_record(path, {**record, "manifest": "other"})
    assert "other data" in refused(out, source, "--emb-rank", "3")
    path.write_text(json.dumps(record))
    (path.parent / "model.safetensors").unlink()
    assert "kept no weights" in refused(out, source, "--emb-rank", "3")


def test_a_pruned_ticket_can_be_factored(tmp_path):
    settings = {**SETTINGS, "embedding": "pep", "candidate_p": [ROWS * 4], "max_epochs": 2}
    tiny.train(tmp_path, **settings)
    [ticket] = stages.retrain(tiny.settings(**settings), 1, tiny.context(tmp_path))
    trained = load_model(ticket["run_id"], tiny.context(tmp_path))
    made = compress_afm.calibrated(trained, Choice(emb_rank=WIDTH), torch.device("cpu"))
    ids = torch.from_numpy(np.array(DATA.split("validation")[0]))
    with torch.no_grad():
        torch.testing.assert_close(made.model(ids), trained.model(ids), rtol=1e-4, atol=1e-4)


def test_methods_on_the_command_line_are_those_that_there_are():
    for method in compressing.METHODS:
        given = compress.options().parse_args(["afm", "--run", "x", "--method", method,
                                               "--emb-rank", "2"])
        assert compress_afm.checked(given)[0].method == method


@pytest.mark.parametrize(("model", "fused"), [("fm", False), ("autoint", True)])
def test_other_models_go_the_same_way(tmp_path, model, fused):
    run_id = tiny.train(tmp_path, **{**SETTINGS, "model": model, "max_epochs": 1})["run_id"]
    trained = load_model(run_id, tiny.context(tmp_path))
    made = compress_afm.factored(trained, Choice(emb_rank=3), FineTuning(1), pick_device("cpu"))
    assert made["compression"]["structure"]["fused"] == fused
    assert made["num_embedding_params"] <= 3 * ROWS + 4 * 3 * WIDTH + 4 * WIDTH
    assert made["test_auc"] != made["without_finetuning"]["test_auc"]
    layers = Choice(mlp_rank=3)
    if model == "fm":
        with pytest.raises(ValueError, match="FM has no layer to factor"):
            layers.layers_of(trained.model)
    else:
        assert layers.layers_of(trained.model) == ["mlp.mlp.4"]
