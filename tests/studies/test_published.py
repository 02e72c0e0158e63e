"""The published settings, and the scripts' dicts, which start with them."""

import ast
import json
import subprocess
import sys
import time

import pytest
import shipped

from engine.settings import PUBLISHED_PATIENCE, parse
from studies import published, scripts

OWN = {"train_movielens": published.PRESETS["movielens"],
       "train_criteo": published.PRESETS["criteo"], "train_avazu": published.PRESETS["avazu"],
       "train_movielens_retrain": published.RETRAIN["movielens"],
       "train_criteo_retrain": published.RETRAIN["criteo"],
       "train_avazu_retrain": published.RETRAIN["avazu"],
       "train_table": published.OWN_TABLE, "train_table_retrain": published.RETRAIN_OWN_TABLE}


def dict_of(name):
    """A script's SETTINGS, read from its text."""
    tree = ast.parse((shipped.ROOT / f"{name}.py").read_text())
    [value] = [node.value for node in tree.body if isinstance(node, ast.Assign)
               and ast.unparse(node.targets[0]) == "SETTINGS"]
    return ast.literal_eval(value)


@pytest.mark.parametrize("name", OWN)
def test_the_shipped_dicts_are_the_published_settings(name):
    own = dict_of(name)
    changed = {key for key in {*own, *OWN[name]} if own.get(key) != OWN[name].get(key)}
    if changed or own.keys() != OWN[name].keys():
        pytest.skip(f"{name}.py is edited: {', '.join(sorted(changed)) or 'a key is missing'}; "
                    "its runs are yours, no other test looks at them")
    assert len(own) <= 28


@pytest.mark.parametrize("name", OWN)
def test_a_script_is_a_dict_and_one_call(name, monkeypatch):
    seen = []
    monkeypatch.setattr(scripts, "search", lambda *given: seen.append(("search", *given)))
    monkeypatch.setattr(scripts, "retrain", lambda *given: seen.append(("retrain", *given)))
    text = (shipped.ROOT / f"{name}.py").read_text()
    exec(compile(text, name, "exec"), {"__name__": "__main__"})
    [(call, description, settings)] = seen
    assert call == ("retrain" if name.endswith("_retrain") else "search")
    assert f"python {name}.py" in description
    assert settings == dict_of(name)
    names = [type(node).__name__ for node in ast.parse(text).body]
    assert names == ["Expr", "ImportFrom", "Assign", "If"]


@pytest.mark.parametrize("dataset", published.PRESETS)
def test_presets_and_their_variants_are_valid(dataset):
    preset, variants = published.PRESETS[dataset], published.VARIANTS.get(dataset, {})
    assert parse(json.loads(json.dumps(preset))) == parse(preset)
    for changed in variants.values():
        assert parse({**preset, **changed}) != parse(preset)
    if variants:
        assert variants["published"]["early_stop_metric"] == PUBLISHED_PATIENCE


@pytest.mark.parametrize("dataset", published.RETRAIN)
def test_a_retraining_trains_as_the_search_does_but_for_its_length(dataset):
    own, search = published.RETRAIN[dataset], published.PRESETS[dataset]
    assert {name for name in own if name in search and own[name] != search[name]} <= {"max_epochs"}
    assert own["max_epochs"] >= search["max_epochs"]


def test_help_imports_no_torch():
    code = ("import sys; sys.argv = ['x', '--help']\n"
            "for name in ('train_criteo', 'train_criteo_retrain', 'train_table', 'reproduce', "
            "'demo', 'compress'):\n"
            "    try:\n        exec(open(f'{name}.py').read(), {'__name__': '__main__'})\n"
            "    except SystemExit as stop:\n        assert stop.code == 0\n"
            "print(sorted({'torch', 'pandas', 'numba', 'matplotlib'} & {*sys.modules}))")
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=shipped.ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 10  # 0.3 s on an idle machine
