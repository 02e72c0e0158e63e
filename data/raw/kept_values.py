"""The values of a raw file's fields, as they are kept with its encoded rows."""

import numpy as np

from data.raw import layout as layout_kinds
from data.raw.layout import DECIMAL, HEX, Layout
from data.raw.value_index import Numbered
from models.vocabulary import (
    BUCKET,
    LOG_SQUARED,
    TEXT,
    WHOLE,
    FieldInfo,
    Packed,
    Vocabulary,
    field_of,
    pack,
)

KINDS = {layout_kinds.BUCKET: BUCKET, DECIMAL: WHOLE, HEX: TEXT}


def vocabulary_of(numbered: Numbered, layout: Layout, tables: list[np.ndarray],
                  tallies: list[np.ndarray]) -> Vocabulary:
    """What each field's values became.

    Args:
        numbered: the file after the first pass.
        tables: for each encoded field, the global id of each number; the last of a field's ids is
            that of its rare values.
        tallies: for each, the rows of each number.
    """
    fields = []
    offset = 0
    for position, table, tally in zip(layout.encoded, tables, tallies, strict=True):
        name = layout.fields[position]
        kind = next(column.kind for column in layout.columns if column.name == name)
        known = np.flatnonzero(tally >= max(layout.min_count, 1))
        unknown = offset + len(known)
        gap = bool(len(known)) and known[0] == 0  # number 0 is the gap
        info = FieldInfo(
            name, KINDS[kind], rule=LOG_SQUARED if kind == layout_kinds.BUCKET else None,
            unknown=unknown, unknown_count=int(tally.sum() - tally[known].sum()),
            missing=int(table[0]) if gap else None, missing_count=int(tally[0]) if gap else 0)
        known = known[1:] if gap else known
        keys = numbered.counters[position].values[known]
        texts = _hexadecimal(keys) if kind == HEX else pack(keys.tolist())
        fields.append(field_of(info, texts, table[known], tally[known]))
        offset = unknown + 1
    return Vocabulary(tuple(fields))


def _hexadecimal(keys: np.ndarray) -> Packed:
    """Keys as 8 hexadecimal digits each.

    >>> _hexadecimal(np.array([255, 0x68fd1e64])).get(1)
    '68fd1e64'
    """
    text = np.frombuffer(bytearray(keys.astype(">u4").tobytes().hex().encode()), np.uint8)
    return Packed(text, 8 * np.arange(len(keys) + 1, dtype=np.int64))
