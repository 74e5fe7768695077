"""Draws and their scores by a Ray Data pipeline: pairs, a pool that draws, a pool that judges.

The artifacts are those of the local launcher: same keys, files and leases, published one draw
index at a time.
"""

import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionOptions, ExecutionResources
from ray.data.exceptions import ExecutionTimeoutError

from namd.config.errors import ConfigError, InputError, StageError, UndeclaredError
from namd.distributed.draw_files import Block, DrawnFiles, IndexFiles, ScoreFiles
from namd.distributed.draw_workers import DrawWorker, JudgeWorker, Tries, Work
from namd.distributed.pairs import Coverage, block_rows, evaluated_case_ids, pair_blocks
from namd.distributed.source_identity import SourceError
from namd.methods.base import StageContext, Step
from namd.pipeline.graph import Node
from namd.pipeline.launcher import Launcher, LeaseLost, LeaseWatch, Task
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.store import open_store
from namd.storage.errors import StoreError, explained
from namd.storage.stage_names import StageName, label_of
from namd.study.spec import StageResources

Relay = Callable[[StageName, str, Step], None]

OpenTasks = dict[int | None, Task]
"""Nodes leased to this process and not yet published, by draw index."""


JUDGE_SHARE = 0.25
"""The judge's share of a worker's reservation: one forward pass beside dozens."""


OURS = {
    error.__name__: error
    for error in (InputError, ConfigError, StoreError, StageError, UndeclaredError, SourceError)
}
"""Errors whose message is one line for the user, in every process."""


@dataclass(frozen=True)
class OneWorker:
    """The world of a block: one process, for any size of the pools."""

    device: str
    rank: int = 0
    size: int = 1


@dataclass
class Family:
    """The members of one stage under construction.

    Attributes:
        seconds: Name of the column with the seconds of each pair.
        tasks: The members under construction.
        files: Their files.
        context: For the manifest.
        spent_s: Seconds spent on each index, summed over its pairs.
    """

    seconds: str
    tasks: OpenTasks
    files: Mapping[int, IndexFiles]
    context: StageContext
    spent_s: dict[int, float] = field(default_factory=dict)


def draw_and_score(
    plan_nodes: Sequence[Node],
    *,
    store_url: str,
    cohort: Path,
    resources: StageResources,
    relay: Relay,
    made_for: str = "",
) -> None:
    """Make and publish the draws and scores of a plan that are not in the store.

    Members that another process is building are awaited, not built twice.

    Args:
        plan_nodes: Members of one draws family and of the scores family that reads it. Their other
            inputs must be in the store.
        store_url: The store.
        cohort: The cohort's folder, readable on every node.
        resources: `workers` pairs of a drawing and a judging actor share the reservation of as
            many workers.
        relay: Receives progress: stage, key, step.
        made_for: Name of the study that is charged, for the manifests.

    Raises:
        InputError: Cohort, store or upstream artifacts cannot be used.
        StageError: A pair is missing, was returned twice, or kills every worker that draws it.
    """
    Drawing(store_url, cohort, resources, relay, made_for).build(plan_nodes)


