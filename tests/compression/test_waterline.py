"""The water line: rotation, sensitivities, allocation, and the command."""


import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from compression.loaded_run import load_uniform
from compression.lowbit.retraining import RENEWED, Retraining
from compression.waterline import command
from compression.waterline import shape as shapes
from compression.waterline.allocation import (
    Allocation,
    Level,
    allocate,
    column_worth,
    number_of_steps,
    row_classes,
)
from compression.waterline.rotation import principal_axes, rotate, vector_weights
from compression.waterline.sensitivity import sensitivities
from compression.waterline.shape import Shape
from engine.checkpoint import load_checkpoint
from engine.evaluate import Split, measure
from engine.run import Unfinished
from models import packed_table
from models.build import MODELS, build_embedding, build_model
from models.embedding.uniform import Uniform
from models.packed_table import UNSEEN
from utils.files import read_record

SIZES, WIDTH = (30, 5, 80), 6
INVARIANT = [name for name, entry in MODELS.items() if entry.vector_weights is not None]
VARIANTS = [(name, {}) for name in INVARIANT] + [
    ("autoint", {"has_residual": False, "full_part": False, "with_linear": True}),
    ("autoint", {"att_layer": "paper"})]
DATA = tiny.dataset()


def model_of(name, sizes=SIZES, width=WIDTH, seed=1, **changes):
    values = tiny.settings(model=name, embedding="uniform", latent_dim=width, **changes).flat()
    model = build_model(sizes, values, seed, build_embedding(sizes, values, seed)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # scores that are far from 0.5, and a batch norm that does something
        model.embedding.weight.copy_(torch.randn(model.embedding.weight.shape, generator=generator))
        for key, value in model.named_buffers():
            if key.endswith("running_mean"):
                value.normal_(generator=generator)
    return model


def batch(rows=60, seed=0, sizes=SIZES):
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return torch.from_numpy((rng.integers(0, sizes, (rows, len(sizes))) + starts).astype(np.int32))


# --- rotation

@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_rotating_table_and_model_together_leaves_every_logit(name, changes):
    model, ids = model_of(name, **changes), batch()
    axes = principal_axes(model.embedding.weight.detach().numpy(), SIZES)
    with torch.no_grad():
        before = model(ids)
        model.embedding.weight.copy_(model.embedding.weight @ torch.from_numpy(axes).float())
        changed = model(ids)
        rotate(model, name, axes)
        torch.testing.assert_close(model(ids), before, atol=1e-4, rtol=1e-5)
    if vector_weights(model, name):
        assert (changed - before).abs().max() > 0.01


def test_the_largest_fields_energy_falls_from_column_to_column():
    table = np.random.default_rng(0).normal(size=(115, WIDTH)) @ np.diag([1, 5, 2, 9, 3, 0.1])
    axes = principal_axes(table, SIZES)
    np.testing.assert_allclose(axes.T @ axes, np.eye(WIDTH), atol=1e-12)
    energy = ((table[35:] @ axes) ** 2).sum(axis=0)
    assert (np.diff(energy) < 0).all()


def test_a_model_that_is_not_invariant_is_refused():
    assert "dlrm" not in INVARIANT
    with pytest.raises(ValueError, match=r"logits of dlrm change when its vectors are rotated, so "
                                         r".* leave --width away, or take one of fm"):
        vector_weights(torch.nn.Module(), "dlrm")


# --- sensitivities

def test_the_sensitivities_of_a_factorisation_machine_have_a_closed_form():
    model, ids = model_of("fm"), batch(300)
    vectors = model.embedding.weight.detach()[ids.long()].double()
    others = vectors.sum(dim=1, keepdim=True) - vectors  # dz / dx_f
    with torch.no_grad():
        chance = torch.sigmoid(model(ids)).double()
    expected = ((chance * (1 - chance))[:, None, None] * others.square()).mean(dim=0)
    found = sensitivities(model, [ids[:100], ids[100:]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert isinstance(model.embedding, Uniform)


@pytest.mark.parametrize("name", INVARIANT)
def test_the_sensitivities_of_any_model_are_those_of_finite_differences(name):
    model, ids = model_of(name).double(), batch(40)
    felt, step = torch.zeros(len(SIZES), WIDTH, dtype=torch.float64), 1e-6
    table = model.embedding.weight.detach().clone()
    with torch.no_grad():
        chance = torch.sigmoid(model(ids))
        for field in range(len(SIZES)):
            rows = slice(sum(SIZES[:field]), sum(SIZES[:field + 1]))
            for column in range(WIDTH):
                logits = []
                for sign in (1, -1):
                    model.embedding.weight.copy_(table)
                    model.embedding.weight[rows, column] += sign * step
                    logits.append(model(ids))
                slope = (logits[0] - logits[1]) / (2 * step)
                felt[field, column] = (chance * (1 - chance) * slope.square()).mean()
        model.embedding.weight.copy_(table)
    torch.testing.assert_close(sensitivities(model, [ids]), felt, rtol=1e-4, atol=1e-9)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no training row"):
        sensitivities(model_of("fm"), [])


# --- allocation

def made(seed=0):
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 0.2, (sum(SIZES), WIDTH)) * np.exp2(-np.arange(WIDTH))
    counts = rng.integers(0, 3000, sum(SIZES))
    counts[::9] = 0
    return table, counts, rng.random((len(SIZES), WIDTH))


def level_of(seed=0, **changes):
    table, counts, felt = made(seed)
    return Level(SIZES, row_classes(table, counts, felt, SIZES),
                 column_worth(table, counts, felt, SIZES), **changes)


def test_classes_and_columns_are_the_formulas():
    table, counts, felt = made()
    counts[35], counts[36], counts[37] = 64, 256, 1
    table[35] = table[36] = 0.1
    classes = row_classes(table, counts, felt, SIZES, energy=False)
    assert (classes[35], classes[36], classes[37]) == (3, 4, 0)  # four times as often: one bit
    assert (classes[counts == 0] == UNSEEN).all()
    rows = slice(35, 115)
    seen = counts[rows] > 0
    energy = (table[rows] ** 2 * felt[2]).sum(axis=1)
    own = counts[rows] * np.sqrt(energy / energy[seen].mean())
    expected = np.clip(np.rint(np.log2(own[seen]) / 2), -2, 14)
    found = row_classes(table, counts, felt, SIZES)[rows][seen]
    assert np.array_equal(found, expected)
    worth = column_worth(table, counts, felt, SIZES)
    np.testing.assert_allclose(worth[2], np.log2(felt[2] * (table[rows][seen] ** 2).mean(0)) / 2)


def test_bits_are_the_sum_of_class_and_column_cut_to_0_and_8():
    classes = np.full(sum(SIZES), 2, np.int8)
    classes[0], classes[1] = UNSEEN, -2
    columns = np.array([[-5, 0, 9, 1, 1, 1]] * 3, np.int8)
    allocation = Allocation(SIZES, classes, columns)
    assert allocation.bits()[:3].tolist() == [[0] * 6, [0, 0, 7, 0, 0, 0], [0, 2, 8, 3, 3, 3]]
    assert Allocation(SIZES, classes, columns, most=4).bits()[2].tolist() == [0, 2, 4, 3, 3, 3]
    assert Allocation(SIZES, classes, columns, rung=2).bits()[2].tolist() == [0, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("changes", [{}, {"most": 3}, {"rung": 2}])
@pytest.mark.parametrize("budget", [220, 250, 300])
def test_everything_stored_fits_the_budget_and_little_is_left(budget, changes):
    allocation = allocate(level_of(**changes), budget)
    assert budget - 12 <= allocation.stored_bytes() <= budget
    assert allocation.bits().max() <= (changes.get("rung") or changes.get("most", 8))


def test_more_bytes_are_never_fewer_bits_where_it_matters():
    felt = [int(allocate(level_of(), budget).bits().sum()) for budget in range(220, 520, 20)]
    assert felt == sorted(felt)
    assert felt[-1] > 2 * felt[0]


def test_a_budget_below_the_fixed_cost_or_above_the_most_is_refused_with_the_number():
    fixed = packed_table.fixed_bytes(len(SIZES), WIDTH, max(SIZES))
    with pytest.raises(ValueError, match=rf"{fixed - 1} bytes is below the fixed cost of {fixed}"):
        allocate(level_of(), fixed - 1)
    with pytest.raises(ValueError, match=r"with 8 bits for every entry the table takes (\d+) "):
        allocate(level_of(), 5000)


@pytest.mark.parametrize(("change", "words"), [
    (lambda table, counts, felt: (table, counts[1:], felt), "the counts are of shape"),
    (lambda table, counts, felt: (table[1:], counts[1:], felt), "the fields have 115 rows"),
    (lambda table, counts, felt: (table, counts, felt[1:]), "sensitivities must be of shape"),
    (lambda table, counts, felt: (table, counts * 0, felt), "no row occurs in training")])
def test_what_does_not_match_is_refused(change, words):
    table, counts, felt = change(*made())
    for function in (row_classes, column_worth):
        with pytest.raises(ValueError, match=words):
            function(table, counts, felt, SIZES)


def test_a_table_that_is_all_zero_has_nothing_to_give_bits_to():
    table, counts, felt = made()
    worth = column_worth(table * 0, counts, felt, SIZES)
    with pytest.raises(ValueError, match="nothing to give bits to"):
        allocate(Level(SIZES, row_classes(table, counts, felt, SIZES), worth), 300)


def test_steps_are_counted_once_a_bit_and_column():
    bits = np.array([[2, 0, 2], [1, 0, 2]])
    assert (number_of_steps(bits, True), number_of_steps(bits, False)) == (3, 2)


# --- the command

@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a dense training, to be copied; its id."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        return out, tiny.train(out, embedding="uniform", latent_dim=8, max_epochs=6,
                               lr=0.02)["run_id"]


@pytest.fixture
def dense(source, tmp_path, monkeypatch):
    """The id of a dense training; its data are the tiny ones."""
    tiny.install(monkeypatch, DATA)
    shutil.copytree(source[0], tmp_path, dirs_exist_ok=True)
    return source[1]


def compress(run_id, out, budgets, shape=None, how=None, **places):
    trained = load_uniform(run_id, tiny.context(out, **places))
    return command.compress(trained, shape or Shape(), budgets, how or Retraining(3, 0.02))


def test_budgets_become_records_with_all_bytes_and_a_packed_table(tmp_path, dense):
    results = compress(dense, tmp_path, [700, 500])
    assert [result["inference_bytes"] <= budget for result, budget in
            zip(results, [700, 500], strict=True)] == [True, True]
    for result in results:
        made, folder = result["compression"], tmp_path / "runs" / result["run_id"]
        assert result["stage"] == "quantise"
        assert made["source"] == dense
        assert made["stored"]["table"] == result["inference_bytes"] == made["packed_bytes"]
        assert made["stored"]["whole"] == made["stored"]["table"] + made["stored"]["others"]
        assert (folder / "table.packed").stat().st_size == made["packed_bytes"]
        assert read_record(folder / "result.json") == result
    assert results[0]["validation_auc"] >= max(results[0]["without_finetuning"]["validation_auc"],
                                               0.5)


def test_the_unpacked_table_scores_what_the_record_says(tmp_path, dense):
    [result] = compress(dense, tmp_path, [600])
    folder = tmp_path / "runs" / result["run_id"]
    table = packed_table.load(folder / "table.packed")
    places = torch.from_numpy(np.load(folder / "row_order.npy"))
    model = load_uniform(dense, tiny.context(tmp_path)).model
    weights = load_checkpoint(folder / "model.safetensors")["model"]
    model.load_state_dict({name: value for name, value in weights.items()
                           if not name.startswith("embedding.")}, strict=False)
    model.embedding = Uniform(table.lookup(places), DATA.schema.num_fields)
    found = measure(model, Split(*DATA.split("validation")))
    assert found.auc == pytest.approx(result["validation_auc"], abs=1e-6)


@pytest.mark.parametrize("name", ["deepfm", "autoint"])
def test_models_with_more_than_an_embedding(tmp_path, monkeypatch, name):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, model=name, embedding="uniform", latent_dim=8)["run_id"]
    [result] = compress(run_id, tmp_path, [600], how=Retraining(1, 0.01))
    made = result["compression"]
    assert made["stored"]["others"] > DATA.schema.num_rows * (name == "deepfm")
    assert abs(made["whole_model"]["validation_auc"] - result["validation_auc"]) < 0.01


@pytest.mark.parametrize("name", ["fm", "autoint"])
def test_fewer_columns_are_a_narrower_packed_table(tmp_path, monkeypatch, name):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, model=name, embedding="uniform", latent_dim=8)["run_id"]
    how = Retraining(1, 0.01)
    [narrow] = compress(run_id, tmp_path, [400], Shape(width=3), how)
    assert packed_table.load(tmp_path / "runs" / narrow["run_id"] / "table.packed").width == 3
    assert narrow["compression"]["width"] == 3
    whole = [compress(run_id, tmp_path, [500], shape, how)[0]
             for shape in (Shape(), Shape(width=8))]
    assert whole[0] == whole[1]
    for width in (0, 9):
        with pytest.raises(ValueError, match="the dense table has 8 columns; take 1 to 8"):
            compress(run_id, tmp_path, [400], Shape(width=width), how)


