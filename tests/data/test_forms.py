"""Raw files as other programs save them: each is named, with its first line and what to do."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from data import avazu, criteo, movielens
from data.raw import ingest
from data.raw.forms import describe_header, find_forms
from data.raw.layout import DECIMAL, HEX, LABEL
from data.synthetic import raw_planted

LAYOUTS = {"criteo": criteo.LAYOUT, "avazu": avazu.LAYOUT}
ROWS = 400


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> a made file in the published form."""
    folder = tmp_path_factory.mktemp("published")
    for name in LAYOUTS:
        raw_planted.write(name, ROWS, folder / name)
    return {name: folder / name for name in LAYOUTS}


def frame_of(path, layout, **options):
    """As pandas reads the file; by default it turns whole numbers with gaps into floats."""
    names = None if layout.has_header else [column.name for column in layout.columns]
    return pd.read_csv(path, sep=layout.separator, names=names, **options)


def as_text(path, layout):
    return frame_of(path, layout, dtype=str, keep_default_na=False)


def saved(frame, path, layout, **options):
    """As pandas writes it, but for what the options change."""
    frame.to_csv(path, **{"sep": layout.separator, "header": layout.has_header, "index": False,
                          **options})


def opened(path, layout, cache):
    return ingest.open_raw(layout, str(path), cache, False, "all", "random")


def refused(path, layout, cache):
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        opened(path, layout, cache)
    said = str(caught.value)
    assert layout.published in said
    assert "fetch it again" not in said
    return said


def first_line(content, pattern):
    """Number of the first line that has a cell of this pattern."""
    return next(number for number, line in enumerate(content.splitlines(), start=1)
                if any(re.fullmatch(pattern, cell) for cell in re.split("[,\t;\x01]", line)))


def upper(frame, layout):
    hashes = [column.name for column in layout.columns if column.kind == HEX]
    return frame.assign(**{name: frame[name].str.upper() for name in hashes})


def numbers(frame, layout, form):
    names = [column.name for column in layout.columns if column.kind == DECIMAL or column.name[0]
             == "I"]
    return frame.assign(**{name: [form(cell) if cell else "" for cell in frame[name]]
                           for name in names})


# name -> (how the file is saved, name of the form, pattern of a cell that shows it)
CELLS = {
    "floats": (
        lambda frame, layout: (numbers(frame, layout, lambda cell: f"{cell}.0"), {}),
        "whole numbers with a decimal point",
        r"-?\d+\.0",
    ),
    "exponents": (
        lambda frame, layout: (numbers(frame, layout, lambda cell: f"{float(cell):.1e}"), {}),
        "numbers with an exponent",
        r"-?\d\.\de[+-]\d+",
    ),
    "upper case": (
        lambda frame, layout: (upper(frame, layout), {}),
        "hashes in upper case",
        r"(?=.*[A-F])[0-9A-F]{8}",
    ),
    "quotes": (
        lambda frame, layout: (frame, {"quoting": csv.QUOTE_ALL, "header": False}),
        "cells in quotes",
        r'".*"',
    ),
    "nan": (
        lambda frame, layout: (frame.replace("", None), {"na_rep": "nan"}),
        "words for gaps",
        "nan",
    ),
    "Hive": (
        lambda frame, layout: (frame.replace("", None), {"na_rep": r"\N"}),
        "words for gaps",
        r"\\N",
    ),
    "Hive's separator": (
        lambda frame, layout: (frame, {"sep": "\x01", "header": False}),
        "columns separated by Hive's \\x01",
        ".*",
    ),
    "semicolons": (
        lambda frame, layout: (frame, {"sep": ";", "header": False}),
        "columns separated by semicolons",
        ".*",
    ),
}


