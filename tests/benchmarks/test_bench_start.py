import json

import pytest

from benchmarks import bench_start


@pytest.mark.slow
def test_warm_and_cold_processes_are_timed_to_their_first_step(tmp_path, capsys):
    path = tmp_path / "start.json"
    bench_start.main(["--rounds", "1", "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [row["variant"] for row in rows] == list(bench_start.VARIANTS)
    torch_alone, warm, cold = (row["processor_seconds"] for row in rows)
    assert 0 < torch_alone < warm < cold
    assert all(row["seconds"] == row["seconds_of_rounds"][0] > 0 for row in rows)
    assert capsys.readouterr().out.splitlines()[-1].startswith("cold")


def test_a_process_that_takes_no_step_is_an_error_with_its_words():
    with pytest.raises(RuntimeError, match=r"no step was taken:\s+nothing there"):
        bench_start.started("raise SystemExit('nothing there')", {})


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--threads", "0"], ["--model", "lr"]])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        bench_start.main(wrong)
