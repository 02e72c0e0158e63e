import logging
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import movielens_lines, write_lines

from data import movielens

FIRST = movielens.FIRST_RATING
FIELDS = ("timestamp", "gender", "age", "occupation", "zip", "year", "genres")
BY_HAND = {
    "users.dat": ["1::F::1::10::48067", "2::M::56::16::70072-1234", "3::M::25::0::00500"],
    "movies.dat": ["10::Toy Story (1995)::Animation|Comedy",
                   "20::Caf\xe9 (1990s remake) (1961)::Drama",
                   "30::Seen as a 3 only (1919)::Western"],
    "ratings.dat": [f"1::10::5::{FIRST}", f"1::20::3::{FIRST + 9}", f"2::20::1::{FIRST + 1000}",
                    f"2::30::3::{FIRST + 3}", f"2::10::4::{FIRST + 3}", f"1::20::2::{FIRST + 2}",
                    f"3::30::3::{FIRST + 4}"],
}


@pytest.fixture
def lines():
    return movielens_lines()


def open_from(folder, lines, **options):
    return movielens.open_dataset(str(write_lines(folder / "raw", lines)), folder / "cache",
                                  **options)


# parsing rules


def test_ratings_of_3_are_dropped_and_the_rest_become_seven_columns_and_a_label(tmp_path):
    columns, labels = movielens.read_columns(write_lines(tmp_path, BY_HAND))
    assert {name: column.tolist() for name, column in columns.items()} == {
        "timestamp": [-2, 47, 1, 0], "gender": ["F", "M", "M", "F"], "age": [1, 56, 56, 1],
        "occupation": [10, 16, 16, 10], "zip": ["48067", "70072-1234", "70072-1234", "48067"],
        "year": [1995, 1961, 1995, 1961],
        "genres": ["Animation|Comedy", "Drama", "Animation|Comedy", "Drama"]}
    assert tuple(columns) == FIELDS
    assert labels.tolist() == [1, 0, 1, 0]


def test_with_ids_adds_user_and_movie(tmp_path):
    columns, _ = movielens.read_columns(write_lines(tmp_path, BY_HAND), with_ids=True)
    assert tuple(columns) == (*FIELDS, "user", "movie")
    assert columns["user"].tolist() == [1, 2, 2, 1]
    assert columns["movie"].tolist() == [10, 20, 10, 20]


def test_reading_the_ratings_has_a_bar_over_all_lines(tmp_path, monkeypatch):
    bars = []

    def bar(rows, title, total, **named):
        rows = list(rows)
        bars.append((title, total, len(rows)))
        return rows

    monkeypatch.setattr(movielens, "tqdm", bar)
    movielens.read_columns(write_lines(tmp_path, BY_HAND))
    assert bars == [("reading ratings.dat", 7, 7)]


def test_codes_are_made_after_rows_are_dropped(tmp_path):
    lines = {**BY_HAND, "ratings.dat": BY_HAND["ratings.dat"] * 40}  # both classes in each split
    dataset = open_from(tmp_path, lines)
    assert dataset.schema.fields == FIELDS
    assert dataset.schema.sizes == (4, 2, 2, 2, 2, 2, 2)  # nothing of user 3 or of movie 30
    assert dataset.manifest["rows"] == 160


@given(st.integers(-10, 10**9))
def test_time_bucket_is_the_floor_of_the_squared_logarithm_above_2(seconds):
    expected = math.floor(math.log(seconds) ** 2) if seconds > 2 else seconds - 2
    assert movielens.time_bucket(np.array([seconds])).tolist() == [expected]


def test_windows_line_ends_make_no_difference(tmp_path, lines):
    unix = movielens.read_columns(write_lines(tmp_path / "unix", lines))
    windows = movielens.read_columns(write_lines(tmp_path / "windows", lines, "\r\n"))
    assert {name: column.tolist() for name, column in unix[0].items()} == {
        name: column.tolist() for name, column in windows[0].items()}
    assert unix[1].tolist() == windows[1].tolist()


def test_another_row_count_than_the_official_one_is_said(made_data, caplog):
    _, labels = movielens.read_columns(made_data)
    assert f"{len(labels)} usable ratings; the official archive has 739012" in caplog.text


# determinism and cache


def test_the_hash_of_made_data_is_pinned(tmp_path, made_data):
    assert movielens.open_dataset(str(made_data), tmp_path).hash == "3892a8031557fc65"


