"""Take a finished run home: a folder that scores raw rows.

    python export.py --run ID --out model                    # ID: a run's id, or its beginning
    python export.py --run ID --values float16 --out model   # half the bytes of the table's values
    python export.py --run ID --onnx --out model             # and model.onnx (needs onnx)
    python score.py --model model --data rows.csv --out scores.csv

Any training but a search: a baseline, a retrained ticket, or a model that compress.py made. It is
held against the run on all validation rows before anything is written.
"""

import argparse
from pathlib import Path

from engine import cli
from models.serving import FLOAT32, TYPES


def read() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", required=True, help="id of a finished run, or its beginning")
    options.add_argument("--out", required=True, metavar="FOLDER",
                         help="the folder to write; it must not exist")
    options.add_argument("--values", default=FLOAT32, choices=TYPES,
                         help="type of the table's values; float16 changes the validation AUC "
                         "by 1e-5 at most, int8 by 1e-4 (and by ten pairs of rows)")
    options.add_argument("--onnx", action="store_true", help="write model.onnx too")
    options.add_argument("--runs", default="tmp", metavar="FOLDER",
                         help="where runs lie: the --out of the training")
    options.add_argument("--data", help="the raw files, as for the training")
    cli.add_cache_option(options)
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")
    return options.parse_args()


def main() -> None:
    """The script."""
    args = read()
    from data.store import cache_folder
    from engine.run import RunContext
    from serving.export import describe, export

    context = RunContext(Path(args.runs), cache_folder(args.cache), args.data, "cpu")
    print(describe(export(args.run, Path(args.out), args.values, context, args.onnx)))


if __name__ == "__main__":
    cli.main(read, trains=False)  # --help and wrong options answer at once
    cli.main(main)
