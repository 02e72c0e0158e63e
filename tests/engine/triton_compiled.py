"""Triton's kernels compile for a GPU without one, and nothing is contracted; a program, run by
test_device_rows.py."""

import re
from collections import Counter

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.optim.gpu import adam_triton

FLOATS, INTS, LONGS = "*fp32", "*i32", "*i64"
TABLE = {"value_ptr": FLOATS, "mean_ptr": FLOATS, "square_ptr": FLOATS, "done_ptr": INTS,
         "steps": FLOATS,
         **dict.fromkeys(("decay", "b1", "c1", "b2", "c2"), "fp32"), "now_ptr": INTS}
KERNELS = {"_replay_rows": {"rows_ptr": LONGS, "local_ptr": INTS, "out_ptr": FLOATS,
                            "count": "i32"},
           "_replay_part": {"num_rows": "i32", "size": "i32", "interval": "i32"},
           "_take_step": {"rows_ptr": LONGS, "local_ptr": INTS, "grads_ptr": FLOATS,
                          "scale_ptr": FLOATS,
                          "count": "i32"}}
SHAPES = ({"width": 1, "columns": 1, "height": 1024}, {"width": 24, "columns": 32, "height": 32})


def check(name: str, shape: dict[str, int]) -> None:
    """Each operation of a kernel rounds by itself, and roots and quotients are the correctly
    rounded ones."""
    constants = {**shape, "memory": adam_triton.MEMORY}
    signature = {**TABLE, **KERNELS[name], **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=getattr(adam_triton, name), signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                          options={"num_warps": 4, "enable_fp_fusion": False})
    # roots and quotients have it in some versions, see adam_triton.py
    ptx = made.asm["ptx"].replace(".ftz", "")
    found = Counter(re.findall(r"\b(?:fma|mad|mul|add|sub|div|sqrt)(?:\.\w+)*\.f(?:16|32|64)\b",
                               ptx))
    assert found.keys() == {"mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32",
                            "sqrt.rn.f32"}, found
    assert found["div.rn.f32"] == found["sqrt.rn.f32"] == found["sub.rn.f32"], found
    assert len(made.asm["cubin"]) > 1000


if __name__ == "__main__":
    for kernel in KERNELS:
        for tile in SHAPES:
            check(kernel, tile)
    print("all checks passed")
