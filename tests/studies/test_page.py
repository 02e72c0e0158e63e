"""A page: what its three files hold, and that they are whole or not there."""

import struct

import pytest
from synthetic_results import result, search, ticket

from studies import choice
from studies.figures import budget_curve, fig8, fig10, fig11
from studies.page import Page, mark_synthetic, number, text, warnings, with_sampling_error, write

RUNS = [result("a", auc=0.80), result("b", seed=2, auc=0.82)]


def page(**parts):
    made = Page("fig10", "movielens", "fm", "Figure 10: made")
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def full():
    figure = budget_curve.new_figure((3.4, 1.7))
    figure.add_subplot()
    return page(rows=[{"epoch": 2, "runs": "a b"}, {"test_auc": 0.5, "runs": "c"}], figure=figure,
                behind=RUNS,
                numbers=[number("test AUC", RUNS, lambda run: run["test_auc"], 0.8,
                                "another split")],
                missing=["uniform d 64: seed 3"], notes=["What it shows."])


def test_the_text_has_title_picture_numbers_and_what_is_missing():
    assert text(full()) == """\
# Figure 10: made

![Figure 10: made](fig10_movielens_fm.png)

What it shows.

| number | ours (mean ± s.d.) | seeds | paper | difference | sampling error | why |
| --- | --- | --- | --- | --- | --- | --- |
| test AUC | 0.8100 ± 0.0141 | 2 | 0.8000 | +0.0100 |  | another split |

Missing:

- uniform d 64: seed 3

Every row of `fig10_movielens_fm.csv` names the runs behind it.
"""


def test_three_files_are_written_and_the_text_comes_last(tmp_path):
    table, picture, words = write(full(), tmp_path / "figures")
    assert [path.name for path in (table, picture, words)] == [f"fig10_movielens_fm.{end}"
                                                                for end in ("csv", "png", "md")]
    assert table.read_text() == "epoch,test_auc,runs\n2,,a b\n,0.5,c\n"
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (680, 340)
    assert sorted(path.name for path in table.parent.iterdir()) == sorted(
        path.name for path in (table, picture, words)
    )


def test_with_nothing_at_all_it_says_so_and_draws_nothing(tmp_path):
    write(page(missing=["uniform: no run"], notes=["What it would show."]), tmp_path)
    assert not list(tmp_path.glob("*.png"))
    said = (tmp_path / "fig10_movielens_fm.md").read_text()
    assert "There is nothing to show yet." in said
    assert "- uniform: no run" in said
    assert "png" not in said
    assert "What it would" not in said


def test_a_picture_that_cannot_be_drawn_again_is_kept_and_called_older(tmp_path):
    picture = write(full(), tmp_path)[1]
    before = picture.read_bytes()
    written = write(page(missing=["uniform: no run"]), tmp_path)
    assert [path.suffix for path in written] == [".csv", ".md"]
    assert picture.read_bytes() == before
    said = written[-1].read_text()
    assert "![Figure 10: made](fig10_movielens_fm.png)" in said
    assert "**Warning:** the picture is older than this page" in said
    assert "older than this page" not in write(full(), tmp_path)[-1].read_text()  # drawn again


def drawn_from(files, lost=()):
    made = full()
    made.drawn = set(files)
    for file in lost:
        made.lose(file, f"{file} is missing")
    return made


@pytest.mark.parametrize(("files", "lost", "kept"), [
    (["a/curve"], ["b/curve"], True),  # the older picture shows b, which is lost
    (["a/curve"], ["c/curve"], False),  # c was never in it
    (["a/curve", "c/curve"], [], False)])  # b was superseded, nothing is lost
def test_a_picture_is_kept_where_it_shows_a_file_that_is_lost_now(tmp_path, files, lost, kept):
    write(drawn_from(["a/curve", "b/curve"]), tmp_path)
    *_, said = write(drawn_from(files, lost), tmp_path)
    assert ("older than this page" in said.read_text()) == kept


def test_a_picture_that_does_not_say_what_it_shows_is_kept_while_any_file_is_lost(tmp_path):
    budget_curve.save(full().figure, tmp_path / "fig10_movielens_fm.png")
    assert "older than this page" in write(drawn_from([], ["b/curve"]), tmp_path)[-1].read_text()
    assert "older than this page" not in write(drawn_from([]), tmp_path)[-1].read_text()


def test_nothing_stands_beside_the_paper_where_the_data_are_a_sample():
    made = full()
    made.of_sample("a sample of 10,000 of 45,840,617 rows")
    said = text(made)
    assert said.startswith("# Figure 10: made, a sample of 10,000 of 45,840,617 rows\n")
    assert "| test AUC | 0.8100 ± 0.0141 | 2 |  |  |  |  |" in said


def test_the_sampling_error_stands_beside_the_papers_number_and_nowhere_else():
    beside = with_sampling_error(full().numbers[0], {"rows": 739_012, "positives": 575_281})
    assert "| 0.8000 | +0.0100 | ± 0.0016 | another split |" in text(page(numbers=[beside]))
    assert "Hanley and McNeil" in text(page(numbers=[beside]))
    assert "Hanley" not in text(page(numbers=[beside._replace(paper=None)]))


def test_runs_that_are_left_out_are_counted_even_where_nothing_is_left():
    made = page()
    short = [result(f"u{seed}", seed=seed, stop_reason="max_epochs") for seed in (1, 2)]
    assert choice.of(made, short, "fm", kinds=("uniform",)) == []
    assert "Left out (FM): 2 runs of other lengths." in text(made)


