import json

import pytest

from benchmarks import bench_stranger


@pytest.mark.slow
def test_three_commands_lead_to_a_table_of_sizes(tmp_path, capfd):
    path = tmp_path / "record.json"
    bench_stranger.main(["--rows", "4000", "--epochs", "1", "--scratch", str(tmp_path), "--json",
                         str(path)])
    steps = {step["what"]: step for step in json.loads(path.read_text())["steps"]}
    assert all(steps[name]["processor_seconds"] > 0 for name in ("search", "retrain", "sizes"))
    assert steps["tickets"]["number"] == 6
    assert steps["lines of the table of sizes"]["number"] > 100
    assert "lines of the table of sizes" in capfd.readouterr().out


def test_a_command_that_fails_is_named(capfd):
    with pytest.raises(RuntimeError, match=r"search failed: python no_such_script\.py"):
        bench_stranger.timed("search", ["no_such_script.py"])
