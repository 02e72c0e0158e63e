"""What a line of a raw file looks like, column by column."""

from dataclasses import dataclass

ID, LABEL, BUCKET, DECIMAL, HEX = range(5)
KIND_NAMES = {
    ID: "an unsigned whole number", LABEL: "a label of 0 or 1",
    BUCKET: "a whole number of at most 9 digits or nothing",
    DECIMAL: "a whole number of at most 9 digits or nothing",
    HEX: "8 hexadecimal digits (0-9, a-f) or nothing",
}
MAX_DIGITS = {ID: 20, BUCKET: 9, DECIMAL: 9, HEX: 8}


@dataclass(frozen=True)
class Column:
    """One column of the raw file.

    Args:
        name: of the column; for a field of the model, the field's name.
        kind: ID (checked, then left out), LABEL, BUCKET (a number that becomes the category
            floor(ln(v)^2) for v > 2, else v - 2, and is kept as log(v + 1) too), DECIMAL (a number
            taken as a category) or HEX (a category).
    """

    name: str
    kind: int


@dataclass(frozen=True)
class Layout:
    """A raw file: one line a row, columns between separators, perhaps a header.

    Args:
        name: of the data set.
        separator: one character.
        columns: in the order of the file; exactly one is the label.
        has_header: the first line names the columns.
        file_names: what the file may be called, the usual name first; each also with .gz, .xz,
            .zip, .tar or .tar.gz behind it.
        url: where users get it.
        min_count: values seen fewer times in their field become its one unknown value.
        split_seed: of the random split; it belongs to the data set, not to a run.
        rules_version: raise it when the same file would be encoded differently.
        bucketed: BUCKET columns are fields too; otherwise they are kept as numbers alone.
        archives: names under which the file is handed out packed with others.
    """

    name: str
    separator: str
    columns: tuple[Column, ...]
    has_header: bool
    file_names: tuple[str, ...]
    url: str
    min_count: int = 10
    split_seed: int = 20_210_118
    rules_version: int = 2
    bucketed: bool = True
    archives: tuple[str, ...] = ()

    @property
    def header(self) -> str:
        """The first line of a file that has one."""
        return self.separator.join(column.name for column in self.columns)

    @property
    def published(self) -> str:
        """What the file looks like where it comes from, and how to save one so."""
        tabs = self.separator == "\t"
        header = "a header" if self.has_header else "no header"
        return (f"As published ({self.url}), a {self.name} file has {len(self.columns)} columns "
                f"between {'tabs' if tabs else 'commas'}, {header}, no quotes, whole numbers such "
                "as 260, hashes of 8 lower-case digits and nothing in a gap. Use that file, or "
                "read yours as text and save it so: "
                "pandas.read_csv(FILE, dtype=str, keep_default_na=False, ...)"
                f".to_csv(NEW, sep={self.separator!r}, header={self.has_header}, index=False)")

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that may be fields of the model."""
        return tuple(column.name for column in self.columns
                     if column.kind in (BUCKET, DECIMAL, HEX))

    @property
    def encoded(self) -> list[int]:
        """Positions among `fields` of those that are fields of the model."""
        return [position for position, name in enumerate(self.fields) if self.bucketed
                or name not in self.dense]

    @property
    def dense(self) -> tuple[str, ...]:
        """The columns that are kept as numbers too."""
        return tuple(column.name for column in self.columns if column.kind == BUCKET)
