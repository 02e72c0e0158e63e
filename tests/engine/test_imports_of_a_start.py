"""What the start of a run imports: nothing heavy that its first step does not need."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch._dynamo", "sympy", "pandas", "scipy.stats", "matplotlib", "pyarrow")
CODE = f"""
import sys
import torch
import engine.stages, studies.scripts, studies.table
from engine.checkpoint import optimizer_content, restore_optimizer
from engine.optim.step import Step, build_optimizer
from engine.pep.threshold_trace import DecayOnlyThreshold
from engine.settings import parse
from models.build import build_embedding, build_model

for changes in ({{"model": "fm"}}, {{"model": "deepfm", "embedding": "uniform"}},
                {{"model": "autoint", "optimizer": "sgd", "embedding": "uniform"}}):
    settings = parse({{"latent_dim": 8, "threshold_init": -4.0, **changes}})
    values = settings.flat()
    model = build_model((9, 9), values, 1, build_embedding((9, 9), values, 1)).train()
    optimizer = build_optimizer(model, 1e-3, 1e-5, 1e-5, values["optimizer"])
    ids = torch.tensor([[0, 9], [8, 17]], dtype=torch.int32)
    Step(model, optimizer, 1.0)(ids, torch.tensor([0.0, 1.0]))
    restore_optimizer(optimizer, optimizer_content(optimizer))
    if "embedding" not in changes:
        DecayOnlyThreshold(settings).at(2)
print(*(name for name in {HEAVY} if name in sys.modules))
"""


def test_first_steps_and_checkpoints_import_no_compiler_and_no_data_frames():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_options_of_commands_need_no_torch():
    code = ("import sys, compress, export, reproduce, score, train_table\n"
            "from studies import docs, pages, records, sizes, summary\n"
            "print(*(name for name in ('torch', 'numba') if name in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
