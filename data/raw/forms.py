"""Forms in which raw files reach us after another program saved them: their names, and what to do.

Nothing is converted: 260.0 for 260 or a hash in upper case would be another category.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.raw.layout import BUCKET, DECIMAL, HEX, ID, LABEL, Layout
from data.raw.plain import fits

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", "\x01": "Hive's \\x01",
              " ": "spaces", ":": "colons", "::": "double colons"}


@dataclass(frozen=True)
class Form:
    """A way in which a file departs from the published one, and what to do about it."""

    name: str
    hint: str


DECIMAL_POINT = Form("whole numbers with a decimal point",
                     "pandas writes whole numbers with gaps so; 260.0 would be another category "
                     "than 260, write 260 (pandas: Int64)")
EXPONENT = Form("numbers with an exponent", "digits are lost; start from the file as published")
QUOTED = Form("cells in quotes", "save them without (pandas: quoting=csv.QUOTE_NONE)")
GAP = Form("words for gaps",
           "a gap must be empty (pandas: na_rep=''; for Hive's: sed 's/\\\\N//g')")
UPPER_CASE = Form("hashes in upper case",
                  "they would be other categories; write them in lower case "
                  "(awk '{print tolower($0)}', a header apart)")
SHORT_HASH = Form("hashes of fewer than 8 digits",
                  "leading zeros are lost, as where a spreadsheet reads them as numbers; start "
                  "from the file as published")
SPACES = Form("spaces around cells", "remove them")
DATE = Form("dates", "write the hour as published, 14102100 for 21 October 2014, 0 o'clock")
WORD_LABEL = Form("labels in words", "write 0 and 1")
INDEX = Form("a further column in front",
             "save the file without Id and without an index (pandas: index=False)")
NO_LABEL = Form("no label", "this looks like the test file; take the one for training")
NUL = Form("NUL bytes",
           "the file is damaged or not whole, as after a download or copy that was broken off; "
           "fetch it again")
_ANY = (None,)
_CELLS: dict[Form, tuple[tuple[int | None, ...], str]] = {  # kinds of columns, pattern of the cell
    QUOTED: (_ANY, r"(['\"]).*\1"),
    GAP: (_ANY, r"(?i)nan|null|none|na|n/a|#n/a|<na>|nat|\\n"),
    EXPONENT: (_ANY, r"[+-]?\d+(\.\d*)?[eE][+-]\d+"),
    DECIMAL_POINT: (_ANY, r"-?\d+\.0*"),
    UPPER_CASE: ((HEX,), r"[0-9a-fA-F]{8}"),
    SHORT_HASH: ((HEX,), r"[0-9a-f]{1,7}"),
    SPACES: ((ID, LABEL, BUCKET, DECIMAL, HEX), r"\s+\S+\s*|\S+\s+"),
    DATE: ((DECIMAL,), r"\d{4}-\d\d-\d\d.*"),
    WORD_LABEL: ((LABEL,), r"(?i)true|false"),
}
_COLUMNAR = ("is a {} file, which is not read here",
             "write it as text, whole numbers without a decimal point and nothing in a gap "
             "(pandas.read_{}(FILE).convert_dtypes().to_csv(NEW, sep=..., header=..., "
             "index=False), which needs pyarrow)")
_PACKED = ("is packed by {}, which is not read here", "unpack it: {}")
_UTF_16 = ("is UTF-16 text", "turn it into plain text: iconv -f UTF-16 -t UTF-8 FILE > NEW")
_FOREIGN = {  # first bytes -> (what, what to do), and what to put into these
    b"\x28\xb5\x2f\xfd": (_PACKED, "Zstandard", "zstd -d FILE"),
    b"BZh": (_PACKED, "bzip2", "bzip2 -d FILE"),
    b"7z\xbc\xaf\x27\x1c": (_PACKED, "7-Zip", "7z x FILE"),
    b"Rar!": (_PACKED, "RAR", "unrar x FILE"),
    b"PAR1": (_COLUMNAR, "Parquet", "parquet"),
    b"ARROW1": (_COLUMNAR, "Feather (Arrow)", "feather"),
    b"ORC": (_COLUMNAR, "ORC", "orc"),
    b"\x89HDF": (_COLUMNAR, "HDF5", "hdf"),
    b"\xd0\xcf\x11\xe0": (("is an Excel workbook, which changes hashes and large numbers",
                           "use the file as published"), "", ""),
    b"version https://git-lfs": (("is a pointer of Git LFS, not the file", "git lfs pull"), "", ""),
    b"\xff\xfe": (_UTF_16, "", ""),
    b"\xfe\xff": (_UTF_16, "", ""),
}


def separated(separator: str) -> Form:
    """Columns between other separators than the published ones."""
    name = f"columns separated by {SEPARATORS[separator]}"
    return Form(name, "save them with the separator as published")


def refuse_foreign(path: Path, head: bytes) -> None:
    """Raise a ValueError that names what a file is if its first bytes are not of plain text.

    Args:
        head: the first bytes of the file or, of a packed one, of what is in it.

    >>> refuse_foreign(Path("train.txt"), b"1,2")
    >>> refuse_foreign(Path("train.txt"), b"PAR1")
    Traceback (most recent call last):
    ValueError: train.txt is a Parquet file, which is not read here; ...
    """
    for magic, ((what, hint), name, tool) in _FOREIGN.items():
        if head.startswith(magic):
            raise ValueError(f"{path} {what.format(name)}; {hint.format(tool)}")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, such as a download without a login leaves; log in "
                         "where the file is and download it there")
    if len(head) > 7 and b"\0\0\0\0" in (head[0:8:2], head[1:8:2]) and head[:8].strip(b"\0"):
        raise ValueError(f"{path} is UTF-16 text; turn it into plain text: iconv -f UTF-16LE (or "
                         "UTF-16BE) -t UTF-8 FILE > NEW")


def find_forms(line: str, separator: str, kinds: Sequence[int | None]) -> dict[Form, str]:
    """The forms of a line that cannot be used, each with the cell (or beginning) that shows it.

    Args:
        kinds: of the columns as published, see `data.raw.layout`; None for text.

    >>> [form.name for form in find_forms("7,1,260.0", ",", (LABEL, 3))]
    ['a further column in front', 'whole numbers with a decimal point']
    """
    found: dict[Form, str] = {}
    if "\0" in line:
        found[NUL] = line[:20]
    cells, used = _split(line, separator, len(kinds))
    if used != separator:
        found[separated(used)] = line[:20]
    if len(cells) == len(kinds) + 1 and not cells[-1]:  # a trailing separator, or an empty cell?
        cells = max(cells[:-1], cells, key=lambda few: _fitting(few[-len(kinds):], kinds))
    without_label = [kind for kind in kinds if kind is not None and kind != LABEL]
    if _plausible(cells[1:], kinds):
        found[INDEX] = cells[0]
        cells = cells[1:]
    elif len(cells) == len(without_label) < len(kinds) and all(map(fits, cells, without_label)):
        found[NO_LABEL] = line[:20]
        kinds = without_label
    if len(cells) == len(kinds):
        for cell, kind in zip(cells, kinds, strict=True):
            form = form_of_cell(cell, kind)
            if form is not None:
                found.setdefault(form, cell)
    return found


def describe_header(line: str, layout: Layout) -> str | None:
    """How a first line that names columns differs from the published one; None: it names none.

    >>> from data.avazu import LAYOUT
    >>> describe_header("," + LAYOUT.header, LAYOUT)
    'a further column in front (without a name)'
    """
    names = [column.name.lower() for column in layout.columns]
    numbers = [str(place) for place in range(len(names))]
    cells, separator = _split(line, layout.separator, len(names))
    bare = [cell.strip().strip("\"'").lower() for cell in cells]
    numbered = numbers in (bare, bare[1:])
    if not numbered and sum(cell in names for cell in bare) <= len(bare) / 2:
        return None
    found = []
    if separator != layout.separator:
        found.append(separated(separator).name)
    if numbered:
        found.append("numbers in place of names, as pandas writes them (header=False)")
    if bare[1:] in (names, numbers):
        found.append(f"{INDEX.name} ({bare[0] or 'without a name'})")
    label = next(column.name.lower() for column in layout.columns if column.kind == LABEL)
    if label not in bare and not numbered:
        found.append(f"no column {label}: {NO_LABEL.hint}")
    if any(cell.strip()[:1] in ("'", '"') for cell in cells):
        found.append(QUOTED.name)
    elif layout.separator == "\t" and separator == "," and bare[1:] == names:
        found.append("as Kaggle's csv has it; to turn it into the published form: "
                     "tail -n +2 FILE | cut -d, -f2- | tr ',' '\\t' > NEW")
    return ", ".join(found)


def _fitting(cells: Sequence[str], kinds: Sequence[int | None]) -> int:
    """How many cells are as published."""
    return sum(kind is None or fits(cell, kind) for cell, kind in zip(cells, kinds, strict=True))


def _plausible(cells: Sequence[str], kinds: Sequence[int | None]) -> bool:
    """Whether each cell is as published or of a form that is known here."""
    return len(cells) == len(kinds) and all(
        kind is None or fits(cell, kind) or form_of_cell(cell, kind) is not None
        for cell, kind in zip(cells, kinds, strict=True))


def _split(line: str, separator: str, columns: int) -> tuple[list[str], str]:
    """The cells of a line and their separator: another one, if only that gives the columns."""
    fitting = (columns, columns + 1)
    cells = line.split(separator)
    if len(cells) in fitting:
        return cells, separator
    for other in (separator, *SEPARATORS):
        if other != separator and len(parts := line.split(other)) in fitting:
            return parts, other
        if '"' in line and len(other) == 1 and len(parts := _unquoted(line, other)) in fitting:
            return parts, other
    return cells, separator


def _unquoted(line: str, separator: str) -> list[str]:
    """Cells of a line of csv; those that were in quotes keep them. None where it is no csv: a
    carriage return inside of it, or a quote that spans too much."""
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
    return [f'"{cell}"' if separator in cell else cell for cell in cells]


def form_of_cell(cell: str, kind: int | None) -> Form | None:
    """In which form a cell is; None when it is as published, or wrong in another way.

    >>> form_of_cell("05DB9164", HEX).name, form_of_cell("05db9164", HEX)
    ('hashes in upper case', None)
    """
    if kind is not None and fits(cell, kind):
        return None
    of_kind = [form for form in _CELLS if kind in _CELLS[form][0] or None in _CELLS[form][0]]
    return next((form for form in of_kind if re.fullmatch(_CELLS[form][1], cell)), None)
