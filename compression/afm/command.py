"""The work of `compress.py afm`, whose options stand in `compression.afm.options`."""

import argparse
import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch

from compression import finetune
from compression.afm import factor
from compression.afm.compress import Choice, Compression, compress
from compression.afm.low_rank import check_share
from compression.afm.statistics import Moments, layer_moments, table_moments
from compression.afm.structure import empty_like, multiply_adds, parameters_by_part, structure_of
from compression.calibration import CalibrationBatches
from compression.finetune import FineTuning
from compression.loaded_run import LoadedRun, load_model, weights_of
from compression.speed import samples_per_second
from data import feature_counts
from engine import cli
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.run import WEIGHTS, Run, RunContext, pick_device
from engine.trainer import Trainer
from models.base import Inputs, as_inputs
from utils.files import sha256_of, sha256_of_file

log = logging.getLogger("pep")

BATCHES = (1, 1024, 16_384)  # of which the speed is measured
SECONDS = 0.3  # each


def checked(args: argparse.Namespace) -> tuple[Choice, FineTuning]:
    """What the options ask for, before anything is read.

    Raises:
        ValueError: nothing to factor, a share outside (0, 1), a rank below 1, or options that
            contradict each other.
    """
    for option, share in (("--emb-energy", args.emb_energy), ("--ratio", args.ratio),
                          ("--mlp-energy", args.mlp_energy)):
        if share is not None:
            check_share(option, share)
    by_field = ranks_in(args.field_rank_file) if args.field_rank_file else None
    layers = None
    if args.layers is not None:
        layers = tuple(name.strip() for name in args.layers.split(","))
    choice = Choice(method=args.basis, emb_rank=args.emb_rank, emb_energy=args.emb_energy,
                    ratio=args.ratio, field_ranks=by_field, mlp_rank=args.mlp_rank,
                    mlp_energy=args.mlp_energy, layers=layers, act=args.act,
                    act_init=args.act_init, fused=not args.no_fuse, sequential=args.sequential,
                    smoothing=args.smoothing, max_samples=args.max_samples)
    choice.check()
    return choice, FineTuning(args.finetune_epochs, args.finetune_lr, args.freeze_emb)


def ranks_in(path: Path) -> tuple[tuple[str, int], ...]:
    """(field, rank) from a file, by name.

    Raises:
        ValueError: it does not hold whole numbers by name, or cannot be read.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--field-rank-file {path} cannot be read ({error})") from error
    if not isinstance(found, dict) or any(type(rank) is not int for rank in found.values()):
        raise ValueError(f"--field-rank-file {path} must hold a rank for each field, "
                         f"{{\"zip\": 16, ...}}; got {found!r}")
    return tuple(sorted(found.items()))


def work(args: argparse.Namespace) -> tuple[list[dict[str, Any]], RunContext]:
    """The subcommand: calibrate, factor, fine-tune, and fine-tune the dense model as a control.

    Returns:
        The records, the factored model's first, and where they are.
    """
    choice, how = checked(args)
    context = cli.place_of(args, force=args.force)
    trained = load_model(args.run, context).with_one_value_a_field("AFM")
    results = [factored(trained, choice, how, pick_device(context.device))]
    if not args.no_control and how.epochs:
        results.append(control(trained, how))
    results[0] = compared(trained, results[0], results[-1],
                          finetune.run_of(trained, how, choice.identity()))
    return results, context


def control(trained: LoadedRun, how: FineTuning) -> dict[str, Any]:
    """The dense model with the same further epochs."""
    return finetune.finetune(finetune.run_of(trained, how, finetune.CONTROL),
                             lambda: copy.deepcopy(trained.model),
                             lambda trainer: {"file_bytes": _file_bytes(trainer),
                                              "parameters": parameters_by_part(trainer.model)})


def factored(trained: LoadedRun, choice: Choice, how: FineTuning,
             device: torch.device) -> dict[str, Any]:
    """The factored model, fine-tuned as `how` says; calibrated only if there is no result
    yet."""
    run = finetune.run_of(trained, how, choice.identity())
    compressions: list[Compression] = []
    sizes = trained.run.dataset.schema.sizes

    def make() -> Any:
        compressions.append(calibrated(trained, choice, device))
        return compressions[0].model

    def about(trainer: Trainer) -> dict[str, Any]:
        model, dense = trainer.model, trained.model.to(device)
        return {"file_bytes": _file_bytes(trainer), "spectra": compressions[0].spectra,
                "structure": structure_of(model),
                "errors": compressions[0].errors,
                "parameters": parameters_by_part(model),
                "parameters_dense": parameters_by_part(dense),
                "multiply_adds": multiply_adds(model, factor.probe(dense, sizes, 1)),
                "multiply_adds_dense": multiply_adds(dense, factor.probe(dense, sizes, 1)),
                "file_bytes_dense": trained.weights_bytes,
                **speeds(trained.run, {"dense": dense, "factored": model})}

    return finetune.finetune(run, make, about)


def _file_bytes(trainer: Trainer) -> int:
    return (trainer.run.folder / WEIGHTS).stat().st_size


def speeds(run: Run, models: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Rows a second of each model by batch size, where they are and, where that is a GPU, on the
    processor too."""
    device, most = next(models["dense"].parameters()).device, max(BATCHES)
    calibration = CalibrationBatches(run, models["dense"].num_dense > 0, device, most, max(most, 2))
    rows = next(calibration.batches("rows to time it on"))
    found = {"samples_per_second": timed(models, rows)}
    if device.type != "cpu":
        there = tuple(part.cpu() for part in as_inputs(rows))
        on_cpu = {name: copy.deepcopy(each).cpu() for name, each in models.items()}
        found["samples_per_second_cpu"] = timed(on_cpu, there if len(there) == 2 else there[0])
    return found


