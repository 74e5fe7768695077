"""How long building will take, judged by what the store remembers of the same stages."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from namd.config.flattening import flat
from namd.pipeline.graph import Node
from namd.pipeline.store import Store
from namd.storage.errors import StoreError

SPAN = 3.0
"""Counts and sizes that differ more than so many times make two artifacts' costs unlike."""


def estimator(store: Store) -> Callable[[Sequence[Node]], Mapping[str, float | None]]:
    """Return a function from nodes to the seconds that each will take, by label.

    None if the store holds nothing that is like it.
    """

    def estimate(nodes: Sequence[Node]) -> Mapping[str, float | None]:
        known = {name: _manifests(store, name) for name in {node.stage.name for node in nodes}}
        return {
            node.label: nearest_cost(node, known[node.stage.name], "wall_seconds") for node in nodes
        }

    return estimate


def nearest_cost(
    node: Node,
    manifests: Sequence[Mapping[str, Any]],
    cost: Literal["device_seconds", "wall_seconds"] = "device_seconds",
) -> float | None:
    """Return what the recorded artifacts most like a node cost, or None if none is like it.

    Likeness is the number of configuration leaves that differ; the median is taken among the
    most alike, so that one artifact made on a busy machine does not decide. An artifact whose
    steps, widths or cases are of another order is left out: one preset's is not another's.
    """
    wanted = _leaves(node.identity["slice"])
    distances = []
    for manifest in manifests:
        if cost in manifest and "identity" in manifest:
            leaves = _leaves(manifest["identity"]["slice"])
            if _of_one_order(leaves, wanted):
                differing = sum(
                    leaves.get(path) != wanted.get(path) for path in leaves.keys() | wanted.keys()
                )
                distances.append((differing, float(manifest[cost])))
    if not distances:
        return None
    least = min(distance for distance, _ in distances)
    return statistics.median(found for distance, found in distances if distance == least)


def _manifests(store: Store, stage: str) -> list[dict[str, Any]]:
    found = []
    for key in store.backend.names(stage):
        # A damaged artifact is refused when it is needed; here it only has no cost.
        with suppress(StoreError, ValueError):
            artifact = store.find(stage, key, digests=False)
            if artifact is not None:
                found.append(artifact.manifest())
    return found


def _of_one_order(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        _near(recorded[path], wanted[path])
        for path in recorded.keys() & wanted.keys()
        if recorded[path] != wanted[path]
    )


def _near(recorded: Any, wanted: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether two values of one leaf let costs be compared; what is no count always does.

    What is switched off (0) costs no more than what is not, so it may be judged by that.
    """
    recorded, wanted = json.loads(recorded), json.loads(wanted)
    if isinstance(recorded, list) and isinstance(wanted, list):
        counts = [list(_counts(value)) for value in (recorded, wanted)]
        if len(counts[0]) != len(counts[1]):
            return False
        return all(_within_span(*pair) for pair in zip(*counts, strict=True))
    if _is_count(recorded) and _is_count(wanted):
        return _within_span(recorded, wanted)
    # Steps given as epochs: no common measure.
    return not (_is_count(recorded) or _is_count(wanted)) or None not in (recorded, wanted)


def _within_span(recorded: int, wanted: int) -> bool:
    return wanted <= SPAN * recorded and (recorded <= SPAN * wanted or wanted == 0)


def _counts(values: Sequence[Any]) -> Iterator[int]:
    return (value for value in values if _is_count(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _leaves(value: Mapping[str, Any]) -> dict[str, str]:
    return {path: json.dumps(leaf) for path, leaf in flat(value).items()}
