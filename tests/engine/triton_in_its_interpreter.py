"""Triton's kernels, interpreted on a CPU, have the bits of their plain forms; a program, run by
test_device_rows.py."""

import os

import numpy as np
import torch
from training import Training, assert_same

from engine.optim.cpu.adam import coefficients
from engine.optim.gpu.adam import MEMORY, PLAIN, DeviceTable, operations_for
from engine.optim.step import Step
from models.kernels.batch_rows import first_places


def make(rng, num_rows, width, decay):
    """A table whose rows lack between 0 and 6 of 50 steps."""
    value, mean = (torch.from_numpy(rng.normal(size=(num_rows, width)).astype(np.float32))
                   for _ in range(2))
    steps = torch.zeros(MEMORY, 2)
    for step in range(44, 60):
        steps[step] = torch.tensor(coefficients(0.01, (0.9, 0.999), 1e-8, step))
    done = torch.from_numpy(rng.integers(44, 51, num_rows).astype(np.int32))
    return DeviceTable(value, mean / 10, mean ** 2 / 100, done, steps, decay, (0.9, 0.999))


def copy(table):
    """The same table in memory of its own."""
    return DeviceTable(*(part.clone() for part in table[:5]), *table[5:])


def assert_bits(one, other):
    """Of two tables, or two tensors."""
    for ours, plain in zip(one, other, strict=True):
        assert torch.equal(ours.contiguous().view(torch.int32),
                           plain.contiguous().view(torch.int32))


def kernels_are_their_plain_forms():
    """Each operation once, for tables and batches of many shapes; tiles are of 1,024 entries."""
    rng = np.random.default_rng(0)
    triton = operations_for(torch.zeros(1))
    assert triton.name == "Triton"
    for num_rows, width, decay in ((1, 1, 1e-5), (2000, 1, 0.0), (70, 24, 0.03), (40, 33, 1e-5),
                                   (9, 64, 1e-5)):
        table = make(rng, num_rows, width, decay)
        rows = torch.from_numpy((num_rows * rng.random(50) ** 2).astype(np.int64))
        local = first_places(rows, torch.zeros(num_rows, dtype=torch.int32))
        first = local == torch.arange(50)
        now = torch.tensor([50], dtype=torch.int32)
        ours, plain = copy(table), copy(table)
        small, expected = torch.full((53, width), 7.0), torch.full((53, width), 7.0)
        triton.replay_rows(ours, rows, local, now, 6, small)
        PLAIN.replay_rows(plain, rows, local, now, 6, expected)
        assert_bits(ours[:4], plain[:4])
        assert not torch.equal(ours.value, table.value)
        assert_bits([small[:50][first]], [expected[:50][first]])
        assert (small[:50][~first] == 7).all()
        assert (small[50:] == 7).all()
        now += 1
        grads, scale = torch.randn(53, width), torch.tensor(0.7)
        triton.take_step(ours, rows, local, grads, scale, now)
        PLAIN.take_step(plain, rows, local, grads, scale, now)
        assert_bits(ours[:4], plain[:4])
        for interval in (3, 1):
            triton.replay_part(ours, now, interval, 7)
            PLAIN.replay_part(plain, now, interval, 7)
            assert_bits(ours[:4], plain[:4])
        assert (ours.done == 51).all()


def trainings_are_the_same():
    """Whole steps; `plain` as long as Triton is said not to be there."""
    cases = {("streamed", 4): {"threshold_type": "feature", "clip": 0.01},
             ("lazy", 36): {"latent_dim": 3},
             ("lazy", 4): {"embedding": "masked"}}
    for (update, steps), case in cases.items():
        made = []
        for interpreted in ("0", "1"):
            os.environ["TRITON_INTERPRET"] = interpreted
            training = Training(update, sizes=(30, 2, 20), **case).run(steps)
            assert training.rows.run.name == ("Triton" if interpreted == "1" else "plain torch")
            made.append(training.state())
        assert_same(*made)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Step.as_on_device = True
    kernels_are_their_plain_forms()
    trainings_are_the_same()
    print("all checks passed")