def timed(models: dict[str, Any], rows: Inputs) -> dict[str, dict[str, float]]:
    """Rows a second of each model, by batch size."""
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        speeds = {batch: samples_per_second(model, rows, batch, SECONDS) for batch in BATCHES}
        found[name] = {str(batch): round(speed) for batch, speed in speeds.items()}
    return found


def compared(trained: LoadedRun, result: dict[str, Any], other: dict[str, Any],
             run: Run) -> dict[str, Any]:
    """A factored model's record with intervals of its scores and of their difference to the
    control's, or to the dense model's where there is no control.

    Args:
        result, other: records of the factored model and the control; the same one twice where there
            is no control.
        run: of `result`.
    """
    alone = other["run_id"] == result["run_id"]
    if alone and finetune.INTERVALS in result:
        return result

    def models() -> list[Any]:
        own = empty_like(trained.model, result["compression"]["structure"],
                         run.dataset.schema.sizes)
        own.load_state_dict(weights_of(run.folder))
        dense = copy.deepcopy(trained.model)
        if not alone:
            dense.load_state_dict(weights_of(run.context.out / "runs" / other["run_id"]))
        return [own, dense]

    return finetune.with_intervals(run, result, models, trained.run_id if alone
                                   else other["run_id"])


def calibrated(trained: LoadedRun, choice: Choice, device: torch.device) -> Compression:
    """Statistics of the trained model, or those that an earlier calibration has left, and the
    factored model."""
    model, run = trained.model.to(device), trained.run
    layers = choice.layers_of(model)
    calibration = CalibrationBatches(run, model.num_dense > 0, device, choice.max_samples)
    moments: dict[str, Moments] = {}
    if layers and not choice.sequential:
        # the run may be trained again
        weights = sha256_of_file(run.context.out / "runs" / trained.run_id / WEIGHTS)
        name = sha256_of(*layers, str(calibration.rows), weights)[:12]
        kept = run.context.out / "afm" / trained.run_id / f"{name}.safetensors"
        moments = layer_statistics(model, calibration, layers, kept)
    counts = feature_counts.count(run.dataset)
    fields = table_moments(model.embedding.table(), counts, run.dataset.schema.sizes,
                           choice.smoothing)

    def measure(current: Any, names: list[str]) -> dict[str, Moments]:
        return {name: moments[name] for name in names} if not choice.sequential else layer_moments(
            current, calibration.batches(f"calibrating {', '.join(names)}"), names)

    return compress(model, choice, fields, run.dataset.schema, measure,
                    lambda: calibration.batches("looking for the least codes"), run.seed)


def layer_statistics(model: Any, calibration: CalibrationBatches, layers: list[str],
                     kept: Path) -> dict[str, Moments]:
    """Moments of the dense model's layers, kept in a file, from which an interrupted pass goes
    on."""
    found: dict[str, Moments] = {}
    done = 0
    if kept.exists():
        content = load_checkpoint(kept)
        done = content["done"]
        found = {name: Moments(len(each["mean"]), **each) for name,
                 each in content["moments"].items()}

    def save(number: int) -> None:
        save_checkpoint(kept, {"done": number,
                               "moments": {name: each.content() for name, each in found.items()}})

    layer_moments(model, calibration.batches("calibrating", done, save), layers, found)
    return found
