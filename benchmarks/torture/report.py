"""The campaign's counts as the tables of docs/reliability.md."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.table import Table
from utils.files import atomic_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PLACE = re.compile(r"(<!-- campaign -->\n).*?(<!-- end of campaign -->)", re.DOTALL)
WHAT = {
    "kills": "work killed, interrupted, started twice, with the clock set back; then finished",
    "disk": "work on a disk that is full, limited, read-only, slow, removed, has links; then done",
    "files": "files changed by others, read",
    "rows": "files of 500 raw lines, each line changed, against the plain definition",
    "settings": "random dicts of settings",
    "load": "eight trainings at once in one folder; 200 scorers of one model for five minutes",
    "long": "200 stops of one search; 1,000 epochs"}


@dataclass(frozen=True)
class Mended:
    """A fault that the campaign found.

    Args:
        part: that found it.
        what: was wrong, and what happens now.
        test: holds it, as FILE::NAME.
    """

    part: str
    what: str
    test: str


def write(out: Path) -> None:
    """Put the counts of a folder into the page."""
    text = PAGE.read_text()
    with atomic_path(PAGE) as temporary:
        temporary.write_text(PLACE.sub(lambda found: found[1] + tables(out) + found[2], text))


def tables(out: Path) -> str:
    """The counts of a folder's parts, how each ended, and what was mended."""
    done = {name: json.loads((out / f"{name}.json").read_text()) for name in WHAT
            if (out / f"{name}.json").exists()}
    if not done:
        raise FileNotFoundError(f"there are no counts in {out}; run python -m benchmarks.torture "
                                f"first")
    lines = [(name, WHAT[name], f"{part['trials']:,}", f"{part['trials'] - part['faults']:,}",
              str(sum(fault.part == name for fault in MENDED)), str(part["faults"]))
             for name, part in done.items()]
    head = ("part", "tried", "trials", "survived", "faults mended", "faults left")
    ends = []
    for name, part in done.items():
        ends += [(name, kind, f"{count:,}") for kind, count in part["outcomes"].items()]
    found = [(fault.part, fault.what, f"`{fault.test}`") for fault in MENDED]
    return "\n".join([
        Table(head, lines).markdown(), "", *_origin(done), "", "How the trials ended:", "",
        Table(("part", "end", "trials"), ends).markdown(), "", "Found and mended:", "",
        Table(("part", "what was wrong, and what happens now", "test"), found).markdown(), ""])


def _origin(done: dict[str, Any]) -> list[str]:
    commits, machines = set(), set()
    for part in done.values():
        commits |= {commit[:12] + commit[40:] for commit in part["commits"]}
        machines |= set(part["machines"])
    return [f"The seeds of each part are 0 to its trials less one. Commits: "
            f"{', '.join(sorted(commits))}. Machine: {', '.join(sorted(machines))}."]


