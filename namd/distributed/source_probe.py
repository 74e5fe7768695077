"""Checks on every node of a cluster which namd its workers import, before anything is built."""

import inspect
from collections.abc import Callable

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from namd.config.errors import InputError
from namd.distributed.source_identity import WAY_OUT, SourceIdentity, named, own_source
from namd.methods.source_hash import PACKAGE

WAIT_S = 60.0
"""Longest wait for the answers. Slower nodes are checked by their workers later."""

Answer = tuple[str, str, str]
"""Version, file and digest of a node's package; file is empty if it has none."""


def require_same_source_everywhere() -> None:
    """Raise InputError if workers of a node import another namd than this process."""
    driver = own_source()
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    look = ray.remote(num_cpus=0, max_retries=0)(_look())
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[look.options(scheduling_strategy=there).remote()] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_S)
    for answer in answered:
        try:
            require_answer(nodes[asked[answer]], ray.get(answer), driver)
        except RayError:
            continue  # the node died, or its worker was killed


def require_answer(node: str, answer: Answer, driver: SourceIdentity) -> None:
    """Raise InputError if a node has no namd, or another one than the driver."""
    version, file, digest = answer
    there = named(driver.version, driver.file, driver.files_digest)
    if not file:
        raise InputError(f"node {node} has no {PACKAGE}, the driver {there}: {WAY_OUT}")
    if digest != driver.files_digest:
        here = named(version, file, digest)
        raise InputError(f"node {node} has {here}, but the driver {there}: {WAY_OUT}")


def _look() -> Callable[[], Answer]:
    """Return a function that is sent by value: another namd may lack this module."""

    def look() -> tuple[str, str, str]:
        import hashlib
        import importlib.util
        from importlib import metadata
        from pathlib import Path

        spec = importlib.util.find_spec("namd")
        if spec is None or spec.origin is None:
            return "", "", ""
        package, digest = Path(spec.origin).parent, hashlib.sha256()
        # The same as namd.distributed.source_identity.files_digest.
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package).as_posix()
            digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        try:
            version = metadata.version("namd")
        except metadata.PackageNotFoundError:
            version = ""
        return version, str(spec.origin), digest.hexdigest()

    # Under test each function is wrapped in type checks, which cannot be sent.
    return inspect.unwrap(look)
