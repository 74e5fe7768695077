"""Workers of pools and worker groups see what a stage declares, as in one process."""

import pickle
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from namd.config.errors import UndeclaredError
from namd.distributed import drawing, worker_group_rank
from namd.distributed.draw_workers import Work
from namd.distributed.worker_group_order import WorkerGroupOrder
from namd.methods.registry import METHODS
from namd.pipeline.graph import Node
from namd.pipeline.run_configuration import resolve
from namd.pipeline.store import open_store
from tests.conformance.laws import planned
from tests.conformance.reaching import look
from tests.conformance.test_declarations import reaching
from tests.data.conftest import make_cohort

MORE = [("split", "test"), ("column", "age"), ("value", "vae"), ("input", "vae")]


@pytest.fixture
def cohort(tmp_path) -> Path:
    make_cohort().write(tmp_path / "C")
    return tmp_path / "C"


def node_of(name: str) -> Node:
    return next(n for n in planned(resolve("tiny", None, [], METHODS)) if n.stage.name == name)


def test_a_worker_that_draws_sees_what_its_stage_declares(cohort, tmp_path):
    node, store = node_of("draws-test"), open_store(str(tmp_path / "S"))
    for place in node.inputs.values():
        store.publish(store.open_attempt(*place))
    context = Work({0: node}, "", cohort, "cpu", None).context(store, node.inputs)
    assert set(context.inputs) == {"vae", "finetune", "language"}
    assert len(context.cohort.read("test")) > 0
    for kind, thing in (("split", "train"), ("column", "months"), ("value", "vae")):
        with pytest.raises(UndeclaredError, match=f"stage draws-test reads .*{thing}"):
            look(context, kind, thing)


@pytest.mark.parametrize(("kind", "thing"), MORE)
def test_a_worker_of_a_worker_group_sees_what_its_stage_declares(
    cohort, tmp_path, monkeypatch, kind, thing
):
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(worker_group_rank, "_show_life", lambda _host: None)
    host = SimpleNamespace(say=SimpleNamespace(remote=lambda _step: None))

    def run(kind: str, thing: str) -> None:
        with ExitStack() as stack:
            worker_group_rank._body(order_of(kind, thing, cohort, tmp_path), host, "cpu", stack)

    run("split", "train")
    with pytest.raises(UndeclaredError, match=f"^stage judge reads .*{thing}.* does not declare"):
        run(kind, thing)


def order_of(kind: str, thing: str, cohort: Path, folder: Path) -> WorkerGroupOrder:
    node = reaching(node_of("judge"), kind, thing)
    return WorkerGroupOrder(
        label="judge",
        run_name="none",
        stage=node.stage,
        settings=node.settings,
        cohort_path=cohort,
        inputs={"vae": cohort},
        outputs={None: folder},
        checkpoints=folder,
        batch_size=None,
        least=1,
        most=1,
        cores=1.0,
        gpus=0.0,
        num_threads=1,
        worker_failures=0,
        start_failures=0,
    )


def test_the_refusal_keeps_its_words_across_processes():
    error = UndeclaredError("stage x reads split test")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (UndeclaredError, str(error))
    text = "a worker died\nnamd.config.errors.UndeclaredError: stage x reads split test\n"
    with (
        pytest.raises(UndeclaredError, match=r"^stage x reads split test$"),
        drawing._one_line_errors(),
    ):
        raise ray.exceptions.RayError(text)
