"""Figure 11: training loss with and without PEP."""

import csv
import struct

import pytest
from synthetic_results import curve, put, result, search

from studies.figures import fig11
from studies.page import write


def made(out):
    return [*(put(out, search(f"s{seed}", seed), curve(epochs=40)) for seed in (1, 2, 3)),
            put(out, search("coarse", own={"threshold_type": "dimension"}), curve()),
            *(put(out, result(f"u{seed}", seed=seed, auc=0.75), curve()) for seed in (1, 2)),
            put(out, result("narrow", seed=3, own={"latent_dim": 4}), curve())]


def test_numbers_lines_and_what_is_missing(tmp_path):
    page = fig11.build(made(tmp_path), tmp_path, "movielens", "fm")
    assert [(number.what, number.values, number.seeds) for number in page.numbers] == [
        ("training loss of the last epoch, with PEP", [pytest.approx(0.3)] * 3, 3),
        ("training loss of the last epoch, without PEP", [pytest.approx(0.35)] * 2, 2)]
    assert page.missing == ["base model, uniform d 8: seed 3"]
    drawn = {line.get_label(): line for line in page.figure.axes[0].lines}
    assert list(drawn["with PEP"].get_xdata()) == list(range(2, 42, 2))
    assert drawn["without PEP"].get_ydata()[-1] == pytest.approx(0.3 + 0.3 / 20)


def test_rows_name_their_run_and_the_picture_fits_a_column(tmp_path):
    table, picture, _ = write(fig11.build(made(tmp_path), tmp_path, "movielens", "fm"),
                              tmp_path / "pages")
    assert {row["runs"] for row in csv.DictReader(table.open())} == {"s1", "s2", "s3", "u1", "u2"}
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (680, 520)
