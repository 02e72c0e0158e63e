"""Made raw data in the original MovieLens-1M format."""

import zlib
from pathlib import Path

import numpy as np

from data.movielens import FIRST_RATING

AGES = (1, 18, 25, 35, 45, 50, 56)
GENRES = ("Action", "Comedy", "Drama", "Horror", "Action|Comedy", "Comedy|Drama")
USERS, MOVIES = 120, 80


def movielens_lines(ratings: int = 3000, seed: int = 0) -> dict[str, list[str]]:
    """Lines of ratings.dat, users.dat and movies.dat whose ratings depend on age, genre and year of
    a pair."""
    rng = np.random.default_rng(seed)
    age, gender = rng.choice(len(AGES), USERS), rng.choice(2, USERS)
    genre, year = rng.choice(len(GENRES), MOVIES), 1950 + rng.choice(50, MOVIES)
    users = [f"{u + 1}::{'FM'[gender[u]]}::{AGES[age[u]]}::{rng.integers(21)}::"
             f"{10000 + rng.integers(60)}" for u in range(USERS)]
    movies = [f"{m + 1}::Film {m + 1}, The ({year[m]})::{GENRES[genre[m]]}" for m in range(MOVIES)]
    taste = rng.normal(0, 2, (len(AGES), len(GENRES)))
    pairs = rng.choice(USERS * MOVIES, ratings, replace=False)
    times = FIRST_RATING + np.sort(rng.integers(0, 60_000_000, ratings))
    lines = []
    for pair, time in zip(pairs, times, strict=True):
        u, m = divmod(int(pair), MOVIES)
        score = 3.4 + taste[age[u], genre[m]] + (1999 - year[m]) / 50 + rng.normal(0, 0.7)
        lines.append(f"{u + 1}::{m + 1}::{int(np.clip(round(score), 1, 5))}::{time}")
    return {"ratings.dat": lines, "users.dat": users, "movies.dat": movies}


def write_lines(folder: Path, lines: dict[str, list[str]], ending: str = "\n") -> Path:
    """Write each file's lines in Latin-1 and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in lines.items():
        (folder / name).write_bytes("".join(line + ending for line in content).encode("latin-1"))
    return folder


def write_movielens(folder: Path, ratings: int = 3000, seed: int = 0) -> Path:
    """A folder that the MovieLens scripts take with --data."""
    return write_lines(folder, movielens_lines(ratings, seed))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Checksum and modification time of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): (zlib.crc32(path.read_bytes()), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*")) if path.is_file()}
