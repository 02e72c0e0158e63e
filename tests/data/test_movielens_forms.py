"""MovieLens-100k and the CSV files of newer releases, by the same rules."""

import os
from pathlib import Path

import numpy as np
import pytest

from data import movielens
from data.split import split_rows
from models.vocabulary import NOT_FOUND

FIRST = 1_000_000_000


def hundred_k(folder, ratings=200, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    users = [f"{user}|{20 + user}|{'MF'[user % 2]}|writer|{90000 + user}" for user in range(1, 21)]
    genres = ["0"] * 19
    movies = []
    for movie in range(1, 11):
        flags = list(genres)
        flags[1 + movie % 5] = flags[8] = "1"
        date = f"01-Jan-{1990 + movie}" if movie > 1 else ""
        movies.append(f"{movie}|Caf\xe9 {movie} ({1990 + movie})|{date}||http://x|"
                      + "|".join(flags))
    movies[1] = "2|unknown||||" + "|".join(genres)  # as the file has one
    lines = [f"{rng.integers(1, 21)}\t{rng.integers(1, 11)}\t{rng.integers(1, 6)}\t"
             f"{FIRST + 7 * row}" for row in range(ratings)]
    for name, content in (("u.data", lines), ("u.user", users), ("u.item", movies)):
        (folder / name).write_bytes("".join(f"{line}\n" for line in content).encode("latin-1"))
    return folder, [line.split("\t") for line in lines]


def newer(folder, ratings=200, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    movies = ['1,"Quotes, The (1995)",Comedy|Drama', "2,No year,(no genres listed)",
              "3,Zürich (2001) ,Drama"]
    lines = [f"{rng.integers(1, 21)},{rng.integers(1, 4)},{rng.integers(1, 11) / 2},{FIRST + row}"
             for row in range(ratings)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(movies) + "\n",
                                       encoding="utf-8")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines))
    return folder, [line.split(",") for line in lines]


@pytest.mark.parametrize("make", [hundred_k, newer])
def test_every_cell_is_as_the_files_say(tmp_path, make):
    folder, lines = make(tmp_path / "raw")
    dataset = movielens.open_dataset(str(folder), tmp_path / "cache", with_ids=True)
    used = [line for line in lines if float(line[2]) != 3]
    order = np.concatenate(split_rows(len(used), movielens.SPLIT_SEED))
    ordered = [used[row] for row in order]
    assert dataset.labels.tolist() == [float(line[2]) > 3 for line in ordered]
    kept = dataset.vocabulary
    first = min(int(line[3]) for line in used)
    assert kept.field("timestamp").info.origin == first
    for name, cells in (("user", [line[0] for line in ordered]),
                        ("movie", [line[1] for line in ordered]),
                        ("timestamp", [line[3] for line in ordered])):
        column = dataset.ids[:, dataset.schema.fields.index(name)]
        assert np.array_equal(kept.field(name).lookup(cells), column)
    years = {"1": "1991", "2": None, "3": "1993"} if make is hundred_k else {
        "1": "1995", "2": None, "3": "2001"}
    column = dataset.ids[:, dataset.schema.fields.index("year")]
    for line, row in zip(ordered, column, strict=True):
        if line[1] in years:
            assert kept.field("year").value(row) == years[line[1]]


def test_the_fields_are_those_that_a_form_has(tmp_path):
    one = movielens.open_dataset(str(hundred_k(tmp_path / "a")[0]), tmp_path / "cache")
    other = movielens.open_dataset(str(newer(tmp_path / "b")[0]), tmp_path / "cache")
    assert one.schema.fields == ("timestamp", "gender", "age", "occupation", "zip", "year",
                                 "genres")
    assert other.schema.fields == ("timestamp", "year", "genres")
    genres = other.vocabulary.field("genres")
    assert {genres.value(row) for row in range(*other.schema.offsets[2:],
                                               other.schema.num_rows)} == {
        "Comedy|Drama", "Drama", None}


def test_half_stars_are_labels_by_the_same_rule(tmp_path):
    folder, lines = newer(tmp_path / "raw")
    dataset = movielens.open_dataset(str(folder), tmp_path / "cache")
    stars = np.array([float(line[2]) for line in lines])
    assert {2.5, 3.5} <= set(stars)
    assert sum(dataset.counts) == np.count_nonzero(stars != 3)
    assert dataset.labels.sum() == np.count_nonzero(stars > 3)


