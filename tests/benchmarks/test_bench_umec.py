"""The benchmark of UMEC's step runs, and says what it measured."""

import json

from benchmarks import bench_umec


def test_it_measures_every_side_and_writes_what_it_found(tmp_path, capsys):
    bench_umec.main(["--rounds", "2", "--steps", "2", "--rows", "3", "--device", "cpu", "--json",
                     str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["milliseconds"]) == {"plain", "robust", "faithful", "robust, params_all",
                                          "robust, half removed"}
    assert all(value > 0 for value in found["milliseconds"].values())
    assert set(found["overhead_percent"]) == set(found["milliseconds"]) - {"plain"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "plain", "robust", "faithful", "robust,", "robust,"]