def test_a_second_open_reads_the_cache(tmp_path, made_data, monkeypatch):
    first = movielens.open_dataset(str(made_data), tmp_path)
    monkeypatch.setattr(movielens, "read_columns", None)
    second = movielens.open_dataset(str(made_data), tmp_path)
    assert second.hash == first.hash
    assert np.array_equal(second.ids, first.ids)
    assert np.array_equal(second.labels, first.labels)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, lines, monkeypatch):
    read = movielens.read_columns

    def slowly(folder, with_ids):
        columns = read(folder, with_ids)
        with (folder / "ratings.dat").open("a") as file:
            file.write("\n")
        return columns

    monkeypatch.setattr(movielens, "read_columns", slowly)
    with pytest.raises(ValueError, match=r"ratings\.dat changed while it was read"):
        open_from(tmp_path, lines)
    assert not any((tmp_path / "cache").glob("*/manifest.json"))


def test_a_changed_raw_file_is_encoded_again(tmp_path, lines):
    before = open_from(tmp_path, lines)
    user, movie, rating, seconds = lines["ratings.dat"][5].split("::")
    lines["ratings.dat"][5] = f"{user}::{movie}::{'1' if rating in '45' else '5'}::{seconds}"
    after = open_from(tmp_path, lines)
    assert after.hash != before.hash
    assert open_from(tmp_path, lines).hash == after.hash


def test_options_and_folders_never_answer_for_each_other(tmp_path, made_data):
    other = write_lines(tmp_path / "other", movielens_lines(seed=1))
    asked = [(str(made_data), False, "all"), (str(made_data), True, "all"),
             (str(made_data), False, "train"),
             (str(other), False, "all")]
    cache = tmp_path / "cache"
    first = [movielens.open_dataset(folder, cache, ids, vocabulary).hash for folder, ids,
             vocabulary in asked]
    second = [movielens.open_dataset(folder, cache, ids, vocabulary).hash for folder, ids,
              vocabulary in asked]
    assert len(set(first)) == 4
    assert second == first


def test_vocabulary_train_counts_training_rows_only_and_keeps_one_unknown_code(tmp_path, made_data):
    every = movielens.open_dataset(str(made_data), tmp_path)
    strict = movielens.open_dataset(str(made_data), tmp_path, vocabulary="train")
    assert strict.counts == every.counts
    assert np.array_equal(strict.labels, every.labels)
    train, held_out = strict.split("train")[0], np.concatenate([strict.split("validation")[0],
                                                                strict.split("test")[0]])
    for position, (start, size) in enumerate(zip(strict.schema.offsets, strict.schema.sizes,
                                                 strict=True)):
        assert sorted(set(train[:, position])) == list(range(start, start + size - 1))
        seen = set(every.split("train")[0][:, position])
        new = ~np.isin(np.concatenate([every.split("validation")[0],
                                       every.split("test")[0]])[:, position], list(seen))
        assert ((held_out[:, position] == start + size - 1) == new).all()
    assert (held_out[:, 0] == strict.schema.sizes[0] - 1).any()


# where the files are


def test_a_given_folder_that_lacks_files_is_an_error_that_names_them(tmp_path, made_data,
                                                                     monkeypatch):
    monkeypatch.setenv("PEP_DATA", str(made_data.parent))
    (tmp_path / "movies.dat").write_text("x")
    with pytest.raises(FileNotFoundError,
                       match=r"--data: .* lacks ratings\.dat, users\.dat;.*demo\.py"):
        movielens.find_folder(str(tmp_path))


def test_the_environment_names_the_folder_above_ml_1m(tmp_path, made_data, monkeypatch):
    monkeypatch.setenv("PEP_DATA", str(made_data.parent))
    assert movielens.find_folder(None) == made_data
    monkeypatch.setenv("PEP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError,
                       match=r"PEP_DATA: .*ml-1m lacks ratings\.dat, users\.dat, movies\.dat"):
        movielens.find_folder(None)


def test_without_a_folder_the_archive_is_fetched_once_beside_the_code(tmp_path, monkeypatch):
    calls = []

    def fetch(url, md5, members, target, title):
        calls.append((url, md5, target))
        write_lines(target, BY_HAND)

    monkeypatch.delenv("PEP_DATA", raising=False)
    monkeypatch.setattr(movielens, "__file__", str(tmp_path / "movielens.py"))
    monkeypatch.setattr(movielens, "fetch_zip", fetch)
    assert movielens.find_folder(None) == movielens.find_folder(None) == tmp_path / "ml-1m"
    assert calls == [(movielens.URL, movielens.MD5, tmp_path / "ml-1m")]


