"""Score raw rows with an exported model.

    python score.py --model FOLDER --data rows.csv --out scores.csv

FOLDER is what export.py wrote. The rows are a CSV or TSV (gzip too) with a header, or Parquet; for
Criteo and Avazu their published layout. A label column may be there or not. Scores are written as
`row,probability`, rows counted from 0; that of a row that cannot be read is empty.
"""

import argparse
import logging
import sys
from pathlib import Path


def main() -> None:
    """The script."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, help="folder of an exported model")
    options.add_argument("--data", required=True, help="file of raw rows")
    options.add_argument("--out", required=True, help="file of scores to write")
    args = options.parse_args()
    from tqdm import tqdm

    from models.serving.scorer import load  # torch takes seconds, and --help needs none

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        scorer = load(args.model)
        with tqdm(unit=" rows", unit_scale=True) as bar:
            done = scorer.score_file(Path(args.data), Path(args.out), bar.update)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    # not among the scores, where --out is /dev/stdout
    print(f"{args.out}: {done.rows - done.bad:,} rows scored", file=sys.stderr)
    if done.bad:
        print(f"{done.bad:,} rows could not be used and have no score: {'; '.join(done.examples)}",
              file=sys.stderr)


if __name__ == "__main__":
    main()
