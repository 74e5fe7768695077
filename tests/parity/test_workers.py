"""One worker = two workers: the training bodies under gloo, without Ray.

DDP takes eight seconds to import, so both ranks are forked from one process that has.
"""

import dataclasses
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from namd.data.cohort import Cohort
from namd.data.features import NoduleFeatures
from namd.methods.shared.crop_set import CropSet
from namd.train.checkpoints import Checkpoints
from namd.train.loop import DivergedError
from namd.train.order import CaseOrder
from namd.train.world import LocalWorld, current_world
from tests.parity import worker_group_bodies as bodies

pytestmark = pytest.mark.serial

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRS = {
    "sgd_vae": "detached_vae",
    "sgd_judge": "unsynced_judge",
    "sgd_language": "unweighed_language",
}
"""What must agree, and its twin with one thing broken that must not."""
ENDS = ("diverging_language", "leaving_vae")
"""Bodies of which one rank learns that there is no going on. The last leaves its process so."""


@dataclasses.dataclass(frozen=True)
class Place:
    folder: Path

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort"

    @property
    def perceptual(self) -> Path:
        return self.folder / "perceptual"

    def run(self, name: str, world) -> None:
        out = self.folder / f"{name}-{world.size}" / str(world.rank)
        context = bodies.context_for(self.cohort, self.perceptual, out, world)
        context.checkpoints = out.parent / "checkpoints"
        for _ in bodies.BODIES[name](context):
            pass

    def result(self, name: str, size: int, rank: int = 0):
        return bodies.trained(self.folder / f"{name}-{size}" / str(rank) / "payload")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A folder in which every body has been run by two workers, and the sound ones by one."""
    found = Place(tmp_path_factory.mktemp("workers"))
    bodies.make_cohort(found.cohort)
    bodies.make_perceptual(found.perceptual)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    worker_group = subprocess.Popen(
        [sys.executable, "-m", "tests.parity.test_workers", str(found.folder)],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    for name in PAIRS:
        found.run(name, LocalWorld())
    _, errors = worker_group.communicate(timeout=300)
    assert worker_group.returncode == 0, errors
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_two_workers_train_the_parameters_of_one(place, name):
    alone = place.result(name, 1)
    assert bodies.furthest(place.result(name, 2), alone) < 1e-5
    assert bodies.furthest(place.result(name, 2, rank=1), alone) < 1e-5


@pytest.mark.parametrize("name", PAIRS)
def test_a_worker_group_with_its_exchange_broken_is_found_out(place, name):
    assert bodies.furthest(place.result(PAIRS[name], 2), place.result(name, 1)) > 1e-4


def test_labels_and_features_are_missing_unevenly_over_ranks(place):
    settings = bodies.settings()
    train = Cohort.read(place.cohort, ("train",))
    crops = CropSet(train, settings.image, NoduleFeatures.fit(train.table, "standardised"))
    order = CaseOrder("vae", settings.train_seed, len(crops), bodies.BATCH)
    steps = np.stack([order.at(step) for step in range(bodies.STEPS)])
    for known in (~np.isnan(crops.labels), crops.complete):
        first, second = known[steps].reshape(bodies.STEPS, 2, -1).sum(2).T
        assert (first != second).mean() > 0.5


def test_checkpoints_of_a_worker_group_are_whole(place):
    names = {path.name for path in (place.folder / "sgd_vae-2" / "checkpoints").glob("*.pt")}
    assert names == {f"{who}-{at}.pt" for who in ("shared", "rank0", "rank1") for at in (15, 20)}


def test_a_loss_that_breaks_on_one_rank_stops_both_at_that_step(place):
    for rank in range(2):
        text = (place.folder / f"diverging_language-{rank}.txt").read_text()
        assert f"not finite at step {bodies.KILLED_AT}" in text
        assert ("nan" in text) == (rank == 1)


def test_a_rank_asked_to_stop_takes_the_other_along_and_leaves_a_checkpoint(place):
    for rank in range(2):
        assert (place.folder / f"leaving_vae-{rank}.txt").read_text() == "SystemExit(143)"
    found = Checkpoints(place.folder / "leaving_vae-2" / "checkpoints").newest()
    assert found == bodies.KILLED_AT + 1


def work(folder: Path, rank: int) -> None:
    """Be one of two ranks."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    for name in (*PAIRS, *PAIRS.values(), *ENDS):
        try:
            Place(folder).run(name, current_world("cpu"))
        except (DivergedError, SystemExit) as end:
            (folder / f"{name}-{rank}.txt").write_text(repr(end))
    torch.distributed.destroy_process_group()


def fork_ranks(folder: Path) -> int:
    """Fork both ranks; return 0 where both came through."""
    import torch._dynamo.utils  # noqa: F401 - DDP's slow import, once for both

    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            try:
                work(folder, rank)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return max(os.waitpid(child, 0)[1] for child in children)


if __name__ == "__main__":
    sys.exit(1 if fork_ranks(Path(sys.argv[1])) else 0)
