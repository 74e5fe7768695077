"""What each worker of a worker group does: run the stage's body as one rank."""

import os
import socket
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from namd.config.account import complete_account
from namd.config.errors import InputError, StageError
from namd.config.threads import fixed_threads
from namd.distributed.source_identity import require_same_source
from namd.distributed.worker_group_order import WorkerGroupOrder, WorkerResult
from namd.methods.base import StageContext
from namd.train.checkpoints import Checkpoints
from namd.train.loop import DivergedError
from namd.train.stopping import request_stop
from namd.train.world import current_world, wait_for_all

ALIVE_S = 1.0
"""Interval at which rank 0 signals that it is alive and asks whether to stop."""

MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)
"""Errors of a body that no restart fixes; lost peers appear as RuntimeError or OSError."""


def work(config: dict[str, Any]) -> WorkerResult:
    """Run the body; rank 0 relays its steps and fills the real output folders.

    An error that the user or the model caused is reported to the host, which ends the worker group;
    Ray Train retries after all others.
    """
    complete_account()
    order: WorkerGroupOrder = config["order"]
    host = config["host"]
    device = str(get_device())
    rank, size = dist.get_rank(), usable_workers(dist.get_world_size(), order)
    resumed_from = Checkpoints(order.checkpoints).newest()
    if not ray.get(host.begin.remote(rank, size, device, resumed_from)):
        return WorkerResult(left=True)
    if not _regrouped(size, order.backend):
        return WorkerResult()
    try:
        require_same_source(order.source)
        with ExitStack() as stack:
            return _body(order, host, device, stack)
    except SystemExit:
        return WorkerResult(left=True)
    except DivergedError as error:
        # All ranks have it, so the worker group can end normally.
        ray.get(host.fail.remote(error))
        return WorkerResult()
    except (InputError, StageError) as error:
        ray.get(host.fail.remote(error))
        raise
    except MISTAKES as error:
        ray.get(host.fail.remote(StageError(f"{order.label}: {type(error).__name__}: {error}")))
        raise


def usable_workers(present: int, order: WorkerGroupOrder) -> int:
    """Return the largest number of present workers that divides the global batch."""
    if order.batch_size is None:
        return present
    return max(n for n in range(1, present + 1) if order.batch_size % n == 0)


def _body(order: WorkerGroupOrder, host: Any, device: str, stack: ExitStack) -> WorkerResult:  # noqa: ANN401
    world = current_world(device)
    outputs: Mapping[int | None, Path] = order.outputs
    if not world.leads:
        # A body writes its results on every rank; only those of rank 0 are kept.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outputs = {index: scratch / str(number) for number, index in enumerate(order.outputs)}
        for folder in outputs.values():
            folder.mkdir()

    def warn(line: str) -> None:
        if world.leads:
            ray.get(host.warn.remote(line))

    context = StageContext(
        stage=order.stage,
        config=order.settings,
        cohort_path=order.cohort_path,
        artifacts=order.inputs,
        outputs=outputs,
        checkpoints=order.checkpoints,
        world=world,
        warn=warn,
    )
    if world.leads:
        threading.Thread(target=_show_life, args=(host,), daemon=True).start()
    with fixed_threads(order.num_threads):
        for step in order.stage.load_body()(context):
            if world.leads:
                ray.get(host.say.remote(step))
            # The stage worker may be uploading the checkpoints right now: no rank may write
            # meanwhile.
            wait_for_all(world)
    return WorkerResult(notes=context.notes)


def _show_life(host: Any) -> None:  # noqa: ANN401
    while True:
        if ray.get(host.alive.remote()):
            request_stop()
            return
        threading.Event().wait(ALIVE_S)


def _regrouped(size: int, backend: str) -> bool:
    """Remove workers beyond `size` from the process group; return whether this one stays."""
    if size == dist.get_world_size():
        return True
    rank, device = dist.get_rank(), "cpu" if backend == "gloo" else str(get_device())
    port = torch.tensor(_free_port(), device=device)
    dist.broadcast(port, src=0)
    dist.destroy_process_group()
    if rank >= size:
        return False
    address = f"tcp://{os.environ['MASTER_ADDR']}:{int(port)}"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
