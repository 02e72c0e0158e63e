"""The campaign counts what it should, goes on where it was, and its short form finds no fault."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture import files, mutations, report, trials
from benchmarks.torture.files import Kind
from benchmarks.torture.kills import differences
from benchmarks.torture.trials import Outcome

ROOT = Path(__file__).resolve().parents[2]


def test_trials_are_counted_and_go_on_where_they_were(tmp_path):
    seeds = []

    def trial(seed, folder):
        seeds.append(seed)
        if seed == 3:
            raise KeyError("x")
        return Outcome("odd" if seed % 2 else "even", "wrong" if seed == 2 else "")

    trials.run("kind", trial, 3, tmp_path)
    done = trials.run("kind", trial, 5, tmp_path)
    assert seeds == [0, 1, 2, 3, 4]
    assert done["outcomes"] == {"even": 3, "odd": 1, "traceback": 1}
    assert done["faults"] == 2
    assert [fault["seed"] for fault in done["first_faults"]] == [2, 3]
    assert "KeyError: 'x' (test_torture.py:" in done["first_faults"][1]["fault"]
    assert json.loads((tmp_path / "kind.json").read_text()) == done


def reads(path):
    return json.loads(path.read_text())


def says_nothing(path):
    raise ValueError("no")


def crashes(path):
    raise KeyError("x")


@pytest.mark.parametrize(("read", "kind"), [
    (reads, "changed"), (lambda path: {"a": 1}, "read as written"), (lambda path: None,
                                                                     "made again")])
def test_changed_content_that_is_taken_is_a_fault(tmp_path, read, kind, monkeypatch):
    path = tmp_path / "in" / "a.json"
    path.parent.mkdir()
    path.write_text('{"a": 1}')
    change = ("change", lambda whole, rng: b'{"a": 2}')
    monkeypatch.setitem(mutations.BY_FORM, "json", (named(*change),))
    outcome = files._tried("a", Kind(path, "json", read), np.random.default_rng(0), tmp_path)
    assert outcome.kind == kind
    assert bool(outcome.fault) == (kind == "changed")
    assert reads(path) == {"a": 1}  # put back


def named(name, change):
    change.__name__ = name
    return change


@pytest.mark.parametrize(("fails", "words"), [(says_nothing, "no file is named"),
                                              (crashes, "KeyError")])
def test_a_refusal_without_the_file_and_a_crash_are_faults(tmp_path, fails, words, monkeypatch):
    path = tmp_path / "in" / "a.json"
    path.parent.mkdir()
    path.write_text('{"a": 1}')
    monkeypatch.setitem(mutations.BY_FORM, "json", (named("cut", lambda whole, rng: b"{"),))

    def read(path):
        return {"a": 1} if path.read_text() == '{"a": 1}' else fails(path)

    assert words in files._tried("a", Kind(path, "json", read), np.random.default_rng(0),
                                 tmp_path).fault


def test_differences_name_what_is_missing_stray_and_other():
    one, other = {"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5}
    assert differences(one, other) == "missing: a; stray: d; other content: c"
    assert differences(one, dict(one)) == ""


def test_every_fault_that_was_mended_has_a_test():
    tests, faults = {}, report.mended(report.PAGE.read_text())
    for _, test in faults:
        file, _, name = test.partition("::")
        if file not in tests:
            tests[file] = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text()))
                           if isinstance(node, ast.FunctionDef)}
        assert name in tests[file], test
    assert {part for part, _ in faults} <= set(report.WHAT)
    assert len(faults) > 20


def test_the_page_is_written_from_the_counts(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- campaign -->\nformer counts\n"
                    "<!-- end of campaign -->\n\n"
                    "| rows | A cell. | `tests/test_a.py::test_b` |\nafter\n")
    monkeypatch.setattr(report, "PAGE", page)
    with pytest.raises(FileNotFoundError, match="there are no counts"):
        report.write(tmp_path)
    trials.run("rows", lambda seed, folder: Outcome("fine"), 7, tmp_path)
    report.write(tmp_path)
    text = page.read_text()
    assert "| rows | " in text
    assert "| 7 | 7 | 1 | 0 |" in text
    assert "former counts" not in text
    assert text.endswith("after\n")


def test_the_shipped_page_has_a_place_for_the_counts():
    assert report.PLACE.search(report.PAGE.read_text())
    assert set(report.WHAT) == set(torture.PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", torture.PARTS)
def test_the_short_form_finds_no_fault(tmp_path, part):
    if torture.PARTS[part].short:
        # in a process of its own: it forks, and tests before it may have left threads, which do
        # not outlive a fork
        command = [sys.executable, "-m", "benchmarks.torture", part, "--short", "--out", tmp_path]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
