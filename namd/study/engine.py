"""Ask and tell over Optuna: which point of a space is tried next.

Proposal i is a function of (search_seed, i), the proposals before it and their outcomes in order
of number: a fresh sampler is seeded for each, so that a resumed search proposes what an
uninterrupted one does. The Optuna study is a view in memory, rebuilt from the ledger at will.
Nothing here reads or writes the ledger.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from namd.config.seeding import derive_seed
from namd.statistics.pareto import pareto_front
from namd.study.space import Parameter, Space
from namd.study.spec import SearchSpec

OutcomeState = Literal["completed", "pruned", "failed", "diverged"]

_OPTUNA_STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    # Without intermediate values a pruned trial counts as the worst: TPE then leaves the region,
    # and no number had to be invented. A failure of the machine says nothing about the point.
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class NotReady(Exception):  # noqa: N818 - says what is the case
    """The proposal needs outcomes that are not there yet."""


class Exhausted(Exception):  # noqa: N818 - says what is the case
    """The grid has no further point."""


@dataclass(frozen=True)
class Outcome:
    """How a proposal ended.

    Attributes:
        state: Completed, pruned (ended by ASHA), failed or diverged.
        values: One per objective, where it completed.
        rungs: Values at the rungs passed, in their order.
    """

    state: OutcomeState
    values: tuple[float, ...] = ()
    rungs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A point to try.

    Attributes:
        number: From 0.
        point: Value of every parameter that exists there.
        overrides: What the point sets, by dotted path.
        sampler_state: What the sampler noted at the trial and wants to find again.
    """

    number: int
    point: Mapping[str, Any]
    overrides: Mapping[str, Any]
    sampler_state: Mapping[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        return {
            "point": dict(self.point),
            "overrides": dict(self.overrides),
            "sampler_state": dict(self.sampler_state),
        }

    @classmethod
    def from_mapping(cls, number: int, mapping: Mapping[str, Any]) -> "Proposal":
        """Read it back."""
        return cls(number, mapping["point"], mapping["overrides"], mapping["sampler_state"])


@dataclass(frozen=True)
class WarmTrial:
    """A completed trial of an earlier study, taken over."""

    point: Mapping[str, Any]
    values: tuple[float, ...]


class Engine:
    """Proposes points of one search.

    Args:
        search: The search.
        warm: Trials of earlier studies that the sampler knows from the start.
    """

    def __init__(self, search: SearchSpec, warm: Sequence[WarmTrial] = ()) -> None:
        self.search = search
        self.space = search.parsed_space
        self._warm = tuple(warm)
        self._proposals: list[Proposal] = []
        self._outcomes: dict[int, Outcome] = {}
        grid = self.space.grid() if search.sampler == "grid" else iter(())
        self._grid = list(itertools.islice(grid, search.num_trials))
        self._view: _OptunaView | None = None

    @property
    def proposals(self) -> Sequence[Proposal]:
        """What was proposed, by number."""
        return self._proposals

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """What has ended, by number."""
        return self._outcomes

    @property
    def limit(self) -> int:
        """Number of proposals of the search; a grid may hold fewer than num_trials."""
        return len(self._grid) if self._grid else self.search.num_trials

    def batch_start(self, number: int) -> int:
        """Return the first number of a proposal's batch."""
        return number - number % self.search.batch

    def propose(self, number: int) -> Proposal:
        """Return a proposal, the same one whenever it is asked for.

        Raises:
            NotReady: In synchronous order, its batch waits for outcomes of the last one.
            Exhausted: The grid has no such point, or it lies beyond num_trials.
            ValueError: An earlier proposal was not made yet.
        """
        if number < len(self._proposals):
            return self._proposals[number]
        if number > len(self._proposals):
            raise ValueError(f"proposal {len(self._proposals)} comes before {number}")
        if self.search.sampler == "grid":
            if number >= len(self._grid):
                raise Exhausted(f"the grid has {len(self._grid)} points to try")
            point = self._grid[number]
            proposal = Proposal(number, point, self.space.overrides(point))
            self._proposals.append(proposal)
        else:
            proposal = self._sample(number)
        return proposal

    def admit(self, proposal: Proposal) -> None:
        """Take in a proposal that the ledger holds."""
        if proposal.number < len(self._proposals):
            return
        if proposal.number > len(self._proposals):
            raise ValueError(f"proposal {len(self._proposals)} comes before {proposal.number}")
        self._proposals.append(proposal)
        self._view = None

    def tell(self, number: int, outcome: Outcome) -> bool:
        """Take in an outcome; False if it was known. A failure may be replaced by a retry's.

        Raises ValueError if it contradicts what is known, or was never proposed.
        """
        known = self._outcomes.get(number)
        if known == outcome:
            return False
        if known is not None and known.state not in ("failed", "diverged"):
            raise ValueError(f"proposal {number} ended as {known}, now {outcome} is reported")
        if not 0 <= number < len(self._proposals):
            raise ValueError(f"proposal {number} was never made")
        expected = len(self.search.objectives) if outcome.state == "completed" else 0
        if len(outcome.values) != expected:
            raise ValueError(f"expected {expected} values, got {outcome.values}")
        self._outcomes[number] = outcome
        if known is not None:
            self._view = None
        return True

    def _sample(self, number: int) -> Proposal:
        known = self._known_outcomes(number)
        if self._view is None or self.search.sampler == "nsga2":
            # NSGA-II keeps its parents in the study from one proposal to the next, which a
            # resumed search could not know; made anew they are a function of the outcomes.
            self._view = _OptunaView(self.search, self._warm)
        self._view.bring_up(self._proposals, known)
        seed = derive_seed("proposal", self.search.seed, number) % 2**32
        point, state = self._view.ask(_sampler(self.search, seed))
        proposal = Proposal(number, point, self.space.overrides(point), state)
        self._proposals.append(proposal)
        return proposal

    def _known_outcomes(self, number: int) -> dict[int, Outcome]:
        """Return the outcomes that a proposal may depend on. Raises NotReady."""
        if self.search.sampler == "random":
            return {}
        if self.search.order == "asynchronous":
            return dict(self._outcomes)
        start = self.batch_start(number)
        missing = [n for n in range(start) if n not in self._outcomes]
        if missing:
            raise NotReady(f"proposal {number} waits for the outcome of {missing[0]}")
        return {n: self._outcomes[n] for n in range(start)}


class _OptunaView:
    """An Optuna study in memory that holds warm trials, then the proposals by number."""

    def __init__(self, search: SearchSpec, warm: Sequence[WarmTrial]) -> None:
        # Optuna announces every study on stderr.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = search
        self._space = search.parsed_space
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, directions=directions(search))
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._num_warm = len(warm)
        self._finished: set[int] = set()
        self._held = 0
        for trial in warm:
            self._study.add_trial(warm_trial(self._space, trial))

    def bring_up(self, proposals: Sequence[Proposal], outcomes: Mapping[int, Outcome]) -> None:
        """Add what is new: proposals as running, then their outcomes."""
        for proposal in proposals[self._held :]:
            outcome = outcomes.get(proposal.number)
            if outcome is not None:
                self._finished.add(proposal.number)
            self._study.add_trial(frozen_trial(self._space, proposal, outcome, self._reports))
            self._held += 1
        for number in sorted(set(outcomes) - self._finished):
            self._finish(number, outcomes[number])

    def ask(self, sampler: BaseSampler) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a new point and what the sampler noted; the view holds it as running."""
        self._study.sampler = sampler
        trial = self._study.ask()
        point = self._space.suggest(trial)
        self._held += 1
        return point, dict(self._study.get_trials(deepcopy=False)[-1].system_attrs)

    @property
    def _reports(self) -> bool:
        """Optuna takes intermediate values for one objective only."""
        return len(self._search.objectives) == 1

    def _finish(self, number: int, outcome: Outcome) -> None:
        trial = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, self._num_warm + number
        )
        if self._reports and outcome.state in ("completed", "pruned"):
            for step, value in enumerate(outcome.rungs):
                self._storage.set_trial_intermediate_value(trial, step, value)
        self._storage.set_trial_state_values(
            trial, _OPTUNA_STATES[outcome.state], outcome.values or None
        )
        self._finished.add(number)


def directions(search: SearchSpec) -> list[StudyDirection]:
    """Return Optuna's directions of the objectives."""
    words = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [words[objective.mode] for objective in search.objectives]


