"""A Ray cluster to run on: started here, or joined; what it has, and who ends it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import ray

from namd.config.cpus import available_cpus
from namd.config.errors import InputError
from namd.study.plan import Cluster

DRIVER_RESOURCE = "namd_driver"
"""Custom resource of the nodes that trial drivers belong on; a cluster may define it."""

_DRIVER_UNITS = 10_000
_START_TRIES = 3
_TRIAL_BYTES = 64 * 2**20
_OBJECT_STORE_BYTES = 512 * 2**20
"""Of a cluster started here: reports and blocks of draws are small."""


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    Attributes:
        cluster: What there is to run on.
        trial_resources: What one trial driver reserves.
        started_here: Whether leaving the session ends the cluster.
    """

    cluster: Cluster
    trial_resources: dict[str, float]
    started_here: bool


@contextmanager
def open_session(address: str | None) -> Iterator[Session]:
    """Join the cluster at an address, or start one here; a running connection is used as it is.

    Token authentication is left as Ray has it: on.

    Args:
        address: None or `local`: start one here; `auto`: join this machine's; else `host:port`.

    Raises:
        InputError: There is no cluster at the address, or a driver cannot run from here.
    """
    joined_before = ray.is_initialized()
    started_here = not joined_before and _connect(address)
    try:
        yield Session(measure(), _trial_resources(), started_here)
    finally:
        if not joined_before:
            ray.shutdown()


def measure() -> Cluster:
    """Return what the cluster's live nodes have."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [float(node.get("CPU", 0.0)) for node in nodes]
    gpus = [float(node.get("GPU", 0.0)) for node in nodes]
    return Cluster(sum(cpus), sum(gpus), max(cpus, default=0.0), max(gpus, default=0.0))


def _connect(address: str | None) -> bool:
    """Connect; return whether a cluster was started for it."""
    if address is not None and address.startswith("ray://"):
        raise InputError(
            f"address {address}: a study's driver runs inside the cluster; submit it with "
            "`namd submit`, or run it on a node of the cluster with --address auto"
        )
    if address in (None, "local"):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _start_here()
        return True
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"address {address}: no Ray cluster to join ({line})") from error
    return False


def _start_here() -> None:
    """Start a cluster of this machine. Raises InputError where it is too slow to start."""
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    for tries_left in reversed(range(_START_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=available_cpus(),
                resources={DRIVER_RESOURCE: _DRIVER_UNITS},
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
            return
        except Exception as error:
            # Ray gives its raylet 30 s, which a busy machine may not have, and has no class for it.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            _end_children(mine)
            if not tries_left:
                raise InputError(
                    f"Ray did not start on this machine in {_START_TRIES} times 30 s: it is too "
                    "busy; end other work, or name a cluster with --address"
                ) from error


def _end_children(spared: set[int]) -> None:
    """Kill what a failed start left running: `ray.shutdown` knows nothing of it.

    The next try would share the machine, which is too slow already, with it.
    """
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in spared]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _trial_resources() -> dict[str, float]:
    """Return what one trial driver reserves: next to nothing, and no accelerator.

    Without a unit made for it that is some memory, which it does use. Any sliver of a core would
    cost its node a builder that wants whole cores.
    """
    if ray.cluster_resources().get(DRIVER_RESOURCE, 0.0) > 0:
        return {DRIVER_RESOURCE: 1.0}
    return {"memory": float(_TRIAL_BYTES)}