def test_a_row_without_runs_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="names no run"):
        write(page(rows=[{"epoch": 2, "runs": ""}]), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["matplotlib.figure.Figure.savefig",
                                     "pathlib.Path.write_bytes"])
def test_a_full_disk_leaves_the_old_files_and_no_half_one(tmp_path, monkeypatch, failing):
    written = write(full(), tmp_path)
    before = {path: path.read_bytes() for path in written}

    def fail(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(OSError, match="No space"):
        write(full(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_runs_of_several_commits_or_data_are_warned_of():
    other = result("c", commit="d" * 40 + "+changes", manifest="n")
    assert warnings(RUNS) == []
    assert warnings([*RUNS, other, other]) == [
        "**Warning:** the runs come from 2 commits: ccccccc (2 runs), ddddddd+changes (1 run).",
        "**Warning:** the runs come from 2 data manifests: m (2 runs), n (1 run)."]
    assert text(page(behind=[*RUNS, other])).splitlines()[2].startswith("**Warning:**")


def test_published_settings_are_chosen_though_others_have_more_seeds_and_absent_seeds_are_named():
    made = page()
    others = [result(f"x{seed}", seed=seed, own={"lr": 0.1}) for seed in (1, 2, 3)]
    taken = choice.chosen(made, "uniform d 8", [*others, *RUNS[::-1]], [])
    assert [run["run_id"] for run in taken] == ["a", "b"]
    assert made.missing == ["uniform d 8: seed 3"]
    assert made.behind == taken
    choice.of(made, [*others, *RUNS], "fm")
    assert made.left_out[0].startswith("Left out (FM): 3 runs of other settings.")


def test_tickets_with_the_embedding_alone_rewound_are_missing_and_said_to_exist():
    made = page()
    tickets = [ticket("a", own={"rewind": "embedding"}),
               ticket("b", 2, own={"rewind": "embedding"}), ticket("c", 3)]
    assert [run["run_id"] for run in choice.chosen(made, "ticket", tickets, [])] == ["c"]
    assert made.missing == ["ticket: seeds 1, 2; tickets with the embedding alone rewound exist "
                            "(seeds 1, 2) and do not count"]
    assert choice.chosen(made, "others", tickets[:2], []) == []
    assert made.missing[1].startswith("others: no run (seeds 1, 2, 3); tickets with the embedding "
                                      "alone rewound exist")


def test_no_run_at_all_names_all_seeds():
    made = page()
    assert choice.chosen(made, "uniform d 8", [], []) == []
    assert made.missing == ["uniform d 8: no run (seeds 1, 2, 3)"]


def test_tickets_of_other_searches_are_another_setting_but_not_those_of_other_budgets():
    every = [search("s1", own={"candidate_p": [9]}), search("s2", 2),
             search("s3", own={"threshold_init": -8.0})]
    tickets = [ticket("a"), ticket("b", 2, searched="s2"), ticket("c", searched="s3")]
    assert [run["run_id"]
            for run in choice.chosen(page(), "ticket", tickets, [*every, *tickets])] == ["a", "b"]


def test_runs_are_told_apart():
    runs = [search("s"), search("d", embedding="darts"),
            search("n", own={"threshold_decay": "none"}), ticket("t"),
            ticket("r", re_init=True), ticket("m", source="magnitude"),
            ticket("i", source="imp_round"), result("u"),
            result("o", dataset="criteo")]
    assert [run["run_id"] for run in choice.searches(runs)] == ["s"]
    assert [run["run_id"] for run in choice.tickets(runs)] == ["t"]
    assert [run["run_id"] for run in choice.tickets(runs, re_init=True)] == ["r"]
    assert [run["run_id"] for run in choice.uniform(choice.of(page(), runs, "fm"), 8)] == ["u"]
    assert choice.uniform(runs, 16) == []


def test_a_synthetic_page_says_so_in_a_title_that_fits_the_picture():
    made = Page("fig11", "criteo", "fm", "Figure 11: training loss, FM on Criteo")
    made.figure = budget_curve.new_figure(budget_curve.COLUMN)
    made.figure.add_subplot()
    mark_synthetic(made, "fields_of_10_values")
    assert made.title == ("SYNTHETIC DATA. Figure 11: training loss, FM on synthetic fields of 10 "
                          "values in Criteo's format")
    written = made.figure.get_suptitle()
    assert written.replace("\n", " ") == made.title
    made.figure.canvas.draw()
    box = made.figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= made.figure.bbox.width


def test_a_synthetic_page_is_not_called_a_sample():
    made = Page("fig11", "criteo", "fm", "Figure 11: training loss, FM on Criteo")
    made.of_sample("a sample of 1,000 of 45,840,617 rows")
    assert "sample" not in mark_synthetic(made, "fields").title


def test_a_synthetic_page_that_names_no_data_says_whose_format_it_is():
    made = mark_synthetic(Page("table2", "criteo", None, "Table 2: time of an epoch"), "fields")
    assert made.title == ("SYNTHETIC DATA. Table 2: time of an epoch, synthetic fields in "
                          "Criteo's format")


@pytest.mark.parametrize("build", [fig8.build, fig10.build, fig11.build])
def test_pages_of_pictures_alone_say_what_the_paper_claims(tmp_path, build):
    notes = " ".join(build([], tmp_path, "movielens", "fm").notes)
    assert "The paper has" in notes
    assert "no number of its own stands beside ours" in notes
