"""A Ray cluster to run on: started here or joined, with its resources."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from namd.config.cpus import available_cpus
from namd.config.errors import InputError
from namd.distributed.local_ray import WorkerImports, private_ray, short_folder
from namd.distributed.ray_files import RayFiles, ray_files
from namd.pipeline.interruption import sheltered
from namd.study.plan import Cluster

DRIVER_RESOURCE = "namd_driver"
"""Custom resource of the nodes that trial processes should run on; a cluster may define it."""

_DRIVER_UNITS = 10_000
_START_TRIES = 3
_TRIAL_BYTES = 64 * 2**20
_OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    Attributes:
        cluster: The resources to run on.
        trial_resources: What one trial process reserves.
        started_here: Whether leaving the session ends the cluster.
        files: The files that Ray leaves.
    """

    cluster: Cluster
    trial_resources: dict[str, float]
    started_here: bool
    files: RayFiles


@contextmanager
def open_session(address: str | None) -> Iterator[Session]:
    """Join the cluster at an address, or start one here; an open connection is reused.

    Args:
        address: None or `local`: start one here; `auto`: join the local one; else `host:port`.

    Raises:
        InputError: There is no cluster at the address, or a driver cannot run from here.
    """
    here = address in (None, "local")
    with ExitStack() as stack:
        here = here and not ray.is_initialized()
        # A joined cluster has its sockets elsewhere.
        folder = short_folder() if here else Path(tempfile.mkdtemp(prefix="namd-"))
        files = stack.enter_context(ray_files(folder))
        if here:
            stack.enter_context(local_cluster(files.temporary))
        elif not ray.is_initialized():
            stack.enter_context(_joined(str(address)))
        yield Session(measure(), _trial_resources(), here, files)


@contextmanager
def local_cluster(
    folder: Path,
    num_cpus: int | None = None,
    driver_units: int = _DRIVER_UNITS,
    object_store_bytes: int = _OBJECT_STORE_BYTES,
) -> Iterator[None]:
    """Start a cluster on this machine only, and end it; see namd.distributed.local_ray.

    Args:
        folder: For its files; see `short_folder`.
        num_cpus: The cluster's cores; None: as many as this process may use.
        driver_units: The number of trials that it can run.
        object_store_bytes: For reports and blocks of draws, which are small.

    Raises:
        InputError: It cannot be started.
    """
    with private_ray():
        try:
            with sheltered():
                _start_here(
                    num_cpus=num_cpus or available_cpus(),
                    resources={DRIVER_RESOURCE: driver_units},
                    object_store_memory=object_store_bytes,
                    _temp_dir=str(folder),
                )
            yield
        finally:
            ray.shutdown()


def measure() -> Cluster:
    """Return the resources of the cluster's live nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [float(node.get("CPU", 0.0)) for node in nodes]
    gpus = [float(node.get("GPU", 0.0)) for node in nodes]
    return Cluster(sum(cpus), sum(gpus), max(cpus, default=0.0), max(gpus, default=0.0))


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Join a cluster, and leave it. Raises InputError if there is none."""
    if address.startswith("ray://"):
        raise InputError(
            f"address {address}: a study's driver runs inside the cluster; submit it with "
            "`namd submit`, or run it on a node of the cluster with --address auto"
        )
    try:
        ray.init(
            address=address,
            job_config=WorkerImports(),
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"address {address}: no Ray cluster to join ({line})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(**options: Any) -> None:  # noqa: ANN401 - of ray.init
    """Start a cluster on this machine. Raises InputError if that takes too long."""
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    for tries_left in reversed(range(_START_TRIES)):
        try:
            ray.init(
                address="local",
                job_config=WorkerImports(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                **options,
            )
            return
        except OSError as error:
            raise InputError(f"Ray cannot be started on this machine ({error})") from error
        except Exception as error:
            # A raylet has 30 s to start, too short on a busy machine; Ray has no class for this.
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
    """Kill the processes of a failed start, which `ray.shutdown` does not know.

    They would slow the next try down on a machine that is too slow already.
    """
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in spared]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _trial_resources() -> dict[str, float]:
    """Return what one trial process reserves: almost nothing, and no accelerator.

    If the cluster lacks the custom resource, that is some memory, which it does use. Even a
    fraction of a core would cost the node a stage worker that needs whole cores.
    """
    if ray.cluster_resources().get(DRIVER_RESOURCE, 0.0) > 0:
        return {DRIVER_RESOURCE: 1.0}
    return {"memory": float(_TRIAL_BYTES)}