@pytest.mark.parametrize(("name", "content", "why"), [
    ("ratings.csv", "userId,movieId,rating\n1,1,4\n", "lacks the column 'timestamp'"),
    ("ratings.csv", "", "cannot be read"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n" + "1,99,4,5\n" * 20,
     "20 of 20 lines cannot be used"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n" + "1,1,3,5\n" * 20, "no usable rating"),
    ("movies.csv", "movieId,title,genres\n", "has no rows"),
    ("movies.csv", "movieId,title,genres\n1,A,Drama\n2,B,Drama\n1,C,Drama\n",
     r"movies\.csv, row 3: the movie '1' stands there twice"),
])
def test_files_that_cannot_be_used_are_named(tmp_path, name, content, why):
    folder, _ = newer(tmp_path / "raw")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=why):
        movielens.open_dataset(str(folder), tmp_path / "cache")


@pytest.mark.parametrize("bad", ["1,1,4.0,inf", "1,1,4.0,1e300", "1,1,4.0,5.7", "1,1,4.0,-5",
                                 "abc,1,4.0,5", ",1,4.0,5", "1.5,1,4.0,5", "1,1,6,5"])
def test_a_bad_rating_is_shown_with_its_line_and_left_out(tmp_path, caplog, bad):
    folder, _ = newer(tmp_path / "raw")
    good = movielens.open_dataset(str(folder), tmp_path / "cache", with_ids=True)
    with (folder / "ratings.csv").open("a") as file:
        file.write(f"\n{bad}\n")
    found = movielens.open_dataset(str(folder), tmp_path / "cache", with_ids=True)
    assert found.hash == good.hash
    assert "line 202: expected a known user and movie by number" in caplog.text


@pytest.mark.parametrize("bad", ["21|24|M", "21|F|30|other|2", "21|24.0|M|other|2",
                                 "21|24|M||2", f"{10**20}|24|M|other|2"])
def test_a_bad_user_is_shown(tmp_path, caplog, bad):
    folder, _ = hundred_k(tmp_path / "raw")
    good = movielens.open_dataset(str(folder), tmp_path / "cache")
    with (folder / "u.user").open("a") as file:
        file.write(f"{bad}\n")
    assert movielens.open_dataset(str(folder), tmp_path / "cache").hash == good.hash
    assert "line 21: expected user|age|M or F|occupation|zip" in caplog.text


def test_columns_that_a_file_has_beside_its_own_do_not_shift_them(tmp_path):
    folder, _ = newer(tmp_path / "raw")
    good = movielens.open_dataset(str(folder), tmp_path / "cache")
    ratings = (folder / "ratings.csv").read_text().splitlines()
    (folder / "ratings.csv").write_text("\n".join(f"x,{line}" for line in ratings))
    assert movielens.open_dataset(str(folder), tmp_path / "cache").hash == good.hash
    (folder / "ratings.csv").write_text("\n".join([ratings[0], *(f"{line}," for line
                                                                 in ratings[1:])]))
    with pytest.raises(ValueError, match=r"ratings\.csv cannot be read"):
        movielens.open_dataset(str(folder), tmp_path / "cache")


def test_rows_that_are_too_long_are_refused(tmp_path):
    folder, lines = hundred_k(tmp_path / "raw")
    (folder / "u.data").write_text("".join("\t".join([*line, "7"]) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"u\.data cannot be read .*fetch it again"):
        movielens.open_dataset(str(folder), tmp_path / "cache")


def test_ratings_of_movies_that_cannot_be_used_are_left_out(tmp_path, caplog):
    folder, lines = hundred_k(tmp_path / "raw", ratings=4000)
    movies = (folder / "u.item").read_bytes().splitlines(keepends=True)
    wrong = movies[4].replace(b"|1", b"|x")  # of movie 5
    more = [movies[5].replace(b"6|", b"%d|" % number, 1) for number in range(11, 2000)]
    (folder / "u.item").write_bytes(b"".join([*movies[:4], wrong, *movies[5:], *more]))
    rated = sum(line[1] == "5" for line in lines)
    ratings = [line for line in lines if line[1] != "5"] + [line for line in lines
                                                            if line[1] == "5"][:2]
    (folder / "u.data").write_text("".join("\t".join(line) + "\n" for line in ratings))
    dataset = movielens.open_dataset(str(folder), tmp_path / "cache", with_ids=True)
    assert rated > 2
    ids = dataset.vocabulary.field("movie").lookup(["5", "4"])
    assert ids[0] == NOT_FOUND != ids[1]
    assert "u.item" in caplog.text
    assert "u.data" in caplog.text


def test_a_form_that_lacks_a_file_is_named(tmp_path):
    folder, _ = newer(tmp_path / "raw")
    (folder / "movies.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"It holds ratings.csv: .*needs movies.csv too"):
        movielens.open_dataset(str(folder), tmp_path / "cache")


@pytest.mark.real
def test_the_real_hundred_thousand(tmp_path):
    dataset = movielens.open_dataset(str(Path(os.environ["PEP_DATA"]) / "ml-100k"), tmp_path)
    assert sum(dataset.counts) == 72_855
    assert round(float(dataset.labels.mean()), 4) == 0.7601