def test_dlrm_is_refused_with_rotation_and_works_without(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, model="dlrm", embedding="uniform", latent_dim=8,
                        arch_mlp_bot=[4], arch_mlp_top=[4])["run_id"]
    with pytest.raises(ValueError, match="add --no-rotation and leave --width away"):
        compress(run_id, tmp_path, [600])
    [result] = compress(run_id, tmp_path, [600], Shape(rotation=False), Retraining(1, 0.01))
    assert result["inference_bytes"] <= 600


def test_finished_budgets_are_not_run_again_and_a_dry_context_trains_nothing(tmp_path, dense,
                                                                             monkeypatch):
    with pytest.raises(Unfinished):
        compress(dense, tmp_path, [600], dry_run=True)
    first = compress(dense, tmp_path, [600])
    monkeypatch.setattr(command, "retrain", None)
    assert compress(dense, tmp_path, [600]) == first
    assert compress(dense, tmp_path, [600], dry_run=True) == first


def test_every_ablation_is_a_run_of_its_own(tmp_path, dense):
    trained = load_uniform(dense, tiny.context(tmp_path))
    ways = [Shape(), Shape(rotation=False), Shape(rows="counts"), Shape(rows="nothing"),
            Shape(columns="field"), Shape(most=4), Shape(rung=2)]
    results = [command.compress(trained, way, [450], Retraining(0, 0.01))[0] for way in ways]
    assert len({result["run_id"] for result in results}) == len(ways)
    assert all(result["inference_bytes"] <= 450 for result in results)
    best = results[0]["compression"]
    assert set(best) >= {"bytes", "method", "stored"}
    assert "rotation" not in best
    for wrong in ({"rows": "all"}, {"columns": "all"}, {"most": 0}, {"rung": 9}):
        with pytest.raises(ValueError, match=r"takes|follow"):
            Shape(**wrong)


