"""The effects of a design with several toggles, and of pairs of toggles, as weights of arms.

Only the weights are decided here; `study_contrasts` computes values and intervals. The
design is read from the ledger's records, without the code that made it.

With every part on or off in all combinations, the effect of a toggle is the mean over the arms that
apply it minus the mean over those that do not. An interaction of two toggles is how much the effect
of one changes if the other is applied too: 0 if effects are additive.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from namd.ledger.view import StudyView

REFERENCE = "full"
"""The default reference arm."""


def reference_arm(view: StudyView) -> str:
    """Return the name of the arm that the others are compared with."""
    return str((view.specification.get("ablation") or {}).get("reference") or REFERENCE)


"""Name of the arm that applies no toggle."""

Combination = frozenset[str]
"""The toggles that are applied together."""


@dataclass(frozen=True)
class Effect:
    """One linear combination of arms.

    Attributes:
        name: `align`, or `align × predict` for an interaction.
        toggles: One or two.
        weights: Per arm, summing to 0; empty if all combinations give one configuration.
        aliases: Interactions that are aliased with this effect.
        unknown: Combinations without an arm in the ledger.
    """

    name: str
    toggles: tuple[str, ...]
    weights: Mapping[str, float]
    aliases: tuple[str, ...] = ()
    unknown: int = 0

    @property
    def shows(self) -> str:
        """What the estimate of an aliased effect shows, in words; else empty."""
        if not self.aliases:
            return ""
        if len(self.toggles) == 2:
            return "the sum of both" if len(self.aliases) == 1 else "the sum of all"
        part = "it" if len(self.aliases) == 1 else "their sum"
        return f"{self.name} less half of {part}"


@dataclass(frozen=True)
class Effects:
    """All effects of a design.

    Attributes:
        design: `pairwise`, `factorial` or `fractional`.
        effects: Toggles, then interactions.
        num_toggles: Toggles of the design.
        num_combinations: Combinations that it runs.
        resolution: Of a fraction that leaves combinations out; None for other designs.
    """

    design: str
    effects: tuple[Effect, ...]
    num_toggles: int
    num_combinations: int
    resolution: int | None = None


def design_effects(view: StudyView) -> Effects | None:
    """Return the effects of a study's design; None if it has none.

    None also for a fraction whose arms are not all in the ledger yet.
    """
    ablation = view.specification.get("ablation") or {}
    design, toggles = str(ablation.get("design", "")), tuple(ablation.get("toggles") or ())
    arms = arms_of_combinations(view, toggles)
    if design == "pairwise":
        runs = list(_subsets(toggles, 2))
        return Effects(design, _pairwise(toggles, arms), len(toggles), len(runs))
    if design == "factorial":
        runs = list(_subsets(toggles, len(toggles)))
        return Effects(design, _two_level(toggles, runs, arms), len(toggles), len(runs))
    if design != "fractional" or not is_fraction(toggles, list(arms)):
        return None
    runs = list(arms)
    resolution = shortest_word(toggles, runs)
    if resolution is not None and resolution < int(ablation.get("resolution") or 3):
        return None
    effects = _two_level(toggles, runs, arms)
    return Effects(design, effects, len(toggles), len(runs), resolution)


def arms_of_combinations(view: StudyView, toggles: Sequence[str]) -> dict[Combination, str]:
    """Return the arm of each combination, also of those that were merged into another's.

    In an older ledger, which does not record combinations, they are taken from the arms' names.
    """
    recorded = view.about.get("combinations")
    if recorded:
        return {frozenset(one): arm for arm, found in recorded.items() for one in found}
    names = dict.fromkeys(trial.arm for trial in view.trials.values())
    read = {name: _named_after(name, toggles, reference_arm(view)) for name in names}
    return {found: name for name, found in read.items() if found is not None}


def is_fraction(toggles: Sequence[str], runs: Sequence[Combination]) -> bool:
    """Whether runs are a regular fraction in which no two toggles are aliased.

    Regular: with any two runs, the one that applies the toggles of exactly one of both is run too.
    """
    known = set(runs)
    if len(known) < 2 or any(one ^ other not in known for one in known for other in known):
        return False
    columns = [_column([toggle], runs) for toggle in toggles]
    return 0 not in columns and len(set(columns)) == len(columns)


def shortest_word(toggles: Sequence[str], runs: Sequence[Combination]) -> int | None:
    """Return a fraction's resolution: the fewest toggles of which all runs apply an even number.

    None if there are no such toggles: all combinations are run.
    """
    if len(runs) == 2 ** len(toggles):
        return None
    for size in range(1, len(toggles) + 1):
        if any(not _column(chosen, runs) for chosen in itertools.combinations(toggles, size)):
            return size
    return None


def _pairwise(toggles: Sequence[str], arms: Mapping[Combination, str]) -> tuple[Effect, ...]:
    """Effects against the reference alone: no arm of the design applies more than two toggles."""
    nothing: Combination = frozenset()
    effects = [
        _effect((toggle,), {frozenset([toggle]): 1.0, nothing: -1.0}, arms) for toggle in toggles
    ]
    for one, other in itertools.combinations(toggles, 2):
        single, second, both = frozenset([one]), frozenset([other]), frozenset([one, other])
        weights = {both: 1.0, single: -1.0, second: -1.0, nothing: 1.0}
        effects.append(_effect((one, other), weights, arms))
    return tuple(effects)


def _two_level(
    toggles: Sequence[str], runs: Sequence[Combination], arms: Mapping[Combination, str]
) -> tuple[Effect, ...]:
    """Effects as means over all runs; an interaction that shares its weights becomes an alias."""
    found: dict[int, Effect] = {}
    chosen = [*((toggle,) for toggle in toggles), *itertools.combinations(toggles, 2)]
    for several in chosen:
        column = _column(several, runs)
        if column in found:
            known = found[column]
            found[column] = replace(known, aliases=(*known.aliases, effect_name(several)))
            continue
        found[column] = _effect(several, _balanced(several, runs), arms)
    return tuple(found.values())


def _balanced(toggles: Sequence[str], runs: Sequence[Combination]) -> dict[Combination, float]:
    """Return 2/n with one toggle applied and -2/n without; of a pair the product, 4/n."""
    share = 2.0 ** len(toggles) / len(runs)
    weights = {}
    for run in runs:
        off = sum(toggle not in run for toggle in toggles)
        weights[run] = -share if off % 2 else share
    return weights


def _effect(
    toggles: tuple[str, ...],
    weights: Mapping[Combination, float],
    arms: Mapping[Combination, str],
) -> Effect:
    """Return the effect with the weights of one arm's combinations added up."""
    summed: dict[str, float] = {}
    for combination, weight in weights.items():
        if combination in arms:
            arm = arms[combination]
            summed[arm] = summed.get(arm, 0.0) + weight
    counting = {arm: weight for arm, weight in summed.items() if abs(weight) > 1e-12}
    unknown = sum(combination not in arms for combination in weights)
    return Effect(effect_name(toggles), toggles, counting, unknown=unknown)


