"""Ablations built on a played clock, in the order in which two cores would build them.

The plan, the trials and their keys are those of the study; what is played is how long stages take.
Nothing is trained and nothing is waited for.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from namd.pipeline.graph import Node, make_plan
from namd.study.plan import Cluster, StudyPlan, make_study_plan
from namd.study.spec import StudySpec
from namd.study.trials import Configurator, Trial, ablation_trials

SECONDS = {
    "perceptual": 10.0,
    "vae": 60.0,
    "latents": 5.0,
    "probe": 2.0,
    "language": 50.0,
    "pretrain": 30.0,
    "finetune": 60.0,
    "judge": 60.0,
    "reference-test": 5.0,
    "ideal-test": 2.0,
    "reconstruction-test": 3.0,
    "draws-test": 4.0,
    "scores-test": 1.0,
    "train_crops-test": 0.5,
    "copies-test": 0.1,
}
"""About what preset small takes on the demo's cohort."""

ROWS_S = 4.0
"""A trial's table, once its stages are there."""

START_S = 8.0
"""Until the first stage worker is up."""

NUM_STEPS = 20


@dataclass(frozen=True)
class Stepped:
    """A stage that is being built is further on."""

    node: Node
    index: int
    total: int


@dataclass(frozen=True)
class Got:
    """A trial has a stage: built for it, or found."""

    trial: str
    node: Node
    built: bool


@dataclass(frozen=True)
class Began:
    """A trial is under way."""

    trial: str


@dataclass(frozen=True)
class Ended:
    """A trial is completed."""

    trial: str


@dataclass(frozen=True)
class Freed:
    """A core is free again: of an order's nodes, or of a trial's rows."""

    nodes: tuple[Node, ...]
    trial: str


Happening = Stepped | Got | Began | Ended


@dataclass
class Play:
    """Trials walk through their plans, one stage name at a time, and wait for what is being built.

    As in a study's driver one trial more than there are cores is under way, and orders are taken
    in the order of asking.
    """

    trials: deque[Trial]
    seconds: dict[str, float]
    cores: int = 2
    now: float = START_S
    _done: set[str] = field(default_factory=set)
    _owner: dict[str, str] = field(default_factory=dict)
    _waiting: dict[str, list[str]] = field(default_factory=dict)
    _ways: dict[str, list[tuple[Node, ...]]] = field(default_factory=dict)
    _orders: deque[Freed] = field(default_factory=deque)
    _coming: list[tuple[float, int, Stepped | Freed]] = field(default_factory=list)
    _count: int = 0

    def run(self) -> Iterator[tuple[float, Happening]]:
        """Yield what happens, and when."""
        for _ in range(self.cores + 1):
            yield from self._begin()
        while self._coming:
            self.now, _, what = heapq.heappop(self._coming)
            if isinstance(what, Stepped):
                yield self.now, what
                continue
            self.cores += 1
            yield from self._free(what)

    def _free(self, order: Freed) -> Iterator[tuple[float, Happening]]:
        if not order.nodes:
            yield self.now, Ended(order.trial)
            yield from self._begin()
        self._done |= {node.key for node in order.nodes}
        for trial in self._waiting.pop(order.nodes[0].key, []) if order.nodes else []:
            yield from self._walk(trial)
        self._deal()

    def _begin(self) -> Iterator[tuple[float, Happening]]:
        if self.trials:
            trial = self.trials.popleft()
            yield self.now, Began(trial.trial)
            self._ways[trial.trial] = groups(trial)
            yield from self._walk(trial.trial)
            self._deal()

    def _walk(self, trial: str) -> Iterator[tuple[float, Happening]]:
        way = self._ways[trial]
        while way and all(node.key in self._done for node in way[0]):
            for node in way.pop(0):
                yield self.now, Got(trial, node, built=self._owner[node.key] == trial)
        if not way:
            self._orders.append(Freed((), trial))
            return
        self._waiting.setdefault(way[0][0].key, []).append(trial)
        if way[0][0].key not in self._owner:
            self._owner |= {node.key: trial for node in way[0]}
            self._orders.append(Freed(way[0], trial))

    def _deal(self) -> None:
        while self.cores and self._orders:
            order = self._orders.popleft()
            self.cores -= 1
            each = [self.seconds[node.stage.name] for node in order.nodes] or [ROWS_S]
            for after, step in steps(order.nodes, sum(each)):
                self._come(after, step)
            self._come(sum(each), order)

    def _come(self, after: float, what: Stepped | Freed) -> None:
        self._count += 1
        heapq.heappush(self._coming, (self.now + after, self._count, what))


def groups(trial: Trial) -> list[tuple[Node, ...]]:
    """Return a trial's nodes by stage name, in the order in which it needs them."""
    configuration = trial.configuration
    return make_plan(configuration.stages(), configuration.config, cohort_digest=repr).groups()


def steps(nodes: Sequence[Node], seconds: float) -> Iterator[tuple[float, Stepped]]:
    """Yield the steps of an order: of a family one for each member, reported when it is done."""
    if len(nodes) == 1:
        for index in range(1, NUM_STEPS):
            yield seconds * index / NUM_STEPS, Stepped(nodes[0], index, NUM_STEPS)
    for number, node in enumerate(nodes if len(nodes) > 1 else (), start=1):
        yield seconds * number / len(nodes), Stepped(node, number, number)


def play(spec: StudySpec, seconds: dict[str, float] | None = None) -> Play:
    """Return a play of an ablation in an empty store."""
    return Play(deque(ablation_trials(spec, Configurator(spec))), seconds or SECONDS)


def plan_of(spec: StudySpec) -> StudyPlan:
    """Return the ablation's plan on two cores and an empty store."""
    return make_study_plan(spec, Configurator(spec), Cluster(cpus=2), cohort_digest=repr)
