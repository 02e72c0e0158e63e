"""Results are found, and what cannot be read is said."""

import json

import pytest

from reports.collect import NEEDED, results_in


def put(out, name, text):
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)


def test_results_come_in_the_order_of_run_ids(tmp_path, capsys):
    for name in ("b", "a"):
        put(tmp_path, name, json.dumps({**dict.fromkeys(NEEDED, 0), "run_id": name}))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert [result["run_id"] for result in results_in(tmp_path)] == ["a", "b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ['{"run_id": "b", ', "[]", "7", "{}", json.dumps(dict.fromkeys(NEEDED[1:], 0))])
def test_unreadable_results_are_listed_and_the_others_kept(tmp_path, capsys, text):
    put(tmp_path, "a", json.dumps(dict.fromkeys(NEEDED, 0)))
    put(tmp_path, "b", text)
    assert len(results_in(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "1 results cannot be read" in said
    assert str(tmp_path / "runs" / "b" / "result.json") in said


def test_bytes_that_are_no_text_are_listed(tmp_path, capsys):
    put(tmp_path, "a", "")
    (tmp_path / "runs" / "a" / "result.json").write_bytes(b"\xff\xfe\x00")
    assert results_in(tmp_path) == []
    assert "result.json" in capsys.readouterr().err
