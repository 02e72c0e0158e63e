import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.umec import columns


def layer(rows, units, size, seed=0):
    return torch.randn(rows, units * size, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 5), st.integers(0, 9))
def test_energies_are_their_plain_definition(rows, units, size, seed):
    weight, found, plain = layer(rows, units, size, seed), torch.zeros(units), torch.zeros(units)
    columns.energies(weight, found)
    columns.energies_plain(weight, plain)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=0)


def test_energies_of_many_rows_are_right_to_the_last_bits():
    weight, found = layer(20_001, 2, 3), torch.zeros(2)
    columns.energies(weight, found)
    torch.testing.assert_close(found, weight.double().square().sum(0).view(2, 3).sum(1).float(),
                               rtol=1e-6, atol=0)


# of 8: column by column up to two, whole rows from then on
@pytest.mark.parametrize("changed", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("size", [1, 4])
def test_scaling_is_its_plain_definition_bit_by_bit(changed, size):
    weight, factors = layer(13, 8, size), torch.ones(8)
    factors[torch.randperm(8, generator=torch.Generator().manual_seed(1))[:changed]] = torch.rand(
        changed
    )
    plain = weight.clone()
    columns.scale(weight, factors)
    columns.scale_plain(plain, factors)
    assert torch.equal(weight, plain)


def test_a_factor_of_zero_empties_a_unit():
    weight = layer(3, 2, 2)
    columns.scale(weight, torch.tensor([0.0, 1.0]))
    assert not weight[:, :2].any()
    assert weight[:, 2:].all()
