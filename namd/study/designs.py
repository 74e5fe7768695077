"""Ablation designs: which toggles are applied together. What a toggle changes is the spec's.

A two-level design is written as signs: +1 leaves a part on, -1 applies its toggle. All generators
are positive products, so the run with everything on is in every fraction: it is the reference arm.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from namd.config.errors import ConfigError, shown

Design = Literal["arms", "leave-one-out", "pairwise", "factorial", "fractional"]

FULL = "full"
"""Name of the reference arm, unless the study names another."""

MAXIMUM_RUNS = 1024
"""A design of more arms than this is a mistake, not a study."""

MAXIMUM_GENERATORS = 16
"""Toggles beyond a fraction's base factors: each doubles its defining words."""

_MAXIMUM_TRIES = 40_000
"""Sets of columns that the search for a fraction looks at: some seconds."""


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
        """Return the other effects of at most `order` factors that are aliased with one."""
        found = {effect ^ word for word in self.words}
        return sorted((e for e in found if 0 < len(e) <= order), key=sorted)

    def to_mapping(self) -> dict[str, Any]:
        """Return what a plan shows: its size, and which toggles stand for which pairs as well."""
        return {
            "resolution": self.resolution,
            "runs": 2**self.num_base,
            "combinations": 2 ** len(self.factors),
            "aliases": {
                name: [sorted(pair) for pair in self.aliases(frozenset([name]), 2)]
                for name in self.factors
            },
        }


def make_arms(
    design: Design,
    toggles: Mapping[str, Mapping[str, Any]],
    resolution: int | None = None,
    reference: str = FULL,
) -> list[Arm]:
    """Return the arms of a design, the reference first.

    Args:
        design: Which combinations of toggles.
        toggles: Name to the values that applying it sets, by dotted path.
        resolution: Of `fractional`; 3 or more.
        reference: Name of the arm without toggles.

    Raises:
        ConfigError: Toggles contradict each other, two arms would have one name, or the design
            is larger than MAXIMUM_RUNS.
    """
    arms: list[Arm] = []
    named: dict[str, tuple[str, ...]] = {}
    for applied in _combinations(design, tuple(toggles), resolution):
        overrides = _combine(applied, toggles)
        name = _name(design, applied) if applied else reference
        if named.setdefault(name, applied) != applied:
            both = " and ".join(f"({', '.join(one) or 'none'})" for one in (named[name], applied))
            raise ConfigError(
                f"ablation.toggles: two arms would be called {shown(name)}, of the toggles {both}; "
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

    Raises ConfigError below resolution 3, where main effects would be aliased with one another,
    and where there is no such fraction of at most MAXIMUM_RUNS runs, or none is found in
    reasonable time.
    """
    if not factors:
        raise ConfigError("ablation.toggles is empty")
    if resolution < 3:
        raise ConfigError(
            f"ablation.resolution={resolution}: below 3 main effects are aliased with one another"
        )
    columns, num_base = _smallest(len(factors), resolution)
    words = tuple(_words(factors, columns))
    shortest = min((len(word) for word in words), default=len(factors) + 1)
    return Fraction(tuple(factors), columns, num_base, words, shortest)


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
    if design == "arms":
        return applied[0]
    return "_".join(f"no_{name}" for name in applied)


def _combine(applied: tuple[str, ...], toggles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for name in applied:
        for path, value in toggles[name].items():
            if path in overrides and overrides[path] != value:
                raise ConfigError(
                    f"ablation.toggles.{name}.{path}={shown(value)}: another toggle of the same "
                    f"arm sets {shown(overrides[path])}"
                )
            overrides[path] = value
    return overrides


@cache
def _smallest(num_factors: int, resolution: int) -> tuple[tuple[int, ...], int]:
    """Return the columns of the smallest fraction and its number of base factors.

    Raises ConfigError if it is too large, or takes too long to find.
    """
    max_base = MAXIMUM_RUNS.bit_length() - 1
    asked = f"ablation.resolution={resolution}: {num_factors} toggles"
    way = "take fewer toggles or a lower resolution, or use leave-one-out"
    if num_factors > max_base + MAXIMUM_GENERATORS:
        raise ConfigError(
            f"{asked}, a fraction has at most {max_base + MAXIMUM_GENERATORS}; use leave-one-out"
        )
    least = min(resolution, num_factors + 1)
    tries = itertools.count(1)
    for num_base in range(1, min(num_factors, max_base) + 1):
        try:
            columns = _columns(num_base, num_factors, least, tries)
        except _TooManyTries as error:
            raise ConfigError(
                f"{asked}, and no smallest fraction was found among the first {_MAXIMUM_TRIES:,} "
                f"sets of columns (up to {2**num_base} runs); {way}"
            ) from error
        if columns is None:
            continue
        if num_factors - num_base > MAXIMUM_GENERATORS:
            raise ConfigError(
                f"{asked} in {2**num_base} runs, {num_factors - num_base} more than its "
                f"{num_base} base factors where at most {MAXIMUM_GENERATORS} are; take fewer "
                "toggles, or use leave-one-out"
            )
        return columns, num_base
    raise ConfigError(f"{asked} need more than {MAXIMUM_RUNS} runs; {way}")


class _TooManyTries(Exception):  # noqa: N818 - says what is the case
    """The search for a fraction was cut short."""


def _columns(
    num_base: int, num_factors: int, resolution: int, tries: Iterator[int]
) -> tuple[int, ...] | None:
    """Return columns of GF(2)^num_base of which any resolution - 1 are independent, or None.

    The base factors come first; each further column must not be a sum of at most
    resolution - 2 earlier ones. Depth first in ascending order, so the answer is one of a kind.
    Raises _TooManyTries once `tries`, counted on with every set looked at, has come too far.
    """
    base = [1 << bit for bit in range(num_base)]
    if num_factors < num_base:
        return None

    def extend(columns: list[int], least: int, sums: list[set[int]]) -> list[int] | None:
        if len(columns) == num_factors:
            return columns
        if next(tries) > _MAXIMUM_TRIES:
            raise _TooManyTries
        for column in range(least, 1 << num_base):
            if column not in sums[-1]:
                found = extend([*columns, column], column + 1, _with_column(sums, column))
                if found is not None:
                    return found
        return None

    sums: list[set[int]] = [{0} for _ in range(resolution - 1)]
    for column in base:
        sums = _with_column(sums, column)
    columns = extend(base, 1, sums)
    return None if columns is None else tuple(columns)


def _with_column(sums: Sequence[set[int]], column: int) -> list[set[int]]:
    """Return the sums (exclusive or) of at most 0, 1, 2, ... columns once one more is there."""
    grown = [less | {total ^ column for total in fewer} for fewer, less in itertools.pairwise(sums)]
    return [sums[0], *grown]


def _words(factors: Sequence[str], columns: Sequence[int]) -> Iterator[frozenset[str]]:
    """Yield the non-empty sets of factors whose columns sum to nothing."""
    generators = [
        frozenset([factors[place], *(factors[bit] for bit in _bits(column))])
        for place, column in enumerate(columns)
        if column.bit_count() > 1
    ]
    words: list[frozenset[str]] = [frozenset()]
    for generator in generators:
        words += [word ^ generator for word in words]
    yield from words[1:]


def _bits(mask: int) -> Iterator[int]:
    return (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
