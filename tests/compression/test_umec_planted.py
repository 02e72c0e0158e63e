"""UMEC on data where it is known which fields matter: minutes long."""

import json
import statistics

import numpy as np
import pytest
import tiny

from compression.umec import command as compress_umec
from compression.umec.command import PUBLISHED, Task
from compression.umec.dynamics import Dynamics
from data.registry import DATASETS
from data.synthetic import planted_fields
from data.synthetic.planted_fields import Teacher
from engine import stages
from engine.settings import parse

BASE = {"dataset": "planted_fields", **PUBLISHED, "max_epochs": 8,
        "tensorboard": False}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A trained model for each seed, with its result."""
    place = tiny.context(tmp_path_factory.mktemp("planted"))
    results = [stages.train(parse(BASE), seed, place) for seed in range(1, 6)]
    return place, [(compress_umec.load(result["run_id"], "field", place), result)
                   for result in results]


@pytest.mark.slow
def test_ten_fields_that_say_nothing_are_found(bases):
    place, found = bases
    right = 0
    for base, result in found:
        task = Task(0.7679, dynamics=Dynamics(joint=False, by_embedding=True), epochs=6,
                    finetune_epochs=3)
        small = compress_umec.compress(base, task, place)
        made = small["compression"]
        gone = [int(name[1:]) for name, width in made["widths"].items() if not width]
        right += len(gone) == 10 and min(gone) > Teacher().informative
        assert made["resource_left"] <= 0.7679
        assert result["test_auc"] - small["test_auc"] < 0.003
        assert abs(made["validation_auc_before_zero"] - made["validation_auc_after_zero"]) < 1e-3
    assert right >= 4


def curve_of(place, run_id):
    """(epochs,), (epochs,): when a run was evaluated, and its test AUC then."""
    curve = (place.out / "runs" / run_id / "curve.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in curve]
    return [line["epoch"] for line in lines], [line["test_auc"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.5, 0.2])
def test_at_equal_epochs_umec_is_level_with_magnitude_and_better_than_chance(bases, budget):
    """UMEC's descent, then 3 epochs of its small model, against one-shot baselines after as many.

    The whole model is past its best epoch when it is compressed, so every further epoch costs test
    AUC. A result picks its epoch by validation: a baseline's picks its first or second of 9, while
    two epochs of descent lie behind every epoch that UMEC's may pick. So no epoch is picked here.
    A descent ends within an epoch; the baseline's AUC is read off between its two evaluations.
    Level means within 0.001, what another seed of one training changes.
    """
    place, found = bases
    scores = {"umec": [], "as-umec": [], "random": []}
    for base, _ in found:
        results = {}
        for method in scores:
            task = Task(budget, method, dynamics=Dynamics(by_embedding=True), epochs=6,
                        finetune_epochs=3)
            results[method] = compress_umec.compress(base, task, place)
            assert results[method]["compression"]["resource_left"] <= budget
        descent = results["umec"]["compression"]["descent"]
        steps = json.loads((place.out / "runs" / descent / "result.json").read_text())["steps"]
        other = results["random"]
        trained = steps / (other["steps"] / other["epochs"]) + 3  # epochs of UMEC after the base
        epochs, aucs = curve_of(place, results["umec"]["run_id"])
        assert epochs[-1] == 3
        scores["umec"].append(aucs[-1])
        for method in ("as-umec", "random"):
            epochs, aucs = curve_of(place, results[method]["run_id"])
            assert epochs[0] <= trained <= epochs[-1]
            scores[method].append(float(np.interp(trained, epochs, aucs)))
        print(f"budget {budget}, seed {base.run.seed}, after {trained:.2f} epochs: "
              + ", ".join(f"{method} {values[-1]:.4f}" for method, values in scores.items()))
    means = {method: statistics.mean(values) for method, values in scores.items()}
    print(f"budget {budget}, means of {len(found)}: {means}")
    assert means["umec"] > means["random"] + 0.01, means
    assert means["umec"] > means["as-umec"] - 0.001, means


OTHERS = [Teacher(seed=7), Teacher(seed=8, informative=8, values=200, first_order=0.7, pairs=1.5)]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", OTHERS, ids=["another seed", "another shape"])
def test_the_order_of_fields_is_right_on_sets_that_it_was_not_chosen_on(teacher, tmp_path,
                                                                        monkeypatch):
    monkeypatch.setitem(DATASETS, "planted_fields", lambda *_: planted_fields.taught(teacher))
    place, wrong = tiny.context(tmp_path), {True: 0, False: 0}
    for seed in (1, 2):
        result = stages.train(parse(BASE), seed, place)
        base = compress_umec.load(result["run_id"], "field", place)
        for by_embedding in (True, False):
            task = Task(0.7679, dynamics=Dynamics(joint=False, by_embedding=by_embedding), epochs=6,
                        finetune_epochs=2)
            small = compress_umec.compress(base, task, place)
            gone = [int(name[1:]) for name, width in small["compression"]["widths"].items()
                    if not width]
            lost = [number for number in gone if number <= teacher.informative]
            wrong[by_embedding] += len(lost)
            print(f"seed {seed}, times embedding {by_embedding}: {len(lost)} of {len(gone)} "
                  f"removed fields matter; test AUC {small['test_auc']:.4f}, of the whole "
                  f"{result['test_auc']:.4f}")
    assert wrong[True] == 0
    assert wrong[True] <= wrong[False]
