"""Worker groups of Ray Train: what they refuse and relay, and that they equal one worker."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from namd.config.errors import InputError, StageError
from namd.distributed.worker_group import WorkerGroupPatience
from namd.distributed.worker_group_host import WorkerGroupHost
from namd.methods.base import Stage, Step
from namd.pipeline.graph import Node
from namd.storage.artifacts import METRICS
from namd.study.spec import StageResources
from namd.study.worker_groups import global_batch
from namd.train.loop import DivergedError
from tests.distributed.worker_group_bench import Bench
from tests.parity import worker_group_bodies as bodies

REPOSITORY = Path(__file__).resolve().parents[2]
TWO = StageResources(workers=2, cpus=1.0)

# Mostly starts of processes: on cores that others use, two worker groups have taken ten minutes.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("worker_group"))


def gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


# Without Ray.


def test_rank_0_waits_until_its_step_is_written_down():
    host = WorkerGroupHost()
    said = threading.Thread(target=host.say, args=(Step(1, 2),))
    said.start()
    assert host.poll(0).steps == [Step(1, 2)]
    said.join(0.1)
    assert said.is_alive()
    assert host.poll(1).steps == []
    said.join(5)
    assert not said.is_alive()


def test_a_worker_group_asked_to_leave_or_broken_for_good_does_not_start_again():
    host = WorkerGroupHost()
    assert host.begin(0, 2, "cpu", 0)
    host.fail(InputError("first"))
    host.fail(InputError("second"))
    assert not host.begin(0, 2, "cpu", 5)
    assert str(host.poll(0).failure) == "first"
    leaving = WorkerGroupHost()
    assert leaving.alive() is False
    leaving.leave()
    assert leaving.alive() is True
    assert not leaving.begin(0, 2, "cpu", 0)


def test_a_diverged_loss_crosses_processes_as_itself():
    error = DivergedError("vae", 7, {"kl": float("nan")}, 5, "gradient")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DivergedError)
    assert (str(again), again.step, again.last_checkpoint) == (str(error), 7, 5)


def test_the_batch_of_every_training_section_is_found():
    settings = bodies.settings()
    for name, expected in (("vae", 8), ("judge", 8), ("language", 8), ("latents", None)):
        node = Node(Stage(name, 1, "train", "no:body"), "key", {}, {}, settings)
        assert global_batch(node) == expected


@pytest.mark.slow
def test_surplus_workers_leave_the_group_and_the_rest_go_on(tmp_path):
    command = [sys.executable, "-m", "tests.distributed.regroup", str(tmp_path)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=200)
    text = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert text == ["True 2", "True 2", "False 1"]


# With Ray.


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (StageResources(workers=2, cpus=3), "at least 2 workers with 3 CPU each.*have 4 CPU"),
        (StageResources(workers=1, gpus=64), "64 GPU each"),
        (StageResources(workers=3), "batch of 8 cannot be shared equally by 3 workers"),
    ],
)
def test_a_worker_group_without_room_is_refused_with_numbers(bench, resources, words):
    begun = time.monotonic()
    with pytest.raises(InputError, match=words):
        bench.build("sgd_vae", resources)
    assert time.monotonic() - begun < 20
    key = bench.node("sgd_vae").key
    assert bench.store.leases.holder(f"vae/{key}") is None


@pytest.fixture(scope="module")
def tuned(bench, ray_cluster) -> Bench:
    """The stage built by a worker group of two inside a Tune trial."""
    from ray import tune

    def trial(_config):
        bench.build("sgd_vae", TWO)
        tune.report({"relayed": [step.index for _, _, step in bench.relayed]})

    config = tune.RunConfig(storage_path=str(bench.folder / "tune"), verbose=0)
    tuner = tune.Tuner(tune.with_resources(trial, {"cpu": 0.1}), run_config=config)
    (result,) = tuner.fit()
    assert result.error is None
    assert result.metrics["relayed"] == [0, 10, 20]
    return bench


@pytest.mark.slow
@pytest.mark.ray
def test_a_tune_trial_with_two_workers_trains_the_parameters_of_one(tuned):
    assert bodies.furthest(tuned.parameters("sgd_vae"), tuned.alone()) < 1e-5


@pytest.mark.slow
@pytest.mark.ray
def test_the_manifest_describes_the_worker_group(tuned):
    artifact = tuned.artifact("sgd_vae")
    manifest = artifact.manifest()
    assert manifest["world"] == {"size": 2, "device": "cpu"}
    assert manifest["device_seconds"] == pytest.approx(2 * manifest["wall_seconds"], abs=0.01)
    assert manifest["notes"]["worker_group"]["restarts"] == 0
    lines = [line["index"] for line in artifact.metrics()]
    assert lines == [0, 10, 20]
    assert (artifact.folder / METRICS).is_file()
    assert not list(Path(tuned.url, "vae", artifact.key).glob("checkpoints"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_detached_gather_is_found_out(tuned):
    tuned.build("detached_vae", TWO)
    assert bodies.furthest(tuned.parameters("detached_vae"), tuned.alone()) > 1e-4


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_worker_costs_less_than_a_checkpoint_interval_and_changes_nothing(tuned):
    tuned.build("killed_vae", TWO)
    worker_group = tuned.artifact("killed_vae").manifest()["notes"]["worker_group"]
    assert worker_group["restarts"] == 1
    resumed_from = worker_group["groups"][1]["resumed_from"]
    assert 0 < bodies.KILLED_AT - resumed_from <= bodies.CHECKPOINT_EVERY
    assert [step.index for _, _, step in tuned.relayed] == [0, 10, 20]
    ours, unkilled = tuned.parameters("killed_vae"), tuned.parameters("sgd_vae")
    assert all(torch.equal(ours[name], unkilled[name]) for name in unkilled)


@pytest.mark.slow
@pytest.mark.ray
def test_a_worker_group_asked_to_go_saves_a_checkpoint_and_goes_on_later_with_the_same_bits(tuned):
    def interrupt(step: Step) -> None:
        if step.index == bodies.STEPS // 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as left:
        tuned.build("interrupted_vae", TWO, seeing=interrupt)
    assert left.value.code == 143
    assert tuned.artifact("interrupted_vae") is None
    tuned.build("interrupted_vae", TWO)
    worker_group = tuned.artifact("interrupted_vae").manifest()["notes"]["worker_group"]
    # The checkpoint is of the step in which the request came, between two of the regular ones.
    assert [group["resumed_from"] for group in worker_group["groups"]] == [bodies.KILLED_AT + 1]
    assert [line["index"] for line in tuned.artifact("interrupted_vae").metrics()] == [0, 10, 20]
    ours, unbroken = tuned.parameters("interrupted_vae"), tuned.parameters("sgd_vae")
    assert all(torch.equal(ours[name], unbroken[name]) for name in unbroken)


@pytest.mark.slow
def test_an_elastic_worker_group_shrinks_with_its_cluster_and_grows_again(tmp_path):
    command = [sys.executable, "-m", "tests.distributed.elastic_worker_group", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=1500)
    result = json.loads((tmp_path / "result.json").read_text())
    sizes = [group["workers"] for group in result["worker_group"]["groups"]]
    assert (sizes[0], min(sizes), sizes[-1]) == (2, 1, 2)
    for group in result["worker_group"]["groups"][1:]:
        assert 0 <= bodies.KILLED_AT - group["resumed_from"] <= bodies.CHECKPOINT_EVERY
    assert result["lines"] == [0, 10, 20]
    assert result["furthest"] < 1e-5
    assert result["wall_seconds"] < result["device_seconds"] < 2 * result["wall_seconds"]


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_die_every_time_end_within_the_budget(tuned, monkeypatch):
    with pytest.raises(StageError, match=r"2 starts, 1 restarts allowed"):
        tuned.build("dying_vae", TWO, patience=WorkerGroupPatience(worker_failures=1))
    assert tuned.artifact("dying_vae") is None


@pytest.mark.slow
@pytest.mark.ray
def test_a_diverged_loss_is_not_tried_again(tuned):
    with pytest.raises(DivergedError, match=r"not finite at step 13 .*step 10"):
        tuned.build("diverging_vae", TWO)
    assert tuned.artifact("diverging_vae") is None


@pytest.mark.gpu
@pytest.mark.ray
@pytest.mark.skipif(not gpus(), reason="needs a CUDA device: torch sees none")
def test_a_worker_group_on_all_gpus_trains_the_parameters_of_one_cpu_worker(bench, ray_cluster):
    resources = StageResources(workers=gpus(), gpus=1)
    bench.build("sgd_vae", resources)
    assert bodies.furthest(bench.parameters("sgd_vae"), bench.alone()) < 1e-4
