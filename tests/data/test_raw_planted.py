"""Made raw files: the format to the byte, cells by seed, row and field alone, and a teacher behind
the labels."""

import itertools
import math
import re
import runpy
import sys

import numpy as np
import pytest

from data import avazu, criteo
from data.raw import plain
from data.synthetic import raw_draws, raw_planted
from data.synthetic.raw_planted import DECIMAL, HEX, HOUR, LAYOUTS, NUMBER, Field, RawLayout
from engine.evaluate import auc

CRITEO_LINE = re.compile(r"[01](\t(0|-?[1-9]\d{0,8})?){13}(\t([0-9a-f]{8})?){26}\n")
AVAZU_LINE = re.compile(
    r"\d{1,20},[01],1410(2[1-9]|30)([01]\d|2[0-3]),10\d\d,\d(,[0-9a-f]{8}){9},\d,\d(,\d{1,5}){6},(-1|\d{1,6}),\d{1,3}\n"
)
AVAZU_HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)
TINY = RawLayout(7000, 0.4, ",", True, (
    Field("hour", HOUR, 1, 240, 240),
    Field("number", NUMBER, 2, missing=0.3, mean=3.0, deviation=2.0, lowest=-3),
    Field("long", HEX, 8, 5000, 20), Field("same", HEX, 4, 5000, 20),
    Field("holes", HEX, 0, 501, 100, missing=0.6),
    Field("flat", DECIMAL, 1, 60, 50, flat=1000, lowest=-1, step=7),
))
MISSING = {  # of the real file
    "I1": .45, "I3": .21, "I4": .22, "I5": .03, "I6": .22, "I7": .04, "I9": .04, "I10": .45,
    "I11": .04, "I12": .76,
    "I13": .22, "C3": .034, "C4": .034, "C12": .034, "C16": .034, "C21": .034, "C24": .034,
    "C6": .12, "C19": .44,
    "C20": .44, "C25": .44, "C26": .44, "C22": .76,
}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "tiny", TINY)
    return "tiny"


def written(folder, name, rows, **options):
    raw_planted.write(name, rows, folder / "made", **options)
    return (folder / "made").read_bytes().decode("ascii")


def columns_of(text, name):
    """Field -> its cells, and "label"."""
    layout = LAYOUTS[name]
    lines = text.splitlines()[layout.with_ids:]
    first = ["id"] if layout.with_ids else []
    names = [*first, "label", *(field.name for field in layout.fields)]
    return dict(zip(names, zip(*(line.split(layout.separator) for line in lines), strict=True),
                    strict=True))


