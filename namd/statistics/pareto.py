"""Which of several scored things no other one beats. Needs no numpy: a status is shown with it."""

from collections.abc import Mapping, Sequence


def pareto_front(scores: Mapping[int, Sequence[float]]) -> list[int]:
    """Return the numbers whose score no other one beats, in their order.

    Every part of a score is better the larger it is. One beats another if it is as good in every
    part and better in one. Of scores with one part only the first of the best is returned.
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
