"""`compress.py umec` from a trained DLRM to a small one: stages, files, resuming, and what is
refused."""

import json
import math
import sys

import numpy as np
import pytest
import tiny
import torch
from makers import tree

import compress
from compression.afm import command as afm
from compression.afm.compress import Choice
from compression.finetune import FineTuning
from compression.loaded_run import load_model
from compression.umec import command as compress_umec
from compression.umec.command import Task
from compression.umec.dynamics import Dynamics
from data import criteo
from data.loader import Loader
from data.registry import WITH_DENSE
from data.synthetic import raw_planted
from engine import cli, stages
from engine.checkpoint import load_checkpoint
from engine.evaluate import Split, logits_of
from engine.run import Unfinished
from models.dlrm import DLRM, Shape
from models.embedding.uniform import Uniform

DATA = tiny.dataset()
DLRM_SETTINGS = {"model": "dlrm", "embedding": "uniform", "arch_mlp_top": [8, 6],
                 "optimizer": "sgd", "lr": 0.1,
                 "l2_regularization": 0.0, "l2_penalty": 0.0}


def train(out, **changes):
    return tiny.train(out, **{**DLRM_SETTINGS, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one trained DLRM, to be copied or added to; its run's id."""
    out = tmp_path_factory.mktemp("umec")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        return out, train(out)["run_id"]


@pytest.fixture
def base(trained, monkeypatch):
    tiny.install(monkeypatch, DATA)
    return compress_umec.load(trained[1][:6], "field", tiny.context(trained[0]))


def weights(out, run_id, name="model.safetensors"):
    return load_checkpoint(out / "runs" / run_id / name)


def test_from_a_trained_dlrm_to_a_small_one(trained, base):
    out, run_id = trained
    result = compress_umec.compress(base, Task(0.5), tiny.context(out))
    made = result["compression"]
    assert (result["stage"], made["base"], made["method"]) == ("finetune", run_id, "umec")
    assert 0.3 < made["resource_left"] <= 0.5
    left = [width for width in made["widths"].values() if width]
    small = weights(out, result["run_id"])["model"]
    assert small["top.0.weight"].shape == (made["neurons"][0], sum(left))
    assert small["top.1.weight"].shape == (made["neurons"][1], made["neurons"][0])
    assert set(made["widths"]) == set(tiny.SIZES)
    kept = sum(size for name, size in tiny.SIZES.items() if made["widths"][name])
    assert result["num_embedding_params"] == 4 * kept == small["embedding.tables.0"].numel()
    assert 0.5 < result["test_accuracy"] < 1
    descent = json.loads((out / "runs" / made["descent"] / "result.json").read_text())
    assert descent["stage"] == "compress"
    assert abs(made["validation_auc_after_zero"] - made["validation_auc_before_zero"]) < 0.02
    found = weights(out, made["descent"], compress_umec.FILE)
    zeroed = found["model"]["top.1.weight"][:, ~found["kept"].bool()[1, :8]]
    assert zeroed.numel()
    assert not zeroed.any()
    assert made["history"][-1]["resource"] <= 0.5
    before = tree(out)
    # finished runs are not run again
    assert compress_umec.compress(base, Task(0.5), tiny.context(out)) == result
    assert tree(out) == before
    with pytest.raises(Unfinished):
        compress_umec.compress(base, Task(0.45), tiny.context(out, dry_run=True))


def test_one_descent_goes_through_several_budgets(trained, base):
    out, _ = trained
    before = len(list((out / "runs").iterdir()))
    results = [compress_umec.compress(base, Task(budget, along=(0.7, 0.4)), tiny.context(out))
               for budget in (0.7, 0.4)]
    # the descent, and two that are trained on
    assert len(list((out / "runs").iterdir())) == before + 3
    one, other = (result["compression"] for result in results)
    assert one["descent"] == other["descent"]
    assert one["resource_left"] <= 0.7
    assert other["resource_left"] <= 0.4 < one["resource_left"]
    assert list(one["passed"]) == ["0.7"]
    assert sum(one["widths"].values()) + sum(one["neurons"]) > sum(other["widths"].values()) + sum(
        other["neurons"]
    )
    with pytest.raises(ValueError,
                       match=r"one descent through the budgets .* this is magnitude at 0.7"):
        Task(0.7, "magnitude", along=(0.7, 0.4))


def test_one_descent_is_made_again_once(trained, monkeypatch, capsys):
    out, run_id = trained
    tiny.install(monkeypatch, DATA)
    made, descend = [], compress_umec._descend
    monkeypatch.setattr(compress_umec, "_descend", lambda *what: made.append(1) or descend(*what))
    call = ["umec", "--run", run_id, "--budget", "0.8", "--budget", "0.6", "--budget", "0.8",
            "--one-descent", "--epochs", "1", "--finetune-epochs", "1", "--out", str(out)]
    for more, count in (([], 1), ([], 1), (["--force"], 2)):
        monkeypatch.setattr(sys, "argv", ["compress.py", *call, *more])
        compress.main()
        assert len(made) == count
        assert len(capsys.readouterr().out.splitlines()) == 2
    [path] = out.glob("runs/*/compressed_0.8.safetensors")
    path.unlink()
    monkeypatch.setattr(sys, "argv", ["compress.py", *call])
    with pytest.raises(FileNotFoundError, match=r"compressed_0.8.* is gone; .* --force"):
        compress.main()


@pytest.mark.parametrize(("method", "given", "words"), [
    ("umec", {"dynamics": {"slr": -1.0}}, "--slr must be a number from 0, got -1.0"),
    ("umec", {"dynamics": {"zlr": math.nan}}, "--zlr must be a number from 0, got nan"),
    ("group-lasso", {"strength": math.inf}, "--strength must be a positive number"),
    ("umec", {"strength": 0.5}, "--strength changes nothing for umec; it is of group-lasso"),
    ("magnitude", {"dynamics": {"slr": 1.0}}, "--slr changes nothing for magnitude; it is of umec "
                                              "and as-umec")])
def test_what_changes_nothing_or_is_no_rate_is_refused(method, given, words):
    with pytest.raises(ValueError, match=words):
        Task(0.5, method, **{**given, "dynamics": Dynamics(**given.get("dynamics", {}))})


def test_a_model_of_lanes_is_compressed_in_one_process(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    adam = {"optimizer": "adam", "lr": 0.01, "table_update": "auto"}
    run_id = train(tmp_path, **adam, lanes=4)["run_id"]
    lanes = compress_umec.load(run_id, "field", tiny.context(tmp_path))
    made = compress_umec.compress(lanes, Task(0.9, epochs=1, finetune_epochs=1),
                                  tiny.context(tmp_path), {"ema": 0.9})
    assert made["settings"]["lanes"] == 0


def test_a_killed_descent_goes_on_where_it_was(trained, base, tmp_path, monkeypatch):
    out, _ = trained
    whole = compress_umec.compress(base, Task(0.6, epochs=2), tiny.context(out))
    call = compress_umec.ResourceConstraint.__call__

    def killed(self, state):
        reason = call(self, state)
        if state.step == 25:
            raise KeyboardInterrupt
        return reason

    other = tiny.context(tmp_path)
    changes = {"checkpoint_seconds": 0.0}
    with monkeypatch.context() as patch:
        patch.setattr(compress_umec.ResourceConstraint, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            compress_umec.compress(base, Task(0.6, epochs=2), other, changes)
    assert list(tmp_path.glob("runs/*/checkpoint.safetensors"))
    resumed = compress_umec.compress(base, Task(0.6, epochs=2), other, changes)
    assert resumed["run_id"] == whole["run_id"]
    assert tiny.without_times(resumed)["compression"] == tiny.without_times(whole)["compression"]
    for run_id, name in ((whole["run_id"], "model.safetensors"),
                         (whole["compression"]["descent"], compress_umec.FILE)):
        one, two = weights(out, run_id, name)["model"], weights(tmp_path, run_id, name)["model"]
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_budget_of_one_is_plain_training_bit_for_bit(trained, base):
    out, _ = trained
    made = compress_umec.compress(base, Task(1.0, epochs=1), tiny.context(out))["compression"]
    lasso_free = weights(out, made["descent"], compress_umec.FILE)["model"]
    assert made["resource_left"] == 1
    model = compress_umec.load(trained[1], "field", tiny.context(out)).model
    train_settings = base.run.settings.train
    seed = compress_umec.derive(base.run.seed, "compress:order")
    loader = Loader(*DATA.split("train"), train_settings.batch_size, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ids, labels in loader.epoch(0):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(ids), labels).backward()
        optimizer.step()
    assert all(torch.equal(value, lasso_free[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["magnitude", "taylor", "group-lasso", "handmade", "random",
                                    "as-umec", "dense"])
def test_baselines_are_trained_as_long_and_meet_the_budget(trained, base, method):
    out, _ = trained
    result = compress_umec.compress(base, Task(0.4, method, epochs=1, finetune_epochs=1),
                                    tiny.context(out))
    made = result["compression"]
    assert made["resource_left"] == 1 if method == "dense" else made["resource_left"] <= 0.4
    assert ("descent" in made) == (method in ("group-lasso", "as-umec"))
    assert result["settings"]["max_epochs"] == {"group-lasso": 1, "handmade": 5}.get(method, 2)


def test_scratch_and_widths_of_fields(trained, monkeypatch):
    tiny.install(monkeypatch, DATA)
    out, run_id = trained
    place = tiny.context(out)
    base = compress_umec.load(run_id, "field_dim", place)
    dynamics = Dynamics(joint=False)
    tasks = [Task(0.7, groups="field_dim", dynamics=dynamics, epochs=1, finetune_epochs=1,
                  scratch=scratch)
             for scratch in (False, True)]
    results = [compress_umec.compress(base, task, place) for task in tasks]
    widths = results[0]["compression"]["widths"]
    assert set(widths.values()) - {0, 4}
    for result in results:
        assert result["compression"]["resource_left"] <= 0.7
        assert result["num_embedding_params"] == sum(tiny.SIZES[name] * width for name,
                                                     width in widths.items())
    assert results[0]["compression"]["descent"] == results[1]["compression"]["descent"]
    assert results[0]["run_id"] != results[1]["run_id"]


@pytest.mark.parametrize("method", ["umec", "magnitude"])
def test_runs_under_the_published_bound_on_fields_are_runs_of_their_own(trained, base, method):
    found = {}
    for faithful in (False, True):
        dynamics = Dynamics(joint=False, punit=2, faithful=faithful)
        task = Task(0.7, method, dynamics=dynamics, epochs=1, finetune_epochs=1)
        result = compress_umec.compress(base, task, tiny.context(trained[0]))
        found[faithful] = result["run_id"], result["compression"]["dynamics"].get("min_fields")
    assert found[False][0] != found[True][0]
    assert (found[False][1], found[True][1]) == (None, 2)


@pytest.mark.parametrize("faithful", [False, True])
def test_a_budget_that_leaves_one_field_is_refused_where_two_must_stay(
        trained, base, monkeypatch, capsys, faithful):
    out, run_id = trained
    options = ["--faithful"] if faithful else []
    code, _, error = script(monkeypatch, capsys, out, "--run", run_id, "--budget", "0.5", "--punit",
                            "2", "--mode", "fields", "--epochs", "1", "--finetune-epochs", "1",
                            *options)
    assert code == (2 if faithful else 0), error
    assert ("budget 0.5 cannot be met" in error) == faithful


def test_a_field_that_is_to_stay_stays(trained, base):
    task = Task(0.5, "magnitude", keep_fields=("gender", "genre"), epochs=1, finetune_epochs=1)
    made = compress_umec.compress(base, task, tiny.context(trained[0]))["compression"]
    assert made["widths"]["gender"] == made["widths"]["genre"] == 4


def script(monkeypatch, capsys, out, *arguments):
    monkeypatch.setattr(sys, "argv",
                        ["compress.py", "umec", "--out", str(out), "--device", "cpu", *arguments])
    code = 0
    try:
        cli.main(compress.main)
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_the_script_prints_what_came_of_each_budget(trained, base, monkeypatch, capsys):
    out, run_id = trained
    code, text, _ = script(monkeypatch, capsys, out, "--run", run_id, "--budget", "0.7", "--budget",
                           "0.6", "--epochs",
                           "1", "--finetune-epochs", "1", "--method", "magnitude")
    assert code == 0
    assert [line.split(":")[0] for line in text.splitlines()] == ["magnitude budget 0.7",
                                                                  "magnitude budget 0.6"]
    assert "test AUC 0." in text


WRONG = [
    (("--budget", "1.5"), "above 0 and at most 1; got 1.5"), (("--budget", "nan"), "got nan"),
    (("--budget", "0.5", "--budget", "0.001"), "budget 0.001 cannot be met"),
    (("--budget", "0.9", "--keep-fields", "gendr"), "unknown field 'gendr'; did you mean 'gender'"),
    (("--budget", "0.9", "--keep-fields", "numbers"), "unknown field 'numbers'"),
    (("--budget", "0.5", "--min-keep", "0"), "min_keep 0"),
    (("--budget", "0.5", "--epochs", "0"), "at least 1"),
    (("--budget", "0.5", "--set", "lrr=1"), "did you mean 'lr'"),
    (("--budget", "0.5", "--set", "latent_dim=2"), "--set latent_dim: the descent and the training "
     "after it have the base's data and model"),
    (("--budget", "0.5", "--set", "max_epochs=9"), "--epochs and --finetune-epochs say how long"),
    (("--budget", "0.5", "--faithful", "--score", "weight_x_emb_rms"),
     "--faithful orders fields by the energy of their weights alone, as published; "
     "--score weight_x_emb_rms"),
    (("--budget", "0.5", "--zclamp"), "give --faithful too, or leave out --zclamp"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_bad_input_is_one_line_and_nothing_is_written(trained, base, monkeypatch, capsys, arguments,
                                                      words):
    out, run_id = trained
    before = tree(out)
    code, _, error = script(monkeypatch, capsys, out, "--run", run_id, *arguments)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert words in error
    assert tree(out) == before


def test_budgets_must_be_numbers_and_runs_dlrms_that_can_be_taken_apart(trained, monkeypatch,
                                                                        capsys, tmp_path):
    tiny.install(monkeypatch, DATA)
    run_id = trained[1]
    assert script(monkeypatch, capsys, trained[0], "--run", run_id, "--budget", "half")[0] == 2
    for changes, words in (({"model": "deepfm"}, "this is a DeepFM. Train one with --model dlrm"),
                           ({"arch_interaction_op": "dot"}, "train with arch_interaction_op=cat"),
                           ({"arch_mlp_top": []}, "one layer has no neurons")):
        wrong = train(tmp_path, max_epochs=1, **changes)["run_id"]
        code, _, error = script(monkeypatch, capsys, tmp_path, "--run", wrong, "--budget", "0.5")
        assert (code, len(error.strip().splitlines())) == (2, 1)
        assert words in error


def test_pep_searches_and_retrains_around_a_dlrm(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    searched = train(tmp_path, embedding="pep", candidate_p=[300], optimizer="adam", lr=0.01)
    assert searched["snapshots"]
    settings = tiny.settings(**{**DLRM_SETTINGS, "embedding": "pep", "retrain_emb_param": "all"})
    results = stages.retrain(settings, 1, tiny.context(tmp_path))
    assert min(result["num_embedding_params"] for result in results) == 300


@pytest.fixture(scope="module")
def with_numbers(tmp_path_factory):
    """Criteo as PEP's models read it, and as DLRM does."""
    folder = tmp_path_factory.mktemp("criteo")
    raw_planted.write("criteo", 400, folder / "train.txt")
    return [opened(str(folder), folder / "cache")
            for opened in (criteo.open_dataset, criteo.open_with_dense)]


def test_criteo_with_numbers_has_26_fields_of_the_same_codes_and_the_13_numbers(with_numbers):
    buckets, numbers = with_numbers
    assert numbers.schema.fields == buckets.schema.fields[13:]
    assert numbers.schema.sizes == buckets.schema.sizes[13:]
    np.testing.assert_array_equal(numbers.ids, buckets.ids[:, 13:] - sum(buckets.schema.sizes[:13]))
    np.testing.assert_array_equal(numbers.dense, buckets.dense)
    assert numbers.dense_of("test").shape == (40, 13)
    assert numbers.num_dense == 13
    assert numbers.hash != buckets.hash


def test_numbers_travel_with_their_rows(with_numbers):
    dataset = with_numbers[1]
    rows, numbers = dataset.split("train"), dataset.dense_of("train")
    loader = Loader(*rows, 64, seed=1, dense=numbers)
    order, start = loader.order(3).numpy(), 0
    for (ids, dense), labels in loader.epoch(3):
        part = order[start:start + len(labels)]
        np.testing.assert_array_equal(ids.numpy(), rows[0][part])
        np.testing.assert_array_equal(dense.numpy(), numbers[part])
        start += len(labels)
    assert start == 320
    model = DLRM(Uniform(torch.randn(dataset.schema.num_rows, 4), 26), 13, Shape((5,), (6,)))
    split = Split(*dataset.split("test"), dense=dataset.dense_of("test"))
    expected = model(split.ids, split.dense[0]).detach().numpy()
    np.testing.assert_array_equal(logits_of(model.eval(), split), expected)


def test_a_dlrm_with_numbers_is_trained_and_compressed(with_numbers, tmp_path, monkeypatch):
    monkeypatch.setitem(WITH_DENSE, "criteo", lambda *arguments: with_numbers[1])
    result = train(tmp_path, dataset="criteo", arch_mlp_bot=[5], max_epochs=1)
    found = compress_umec.load(result["run_id"], "field", tiny.context(tmp_path))
    assert found.layout.dense == 4
    made = compress_umec.compress(found, Task(0.5, epochs=1, finetune_epochs=1),
                                  tiny.context(tmp_path))["compression"]
    assert next(iter(made["widths"])) == "numbers"
    assert made["resource_left"] <= 0.5


def test_a_ticket_of_a_dlrm_with_numbers_is_loaded_again(with_numbers, tmp_path, monkeypatch):
    monkeypatch.setitem(WITH_DENSE, "criteo", lambda *arguments: with_numbers[1])
    own = {"dataset": "criteo", "arch_mlp_bot": [5]}
    train(tmp_path, embedding="pep", candidate_p=[300], max_epochs=1, optimizer="adam", lr=0.01,
          **own)
    settings = tiny.settings(**{**DLRM_SETTINGS, **own, "embedding": "pep",
                                "retrain_emb_param": 300})
    [ticket] = stages.retrain(settings, 1, tiny.context(tmp_path))
    loaded = load_model(ticket["run_id"], tiny.context(tmp_path))
    assert loaded.model.num_dense == 13
    assert np.count_nonzero(loaded.table) <= 300


def test_afm_factors_a_dlrm_with_numbers_whose_fused_table_is_never_reconstructed(with_numbers,
                                                                                  tmp_path,
                                                                                  monkeypatch):
    monkeypatch.setitem(WITH_DENSE, "criteo", lambda *arguments: with_numbers[1])
    trained = load_model(train(tmp_path, dataset="criteo", arch_mlp_bot=[5],
                               max_epochs=1)["run_id"],
                         tiny.context(tmp_path))
    result = afm.factored(trained, Choice(emb_rank=2, mlp_rank=3), FineTuning(),
                          torch.device("cpu"))
    rows = with_numbers[1].schema.num_rows
    assert result["num_embedding_params"] == 2 * rows
    assert result["inference_bytes"] == 4 * 2 * rows
    before, after = (result["compression"][name]
                     for name in ("multiply_adds_dense", "multiply_adds"))
    assert before["bottom"] == 13 * 5 + 5 * 4
    assert after["top"] < before["top"]
    assert set(result["compression"]["samples_per_second"]) == {"dense", "factored"}