class Drawing:
    """Builds families of draws and scores in one store. Arguments as in `draw_and_score`."""

    def __init__(
        self,
        store_url: str,
        cohort: Path,
        resources: StageResources,
        relay: Relay,
        made_for: str = "",
    ) -> None:
        self.store = open_store(store_url, answered=True)
        # Workers start in other folders: their paths must be absolute.
        self.store_url, self.cohort = self.store.backend.name, Path(cohort).absolute()
        self.resources, self.relay = resources, relay
        self.device = "cuda" if resources.gpus else "cpu"
        self.launcher = Launcher(
            self.store, self.cohort, SilentReporter(), lambda: OneWorker(self.device), made_for
        )

    def build(self, nodes: Sequence[Node]) -> None:
        """Build or await every node."""
        draws = [node for node in nodes if node.stage.role == "draw"]
        scores = [node for node in nodes if node.stage.role == "score"]
        others = [node.label for node in nodes if node not in draws and node not in scores]
        if others:
            raise ValueError(f"{', '.join(others)}: neither draws nor scores of draws")
        while missing := [node for node in nodes if not self._published(node)]:
            tasks: dict[str, OpenTasks] = {"draw": {}, "score": {}}
            try:
                tasks["draw"] |= self._take([node for node in missing if node in draws])
                ready = [n for n in missing if n in scores and self._drawn(n, tasks["draw"])]
                tasks["score"] |= self._take(ready)
                if any(tasks.values()):
                    self._execute(tasks)
                else:
                    self.launcher.wait(missing[0])
            except LeaseLost:
                continue
            finally:
                for task in (*tasks["draw"].values(), *tasks["score"].values()):
                    self.launcher.give_up(task)

    def _take(self, nodes: Sequence[Node]) -> OpenTasks:
        return {task.node.stage.index: task for task in self.launcher.take(nodes)}

    def _published(self, node: Node) -> bool:
        return self.store.find(node.stage.name, node.key) is not None

    def _drawn(self, score: Node, here: OpenTasks) -> bool:
        """Whether the draw that a score reads is published or being drawn here."""
        return score.stage.index in here or self.store.find(*drawn_by(score)) is not None

    def _execute(self, tasks: Mapping[str, OpenTasks]) -> None:
        first = next(task.node for family in tasks.values() for task in family.values())
        split = str(first.stage.split)
        case_ids = evaluated_case_ids(self.cohort, split, first.settings.evaluate)
        families = self._families(tasks, case_ids)
        nodes = {word: _nodes(family) for word, family in tasks.items()}
        indices = sorted({*nodes["draw"], *nodes["score"]})
        coverage = Coverage(first.stage.name, case_ids, indices)
        watch = LeaseWatch(self.store.leases.timing.heartbeat_s)
        blocks = self._blocks(nodes["draw"], nodes["score"], case_ids)
        with explained(self.store.backend.name, self.store.backend.folder), closing(blocks):
            for block in blocks:
                self._take_in(block, families, coverage)
                watch.look([task for family in tasks.values() for task in family.values()])
        coverage.require()

    def _families(self, tasks: Mapping[str, OpenTasks], case_ids: Sequence[str]) -> list[Family]:
        found = []
        for word, family in tasks.items():
            files: dict[int, IndexFiles] = {}
            for k, node in _nodes(family).items():
                folder = family[k].attempt.payload
                files[k] = (
                    DrawnFiles(folder, case_ids)
                    if word == "draw"
                    else ScoreFiles(folder, case_ids, k, node.num_threads)
                )
                context = self._context(node)
            if files:
                found.append(Family(f"{word}_seconds", family, files, context))
        return found

    def _context(self, node: Node) -> StageContext:
        """Return a context for the manifest; no body runs in this process."""
        return StageContext(
            stage=node.stage,
            config=node.settings,
            cohort_path=self.cohort,
            artifacts={},
            outputs={},
            checkpoints=self.cohort,
            world=OneWorker(self.device),
            warn=lambda _line: None,
        )

    def _take_in(self, block: Block, families: Sequence[Family], coverage: Coverage) -> None:
        """Store the rows of a block; publish each draw index that it completes."""
        places = coverage.add(block["case_id"], block["k"])
        for k in map(int, np.unique(block["k"])):
            here = block["k"] == k
            rows = {name: values[here] for name, values in block.items()}
            for family in families:
                if k in family.files:
                    family.files[k].put(places[here], rows)
                    self._progress(family, k, rows, coverage)

    def _progress(self, family: Family, k: int, rows: Block, coverage: Coverage) -> None:
        task, total = family.tasks[k], len(coverage.case_ids)
        node = task.node
        family.spent_s[k] = family.spent_s.get(k, 0.0) + float(rows[family.seconds].sum())
        if not coverage.complete(k):
            self.relay(node.stage.recorded, node.key, Step(coverage.count(k), total))
            return
        step = Step(total, total, family.files[k].finish(), finished=k)
        task.log.add(step)
        # The artifact's cost is the time of its own pairs, without other indices' time.
        task.started = time.monotonic() - family.spent_s[k]
        self.launcher.publish(family.tasks, k, family.context, [])
        self.relay(node.stage.recorded, node.key, step)

    def _blocks(
        self, draws: Mapping[int, Node], scores: Mapping[int, Node], case_ids: Sequence[str]
    ) -> Generator[Block, None, None]:
        """Yield the pairs with the workers' results, one block at a time."""
        rows = block_rows(len(case_ids))
        stored = {k: drawn_by(node) for k, node in scores.items() if k not in draws}
        with counted_tries() as tries:
            # If all draws are stored, the scores' own node names the cases.
            work = self._work(draws or scores, tries)
            steps: list[tuple[type, dict[str, Any]]] = [
                (DrawWorker, {"work": work, "stored": stored})
            ]
            if scores:
                steps.append((JudgeWorker, {"work": self._work(scores, tries)}))
            pairs = pair_blocks(case_ids, sorted({*draws, *scores}), rows)
            yield from stream(pairs, steps, rows, self.resources)

    def _work(self, nodes: Mapping[int, Node], tries: Any) -> Work:  # noqa: ANN401 - an actor
        return Work(nodes, self.store_url, self.cohort, self.device, tries)


