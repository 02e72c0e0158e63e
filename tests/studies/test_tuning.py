"""Choosing on validation: which points, what is written, and that test rows have no say."""

import json

import pytest

from studies.tuning import DIVERGED, chosen, chosen_for, diverged, key, points, tune

GRID = {"d": [4, 8, 16], "k": [1, 2, 3, 4], "a": [0.1, 0.2]}


@pytest.mark.parametrize(("trials", "number"), [(24, 24), (100, 24), (12, 12), (6, 6), (3, 3)])
def test_every_size_gets_as_many_points(trials, number):
    made = points(GRID, trials)
    assert len(made) == number == len({json.dumps(point) for point in made})
    assert {sum(point["d"] == size for point in made) for size in GRID["d"]} == {number // 3}
    assert all(list(point) == list(GRID) for point in made)


def test_spaced_points_hold_both_ends():
    ends = {(point["k"], point["a"]) for point in points(GRID, 6)}
    assert ends == {(1, 0.1), (4, 0.2)}


def result_of(point, ran):
    ran.append(point)
    score = {4: 0.6, 8: 0.8, 16: 0.7}[point["d"]] - abs(point["k"] - 2) / 100
    return {"run_id": f"r{len(ran)}", "num_embedding_params": point["d"] * 10,
            "inference_bytes": point["d"] * 40,
            "validation_auc": score, "validation_logloss": 1 - score, "epochs": 3, "seconds": 1.0,
            "test_auc": 1 - score, "test_logloss": score}


def test_the_best_validation_of_each_size_is_chosen_and_nothing_of_test_is_written(tmp_path,
                                                                                   capsys):
    path, ran = tmp_path / "tuned" / "x.json", []
    wanted = points({"d": [4, 16, 8], "k": [1, 2, 3]}, 9)
    best = tune(wanted, lambda point: result_of(point, ran), path, {"model": "fm"})
    assert best == [{"d": 4, "k": 2}, {"d": 8, "k": 2}, {"d": 16, "k": 2}]
    written = json.loads(path.read_text())
    assert written["model"] == "fm"
    assert [trial["settings"] for trial in written["trials"]] == wanted == ran
    assert [trial["settings"] for trial in written["chosen"]] == best
    assert "test" not in path.read_text()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[0] == "1/9 d=4 k=1: 40 parameters, 160 bytes, validation AUC 0.5900"
    assert chosen(path) == written["chosen"]
    assert [chosen_for(path, most)[0]["d"] for most in (40, 79, 80, 10_000)] == [4, 4, 8, 16]
    with pytest.raises(ValueError,
                       match=r"has at most 39 parameters; the sizes are \[40, 80, 160\]"):
        chosen_for(path, 39)


def test_a_file_that_does_not_say_how_its_runs_were_trained_is_older(tmp_path):
    path = tmp_path / "x.json"
    trial = {"settings": {"d": 4}, "num_embedding_params": 40}
    path.write_text(json.dumps({"chosen": [{**trial, "training": {"max_epochs": 9}}]}))
    assert chosen_for(path, 40) == ({"d": 4}, {"max_epochs": 9})
    # the table's decay was of the training, and the other parameters' was not written yet
    path.write_text(json.dumps({"chosen": [{**trial, "training": {"l2_regularization": 0.1}}]}))
    assert chosen_for(path, 40)[1] == {"l2_regularization": 0.1, "weight_decay": 1e-5}
    path.write_text(json.dumps({"chosen": [trial]}))
    with pytest.raises(ValueError,
                       match=r"x\.json does not say how long its runs were: it is older; run"):
        chosen_for(path, 40)


def test_a_file_that_is_not_there_or_broken_is_named(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError, match=r"reproduce\.py tune"):
        chosen(path)
    for content in ("{", "{}", '{"chosen": [3]}', '{"chosen": [{"settings": {}}]}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"x.json is corrupt .*reproduce.py tune"):
            chosen(path)


def test_a_trial_that_diverged_is_written_and_never_chosen(tmp_path, capsys):
    path, wanted, ran = tmp_path / "x.json", points({"d": [4, 8], "k": [1, 2]}, 4), []

    def run(point):
        over = point["k"] == 2 or point["d"] == 8
        return {DIVERGED: f"nan with {point['d']}"} if over else result_of(point, ran)

    assert tune(wanted, run, path, {"seed": 1}) == [{"d": 4, "k": 1}]
    assert capsys.readouterr().out.splitlines()[1] == "2/4 d=4 k=2: diverged, never chosen"
    over = {key(point): f"nan with {point['d']}" for point in wanted[1:]}
    assert diverged(path, {"seed": 1}) == over
    assert not diverged(path, {"seed": 2})
    assert not diverged(tmp_path / "none.json", {"seed": 1})
    assert [trial["settings"] for trial in chosen(path)] == [{"d": 4, "k": 1}]
    with pytest.raises(ValueError, match="all 2 trials diverged, the first so: nan with 8"):
        tune(wanted[2:], run, tmp_path / "y.json", {})