def effect_name(toggles: Iterable[str]) -> str:
    """Return `align`, or `align × predict`."""
    return " \u00d7 ".join(toggles)


def _column(toggles: Iterable[str], runs: Sequence[Combination]) -> int:
    """Return the runs that apply an odd number of the toggles, as a bit mask."""
    chosen = frozenset(toggles)
    return sum(1 << place for place, run in enumerate(runs) if len(run & chosen) % 2)


def _subsets(toggles: Sequence[str], most: int) -> Iterable[Combination]:
    for size in range(min(most, len(toggles)) + 1):
        yield from map(frozenset, itertools.combinations(toggles, size))


def _named_after(arm: str, toggles: Sequence[str], reference: str) -> Combination | None:
    """Return the toggles in an arm's name (`no_align_no_ehr`); None if it names others."""
    if arm == reference:
        return frozenset()
    return next((found for found in _readings(arm, frozenset(toggles))), None)


def _readings(text: str, toggles: Combination) -> Iterable[Combination]:
    """Yield the sets of toggles whose joined names are a text; names may hold underscores."""
    for toggle in sorted(toggles):
        if text == f"no_{toggle}":
            yield frozenset([toggle])
        elif text.startswith(f"no_{toggle}_"):
            rest = text.removeprefix(f"no_{toggle}_")
            for found in _readings(rest, toggles - {toggle}):
                yield found | {toggle}
