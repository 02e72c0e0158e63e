import json
import re

import numpy as np
import pytest
import torch

from benchmarks import bench_step
from benchmarks.published import Published, PublishedStep
from engine.optim.step import Step, build_optimizer
from engine.settings import parse
from models.build import build_embedding, build_model

BATCH = 256
SCHEMA = {"model": str, "variant": str, "ms_per_step": float, "samples_per_second": float,
          "device": str, "threads": int, "torch": str, "rounds": int, "steps_per_round": int,
          "batch_size": int, "ms_per_step_of_rounds": list}


def test_rows_and_table(tmp_path, capsys):
    path = tmp_path / "results" / "step.json"
    bench_step.main(["--model", "fm", "--steps", "2", "--rounds", "3", "--device", "cpu",
                     "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [(row["model"], row["variant"])
            for row in rows] == [("fm", name) for name in bench_step.VARIANTS]
    for row in rows:
        assert {name: type(row[name]) for name in SCHEMA} == SCHEMA
        assert set(row) == {*SCHEMA, "commit"}
        assert (row["rounds"], row["steps_per_round"]) == (3, 2)
        assert sorted(row["ms_per_step_of_rounds"])[1] == row["ms_per_step"] > 0
        assert row["samples_per_second"] == pytest.approx(1000 * row["batch_size"]
                                                          / row["ms_per_step"])
    published, pep, uniform, darts = (row["ms_per_step"] for row in rows)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("fm")
    assert f"{published / pep:.2f}x" in line
    assert f"{100 * (pep / uniform - 1):+.1f}%" in line
    assert f"{100 * (darts / uniform - 1):+.1f}%" in line


def test_a_record_keeps_its_rows_of_other_models_and_threads(tmp_path):
    path = tmp_path / "step.json"
    old = [{"model": model, "threads": threads, "ms_per_step": 1.0}
           for model, threads in (("fm", 1), ("fm", 2), ("deepfm", 1))]
    new = [{"model": "fm", "threads": 1, "ms_per_step": 2.0}]
    assert bench_step.merged(bench_step.rows_of(path), new) == new
    path.write_text(json.dumps(old))
    assert bench_step.merged(bench_step.rows_of(path), new) == [*old[1:], *new]


def test_a_damaged_record_is_named_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_step, "bench", lambda *given: pytest.fail("measured"))
    (tmp_path / "step.json").write_text("[{")
    with pytest.raises(ValueError, match=r"step\.json cannot be read"):
        bench_step.main(["--json", str(tmp_path / "step.json")])


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--rounds", "-1"], ["--model", "lr"]])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        bench_step.main(wrong)


def test_every_round_is_one_epoch_of_every_variant():
    done = []
    seconds = bench_step.measure({name: lambda name=name: done.append(name) for name in "abc"}, 2,
                                 torch.device("cpu"))
    assert "".join(done) == "cba" "abc" "cba"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def values_of(model: str, **changes) -> dict:
    flat = {**bench_step.PRESETS["movielens"], "model": model, "dropout": 0.0, "att_dropout": 0.0,
            "threshold_init": -4.0}
    return parse({**flat, **changes}).flat()  # at -4 about half of V0 lies below its threshold


def our_name(name: str) -> str:
    """What a published model's parameter is called in ours."""
    name = re.sub(r"^linear\.", "linear.layer.", re.sub(r"^table\.", "embedding.", name))
    return re.sub(r"^attention\.", "",
                  re.sub(r"^attention\.layers\.(\d+)", r"attention.attention.\1.layer", name))


def pair(model: str, values: dict) -> tuple[torch.nn.Module, Published, dict[str, str]]:
    """Our model and the published one with the same parameters, and our names of the published
    one's."""
    ours = build_model(bench_step.FIELD_SIZES, values, 3,
                       build_embedding(bench_step.FIELD_SIZES, values, 3))
    with torch.no_grad():  # thresholds that differ from entry to entry
        ours.embedding.thresholds.add_(torch.rand(ours.embedding.thresholds.shape,
                                                  generator=torch.Generator().manual_seed(5)))
    published = Published(values, ours.embedding.weight.detach(), bench_step.FIELD_SIZES)
    names = {name: our_name(name) for name, _ in published.named_parameters()}
    of_ours = dict(ours.named_parameters())
    with torch.no_grad():
        for name, parameter in published.named_parameters():
            parameter.copy_(of_ours[names[name]])
    return ours.train(), published.train(), names


@pytest.mark.parametrize("model", bench_step.MODELS)
def test_published_models_compute_what_ours_do(model):
    ours, published, names = pair(model, values_of(model))
    made = bench_step.made_rows(BATCH)
    logits, theirs = ours(torch.tensor(made.ids)), published(torch.tensor(made.codes))
    torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1, 1, BATCH)  # each row's logit pulls on the parameters differently
    (logits @ weights).backward()
    (theirs @ weights).backward()
    assert sorted(names.values()) == sorted(name for name, _ in ours.named_parameters())
    of_ours = dict(ours.named_parameters())
    for name, parameter in published.named_parameters():
        size = parameter.grad.abs().max()
        assert size > 0, name
        # the gradient of a bias before a batch normalisation is nothing but rounding
        cancelled = name in ("mlp.mlp.0.bias", "mlp.mlp.4.bias")
        close = 1e-4 * size + (1e-2 if cancelled else 1e-5)
        assert (parameter.grad - of_ours[names[name]].grad).abs().max() < close, name


def test_a_published_step_is_our_step():
    # deep parts hold gradients of pure rounding, which Adam blows up to lr
    values = values_of("fm", batch_size=BATCH)
    ours, published, names = pair("fm", values)
    before = {name: parameter.detach().clone() for name, parameter in ours.named_parameters()}
    optimizer = build_optimizer(ours, values["lr"], values["l2_regularization"],
                                values["l2_regularization"])
    step = Step(ours, optimizer, values["grad_clip"])
    made, theirs = bench_step.made_rows(BATCH), PublishedStep(published, values)
    count = ours.embedding.num_params()
    step(torch.tensor(made.ids), torch.tensor(made.labels))
    theirs(torch.tensor(made.codes), torch.tensor(made.labels))
    optimizer.refresh()
    assert theirs.count == count  # that of the forward, so of the table before the step
    assert 0.2 < count / ours.embedding.weight.numel() < 0.8
    of_ours = dict(ours.named_parameters())
    for name, parameter in published.named_parameters():
        # one step of Adam moves by lr
        assert (of_ours[names[name]] - before[names[name]]).abs().max() > 1e-4, name
        assert (of_ours[names[name]] - parameter).abs().max() < 1e-6, name


def test_made_rows_are_skewed_and_in_range():
    made = bench_step.made_rows(4096)
    sizes = np.array(bench_step.FIELD_SIZES)
    assert (made.codes >= 0).all()
    assert (made.codes < sizes).all()
    assert made.ids.max() < sizes.sum()
    counts = np.bincount(made.codes[:, 0], minlength=sizes[0])
    assert counts.max() > 10 * np.median(counts)
    assert (made.codes == bench_step.made_rows(4096).codes).all()
    loaded, label = bench_step.RowByRow(made)[5]
    assert (loaded == made.codes[5]).all()
    assert label == made.labels[5]
