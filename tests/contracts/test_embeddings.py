from itertools import product

import numpy as np
import pytest
import torch

from models.build import EMBEDDINGS, build_embedding
from models.embedding.base import Embedding, TableEmbedding, initial_table
from models.embedding.low_rank import LowRank
from models.embedding.masked import Masked
from models.embedding.mixed_width import Mixed
from models.embedding.none import NoEmbedding
from models.embedding.pep import THRESHOLD_TYPES, Pep, Thresholds
from models.embedding.uniform import Uniform
from models.kernels.threshold import GATES

SIZES, WIDTH = (5, 2, 9), 3
NUM_ROWS = sum(SIZES)


def masked(seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(NUM_ROWS, WIDTH, generator=generator) < 0.4
    return Masked(initial_table(NUM_ROWS, WIDTH, generator), mask, len(SIZES))


def mixed(seed):
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(NUM_ROWS) % 4  # rows of each width in every field, or nearly
    return Mixed(group, (1, WIDTH, 2, 0), WIDTH, lambda *size: initial_table(*size, generator),
                 len(SIZES))


def low_rank(ranks):
    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        codes = [Uniform(initial_table(sum(size for size, own in zip(SIZES, ranks, strict=True)
                                           if own == rank), rank, generator), ranks.count(rank))
                 for rank in sorted(set(ranks)) if rank]
        bases = [torch.randn(rank, WIDTH, generator=generator) for rank in ranks]
        return LowRank(codes, bases, torch.randn(len(SIZES), WIDTH, generator=generator), SIZES,
                       fused=seed % 2 == 0)
    return make


def from_registry(**values):
    return lambda seed: build_embedding(SIZES, {"model": "fm", "latent_dim": WIDTH, **values}, seed,
                                        lambda: torch.arange(NUM_ROWS))


def pep(threshold_type, g_type):
    return from_registry(embedding="pep", threshold_type=threshold_type, threshold_init=-1.5,
                         g_type=g_type, gk=0.7)


CASES = {"uniform": from_registry(embedding="uniform"), "masked": masked, "mixed": mixed,
         "darts": from_registry(embedding="darts", darts_widths=(1, 2, WIDTH)),
         "mde": from_registry(embedding="mde", mde_blocks=3, mde_alpha=0.7),
         "mgqe": from_registry(embedding="mgqe", mgqe_subspaces=3, mgqe_centroids=8),
         "hash": from_registry(embedding="hash", hash_rows=6),
         "qr": from_registry(embedding="qr", qr_collisions=3),
         "tt": from_registry(embedding="tt", tt_rank=2), "low_rank": low_rank((1, 1, 1)),
         "low_rank mixed": low_rank((1, 0, 1)), "low_rank parts": low_rank((1, 2, 1)),
         **{f"pep {kind} {gate}": pep(kind, gate)
            for kind, gate in product(THRESHOLD_TYPES, GATES)}}
# where parameters are counted, when it is not in the table itself
COUNTED = {"mixed": lambda embedding: list(embedding.parameters()),
           "mde": lambda embedding: list(embedding.parameters()),
           "darts": lambda embedding: list(embedding.parameters()),
           "mgqe": lambda embedding: [embedding.centroids],
           "hash": lambda embedding: [embedding.weight],
           "qr": lambda embedding: [embedding.remainders, embedding.quotients],
           "tt": lambda embedding: list(embedding.parameters()),
           "low_rank": lambda embedding: list(embedding.parameters()),
           "low_rank mixed": lambda embedding: list(embedding.parameters()),
           "low_rank parts": lambda embedding: list(embedding.parameters())}


def test_every_registered_embedding_is_among_the_cases():
    assert {name.split()[0] for name in CASES} == {*EMBEDDINGS, "masked", "mixed", "low_rank"}


def batch(rows):
    """Ids that name every row of the whole table when `rows` is 9 or more."""
    starts = np.cumsum((0, *SIZES[:-1]))
    return torch.tensor(np.arange(rows)[:, None] % SIZES + starts, dtype=torch.int32)


# fewer ids than the table has rows, more, and many more
@pytest.mark.parametrize("rows", [2, 9, 40])
@pytest.mark.parametrize("name", CASES)
def test_contract(name, rows):
    embedding: TableEmbedding = CASES[name](3)
    ids = batch(rows)
    with torch.no_grad():
        vectors = embedding(ids)
    table = embedding.table()
    assert vectors.shape == (rows, len(SIZES), WIDTH)
    assert vectors.dtype == torch.float32
    assert (embedding.num_rows, embedding.width) == (NUM_ROWS, WIDTH)
    assert embedding.deep_input(ids, vectors).shape == (rows, embedding.deep_width)
    assert table.shape == (NUM_ROWS, WIDTH)
    assert not table.requires_grad
    torch.testing.assert_close(vectors, table[ids.long()])
    assert torch.equal(vectors == 0, table[ids.long()] == 0)
    assert embedding(ids[:0]).shape == (0, len(SIZES), WIDTH)
    counted = COUNTED[name](embedding) if name in COUNTED else [table]
    assert embedding.num_params() == sum(int((part.detach().numpy() != 0).sum())
                                         for part in counted)
    assert embedding.num_params() > 0
    # a search, which carries every width
    assert embedding.num_params() <= NUM_ROWS * WIDTH or name == "darts"
    assert embedding.inference_bytes() > 0


@pytest.mark.parametrize("rows", [2, 40])  # the batch's rows alone, and the whole table
@pytest.mark.parametrize("kind", ["field", "field_dim"])
def test_the_slots_of_a_column_have_its_thresholds(kind, rows):
    sizes = (5, 0, 0, 2, 9)  # ids of the second and third field are rows of the first
    generator = torch.Generator().manual_seed(1)
    embedding = Pep(torch.rand(16, WIDTH, generator=generator), sizes, Thresholds(kind, -1.5))
    with torch.no_grad():
        embedding.thresholds.uniform_(-3.0, 0.0, generator=generator)
    ids = torch.arange(rows)[:, None] % torch.tensor([5, 5, 5, 2, 9])
    ids += torch.tensor([0, 0, 0, 5, 7])
    expected = embedding.table()[ids]
    for looked_up in (embedding(ids), embedding.gather_first(ids)):
        torch.testing.assert_close(looked_up, expected)
        embedding.zero_grad()
        looked_up.sum().backward()
        assert (embedding.thresholds.grad != 0).any(1).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("name", CASES)
def test_the_count_follows_what_is_counted(name):
    embedding = CASES[name](3)
    before = embedding.num_params()
    where = embedding.table() if name not in COUNTED else COUNTED[name](embedding)[-1]
    values = embedding.weight if name not in COUNTED else where
    with torch.no_grad():
        values[tuple(where.nonzero()[0])] = 0.0
    assert embedding.num_params() == before - 1


@pytest.mark.parametrize("name", CASES)
def test_state_round_trip_and_seeds(name):
    embedding, other = CASES[name](3), CASES[name](4)
    assert torch.equal(embedding.table(), CASES[name](3).table())
    assert not torch.equal(embedding.table(), other.table())
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter += 0.05 * torch.rand_like(parameter)
    other.load_state_dict(embedding.state_dict())
    ids = batch(9)
    assert torch.equal(embedding(ids), other(ids))
    assert torch.equal(embedding.table(), other.table())


@pytest.mark.parametrize("name", CASES)
def test_an_id_outside_the_table_is_an_index_error(name):
    ids = batch(9)
    ids[0, 0] = NUM_ROWS
    with pytest.raises(IndexError):
        CASES[name](3)(ids)


def test_initial_values_are_xavier_uniform_over_the_whole_matrix():
    table = initial_table(1000, 24, torch.Generator().manual_seed(1))
    bound = np.sqrt(6 / 1024)
    assert 0.999 * bound < table.abs().max() <= bound
    assert table.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert abs(table.mean()) < 0.01 * bound


def test_every_scheme_starts_from_the_same_table():
    assert torch.equal(CASES["pep field sigmoid"](3).weight, CASES["uniform"](3).weight)


def test_masked_starts_zero_outside_the_mask_and_refuses_another_shape_or_type():
    initial, mask = torch.ones(4, 2), torch.tensor([[True, False]] * 4)
    assert torch.equal(Masked(initial, mask, 1).weight, initial * mask)
    with pytest.raises(ValueError, match=r"bool of shape \(4, 2\).*shape \(2, 4\)"):
        Masked(initial, mask.T, 1)
    with pytest.raises(ValueError, match="must be bool"):
        Masked(initial, mask.float(), 1)


def test_masked_does_not_share_memory_with_what_it_was_made_of():
    initial, mask = torch.ones(4, 2), torch.ones(4, 2, dtype=torch.bool)
    embedding = Masked(initial, mask, 1)
    initial.zero_()
    mask.zero_()
    assert embedding.num_params() == 8


def test_pep_refuses_field_sizes_that_do_not_sum_to_the_rows():
    with pytest.raises(ValueError, match=r"sum to 3, the table has 4"):
        Pep(torch.ones(4, 2), (1, 2), Thresholds("global"))


@pytest.mark.parametrize(("rows", "width"), [(0, 2), (4, 0)])
def test_an_empty_table_is_refused(rows, width):
    with pytest.raises(ValueError, match="must be positive"):
        Uniform(torch.ones(rows, width), 1)


def test_no_embedding_has_vectors_of_width_0_and_no_parameters():
    embedding = NoEmbedding(SIZES)
    assert embedding(batch(4)).shape == (4, len(SIZES), 0)
    assert embedding.deep_input(batch(4)).shape == (4, embedding.deep_width)
    assert embedding.table().shape == (NUM_ROWS, embedding.width)
    assert (embedding.num_params(), embedding.inference_bytes()) == (0, 0)
    assert not list(embedding.parameters())
    assert not embedding.state_dict()


@pytest.mark.parametrize("rows", [1, 40])  # fewer and more ids than the table has rows
@pytest.mark.parametrize("name", CASES)
def test_rows_looked_up_are_the_output(name, rows):
    embedding = CASES[name](1).eval()
    ids = batch(rows)
    table, places = embedding.rows(ids)
    torch.testing.assert_close(table[places.long()], embedding(ids))


MEMBERS = {*Embedding.__annotations__, *(name for name in vars(Embedding) if name[0] != "_")}


@pytest.mark.parametrize("name", [*CASES, "none"])
def test_everything_of_the_protocol_is_there(name):
    embedding = NoEmbedding(SIZES) if name == "none" else CASES[name](1)
    assert len(MEMBERS) == 14
    assert {member for member in MEMBERS if not hasattr(embedding, member)} == set()
    own = {**dict(embedding.named_parameters()), **dict(embedding.named_buffers())}
    assert set(embedding.row_indexed or ()) <= set(own)
    assert set(embedding.decays.values()) <= {"decoupled", "none"}
    assert embedding.sharded in (None, "vectors", "rows")