def stream(
    pairs: Sequence[Any],
    steps: Sequence[tuple[type, Mapping[str, Any]]],
    rows: int,
    resources: StageResources,
) -> Generator[Block, None, None]:
    """Yield blocks of pairs after all pools of actors, in the order of completion.

    The pools stay within `resources`; the data in flight is bounded by Ray Data's
    share of the object store, not by the number of pairs.

    Args:
        pairs: Arrow tables of (case_id, k), one per block.
        steps: Class and arguments of each pool's actors, drawing first.
        rows: Pairs per block.
        resources: The reservation of all pools together.

    Raises:
        InputError: Raised by a worker.
        StageError: Raised by a worker, or another error ended the pipeline.
    """
    with DataContext.current(_context(resources)):
        dataset = ray.data.from_arrow(list(pairs))
        for number, (step, arguments) in enumerate(steps):
            share = 1.0 if len(steps) == 1 else JUDGE_SHARE if number else 1 - JUDGE_SHARE
            dataset = dataset.map_batches(
                step,
                fn_constructor_kwargs=dict(arguments),
                batch_size=rows,
                batch_format="numpy",
                compute=ActorPoolStrategy(size=resources.workers),
                num_cpus=share * resources.cores,
                num_gpus=_gpus(resources.gpus, share) or None,
            )
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy"))
    with closing(blocks), _one_line_errors():
        yield from blocks


def drawn_by(score: Node) -> tuple[str, str]:
    """Return the stage name and key of the draw that a score reads."""
    return score.inputs[label_of(str(score.stage.values["scored"]), score.stage.index)]


def _nodes(tasks: OpenTasks) -> dict[int, Node]:
    return {index: task.node for index, task in tasks.items() if index is not None}


@contextmanager
def counted_tries() -> Iterator[Any]:
    """Keep a `Tries` actor for as long as a pipeline runs."""
    counter = ray.remote(num_cpus=0, max_restarts=-1)(Tries).remote()
    try:
        yield counter
    finally:
        ray.kill(counter)


def _gpus(gpus: float, share: float) -> float:
    """Return a step's share of a worker's accelerators; above one, only whole ones."""
    if gpus <= 1:
        return gpus * share
    return 1.0 if share == JUDGE_SHARE else gpus - (share < 1)


def _context(resources: StageResources) -> DataContext:
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A failed block is an error: without its pairs it would be a different study.
    context.max_errored_blocks = 0
    limits = ExecutionResources.for_limits(
        cpu=resources.workers * resources.cores, gpu=resources.workers * resources.gpus
    )
    context.execution_options = ExecutionOptions(resource_limits=limits)
    return context


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise a worker's own error unchanged, and any other of Ray's as a StageError of one line."""
    try:
        yield
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        # Ray forwards the text of a worker's error, not the exception itself.
        found = re.findall(
            r"^(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$", str(error), re.MULTILINE
        )
        for name, message in found:
            if name in OURS:
                raise OURS[name](message) from error
        first = str(error).strip().partition("\n")[0]
        why = ": ".join(found[0]) if found else first or type(error).__name__
        raise StageError(f"drawing: {why}") from error
