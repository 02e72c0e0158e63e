"""Where encoded data sets are kept: --cache, else PEP_CACHE, else data/cache."""

import sys
from types import SimpleNamespace

import pytest
import tiny
import torch
from shipped import train_avazu, train_criteo, train_movielens, train_movielens_retrain

import compress
import reproduce
from data import criteo
from data.raw import ingest
from data.synthetic import raw_planted
from engine import cli, record
from engine import run as engine_run
from engine.run import RunContext
from studies import script_options

DEFAULT = record.ROOT / "data" / "cache"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script; (exit code, standard output, standard error)."""
    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        code = 0
        try:
            cli.main(script.main)
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return call


def test_the_option_goes_before_the_variable_and_that_before_the_default(monkeypatch):
    parser = script_options.parser("", {})

    def cache(*words):
        return script_options.read(parser.parse_args(words), tiny.SETTINGS, {}, {})[1].cache

    monkeypatch.setenv("PEP_CACHE", "b")
    assert str(cache("--cache", "a")) == "a"
    assert str(cache()) == str(RunContext().cache) == "b"
    monkeypatch.delenv("PEP_CACHE")
    assert cache() == RunContext().cache == DEFAULT


COMMANDS = {
    "reproduce": (reproduce, ["fig2"]),
    "magnitude": (compress, ["magnitude", "--run", "x", "--budget", "5"]),
    "imp": (compress, ["imp", "--run", "x", "--budget", "5"]),
    "random": (compress, ["random", "--run", "x", "--budget", "5"]),
    "umec": (compress, ["umec", "--run", "x", "--budget", "0.5"]),
    "afm": (compress, ["afm", "--run", "x", "--emb-rank", "2"]),
    **{script.__name__: (script, []) for script in (train_movielens, train_criteo, train_avazu,
                                                    train_movielens_retrain)}}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_passes_its_cache_on(run, monkeypatch, name):
    script, words = COMMANDS[name]
    seen = []

    def context(**named):
        seen.append(str(named["cache"]))
        raise ValueError("far enough")

    monkeypatch.setattr(engine_run, "RunContext", context)
    monkeypatch.delenv("PEP_CACHE", raising=False)
    assert run(script, *words, "--cache", "elsewhere")[0] == 2
    assert run(script, *words)[0] == 2
    assert seen == ["elsewhere", str(DEFAULT)]


@pytest.mark.parametrize("script", [train_movielens, train_criteo, train_avazu,
                                    train_movielens_retrain])
def test_help_lists_the_option(run, script):
    assert "--cache DIR" in run(script, "--help")[1]


def test_help_of_a_command_lists_the_option(run):
    assert "--cache DIR" in run(reproduce, "fig2", "--help")[1]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "train.txt"
    raw_planted.write("criteo", 400, path)
    return path


def test_the_encoded_set_lies_in_the_chosen_folder(run, raw, tmp_path):
    cache = tmp_path / "new" / "cache"
    code, text, _ = run(train_criteo, "--data", raw, "--out", tmp_path / "out", "--cache", cache,
                        "--encode-only")
    assert code == 0
    assert "400 rows" in text
    assert len(list(cache.glob("criteo-*/ids.npy"))) == 1


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_cache_that_cannot_be_written_is_one_line_that_names_the_option(
        run, raw, tmp_path, monkeypatch, by):
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("PEP_CACHE", str(folder))
    words = ["--cache", folder] if by == "option" else []
    code, _, error = run(train_criteo, "--data", raw, "--out", tmp_path / "out", "--encode-only",
                         *words)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert f"cannot write to the folder {folder}" in error
    assert "choose another with --cache (or PEP_CACHE)" in error


def test_a_cache_that_cannot_be_written_serves_what_it_has(raw, tmp_path, monkeypatch):
    first = criteo.open_dataset(str(raw), tmp_path)
    calls = []
    monkeypatch.setattr(ingest, "locked", lambda *arguments, **named: calls.append(arguments))
    monkeypatch.setattr(ingest, "require_writable", lambda *arguments: calls.append(arguments))
    assert criteo.open_dataset(str(raw), tmp_path).hash == first.hash
    assert calls == []


def test_what_is_planted_is_kept_apart_from_a_chosen_cache(run, tmp_path):
    code, _, error = run(reproduce, "fig2", "--dataset", "criteo", "--planted", "500",
                         "--cache", tmp_path)
    assert code == 2
    assert "--planted keeps what it encodes under --out, apart from other data" in error
    assert f"leave out --cache {tmp_path}" in error


@pytest.mark.parametrize(("make", "said"), [
    (lambda: torch.empty(1 << 48), "there is not enough memory ("),
    (lambda: bytearray(1 << 60), "there is not enough memory ("),
    (lambda: torch.zeros(2) @ torch.zeros(3), None)], ids=["torch", "python", "another error"])
def test_a_full_memory_is_said_in_one_line(run, make, said):
    script = SimpleNamespace(main=make)
    if said is None:
        with pytest.raises(RuntimeError, match="inconsistent tensor size"):
            run(script)
        return
    code, _, errors = run(script)
    assert code == 2
    assert errors.startswith(f"error: {said}")
    assert len(errors.splitlines()) == 1