@pytest.mark.parametrize("case", CELLS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_saved_with_other_cells_is_named_with_the_first_line_that_shows_it(
    tmp_path, published, name, case
):
    layout = LAYOUTS[name]
    save, form, pattern = CELLS[case]
    frame = as_text(published[name], layout)
    if name == "avazu" and form == "words for gaps":
        frame.loc[5:, "C15"] = ""  # the published file has no gap
    frame, options = save(frame, layout)
    saved(frame, tmp_path / "raw", layout, **options)
    said = refused(tmp_path / "raw", layout, tmp_path / "cache")
    assert form in said
    if options.get("header", True) or not layout.has_header:  # else the first line is at fault
        number = first_line((tmp_path / "raw").read_text(), pattern)
        assert f"The file has {form} (first in line {number}: " in said


def test_criteo_through_pandas_with_its_defaults_has_a_header_of_numbers_an_index_and_floats(
        tmp_path, published):
    layout, path = criteo.LAYOUT, tmp_path / "raw"
    frame = pd.read_csv(published["criteo"], sep="\t", header=None)
    saved(frame, path, layout, header=True, index=True)
    said = refused(path, layout, tmp_path / "cache")
    assert "numbers in place of names, as pandas writes them" in said
    assert "a further column in front (without a name)" in said
    saved(frame, path, layout, index=True)
    said = refused(path, layout, tmp_path / "cache")
    assert re.search(r"a further column in front \(first in line ([123]): '[012]'\)", said)
    number = first_line(path.read_text(), r"-?\d+\.0")
    assert f"whole numbers with a decimal point (first in line {number}: " in said


def test_avazu_through_pandas_with_its_defaults_has_an_index_and_large_ids(tmp_path, published):
    layout, path = avazu.LAYOUT, tmp_path / "raw"
    frame = frame_of(published["avazu"], layout, dtype={"id": float})
    saved(frame, path, layout, index=True)
    assert "It has a further column in front (without a name)" in refused(path, layout,
                                                                          tmp_path / "cache")
    saved(frame, path, layout)
    assert "numbers with an exponent (first in line 2: " in refused(path, layout,
                                                                    tmp_path / "cache")


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_of_0_0_and_1_0_are_named(tmp_path, published, name):
    layout = LAYOUTS[name]
    frame = as_text(published[name], layout)
    label = next(column.name for column in layout.columns if column.kind == LABEL)
    saved(frame.assign(**{label: frame[label] + ".0"}), tmp_path / "raw", layout)
    said = refused(tmp_path / "raw", layout, tmp_path / "cache")
    assert f"whole numbers with a decimal point (first in line {1 + layout.has_header}: " in said
    frame[label] = frame[label].map({"0": "False", "1": "True"})
    saved(frame, tmp_path / "words", layout)
    assert "The file has labels in words" in refused(tmp_path / "words", layout, tmp_path / "cache")


def test_hashes_that_lost_their_leading_zeros_are_named(tmp_path, published):
    frame = as_text(published["criteo"], criteo.LAYOUT)
    short = frame.assign(C1=[f"{row:x}" for row in range(ROWS)])
    saved(short, tmp_path / "raw", criteo.LAYOUT)
    assert "hashes of fewer than 8 digits (first in line 1: '0')" in refused(
        tmp_path / "raw", criteo.LAYOUT, tmp_path / "cache"
    )


def test_hours_as_dates_are_named(tmp_path, published):
    frame = as_text(published["avazu"], avazu.LAYOUT).assign(hour="2014-10-21 00:00:00")
    saved(frame, tmp_path / "raw", avazu.LAYOUT)
    assert "The file has dates (first in line 2: '2014-" in refused(tmp_path / "raw", avazu.LAYOUT,
                                                                    tmp_path / "cache")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_test_file_is_named(tmp_path, published, name):
    layout = LAYOUTS[name]
    label = next(column.name for column in layout.columns if column.kind == LABEL)
    saved(as_text(published[name], layout).drop(columns=label), tmp_path / "raw", layout)
    assert "this looks like the test file" in refused(tmp_path / "raw", layout, tmp_path / "cache")


def test_kaggles_csv_of_criteo_is_named_and_the_command_makes_the_published_form(tmp_path,
                                                                                 published):
    frame = as_text(published["criteo"], criteo.LAYOUT)
    names = ["Label", *frame.columns[1:]]
    frame = frame.set_axis(names, axis=1)
    frame.insert(0, "Id", np.arange(10_000_000, 10_000_000 + ROWS))
    saved(frame, tmp_path / "train.csv", criteo.LAYOUT, sep=",", header=True)
    said = refused(tmp_path / "train.csv", criteo.LAYOUT, tmp_path / "cache")
    assert (
        "columns separated by commas, a further column in front (id), as Kaggle's csv has it"
        in said
    )
    assert "tail -n +2 FILE | cut -d, -f2- | tr ',' '\\t' > NEW" in said
    lines = (tmp_path / "train.csv").read_text().splitlines()[1:]  # what the command does
    text = "".join(line.split(",", 1)[1].replace(",", "\t") + "\n" for line in lines)
    assert text == published["criteo"].read_text()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('"' + avazu.LAYOUT.header.replace(",", '","') + '"', "It has cells in quotes"),
        (avazu.LAYOUT.header.replace(",", "\t"), "It has columns separated by tabs"),
        ("Unnamed: 0," + avazu.LAYOUT.header, "a further column in front (unnamed: 0)"),
        (
            avazu.LAYOUT.header.replace("click,", ""),
            "no column click: this looks like the test file",
        ),
        (",".join(map(str, range(24))), "It has numbers in place of names"),
    ],
)
def test_other_headers_of_avazu_are_named(tmp_path, published, header, words):
    rows = published["avazu"].read_text().split("\n", 1)[1]
    (tmp_path / "raw").write_text(f"{header}\n{rows}")
    assert words in refused(tmp_path / "raw", avazu.LAYOUT, tmp_path / "cache")