def test_only_a_dense_run_is_taken(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, embedding="qr")["run_id"]
    with pytest.raises(ValueError, match="only a trained uniform table"):
        compress(run_id, tmp_path, [600])


def test_test_labels_change_nothing_that_is_chosen(tmp_path, monkeypatch):
    tables = []
    for name, data in (("own", DATA), ("other", tiny.with_test_labels(DATA, lambda own: 1 - own))):
        tiny.install(monkeypatch, data)
        run_id = tiny.train(tmp_path / name, embedding="uniform", latent_dim=8)["run_id"]
        [result] = compress(run_id, tmp_path / name, [600])
        folder = tmp_path / name / "runs" / result["run_id"]
        tables.append((result["selected_epoch"], result["validation_auc"],
                       (folder / "table.packed").read_bytes()))
    assert tables[0] == tables[1]


def test_a_retraining_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    monkeypatch.setattr("compression.lowbit.retraining.RENEWED", 4)
    run_id = tiny.train(tmp_path, embedding="uniform", latent_dim=8,
                        checkpoint_seconds=0.0)["run_id"]
    [whole] = compress(run_id, tmp_path, [600])
    path = tmp_path / "runs" / whole["run_id"] / "table.packed"
    expected = path.read_bytes()
    (path.parent / "result.json").unlink()
    calls, renew = [], shapes.Quantised.renew

    def kill(embedding):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        renew(embedding)

    with monkeypatch.context() as patch:
        patch.setattr(shapes.Quantised, "renew", kill)
        with pytest.raises(KeyboardInterrupt):
            compress(run_id, tmp_path, [600])
    [again] = compress(run_id, tmp_path, [600])
    assert len(calls) == 9
    assert path.read_bytes() == expected
    assert tiny.without_times(again) == tiny.without_times(whole)


