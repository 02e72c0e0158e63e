"""What the baselines do with the planted truth: each recovers or respects of it what its method
promises."""

import numpy as np
import pytest
from scipy.stats import spearmanr

import demo as script
from compression.loaded_run import load_uniform
from compression.pruning import methods, random_mask
from data.synthetic import planted
from engine import stages
from engine.run import RunContext
from engine.settings import parse
from studies.figures import demo

WIDTHS = [field.width for field in planted.FIELDS]
BUDGET = planted.num_params()
SETTINGS = {**script.SETTINGS, "max_epochs": 25}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return RunContext(out=tmp_path_factory.mktemp("planted"), device="cpu")


@pytest.fixture(scope="module")
def trained(context):
    run = stages.train(parse({**SETTINGS, "embedding": "uniform"}), 1, context)
    return load_uniform(run["run_id"], context)


def correlation(table, trained):
    """Of the widths that a table leaves, a field each, with the planted ones."""
    return spearmanr(WIDTHS, list(demo.recovered_widths(table, trained.dataset).values())).statistic


def test_magnitude_pruning_recovers_the_planted_widths(trained):
    table = methods.by_magnitude(trained, [BUDGET])[BUDGET]
    assert correlation(table, trained) > 0.9  # 0.98


def test_random_masks_know_nothing_of_them(trained):
    generator = np.random.default_rng(0)
    drawn = [correlation(random_mask.uniform(trained.table.shape, BUDGET, generator), trained)
             for _ in range(20)]
    assert abs(np.mean(drawn)) < 0.25


@pytest.mark.slow
def test_iterative_pruning_recovers_them_too(trained, context):
    table = methods.iteratively(trained, [BUDGET], 0.5, context)[BUDGET]
    assert correlation(table, trained) > 0.9  # 0.98


@pytest.mark.slow
def test_darts_gives_wide_fields_wide_vectors(trained, context):
    result = stages.train(parse({**SETTINGS, "embedding": "darts", "darts_widths": [1, 2, 8],
                                 "darts_epochs": 8,
                                 "l2_regularization": 1e-5}), 1, context)
    widths = np.load(context.out / "runs" / result["search"] / "widths.npz")["widths"]
    chosen = widths[trained.dataset.split("train")[0]].mean(axis=0)  # as often as a row looks it up
    assert spearmanr(WIDTHS, chosen).statistic > 0.6  # 0.83
    assert result["test_auc"] > 0.78
