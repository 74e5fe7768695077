"""What a stage's stage worker occupies: workers, devices, their seconds, and shares of a batch.

The one place that says what a stage is charged, for plan, budget and ledger. No Ray in here.
"""

from collections.abc import Iterable
from dataclasses import replace

from namd.config.errors import InputError
from namd.methods.base import Stage
from namd.pipeline.graph import Node
from namd.study.spec import ResourcesSpec, StageResources

TOGETHER = ("train", "draw")
"""Roles of the stages that several workers build."""


def num_workers(stage: Stage, resources: StageResources) -> int:
    """Return how many workers build a stage: more than one only for training and drawing."""
    return resources.workers if stage.role in TOGETHER else 1


def occupied(stage: Stage, resources: StageResources) -> StageResources:
    """Return what building a stage reserves: what its file says, or one worker of that."""
    if num_workers(stage, resources) == resources.workers:
        return resources
    return replace(resources, workers=1, minimum_workers=None)


def devices_of_worker(resources: StageResources) -> float:
    """Return the devices that one worker occupies: accelerators, or cores where it has none."""
    return resources.gpus or resources.cores


def device_seconds(worker_seconds: float, resources: StageResources) -> float:
    """Return what a stage is charged.

    Args:
        worker_seconds: Wall seconds times workers, as its manifest records them.
        resources: What its workers reserve.
    """
    return worker_seconds * devices_of_worker(resources)


def global_batch(node: Node) -> int | None:
    """Return the batch size in a training stage's own section; None if it names none."""
    section = getattr(node.settings, node.stage.family, None)
    section = getattr(section, "embedded", section)
    size = getattr(section, "batch_size", None)
    return size if isinstance(size, int) else None


def shareable(label: str, batch: int | None, resources: StageResources) -> int:
    """Return the largest size within the bounds that shares the batch equally.

    Raises InputError if there is none.
    """
    sizes = [
        n for n in range(resources.least, resources.workers + 1) if batch is None or batch % n == 0
    ]
    if not sizes:
        bounds = (
            f"{resources.workers}"
            if resources.least == resources.workers
            else f"{resources.least} to {resources.workers}"
        )
        raise InputError(
            f"{label}: a global batch of {batch} cannot be shared equally by {bounds} workers; "
            "choose a number of workers that divides it"
        )
    return max(sizes)


def batch_refusal(nodes: Iterable[Node], resources: ResourcesSpec) -> str | None:
    """Return why a worker group cannot share the batch of one of the nodes to build, or None."""
    for node in nodes:
        need = resources.of(node.stage.name, node.stage.family)
        if node.stage.role == "train" and need.workers > 1:
            try:
                shareable(f"stage {node.label}", global_batch(node), need)
            except InputError as error:
                return str(error)
    return None