def test_forms_of_many_bad_lines_are_found_though_few_lines_are_shown(tmp_path, published):
    """Of each form the first line is named, as long as it is among the first thousand bad ones."""
    lines = published["criteo"].read_text().splitlines()
    lines[:300] = [line.replace("\t", ",") for line in lines[:300]]
    lines[300] = lines[300] + "\tx"
    lines[301] = "1.0" + lines[301][1:]
    (tmp_path / "raw").write_text("\n".join(lines) + "\n")
    said = refused(tmp_path / "raw", criteo.LAYOUT, tmp_path / "cache")
    assert "whole numbers with a decimal point (first in line 302: '1.0')" in said


# what is taken


@pytest.mark.parametrize("name", LAYOUTS)
def test_byte_order_mark_and_trailing_separator_give_the_same_rows(tmp_path, published, name):
    layout = LAYOUTS[name]
    content = published[name].read_bytes()
    plain = opened(published[name], layout, tmp_path / "cache")
    separator = layout.separator.encode()
    for changed in (b"\xef\xbb\xbf" + content, content.replace(b"\n", separator + b"\n"),
                    content.replace(b"\n", separator + b"\r\n")):
        (tmp_path / "raw").write_bytes(changed)
        found = opened(tmp_path / "raw", layout, tmp_path / "cache")
        assert (found.hash, found.manifest["bad_lines"]) == (plain.hash, 0)


def test_a_headerless_avazu_file_gives_the_same_rows_and_its_bad_lines_the_right_numbers(
    tmp_path, published, caplog
):
    lines = published["avazu"].read_text().splitlines()[1:]
    plain = opened(published["avazu"], avazu.LAYOUT, tmp_path / "cache")
    (tmp_path / "raw").write_text("\n".join([*lines, ""]))
    assert opened(tmp_path / "raw", avazu.LAYOUT, tmp_path / "cache").hash == plain.hash
    assert "has no header" in caplog.text
    (tmp_path / "raw").write_text("\n".join([*lines[:10], "bad", *lines[10:], ""]))
    assert opened(tmp_path / "raw", avazu.LAYOUT, tmp_path / "cache").hash == plain.hash
    assert "line 11: expected 24 columns, got 1: b'bad'" in caplog.text


# by hand


def test_a_line_as_published_and_a_wrong_one_of_no_known_form_have_none():
    kinds = [LABEL, DECIMAL, HEX]
    for line in ("0,260,05db9164", "0,,", "0,26x,05db9164", "0", "0,1,2,3,4", "2,260,05db9164"):
        assert find_forms(line, ",", kinds) == {}


def test_quotes_and_a_carriage_return_in_a_line_are_no_form_and_no_traceback():
    for line in ('x"\ry', '"' + "x" * 200_000):
        assert find_forms(line, "::", [None] * 4) == {}


