"""Runs to folders to scores of raw rows, with runs of the tiny data set."""

import bz2
import csv
import gzip
import json
import logging
import lzma
import os
import shutil
import sqlite3
from argparse import ArgumentParser

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from compression.afm import command as afm
from compression.afm import options as afm_options
from compression.lowbit.retraining import Retraining
from compression.umec import command as umec
from compression.umec.command import Task
from compression.umec.dynamics import Dynamics
from compression.waterline import command as waterline
from compression.waterline.shape import Shape
from models import load
from models.serving import artefact, rows
from models.serving import scorer as scorer_module
from models.serving.artefact import CHECKSUM, MANIFEST, TENSORS
from serving import export as export_module
from serving.export import export
from serving.forms import served
from serving.runs import load_trained
from utils.files import read_record, write_record

DATA = tiny.dataset()


@pytest.fixture
def out(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    return tmp_path / "runs"


def raw_rows(count=300):
    """Raw rows of the validation split, from its ids."""
    ids = DATA.split("validation")[0][:count]
    return pd.DataFrame({field.name: [int(field.value(row)) for row in ids[:, place]]
                         for place, field in enumerate(DATA.vocabulary.fields)}), ids


def scores_of(run_id, context, ids):
    trained = load_trained(run_id, context)
    with torch.no_grad():
        return torch.sigmoid(trained.model(torch.from_numpy(np.array(ids)))).numpy()


def trained(out, **settings):
    return tiny.train(out, **settings)["run_id"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run and the folder that it was exported to, to be read alone."""
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        run_id = trained(out, embedding="uniform", model="deepfm")
        export(run_id, out / "home", context=tiny.context(out))
    return out


@pytest.fixture
def home(exported, tmp_path, monkeypatch):
    """An exported model, which may be spoilt; its run lies beside it, in `runs`."""
    tiny.install(monkeypatch, DATA)
    shutil.copytree(exported / "home", tmp_path / "home")
    shutil.copytree(exported / "runs", tmp_path / "runs" / "runs")
    return tmp_path / "home"


@pytest.mark.parametrize("settings", [
    {"model": "linear"}, {"embedding": "mgqe", "mgqe_subspaces": 2, "mgqe_centroids": 8},
    {"embedding": "mde", "mde_blocks": 2, "model": "deepfm"},
    {"embedding": "darts", "darts_widths": [1, 4], "darts_epochs": 1},
    {"embedding": "hash", "hash_rows": 20, "model": "autoint"}, {"embedding": "qr"},
    {"embedding": "tt", "tt_rank": 2}], ids=str)
def test_raw_rows_score_as_the_run_does(out, tmp_path, settings):
    run_id = trained(out, **{"embedding": "uniform", **settings})
    export(run_id, tmp_path / "home", context=tiny.context(out))
    table, ids = raw_rows()
    wanted = scores_of(run_id, tiny.context(out), ids)
    scorer = load(tmp_path / "home")
    np.testing.assert_allclose(scorer.score(table), wanted, atol=2e-6)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_rounding_of_the_run_itself_is_not_held_against_the_export(out, tmp_path, monkeypatch,
                                                                       wrong):
    run_id = trained(out, embedding="uniform", latent_dim=8)

    def large(*places):
        """With vectors whose squares nearly cancel."""
        made = load_trained(*places)
        made.model.embedding.weight.data += 2
        made.model.linear.layer.bias.data -= 4 * 8 * 6
        return made

    def served_wrongly(model, values):
        made, new_ids = served(model, values)
        made.parts[0].bias += 1e-3 * wrong
        return made, new_ids

    monkeypatch.setattr(export_module, "load_trained", large)
    monkeypatch.setattr(export_module, "served", served_wrongly)
    if wrong:
        with pytest.raises(ValueError, match="cannot be exported in float32"):
            export(run_id, tmp_path / "home", context=tiny.context(out))
        return
    parity = export(run_id, tmp_path / "home", context=tiny.context(out)).manifest["parity"]
    assert parity["rounding_of_the_run"] > 1e-6  # what the export alone would be allowed


@pytest.mark.parametrize("width", [None, 5])
def test_a_compressed_model_comes_home(out, tmp_path, width):
    dense = trained(out, embedding="uniform", latent_dim=8, model="deepfm")
    packed = waterline.compress(
        waterline.load_uniform(dense, tiny.context(out)), Shape(width=width), [700],
        Retraining(1, 0.02))[0]
    table, ids = raw_rows()
    made = export(packed["run_id"], tmp_path / "a", context=tiny.context(out))
    assert made.manifest["model"]["table"]["kind"] == "packed"
    assert made.manifest["bytes"]["table"] <= 700
    wanted = scores_of(packed["run_id"], tiny.context(out), ids)
    np.testing.assert_allclose(load(tmp_path / "a").score(table), wanted, atol=2e-6)


def test_rows_come_in_every_form(home):
    scorer, (table, _) = load(home), raw_rows(20)
    wanted = scorer.score(table)
    columns = {name: table[name].tolist() for name in table}
    for same in (table.assign(label=1)[["label", *reversed(table.columns)]], columns,
                 table.to_dict("records"), table.to_numpy(), table.astype(str).to_numpy().tolist(),
                 {name: np.array(values) for name, values in columns.items()},
                 {name: torch.tensor(values) for name, values in columns.items()},
                 table[table.columns[::-1]].to_records(index=False),
                 list(table[table.columns[::-1]].itertuples(index=False)),
                 [row for _, row in table.iterrows()]):
        np.testing.assert_array_equal(scorer.score(same), wanted)
    for first in ({name: values[0] for name, values in columns.items()}, table.iloc[0],
                  {name: torch.tensor(values[0]) for name, values in columns.items()}):
        np.testing.assert_allclose(scorer.score(first), wanted[:1], rtol=1e-6)
    with pytest.raises(ValueError, match="row 1 must have its values by name"):
        scorer.score([*table[:1].to_dict("records"), None])
    with pytest.raises(ValueError, match="row 1: the rows lack 1 of the model's 4 columns: item"):
        scorer.score([{"item": 1, **row} if place != 1 else row for place, row in enumerate(
            table.drop(columns="item").to_dict("records"))])
    assert scorer.score(table[:0]).shape == (0,)


def test_an_unseen_value_has_a_score_and_a_missing_column_has_a_name(home, caplog):
    scorer, (table, _) = load(home), raw_rows(3)
    assert np.isfinite(scorer.score(table.assign(user="nobody"))).all()
    with pytest.raises(ValueError, match=r"lack 1 of .* 4 columns: genre \(near 'genre': genres"):
        scorer.score(table.rename(columns={"genre": "genres"}))
    with pytest.raises(ValueError, match="the rows have two columns 'user'"):
        scorer.score(pd.concat([table, table[["user"]]], axis=1))
    assert np.isnan(scorer.score({name: [[1], [2]] for name in table})).all()
    assert "2 of 2 rows cannot be scored: row 0: a cell must hold one value, got [1]" in caplog.text
    with pytest.raises(ValueError, match="row 1 must be of 4 values"):
        scorer.score([[1, 2, 3, 4], [1, 2]])
    with pytest.raises(TypeError, match="got a int"):
        scorer.score(7)


@pytest.mark.parametrize(("name", "separator"), [("r.csv", ","), ("r.tsv", "\t"), ("r.csv.gz", ","),
                                                 ("r.parquet", "")])
def test_files_score_as_rows_in_memory(home, tmp_path, name, separator, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 100)  # lines that lie across blocks
    monkeypatch.setattr(rows, "ROWS", 50)
    scorer, (table, _) = load(home), raw_rows(130)
    path = tmp_path / name
    if separator:
        table.to_csv(path, sep=separator, index=False)
    else:
        table.to_parquet(path)
    seen = []
    done = scorer.score_file(path, tmp_path / "out.csv", seen.append)
    found = pd.read_csv(tmp_path / "out.csv")
    assert (done.rows, done.bad, sum(seen)) == (130, 0, 130)
    assert found["row"].tolist() == list(range(130))
    np.testing.assert_allclose(found["probability"], scorer.score(table), rtol=1e-6)


@pytest.mark.parametrize(("name", "separator"), [("r.csv", ";"), ("r.csv", "|"), ("r.txt", ",")])
def test_a_file_is_read_by_the_separator_of_the_training_table(home, tmp_path, name, separator):
    scorer, (table, _) = load(home), raw_rows(20)
    expected = scorer.score(table)
    scorer.manifest["raw"]["separator"] = separator
    table.to_csv(tmp_path / name, sep=separator, index=False)
    done = scorer.score_file(tmp_path / name, tmp_path / "out.csv")
    assert (done.rows, done.bad) == (len(table), 0)
    scores = pd.read_csv(tmp_path / "out.csv")["probability"]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "pack"), [("r.csv.bz2", bz2.compress),
                                            ("r.csv.xz", lzma.compress)])
def test_a_packing_that_is_not_read_is_named(home, tmp_path, name, pack):
    scorer, (table, _) = load(home), raw_rows(20)
    (tmp_path / name).write_bytes(pack(table.to_csv(index=False).encode()))
    with pytest.raises(ValueError, match=rf"{name} is packed by \w+; unpack it, or pack it by "):
        scorer.score_file(tmp_path / name, tmp_path / "out.csv")


def test_one_value_beside_a_list_is_told_so(home):
    scorer = load(home)
    names = scorer.columns
    mixed = dict.fromkeys(names, "x") | {names[1]: ["a", "b"]}
    with pytest.raises(ValueError, match=f"column {names[0]!r} is one value and {names[1]!r} has "
                                         f"several: give lists for all"):
        scorer.score(mixed)


@pytest.mark.parametrize("quotes", [False, True])
def test_bad_lines_are_counted_and_named(home, tmp_path, quotes):
    scorer, (table, _) = load(home), raw_rows(9)
    lines = table.to_csv(index=False, quoting=1 if quotes else 0).splitlines()
    lines[3] = "1,2"
    (tmp_path / "r.csv").write_text("\r\n".join(lines))  # and no line end behind the last
    done = scorer.score_file(tmp_path / "r.csv", tmp_path / "out.csv")
    assert (done.rows, done.bad) == (9, 1)
    assert done.examples == ("row 2: 2 cells in place of 4",)
    found = pd.read_csv(tmp_path / "out.csv")["probability"]
    assert found.isna().tolist() == [row == 2 for row in range(9)]


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"), ("user,item\n1,2\n", "lack 2 of the model's 4 columns: genre, gender"),
    ("1,2,3,4\n", "The first line must name the columns"),
    ("user,item,genre,gender\n1\n", "none of its 1 rows could be scored: row 0: 1 cells"),
    ("user,item,genre,gender\n", "r.csv has no rows"),
    ("user,user,item,genre\n", "lack 1 of the model's 4 columns: gender"),
    ("user,user,item,genre,gender\n", "the rows have two columns 'user'")])
def test_files_that_cannot_be_scored_leave_nothing(home, tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(home).score_file(tmp_path / "r.csv", tmp_path / "out.csv")
    assert not [path for path in tmp_path.iterdir() if "out.csv" in path.name]


def test_scores_are_not_written_over_what_is_needed(home, tmp_path):
    path = tmp_path / "r.csv"
    raw_rows(5)[0].to_csv(path, index=False)
    for out, message in ((path, "holds the raw rows"), (tmp_path / "home" / ".." / "r.csv", "raw"),
                         (home / "manifest.json", "a file of an exported model"),
                         (home / "vocabulary" / "ids.npy", "a file of an exported model"),
                         (tmp_path, "is a folder")):
        before = {each: each.read_bytes() for each in (path, home / "manifest.json",
                                                       home / "vocabulary" / "ids.npy")}
        with pytest.raises(ValueError, match=message):
            load(home).score_file(path, out)
        assert before == {each: each.read_bytes() for each in before}
    done = load(home).score_file(path, home / "scores.csv")  # beside the model's files
    assert (done.rows, (home / "scores.csv").stat().st_mode & 0o777) == (5, 0o666 & ~umask())


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_is_read_by_its_beginning_and_not_by_its_name(home, tmp_path):
    scorer, (table, _) = load(home), raw_rows(20)
    expected = scorer.score(table)
    text = table.to_csv(index=False).encode()
    table.to_parquet(tmp_path / "r.PARQUET")
    (tmp_path / "packed.csv").write_bytes(gzip.compress(text))
    (tmp_path / "R.CSV.GZ").write_bytes(gzip.compress(text))
    for mark in ";|\t,":  # whatever stood between the cells of the training table
        table.to_csv(tmp_path / f"{ord(mark)}.csv", sep=mark, index=False)
    for path in [*tmp_path.glob("*.[cCpP]*"), tmp_path / "R.CSV.GZ"]:
        done = scorer.score_file(path, tmp_path / "scores.txt")
        assert (done.rows, done.bad) == (len(table), 0), path
        scores = pd.read_csv(tmp_path / "scores.txt")["probability"]
        np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(("content", "why"), [
    ("user,item,genre,gender\n1,2,3,4\n".encode("utf-16"), "is UTF-16 text; turn it into UTF-8"),
    (b"user,item,genre,gender\r1,2,3,4\r", "a line must end in a newline"),
    (b'user,item,genre,gender\n1,2,3,4\n1,"2\n' + b"1,2,3,4\n" * 300,
     "a cell of 100 lines or more: a quote is opened"),
    (b'user,item,genre,gender\n1,2,3,"4 inch\n' + b"1,2,3,4\n" * 60,
     "ends inside a cell in quotes, which begins '4 inch"),
    (b'user,item,genre,gender\n1,2,3,4\n1,2,3,"4', "ends inside a cell in quotes")])
def test_text_that_cannot_be_scored_is_named(home, tmp_path, content, why):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        load(home).score_file(tmp_path / "r.csv", tmp_path / "out.csv")


def test_columns_may_have_numbers_for_names(home):
    found = rows.columns_of(pd.DataFrame([[5, 7]], columns=[1, 0]), ["0", "1"])
    assert {name: list(values) for name, values in found.values.items()} == {"0": [7], "1": [5]}


def test_a_quote_that_is_never_closed_is_named(home, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('user,item,genre,gender\n1,"2\n' + "1,2,3,4\n" * 20_000)
    with pytest.raises(ValueError, match=r"r.csv: a cell in quotes .* opened and not closed, or"):
        load(home).score_file(path, tmp_path / "out.csv")


def test_a_value_that_is_no_utf_8_is_unknown_with_quotes_and_without(home, tmp_path):
    head, found = b"user,item,genre,gender\n", []
    for cell in (b"\xff\xfe", b'"\xff\xfe"', b"nobody"):
        (tmp_path / "r.csv").write_bytes(head + cell + b",2,3,4\n")
        load(home).score_file(tmp_path / "r.csv", tmp_path / "out.csv")
        found.append((tmp_path / "out.csv").read_text())
    assert len(set(found)) == 1


@pytest.mark.parametrize(("name", "kind"), [("r.parquet", "Parquet"), ("r.csv.gz", "gzip"),
                                            ("cut.csv.gz", "gzip")])
def test_a_damaged_file_of_rows_is_named(home, tmp_path, name, kind):
    path = tmp_path / name
    content = b"user,item\n1,2\n"
    if name.startswith("cut"):
        content = gzip.compress(raw_rows(200)[0].to_csv(index=False).encode())[:-9]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no whole {kind} file"):
        load(home).score_file(path, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_scores_are_not_written_over_a_folder(home, tmp_path):
    raw_rows(3)[0].to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ValueError, match="home is a folder; name the file"):
        load(home).score_file(tmp_path / "r.csv", home)


@pytest.mark.parametrize("file", [TENSORS, MANIFEST, "vocabulary/ids.npy"])
def test_a_flipped_bit_is_found(home, file):
    content = bytearray((home / file).read_bytes())
    content[-40] ^= 1
    (home / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"checksum is wrong|cannot be read"):
        load(home)


@pytest.mark.parametrize("file", [TENSORS, MANIFEST, "vocabulary/text.npy"])
def test_a_missing_file_is_named(home, file):
    (home / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load(home)


@pytest.mark.parametrize("text", ["[" * 99_999, '{"format": Infinity}'])
def test_brackets_nested_deep_and_no_numbers_are_refused_by_name(home, text):
    (home / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=f"{MANIFEST} cannot be read"):
        load(home)


def test_a_newer_format_is_refused(home):
    manifest = json.loads((home / MANIFEST).read_text())
    (home / MANIFEST).write_text(json.dumps({**manifest, "format": artefact.FORMAT + 1}))
    with pytest.raises(ValueError, match="is of format 2, this version of pep reads up to 1"):
        load(home)


def test_runs_that_have_nothing_to_export(out, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run 'abc'"):
        export("abc", tmp_path / "home", context=tiny.context(out))
    run_id = trained(out, embedding="uniform")
    (out / "runs" / "abcdef").mkdir()
    with pytest.raises(FileNotFoundError, match="run abcdef is not finished"):
        export("abc", tmp_path / "home", context=tiny.context(out))
    path = out / "runs" / run_id / "result.json"
    result = read_record(path)
    for change, message in (({"stage": "search"}, "is a search, which has no model to serve"),
                            ({"identity": {"algorithm_version": 0}}, "another version of this"),
                            ({"manifest": "other"}, "trained on other data")):
        write_record(path, {**result, **change})
        with pytest.raises(ValueError, match=message):
            export(run_id, tmp_path / "home", context=tiny.context(out))
    assert not (tmp_path / "home").exists()


def test_nothing_is_written_where_scores_differ(out, tmp_path, monkeypatch):
    run_id = trained(out, embedding="uniform")
    monkeypatch.setattr("models.serving.parts.FirstOrder.forward", lambda *given: torch.zeros(1))
    with pytest.raises(ValueError, match="cannot be exported in float32: on its validation rows"):
        export(run_id, tmp_path / "home", context=tiny.context(out))
    assert not (tmp_path / "home").exists()


def test_a_copy_that_does_not_fit_is_refused_with_its_size(out, tmp_path, monkeypatch):
    run_id = trained(out, embedding="uniform")
    wanted = load_trained(run_id, tiny.context(out)).model.state_dict().values()

    def refuse(need, what):
        raise ValueError(f"{what}: {need}")

    monkeypatch.setattr(export_module, "require_memory", refuse)
    size = 12 * sum(value.numel() for value in wanted)
    with pytest.raises(ValueError, match=f"a copy of the model in double precision, .*: {size}$"):
        export(run_id, tmp_path / "home", context=tiny.context(out))
    assert not (tmp_path / "home").exists()


def test_a_folder_with_something_in_it_is_left_alone(home, out):
    before = sorted(path.name for path in home.iterdir())
    run_id = json.loads((home / MANIFEST).read_text())["run_id"]
    with pytest.raises(FileExistsError, match="not empty"):
        export(run_id, home, context=tiny.context(out))
    assert sorted(path.name for path in home.iterdir()) == before


def test_small_types_are_smaller_and_say_how_near_they_are(out, tmp_path):
    run_id = trained(out, embedding="uniform", latent_dim=8)
    sizes = {}
    for values in ("float32", "float16", "int8"):
        made = export(run_id, tmp_path / values, values, tiny.context(out)).manifest
        sizes[values] = made["bytes"]["table"]
        assert abs(made["parity"]["auc"] - made["parity"]["auc_exported"]) < 0.01
        assert made[CHECKSUM]
        shutil.rmtree(tmp_path / values)
    assert sizes["float32"] == 2 * sizes["float16"] > 3 * sizes["int8"]


def test_without_onnx_the_error_says_what_to_install(out, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
        export("any", tmp_path / "home", with_onnx=True)


def test_a_warning_names_bad_rows(home, caplog):
    with caplog.at_level(logging.WARNING, "pep"):
        scorer = load(home)
        columns = rows.columns_of(raw_rows(3)[0], scorer.columns)
        columns.bad[1] = "of no use"
        assert np.isnan(scorer.score_columns(columns)).tolist() == [False, True, False]


@pytest.mark.parametrize("cell", [b"\xff", ["a", "b"], "\ud800"])
def test_one_cell_that_cannot_be_read_is_one_row_without_a_score(home, caplog, cell):
    scorer, (table, _) = load(home), raw_rows(3)
    listed = table.to_dict("records")
    expected = scorer.score(listed)
    listed[1] = {**listed[1], "genre": cell}
    with caplog.at_level(logging.WARNING, "pep"):
        found = scorer.score(listed)
        assert caplog.text.count("1 of 3 rows cannot be scored: row 1") == 1
        assert scorer.encode(listed)[0].shape == (3, 4)
        assert caplog.text.count("1 of 3 rows cannot be scored: row 1") == 2
    assert np.isnan(found).tolist() == [False, True, False]
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_ids_of_rows_and_scores_of_ids(home):
    scorer, (table, _) = load(home), raw_rows(30)
    ids, numbers = scorer.encode(table)
    assert numbers is None
    np.testing.assert_array_equal(scorer.score_ids(ids), scorer.score(table))
    allowed = scorer.model.table.num_rows
    for wrong in (-1, allowed + 1):
        with pytest.raises(IndexError, match=f"ids must be in 0 .. {allowed}, got .*{wrong}"):
            scorer.score_ids(np.where(ids == ids[0, 0], wrong, ids))
    with pytest.raises(ValueError, match=r"ids must be \(rows, 4\), got \(30, 3\)"):
        scorer.score_ids(ids[:, :3])


def test_the_command_of_afm_is_among_what_comes_home(out, tmp_path):
    dense = trained(out, embedding="uniform", latent_dim=8, model="deepfm")
    options = ArgumentParser()
    afm_options.add_options(options)
    args = options.parse_args(["--run", dense, "--emb-rank", "2",
                               "--finetune-epochs", "0", "--out", str(out)])
    result = afm.work(args)[0][0]
    export(result["run_id"], tmp_path / "home", context=tiny.context(out))
    table, ids = raw_rows()
    wanted = scores_of(result["run_id"], tiny.context(out), ids)
    np.testing.assert_allclose(load(tmp_path / "home").score(table), wanted, atol=2e-6)


@pytest.mark.parametrize("task", [Task(0.5), Task(0.7, groups="field_dim",
                                                  dynamics=Dynamics(joint=False))], ids=str)
def test_a_model_that_umec_has_shrunk_comes_home(out, tmp_path, task):
    base = tiny.train(out, model="dlrm", embedding="uniform", arch_mlp_top=[8, 6], optimizer="sgd",
                      lr=0.1, l2_regularization=0.0, l2_penalty=0.0)["run_id"]
    loaded = umec.load(base, task.groups, tiny.context(out))
    result = umec.compress(loaded, task, tiny.context(out))
    widths = set(result["compression"]["widths"].values())
    assert widths - {4}  # some field is narrower, or gone
    made = export(result["run_id"], tmp_path / "home", context=tiny.context(out)).manifest
    assert made["bytes"]["table"] == 4 * result["num_embedding_params"]
    assert made["parity"]["largest_difference"] <= 1e-6
    table, ids = raw_rows()
    wanted = scores_of(result["run_id"], tiny.context(out), ids)
    np.testing.assert_allclose(load(tmp_path / "home").score(table), wanted, atol=1e-6)


@pytest.mark.parametrize("header", [None, "all", "one missing", "other names"])
def test_rows_of_a_layout_without_a_header(home, tmp_path, header):
    """As Criteo's: columns by position, or by a header that is there all the same."""
    scorer, (table, _) = load(home), raw_rows(5)
    names = ["label", *table.columns]
    scorer.manifest["raw"] = {"separator": "\t", "header": False, "columns": names,
                              "label": "label"}
    wanted = scorer.score(table)
    table = table[table.columns[1:]] if header == "one missing" else table
    shown = [f"x{name}" for name in table.columns] if header == "other names" else True
    table.to_csv(tmp_path / "r.tsv", sep="\t", index=False, header=shown if header else False)
    if header == "one missing":
        with pytest.raises(ValueError, match="the rows lack 1 of the model's 4 columns: user"):
            scorer.score_file(tmp_path / "r.tsv", tmp_path / "out.csv")
        return
    done = scorer.score_file(tmp_path / "r.tsv", tmp_path / "out.csv")
    assert done.rows == 5 + (header == "other names")
    found = pd.read_csv(tmp_path / "out.csv")["probability"]
    np.testing.assert_allclose(found[-5:], wanted, rtol=1e-6)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_one_row_without_a_header_is_one_row(home, tmp_path, end, quote):
    scorer, (table, _) = load(home), raw_rows(1)
    scorer.manifest["raw"] = {"separator": "\t", "header": False, "columns": list(table.columns),
                              "label": None}
    cells = [f"{quote}{value}{quote}" for value in table.iloc[0]]
    (tmp_path / "r.tsv").write_text("\t".join(cells) + end)
    done = scorer.score_file(tmp_path / "r.tsv", tmp_path / "out.csv")
    assert (done.rows, done.bad) == (1, 0)
    found = pd.read_csv(tmp_path / "out.csv")["probability"]
    np.testing.assert_allclose(found, scorer.score(table), rtol=1e-6)


def test_scores_are_written_as_python_writes_them():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(2000), 10 ** -rng.uniform(0, 12, 2000),
                             1 - 10 ** -rng.uniform(0, 9, 500), 0.1 ** np.arange(12.0),
                             [0.5, 0, 1, np.nan, 0.09999999999, 0.99999999, 1e-4, 9.99999999e-5,
                              1e-40, 0.25]]).astype(np.float32)
    text = bytes(scorer_module._lines(scores, 98)).decode()
    wanted = [f"{row},\n" if score != score else f"{row},{score:.7g}\n"
              for row, score in enumerate(scores.tolist(), 98)]
    found = text.splitlines(keepends=True)
    assert len(found) == len(wanted)
    other = [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]]
    assert len(other) < 5  # halves may be rounded up and not to even
    for one, two in other:
        np.testing.assert_allclose(float(one.split(",")[1]), float(two.split(",")[1]), rtol=2e-7)


