"""What an encoded data set looks like: its fields, their sizes and where each field starts in the
whole table."""

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Schema:
    """Fields of a data set. Ids are global: field f occupies the rows offsets[f] .. offsets[f] +
    sizes[f] - 1.

    A column with several values in a cell has a field for each of them, its slots. Their ids are
    rows of the first slot's, and the sizes of the others are 0.

    >>> schema = Schema("toy", ("gender", "age"), (2, 7))
    >>> schema.num_rows, schema.offsets
    (9, (0, 2))
    """

    name: str
    fields: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.fields) != len(self.sizes):
            raise ValueError(f"{len(self.fields)} field names but {len(self.sizes)} sizes")
        if not self.sizes or min(self.sizes) < 0 or not self.sizes[0]:
            raise ValueError(f"every field needs at least one value, or a field with values before "
                             f"it whose slot it is, got the sizes {self.sizes}")

    @property
    def has_slots(self) -> bool:
        """Whether a column has several values in a cell."""
        return 0 in self.sizes

    @property
    def num_fields(self) -> int:
        """F."""
        return len(self.fields)

    @property
    def num_rows(self) -> int:
        """N, the rows of the whole table."""
        return sum(self.sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each field."""
        return tuple(accumulate((0, *self.sizes[:-1])))