def scattered_logits(name):
    """The teacher's, of rows from all over the file."""
    starts = range(0, LAYOUTS[name].full_rows - 1000, LAYOUTS[name].full_rows // 40)
    return np.concatenate([raw_planted.teacher_logits(name, start, 1000) for start in starts])


def test_criteo_lines(tmp_path):
    lines = written(tmp_path, "criteo", 3000).splitlines(keepends=True)
    assert len(lines) == 3000
    assert [line for line in lines if not CRITEO_LINE.fullmatch(line)] == []
    assert any("\t-1\t" in line for line in lines)


def test_avazu_lines(tmp_path):
    header, *lines = written(tmp_path, "avazu", 3000).splitlines(keepends=True)
    assert header == AVAZU_HEADER
    assert len(lines) == 3000
    assert [line for line in lines if not AVAZU_LINE.fullmatch(line)] == []
    assert any(",-1," in line for line in lines)
    assert len({line.split(",")[0] for line in lines}) == 3000


@pytest.mark.parametrize("layout", [criteo.LAYOUT, avazu.LAYOUT], ids=lambda layout: layout.name)
def test_the_readers_have_nothing_to_complain_of(tmp_path, layout):
    cells = columns_of(written(tmp_path, layout.name, 300), layout.name)
    assert {plain.complaint(row, layout) for row in zip(*cells.values(), strict=True)} == {None}
    assert tuple(raw_planted.planted_widths(layout.name)) == layout.fields


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_a_row_depends_on_neither_rows_nor_chunks(tmp_path, name, monkeypatch):
    long = written(tmp_path, name, 2500)
    monkeypatch.setattr(raw_planted, "CHUNK", 300)
    short = written(tmp_path, name, 1001)
    assert short.count("\n") == 1001 + LAYOUTS[name].with_ids
    assert long.startswith(short)
    assert written(tmp_path, name, 2500) == long


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_the_seed_decides(tmp_path, name):
    first = written(tmp_path, name, 200, seed=3)
    raw_planted._plan.cache_clear()
    assert written(tmp_path, name, 200, seed=3) == first
    other = columns_of(written(tmp_path, name, 200, seed=-4), name)
    same = [field for field, cells in columns_of(first, name).items() if cells == other[field]]
    assert same == (["hour"] if name == "avazu" else [])


def test_all_values_occur_in_a_file_of_full_length(tmp_path, tiny):
    cells = columns_of(written(tmp_path, tiny, TINY.full_rows), tiny)
    for field in TINY.fields:
        values, counts = np.unique(cells[field.name], return_counts=True)
        if field.kind != NUMBER:
            assert len(values) == field.size, field.name
            assert np.count_nonzero(counts == 1) >= field.tail, field.name
            assert np.count_nonzero(counts > 1) > 0.9 * field.head, field.name
        if field.missing:
            assert cells[field.name].count("") / TINY.full_rows == pytest.approx(field.missing,
                                                                                 abs=0.02)
    assert len(set(cells["id"])) == TINY.full_rows
    assert list(cells["hour"]) == sorted(cells["hour"])
    assert (cells["hour"][0], cells["hour"][-1]) == ("14102100", "14103023")
    # the same indices are printed in other ways
    assert len(set(cells["long"]) & set(cells["same"])) < 5


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_a_short_file_has_its_share_of_the_tail(name):
    layout, rows = LAYOUTS[name], 4000
    for field, drawn in zip(layout.fields, raw_planted._plan(layout, raw_planted.SEED).fields,
                            strict=True):
        if field.tail > 0.001 * layout.full_rows:
            cells = [raw_draws.cell(drawn, row, layout.full_rows)[0] for row in range(rows)]
            tail = [cell for cell in cells if cell >= field.head]
            assert len(set(tail)) == len(tail)
            assert len(tail) == pytest.approx(rows * field.tail / layout.full_rows,
                                              abs=10), field.name


def test_shares_of_missing_cells(tmp_path):
    cells = columns_of(written(tmp_path, "criteo", 20_000), "criteo")
    shares = {name: column.count("") / 20_000 for name, column in cells.items()}
    assert shares == pytest.approx({name: MISSING.get(name, 0) for name in cells}, abs=0.015)


def expected_values(field, rows):
    """How many values are seen at least 10 times in `rows` rows: a Poisson number of times each."""
    # buckets are without a gap, and the sum of four uniforms ends 3.4 deviations out
    if field.kind == NUMBER:
        return math.floor((field.mean + 3.37
                           * field.deviation) ** 2) + 3 + (field.missing > 0) - field.lowest
    if field.kind == HOUR:
        return field.head
    drawn = rows * (1 - field.missing) - field.tail
    rank = np.arange(field.head) + field.flat
    times = np.minimum(drawn * np.log1p(1 / rank)
                       / math.log((field.head + field.flat) / field.flat), 500)
    fewer = sum(np.exp(count * np.log(times) - times - math.lgamma(count + 1))
                for count in range(10))
    return (1 - fewer).sum() + (field.missing > 0)


@pytest.mark.parametrize(("name", "features"), [("criteo", 1_086_810), ("avazu", 645_394)])
def test_features_at_full_length_are_as_many_as_in_the_paper(name, features):
    layout = LAYOUTS[name]
    # 1: the unknown value
    expected = sum(expected_values(field, layout.full_rows) + 1 for field in layout.fields)
    assert expected == pytest.approx(features, rel=0.001)


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_missing_cells_leave_room_for_the_tail(name):
    assert all(field.tail / LAYOUTS[name].full_rows + field.missing < 0.9
               for field in LAYOUTS[name].fields)


@pytest.mark.parametrize(("name", "positives"), [("criteo", 0.256), ("avazu", 0.170)])
def test_the_teacher_is_as_good_as_it_should_be(name, positives):
    logits = scattered_logits(name)
    chances = 1 / (1 + np.exp(-logits))
    assert chances.mean() == pytest.approx(positives, abs=0.01)
    order = np.argsort(logits)
    # expected over all draws of the labels
    pairs_won = (chances[order] * np.cumsum((1 - chances)[order])).sum()
    assert pairs_won / (chances.sum() * (1 - chances).sum()) == pytest.approx(0.80, abs=0.02)


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_labels_are_tosses_of_the_teachers_chances(tmp_path, name):
    labels = np.array(columns_of(written(tmp_path, name, 20_000), name)["label"], int)
    logits = raw_planted.teacher_logits(name, 0, 20_000)
    assert auc(labels, logits) == pytest.approx(0.80, abs=0.02)
    chances = 1 / (1 + np.exp(-logits))
    for rows in np.array_split(np.argsort(logits), 10):
        assert labels[rows].mean() == pytest.approx(chances[rows].mean(),
                                                    abs=4 * np.sqrt(0.25 / len(rows)))


def test_widths_are_mixed_over_short_and_long_fields():
    for name, layout in LAYOUTS.items():
        long = {field.width for field in layout.fields if field.size > 5000}
        short = {field.width for field in layout.fields if 0 < field.size <= 5000}
        assert {0, 2, 4, 8} <= long, name
        assert {0, 1, 2, 4, 8} <= short, name


MASK = 2**64 - 1


def plain_number(key, place):
    """splitmix64 in Python's own numbers."""
    word = (int(key) + place * 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & MASK
    return word ^ word >> 31


def plain_normal(word):
    return (sum(word >> shift & 0xFFFF for shift in (0, 16, 32, 48))
            - 131_070) * math.sqrt(3) / 65_536


def plain_logit(plan, row, full_rows):
    """A row's logit with every pair of fields multiplied out."""
    vectors, first = [], 0.0
    for field in plan.fields:
        taken = int(raw_draws.cell(field, row, full_rows)[1])
        value = plain_number(field["vectors"], taken)
        first += plain_normal(value)
        vectors.append([plain_normal(plain_number(value, k + 1)) if k < field["width"] else 0.0
                        for k in range(8)])
    pairs = sum(np.dot(one, other) for one, other in itertools.combinations(vectors, 2))
    return plan.weights @ [1, pairs, first]


@pytest.mark.parametrize("name", ["criteo", "avazu"])
def test_the_teacher_is_a_factorisation_machine_of_the_planted_widths(name):
    plan = raw_planted._plan(LAYOUTS[name], raw_planted.SEED)
    logits = raw_planted.teacher_logits(name, 700, 20)
    # the published first number of splitmix64 from state 0
    assert plain_number(0, 1) == 0xE220A8397B1DCDAF
    assert [plain_logit(plan, row, LAYOUTS[name].full_rows)
            for row in range(700, 720)] == pytest.approx(logits)


def test_the_teacher_sees_what_a_model_sees(tmp_path, tiny):
    """The bucket of a number, one vector for the whole tail and one for the empty cell."""
    fields = raw_planted._plan(TINY, raw_planted.SEED).fields
    cells = columns_of(written(tmp_path, tiny, 500), tiny)
    for row, text in enumerate(cells["number"]):
        bucket = plain.bucket(int(text)) if text else raw_draws.EMPTY
        assert raw_draws.cell(fields[1], row, TINY.full_rows)[1] == bucket
    taken = [raw_draws.cell(fields[2], row, TINY.full_rows)[1] for row in range(500)]
    assert max(taken) == TINY.fields[2].head
    assert taken.count(max(taken)) == pytest.approx(500 * TINY.fields[2].tail / TINY.full_rows,
                                                    abs=50)


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_interrupted_file_is_not_there(tmp_path, monkeypatch, before):
    target = tmp_path / "train.txt"
    if before:
        target.write_bytes(before)
    lines = raw_planted._lines

    def stop_at_the_third(layout, plan, start, stop):
        if start == 200:
            raise KeyboardInterrupt
        return lines(layout, plan, start, stop)

    monkeypatch.setattr(raw_planted, "CHUNK", 100)
    monkeypatch.setattr(raw_planted, "_lines", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        raw_planted.write("criteo", 1000, target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_planted, "_plan", None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write to the folder"):
        raw_planted.write("criteo", 10, tmp_path / "file" / "train.txt")
    with pytest.raises(IsADirectoryError, match="must name the file"):
        raw_planted.write("criteo", 10, tmp_path)
    with pytest.raises(ValueError, match="from 1 to 40428967"):
        raw_planted.write("avazu", 40_428_968, tmp_path / "train")
    with pytest.raises(ValueError, match="rows 0 to 45840616"):
        raw_planted.teacher_logits("criteo", 45_840_616, 2)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the module in this process; (exit code, standard output, standard error)."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["planted", *arguments])
        monkeypatch.delitem(sys.modules, "data.synthetic.planted", raising=False)
        code = 0
        try:
            runpy.run_module("data.synthetic.planted", run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run


def test_the_command_line_writes_what_write_writes(tmp_path, command):
    code, out, error = command("avazu", "--rows", "50", "--out", str(tmp_path / "new" / "train"),
                               "--seed", "5")
    assert (code, error) == (0, "")
    assert out.startswith(f"{tmp_path / 'new' / 'train'}: 50 rows, ")
    assert (tmp_path / "new" / "train").read_bytes().decode() == written(tmp_path, "avazu", 50,
                                                                         seed=5)


@pytest.mark.parametrize(("arguments", "message"), [
    (["cirteo", "--rows", "5"],
     "error: unknown data set 'cirteo'; did you mean 'criteo'? Known: avazu, criteo\n"),
    (["criteo", "--rows", "0"],
     "error: rows must be from 1 to 45840617, as many as criteo has; got 0\n"),
])
def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path, command, arguments,
                                                                 message):
    assert command(*arguments, "--out", str(tmp_path / "train")) == (2, "", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_categories_of_a_file_that_can_be_learned_have_few_values(tmp_path, name):
    raw_planted.write(name, 3000, tmp_path / "few", values=12)
    layout = LAYOUTS[name]
    lines = (tmp_path / "few").read_text().splitlines()[layout.with_ids:]
    columns = list(zip(*(line.split(layout.separator)[1 + layout.with_ids:] for line in lines),
                       strict=True))
    for field, column in zip(layout.fields, columns, strict=True):
        if field.kind in (HEX, DECIMAL):
            assert len({*column} - {""}) == min(field.head, 12), field.name
        assert ("" in column) == (field.missing > 0), field.name


def test_a_category_of_one_value_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 values or more, got 1"):
        raw_planted.write("criteo", 10, tmp_path / "one", values=1)
