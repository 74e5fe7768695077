"""Ablation designs: which toggles are applied together. What a toggle changes is the spec's.

A two-level design is written as signs: +1 leaves a part on, -1 applies its toggle. All generators
are positive products, so the run with everything on is in every fraction: it is the reference arm.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from namd.config.errors import ConfigError

Design = Literal["arms", "leave-one-out", "pairwise", "factorial", "fractional"]

FULL = "full"
"""Name of the reference arm."""

MAXIMUM_RUNS = 1024
"""A design of more arms than this is a mistake, not a study."""


@dataclass(frozen=True)
class Arm:
    """One configuration of an ablation.

    Attributes:
        name: `full`, `no_align`, `no_align_no_predict`, or under `arms` the toggle's own name.
        applied: The toggles in it.
        overrides: Dotted path to value.
        aliases: Names of arms that came to the same configuration and were merged into it.
    """

    name: str
    applied: tuple[str, ...]
    overrides: Mapping[str, Any]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fraction:
    """A regular two-level fractional factorial 2^(k-p).

    Attributes:
        factors: Names, in order.
        columns: Per factor the set of base factors whose product it is, as a bit mask.
        num_base: Number of base factors; the design has 2^num_base runs.
        words: Defining words: sets of factors whose product is always +1.
        resolution: Length of the shortest word; number of factors + 1 for a full factorial.
    """

    factors: tuple[str, ...]
    columns: tuple[int, ...]
    num_base: int
    words: tuple[frozenset[str], ...]
    resolution: int

    def runs(self) -> list[tuple[int, ...]]:
        """Return the signs of each run, all +1 first."""
        return [
            tuple(-1 if (run & column).bit_count() % 2 else 1 for column in self.columns)
            for run in range(2**self.num_base)
        ]

    def aliases(self, effect: frozenset[str], order: int) -> list[frozenset[str]]:
        """Return the other effects of at most `order` factors that cannot be told from one."""
        found = {effect ^ word for word in self.words}
        return sorted((e for e in found if 0 < len(e) <= order), key=sorted)


def make_arms(
    design: Design, toggles: Mapping[str, Mapping[str, Any]], resolution: int | None = None
) -> list[Arm]:
    """Return the arms of a design, the reference first.

    Args:
        design: Which combinations of toggles.
        toggles: Name to the values that applying it sets, by dotted path.
        resolution: Of `fractional`; 3 or more.

    Raises:
        ConfigError: Toggles contradict each other, two arms would have one name, or the design
            is larger than MAXIMUM_RUNS.
    """
    arms: list[Arm] = []
    named: dict[str, tuple[str, ...]] = {}
    for applied in _combinations(design, tuple(toggles), resolution):
        overrides = _combine(applied, toggles)
        name = _name(design, applied)
        if named.setdefault(name, applied) != applied:
            both = " and ".join(f"({', '.join(one) or 'none'})" for one in (named[name], applied))
            raise ConfigError(
                f"ablation.toggles: two arms would be called {name!r}, of the toggles {both}; "
                "rename one of these"
            )
        arms.append(Arm(name, applied, overrides))
        if len(arms) > MAXIMUM_RUNS:
            raise ConfigError(
                f"ablation.design={design!r}: more than {MAXIMUM_RUNS} arms from {len(toggles)} "
                "toggles; use fractional or pairwise"
            )
    return arms


def merge_duplicates(arms: Sequence[Arm], identify: Callable[[Arm], str]) -> list[Arm]:
    """Return the arms with those of one configuration merged into the first of them."""
    kept: dict[str, Arm] = {}
    for arm in arms:
        key = identify(arm)
        if key in kept:
            kept[key] = replace(kept[key], aliases=(*kept[key].aliases, arm.name))
        else:
            kept[key] = arm
    return list(kept.values())


def make_fraction(factors: Sequence[str], resolution: int) -> Fraction:
    """Return the smallest regular fraction of at least a resolution.

    pyDOE3's `fracfact_by_res` is not used: it looks at single generators only (its 7 factors "of
    resolution 5" have 4), and it refuses the half fraction of 4 factors.

    Raises ConfigError below resolution 3, where main effects would be aliased with one another.
    """
    if resolution < 3:
        raise ConfigError(
            f"ablation.resolution={resolution}: below 3 the toggles cannot be told apart"
        )
    for num_base in range(1, len(factors) + 1):
        columns = _columns(num_base, len(factors), resolution)
        if columns is not None:
            words = tuple(_words(factors, columns))
            shortest = min((len(word) for word in words), default=len(factors) + 1)
            return Fraction(tuple(factors), columns, num_base, words, shortest)
    raise ConfigError("ablation.toggles is empty")


def _combinations(
    design: Design, names: tuple[str, ...], resolution: int | None
) -> Iterator[tuple[str, ...]]:
    """Yield the sets of applied toggles, the empty one first."""
    if design == "fractional":
        for signs in make_fraction(names, resolution or 3).runs():
            yield tuple(name for name, sign in zip(names, signs, strict=True) if sign < 0)
        return
    order = {"arms": 1, "leave-one-out": 1, "pairwise": 2, "factorial": len(names)}[design]
    for size in range(order + 1):
        yield from itertools.combinations(names, size)


def _name(design: Design, applied: tuple[str, ...]) -> str:
    if not applied:
        return FULL
    if design == "arms":
        return applied[0]
    return "_".join(f"no_{name}" for name in applied)


def _combine(applied: tuple[str, ...], toggles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for name in applied:
        for path, value in toggles[name].items():
            if path in overrides and overrides[path] != value:
                raise ConfigError(
                    f"ablation.toggles.{name}.{path}={value!r}: another toggle of the same arm "
                    f"sets {overrides[path]!r}"
                )
            overrides[path] = value
    return overrides


def _columns(num_base: int, num_factors: int, resolution: int) -> tuple[int, ...] | None:
    """Return columns of GF(2)^num_base of which any resolution - 1 are independent, or None.

    The base factors come first; each further column must not be a sum of at most
    resolution - 2 earlier ones. Depth first in ascending order, so the answer is one of a kind.
    """
    base = [1 << bit for bit in range(num_base)]
    if num_factors < num_base:
        return None

    def extend(columns: list[int], least: int) -> list[int] | None:
        if len(columns) == num_factors:
            return columns
        taken = _sums(columns, resolution - 2)
        for column in range(least, 1 << num_base):
            if column not in taken:
                found = extend([*columns, column], column + 1)
                if found is not None:
                    return found
        return None

    columns = extend(base, 1)
    return None if columns is None else tuple(columns)


def _sums(columns: Sequence[int], most: int) -> set[int]:
    """Return the sums (exclusive or) of at most `most` of the columns, the empty one included."""
    reached = {0}
    for _ in range(most):
        reached |= {total ^ column for total in reached for column in columns}
    return reached


def _words(factors: Sequence[str], columns: Sequence[int]) -> Iterator[frozenset[str]]:
    """Yield the non-empty sets of factors whose columns sum to nothing."""
    generators = [
        frozenset([factors[place], *(factors[bit] for bit in _bits(column))])
        for place, column in enumerate(columns)
        if column.bit_count() > 1
    ]
    for size in range(1, len(generators) + 1):
        for chosen in itertools.combinations(generators, size):
            word: frozenset[str] = frozenset()
            for generator in chosen:
                word ^= generator
            yield word


def _bits(mask: int) -> Iterator[int]:
    return (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
