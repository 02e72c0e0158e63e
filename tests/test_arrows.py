"""Imports run one way: the rules that the linter cannot hold, read from the source."""

import ast
import functools
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "utils": set(),
    # OF_MODELS_IN_DATA alone
    "data": {"utils", "data", "models"},
    # by relative imports alone, so that the folder also installs as a package of its own
    "models": set(),
    "engine": {"utils", "data", "models", "engine"},
    "compression": {"utils", "data", "models", "engine", "compression"},
    "serving": {"utils", "data", "models", "engine", "compression", "serving"},
    "studies": {"utils", "data", "models", "engine", "compression", "studies", "benchmarks"},
}
# what an installed model needs too; none of it loads torch
OF_MODELS_IN_DATA = ("models.vocabulary", "models.text_loops", "models.npz", "models.kernels.jit")
FOLDERS = [folder for folder in MAY_IMPORT if (ROOT / folder).is_dir()]
OURS = {*MAY_IMPORT, "benchmarks", "tests", *(path.stem for path in ROOT.glob("*.py"))}
FILES = itertools.chain(ROOT.glob("*.py"), *((ROOT / folder).rglob("*.py")
                                             for folder in (*FOLDERS, "benchmarks")))
SOURCES = sorted(path for path in FILES if "cache" not in path.parts)
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


@functools.cache
def nodes_of(path):
    """All nodes of a file's syntax tree, each file parsed once; the first is the module."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imported(path):
    """(number of leading dots, dotted name) of everything that a file imports, in functions too."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, ".".join(filter(None, (node.module, alias.name))))
                      for alias in node.names]
    return found


def ours(path):
    """Our own top-level names that a file imports absolutely."""
    return {name.split(".")[0] for level, name in imported(path) if not level} & OURS


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder):
    wrong = {name_of(path): ours(path) - MAY_IMPORT[folder]
             for path in SOURCES if path.is_relative_to(ROOT / folder)}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_nothing_imports_a_training_script():
    """Their dicts are the user's: what the paper published stands in `studies.published`."""
    found = {name_of(path): {name.split(".")[0] for _, name in imported(path)
                             if name.startswith("train_")}
             for path in [*SOURCES, *TESTS]}
    assert {name: scripts for name, scripts in found.items() if scripts} == {}


def test_the_optimiser_stands_below_the_rest_of_the_engine():
    optim = [path for path in SOURCES if path.is_relative_to(ROOT / "engine" / "optim")]
    imports = itertools.chain.from_iterable(map(imported, optim))
    names = [name for _, name in imports]
    above = {name for name in names if name.startswith("engine.")
             and not name.startswith("engine.optim")}
    assert above <= {"engine.record.wait_for"}


def test_relative_imports_stay_inside_their_folder():
    for path in SOURCES:
        depth = len(path.relative_to(ROOT).parts) - 1  # folders around the file
        assert all(level <= depth for level, _ in imported(path)), name_of(path)


def test_only_some_files_know_both_data_and_models():
    both = {name_of(path) for path in SOURCES if {"data", "models"} <= ours(path)
            and path.parent != ROOT
            and not {"benchmarks", "studies", "compression", "serving"} & {*path.parts}}
    assert both == {
        # a set's vocabulary, which an installed model reads too
        "data/encode.py", "data/store.py", "data/movielens.py", "data/movielens_forms.py",
        "data/vocabulary.py",
        "data/table/encode.py", "data/table/options.py", "data/table/read.py",
        "data/table/spool.py", "data/raw/kept_values.py", "data/raw/writer.py",
        "data/raw/parse.py", "data/raw/count.py", "data/raw/ingest.py",  # compiled loops
        "engine/run.py", "engine/trainer.py", "engine/stages.py",
        "engine/evaluate.py",  # computes the table of a model once
        "engine/initial_model.py",  # how often each feature occurs
        "engine/settings.py",  # the names in both registries
        "engine/loop.py",  # for its annotations
        "engine/distributed/rows.py",  # rows of a data set, through a model
    }


def test_data_knows_of_models_what_an_installed_model_needs_alone():
    found = {name_of(path): [name for _, name in imported(path) if name.startswith("models.")
                             and not name.startswith(OF_MODELS_IN_DATA)]
             for path in SOURCES if path.is_relative_to(ROOT / "data")}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def users(name):
    """Files that name something or import it."""
    return {name_of(path) for path in SOURCES if any(
        (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.alias) and node.name == name) for node in nodes_of(path))}


def opens_test_rows(node):
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and node.func.attr == "split"
            and any(isinstance(argument, ast.Constant) and argument.value == "test"
                    for argument in node.args))


def test_test_rows_are_opened_in_one_place_and_their_labels_read_by_two_functions():
    opened = {name_of(path) for path in SOURCES
              if path.parent != ROOT and any(map(opens_test_rows, nodes_of(path)))}
    assert opened == {"engine/trainer.py",
                      "studies/figures/demo.py"}  # what the teacher itself scores
    assert users("measure_test") == {"engine/evaluate.py"}
    assert users("measure_both") == {"engine/trainer.py"}
    assert users("resample_test") == {"compression/finetune.py"}


def functions(path):
    return [node for node in nodes_of(path)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_constructors_take_at_most_6_arguments():
    many = []
    for path in SOURCES:
        many += [f"{name_of(path)}:{node.lineno}" for node in functions(path)
                 if node.name == "__init__"
                 and len(node.args.args) + len(node.args.kwonlyargs) - 1 > 6]
    assert many == []


def is_dense(node):
    """Whether it is a comprehension with a second `for`, which is better a loop, a function or one
    of itertools, or a conditional expression inside of another."""
    if isinstance(node, ast.IfExp):
        parts = (node.test, node.body, node.orelse)
        return any(isinstance(part, ast.IfExp) for part in parts)
    return len(getattr(node, "generators", ())) > 1


def test_comprehensions_have_one_for_and_conditional_expressions_are_not_nested():
    dense = []
    for path in [*SOURCES, *TESTS]:
        dense += [f"{name_of(path)}:{node.lineno}" for node in nodes_of(path) if is_dense(node)]
    assert dense == []


def exits(node, inside=None):
    """Names of the functions around each call of exit (None outside of all)."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("exit", "quit", "sys.exit",
                                                                 "os._exit"):
        yield inside
    for child in ast.iter_child_nodes(node):
        yield from exits(child, node.name if isinstance(node, ast.FunctionDef) else inside)


def test_only_main_exits():
    found = {name_of(path): set(exits(nodes_of(path)[0])) for path in SOURCES}
    found["benchmarks/torture/kills.py"].remove("start")  # of a child that it forked
    found["benchmarks/bench_start.py"].remove("say_and_end")  # of a process that it times
    # a thread cannot end its process by an error
    found["engine/distributed/world.py"].remove("watch")
    assert {name: around for name, around in found.items() if around - {"main"}} == {}
    assert any(found.values())


def test_nothing_is_pickled():
    names = {name_of(path): {name for _, name in imported(path)} & {"pickle", "joblib",
                                                                    "cloudpickle"}
             for path in SOURCES}
    assert {path: found for path, found in names.items() if found} == {}
    for path in SOURCES:
        called = {ast.unparse(node.func) for node in nodes_of(path) if isinstance(node, ast.Call)}
        assert called.isdisjoint({"torch.load", "torch.save"}), name_of(path)
