"""How UMEC descends, and what it may remove."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Dynamics:
    """Rates by their published names, and what may be removed.

    Args:
        slr, ylr, zlr: of s, y and z. The robust dynamics scale them by the training's length.
        sl2wd: decay of s.
        zclamp: faithful only: z at most what holds the hardest layer still.
        punit: neurons are removed in multiples of it. The published bound on s is "units - punit"
            in every layer: with `faithful`, at least `punit` fields stay too, though fields are
            removed one by one.
        min_keep: units that every layer keeps at least.
        keep: units of the first layer that stay.
        joint: neurons too; else fields alone.
        faithful: the published dynamics; the budget may be exceeded.
        by_embedding: units of the first layer are ordered by energy times the mean square of what
            they multiply, and no longer by energy alone, which says little where a model has been
            trained briefly: its vectors grow first.

    Raises:
        ValueError: `faithful` with `by_embedding`, `zclamp` without `faithful`, or a rate that is
            no number or below 0.
    """

    slr: float = 0.05
    ylr: float = 0.1
    zlr: float = 2.0
    sl2wd: float = 0.0
    zclamp: bool = False
    punit: int = 1
    min_keep: int = 1
    keep: tuple[int, ...] = ()
    joint: bool = True
    faithful: bool = False
    by_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("slr", "ylr", "zlr", "sl2wd"):
            if not 0 <= (rate := getattr(self, name)) < math.inf:
                raise ValueError(f"--{name} must be a number from 0, got {rate}")
        if self.faithful and self.by_embedding:
            raise ValueError("--faithful orders fields by the energy of their weights alone, as "
                             "published; --score weight_x_emb_rms contradicts it. Leave out one")
        if self.zclamp and not self.faithful:
            raise ValueError("--zclamp bounds z in the published dynamics alone; give --faithful "
                             "too, or leave out --zclamp (the default dynamics always bound z)")

    @property
    def min_fields(self) -> int:
        """Units of the first layer that stay at least, whichever they are."""
        return max(self.min_keep, self.punit) if self.faithful else self.min_keep

    def limits(self, counts: Sequence[int], dense_units: int = 0) -> list[int]:
        """Units that each layer may give up.

        >>> Dynamics(punit=2).limits([5, 9]), Dynamics(punit=2, faithful=True).limits([5, 9])
        ([4, 6], [3, 7])

        Args:
            counts: units of each layer.
            dense_units: of the branch of the dense features, the first of the first layer; one
                unit of a field stays beside them.

        Raises:
            ValueError: a unit to keep does not exist, or a number is below 1.
        """
        wrong = [unit for unit in self.keep if not 0 <= unit < counts[0]]
        if wrong or self.min_keep < 1 or self.punit < 1:
            raise ValueError(f"units to keep are 0 .. {counts[0] - 1}, min_keep and punit at least "
                             f"1; got units {wrong}, min_keep {self.min_keep}, punit {self.punit}")
        if self.joint and len(counts) < 2:
            raise ValueError("a top MLP of one layer has no neurons to remove; compress its fields "
                             "alone (--mode fields), or train with hidden layers (arch_mlp_top)")
        kept = {*self.keep}
        low = max(self.min_fields, len(kept) + all(unit < dense_units for unit in kept))
        neurons = [max(count - max(self.min_keep, self.punit), 0) * self.joint
                   for count in counts[1:]]
        if not self.faithful:  # whose published bound is no multiple
            neurons = [count // self.punit * self.punit for count in neurons]
        return [max(counts[0] - low, 0), *neurons]
