"""`compress.py lowbit`: what the water line is compared with, with the same retraining.

    python compress.py lowbit --run ID --scheme uniform --bits 4 --width 16
    python compress.py lowbit --run ID --scheme mask --bits 4 --width 16 --keep 20000
    python compress.py lowbit --run ID --scheme mask --bits 4 --width 16 --bytes 20000
    python compress.py lowbit --run ID --scheme mask --bits 4        # the run is a retrained ticket
    python compress.py lowbit --run ID --scheme pq --bits 4 --subspaces 4 --centroids 256
    python compress.py lowbit --run ID --scheme mgqe --bits 4 --subspaces 4 --centroids 256
    python compress.py lowbit --run ID --scheme qr --bits 4          # the run's embedding is qr
    python compress.py lowbit --run ID --scheme mde --bits 4         # the run's embedding is mde
"""

import argparse

from engine import cli

SCHEMES = ("uniform", "mask", "pq", "mgqe", "qr", "mde")


def add_options(method: argparse.ArgumentParser) -> None:
    """Of the command line."""
    method.add_argument("--run", required=True,
                        help="id of a finished training, or its start: of a uniform table, or of "
                             "the embedding whose own values are quantised")
    method.add_argument("--scheme", required=True, choices=SCHEMES, help="which scheme")
    method.add_argument("--bits", type=int, required=True, help="of every stored value")
    method.add_argument("--width", type=int,
                        help="uniform, mask, pq, mgqe: the first columns alone")
    method.add_argument("--keep", type=int, help="mask: entries that are kept, of a uniform table")
    method.add_argument("--bytes", type=int, help="mask: as many entries as these bytes hold")
    method.add_argument("--subspaces", type=int, help="pq, mgqe: codes of a row")
    method.add_argument("--centroids", type=int,
                        help="pq, mgqe: values of a code; mgqe has a quarter for rare features")
    method.add_argument("--no-rotation", action="store_true", help="leave the table as it is")
    add_retraining_options(method)
    cli.add_place_options(method)
    method.add_argument("--force", action="store_true", help="run again what is finished")


def add_retraining_options(method: argparse.ArgumentParser) -> None:
    """How long and how fast the retraining is."""
    method.add_argument("--epochs", type=int, help="of retraining; 0 only measures")
    method.add_argument("--lr", type=float, help="of retraining, at its start")
    method.add_argument("--decay", type=float,
                        help="of the table in retraining (default: the dense run's)")
