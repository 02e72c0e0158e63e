"""Adam by blocks, and the batch's rows, against their plain definitions, bit by bit."""

import threading

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from training import few

from engine.optim.cpu.adam import (
    EMPTY,
    MOVING,
    STILL,
    adam_plain,
    apply_blocks,
    coefficients,
    gather_blocks,
    sweep_blocks,
)
from engine.optim.cpu.rowwise import MEMORY
from models.kernels.batch_rows import blocks_of, copy_rows, renumber, sum_of_squares
from models.kernels.machine import ON, control

BETAS, EPS = (0.9, 0.999), 1e-8
F32 = np.float32


class Pair:
    """One table twice: `plain` takes every step by the definition, the arrays by the kernels, late
    and in shares."""

    def __init__(self, value, size, interval, decay, rng, flush=True):
        self.plain = [torch.from_numpy(value.copy()), torch.zeros(value.shape),
                      torch.zeros(value.shape)]
        self.arrays = [tensor.numpy().copy() for tensor in self.plain]
        self.size, self.interval, self.decay, self.rng, self.flush = (
            size,
            interval,
            decay,
            rng,
            flush,
        )
        self.number = -(-len(value) // size)
        self.done, self.state = np.zeros(self.number, np.int32), np.zeros(self.number, np.uint8)
        self.steps = np.zeros((MEMORY, 2), F32)
        rates = tuple(F32(rate) for rate in (decay, BETAS[0], 1 - BETAS[0], BETAS[1], 1 - BETAS[1]))
        self.table = (*self.arrays, self.done, self.state, size, rates, self.steps)
        self.listed_in = np.zeros(self.number, np.int64)
        # any content will do
        self.slots = rng.integers(0, 2 ** 31 - 1, len(value)).astype(np.int32)
        self.now = 0

    def in_shares(self, low, high, work):
        """Cut low .. high-1 anywhere, as threads would, and work the pieces off in any order."""
        cuts = np.sort(self.rng.integers(low, high + 1, self.rng.integers(0, 4)))
        pieces = list(zip([low, *cuts], [*cuts, high], strict=True))
        torch.set_flush_denormal(self.flush)
        for piece in self.rng.permutation(len(pieces)):
            work(*pieces[piece])
        torch.set_flush_denormal(True)

    def step(self, rows, grads, scale=1.0, lr=1e-2):
        """Gather, apply and update all as `RowwiseAdam` does; the gathered rows must already be the
        definition's."""
        unique, grads = (
            np.asarray(rows, np.int32),
            np.asarray(grads, F32).reshape(-1, self.arrays[0].shape[1]),
        )
        self.slots[unique] = np.arange(len(unique))
        stamp, listed = self.now + 1, np.zeros(self.number, np.int32)
        listed = np.sort(listed[:blocks_of(unique, self.size, self.listed_in, stamp, listed)])
        out = np.full((len(unique) + 2, grads.shape[1]), 7, F32)
        self.in_shares(0, len(listed), lambda a,
                       b: gather_blocks(self.table, listed, a, b, self.slots, unique, self.now,
                                                                out))
        assert_bits(out[:len(unique)], self.plain[0].numpy()[unique])
        assert (out[len(unique):] == 7).all()
        self.now += 1
        a, e = coefficients(lr, BETAS, EPS, self.now)
        self.steps[self.now % MEMORY] = a, e
        self.in_shares(0, len(listed), lambda a,
                       b: apply_blocks(self.table, listed, a, b, self.slots, unique, grads,
                                                                 F32(scale), self.now))
        part = self.now % self.interval
        first, last = (self.number * n // self.interval for n in (part, part + 1))
        self.in_shares(first, last, lambda a,
                       b: sweep_blocks(self.table, a, b, self.listed_in, stamp, self.now))
        whole = torch.zeros_like(self.plain[0])
        whole[unique.astype(np.int64)] = torch.from_numpy(grads)
        adam_plain(*self.plain, whole, self.decay, BETAS, scale, a, e)

    def refresh(self):
        self.in_shares(0, self.number, lambda a,
                       b: sweep_blocks(self.table, a, b, self.listed_in, -1, self.now))
        assert (self.done == self.now).all()
        self.compare()

    def compare(self):
        for ours, plain in zip(self.arrays, self.plain, strict=True):
            assert_bits(ours, plain.numpy())


def assert_bits(one, other):
    assert np.array_equal(np.ascontiguousarray(one).view(np.int32),
                          np.ascontiguousarray(other).view(np.int32))


def touched(rng, num_rows, most):
    return rng.permutation(num_rows)[:rng.integers(0, most + 1)]


def signed_zeros(rng, values, share=0.1):
    values[rng.random(values.shape) < share] = 0.0
    return np.where(rng.random(values.shape) < 0.5, values, -values).astype(F32)


@settings(max_examples=40)
@given(num_rows=st.integers(1, 300), width=st.integers(1, 70), size=st.integers(1, 20),
       interval=st.integers(1, 40),
       decay=st.sampled_from([0.0, 1e-5, 0.03]), clipped=st.booleans(), flush=st.booleans(),
       seed=st.integers(0, 2 ** 20))
@example(num_rows=1, width=1, size=1, interval=40, decay=1e-5, clipped=False, flush=True, seed=0)
@example(num_rows=300, width=3, size=20, interval=7, decay=0.03, clipped=True, flush=False, seed=1)
def test_any_table_in_any_shares_at_any_interval_is_the_definition(num_rows, width, size, interval,
                                                                   decay, clipped,
                                                                   flush, seed):
    rng = np.random.default_rng(seed)
    pair = Pair(signed_zeros(rng, rng.normal(size=(num_rows, width))), size, interval, decay, rng,
                flush)
    for step in range(60):
        rows = touched(rng, num_rows, min(num_rows, 30))
        grads = signed_zeros(rng, rng.normal(size=(len(rows), width)) * 10.0 ** rng.integers(-6, 1))
        pair.step(rows, grads, rng.uniform(0.01, 1) if clipped else 1.0, lr=0.01 if step < 20
                  else 0.003)
        if step == 45:
            pair.refresh()
    pair.refresh()


@pytest.mark.parametrize("flush", few([True, False], 0))
@pytest.mark.parametrize(("decay", "lr", "interval", "width", "size"), few([
    (0.0, 1e-3, 32, 3, 4), (2.5e-9, 4.0, 32, 3, 4), (2.5e-9, 4.0, 1, 1, 1), (2.5e-9, 4.0, 5, 2, 1),
], 0, 1, 2))
def test_blocks_come_to_rest_and_are_woken_in_a_long_run(decay, lr, interval, width, size, flush):
    """Values and gradients are small, so that moments really flush to zero, at another step in each
    block.

    With decay they do where lr is large: else a m flushes first, and neither V nor m ever move
        again.
    """
    rng = np.random.default_rng(0)
    num_rows, seen, steps = 60, set(), 2200
    scales = 10.0 ** np.repeat(rng.uniform(-24, -14, num_rows // size), size)[:, None]
    pair = Pair((rng.normal(size=(num_rows, width)) * scales * 1e3).astype(F32), size, interval,
                decay, rng, flush)
    woken, none = {}, np.zeros((0, width))
    for step in range(steps):
        if step < 300:
            rows = touched(rng, num_rows - 12, 10)
            pair.step(rows, rng.normal(size=(len(rows), width)) * scales[rows], lr=lr)
        elif step % 100 == 99 and step >= 1200:  # one row at a time, of blocks in any state
            row = rng.integers(num_rows)
            state = int(pair.state[row // size])
            woken[state] = woken.get(state, 0) + 1
            pair.step([row], rng.normal(size=(1, width)) * scales[row], lr=lr)
            assert pair.state[row // size] == MOVING
        else:
            pair.step([], none, lr=lr)
        seen |= set(pair.state.tolist())
        if interval == 1:
            pair.compare()
        elif step % 200 == 199:
            pair.refresh()
    pair.refresh()
    assert seen == {MOVING, STILL, EMPTY}
    assert woken.keys() >= {STILL, EMPTY}


def test_a_mean_that_is_zero_only_in_passing_does_not_put_a_block_to_rest():
    pair = Pair(np.ones((1, 1), F32), 1, 1, 1e-5, np.random.default_rng(0))
    for mean in (pair.plain[1].numpy(), pair.arrays[1]):
        # the next step takes it to 0, exactly
        mean[:] = -F32(1 - BETAS[0]) * (F32(1e-5) * F32(1)) / F32(BETAS[0])
    pair.step([], [])
    assert pair.arrays[1].item() == 0
    assert pair.state.tolist() == [MOVING]
    for _ in range(5):
        pair.step([], [])
        pair.compare()
    assert pair.arrays[1].item() > 0


def test_what_never_moves_is_empty_after_one_visit_and_a_data_gradient_wakes_it():
    pair = Pair(np.ones((4, 1), F32), 1, 2, 0.0, np.random.default_rng(0))
    pair.step([1], [[0.5]])
    pair.step([], [])
    assert pair.state.tolist() == [EMPTY, MOVING, EMPTY, EMPTY]
    pair.step([0], [[0.25]])
    pair.refresh()
    assert pair.state.tolist() == [MOVING, MOVING, EMPTY, EMPTY]
    assert (pair.arrays[0] != 1).ravel().tolist() == [True, True, False, False]


def test_a_sweep_leaves_the_blocks_of_the_batch_and_those_outside_its_range_alone():
    pair = Pair(np.ones((10, 2), F32), 2, 1, 0.01, np.random.default_rng(0))
    pair.steps[1] = coefficients(0.1, BETAS, EPS, 1)
    pair.listed_in[2] = 9
    sweep_blocks(pair.table, 1, 4, pair.listed_in, 9, 1)
    assert pair.done.tolist() == [0, 1, 0, 1, 0]
    assert (pair.arrays[0][:, 0] != 1).tolist() == [False, False, True, True, False, False, True,
                                                    True, False, False]


# ---- denormals


@numba.njit
def register():
    return control() & ~0x3F  # without x86's flags of what has happened


def flushes():
    return not (np.full(4, 1e-39, F32) * F32(1)).any()


def use_all_kernels(flush):
    """Kernels with a table of denormals, in a thread of the given mode; the mode after each, and
    the values."""
    torch.set_flush_denormal(flush)
    rng, before, after = np.random.default_rng(0), register(), []
    pair = Pair(np.full((4, 2), 1e-30, F32), 2, 1, 1e-5, rng)
    pair.steps[:] = coefficients(1e-3, BETAS, EPS, 1)
    for array in pair.arrays:
        array[:2] = 1e-39
    unique, listed, out = np.array([0], np.int32), np.array([0], np.int32), np.zeros((1, 2), F32)
    pair.slots[0] = 0
    for call in (lambda: gather_blocks(pair.table, listed, 0, 1, pair.slots, unique, 1, out),
                 lambda: apply_blocks(pair.table, listed, 0, 1, pair.slots, unique,
                                      np.zeros((1, 2), F32), F32(1), 2),
                 lambda: sweep_blocks(pair.table, 0, 2, pair.listed_in, -1, 2)):
        call()
        after.append((register() == before, flushes() == flush))
    values = np.concatenate(pair.arrays).view(np.int32).copy()
    torch.set_flush_denormal(True)
    return after, values


@pytest.mark.skipif(not ON, reason="the control register of this machine is not known")
def test_kernels_flush_in_every_thread_and_give_it_back_as_it_was():
    found = {}

    def work(name, flush):
        found[name] = use_all_kernels(flush)

    for flush in (True, False):
        work(("here", flush), flush)
        thread = threading.Thread(target=work, args=(("there", flush), flush))
        thread.start()
        thread.join()
    assert len(found) == 4
    for after, values in found.values():
        assert after == [(True, True)] * 3
        assert np.array_equal(values, found["here", True][1])
        floats = np.abs(values.view(F32))
        assert not ((floats > 0) & (floats < np.finfo(F32).tiny)).any()
    assert floats.any()


# ---- the definition itself


def test_the_definition_is_float32_arithmetic_in_the_written_order():
    rng = np.random.default_rng(0)
    value, mean, grad = (rng.normal(size=500).astype(F32) for _ in range(3))
    square = (rng.normal(size=500) ** 2).astype(F32)
    tensors = [torch.from_numpy(array.copy()) for array in (value, mean, square, grad)]
    for step in range(1, 30):
        a, e = (F32(rate) for rate in coefficients(0.01, BETAS, EPS, step))
        adam_plain(*tensors, 0.03, BETAS, 0.7, float(a), float(e))
        g = grad * F32(0.7) + value * F32(0.03)
        mean = mean * F32(0.9) + g * F32(1 - 0.9)
        square = square * F32(0.999) + (g * F32(1 - 0.999)) * g
        value = value - (mean * a) / (np.sqrt(square) + e)
    for ours, plain in zip(tensors, (value, mean, square, grad), strict=True):
        assert ours.dtype == torch.float32
        assert_bits(ours.numpy(), plain)


@pytest.mark.parametrize("decay", [0.0, 1e-5, 0.03])
def test_the_definition_is_torchs_adam(decay):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, 5, generator=generator)
    parameter = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([parameter], lr=0.01, betas=BETAS, eps=EPS, weight_decay=decay,
                            foreach=False)
    value, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 401):
        grad = torch.randn(40, 5, generator=generator) * (
            torch.rand(40, 1, generator=generator) < 0.3
        )
        adam_plain(value, mean, square, grad, decay, BETAS, 0.5,
                   *coefficients(0.01, BETAS, EPS, step))
        parameter.grad = grad * 0.5
        adam.step()
        if step % 20 == 0:
            torch.testing.assert_close(value, parameter.data, rtol=1e-5, atol=1e-6)
    state = adam.state[parameter]
    torch.testing.assert_close(mean, state["exp_avg"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(square, state["exp_avg_sq"], rtol=1e-5, atol=1e-6)
    assert (value - start).abs().median() > 0.05


# ---- the rows of a batch


@settings(max_examples=100)
@given(num_rows=st.integers(1, 60), count=st.integers(1, 80), size=st.integers(1, 20),
       wide=st.booleans(),
       seed=st.integers(0, 2 ** 20))
@example(num_rows=1, count=5, size=1, wide=False, seed=0)
def test_rows_and_blocks_are_numbered_as_they_first_come(num_rows, count, size, wide, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, num_rows, count).astype(np.int64 if wide else np.int32)
    # left by other batches
    slots = rng.integers(-5 if seed % 2 else 0, num_rows + 5, num_rows).astype(np.int32)
    slots = np.abs(slots)
    unique, local = rng.integers(0, num_rows, count).astype(np.int32), np.full(count, -1, np.int32)
    found = renumber(ids, slots, unique, local)
    expected = list(dict.fromkeys(ids.tolist()))
    assert unique[:found].tolist() == expected
    assert np.array_equal(unique[local], ids)
    assert slots[expected].tolist() == list(range(found))
    in_batch = (slots < found) & (unique[np.minimum(slots, found - 1)] == np.arange(num_rows))
    assert np.flatnonzero(in_batch).tolist() == sorted(expected)
    number = -(-num_rows // size)
    listed_in, blocks = rng.integers(0, 7, number), np.full(number, -1, np.int32)
    before = listed_in.copy()
    wanted = list(dict.fromkeys((unique[:found] // size).tolist()))
    assert blocks[:blocks_of(unique[:found], size, listed_in, 7, blocks)].tolist() == wanted
    assert np.flatnonzero(listed_in == 7).tolist() == sorted(wanted)
    assert np.array_equal(np.delete(listed_in, wanted), np.delete(before, wanted))


@pytest.mark.parametrize(("ids", "answer"), [
    ([0, 1, 9, -1], -3), ([-1, 0], -1), ([0, 8, 2, 0, 8, 4, 10 ** 6], -7), ([9], -1),
    ([0, -2 ** 31], -2), ([8, 0], 2)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_first_id_outside_the_table_is_told_by_its_place(ids, answer, dtype):
    space = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32)
    assert renumber(np.array(ids, dtype), np.zeros(9, np.int32), *space) == answer


def test_rows_are_copied_and_the_room_behind_them_is_left():
    rng = np.random.default_rng(0)
    table, rows, out = rng.normal(size=(9, 3)).astype(F32), np.array([8, 0, 3],
                                                                     np.int32), np.full((5, 3), 7,
                                                                                        F32)
    copy_rows(table, rows, out)
    assert_bits(out[:3], table[rows])
    assert (out[3:] == 7).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (3000, 1), (500, 24)])
def test_sum_of_squares(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(F32)
    exact = (values.astype(np.float64) ** 2).sum()
    assert sum_of_squares(values) == pytest.approx(exact, rel=3e-7)


def test_sum_of_squares_does_not_lose_small_rows_beside_a_large_one():
    values = np.full((20_001, 1), 1e-2, F32)
    values[0] = 100.0  # in float32 the others' 2.0 would be lost
    assert sum_of_squares(values) == pytest.approx(10_002.0, rel=1e-7)
