"""Lines read in one pass, held against the cells and look-ups that define them."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.serving import lines as lines_module
from models.serving import scorer as scorer_module
from models.serving.artefact import Artefact
from models.serving.lines import LineEncoder
from models.serving.model import ServedModel
from models.serving.parts import FirstOrder
from models.serving.rows import Lines
from models.serving.scorer import Scorer
from models.serving.tables import NoTable
from models.serving.values import Rows
from models.vocabulary import BUCKET, WHOLE, FieldInfo, Vocabulary, field_of

LONG = "a value longer than one word"
TEXTS = ["1a2b3c4d", "ab", "Zürich", LONG, LONG + "s", "12345678", "eight888", "seven77", "x" * 300]
NAMES = ["label", "hex", "size", "price", "whole", "rest", "plain", "last"]
NASTY = [*TEXTS, "", "0", "7", "007", "-3", "+7", "4095", "4096", "99999999", "123456789", "1.5",
         "-0.25", "1e3", " 9", "nan", "inf", "red", "12a", "1:", ";", ".", "-", "\r", "a\rb", "\0",
         "1a2b3c4e", "1a2b3c4", "1a2b3c4d5", "é" * 40, "0000000000000000000001", "1" * 30]


def _vocabulary():
    def texts(name, values, first, **about):
        return field_of(FieldInfo(name, **about), values, range(first, first + len(values)),
                        [1] * len(values))

    # in another order than the columns'
    return Vocabulary((
        texts("price", ["0", "1", "2"], 0, kind=BUCKET, rule="quantiles", edges=(0.5, 1000.0)),
        texts("hex", TEXTS, 10, unknown=30, missing=31),
        texts("whole", ["7", "-3", "0", "12345678"], 40, kind=WHOLE, unknown=44),
        texts("last", ["", *TEXTS], 50),
        texts("size", [str(value) for value in (-5, -2, 0, 3, 17, 69, 339)], 70, kind=BUCKET,
              rule="log2", unknown=78, missing=79, origin=-1.0),
        texts("plain", [f"v{number}" for number in range(3000)], 80)))


def _scorer(vocabulary):
    size, fields = 5000, len(vocabulary.fields)
    weights = Rows.of(np.arange(size, dtype=np.float32)[:, None] / size, "float32")
    model = ServedModel(NoTable(size, 0, fields), [FirstOrder(weights, torch.zeros(1))])
    about = {"run_id": "drawn", "dataset": "own", "values": "float32",
             "raw": {"separator": ",", "header": False, "columns": NAMES, "label": "label"}}
    return Scorer(Artefact(model, vocabulary, about))


VOCABULARY = _vocabulary()
SCORER = _scorer(VOCABULARY)
LINES = st.lists(st.lists(st.sampled_from(NASTY), min_size=len(NAMES), max_size=len(NAMES))
                 | st.lists(st.sampled_from(NASTY), max_size=10), min_size=1, max_size=80)


def _hold(scorer, text, separator=","):
    """Both ways, cell by cell; returns how many lines the one pass has read."""
    lines = Lines(text, separator, NAMES)
    columns = lines.columns(scorer.columns)
    wanted = scorer.encode_columns(columns)[0]
    ids, ends, unread = scorer._encoder.encode(text, separator, NAMES)
    newlines = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    assert ends.tolist() == (newlines + 1).tolist()
    np.testing.assert_array_equal(ids[~unread], wanted[~unread])
    found, bad = scorer.score_lines(lines)
    assert bad == columns.bad
    np.testing.assert_array_equal(found, scorer.score_columns(columns))
    return int(np.count_nonzero(~unread))


@settings(max_examples=60, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n"]))
@example([["1", cell, "5", "0.5", "7", "", "v7", cell] for cell in NASTY], "\n")
@example([["1", "ab", cell, cell, cell, "", "v7", "ab"] for cell in NASTY], "\r\n")
def test_one_pass_gives_the_ids_and_scores_of_its_definition(rows, line_end):
    text = "".join(",".join(row) + line_end for row in rows).encode()
    _hold(SCORER, text)


def test_bytes_that_are_no_text_and_a_cell_longer_than_a_segment():
    start, end = b"1,ab,5,0.5,7,", b",v7,ab\n"
    assert _hold(SCORER, start + b"\xff\xfe" + end + b"1,\xff\xfe,5,0.5,7,,v7,\xff\n") == 2
    assert _hold(SCORER, (start + b"z" * 3 * lines_module.SEGMENT + end) * 3) == 3


def test_thousands_of_values_in_full_groups_of_slots(tmp_path):
    """Many lines, of an opened vocabulary; nothing is left to the definition."""
    VOCABULARY.write(tmp_path / "v")
    rng = np.random.default_rng(0)
    rows = "".join(f"0,{TEXTS[value % 9]},{value},{value / 7:.3f},{value},,v{value},{TEXTS[3]}\n"
                   for value in rng.integers(4000, size=5000).tolist()).encode()
    assert _hold(_scorer(Vocabulary.open(tmp_path / "v")), rows) == 5000
    assert _hold(SCORER, rows.replace(b",", b"\t"), "\t") == 5000


def test_equal_hashes_are_told_apart_by_their_bytes(monkeypatch):
    """Long texts of one hash, in one field."""
    longs = [letter * 20 for letter in "abcdefghij"]
    made = field_of(FieldInfo("hex"), longs, range(10), [1] * 10)
    slots = np.zeros(8 * 5, np.uint64)
    monkeypatch.setitem(lines_module.fill_slots.py_func.__globals__, "hash_text",
                        lambda text, begin, end: np.uint64(3))
    lines_module.fill_slots.py_func(made.packed.text, made.packed.starts, made.ids, slots)
    word = np.uint64(3)
    encoder = LineEncoder(Vocabulary((made,)), 99)
    texts = encoder.texts._replace(slots=slots)
    found = []
    for asked in [*longs, "k" * 20]:
        text = np.frombuffer(asked.encode(), np.uint8)
        values = [int(lines_module._long_value(texts, 0, text, 0, 20, word, np.uint64(8 * group)))
                  for group in range(5)]
        found.append([value >> 32 for value in values if value])
    assert found == [[made.lookup([long])[0]] for long in longs] + [[]]


def test_what_is_not_read_in_one_pass(monkeypatch):
    dated = field_of(FieldInfo("hour", part="hour", column="plain"), ["7"], [0], [1])
    assert _scorer(Vocabulary((dated, *VOCABULARY.fields[:2])))._encoder is None
    shared = field_of(FieldInfo("again", column="hex"), ["ab"], [0], [1])
    assert _scorer(Vocabulary((shared, VOCABULARY.field("hex"))))._encoder is None
    monkeypatch.setattr(scorer_module, "MOST_VALUES", 100)
    assert _scorer(VOCABULARY)._encoder is None


@pytest.mark.parametrize("rows", [1, 3])
def test_fields_of_one_kind_alone(rows):
    for kind in ("price", "plain"):
        scorer = _scorer(Vocabulary((VOCABULARY.field(kind),)))
        assert _hold(scorer, b"0,ab,5,0.5,7,,v7,ab\n" * rows) == rows
