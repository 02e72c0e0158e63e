"""Planted files in the place of real ones: kept apart, marked, and never taken for real."""

import csv
import json
import re
from pathlib import Path

import pytest
import tiny

import reproduce
from data.synthetic import raw_planted
from engine.run import RunContext
from studies import collect, schemes, synthetic_data
from studies.collect import results_in
from studies.published import PRESETS

OWN = PRESETS["criteo"]["candidate_p"]
QUICK = {**tiny.SETTINGS, "batch_size": 512, "max_epochs": 1, "candidate_p": [2000],
         "threshold_init": -9.0}


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """reproduce.py with quick settings for Criteo; the real data are nowhere."""
    monkeypatch.setenv("PEP_DATA", str(tmp_path / "raw"))
    monkeypatch.setitem(PRESETS, "criteo", {**QUICK, "dataset": "criteo"})
    monkeypatch.setattr(schemes, "LONG", {"max_epochs": 2})
    monkeypatch.setattr(collect, "SHIPPED", tmp_path / "no shipped records")
    tiny.publish(monkeypatch, PRESETS["criteo"])

    def call(*words):
        # other processes would not see the quick settings
        here = () if words[0] == "report" else ("--jobs", "1")
        monkeypatch.setattr("sys.argv", ["reproduce.py", *map(str, words), *here,
                                         "--out", str(tmp_path / "out")])
        reproduce.main()

    return call


def test_what_is_made_from_a_planted_file_stands_apart_and_says_so(shell, tmp_path, capsys):
    shell("fig11", "--dataset", "criteo", "--planted", 3000, "--seeds", 1)
    folder = tmp_path / "out" / "planted" / "3000_rows"
    assert not (tmp_path / "out" / "runs").exists()
    assert {result["settings"]["dataset"] for result in results_in(folder)} == {"criteo"}
    table = folder / "figures" / "fig11_planted_criteo_fm.csv"
    assert {row["data"] for row in csv.DictReader(table.open())} == {"synthetic"}
    words = table.with_suffix(".md").read_text()
    assert words.startswith("# SYNTHETIC DATA. Figure 11: training loss, FM on synthetic 3000 "
                            "rows in Criteo's format")
    assert table.with_suffix(".png").exists()
    shell("table3", "--dataset", "criteo", "--planted", 3000, "--seeds", 1)
    line = next(line for line in (folder / "figures"
                                  / "table3_planted_criteo.md").read_text().splitlines()
                if line.startswith("| rows |"))
    assert line == "| rows | 3,000 | - |  |  |  |  |"  # nothing of the paper's stands beside it
    capsys.readouterr()
    shell("table3", "--dataset", "criteo", "--planted", 3000, "--seeds", 1)
    assert capsys.readouterr().out.splitlines()[0] == "nothing is missing"


def test_the_report_marks_planted_pages_and_keeps_real_ones_clear_of_them(shell, tmp_path):
    shell("table3", "--dataset", "criteo", "--planted", 3000, "--seeds", 1)
    shell("table3", "--dataset", "criteo", "--planted", 2000, "--planted-values", 9, "--seeds", 1)
    shell("report")
    content = (tmp_path / "out" / "report.html").read_text()
    for kind in ("3000 rows", "2000 rows 9 values"):
        title = f"SYNTHETIC DATA. Table 3: the data of synthetic {kind} in Criteo&#x27;s format"
        assert content.count(title) >= 2  # contents, heading
    assert len(set(re.findall('id="(.*?)"', content))) == len(re.findall('href="#(.*?)"',
                                                                         content)) >= 2
    assert "> Table 3: the data of Criteo<" not in content.replace(">Table", "> Table")


