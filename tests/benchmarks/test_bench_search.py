import json

import pytest

from benchmarks import bench_search


@pytest.mark.slow
def test_searches_and_tickets_are_timed_at_once(tmp_path, capsys):
    path = tmp_path / "search.json"
    bench_search.main(["--dataset", "planted", "--epochs", "2", "--budget", "900", "--jobs", "2",
                       "--json", str(path)])
    record = json.loads(path.read_text())
    assert [one["seed"] for one in record["of_seeds"]] == [1, 2]
    for one in record["of_seeds"]:
        assert {ran["stage"] for ran in one["runs"]} == {"search", "retrain"}
        assert all(ran["epochs"] == 2 and ran["threads"] == 1 for ran in one["runs"])
        assert record["seconds"] >= sum(one["seconds"].values())
        for ran in one["runs"]:
            assert 0 < ran["training_seconds"] < ran["seconds"] < one["seconds"][ran["stage"]]
    assert "for 2 at once" in capsys.readouterr().out


def test_a_script_that_fails_is_an_error_with_its_words():
    with pytest.raises(RuntimeError, match=r"train_movielens.py --nosuch failed:\s+usage"):
        bench_search.run("train_movielens.py", ["--nosuch"])


@pytest.mark.parametrize("wrong", [["--jobs", "0"], ["--epochs", "-1"], ["--dataset", "criteo"]])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        bench_search.main(wrong)
