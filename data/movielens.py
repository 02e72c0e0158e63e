"""MovieLens as PEP uses it: ratings of 3 dropped, label = rating above 3; of MovieLens-1M seven
fields. Its other forms are read too, see `data.movielens_forms`."""

import logging
import os
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import store
from data.raw.download import fetch_zip
from data.raw.forms import form_of_cell
from data.raw.layout import ID
from data.raw.lines import LineFile
from data.split import RANDOM, SPLITS, identity, require_both_classes
from models.vocabulary import BUCKET, LOG_SQUARED, FieldInfo
from utils.files import sha256_of, sha256_of_file

log = logging.getLogger("pep")

NAME = "movielens"
FILES = ("ratings.dat", "users.dat", "movies.dat")
# files of the other forms, see `data.movielens_forms`
FORMS = {"MovieLens-100k": ("u.data", "u.user", "u.item"),
         "MovieLens in CSV files": ("ratings.csv", "movies.csv")}
KINDS = {"ratings.dat": (ID, ID, ID, ID), "users.dat": (ID, None, ID, ID, None),
         "movies.dat": (ID, None, None)}
LINES = {"ratings.dat": "1::1193::5::978300760", "users.dat": "1::F::1::10::48067",
         "movies.dat": "1::Toy Story (1995)::Animation|Children's|Comedy"}
URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"  # published beside the archive
FIRST_RATING = 956_703_932  # time stamp of the data set's first rating, seconds
EXPECTED_ROWS = 739_012  # ratings of 1, 2, 4 and 5 in the official archive
SPLIT_SEED = 20_210_118
RULES_VERSION = 1
TIMESTAMP = FieldInfo("timestamp", BUCKET, rule=LOG_SQUARED, origin=FIRST_RATING)


def find_folder(folder: str | None) -> Path:
    """The folder with `ratings.dat`, or the files of another form: the given one, else
    $PEP_DATA/ml-1m, else data/ml-1m (downloaded when absent).

    Raises:
        FileNotFoundError: a given folder lacks a file, or nothing is there and the download fails.
    """
    if folder is not None:
        return _with_all_files(Path(folder), "--data")
    if os.environ.get("PEP_DATA"):
        return _with_all_files(Path(os.environ["PEP_DATA"]) / "ml-1m", "PEP_DATA")
    home = Path(__file__).parent / "ml-1m"
    if not all((home / name).is_file() for name in FILES):
        fetch_zip(URL, MD5, FILES, home, "MovieLens-1M")
    return home


def form_of(folder: Path) -> str | None:
    """The form whose files are all in a folder."""
    for form, names in FORMS.items():
        if all((folder / name).is_file() for name in names):
            return form
    return None


def _with_all_files(folder: Path, origin: str) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing and form_of(folder) is None:
        raise FileNotFoundError(
            f"{origin}: {folder} lacks {', '.join(missing)}; it must hold the unpacked "
            f"MovieLens-1M files {', '.join(FILES)} (from {URL}). {_other_form(folder)}demo.py "
            f"needs no files.")
    return folder


def _other_form(folder: Path) -> str:
    """What is there in place of the three files, and what to do; a sentence and a space."""
    if folder.is_file():
        return (f"{folder.name} is a file: unpack it if it is an archive, and name the folder of "
                "the three files. ")
    for inner in (folder / "ml-1m", folder / "ml-1m" / "ml-1m"):
        if all((inner / name).is_file() for name in FILES):
            return f"They are in {inner}: name that folder. "
    others = {"ml-1m.zip": f"unpack it: unzip {folder / 'ml-1m.zip'} -d {folder}",
              "u.data": "it is of MovieLens-100k, which needs u.user and u.item too",
              "ratings.csv": "it is of a newer MovieLens (20M, 25M, latest), which needs "
                             "movies.csv too",
              "ratings.dat.gz": "unpack it: gunzip",
              "ratings.parquet": "take the text files of ml-1m.zip"}
    found = next((name for name in others if (folder / name).is_file()), None)
    return f"It holds {found}: {others[found]}. " if found else ""


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = RANDOM) -> store.Dataset:
    """The encoded data set, from the cache when it was made from the same files by the same rules.

    Args:
        folder: see `find_folder`.
        cache: where encoded sets are kept.
        with_ids: add the fields user and movie (9 fields instead of the paper's 7).
        vocabulary: see `data.store.build`.
        split: see `data.split.split_indices`; row numbers are those of the ratings that are not 3.
    """
    raw = find_folder(folder)
    form = None if (raw / FILES[0]).is_file() else form_of(raw)
    names = FILES if form is None else FORMS[form]
    hashes = {name: sha256_of_file(raw / name) for name in names}
    source = {"files": hashes, "rules": RULES_VERSION, "split_seed": SPLIT_SEED,
              "split": identity(split)}
    key = sha256_of(*hashes.values(), identity(split))[:8]
    target = cache / f"{NAME}-{9 if with_ids else 7}-{vocabulary}-{key}"
    dataset = store.load(target, source)
    if dataset is None:
        log.info("encoding %s from %s", form or "MovieLens-1M", raw)
        if form is None:
            columns, labels = read_columns(raw, with_ids)
            kinds = {"timestamp": TIMESTAMP}
        else:
            from data import movielens_forms  # pandas, which takes half a second

            columns, labels, kinds = movielens_forms.read_columns(raw, form, with_ids)
        dataset = store.build(NAME, columns, labels, SPLIT_SEED, vocabulary, split, kinds)
        if changed := [name for name in names if sha256_of_file(raw / name) != hashes[name]]:
            raise ValueError(f"{raw / changed[0]} changed while it was read; wait until it is "
                             "complete and start again")
        store.save(dataset, target, source)
    positives = [int(dataset.split(part)[1].sum()) for part in SPLITS]
    require_both_classes(NAME, positives, dataset.counts)  # of an older set too
    return dataset