@pytest.mark.parametrize("form", ["frame", "file", "quoted file"])
def test_a_column_of_which_nothing_is_known_is_named_once(home, caplog, form):
    scorer, (table, _) = load(home), raw_rows(40)
    table["user"] = table["user"].map("u{:03d}".format)
    path = home.parent / "new.csv"
    table.to_csv(path, index=False, quoting=csv.QUOTE_ALL if form == "quoted file" else 0)
    for _ in range(2):
        if form == "frame":
            assert np.isfinite(scorer.score(table)).all()
        else:
            assert scorer.score_file(path, home.parent / "out.csv").bad == 0
    [record] = caplog.records
    assert record.getMessage().startswith("the model knows none of the 40 values of column 'user', "
                                          f"the first of which is read as {table['user'][0]!r}")


def test_database_rows_are_read_by_their_names(home):
    scorer, (table, _) = load(home), raw_rows(30)
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    table[table.columns[::-1]].to_sql("clicks", connection, index=False)
    rows = connection.execute("select * from clicks").fetchall()
    np.testing.assert_array_equal(scorer.score(rows), scorer.score(table))


def test_columns_may_be_iterators_and_cells_may_not(home, caplog):
    scorer, (table, _) = load(home), raw_rows(30)
    columns = {name: iter(table[name].tolist()) for name in table}
    np.testing.assert_array_equal(scorer.score(columns), scorer.score(table))
    rows = table.head(2).to_dict("records")
    found = scorer.score([{**rows[0], "user": iter([7])}, rows[1]])
    assert np.isnan(found).tolist() == [True, False]
    assert "row 0: a cell must hold one value" in caplog.text
    with pytest.raises(ValueError, match="column 'user' is one value and 'item' has several"):
        scorer.score({**{name: table[name].tolist() for name in table}, "user": 7})


@pytest.mark.parametrize("quotes", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_blank_lines_are_passed_over_as_in_training(home, monkeypatch, quotes):
    scorer, (table, _) = load(home), raw_rows(30)
    monkeypatch.setattr(rows, "BLOCK", 50)
    head, *lines = table.to_csv(index=False, quoting=quotes).splitlines(keepends=True)
    path, wanted = home.parent / "rows.csv", scorer.score(table)
    path.write_text(head + "\n" + "\r\n\n".join(lines) + "\n\n")
    done = scorer.score_file(path, home.parent / "scores.csv")
    assert (done.rows, done.bad) == (30, 0)
    found = pd.read_csv(home.parent / "scores.csv")["probability"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
