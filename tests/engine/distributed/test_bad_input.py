"""What several processes refuse, in a sentence that says what to do."""

import json
import os
import socket

import pytest
import tiny
import torch
import worlds

from engine import cli, jobs, stages
from engine.distributed import world
from engine.distributed.world import World


@pytest.fixture
def alone(monkeypatch):
    """The small data set in the place of MovieLens; a world of one process, this one."""
    tiny.install(monkeypatch, tiny.dataset(rows=600))


@pytest.fixture
def of_two(monkeypatch):
    """Torchrun's environment of the first of two processes, on a free port, and a short wait."""
    port = worlds.free_port()
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(world, "JOIN_SECONDS", 0.6)
    monkeypatch.setattr(world.dist, "is_initialized", lambda: False)
    return port


def test_a_world_that_does_not_divide_the_lanes(of_two, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes cannot share 4 lanes evenly; start 1 or 2 or "
                                         "4, or set lanes to another"):
        World(4)


def test_more_processes_than_gpus_are_refused(of_two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="this machine has 2 processes of the run and 1 GPU"):
        world._join(on_gpus=True)


def test_a_rank_that_never_starts_is_named(of_two):
    with pytest.raises(TimeoutError, match="rank 1 of 2 has not started within 1 s"):
        World(4)


def test_a_port_that_is_taken_is_named(of_two):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", of_two))
        taken.listen()
        with pytest.raises(ConnectionError, match=f"127.0.0.1:{of_two} .*--master-port"):
            World(4)


def test_a_first_rank_that_never_starts(of_two, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConnectionError, match=r"rank 1 cannot meet the others .*rank 0 has not"):
        World(4)


def test_ranks_that_differ_are_told_in_what(monkeypatch):
    def two(self, tensor):
        other = json.loads(bytes(tensor.numpy()).rstrip(b"\0")) | {"data": "other"}
        changed = torch.zeros_like(tensor)
        text = json.dumps(other).encode()
        changed[:len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return torch.stack([tensor, changed])

    monkeypatch.setattr(World, "gather", two)
    with pytest.raises(ValueError, match=r"need the same data, but rank 0 has this and rank 1 has "
                                         "other"):
        World(4).compare(seed=1, data="this")


def test_a_lost_process_is_an_error_that_says_how_to_go_on(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("Connection closed by peer")

    here = World(4)
    monkeypatch.setattr(here, "size", 2)
    monkeypatch.setattr(world.dist, "all_reduce", broken)
    with pytest.raises(ConnectionError, match=r"rank 0 has lost another process .*\(.*closed by "
                                              r"peer\); the same command goes on"):
        here.total(torch.zeros(1))


def test_jobs_together_with_torchrun(of_two):
    with pytest.raises(ValueError, match="--jobs 2 and torchrun both start processes"):
        jobs.processes(2, "cpu")
    assert jobs.processes(None, "cpu") == 1


def test_a_command_of_one_process(of_two, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(lambda: None)
    assert "runs in one process, and torchrun has started 2" in capsys.readouterr().err
    cli.main(lambda: None, shared=True)


@pytest.mark.parametrize(("settings", "message"), [
    ({"lanes": 3}, "lanes must be 0 or a power of two, got 3"),
    ({"lanes": 4, "ema": 0.9}, "with lanes, weights are not averaged"),
    ({"lanes": 4, "model": "deepfm", "precision": "bfloat16"}, "matrix products are float32"),
    ({"lanes": 4, "optimizer": "sgd"}, "with lanes, tables are updated row by row .*lanes=0"),
    ({"lanes": 4, "table_update": "dense"}, "with lanes, tables are updated row by row"),
    ({"lanes": 4, "threshold_decay": "decoupled"}, "with lanes, tables are updated row by row"),
])
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.settings(**settings)


@pytest.mark.parametrize("embedding", ["hash", "qr", "mgqe", "tt"])
def test_embeddings_that_cannot_be_cut(tmp_path, alone, embedding):
    with pytest.raises(ValueError, match=r"\w+ cannot be cut over processes: .*lanes=0, or use pep "
                                         r"or uniform"):
        tiny.train(tmp_path, embedding=embedding, lanes=4, mgqe_subspaces=2, mgqe_centroids=16,
                   hash_rows=50)
    assert not list(tmp_path.glob("runs/*/*.json*"))


def test_a_stage_of_one_process_under_torchrun(tmp_path, alone, of_two):
    with pytest.raises(ValueError, match="the stage 'train' with lanes=0 runs in one process, and "
                                         "torchrun has started 2"):
        stages.train(tiny.settings(embedding="uniform"), 1, tiny.context(tmp_path))


def change_record(place, **changes):
    path = place / "content.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_a_file(place):
    path = min(place.glob("*.safetensors"))
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda place: change_record(place, run_id="other"), "is of run other, and this is run .*"),
    (lambda place: change_record(place, format=1), "written by another version .*"),
    (cut_a_file, "is corrupt .*"),
    # the file with it was removed
    (lambda place: change_record(place, model={"gone": {"$tensor": "t.gone"}}),
     "is corrupt .*lacks 't.gone'.*"),
    (lambda place: (place / "content.json").write_text("{"), "is corrupt .*"),
])
def test_a_checkpoint_that_cannot_be_resumed(tmp_path, alone, damage, message):
    worlds.run("fm", tmp_path, until=3)
    [place] = tmp_path.glob("runs/*/checkpoint/3")
    damage(place)
    with pytest.raises(ValueError, match=message + "--force"):
        worlds.run("fm", tmp_path)
    tiny.train(tmp_path, **worlds.CASES["fm"], places={"force": True})
    assert not place.exists()
