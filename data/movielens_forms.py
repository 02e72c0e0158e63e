"""MovieLens in its other forms: MovieLens-100k, and the CSV files of the newer releases (20M to
32M, latest), which say nothing of the users.

Labels follow one rule in every form: a rating above 3 stars is positive, one below is negative, and
one of exactly 3 is dropped; so 3.5 is positive and 2.5 negative. Time stamps count from the first
rating that is kept. What a form does not tell is a gap.
"""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.movielens import FORMS
from data.raw.bad_lines import BadLines
from models.vocabulary import BUCKET, LOG_SQUARED, FieldInfo

GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
          "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance",
          "Sci-Fi", "Thriller", "War", "Western")  # of u.item's last columns
RATINGS = ["user", "movie", "rating", "time"]
NEUTRAL = 3.0  # stars
WHOLE = r"\d{1,18}"  # of numbers that fit into 64 bits

Columns = dict[str, np.ndarray]


def read_columns(folder: Path, form: str,
                 with_ids: bool) -> tuple[Columns, np.ndarray, dict[str, FieldInfo]]:
    """Raw field columns, labels, and what the time stamps are, of the ratings that are not 3.

    Raises:
        ValueError: a file is damaged, or too many of its lines cannot be used.
    """
    if form == "MovieLens-100k":
        users = _users_100k(folder / "u.user")
        movies = _movies_100k(folder / "u.item")
        ratings = _rows(folder / "u.data", "\t", RATINGS)
    else:
        users = None
        movies = _movies_csv(folder / "movies.csv")
        ratings = _csv(folder / "ratings.csv", {"userId": "user", "movieId": "movie",
                                                "rating": "rating", "timestamp": "time"})
    known = ratings["movie"].isin(movies.index)
    if users is not None:
        known &= ratings["user"].isin(users.index)
    stars = pd.to_numeric(ratings["rating"], errors="coerce")
    for name in ("user", "movie", "time"):
        known &= ratings[name].str.fullmatch(WHOLE)
    good = known & stars.between(0.5, 5)
    _check(folder / FORMS[form][0], ratings, good.to_numpy(),
           "expected a known user and movie by number, 0.5 to 5 stars and whole seconds",
           header=users is None)
    used = (good & (stars != NEUTRAL)).to_numpy()
    if not used.any():
        raise ValueError(f"{folder / FORMS[form][0]} has no usable rating (ratings of 3 are "
                         "dropped)")
    seconds = ratings["time"][used].to_numpy(object).astype(np.int64)
    timestamp = FieldInfo("timestamp", BUCKET, rule=LOG_SQUARED, origin=float(seconds.min()))
    columns, labels = _columns(ratings[used], seconds, users, movies, with_ids)
    return columns, labels, {"timestamp": timestamp}


def _columns(ratings: pd.DataFrame, seconds: np.ndarray, users: pd.DataFrame | None,
             movies: pd.DataFrame, with_ids: bool) -> tuple[Columns, np.ndarray]:
    from data.movielens import time_bucket

    columns = {"timestamp": time_bucket(seconds - seconds.min())}
    if users is not None:
        rows = users.index.get_indexer(ratings["user"])
        for name in ("gender", "age", "occupation", "zip"):
            columns[name] = users[name].to_numpy(object)[rows]
    rows = movies.index.get_indexer(ratings["movie"])
    for name in ("year", "genres"):
        columns[name] = movies[name].to_numpy(object)[rows]
    if with_ids:
        columns |= {name: pd.to_numeric(ratings[name]).to_numpy() for name in ("user", "movie")}
    stars = pd.to_numeric(ratings["rating"]).to_numpy()
    return columns, (stars > NEUTRAL).astype(np.int8)


def _users_100k(path: Path) -> pd.DataFrame:
    users = _rows(path, "|", ["user", "age", "gender", "occupation", "zip"])
    good = (users["user"].str.fullmatch(WHOLE) & users["age"].str.fullmatch(WHOLE)
            & users["gender"].isin(["M", "F"]) & (users["occupation"] != "") & (users["zip"] != ""))
    _check(path, users, good.to_numpy(), "expected user|age|M or F|occupation|zip")
    return _by_id(users[good], "user", path)


def _movies_100k(path: Path) -> pd.DataFrame:
    """movie -> year, genres."""
    head = ["movie", "title", "released", "video", "address"]
    movies = _rows(path, "|", [*head, *GENRES])
    good = np.array(np.isin(movies[list(GENRES)].to_numpy(), ["0", "1"]).all(axis=1))
    _check(path, movies, good, "expected 19 genres of 0 and 1")
    movies = _by_id(movies[good], "movie", path)
    flags = movies[list(GENRES)].to_numpy()
    names = ["|".join(np.array(GENRES)[row == "1"]) or None for row in flags]
    year = movies["released"].str.extract(r"(\d{4})$")[0].fillna(_year(movies["title"]))
    return pd.DataFrame({"year": year.to_numpy(object), "genres": names}, index=movies.index)


def _movies_csv(path: Path) -> pd.DataFrame:
    movies = _by_id(_csv(path, {"movieId": "movie", "title": "title", "genres": "genres"}),
                    "movie", path)
    genres = movies["genres"].replace({"(no genres listed)": None, "": None})
    return pd.DataFrame({"year": _year(movies["title"]).to_numpy(object),
                         "genres": genres.to_numpy(object)}, index=movies.index)


def _by_id(rows: pd.DataFrame, name: str, path: Path) -> pd.DataFrame:
    """The rows by their id; a ValueError where one stands twice."""
    twice = rows.index[rows[name].duplicated()]
    if len(twice):
        raise ValueError(f"{path}, row {twice[0] + 1}: the {name} {rows[name][twice[0]]!r} stands "
                         "there twice; use the file as published by GroupLens, unchanged")
    return rows.set_index(name)


def _year(titles: pd.Series) -> pd.Series:
    """The year in brackets at the end of a title; a gap where there is none."""
    return titles.str.extract(r"\((\d{4})\)\s*$")[0]


def _rows(path: Path, separator: str, names: list[str]) -> pd.DataFrame:
    """A file without header and quotes."""
    return _read(path, sep=separator, names=names, header=None, quoting=csv.QUOTE_NONE,
                 encoding="latin-1", index_col=False)


def _csv(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """A CSV file with these columns, under their new names."""
    read = _read(path, encoding="utf-8-sig", index_col=False)
    missing = [name for name in names if name not in read.columns]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}; as published its header is "
                         f"{','.join(names)}")
    return read[list(names)].rename(columns=names)


def _read(path: Path, **how: Any) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():  # of rows that are too long, whose ends would be lost
            warnings.simplefilter("error", pd.errors.ParserWarning)
            read = pd.read_csv(path, dtype=str, keep_default_na=False, **how)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError,
            UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); fetch it again, and use it as "
                         "published") from error
    if read.empty:
        raise ValueError(f"{path} has no rows; fetch it again")
    return read


def _check(path: Path, rows: pd.DataFrame, good: np.ndarray, expected: str,
           header: bool = False) -> None:
    """Show rows that cannot be used; too many are an error."""
    bad = BadLines(path, "Use the file as published by GroupLens, unchanged")
    for place in np.flatnonzero(~good):
        if not bad.room:
            break
        cells = "|".join(map(str, rows.iloc[place]))
        bad.note(int(place) + 1 + header, expected, cells.encode(), {})
    bad.count = int(np.count_nonzero(~good))
    bad.check(len(rows))
