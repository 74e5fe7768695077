"""How long the rest of a running study takes, from what its stages prove to cost.

What a person is shown of it is decided elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from namd.storage.stage_names import StageName

if TYPE_CHECKING:
    from namd.study.plan import StageEstimate, StudyPlan

PACED_S = 5.0
"""Steps come in bundles, and the first ones are slow: a shorter look at a build shows no pace."""


@dataclass
class Build:
    """A stage that is being built.

    Attributes:
        stage: Which stage.
        index: The step it is at.
        total: Of so many.
        metrics: What it measured last.
        began: When it was first heard of, on the reporter's clock.
        first: The step it was at then; a build that goes on from a checkpoint does not begin at 0.
        heard: When it was last heard of.
    """

    stage: StageName
    index: int
    total: int
    metrics: Mapping[str, float]
    began: float
    first: int
    heard: float

    @property
    def share(self) -> float:
        """How much of it is done."""
        return min(1.0, self.index / self.total) if self.total else 0.0

    @property
    def seconds(self) -> float | None:
        """What all of it takes at its own pace; None: not seen for long enough.

        Members of a family have none: one stage worker makes them in turn, each is heard of when
        done.
        """
        steps, elapsed = self.index - self.first, self.heard - self.began
        if self.stage.index is not None or steps <= 0 or elapsed < PACED_S:
            return None
        return elapsed / steps * self.total


@dataclass
class Eta:
    """What is left of a plan, in seconds.

    A stage costs the mean of what was measured under its name: of those that are built, and of
    those under way at their pace. One not yet seen costs what the plan knows, as far off as the
    plan was with those measured; else the mean of its kind. All that is left is shared among as
    many stage workers as the plan has at once, but a trial builds one thing after the other: the
    end is no nearer than that of the one with the longest way to go.

    Attributes:
        to_build: Stages that the plan had to build.
        built: How many of them are.
    """

    to_build: int = 0
    built: int = 0
    _stages: dict[str, "StageEstimate"] = field(default_factory=dict)
    _at_once: int = 1
    _trials: int = 0
    _built: dict[str, list[float]] = field(default_factory=dict)
    _ways: dict[str, set[str]] = field(default_factory=dict)

    def plan(self, plan: "StudyPlan") -> None:
        """Take in what is to be done."""
        self._stages = {s.stage: s for s in plan.stages if s.distinct > s.in_store}
        self.to_build = sum(s.distinct - s.in_store for s in self._stages.values())
        self._at_once = max(1, plan.peak_concurrency)
        self._trials = plan.trials

    def open(self, trials: int) -> None:
        """Take in how many trials the plan's stages are for: earlier ones may be over already."""
        self._trials = trials

    def begin(self, trial: str) -> None:
        """Take in that a trial is under way."""
        self._ways[trial] = set()

    def has(self, trial: str, name: str) -> None:
        """Take in that a trial has a stage of this name, built for it or found."""
        self._ways.setdefault(trial, set()).add(name)

    def over(self, trial: str) -> None:
        """Take in that an attempt at a trial is over; another one reports its stages anew."""
        self._ways.pop(trial, None)

    def finish(self, name: str, seconds: float) -> None:
        """Take in that a stage of this name was built in so many seconds."""
        self.built += 1
        self.to_build = max(self.to_build, self.built)
        self._built.setdefault(name, []).append(seconds)

    def left(self, builds: Mapping[str, Build], trials: int) -> float | None:
        """Return seconds until the end, or None if they are unknown.

        Args:
            builds: What is being built, by key.
            trials: How many are not over.
        """
        running = list(builds.values())
        costs = self._costs(running)
        if not costs:
            return None
        ways = list(self._ways.values())
        lacking = {name: trials - sum(name in way for way in ways) for name in costs}
        rest = {n: costs[n] * self._number(n, lacking[n], running) for n in costs if lacking[n] > 0}
        each = {name: seconds / lacking[name] for name, seconds in rest.items()}
        begun = [sum(s for name, s in each.items() if name not in way) for way in ways]
        # A trial that has not begun waits for one to end.
        last = sum(each.values()) + min(begun, default=0.0) if trials > len(ways) else 0.0
        return max(sum(rest.values()) / self._at_once, last, *begun)

    def _number(self, name: str, lacking: int, running: Sequence[Build]) -> float:
        """Return how many of a stage are left to build, and of those under way the part left.

        No more than the trials that lack it need on average: what others did not come to, since
        they were pruned or have failed, is not built.
        """
        stage = self._stages[name]
        planned = stage.distinct - stage.in_store
        needed = min(
            planned - len(self._built.get(name, ())), planned * lacking / max(1, self._trials)
        )
        return max(0.0, needed - sum(b.share for b in running if b.stage.name == name))

    def _costs(self, running: Sequence[Build]) -> dict[str, float]:
        """Return the seconds of one of each stage to build; empty if one is unknown."""
        known = self._measured(running)
        measured = {name: stage.wall_seconds_each for name, stage in self._stages.items()}
        planned = {name: seconds for name, seconds in measured.items() if seconds is not None}
        if not known and len(planned) < len(self._stages):
            return {}
        both = known.keys() & planned.keys()
        expected = sum(planned[name] for name in both)
        off = sum(known[name] for name in both) / expected if expected > 0 else 1.0
        known = {name: seconds * off for name, seconds in planned.items()} | known
        # Trainings cost alike sooner than a training and all else.
        alike: dict[bool, list[float]] = {}
        for name, seconds in known.items():
            alike.setdefault(self._stages[name].role == "train", []).append(seconds)
        if any((stage.role == "train") not in alike for stage in self._stages.values()):
            return {}
        return {
            name: known[name] if name in known else fmean(alike[stage.role == "train"])
            for name, stage in self._stages.items()
        }

    def _measured(self, running: Sequence[Build]) -> dict[str, float]:
        """Return the mean seconds of each stage of which one is built or has found its pace."""
        found = {name: list(seconds) for name, seconds in list(self._built.items())}
        for build in running:
            if build.seconds is not None:
                found.setdefault(build.stage.name, []).append(build.seconds)
        return {name: fmean(found[name]) for name in self._stages if name in found}