def test_a_tuning_reads_the_choices_of_its_own_data(shell, tmp_path, capsys):
    for folder, width in (("", 7), ("planted/3000_rows/", 4)):
        path = tmp_path / "out" / f"{folder}tuned" / "criteo_fm_uniform.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        point = {"latent_dim": width, "l2_regularization": 1e-5}
        path.write_text(json.dumps({"chosen": [{"settings": point, "run_id": "a",
                                                "num_embedding_params": 1}]}))
    shell("tune", "--embedding", "uniform", "--dataset", "criteo", "--model", "deepfm",
          "--settings-of", "fm", "--planted", 3000, "--dry-run")
    assert "deepfm uniform latent_dim=4 " in capsys.readouterr().out


def test_tickets_of_a_short_planted_file_are_of_the_budgets_that_fit(shell, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "criteo",
                        {**QUICK, "dataset": "criteo", "candidate_p": OWN})
    words = ("--dataset", "criteo", "--planted", 3000, "--planted-values", 10, "--seeds", 1)
    shell("fig8", *words)
    shell("compare", *words, "--scheme", "pep", "--scheme", "magnitude")
    results = results_in(tmp_path / "out" / "planted" / "3000_rows_10_values")
    tickets = [result["num_embedding_params"] for result in results if result["stage"] == "retrain"]
    assert sorted(tickets) == [1067, 1067, 1067]  # the next budget is 10,000, the whole table 3,272


def test_a_dry_run_writes_no_file(shell, tmp_path, capsys):
    shell("fig11", "--dataset", "criteo", "--planted", 3000, "--dry-run", "--seeds", 1)
    assert "2 runs missing:" in capsys.readouterr().out
    assert not (tmp_path / "out" / "planted" / "3000_rows" / "raw").exists()


def test_a_planted_file_where_the_real_one_belongs_is_refused(shell, tmp_path):
    raw_planted.write("criteo", 50, tmp_path / "raw" / "criteo" / "train.txt")
    with pytest.raises(ValueError,
                       match=r"train\.txt is a planted file, not criteo's own; .* give --planted"):
        shell("fig11", "--dataset", "criteo")


@pytest.mark.parametrize("name", synthetic_data.LAYOUTS)
def test_a_file_of_other_rows_passes_for_real(name, tmp_path):
    layout = synthetic_data.LAYOUTS[name]
    raw_planted.write(name, 50, tmp_path / layout.file_names[0], seed=7)
    synthetic_data.require_real(RunContext(data=str(tmp_path)), name)


def test_data_sets_that_are_not_there_are_skipped_with_a_line_each(shell, tmp_path, capsys,
                                                                   monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())
    monkeypatch.setitem(PRESETS, "movielens", {**tiny.SETTINGS, "candidate_p": [300]})
    shell("table3", "--dataset", "all", "--seeds", 1)
    said = capsys.readouterr().out
    for name in ("criteo", "avazu"):
        assert f"skipped: {name} is not there" in said
        assert f"missing: any run on {name.capitalize()}" in said
    assert (tmp_path / "out" / "figures" / "table3_movielens.md").exists()


@pytest.mark.parametrize(("words", "message"), [
    (("--dataset", "movielens"),
     "--planted stands in for criteo and avazu; movielens has no planted file"),
    (("--dataset", "criteo", "--data", "x"),
     "--planted makes its own file, --data x names another")])
def test_what_cannot_be_planted_is_refused(shell, words, message):
    with pytest.raises(ValueError, match=message):
        shell("fig11", "--planted", 3000, *words)


def test_few_values_stand_in_a_folder_of_their_own(tmp_path):
    context = synthetic_data.planted(RunContext(out=tmp_path), "criteo", 500, 7, write=True)
    assert context.out == tmp_path / "planted" / "500_rows_7_values"
    codes = {line.split("\t")[14] for line in Path(context.data).read_text().splitlines()}  # C1
    assert len(codes) == 7


def test_few_values_without_a_planted_file_are_refused(shell):
    with pytest.raises(ValueError, match="--planted-values is of a planted file"):
        shell("fig11", "--dataset", "criteo", "--planted-values", 9)


def test_a_planted_file_of_no_rows_is_refused(shell):
    with pytest.raises(ValueError, match="rows must be from 1 to"):
        shell("fig11", "--dataset", "criteo", "--planted", 0)
