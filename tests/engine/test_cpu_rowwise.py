"""Tables by row: however late a row takes its steps, it ends where the whole-table form puts it."""

import itertools

import numpy as np
import pytest
import tiny
import torch
from hypothesis import example, given
from hypothesis import settings as sampled
from hypothesis import strategies as st
from training import BATCH, SIZES, Training, assert_close, assert_same, few, words

from engine.optim.cpu import rowwise as rows_module
from engine.optim.cpu.adam import adam_plain, coefficients
from engine.optim.cpu.rowwise import RowwiseAdam
from engine.optim.step import Step, build_optimizer
from models.embedding.pep import THRESHOLD_TYPES

FORMS = ("streamed", "lazy")
CASES = [*({"threshold_type": kind} for kind in THRESHOLD_TYPES), {"g_type": "softplus"},
         {"embedding": "uniform"}, {"embedding": "masked"},
         {"model": "linear", "embedding": "none"},
         {"model": "deepfm", "latent_dim": 3}, {"model": "deepfm", "embedding": "uniform"},
         {"model": "autoint", "latent_dim": 1}, {"clip": 0.01},
         # without a decay, gradients that are rounding alone decide where a row goes: the penalty
         # has FM's step take them from autograd, as the definition does
         {"decay": 0.0, "l2_penalty": 1e-3}, {"decay": 0.0, "threshold_type": "dimension"},
         {"threshold_init": -150.0},
         {"threshold_decay": "none"}, {"threshold_gradient": False}]


