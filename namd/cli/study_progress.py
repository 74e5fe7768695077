"""A running study's progress for people: a live table on a terminal, plain lines in a log.

What a plan or a table looks like is decided elsewhere.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from namd.cli.output import cell, duration, echo
from namd.config.errors import escaped
from namd.ledger import schema
from namd.ledger.view import OVER, StudyView
from namd.storage.stage_names import StageName
from namd.study.eta import Build, Eta
from namd.study.status import objectives

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from namd.study.plan import StudyPlan

QUIET_S = 30.0
"""Seconds between a log's lines about stages that are being built."""

SHOWN_BUILDS = 8


class PlainStudyReporter:
    """Writes lines to stderr: what was built, how trials ended, now and then what is going on.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.eta = Eta()
        self.builds: dict[str, Build] = {}
        self._over: set[str] = set()
        self.trials = 0
        self._clock = clock
        self._counts: Mapping[str, int] = {}
        self._metrics: tuple[str, ...] = ()
        self._last = clock()

    def planned(self, plan: "StudyPlan") -> None:
        """Say how much there is to do and about how long that takes."""
        self.eta.plan(plan)
        self.trials = plan.trials
        distinct = sum(stage.distinct for stage in plan.stages)
        self.line(
            f"{plan.study}: {plan.trials} trials need {plan.stages_total} stages, {distinct} of "
            f"them distinct; {distinct - self.eta.to_build} are in the store, "
            f"{self.eta.to_build} to build"
        )
        if self.eta.to_build:
            self.line(self._forecast(plan))

    def event(
        self, trial: str | None, transition: str, body: Mapping[str, Any], view: StudyView
    ) -> None:
        """Say what is worth a line."""
        kind, _, name = transition.partition("/")
        self._counts = view.counts()
        if trial is None:
            self._study_event(kind, name, body, view)
            return
        if kind == schema.STARTED:
            self.eta.begin(trial)
        elif kind == schema.STAGE:
            self._stage_event(trial, body, view)
        elif kind in schema.ENDINGS:
            self._ending(trial, kind, body, view)

    def step(
        self, stage: StageName, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """Remember how far a stage is; say it all together now and then."""
        if key in self._over:
            return  # this step arrives after the ledger's record of the finished stage
        now, known = self._clock(), self.builds.get(key)
        if known is None or index < known.index:  # an attempt that was lost begins again
            self.builds[key] = Build(stage, index, total, metrics, now, index, now)
        else:
            self.builds[key] = replace(known, index=index, total=total, metrics=metrics, heard=now)
        self.heartbeat()

    def note(self, line: str) -> None:
        """Say the line."""
        self.line(line)

    def line(self, text: str) -> None:
        """Write a line."""
        self._last = self._clock()
        echo(text)

    def heartbeat(self) -> None:
        """Say what is being built, unless something was said lately."""
        if self._clock() - self._last < QUIET_S or not self.builds:
            return
        shown = [f"{b.stage.label} {b.index} of {b.total}" for b in list(self.builds.values())[:4]]
        more = len(self.builds) - len(shown)
        rest = f" and {more} more" if more > 0 else ""
        self.line(f"building {', '.join(shown)}{rest}; {self.summary()}")

    def summary(self) -> str:
        """Return trials and stages done, and how long the rest takes."""
        over, total = self._trials_over()
        text = f"{over} of {total} trials, {self.eta.built} of {self.eta.to_build} stages"
        left = self.left()
        return text if left is None else f"{text}, about {duration(left)} left"

    def left(self) -> float | None:
        """Return seconds until the end, or None if they are unknown."""
        over, total = self._trials_over()
        return self.eta.left(self.builds, total - over)

    def _trials_over(self) -> tuple[int, int]:
        """Return how many trials are over, and of how many."""
        over = sum(self._counts.get(state, 0) for state in OVER)
        return over, max(self.trials, sum(self._counts.values()))

    def _forecast(self, plan: "StudyPlan") -> str:
        if plan.unknown:
            return (
                "no estimate yet: this store holds nothing like "
                f"{plan.unknown[0]}{' and others' if len(plan.unknown) > 1 else ''}; "
                "the first stages will show"
            )
        return (
            f"about {duration(self.left() or 0.0)} with {plan.peak_concurrency} stages at once "
            f"({plan.device_hours:.2f} device hours)"
        )

    def _study_event(self, kind: str, name: str, body: Mapping[str, Any], view: StudyView) -> None:
        if kind == schema.OPENED:
            self._metrics = tuple(o.metric for o in objectives(body.get("specification", {})))
            over, total = self._trials_over()
            self.eta.open(total - over)
            attempt = f" (attempt {view.attempt})" if view.attempt > 1 else ""
            self.line(f"study {view.study} is open{attempt}")
        elif kind == schema.PROPOSED:
            values = ", ".join(f"{p}={_value(v)}" for p, v in body["overrides"].items())
            self.line(f"proposal {name}: {values or 'the base'}")
        elif kind == schema.MESSAGE:
            self.line(str(body.get("text", "")))
        elif kind == schema.STOPPED:
            self.line(f"stopped: {body.get('reason', '')}")
        elif kind == schema.CLOSED:
            ended = sum(self._counts.get(state, 0) for state in OVER)
            built = f"{self.eta.built} stages built"
            self.line(f"study {view.study} is finished: {ended} trials, {built}")

    def _stage_event(self, trial: str, body: Mapping[str, Any], view: StudyView) -> None:
        done = schema.StageDone.decode(body)
        self.builds.pop(done.key, None)
        self._over.add(done.key)
        self.eta.has(trial, done.stage_name.name)
        if done.cached:
            return
        seconds = float(done.seconds)
        self.eta.finish(done.stage_name.name, seconds)
        self.line(
            f"{done.stage}: built in {duration(seconds)}, "
            f"first for {_name(trial, view)}; {self.summary()}"
        )

    def _ending(self, trial: str, kind: str, body: Mapping[str, Any], view: StudyView) -> None:
        self.eta.over(trial)
        text = f"{_name(trial, view)}: {kind}"
        if kind == schema.COMPLETED:
            values = body.get("values", {})
            known = [f"{m} {cell(values[m])}" for m in self._metrics if m in values]
            text += f" ({', '.join(known)})" if known else ""
        elif body.get("reason"):
            text += f" ({body['reason']})"
        self.line(f"{text}; {self.summary()}")


class RichStudyReporter(PlainStudyReporter):
    """Draws what is going on at the foot of the terminal; lines stay above it.

    Args:
        console: Where.
        clock: Monotonic seconds.
    """

    def __init__(self, console: "Console", clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.console = console

    def line(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(escaped(text), markup=False, highlight=False, soft_wrap=True)

    def heartbeat(self) -> None:
        """The table shows it."""

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        builds = list(self.builds.values())
        for build in builds[:SHOWN_BUILDS]:
            table.add_row(
                Text(build.stage.label),
                ProgressBar(total=max(1, build.total), completed=build.index, width=24),
                Text(f"{build.index} of {build.total}"),
                Text(duration(self._clock() - build.began)),
                Text(", ".join(f"{n} {v:.4g}" for n, v in list(build.metrics.items())[:2])),
            )
        if len(builds) > SHOWN_BUILDS:
            table.add_row(Text(f"and {len(builds) - SHOWN_BUILDS} more"))
        states = ", ".join(f"{n} {state}" for state, n in list(self._counts.items()) if n)
        return Group(table, Text(self.summary()), Text(states))


@contextmanager
def study_reporter() -> Iterator[PlainStudyReporter]:
    """Yield a live table where a person watches, plain lines otherwise."""
    from namd.cli.progress import is_terminal

    if not is_terminal():
        yield PlainStudyReporter()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    shown = RichStudyReporter(console)
    with Live(shown, console=console, refresh_per_second=2, transient=True):
        yield shown


def _name(trial: str, view: StudyView) -> str:
    found = view.trials[trial]
    return f"{found.label}, seed {found.seed}"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
