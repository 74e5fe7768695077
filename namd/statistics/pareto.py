"""The Pareto front of scores, without numpy, so that `study status` stays light."""

from collections.abc import Mapping, Sequence


def pareto_front(scores: Mapping[int, Sequence[float]]) -> list[int]:
    """Return the indices of the scores that no other dominates, in order.

    Higher is better in every component. A score dominates another if it is as good in every
    component and better in one. For scores with one component the first of the best is returned.
    """
    found = {number: tuple(score) for number, score in scores.items()}
    if not found:
        return []
    if len(next(iter(found.values()))) == 1:
        return [max(found, key=lambda number: found[number])]
    return [number for number, score in found.items() if not _is_beaten(score, found)]


def _is_beaten(score: tuple[float, ...], all_scores: Mapping[int, tuple[float, ...]]) -> bool:
    return any(
        other != score and all(o >= s for o, s in zip(other, score, strict=True))
        for other in all_scores.values()
    )