MENDED = (
    Mended("files", "A changed number in a checkpoint or in a model's weights was taken. They have "
           "a checksum over all that they hold.",
           "tests/engine/test_resume.py::test_a_checkpoint_with_one_changed_number_is_refused"),
    Mended("files", "Swapped, retyped or changed arrays in a snapshot or an initial table were "
           "taken. The file has a checksum over names, types, shapes and values.",
           "tests/models/test_npz.py::test_a_changed_array_is_refused_though_the_archive_is_whole"),
    Mended("files", "A changed number in result.json or search.json was taken. Both have a "
           "checksum.",
           "tests/engine/test_resume.py::test_a_result_that_was_changed_is_an_error_that_names_it"),
    Mended("files", "A changed id, label or manifest of an encoded set was taken. The checksums of "
           "all its files stand beside them; a damaged set is named and encoded again.",
           "tests/data/test_store.py::"
           "test_a_set_with_one_changed_bit_is_not_read_and_said_to_be_damaged"),
    Mended("files", "A packed array of 256 MiB of zeros, or of any size, was unpacked. What takes "
           "more than the available memory is refused before it is unpacked.",
           "tests/models/test_npz.py::"
           "test_a_file_that_unpacks_to_more_than_the_memory_is_refused_unread"),
    Mended("files", "An array that declares 2^40 rows ended in an error of memory. Its size is "
           "held against its bytes first.",
           "tests/models/test_npz.py::"
           "test_a_shape_that_its_bytes_do_not_fill_is_refused_before_memory_is_taken"),
    Mended("files", "Deeply nested brackets ended in a traceback. They are a named refusal.",
           "tests/utils/test_files.py::test_what_is_no_record_is_refused_with_a_reason"),
    Mended("files", "A damaged result of `compress.py --run`, DartsEmb's widths or runs.csv was "
           "refused without its name.",
           "tests/studies/test_records.py::"
           "test_a_csv_with_bytes_that_are_no_text_is_an_error_that_names_it"),
    Mended("files", "Names of an alias or of snapshots in a result could lead to other folders. "
           "They must be plain names.",
           "tests/engine/test_resume.py::test_names_in_a_result_lead_nowhere_else"),
    Mended("files", "A run of today could not be added to runs.csv: its table of data lacked a "
           "column.",
           "tests/studies/test_records.py::test_what_a_run_of_today_says_of_its_data_is_kept"),
    Mended("files", "Nested brackets in the manifest of an exported model, of saved tables or of "
           "an encoded set, and an infinite version, ended in a traceback. They are refusals.",
           "tests/serving/test_export.py::"
           "test_brackets_nested_deep_and_no_numbers_are_refused_by_name"),
    Mended("files", "Bits flipped in a number and in the checksum's own name made weights of a "
           "file without a checksum, as older files are; so did a piece cut out there. A second "
           "key says that there is one.",
           "tests/engine/test_resume.py::"
           "test_damage_to_the_name_of_the_checksum_makes_no_older_file"),
    Mended("kills", "A process killed while it wrote a snapshot, a tuning or an encoded set left a "
           "temporary file for good. The next write of the same file removes it.",
           "tests/utils/test_files.py::"
           "test_the_next_write_removes_what_dead_processes_left_and_nothing_else"),
    Mended("kills", "A process killed between its result and the end left its checkpoint for good.",
           "tests/engine/test_resume.py::test_a_checkpoint_that_outlived_its_run_is_removed"),
    Mended("kills", "A second Ctrl-C put a traceback in the place of the message.",
           "tests/engine/test_resume.py::"
           "test_a_second_interrupt_puts_no_traceback_in_the_place_of_the_message"),
    Mended("kills", "Snapshots were copied to another alias in place: a kill left half a file.",
           "tests/utils/test_files.py::test_a_copy_is_whole_or_not_there"),
    Mended("disk", "A limit on the size of files, and numpy's short write, named neither path nor "
           "need; so did a full disk under a snapshot.",
           "tests/utils/test_files.py::"
           "test_a_limit_on_files_and_a_short_write_are_named_with_the_need"),
    Mended("disk", "A run whose folder was removed between its weights and its result counted as "
           "finished, without weights. It ends with an error and is run again.",
           "tests/engine/test_resume.py::"
           "test_a_folder_that_was_removed_while_the_run_worked_makes_no_finished_run"),
    Mended("disk", "Where a folder was removed after the last evaluation, a resumed run lacked the "
           "curve. It is written again.",
           "tests/engine/test_resume.py::"
           "test_a_curve_that_was_lost_after_its_last_evaluation_is_written_again"),
    Mended("disk", "A checkpoint of several processes that lacked a file ended in a traceback. "
           "It is corrupt, by its name.",
           "tests/engine/distributed/test_bad_input.py::"
           "test_a_checkpoint_that_cannot_be_resumed"),
    Mended("disk", "A full disk under an exported model was an error without a path.",
           "tests/models/test_new_files.py::"
           "test_a_disk_that_takes_no_more_is_named_with_the_need"),
    Mended("rows", "A raw line with a quote and a carriage return ended in a traceback. It is a "
           "bad line like others.",
           "tests/data/test_forms.py::"
           "test_quotes_and_a_carriage_return_in_a_line_are_no_form_and_no_traceback"),
    Mended("disk", "A disk that was full at the last bytes of an encoding's own file went "
           "unnoticed until they were read. It is an error of the write.",
           "tests/data/table/test_own_table.py::"
           "test_a_disk_that_is_full_at_the_last_byte_is_an_error"),
    Mended("rows", "A time with a fraction of a second was one text in a Parquet file and another "
           "as a Python value. Times are of whole seconds, in UTC, everywhere.",
           "tests/data/table/test_own_table.py::"
           "test_times_with_fractions_and_zones_are_the_same_text_in_a_file_and_as_python_values"),
    Mended("settings", "A tensor train with products in bfloat16 ended in a traceback. Its own "
           "products are float32.",
           "tests/models/test_tensor_train.py::"
           "test_rows_are_float32_where_products_of_the_model_are_not"),
    Mended("settings", "DartsEmb's widths were checked after the data were read.",
           "tests/engine/test_darts.py::test_widths_are_checked_before_any_data_are_read"),
)
