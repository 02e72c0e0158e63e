"""README and docs/: their tables are those of the records, their links lead somewhere, their
commands parse, and the README's example runs."""

import argparse
import functools
import importlib
import importlib.util
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

import models
from data.registry import DATASETS
from data.table.options import own_name
from engine.settings import parse, parse_assignment
from models.kernels.expand import PADDING
from studies import docs
from studies.figures import PAGES

ROOT = Path(__file__).parents[2]
PAGES_OF_DOCS = sorted((ROOT / "docs").glob("*.md"))
FILES = [path.relative_to(ROOT) for path in (ROOT / "README.md", *PAGES_OF_DOCS)]
# of reproduce.py, beside figures
COMMANDS = ("recipe", "tune", "compare", "plan", "report", "summary")
OF_OTHER_DATA = ("fig3", "fig4", "fig9", "frappe", "ids")
ELSEWHERE = ("tensorboard", "pip")  # commands that are not ours
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# tables

@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_shipped_tables_are_those_of_the_records(path):
    text = path.read_text()
    assert docs.filled(text, docs.TABLES, str(path)) == text, "run `python -m studies.docs`"


def test_every_table_is_shown_somewhere():
    text = "\n".join(path.read_text() for path in FILES)
    assert set(re.findall(r"<!-- table: (\S+) -->", text)) == set(docs.TABLES)


@pytest.mark.parametrize(("text", "message"), [
    ("<!-- table: nosuch -->\n<!-- end -->", "no table is called nosuch; there are: a"),
    ("<!-- table: a -->\n", "found 1 and 0"),
    ("<!-- table: a -->\n<!-- table: a -->\n<!-- end -->", "needs an `<!-- end -->` of its own"),
    ("<!-- end -->", "found 0 and 1")])
def test_a_broken_marker_is_named_with_its_file(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        docs.filled(text, {"a": lambda: "table"}, "docs/x.md")
    assert "docs/x.md" in str(error.value)


def test_the_command_writes_what_differs_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(docs, "TABLES", {"a": lambda: "new"})
    Path("README.md").write_text("x\n<!-- table: a -->\nold\n<!-- end -->\ny\n")
    Path("docs").mkdir()
    Path("docs/same.md").write_text("no table\n")
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    with pytest.raises(SystemExit) as stop:
        docs.main()
    assert stop.value.code == 1
    assert "old" in Path("README.md").read_text()
    assert capsys.readouterr().out == "README.md: differs from the records\n"
    monkeypatch.setattr(sys, "argv", ["docs"])
    docs.main()
    assert Path("README.md").read_text() == "x\n<!-- table: a -->\nnew\n<!-- end -->\ny\n"
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    docs.main()


def steps(model, threads, **times):
    return [{"model": model, "threads": threads, "variant": name, "ms_per_step": time,
             "samples_per_second": 1_024_000 / time} for name, time in times.items()]


def test_times_of_steps_are_of_the_newest_record_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "BENCHMARKS", tmp_path)
    old = [*steps("fm", 1, published=9.0, pep=9.0, uniform=9.0),
           *steps("fm", 2, published=12.0, pep=2.0, uniform=1.0)]
    new = [*steps("deepfm", 1, published=20.0, pep=8.0, uniform=5.0, pep_bfloat16=4.0),
           *steps("fm", 1, published=10.0, pep=1.25, uniform=1.0)]
    for day, rows in ((1, old), (2, new)):
        (tmp_path / f"2026-01-0{day}_step_amd-epyc.json").write_text(json.dumps(rows))
    assert docs.step_speed().splitlines()[2:] == [
        "| FM | 1 | float32 | 10.00 | 1.25 | 1.00 | 8.0 x | +25 % | 819,200 |",
        "| FM | 2 | float32 | 12.00 | 2.00 | 1.00 | 6.0 x | +100 % | 512,000 |",
        "| DeepFM | 1 | float32 | 20.00 | 8.00 | 5.00 | 2.5 x | +60 % | 128,000 |",
        "| DeepFM | 1 | bfloat16 | 20.00 | 4.00 |  | 5.0 x |  | 256,000 |"]


