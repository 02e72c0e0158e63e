"""Tables of a plugged model on disk, and in a fresh model without dense tables."""

import copy
import functools
import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

from models import Plugged, PrunedTables, load_tables, masked, plug, unplug
from models.new_files import CHECKSUM, MANIFEST
from models.plug_in.compact import places_of
from models.plug_in.saved import TENSORS
from models.serving.tensor_file import read_tensors, write_tensors


class Model(nn.Module):
    """Two tables, a bag with padding among them, one of them used at two places."""

    def __init__(self, rows=50, kind=torch.float32):
        super().__init__()
        self.item = nn.Embedding(rows, 20, dtype=kind)
        self.same = self.item
        self.words = nn.EmbeddingBag(30, 4, padding_idx=2, dtype=kind)
        self.head = nn.Linear(24, 1, dtype=kind)

    def forward(self, ids):
        return self.head(torch.cat([self.same(ids[:, 0]), self.words(ids % 30)], 1)).squeeze(1)


def ticket(kind=torch.float32):
    torch.manual_seed(0)
    model = Model(kind=kind)
    plugged = plug(model, threshold_init=-8.0)
    tables = {name: table.table().detach() for name, table in plugged.tables.items()}
    values = {name: torch.where(torch.rand(table.shape) < 0.3, table, 0).to(kind)
              for name, table in tables.items()}
    return model, masked(model, PrunedTables(values, values))


IDS = torch.randint(50, (40, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_fresh_model_without_dense_tables_gives_the_same(kind, tmp_path):
    model, plugged = ticket(kind)
    plugged.save(tmp_path / "tables")
    own = tuple(f"{name}." for name in plugged.tables)
    rest = {key: value for key, value in model.state_dict().items() if not key.startswith(own)}
    with torch.device("meta"):
        fresh = Model(kind=kind)
    fresh.load_state_dict(rest, strict=False, assign=True)
    tables = load_tables(fresh, tmp_path / "tables")
    assert not [name for name, value in fresh.state_dict().items() if value.is_meta]
    assert fresh.same is fresh.item is tables["item"]
    with torch.no_grad():
        assert torch.equal(fresh(IDS), model(IDS))
    assert plugged.num_params() == Plugged(fresh).num_params()
    unplug(model, compact=True)
    Plugged(model).save(tmp_path / "compact")  # of compact tables too: the same file
    assert (tmp_path / "compact" / TENSORS).read_bytes() == (
        tmp_path / "tables" / TENSORS).read_bytes()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_model_that_is_not_on_the_meta_device_says_which_type(kind, tmp_path):
    model, plugged = ticket()
    plugged.save(tmp_path / "tables")
    fresh = Model(kind=kind)
    fresh.head.load_state_dict(model.head.state_dict())
    load_tables(fresh, tmp_path / "tables")
    with torch.no_grad():
        found = fresh(IDS)
        assert found.dtype == kind
        torch.testing.assert_close(found.float(), model(IDS), rtol=0.02, atol=0.02)


def test_bad_folders_and_models(tmp_path):
    _, plugged = ticket()
    folder = plugged.save(tmp_path / "tables")
    with pytest.raises(FileExistsError, match="not empty"):
        plugged.save(folder)
    with pytest.raises(ValueError, match=r"'item'.*it has head"):
        load_tables(nn.ModuleDict({"head": nn.Embedding(2, 2)}), folder)
    with pytest.raises(ValueError, match=r"saved table is of \(50, 20\), the model's of \(60, 20"):
        load_tables(Model(60), folder)
    with pytest.raises(ValueError, match="have thresholds"):
        plug(Model(), threshold_init=-8.0).save(tmp_path / "other")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 3}))
    with pytest.raises(ValueError, match="is of format 3, this version of pep reads up to 2"):
        load_tables(Model(), folder)
    (folder / MANIFEST).write_text("[" * 99_999)
    with pytest.raises(ValueError, match=f"{MANIFEST} cannot be read"):
        load_tables(Model(), folder)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    for path, damage in ((("format",), "2"), (("tables", "item", "type"), "float16"),
                         (("tables", "item"), {}), (("tables",), [])):
        damaged = copy.deepcopy(manifest)
        functools.reduce(dict.get, path[:-1], damaged)[path[-1]] = damage
        (folder / MANIFEST).write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=f"{MANIFEST} is not as it was saved"):
            load_tables(Model(), folder)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    content = bytearray((folder / TENSORS).read_bytes())
    content[-1] ^= 1
    (folder / TENSORS).write_bytes(content)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        load_tables(Model(), folder)
    (folder / TENSORS).unlink()
    with pytest.raises(FileNotFoundError, match="there are no saved tables"):
        load_tables(Model(), folder)


def test_a_folder_is_as_small_as_its_entries(tmp_path):
    model = nn.ModuleDict({"item": nn.Embedding(100_000, 16)})
    table = torch.zeros(100_000, 16)
    table[torch.randperm(100_000)[:500], 3] = 1.0
    plug(model)
    masked(model, PrunedTables({"item": table}, {"item": table}))
    folder = Plugged(model).save(tmp_path / "tables")
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 500 * (4 + 2 + 4) + 2_000
    fresh = nn.ModuleDict({"item": nn.Embedding(100_000, 16, device="meta")})
    load_tables(fresh, folder)
    assert torch.equal(fresh["item"].table(), table)


def test_a_folder_of_format_1_is_read(tmp_path):
    model, plugged = ticket()
    folder = plugged.save(tmp_path / "tables")
    tensors = read_tensors(folder / TENSORS)
    for number, table in enumerate(plugged.tables.values()):
        counts = torch.bincount((table.table() != 0).sum(1), minlength=table.embedding_dim + 1)
        wider = counts.flip(0).cumsum(0).flip(0) - counts
        entries = counts * torch.arange(len(counts))
        del tensors[f"{number}.offsets"]
        rows = torch.from_numpy(np.array(tensors.pop(f"{number}.rows"))).long()
        tensors[f"{number}.places"] = places_of(rows, table.num_embeddings).numpy()
        tensors[f"{number}.firsts"] = wider.numpy()
        tensors[f"{number}.begins"] = (entries.flip(0).cumsum(0).flip(0) - entries).numpy()
    tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
    write_tensors(folder / TENSORS, tensors)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[CHECKSUM]  # which folders of that time have not
    checksum = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 1, "sha256": checksum}))
    fresh = Model()
    load_tables(fresh, folder)
    fresh.head = model.head
    with torch.no_grad():
        torch.testing.assert_close(fresh(IDS), model(IDS), atol=0, rtol=0)


@pytest.mark.parametrize("compact", [True, False])
def test_tables_export_for_any_number_of_rows(compact):
    model, _ = ticket()
    if compact:
        unplug(model, compact=True)
    model.eval()
    program = torch.export.export(model, (IDS[:7],),
                                  dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for rows in (0, 1, 2, 40, 1000):
        ids = IDS.repeat(25, 1)[:rows]
        torch.testing.assert_close(program.module()(ids), model(ids))
