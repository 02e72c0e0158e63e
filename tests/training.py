"""A training on skewed random batches, step by step, and what it has made, for tests of the steps'
forms."""

import itertools

import numpy as np
import pytest
import torch

from engine.optim.step import Step, build_optimizer
from models.build import build_embedding, build_model
from models.embedding.base import initial_table
from models.embedding.masked import Masked

SIZES, WIDTH, BATCH = (60, 3, 200, 37), 5, 16
VALUES = {"model": "fm", "embedding": "pep", "latent_dim": WIDTH, "threshold_type": "feature_dim",
          "gk": 1.0, "g_type": "sigmoid", "threshold_init": -5.0, "mlp_dims": (6,), "dropout": 0.2,
          "num_heads": 2, "num_layers": 1, "att_dropout": 0.1, "atten_embed_dim": 4,
          "has_residual": True, "full_part": True, "with_linear": True, "arch_mlp_bot": (5,),
          "arch_mlp_top": (6,), "arch_interaction_op": "cat"}


class Training:
    """Skewed random batches, step by step; the last row of each field is in none of them, and the
    decay is felt."""

    def __init__(self, update, lr=0.01, decay=0.03, clip=100.0, sizes=SIZES, l2_penalty=0.0,
                 **values):
        values = {**VALUES, **values}
        self.sizes = sizes
        if values["embedding"] == "masked":
            generator = torch.Generator().manual_seed(1)
            initial = torch.randn(sum(sizes), values["latent_dim"], generator=generator) / 10
            self.embedding = Masked(initial, torch.rand(initial.shape, generator=generator) < 0.5,
                                    len(sizes))
        elif callable(values["embedding"]):
            self.embedding = values["embedding"](sizes, values["latent_dim"])
        else:
            self.embedding = build_embedding(sizes, values, 1, lambda: torch.arange(sum(sizes)))
        self.model = build_model(sizes, values, 1, self.embedding).train()
        self.optimizer = build_optimizer(self.model, lr, decay, decay)
        self.advance = Step(self.model, self.optimizer, clip, l2_penalty, update)
        self.step, self.losses = 0, []

    @property
    def rows(self):
        return self.advance.rows

    def batch(self, rows=BATCH):
        rng = np.random.default_rng(self.step)
        columns = [(max(size - 1, 1) * rng.random(rows) ** 3).astype(np.int32)
                   for size in self.sizes]
        starts = np.array([0, *itertools.accumulate(self.sizes[:-1])], np.int32)
        return torch.from_numpy(np.stack(columns, 1)
                                + starts), torch.from_numpy(rng.integers(0, 2, rows)).float()

    def run(self, steps, rows=BATCH):
        for _ in range(steps):
            # of the dropout; torch.manual_seed writes a traceback for each device that is not there
            torch.default_generator.manual_seed(self.step)
            self.losses.append(float(self.advance(*self.batch(rows))))
            self.step += 1
        return self

    def state(self):
        """All that the steps have made, by name."""
        self.optimizer.refresh()
        kept = {"losses": np.array(self.losses)}
        for name, parameter in self.model.named_parameters():
            kept[name] = parameter.detach().numpy().copy()
            kept |= {f"{name} {key}": value.numpy().copy() for key,
                     value in self.optimizer.state[parameter].items()}
        return kept


def draw(seed=1):
    """A function of (rows, width) that draws tables one after the other."""
    generator = torch.Generator().manual_seed(seed)
    return lambda rows, width: initial_table(rows, width, generator)


def ids_of(sizes, rows, generator):
    """Random ids (rows, F) of one table that holds the fields one after the other."""
    starts = torch.tensor([0, *itertools.accumulate(sizes[:-1])])
    columns = [torch.randint(size, (rows,), generator=generator) for size in sizes]
    return (torch.stack(columns, 1) + starts).int()


def few(cases, *fast):
    """Parameters of a test: the cases of these numbers, and the others under `slow`."""
    made = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        made.append(pytest.param(*values, marks=[] if number in fast else [pytest.mark.slow]))
    return made


def words(case):
    """A case's name: its values."""
    return " ".join(map(str, case.values())) if isinstance(case, dict) else None


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert {name for name in one if one[name].tobytes() != other[name].tobytes()} == set()


def assert_close(one, other):
    """All but the bias that a batch norm cancels: its gradient is nothing but rounding."""
    assert one.keys() == other.keys()
    for name in one:
        if name.startswith("mlp.mlp.0.bias"):
            continue
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=2e-6, err_msg=name)
