"""Step throughput of a Ray Train worker group of one worker against the bare loop, in one run.

Both run the same stage body: the VAE of a preset's shapes, trained by namd.train's loop on random
crops. The bare loop runs in this process before and after the worker group, whose worker has as
many threads. The body takes the time between two of its measurements, so a worker group's relay to
its stage worker counts; starts, imports and the first intervals do not.

    python -m experiments.benchmarks.worker_group_throughput --preset small --steps 400 --json
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import ray
import torch
from torch import Tensor, nn

from namd.config.fingerprint import fingerprint
from namd.config.parsing import parse
from namd.config.seeding import generator
from namd.distributed.worker_group import build_with_worker_group
from namd.losses.kl import kl_loss
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.total import LossTerm, StepOutput, weighted_sum
from namd.methods.base import Stage, StageContext, Step
from namd.methods.namd.method import METHOD
from namd.methods.namd.settings import NAMDConfig
from namd.models.initialisation import initialised_from
from namd.models.vae import GreyAutoencoder, build_vae
from namd.pipeline.graph import Node
from namd.pipeline.store import open_store
from namd.study.spec import StageResources
from namd.train.fit import fit
from namd.train.loop import TrainState
from namd.train.world import LocalWorld

PURPOSE = "benchmark-worker-group"
TIMES = "times.json"
STAGE = Stage(
    PURPOSE,
    1,
    "train",
    "experiments.benchmarks.worker_group_throughput:body",
    reads=("config", "num_steps"),
)
WARM_INTERVALS = 2


@dataclass(frozen=True)
class Throughput:
    """Warm steps per second, and the worker group's share of the bare loop's.

    Attributes:
        bare: Of the bare loop, both runs together.
        worker_group: Of the worker group of one.
        ratio: worker group / bare.
        threads: Of each.
        intervals: Intervals of 25 steps that were counted, bare and worker group.
    """

    bare: float
    worker_group: float
    ratio: float
    threads: int
    intervals: tuple[int, int]


class Autoencoding(nn.Module):
    """Reconstruction and KL of random crops."""

    def __init__(self, vae: GreyAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the loss."""
        images, noise = batch
        posterior = self.vae.encode(images)
        again = self.vae.decode(posterior.sample(noise))
        return weighted_sum(
            [
                LossTerm("reconstruction", 1.0, lambda: reconstruction_loss(again, images)),
                LossTerm("kl", 1e-6, lambda: kl_loss(posterior.mean, posterior.logvar)),
            ]
        )


def body(context: StageContext) -> Iterator[Step]:
    """Train; leave the time of each measurement."""
    config: NAMDConfig = context.settings.config
    with initialised_from(PURPOSE, 0):
        vae = build_vae(config.vae.architecture)
    vae.to(memory_format=torch.channels_last)
    state = TrainState(
        PURPOSE,
        Autoencoding(vae).to(context.world.device),
        config.vae,
        context.settings.num_steps,
        context.world,
        "fp32",
        0,
    )
    side = config.image.size // vae.downsampling
    shapes = ((1, config.image.size, config.image.size), (vae.latent_channels, side, side))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = generator(PURPOSE, step)
        images, noise = (
            torch.from_numpy(rng.standard_normal((config.vae.batch_size, *shape), "float32"))
            for shape in shapes
        )
        return images.to(context.world.device), noise.to(context.world.device)

    times = []
    for step in fit(state, batch, None, context.checkpoints):
        times.append((step.index, time.perf_counter()))
        yield Step(step.index, step.total, step.metrics)
    (context.out / TIMES).write_text(json.dumps([times, torch.get_num_threads()]))


def measure(preset: str, num_steps: int, threads: int) -> Throughput:
    """Return both throughputs; starts a Ray cluster of its own."""
    config = parse(NAMDConfig, METHOD.preset(preset))
    settings = SimpleNamespace(config=config, num_steps=num_steps)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        _say(f"bare loop, {num_steps} steps, 1 of 2")
        bare = _bare(settings, Path(place) / "before")
        _say(
            f"worker group of one, {num_steps} steps; "
            f"bare loop {1 / statistics.median(bare):.2f} steps/s"
        )
        worker_group = _worker_group(settings, Path(place) / "store", threads)
        _say(
            f"bare loop, {num_steps} steps, 2 of 2; "
            f"worker group {1 / statistics.median(worker_group):.2f} steps/s"
        )
        bare += _bare(settings, Path(place) / "after")
    # Others' work on the machine only ever adds time, so the middle of the intervals is compared.
    own, other = (1 / statistics.median(seconds) for seconds in (bare, worker_group))
    return Throughput(own, other, other / own, threads, (len(bare), len(worker_group)))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bare(settings: SimpleNamespace, place: Path) -> list[float]:
    payload = place / "payload"
    payload.mkdir(parents=True)
    context = StageContext(
        stage=STAGE,
        config=settings,
        cohort_path=place,
        artifacts={},
        outputs={None: payload},
        checkpoints=place / "checkpoints",
        world=LocalWorld(),
        warn=lambda _line: None,
    )
    for _ in body(context):
        pass
    return _seconds_per_step(payload)


def _worker_group(settings: SimpleNamespace, place: Path, threads: int) -> list[float]:
    node = Node(STAGE, fingerprint(PURPOSE), {}, {}, settings)
    ray.init(
        num_cpus=max(2, threads),
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        build_with_worker_group(
            [node],
            store_url=str(place),
            cohort=place,
            resources=StageResources(cpus=float(threads)),
            relay=lambda _label, _key, _step: None,
            name=PURPOSE,
        )
    finally:
        ray.shutdown()
    artifact = open_store(str(place)).find(STAGE.name, node.key)
    if artifact is None:
        raise FileNotFoundError(f"{place}: the worker group left no artifact")
    return _seconds_per_step(artifact.payload, threads)


def _seconds_per_step(payload: Path, threads: int | None = None) -> list[float]:
    """Return the seconds per step of each warm interval."""
    times, found = json.loads((payload / TIMES).read_text())
    if threads is not None and found != threads:
        raise ValueError(
            f"the worker group's worker ran with {found} threads, the bare loop with {threads}"
        )
    pairs = list(itertools.pairwise(times))[WARM_INTERVALS:]
    return [(end - begin) / (last - first) for (first, begin), (last, end) in pairs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = measure(options.preset, options.steps, options.threads)
    if options.json:
        print(json.dumps(asdict(found)))
    else:
        print(
            f"bare loop {found.bare:.2f} steps/s, "
            f"worker group of one {found.worker_group:.2f} steps/s, "
            f"ratio {found.ratio:.3f} ({found.threads} threads each)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
