import os
import subprocess
import sys

import pytest
import torch

from engine import cli

DENORMAL = 1e-39
PROGRAM = f"""
import torch
from engine import cli

def work():
    tiny = torch.full((1 << 20,), {DENORMAL})  # long enough for several threads
    print(torch.get_num_threads(), int(torch.count_nonzero(tiny * 1.0)))

cli.main(work)
"""


def test_a_script_flushes_denormals_before_it_works():
    seen = []
    torch.set_flush_denormal(False)
    try:
        cli.main(lambda: seen.append(float(torch.tensor([DENORMAL]) * 1.0)))
    finally:
        torch.set_flush_denormal(True)  # as in the rest of the suite
    assert seen == [0.0]


@pytest.mark.slow
def test_scripts_flush_denormals_in_every_thread():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.stdout.split() == ["2", "0"]