def without_key_bias(state):
    """A softmax does not depend on the bias of keys: its gradient is rounding alone, which Adam
    makes as large as any other."""
    kept = dict(state)
    for name in kept:
        if "in_proj_bias" in name and np.ndim(kept[name]):  # of queries, keys and values
            keys = np.s_[len(kept[name]) // 3:2 * len(kept[name]) // 3]
            kept[name] = np.delete(kept[name], keys)
    return kept


@pytest.mark.parametrize("case", CASES, ids=words)
def test_each_form_has_the_same_bits_and_the_whole_tables_values(case):
    whole = Training("dense", **case).run(40)
    late = Training("lazy", **case).run(40)
    dense, auto = Training("streamed", **case).run(40), Training("auto", **case).run(40)
    assert whole.rows is None
    assert (dense.rows.interval, late.rows.interval) == (1, 32)
    assert_same(dense.state(), late.state())
    assert_same(dense.state(), auto.state())
    assert_close(without_key_bias(dense.state()), without_key_bias(whole.state()))
    if hasattr(whole.embedding, "num_params"):
        assert torch.equal(whole.embedding.table() == 0, late.embedding.table() == 0)
    names = {name for name, parameter in whole.model.named_parameters()
             if len(parameter) == sum(SIZES)}
    assert set(late.rows.tables) == names
    untouched = whole.model.linear.layer.fc.weight[-1].item() if hasattr(whole.model,
                                                                         "linear") else 1.0
    assert (
        untouched != Training("dense", **case).model.linear.layer.fc.weight[-1].item()
        or case.get("decay") == 0.0
    )


@pytest.mark.parametrize(("num_rows", "steps"), [
    (10_000, 300), pytest.param(100_000, 2000, marks=pytest.mark.slow)])
def test_a_search_on_a_large_table_stays_with_the_whole_form_and_prunes_the_same_entries(num_rows,
                                                                                         steps):
    sizes = (num_rows // 2, num_rows // 4, num_rows // 8, num_rows // 8)
    whole, late = (Training(update, sizes=sizes, latent_dim=8, lr=0.001, decay=1e-5,
                            threshold_init=-7.0)
                   for update in ("dense", "lazy"))
    counts = []
    for _ in range(steps // 50):
        one, other = whole.run(50, 256).state(), late.run(50, 256).state()
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)
        assert torch.equal(whole.embedding.table() != 0, late.embedding.table() != 0)
        counts.append(late.embedding.num_params())
    assert counts[0] > 1.3 * counts[-1] > 20


def test_rows_lie_behind_until_somebody_looks():
    training = Training("lazy").run(20)
    before = training.embedding.weight.detach().clone()
    assert (training.rows.tables["embedding.weight"].done < 20).any()
    training.optimizer.refresh()
    assert (training.rows.tables["embedding.weight"].done == 20).all()
    assert not torch.equal(before, training.embedding.weight)
    after = training.state()
    assert_same(after, training.state())  # a second look changes nothing
    for parameter in (training.embedding.weight, training.embedding.thresholds):
        assert training.optimizer.state[parameter]["step"].item() == 20


def test_looking_in_between_changes_no_bit():
    looked, never = Training("lazy"), Training("lazy").run(70)
    for number in range(70):
        looked.run(1)
        if number % 7 == 0 or number > 60:
            looked.optimizer.refresh()
            looked.embedding.num_params()
    assert_same(looked.state(), never.state())


@pytest.mark.parametrize("other", ["streamed", "auto", "dense"])
def test_a_change_of_lr_holds_from_its_step_on_for_late_rows_too(other):
    made = []
    for update in ("lazy", other):
        training = Training(update).run(37)
        for group in training.optimizer.param_groups:
            group["lr"] = 0.0003
        training.run(5)
        for group in training.optimizer.param_groups:
            group["lr"] = 0.02
        made.append(training.run(30).state())
    (assert_close if other == "dense" else assert_same)(*made)


@pytest.mark.parametrize("sizes", [(1,), (1, 1, 2), (900, 1)])
@pytest.mark.parametrize("width", [1, 70])
def test_tables_of_one_row_and_of_width_1(sizes, width):
    made = [Training(update, sizes=sizes, latent_dim=width,
                     threshold_type="feature").run(40).state()
            for update in ("dense", "streamed", "lazy")]
    assert_same(made[1], made[2])
    assert_close(made[0], made[1])


def test_batches_of_other_lengths_in_between():
    made = []
    for update in ("dense", "streamed", "lazy"):
        training = Training(update)
        for rows in (16, 16, 1, 16, 40, 16, 3):
            training.run(6, rows)
        made.append(training.state())
    assert_same(made[1], made[2])
    assert_close(made[0], made[1])


def test_a_batch_of_every_row_is_not_taken_for_the_whole_table():
    sizes = (2, 2, 2, 2)  # of which a batch of 16 rows holds each row, in an order of its own
    made = []
    for update in ("dense", "streamed", "lazy"):
        training = Training(update, sizes=sizes, threshold_type="field")
        for step in range(30):
            rng = np.random.default_rng(step)
            ids = torch.from_numpy(rng.integers(0, 2, (BATCH, 4)) + np.arange(0, 8, 2)).int()
            training.advance(ids, torch.from_numpy(rng.integers(0, 2, BATCH)).float())
        made.append(training.state())
    assert_same(made[1], made[2])
    assert_close(made[0], made[1])


def test_threads_share_the_work_and_change_no_bit(monkeypatch):
    monkeypatch.setattr(rows_module, "ALONE", 0)
    made = []
    for threads in (1, 2, 5):
        training = Training("lazy").run(1)
        training.rows.threads = threads
        made.append(training.run(50).state())
    assert_same(made[0], made[1])
    assert_same(made[0], made[2])


@pytest.mark.parametrize(("first", "then"),
                         itertools.permutations(("dense", "streamed", "lazy"), 2))
def test_any_form_goes_on_from_the_state_of_any_other(first, then):
    started = Training(first).run(25)
    # the optimiser's first: it refreshes
    states = started.optimizer.state_dict(), started.model.state_dict()
    resumed = Training(then)
    resumed.model.load_state_dict(states[1])
    resumed.optimizer.load_state_dict(states[0])
    resumed.step, resumed.losses = 25, list(started.losses)
    straight = Training(first).run(60)
    assert_close(resumed.run(35).state(), straight.state())
    if "dense" not in (first, then):
        assert_same(resumed.state(), straight.state())


def test_a_loaded_state_replaces_the_one_that_training_had_come_to():
    training = Training("lazy").run(10)
    states = training.optimizer.state_dict(), {k: v.clone() for k,
                                               v in training.model.state_dict().items()}
    kept = {"optimizer": {**states[0], "state": {n: {k: v.clone() for k, v in s.items()}
                                                 for n, s in states[0]["state"].items()}},
            "model": states[1]}
    straight = training.run(30).state()
    training.model.load_state_dict(kept["model"])
    training.optimizer.load_state_dict(kept["optimizer"])
    training.step, training.losses = 10, training.losses[:10]
    assert_same(training.run(30).state(), straight)


def test_gradients_of_somebody_elses_backward_are_dropped():
    training, alone = Training("streamed").run(5), Training("streamed").run(5)
    ids, _ = training.batch()
    training.model.eval()(ids).sum().backward()
    training.model.train()
    assert training.embedding.weight.grad is not None
    assert_same(training.run(10).state(), alone.run(10).state())


def test_sgd_takes_whole_tables():
    training = Training("lazy")
    sgd = build_optimizer(training.model, 0.1, 0.0, 0.0, "sgd")
    before = training.embedding.weight.detach().clone()
    step = Step(training.model, sgd, 100.0, update="lazy")
    step(*training.batch())
    assert step.rows is None
    assert not torch.equal(before, training.embedding.weight)


@pytest.mark.parametrize("start", few([-5.0, -111.0], 0))
def test_searches_that_differ_in_the_form_alone_leave_the_same_files_and_results(tmp_path,
                                                                                 monkeypatch,
                                                                                 start):
    tiny.install(monkeypatch, tiny.dataset(rows=600))
    seen = []
    for update in ("auto", *FORMS):
        result = tiny.train(tmp_path / update, embedding="pep", threshold_init=start,
                            candidate_p=[550, 400, 300],
                            max_epochs=8, batch_size=16, lr=0.05, log_interval=5,
                            table_update=update)
        result["settings"].pop("table_update")
        files = sorted((tmp_path / update).glob("**/*.npz"))
        assert len(files) >= 4
        seen.append((tiny.without_times(result), [file.read_bytes() for file in files]))
    assert seen[0] == seen[1] == seen[2]


# ---- recorded gradients


@sampled(max_examples=30)
@given(num_rows=st.integers(1, 400), widths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
       form=st.sampled_from(FORMS), decay=st.sampled_from([0.0, 1e-5, 0.03]), clipped=st.booleans(),
       batch=st.integers(1, 30), fields=st.integers(1, 4), start=st.sampled_from([0, 15_000]),
       seed=st.integers(0, 2 ** 20))
@example(num_rows=1, widths=[1], form="lazy", decay=1e-5, clipped=True, batch=3, fields=2,
         start=0, seed=0)
def test_recorded_gradients_lead_to_the_bits_of_the_definition(num_rows, widths, form, decay,
                                                               clipped, batch, fields,
                                                               start, seed):
    rng = np.random.default_rng(seed)
    group = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": decay}
    values = [torch.from_numpy(rng.normal(size=(num_rows, width)).astype(np.float32))
              for width in widths]
    plain = [[value.clone(), torch.zeros_like(value), torch.zeros_like(value)] for value in values]
    states = [{"step": torch.tensor(float(start)), "exp_avg": torch.zeros_like(value),
               "exp_avg_sq": torch.zeros_like(value)} for value in values]
    tables = {str(n): (value, state, group) for n,
              (value, state) in enumerate(zip(values, states, strict=True))}
    fixed = torch.from_numpy(rng.random((num_rows, 3)) < 0.5)
    rows = RowwiseAdam(tables, {"mask": fixed.float()}, form)
    for step in range(start + 1, start + 71):
        ids = torch.from_numpy((num_rows * rng.random((batch, fields)) ** 2).astype(np.int32))
        local, small = rows.gather(ids)
        assert torch.equal(small["mask"][local.long()], fixed.float()[ids.long()])
        for name, (value, _, _) in enumerate(plain):
            assert torch.equal(small[str(name)][local.long()], value[ids.long()])
        grads = {name: torch.zeros_like(table) for name, table in small.items() if name != "mask"}
        scale = float(np.float32(rng.uniform(0.01, 1))) if clipped else 1.0
        a, e = coefficients(group["lr"], group["betas"], group["eps"], step)
        total = 0.0
        for name, parts in enumerate(plain):
            whole = torch.zeros_like(parts[0])
            whole[ids.long().flatten()] = torch.from_numpy(rng.normal(size=(ids.numel(),
                                                                            widths[name])).astype(
                np.float32))
            grads[str(name)][local.long()] = whole[ids.long()]
            total += float((whole.double() ** 2).sum())
            adam_plain(*parts, whole, decay, group["betas"], scale, a, e)
        assert rows.norm_squared(grads) == pytest.approx(total, rel=1e-5)
        rows.apply(grads, [], scale)
        if step % 29 == 0:
            rows.refresh()
    rows.refresh()
    for parts, value, state in zip(plain, values, states, strict=True):
        for ours, expected in zip((value, state["exp_avg"], state["exp_avg_sq"]), parts,
                                  strict=True):
            assert torch.equal(ours.view(torch.int32), expected.view(torch.int32))
        assert state["step"].item() == start + 70


# ---- bad input


@pytest.mark.parametrize("value", [-1, 300, 2 ** 31 - 1])
@pytest.mark.parametrize("update", ["streamed", "lazy"])
def test_an_id_outside_the_tables_is_named_and_nothing_is_changed(update, value):
    training, alone = Training(update).run(9), Training(update).run(9)
    ids, labels = training.batch()
    ids[7, 2] = value
    with pytest.raises(IndexError, match=rf"field 2 of row 7 of the batch has the id {value}; the "
                                         rf"table has 300 rows"):
        training.advance(ids, labels)
    assert_same(training.run(20).state(), alone.run(20).state())


@pytest.mark.parametrize("update", ["dense", "streamed", "lazy"])
def test_an_empty_batch_is_refused(update):
    training = Training(update).run(1)
    with pytest.raises(ValueError, match="the batch is empty"):
        training.advance(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0))


@pytest.mark.parametrize("bad", ["embedding.weight", "linear.layer.bias"])
@pytest.mark.parametrize("update", ["dense", "streamed", "lazy"])
def test_gradients_that_are_not_finite_stop_at_once_and_change_nothing(update, bad):
    training = Training(update).run(9)
    before = training.state()
    with torch.no_grad():
        broken = training.model.get_parameter(bad)
        kept = broken.clone()
        broken[...] = torch.nan
    if training.rows is not None:
        training.rows.refresh()
    with pytest.raises(FloatingPointError,
                       match="the loss is nan and the norm of its gradients nan"):
        training.run(1)
    with torch.no_grad():
        broken.copy_(kept)
    assert_same(before, training.state())
    good = training.run(5).losses
    assert np.isfinite(good).all()


# ---- the choice


def test_auto_is_lazy_only_where_the_tables_have_more_rows_than_a_batch_has_ids(caplog):
    caplog.set_level("INFO", "pep")
    assert not Training("auto", sizes=(BATCH, 1, 1, BATCH * 4 - BATCH - 2)).run(1).rows.lazy
    assert "tables are updated streamed (64 rows, 64 ids in a batch)" in caplog.text
    assert Training("auto", sizes=(BATCH, 1, 1, BATCH * 4 - BATCH - 1)).run(1).rows.lazy
    assert "tables are updated lazy (65 rows, 64 ids in a batch)" in caplog.text


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="unknown update 'whole'; known: auto, dense"):
        Training("whole")


@pytest.mark.parametrize(("case", "alone"), [
    ({}, True), ({"embedding": "uniform"}, True), ({"embedding": "masked"}, True),
    ({"l2_penalty": 0.1}, False), ({"g_type": "softplus"}, False), ({"model": "deepfm"}, False)],
    ids=words)
def test_an_fm_needs_no_autograd_where_its_gradient_is_written_down(case, alone, monkeypatch):
    asked = []
    whole = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given: asked.append(1) or whole(*given))
    for update in ("streamed", "lazy"):
        Training(update, **case).run(1)
    assert not asked if alone else len(asked) == 2


def test_products_in_bfloat16_move_float32_parameters_almost_as_float32_ones():
    def trained(**own):
        training = Training("auto", model="deepfm")
        training.advance = Step(training.model, training.optimizer, 100.0, **own)
        return training.run(5).state()

    exact, rounded = trained(), trained(precision="bfloat16")
    weight = "mlp.mlp.0.weight"
    assert rounded[weight].dtype == np.float32
    assert not np.array_equal(exact[weight], rounded[weight])
    np.testing.assert_allclose(rounded["losses"], exact["losses"], rtol=0.02)
