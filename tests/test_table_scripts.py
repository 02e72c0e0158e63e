"""The scripts of a user's own table, in this process: first run, retraining, smaller models."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from compression.loaded_run import load_uniform, run_of_record
from compression.pruning import methods
from data import vocabulary
from engine import stages
from engine.run import RunContext
from engine.settings import parse
from studies import published, runs_csv, script_options, scripts, sizes
from studies.kept_widths import kept_of

QUICK = {"latent_dim": 4, "max_epochs": 3, "eval_interval": 1, "batch_size": 256, "lr": 0.02,
         "threshold_init": -3.0, "log_interval": 1, "tensorboard": False, "min_count": 2}
TABLE = {"label": "", "split": "auto", **QUICK}
RETRAIN = {name: value for name, value in TABLE.items() if name != "min_count"}


def clicks(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 40, rows), rng.integers(0, 30, rows)
    chance = 1 / (1 + np.exp(2 - (user % 3) - 2 * (item % 2)))
    return pd.DataFrame({"user": user, "item": item, "price": rng.gamma(2, 20, rows).round(2),
                         "click": (rng.random(rows) < chance).astype(int)})


def say(folder, call, script, *arguments):
    """What a script prints; its exit code where that is not 0."""
    words = ["train_table.py", *arguments, "--out", str(folder / "out"), "--cache",
             str(folder / "cache")]
    said, wrong = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "stderr", wrong)
        try:
            call("about", script)
        except SystemExit as stop:
            code = stop.code
        finally:
            torch.set_flush_denormal(False)
    return (said.getvalue(), code) if not code else (wrong.getvalue(), code)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    clicks().to_csv(folder / "my clicks.csv", index=False)
    said, code = say(folder, scripts.search, TABLE, "--data", str(folder / "my clicks.csv"),
                     "--label", "click")
    assert code == 0, said
    return folder, said


def results(folder):
    return [json.loads(path.read_text()) for path in (folder / "out").glob("runs/*/result.json")]


def test_a_file_and_its_label_are_enough(searched):
    folder, said = searched
    assert "my_clicks: 2,000 rows" in said
    assert "price                    quantiles" in said
    assert "budgets: " in said
    assert "to retrain them: python train_table_retrain.py" in said
    [search] = [result for result in results(folder) if result["stage"] == "search"]
    assert search["settings"]["dataset"] == "my_clicks"
    assert search["settings"]["label"] == "click"


def test_its_tickets_are_retrained_without_naming_label_or_file_again(searched):
    folder, _ = searched
    said, code = say(folder, scripts.retrain, RETRAIN, "--set", "name=my_clicks", "--jobs", "1",
                     "--set", "max_epochs=1")
    assert code == 0, said
    assert "retrain" in said
    assert (folder / "out" / "figures" / "my_clicks_fm.png").exists()


def test_a_key_that_is_added_to_the_dict_of_a_retraining_is_asked_for(searched):
    [alias] = [path.parent.name for path in searched[0].glob("out/embedding/fm/*pep*/search.json")]
    said, code = say(searched[0], scripts.retrain, {**RETRAIN, "dropout": 0.9},
                     "--set", "name=my_clicks", "--alias", alias)
    assert code == 2
    assert "dropout=0.9 was given, but the snapshot was made with 0.2" in said


@pytest.mark.parametrize(("start", "name"), [(-15.0, ""), (-6.0, "threshold_init_-6.0_")])
def test_a_dict_that_was_edited_names_its_folder(start, name):
    script = {**published.OWN_TABLE, "threshold_init": start}
    given = script_options.parser("", {}, own_table=True).parse_args(["--data", "t.csv"])
    _, context, _ = script_options.read(given, script, {}, scripts._usual(script))
    assert context.alias == f"t_pep_{name}d64_seed1"


def test_its_values_are_looked_up_by_run(searched, capsys):
    folder, _ = searched
    [run] = [result["run_id"] for result in results(folder) if result["stage"] == "search"]
    vocabulary.main([run, "--field", "user", "--value", "7", "--out", str(folder / "out"),
                     "--cache", str(folder / "cache")])
    assert "user: '7' is '7', id" in capsys.readouterr().out


def test_a_file_that_changed_since_the_search_is_refused(tmp_path):
    clicks().to_csv(tmp_path / "c.csv", index=False)
    data = ("--data", str(tmp_path / "c.csv"))
    assert say(tmp_path, scripts.search, TABLE, *data, "--label", "click")[1] == 0
    clicks(seed=1).to_csv(tmp_path / "c.csv", index=False)
    said, code = say(tmp_path, scripts.retrain, RETRAIN, *data, "--jobs", "1")
    assert code == 2
    assert "were made from other data" in said
    said, code = say(tmp_path, scripts.retrain, RETRAIN, "--set", "name=c", "--jobs", "1")
    assert code == 2
    assert "encoded sets in" in said or "has changed since" in said


def test_a_table_with_the_same_ids_and_other_values_is_another_one(tmp_path):
    for folder, sign in (("a", "u"), ("b", "xu")):
        (tmp_path / folder).mkdir()
        clicks().assign(user=lambda frame, sign=sign: sign + frame["user"].astype(str)).to_csv(
            tmp_path / folder / "c.csv", index=False)
    one, other = (("--data", str(tmp_path / folder / "c.csv")) for folder in "ab")
    assert say(tmp_path, scripts.search, TABLE, *one, "--label", "click")[1] == 0
    assert say(tmp_path, scripts.search, TABLE, *other, "--label", "click", "--encode-only")[1] == 0
    [search] = results(tmp_path)
    context = RunContext(tmp_path / "out", tmp_path / "cache", device="cpu")
    _, looked_up = vocabulary.find(search["run_id"], context.out, context.cache)
    for known in (run_of_record(search, context).dataset.vocabulary, looked_up):
        assert known.field("user").value(0).startswith("u")
    said, code = say(tmp_path, scripts.retrain, RETRAIN, *other, "--jobs", "1")
    assert code == 2
    assert "fields of other names or other raw values" in said


@pytest.mark.parametrize(("arguments", "why"), [
    (("--label", "click"), "which table? Give --data FILE"),
    (("--data", "{}", "--label", "clik"), "did you mean 'click'"),
    (("--data", "{}"), "which column is the label?"),
    (("--data", "{}", "--label", "click", "--set", "name=criteo"), "another data set's name"),
    (("--data", "{}", "--label", "click", "--set", "name=a/b"), "must be of letters"),
    (("--data", "{}", "--label", "click", "--set", "ignor=user"), "did you mean 'ignore'"),
    (("--data", "{}", "--label", "click", "--set", "with_ids=true"), "with_ids is of MovieLens"),
    (("--data", "nosuch.csv", "--label", "click"), "no file or folder nosuch.csv"),
])
def test_a_first_run_that_lacks_something_says_what(searched, arguments, why):
    folder, _ = searched
    given = [word.format(folder / "my clicks.csv") for word in arguments]
    said, code = say(folder, scripts.search, TABLE, *given)
    assert code == 2
    assert why in said


def test_settings_are_listed_before_there_is_a_table(tmp_path):
    said, code = say(tmp_path, scripts.search, TABLE, "--settings", "--set", "lr=0.5")
    assert code == 0
    assert "  lr = 0.5 (" in said
    assert "  split = auto (" in said


def test_a_trained_table_is_pruned_and_measured_without_naming_its_file(searched):
    folder, _ = searched
    said, code = say(folder, scripts.search, TABLE, "--data", str(folder / "my clicks.csv"),
                     "--label", "click", "--embedding", "uniform")
    assert code == 0, said
    [run] = [result["run_id"] for result in results(folder)
             if result["stage"] == "train" and result["settings"]["model"] == "fm"]
    context = RunContext(out=folder / "out", cache=folder / "cache", device="cpu")
    trained = load_uniform(run, context)
    pruned = methods.by_magnitude(trained, [50])
    assert np.count_nonzero(pruned[50]) == 50
    _, dataset, kept = kept_of(run, None, context)
    assert sum(len(field.values) for field in sizes.sizes_of(dataset, kept)) == len(kept)


def test_every_field_is_in_the_legend_whatever_its_name(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sizes, "save", lambda figure, path: drawn.append(figure))
    fields = [sizes.FieldSizes(name, ["a", "b", "c"], [sizes.VALUE] * 3, np.array([1, 5, 9]),
                               np.array([0, 2, 4])) for name in ("_id", "$a_$")]
    sizes.picture(fields, "kept", tmp_path / "a.png")
    drawn[0].canvas.draw()
    legend = drawn[0].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_id (3)", r"\$a_\$ (3)"]


def test_its_runs_are_recorded_and_read_back(searched, tmp_path):
    """Also with a column whose name would part the names of a line."""
    clicks().rename(columns={"item": "the item/no=1"}).to_csv(tmp_path / "c.csv", index=False)
    said, code = say(tmp_path, scripts.search, TABLE, "--data", str(tmp_path / "c.csv"), "--label",
                     "click", "--embedding", "uniform", "--set", "bucket={'price': 'quantiles:4'}")
    assert code == 0, said
    [result] = results(tmp_path)
    runs_csv.append(tmp_path / "runs.csv", tmp_path / "out")
    [read] = runs_csv.read(tmp_path / "runs.csv")
    assert read["data"]["fields"] == result["data"]["fields"] == ["user", "the item/no=1", "price"]
    assert read["settings"]["bucket"] == {"price": "quantiles:4"}


def test_settings_of_own_tables_are_refused_for_other_data_sets(searched):
    said, code = say(searched[0], scripts.search, {"dataset": "planted", **QUICK}, "--set",
                     "ignore=a")
    assert code == 2
    assert "ignore is for a table of your own" in said


def test_dlrm_reads_dense_columns_as_numbers(searched):
    folder, _ = searched
    said, code = say(folder, scripts.search, {**TABLE, "arch_mlp_bot": [4], "arch_mlp_top": [8]},
                     "--data", str(folder / "my clicks.csv"), "--label", "click", "--model", "dlrm",
                     "--embedding", "uniform", "--set", "dense=price")
    assert code == 0, said
    assert "1 columns of numbers beside the fields" in said
    assert "price  " not in said


def test_a_table_that_is_read_in_another_way_takes_another_folder():
    own = {"dataset": "clicks", "label": "click", "split": "auto"}
    ways = [{}, {"bucket": "log2"}, {"dates": {"when": ["hour"]}}, {"dense": ["price"]},
            {"min_count": 1}, {"multi": {"tags": "|"}}, {"ignore": ["id"]}]
    aliases = [stages.default_alias(parse(own | way), 1, parse(own)) for way in ways]
    assert len({*aliases}) == len(ways)
    assert all(Path(alias).name == alias for alias in aliases)
