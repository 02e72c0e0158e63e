"""Fetching a public archive: progress shown, checksum checked, only the wanted members taken out of
it."""

import hashlib
import http.client
import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from utils.files import atomic_path

CHUNK = 1 << 16
TIMEOUT = 30  # seconds without an answer


def fetch_zip(url: str, md5: str, members: tuple[str, ...], target: Path, title: str) -> None:
    """Download a zip archive and put its `members` (matched by their last name) into `target`.

    Member names are never trusted as paths: each wanted file is copied to target/<its plain name>.

    Raises:
        FileNotFoundError: no network or no such address; the message says where to get and put the
            files.
        ValueError: the checksum is another one, or the archive lacks a member.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "archive.zip"
        try:
            found = _download(url, archive, title)
        except (OSError, http.client.HTTPException) as error:
            raise FileNotFoundError(
                f"{title} is not at {target} and could not be downloaded ({error}). Get it from "
                f"{url} on a machine with network and put {', '.join(members)} into {target}, or "
                "name their folder with --data. demo.py needs no files.") from error
        if found != md5:
            raise ValueError(f"{url}: MD5 is {found}, published is {md5}; the download is damaged "
                             "or the file changed. Try again; nothing was unpacked")
        with zipfile.ZipFile(archive) as opened:
            inside = {Path(info.filename).name: info for info in opened.infolist()
                      if not info.is_dir()}
            missing = [name for name in members if name not in inside]
            if missing:
                raise ValueError(f"{url}: the archive lacks {', '.join(missing)}")
            target.mkdir(parents=True, exist_ok=True)
            for name in members:
                with (
                    atomic_path(target / name) as part,
                    opened.open(inside[name]) as source,
                    part.open("wb") as copy,
                ):
                    shutil.copyfileobj(source, copy)


def _download(url: str, path: Path, title: str) -> str:
    """Save the address's bytes under `path` and return their MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True,
                  desc=f"downloading {title}") as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()