def test_steps_are_renewed_while_training(tmp_path, dense, monkeypatch):
    calls, renew = [], shapes.Quantised.renew
    monkeypatch.setattr(shapes.Quantised, "renew",
                        lambda embedding: (calls.append(1), renew(embedding)))
    [result] = compress(dense, tmp_path, [600])
    assert len(calls) == result["steps"] // RENEWED == 2


def test_the_command_line(tmp_path, dense, capsys):
    from compress import options

    args = options().parse_args(["waterline", "--run", dense, "--bytes", "600", "--bytes", "500",
                                 "--epochs", "1", "--lr", "0.01", "--out", str(tmp_path),
                                 "--device", "cpu"])
    args.work(args)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("waterline: table ") for line in lines)
    assert Path(tmp_path / "runs" / lines[0].split()[-1]).exists()
    words = ["waterline", "--run", dense, "--bytes", "400", "--epochs", "1", "--out", str(tmp_path),
             "--device", "cpu", "--width", "4"]
    args = options().parse_args([*words, "--width", "8"])
    args.work(args)
    lines = capsys.readouterr().out.splitlines()
    assert len({line.split()[-1] for line in lines}) == 2
    assert [line.partition(":")[0] for line in lines] == ["waterline, width 4", "waterline"]
    args = options().parse_args([*words, "--lr", "0.5", "--width", "99"])
    before = sorted((tmp_path / "runs").iterdir())
    with pytest.raises(ValueError, match="the dense table has 8 columns"):
        args.work(args)
    assert sorted((tmp_path / "runs").iterdir()) == before  # nothing was trained


def test_a_rung_with_a_most_is_refused():
    with pytest.raises(ValueError, match=r"with a rung of 4 bits .* most \(2\) changes nothing"):
        Shape(most=2, rung=4)