def test_a_line_that_names_no_columns_is_no_header():
    for line in ("0,1,2", "", "abc", "5\t4\t3"):
        assert describe_header(line, criteo.LAYOUT) is None


# MovieLens


def movielens_folder(folder, made_data, name, change):
    folder.mkdir()
    for other in movielens.FILES:
        text = (made_data / other).read_text("latin-1")
        (folder / other).write_text(change(text) if other == name else text, "latin-1")
    return folder


def column(number, change):
    """Change one field of every line."""

    def changed(text):
        rows = [line.split("::") for line in text.splitlines()]
        return "".join("::".join([*row[:number], change(row[number]), *row[number + 1 :]]) + "\n"
                       for row in rows)

    return changed


MOVIELENS = {
    "ratings as floats": (
        "ratings.dat",
        column(2, lambda cell: cell + ".0"),
        "whole numbers with a decimal point (first in line 1: '",
    ),
    "times as floats": (
        "ratings.dat",
        column(3, lambda cell: f"{float(cell):.5e}"),
        "numbers with an exponent (first in line 1: '",
    ),
    "commas": ("ratings.dat", lambda text: text.replace("::", ","), "columns separated by commas"),
    "tabs": ("ratings.dat", lambda text: text.replace("::", "\t"), "columns separated by tabs"),
    "colons": ("users.dat", lambda text: text.replace("::", ":"), "columns separated by colons"),
    "quotes": (
        "users.dat",
        column(1, lambda cell: f'"{cell}"'),
        "cells in quotes (first in line 1: '",
    ),
    "genres in quotes": ("movies.dat", column(2, lambda cell: f'"{cell}"'), "cells in quotes"),
    "zip codes as floats": (
        "users.dat",
        column(4, lambda cell: cell + ".0"),
        "whole numbers with a decimal point (first in line 1: '",
    ),
    "gaps": ("users.dat", column(2, lambda cell: "nan"), "words for gaps (first in line 1: 'nan'"),
    "an index": (
        "ratings.dat",
        lambda text: "".join(
            f"{number}::{line}\n" for number, line in enumerate(text.splitlines())
        ),
        "a further column in front (first in line 1: '0')",
    ),
}


@pytest.mark.parametrize("case", MOVIELENS)
def test_a_movielens_file_saved_by_another_program_is_named(tmp_path, made_data, case):
    name, change, words = MOVIELENS[case]
    folder = movielens_folder(tmp_path / "ml-1m", made_data, name, change)
    with pytest.raises(ValueError, match=re.escape(str(folder / name))) as caught:
        movielens.read_columns(folder)
    said = str(caught.value)
    assert words in said
    assert f"As unpacked from {movielens.URL}, {name} has lines such as" in said
    assert "fetch it again" not in said


@pytest.mark.parametrize("name", movielens.FILES)
def test_a_byte_order_mark_in_a_movielens_file_is_passed_over(tmp_path, made_data, name):
    folder = movielens_folder(tmp_path / "ml-1m", made_data, name, lambda text: "\xef\xbb\xbf"
                              + text)
    found, plain = movielens.read_columns(folder), movielens.read_columns(made_data)
    assert found[1].tolist() == plain[1].tolist()
    assert {key: values.tolist() for key, values in found[0].items()} == {
        key: values.tolist() for key, values in plain[0].items()
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ml-1m.zip", "It holds ml-1m.zip: unpack it: unzip"),
        ("ratings.csv", "newer MovieLens"),
        ("ratings.dat.gz", "gunzip"),
        ("ratings.parquet", "text files"),
    ],
)
def test_a_folder_of_another_form_of_movielens_is_named(tmp_path, name, words):
    (tmp_path / name).write_text("x")
    with pytest.raises(FileNotFoundError, match=words):
        movielens.find_folder(str(tmp_path))


def test_the_folder_above_and_a_file_in_place_of_the_folder_are_named(tmp_path, made_data):
    movielens_folder(tmp_path / "ml-1m", made_data, "", str)
    with pytest.raises(FileNotFoundError,
                       match=f"They are in {tmp_path / 'ml-1m'}: name that folder"):
        movielens.find_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"ratings\.dat is a file: .* name the folder"):
        movielens.find_folder(str(tmp_path / "ml-1m" / "ratings.dat"))
