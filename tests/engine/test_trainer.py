"""How the hooks of a run are named in its checkpoint."""

import pytest

from engine.loop import Hook
from engine.trainer import _by_name


class Named(Hook):
    def __init__(self, name):
        self.name = name

    def __call__(self, state):
        return None


def test_hooks_with_a_state_are_found_by_name_and_those_without_are_left_out():
    first, second = Named("first"), Named("second")
    assert _by_name([first, Named(""), Named(""), second]) == {"first": first, "second": second}


def test_two_hooks_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"name of its own in checkpoints, got \['same', 'same'\]"):
        _by_name([Named("same"), Named("same")])