def ticket(seed, auc, rewind, budget=10):
    return {"run_id": f"{rewind}{seed}", "stage": "retrain", "seed": seed, "test_auc": auc,
            "snapshot": {"budgets": [budget], "source": "cut"},
            "settings": {"rewind": rewind, "dataset": "movielens", "model": "fm"}}


def test_tickets_rewound_alone_stand_only_where_they_have_more_seeds(monkeypatch):
    records = [ticket(1, 0.7, "embedding"), ticket(2, 0.7, "embedding"), ticket(1, 0.8, "all")]
    monkeypatch.setattr(docs, "results_in", lambda folder, planted: records)
    monkeypatch.setattr(docs, "shipped", docs.shipped.__wrapped__)
    monkeypatch.setattr(docs.choice, "of", lambda page, results, model: results)
    monkeypatch.setattr(docs.choice, "of_most_seeds", lambda page, what, runs, every: [
        run for run in runs if run["settings"]["rewind"] == "all"])
    line = docs.Line("PEP", docs.chosen("fm", lambda found: found))
    assert ([run["test_auc"] for run in line.runs], line.marks) == ([0.7, 0.7], " ‡")
    records.append(ticket(2, 0.8, "all"))
    line = docs.Line("PEP", docs.chosen("fm", lambda found: found))
    assert ([run["test_auc"] for run in line.runs], line.marks) == ([0.8, 0.8], "")


# links

def anchors(path):
    """The anchors that GitHub gives to a file's headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path, text):
    """The links of a text that lead nowhere."""
    found = []
    for link in LINK.findall(BLOCK.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        missing = not target.exists()
        if missing or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_link_leads_somewhere(path):
    assert broken(path, path.read_text()) == []


def test_the_link_checker_finds_a_missing_file_and_a_missing_anchor():
    text = "[a](README.md#start) [b](nosuch.md) ![c](README.md#nosuch) [d](#start) [e](https://x.y)"
    assert broken(Path("README.md"), text) == ["nosuch.md", "README.md#nosuch"]


# commands

class Parsed(BaseException):
    """Raised in the place of everything that a command does after it has read its arguments."""


def commands(path):
    """The commands of a file's code blocks, and those in running text."""
    text = path.read_text()
    lines = []
    for language, block in BLOCK.findall(text):
        if language != "python":
            lines += block.replace("\\\n", " ").splitlines()
    if path.name != "log.md":  # its commands are of their day
        inline = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
        lines += [" ".join(each.split()) for each in inline
                  if each.startswith(("python ", "make "))]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in dict.fromkeys(map(tuple, found)) if words]


EVERY = []
for path in FILES:
    EVERY += [(path, words) for words in commands(ROOT / path)]


def arguments_of(words, monkeypatch):
    """What a Python command reads from its command line, which is all that it does here."""
    original = argparse.ArgumentParser.parse_args

    def read(parser, *given, **more):
        raise Parsed(original(parser, *given, **more))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read)
    module = words[1] == "-m"
    name, *given = words[2:] if module else words[1:]
    monkeypatch.setattr(sys, "argv", [name, *given])
    file = Path(importlib.util.find_spec(name).origin if module else name)
    if "ArgumentParser" not in file.read_text() and "scripts." not in file.read_text():
        return argparse.Namespace()  # it has no options
    with pytest.raises(Parsed) as found:
        runpy.run_path(str(file), run_name="__main__")
    return found.value.args[0]


@functools.cache
def targets():
    """The targets of the Makefile."""
    return set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
               .split())


