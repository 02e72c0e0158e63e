"""Table 2: seconds of an epoch from the benchmark's record, whole or broken."""

import json

import pytest
from synthetic_results import put_times

from studies.figures import table2


def test_seconds_and_average_increase_beside_the_papers(tmp_path):
    put_times(tmp_path, "criteo")
    page = table2.build([], tmp_path, "criteo", "fm")
    numbers = {number.what: number for number in page.numbers}
    base = numbers["seconds of an epoch, FM, base model"]
    assert (base.values, base.paper, base.why) == ([0.2], 1039,
                                                   "rounds 0.10 to 0.30; another machine")
    assert numbers["DartsEmb over the base model, %, mean of the models"].values == [
        pytest.approx(125)
    ]
    assert numbers["PEP over the base model, %, mean of the models"].values == [pytest.approx(25)]
    assert numbers["PEP over the base model, %, mean of the models"].paper == 24.47
    assert {row["runs"] for row in page.rows} == {"epoch_criteo"}
    assert len(page.rows) == 9


def test_other_data_than_the_papers_have_no_number_of_the_papers_beside_them(tmp_path):
    put_times(tmp_path, "movielens")
    page = table2.build([], tmp_path, "movielens", "fm")
    assert {number.paper for number in page.numbers} == {None}
    assert page.numbers[-1].why.endswith("; the paper has +24.47 on Criteo")


@pytest.mark.parametrize(("content", "said"), [
    ('{"commit": 1', "cannot be read"), ("[]", "it lacks manifest"),
    ('{"commit": "c"}', "it lacks manifest"),
    (None, "there is no epoch_movielens.json"),
    ("odd", "the variants of fm are not base, darts, pep")])
def test_a_record_that_is_not_whole_is_missing_and_named(tmp_path, content, said):
    if content == "odd":
        path = put_times(tmp_path, "movielens")
        record = json.loads(path.read_text())
        del record["ms_per_step_of_rounds"]["fm"]["pep"]
        content = json.dumps(record)
    if content is not None:
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / "epoch_movielens.json").write_text(content)
    page = table2.build([], tmp_path, "movielens", "fm")
    assert said in page.missing[0]
    assert (page.rows, page.numbers) == ([], [])
