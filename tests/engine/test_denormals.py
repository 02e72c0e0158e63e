import os
import subprocess
import sys

PROGRAM = """
import torch
from engine import cli

def work():
    tiny = torch.full((1 << 20,), 1e-39)  # denormal; long enough for several threads
    print(torch.get_num_threads(), int(torch.count_nonzero(tiny * 1.0)))

cli.main(work)
"""


def test_scripts_flush_denormals_in_every_thread():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.stdout.split() == ["2", "0"]