def check(words, monkeypatch):
    """Fail where a command of the docs could not start."""
    program, *given = words
    if program == "make":
        assert set(given) <= targets()
        return
    if program in ELSEWHERE:
        return
    if program == "torchrun":  # its own options go before the script
        start = next(place for place, word in enumerate(given) if word.endswith(".py"))
        program, *given = words = ("python", *given[start:])
    assert program == "python"
    options = arguments_of(words, monkeypatch)
    if words[1].startswith("train_"):
        script = importlib.import_module(Path(words[1]).stem).SETTINGS
        named = {name: getattr(options, name) for name in ("model", "embedding")
                 if getattr(options, name)}
        if options.own_table:
            named["dataset"] = own_name(options.data, script.get("name", ""), DATASETS)
        parse({**script, **named, **dict(map(parse_assignment, options.set))})
    if words[1] == "reproduce.py" and options.what is not None:
        assert options.what in (*COMMANDS, *PAGES, *OF_OTHER_DATA)


@pytest.mark.parametrize(("path", "words"), EVERY,
                         ids=[f"{path}: {' '.join(words)}" for path, words in EVERY])
def test_every_command_parses(path, words, monkeypatch):
    check(words, monkeypatch)


@pytest.mark.parametrize("command", [
    "make nosuch", "python train_movielens.py --nosuch", "python train_movielens.py --set nosuch=1",
    "python compress.py magnitude", "python reproduce.py fig1", "python nosuch.py", "nosuch",
    "torchrun --nproc-per-node 2 train_criteo.py --nosuch"])
def test_a_command_that_could_not_start_is_found(command, monkeypatch, capsys):
    with pytest.raises((AssertionError, SystemExit, ValueError, OSError)):
        check(tuple(command.split()), monkeypatch)


# the example

def test_the_readmes_example_runs_as_it_is_printed(monkeypatch, capsys):
    [(_, code)] = [found for found in BLOCK.findall(Path("README.md").read_text())
                   if found[0] == "python"]
    monkeypatch.setitem(sys.modules, "pep", models)
    torch.manual_seed(0)
    made = {}
    exec(compile(code, "README.md", "exec"), made)
    size, before = re.fullmatch(r"(\d+) bytes, ([\d,]+) before\n", capsys.readouterr().out).groups()
    [compact] = made["tables"].values()
    rows = int(compact.table().any(dim=1).sum())
    # values; 16 bits for each row with some and for the empty one; places; an array by width
    expected = 4 * (4_000 + PADDING) + 2 * (rows + 1) + 2 * 1_000 + 8 * 17
    assert (int(size), before) == (expected, "64,000")


def test_the_readme_is_short():
    assert len(Path("README.md").read_text().splitlines()) <= 200


def test_the_table_of_scale_reads_records_of_old_and_new_names(monkeypatch):
    def records(*names):
        return [{"model": "fm", "num_rows": 100, "variant": name, "ms_per_step": time,
                 "peak_memory_bytes": 1e9, "commit": "abcdefgh"}
                for name, time in zip(names, (9.0, 3.0, 2.0, 1.0, 2.0), strict=False)]

    tables = []
    for names in (("naive", "dense", "deferred", "uniform", "auto"),
                  ("naive", "streamed", "lazy", "uniform")):
        monkeypatch.setattr(docs, "benchmarks", lambda *which, names=names: [records(*names)])
        tables.append(docs.scale_speed())
    assert tables[0] == tables[1]
    assert "| 9.0 | 3.0 | 2.0 | 2.0 | 1.0 | 4.5 x | 2.00 x |" in tables[0]


def test_a_size_of_the_table_is_shown_as_it_was_measured_last(monkeypatch):
    def record(model, rows, variant, time):
        return {"model": model, "num_rows": rows, "variant": variant, "ms_per_step": time}

    new = [record("fm", 10, "naive", 5.0), record("fm", 10, "uniform", 1.0)]
    old = [record("fm", 10, "auto", 9.0), record("autoint", 10, "auto", 8.0),
           record("fm", 5, "auto", 7.0)]
    monkeypatch.setattr(docs, "benchmarks", lambda *which: [new, old])
    assert docs.scale_records() == [old[2], *new, old[1]]
