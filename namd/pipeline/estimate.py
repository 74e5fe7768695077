"""How long building will take, judged by what the store remembers of the same stages."""

from collections.abc import Callable, Mapping, Sequence

from namd.pipeline.graph import Node
from namd.pipeline.store import Store


def estimator(store: Store) -> Callable[[Sequence[Node]], Mapping[str, float | None]]:
    """Return a function from nodes to the seconds that each will take, by label.

    The last build of the same stage is the guess, whatever its settings: None where the store
    holds none.
    """

    def estimate(nodes: Sequence[Node]) -> Mapping[str, float | None]:
        known = {name: _last(store, name) for name in {node.stage.name for node in nodes}}
        return {node.label: known[node.stage.name] for node in nodes}

    return estimate


def _last(store: Store, stage: str) -> float | None:
    built = []
    for key in store.backend.list(stage):
        artifact = store.find(stage, key)
        if artifact is not None:
            manifest = artifact.manifest()
            built.append((str(manifest["created"]), float(manifest["wall_seconds"])))
    return max(built)[1] if built else None