def open_with_ids(folder: str | None, cache: Path, with_ids: bool = True, vocabulary: str = "all",
                  split: str = RANDOM) -> store.Dataset:
    """As a data set of its own, so that its runs and pages are apart: `open_dataset` with the
    fields user and movie, whatever `with_ids` is."""
    return open_dataset(folder, cache, True, vocabulary, split)


def read_columns(folder: Path, with_ids: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Raw field columns and labels of the ratings that are not 3, in file order.

    Raises:
        ValueError: a file is empty or mis-encoded, or too many of its lines are unusable (see
            `data.raw.lines`).
    """
    users = _users(_open(folder, "users.dat"))
    movies = _movies(_open(folder, "movies.dat"))
    columns = _ratings(_open(folder, "ratings.dat"), users, movies)
    used = columns.pop("rating")
    if len(used) != EXPECTED_ROWS:
        log.warning("%s: %d usable ratings; the official archive has %d", folder, len(used),
                    EXPECTED_ROWS)
    if not with_ids:
        del columns["user"], columns["movie"]
    return columns, (used > 3).astype(np.int8)


def _open(folder: Path, name: str) -> LineFile:
    published = (f"As unpacked from {URL}, {name} has lines such as {LINES[name]!r}; use that "
                 "file, unchanged")
    return LineFile(folder / name, KINDS[name], published)


def _users(file: LineFile) -> dict[bytes, tuple[str, int, int, str]]:
    """user -> (gender, age, occupation, zip code)."""
    users = {}
    for number, (user, gender, age, occupation, zip_code) in file.rows():
        whole = _is_whole(age) and _is_whole(occupation) and _is_whole(user)
        if gender not in (b"F", b"M") or not whole or not _as_published(zip_code):
            file.bad(number, "expected user::F or M::age::occupation::zip")
        elif user in users:
            file.bad(number, f"user {user.decode()} stands there twice")
        else:
            users[user] = (gender.decode(), int(age), int(occupation), zip_code.decode("latin-1"))
    file.check()
    return users


def _is_whole(text: bytes) -> bool:
    """Whether a text is a whole number of 64 bits."""
    return text.isdigit() and len(text) <= 18


def _as_published(text: bytes) -> bool:
    """Whether a text was not turned into a number and back, nor put in quotes."""
    return form_of_cell(text.decode("latin-1"), None) is None


def _movies(file: LineFile) -> dict[bytes, tuple[int, str]]:
    """movie -> (release year, genre combination)."""
    movies = {}
    for number, (movie, title, genres) in file.rows():
        year = re.search(rb"\((\d{4})\)\s*$", title)
        if not (year and _is_whole(movie) and genres and _as_published(genres)):
            file.bad(number, "expected movie::title (year)::genres")
        elif movie in movies:
            file.bad(number, f"movie {movie.decode()} stands there twice")
        else:
            movies[movie] = (int(year[1]), genres.decode("latin-1"))
    file.check()
    return movies


def _ratings(file: LineFile, users: dict[bytes, tuple[str, int, int, str]],
             movies: dict[bytes, tuple[int, str]]) -> dict[str, np.ndarray]:
    ratings, seconds, who, what = [], [], [], []
    scale = {b"1": 1, b"2": 2, b"3": 3, b"4": 4, b"5": 5}
    rows = tqdm(file.rows(), f"reading {file.path.name}", len(file.lines), unit="rows",
                unit_scale=True, disable=None)
    for number, (user, movie, rating, time) in rows:
        if user not in users or movie not in movies or rating not in scale or not _is_whole(time):
            file.bad(number, "expected a known user::a known movie::1 to 5::seconds")
        elif rating != b"3":
            ratings.append(scale[rating])
            seconds.append(int(time))
            who.append(user)
            what.append(movie)
    file.check()
    if not ratings:
        raise ValueError(f"{file.path} has no usable rating (ratings of 3 are dropped)")
    gender, age, occupation, zip_code = zip(*(users[user] for user in who), strict=True)
    year, genres = zip(*(movies[movie] for movie in what), strict=True)
    return {
        "timestamp": time_bucket(np.array(seconds) - FIRST_RATING), "gender": np.array(gender),
        "age": np.array(age),
        "occupation": np.array(occupation), "zip": np.array(zip_code), "year": np.array(year),
        "genres": np.array(genres), "user": np.array(who).astype(int),
        "movie": np.array(what).astype(int),
        "rating": np.array(ratings, np.int8),
    }


def time_bucket(seconds: np.ndarray) -> np.ndarray:
    """floor(ln(t)^2) for t > 2, else t - 2, of seconds since the first rating.

    >>> time_bucket(np.array([0, 2, 3, 1000])).tolist()
    [-2, 0, 1, 47]
    """
    logs = np.log(np.maximum(seconds, 1).astype(np.float64))
    return np.where(seconds > 2, np.floor(logs * logs), seconds - 2).astype(np.int64)
