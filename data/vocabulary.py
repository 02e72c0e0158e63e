"""What a raw value became: its id and count in an encoded data set.

    python -m data.vocabulary RUN                            # the fields of the run's data set
    python -m data.vocabulary RUN --field user --value 42    # the id and count of a value
    python -m data.vocabulary movielens --field zip --id 40  # the value of an id

RUN is a run's id or its beginning; a set is named by its folder, its hash, or its name, of which
the newest in the cache is taken.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from data import store
from data.registry import DATASETS
from data.split import RANDOM
from data.synthetic import planted, planted_fields
from models.vocabulary import NOT_FOUND, Field, Vocabulary
from utils.files import folders_that_begin, read_record

MADE = (planted.NAME, planted_fields.NAME)  # sets that are made anew each time, and not in a cache


def find(named: str, out: Path, cache: Path) -> tuple[str, Vocabulary]:
    """The name and vocabulary of a data set.

    Args:
        named: a run's id or its beginning; or a set's folder, hash or name.
        out: where runs lie.
        cache: where encoded sets are kept.

    Raises:
        FileNotFoundError: there is no such run or set; the sets that are there are listed.
        ValueError: several runs begin so, a record is damaged, or one is too old to say which it is
            of several sets that differ in their raw values alone.
    """
    if (Path(named) / store.VOCABULARY).is_dir():
        manifest = _record(Path(named) / "manifest.json")
        return manifest["dataset"], Vocabulary.open(Path(named) / store.VOCABULARY)
    begun = folders_that_begin(out / "runs", named) if named else []
    runs = [path for folder in begun if (path := folder / "result.json").exists()]
    if len(runs) > 1:
        raise ValueError(f"several runs begin with {named!r}: "
                         f"{', '.join(path.parent.name for path in runs)}")
    wanted, settings, values = {named}, {"dataset": named}, None
    if runs:
        result = _record(runs[0])
        wanted, settings = {result["manifest"]}, result["settings"]
        values = result.get("values_hash")
    if settings["dataset"] in MADE:
        made = DATASETS[settings["dataset"]](None, cache, False, settings.get("vocabulary", "all"),
                                             settings.get("split", RANDOM))
        if made.vocabulary is not None and (not runs or made.hash in wanted):
            return settings["dataset"], made.vocabulary
    stored = store.manifests(cache)
    fitting = [folder for folder, manifest in stored.items()
               if wanted & {manifest["content"], manifest["dataset"], folder.name}]
    if runs:
        fitting = _of_run(fitting, values, named)
    if fitting:
        return stored[fitting[0]]["dataset"], Vocabulary.open(fitting[0] / store.VOCABULARY)
    there = ", ".join(folder.name for folder in stored) or "none"
    raise FileNotFoundError(
        f"there is no finished run in {out / 'runs'} and no encoded set in {cache} that is called "
        f"{named!r} (sets that are there: {there}); give a run's id, or encode the data again: the "
        "training script does, with --encode-only")


def _of_run(folders: list[Path], values: str | None, named: str) -> list[Path]:
    """Of sets with a run's rows, those with its raw values."""
    hashes = {folder: Vocabulary.open(folder / store.VOCABULARY).hash for folder in folders}
    if values is None and len(set(hashes.values())) > 1:
        raise ValueError(f"run {named} does not say which of these sets it is of, whose rows are "
                         "the same and whose raw values are not; name one of the folders: "
                         f"{', '.join(map(str, folders))}")
    return [folder for folder in folders if values in (None, hashes[folder])]


def _record(path: Path) -> dict[str, Any]:
    try:
        return read_record(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def described(vocabulary: Vocabulary) -> str:
    """The fields, a line each: kind, size, rows of gaps and of unknown values."""
    lines = [f"{'field':24} {'kind':8} {'ids':>10} {'gaps':>10} {'rare':>10}"]
    for field in vocabulary.fields:
        if field.info.slot:  # its values are those of the first
            continue
        info = field.info
        gaps = "-" if info.missing is None else f"{info.missing_count:,}"
        rare = "-" if info.unknown is None else f"{info.unknown_count:,}"
        lines.append(f"{field.name:24} {info.rule or info.kind:8} {field.size:>10,} {gaps:>10} "
                     f"{rare:>10}")
    return "\n".join(lines)


def _with_values(vocabulary: Vocabulary, name: str) -> Field:
    """The field of a name; of a slot of a column with several values the first one, whose ids it
    has."""
    field = vocabulary.field(name)
    if not field.info.slot:
        return field
    return next(one for one in vocabulary.fields
                if one.info.column == field.info.column and not one.info.slot)


def looked_up(field: Field, value: str | None, row: int | None) -> str:
    """One line: value, id, count."""
    if row is None:
        row = int(field.lookup([value or None])[0])
        if row == NOT_FOUND:
            return f"{field.name} = {value!r}: no id; the field has none for unknown values"
    counts = {found: count for found, _, count in field.entries()}
    meaning = field.value(row)
    shown = "a gap" if meaning is None else repr(meaning)
    if row == field.unknown:
        shown = "the unknown value, which all rare and new ones share"
    elif field.info.rule and meaning is not None:
        shown = f"bucket {meaning}"
    asked = "" if value is None else f"{value!r} is "
    return f"{field.name}: {asked}{shown}, id {row}, in {counts[row]:,} rows"


def main(arguments: list[str] | None = None) -> None:
    """Print what the command line asks for; end with exit code 2 on bad input."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("set", metavar="RUN_OR_SET")
    options.add_argument("--field", help="which field; all are listed without it")
    asked = options.add_mutually_exclusive_group()
    asked.add_argument("--value", help="a raw value; '' is a gap")
    asked.add_argument("--id", type=int, help="an id, a row of the whole table")
    options.add_argument("--out", default="tmp", help="where runs lie")
    options.add_argument("--cache", help="where encoded sets are kept (default: $PEP_CACHE, else "
                         "data/cache)")
    given = options.parse_args(arguments)
    try:
        name, vocabulary = find(given.set, Path(given.out), store.cache_folder(given.cache))
        if given.field is None and (given.value is not None or given.id is not None):
            raise ValueError("give --field too: of which field is it a value or an id?")
        if given.field is None:
            print(f"{name}: {vocabulary.size:,} ids\n{described(vocabulary)}")
        elif given.value is None and given.id is None:
            raise ValueError("give --value or --id too: what is to be looked up")
        else:
            print(looked_up(_with_values(vocabulary, given.field), given.value, given.id))
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