def frozen_trial(
    space: Space, proposal: Proposal, outcome: Outcome | None, reports: bool
) -> FrozenTrial:
    """Return a proposal as Optuna holds it; `reports`: with its values at rungs."""
    rungs = {}
    if outcome is not None and reports and outcome.state in ("completed", "pruned"):
        rungs = dict(enumerate(outcome.rungs))
    return create_trial(
        state=TrialState.RUNNING if outcome is None else _OPTUNA_STATES[outcome.state],
        values=(outcome.values or None) if outcome is not None else None,
        params=space.labels(proposal.point),
        distributions=distributions(space, proposal.point),
        system_attrs=dict(proposal.sampler_state),
        intermediate_values=rungs,
    )


def warm_trial(space: Space, trial: WarmTrial) -> FrozenTrial:
    """Return an earlier study's trial as Optuna holds it."""
    return create_trial(
        values=trial.values,
        params=space.labels(trial.point),
        distributions=distributions(space, trial.point),
        user_attrs={"warm": True},
    )


def distributions(space: Space, point: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return the distributions of the parameters that exist at a point."""
    return {p.name: _distribution(p) for p in space.parameters if p.name in point}


def best_proposals(outcomes: Mapping[int, Outcome], search: SearchSpec) -> list[int]:
    """Return the completed proposals that no other one beats, by number.

    With one objective that is the best, the first of equals.
    """
    signs = [1.0 if objective.mode == "max" else -1.0 for objective in search.objectives]
    return pareto_front(
        {
            number: [s * v for s, v in zip(signs, outcome.values, strict=True)]
            for number, outcome in sorted(outcomes.items())
            if outcome.state == "completed"
        }
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    log = parameter.kind.startswith("log_")
    if parameter.kind == "choice":
        space = Space((parameter,))
        labels = [space.labels({parameter.name: c})[parameter.name] for c in parameter.choices]
        return CategoricalDistribution(labels)
    if parameter.kind in ("int", "log_int"):
        return IntDistribution(int(parameter.low), int(parameter.high), log=log)
    return FloatDistribution(parameter.low, parameter.high, log=log)


def _sampler(search: SearchSpec, seed: int) -> BaseSampler:
    """Return a fresh sampler.

    TPE models the parameters that exist everywhere together and those of a branch one by one:
    Optuna's `group`, which would model a branch together, is experimental there.
    """
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=search.population, seed=seed)
    if search.sampler == "tpe":
        return TPESampler(n_startup_trials=search.startup_trials, seed=seed)
    return RandomSampler(seed=seed)