# bad input


@pytest.mark.parametrize("name", movielens.FILES)
@pytest.mark.parametrize("content", [b"", b" \r\n\n"], ids=["empty", "blank"])
def test_an_empty_file_is_an_error_that_names_it(tmp_path, lines, name, content):
    write_lines(tmp_path, lines)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is empty"):
        movielens.read_columns(tmp_path)


MIS_ENCODED = {
    "NUL byte": (lambda raw: raw[:200] + b"\0" + raw[200:], "has NUL bytes: .*fetch it again"),
    "UTF-16": (lambda raw: raw.decode("latin-1").encode("utf-16"), "is UTF-16 text; .*iconv"),
    "UTF-16 without mark": (lambda raw: raw.decode("latin-1").encode("utf-16-le"),
                            "is UTF-16 text; .*iconv"),
    "Parquet": (lambda raw: b"PAR1" + raw, "is a Parquet file, .*read_parquet"),
    "web page": (lambda raw: b"<!DOCTYPE html>\n<html>" + raw, "is a web page")}


@pytest.mark.parametrize("name", movielens.FILES)
@pytest.mark.parametrize("damage", MIS_ENCODED)
def test_a_mis_encoded_file_is_an_error_that_names_it(tmp_path, lines, name, damage):
    write_lines(tmp_path, lines)
    (tmp_path / name).write_bytes(MIS_ENCODED[damage][0]((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=rf"{name} {MIS_ENCODED[damage][1]}"):
        movielens.read_columns(tmp_path)


BAD_RATINGS = {
    "too few fields": "1::1::5", "too many fields": f"1::1::5::{FIRST}::x",
    "another separator": f"1:1:5:{FIRST}",
    "blank line": "", "rating in words": f"1::1::good::{FIRST}",
    "half a star": f"1::1::4.5::{FIRST}",
    "no star": f"1::1::0::{FIRST}", "six stars": f"1::1::6::{FIRST}",
    "time in words": "1::1::5::noon",
    "negative time": "1::1::5::-7", "unknown user": f"999::1::5::{FIRST}",
    "unknown movie": f"1::999::5::{FIRST}",
    "user in words": f"me::1::5::{FIRST}", "header": "user::movie::rating::time",
}


@pytest.mark.parametrize("bad", BAD_RATINGS)
def test_a_bad_rating_is_shown_with_its_line_number_and_left_out(tmp_path, lines, caplog, bad):
    _, whole = movielens.read_columns(write_lines(tmp_path / "whole", lines))
    lines["ratings.dat"].insert(6, BAD_RATINGS[bad])
    columns, labels = movielens.read_columns(write_lines(tmp_path / "bad", lines))
    assert labels.tolist() == whole.tolist()
    assert all(len(column) == len(whole) for column in columns.values())
    warning, = (record.message for record in caplog.records if "cannot be used" in record.message)
    assert "ratings.dat: 1 of 3001 lines cannot be used" in warning
    assert "line 7: expected" in warning
    assert repr(BAD_RATINGS[bad].encode()) in warning
    assert "left out" in warning


def test_a_tenth_of_a_percent_of_bad_lines_is_tolerated_and_one_more_is_not(tmp_path, lines,
                                                                            caplog):
    lines["ratings.dat"][:3] = ["bad"] * 3
    movielens.read_columns(write_lines(tmp_path / "few", lines))
    assert "3 of 3000 lines cannot be used" in caplog.text
    lines["ratings.dat"][2990] = "bad"
    with pytest.raises(ValueError, match=r"(?s)ratings\.dat: 4 of 3000 .*line 1: .*line 3: .*line "
                                         r"2991: .*0\.1%"):
        movielens.read_columns(write_lines(tmp_path / "many", lines))


def test_many_bad_lines_show_the_first_five_and_count_the_rest(tmp_path, lines):
    lines["ratings.dat"] = [line.replace("::", "\t") for line in lines["ratings.dat"]]
    with pytest.raises(ValueError, match=r"(?s)3000 of 3000 lines .*line 1: .*line 5: .*and 2995 "
                                         r"more") as caught:
        movielens.read_columns(write_lines(tmp_path, lines))
    assert "line 6:" not in str(caught.value)


def test_who_and_what_stand_there_twice_are_shown_and_count_once(tmp_path, lines, caplog):
    whole = movielens.read_columns(write_lines(tmp_path, lines))[0]
    lines["users.dat"].append("7::M::56::3::99999")
    lines["movies.dat"].append("1::Other (1901)::Drama")
    again = movielens.read_columns(write_lines(tmp_path, lines))[0]
    assert all(np.array_equal(again[name], column) for name, column in whole.items())
    assert "line 121: user 7 stands there twice" in caplog.text
    assert "movie 1 stands there twice" in caplog.text


@pytest.mark.parametrize("bad", ["7::X::25::1::12345", "7::F::old::1::12345",
                                 "7::F::25::clerk::12345", "7::F::25::1", "u7::F::25::1::12345",
                                 f"{10**20}::F::25::1::12345"])
def test_a_bad_user_is_shown(tmp_path, lines, caplog, bad):
    lines["users.dat"].append(bad)
    movielens.read_columns(write_lines(tmp_path, lines))
    assert "users.dat: 1 of 121 lines cannot be used" in caplog.text
    assert "line 121: expected" in caplog.text


@pytest.mark.parametrize("bad", ["81::No year::Drama", "81::No genre (1999)::",
                                 "81::No genre (1999)", "m::A (1999)::Drama"])
def test_a_bad_movie_is_shown(tmp_path, lines, caplog, bad):
    lines["movies.dat"].append(bad)
    movielens.read_columns(write_lines(tmp_path, lines))
    assert "movies.dat: 1 of 81 lines cannot be used" in caplog.text
    assert "line 81: expected" in caplog.text


def test_ratings_of_a_user_that_could_not_be_read_are_counted(tmp_path, lines):
    lines["users.dat"][6] = "7::F::25"
    with pytest.raises(ValueError, match=r"(?s)ratings\.dat: \d+ of 3000 .*a known user.*b'7::"):
        movielens.read_columns(write_lines(tmp_path, lines))


@pytest.mark.parametrize("name", movielens.FILES)
def test_a_file_that_was_cut_off_within_its_last_line_is_never_taken_in_silence(tmp_path, lines,
                                                                                caplog, name):
    write_lines(tmp_path, lines)
    content = (tmp_path / name).read_bytes()
    silent = []
    for lost in range(2, len(lines[name][-1]) + 1):  # 1 would be the line end alone
        (tmp_path / name).write_bytes(content[:-lost])
        caplog.clear()
        try:
            movielens.read_columns(tmp_path)
        except ValueError as error:
            caplog.records.append(logging.makeLogRecord({"msg": str(error)}))
        if not any(f"{tmp_path / name}" in record.getMessage() for record in caplog.records):
            silent.append(content[:-lost].split(b"\n")[-1])
    assert silent == []


def test_a_whole_last_line_without_a_line_end_is_used(tmp_path, lines):
    _, whole = movielens.read_columns(write_lines(tmp_path / "whole", lines))
    folder = write_lines(tmp_path / "bare", lines)
    for name in movielens.FILES:
        (folder / name).write_bytes((folder / name).read_bytes().removesuffix(b"\n"))
    _, labels = movielens.read_columns(folder)
    assert labels.tolist() == whole.tolist()


def test_ratings_that_are_all_3_are_an_error_that_says_so(tmp_path, lines):
    lines["ratings.dat"] = [f"1::1::3::{FIRST}"] * 20
    with pytest.raises(ValueError, match=r"ratings\.dat"):
        movielens.read_columns(write_lines(tmp_path, lines))


# the real files


@pytest.mark.real
def test_real_data_has_the_published_numbers_and_opens_fast_the_second_time(real_cache, real_data,
                                                                            monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    folder = str(real_data / "ml-1m")
    dataset = movielens.open_dataset(folder, real_cache)
    assert caplog.text == ""  # not one line of the official files is bad
    assert dataset.schema.fields == FIELDS
    assert dataset.schema.sizes == (278, 2, 7, 21, 3439, 81, 301)
    assert dataset.schema.num_rows == 4129
    assert dataset.schema.num_rows * 64 == 264_256
    assert len(dataset.labels) == sum(dataset.counts) == 739_012
    assert dataset.counts == (591_210, 73_901, 73_901)
    assert int((dataset.labels == 0).sum()) == 163_731
    for position, (start, size) in enumerate(zip(dataset.schema.offsets, dataset.schema.sizes,
                                                 strict=True)):
        assert len(np.unique(dataset.ids[:, position])) == size
        assert dataset.ids[:, position].min() == start

    monkeypatch.setattr(movielens, "read_columns", None)
    started = time.perf_counter()
    again = movielens.open_dataset(folder, real_cache)
    assert time.perf_counter() - started < 1.0
    assert again.hash == dataset.hash
