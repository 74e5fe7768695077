"""The study file: what a study asks, as frozen values, strictly parsed.

What its paths mean to a method is checked in namd.study.trials; nothing here imports a method.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError, InputError, about, shown
from namd.config.flattening import flat
from namd.config.parsing import parse, to_mapping
from namd.ledger.schema import study_folder
from namd.study.asha import AshaSettings, Mode
from namd.study.comparison import expanded
from namd.study.designs import FULL, Arm, Design, Fraction, make_arms, make_fraction
from namd.study.space import Space, parse_space

Split = Literal["train", "validation", "test"]

PLACEHOLDER = "..."
"""What a study file writes where the command line decides."""

MAXIMUM_TRIALS = 10_000
"""A study of more trials than this is a mistake; a plan of so many takes minutes already."""


@dataclass(frozen=True)
class BaseSpec:
    """What every trial starts from.

    Attributes:
        preset: Name of a preset; None: the method's defaults.
        method: A row of Table 1.
        cohort: A cohort's folder, or `phantom[:CASES]`, built from its recipe; None: the command
            line's.
        store: Folder or URL; None: the command line's.
        set: Values laid over the preset, by dotted path.
    """

    preset: str | None = None
    method: str = "namd"
    cohort: str | None = None
    store: str | None = None
    set: dict[str, Any] = field(default_factory=dict)

    def given(self, name: Literal["cohort", "store"]) -> str | None:
        """Return the cohort or the store, or None if the file leaves it open."""
        value = getattr(self, name)
        return None if value == PLACEHOLDER else value


@dataclass(frozen=True)
class AblationSpec:
    """Parts of a method, switched off in a design.

    Attributes:
        design: Which combinations.
        toggles: Name to the values that switch the part off, by dotted path.
        resolution: Of `fractional` only: 3 separates toggles from each other, 4 also from pairs.
        reference: Name of the arm without toggles, which the others are compared with.
    """

    design: Design
    toggles: dict[str, dict[str, Any]]
    resolution: int | None = None
    reference: str = FULL

    def __post_init__(self) -> None:
        """Reject designs without toggles and a resolution where there is no fraction."""
        if not self.toggles:
            raise ValueError("toggles is empty: there is nothing to switch off")
        for name, values in self.toggles.items():
            if not values:
                raise ValueError(f"toggles.{name} sets nothing")
            if not name.replace("_", "").isalnum():
                raise ValueError(f"toggles.{name}: use letters, digits and underscores")
        if not self.reference.replace("_", "").isalnum():
            raise ValueError(f"reference={self.reference!r}: use letters, digits and underscores")
        if (self.resolution is not None) != (self.design == "fractional"):
            raise ValueError(
                f"resolution={self.resolution} with design {self.design}: fractional states its "
                "resolution, the others have none"
            )
        if self.resolution is not None and self.resolution < 3:
            raise ValueError(f"resolution is 3 or more, not {self.resolution}")

    def arms(self) -> list[Arm]:
        """Return the arms, the reference first. Raises ConfigError if toggles clash."""
        return make_arms(self.design, self.toggles, self.resolution, self.reference)

    @property
    def fraction(self) -> Fraction | None:
        """The fraction that is run, or None of another design. Raises ConfigError."""
        if self.design != "fractional":
            return None
        return make_fraction(tuple(self.toggles), self.resolution or 3)


@dataclass(frozen=True)
class Objective:
    """What a search improves.

    Attributes:
        metric: A column of the rows.
        split: Where it is measured; never test.
        mode: Whether more is better.
    """

    metric: str
    split: Split = "validation"
    mode: Mode = "max"

    def __post_init__(self) -> None:
        """Keep the test split out of searches."""
        if self.split != "validation":
            raise ValueError(
                f"split={shown(self.split)}: a search sees the validation split only; "
                "score the winner on test with an ablation study"
            )


@dataclass(frozen=True)
class StopEarly:
    """How poor trials are ended.

    Attributes:
        asha: Successive halving.
    """

    asha: AshaSettings


@dataclass(frozen=True)
class SearchSpec:
    """A search over a space.

    Attributes:
        space: See namd.study.space.
        objective: One, or several (Pareto).
        num_trials: Proposals; may be raised later.
        sampler: How they are chosen.
        order: `synchronous`: in batches, exactly repeatable; `asynchronous`: each from what is
            known at that moment.
        batch: Proposals made together in synchronous order. Part of the search's definition:
            were it the number of workers, the proposals would depend on the cluster.
        seed: search_seed.
        startup_trials: Random proposals before TPE models anything.
        population: Of nsga2.
        stop_early: None: every trial runs to its end.
        seeds: Training seeds per trial.
        confirm_seeds: Fresh training seeds on which the winner is confirmed.
    """

    space: dict[str, Any]
    objective: Objective | tuple[Objective, ...]
    num_trials: int
    sampler: Literal["random", "grid", "tpe", "nsga2"] = "tpe"
    order: Literal["synchronous", "asynchronous"] = "synchronous"
    batch: int = 4
    seed: int = 0
    startup_trials: int = 10
    population: int = 20
    stop_early: StopEarly | None = None
    seeds: int = 1
    confirm_seeds: int = 3

    def __post_init__(self) -> None:
        """Reject impossible counts and unreadable spaces."""
        for name in ("num_trials", "batch", "seeds", "confirm_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if self.num_trials * self.seeds + self.confirm_seeds > MAXIMUM_TRIALS:
            raise ValueError(
                f"num_trials={self.num_trials}, seeds={self.seeds}, confirm_seeds="
                f"{self.confirm_seeds}: a search has at most {MAXIMUM_TRIALS:,} trials"
            )
        if self.startup_trials < 0:
            raise ValueError(f"startup_trials is 0 or more, not {self.startup_trials}")
        if self.population < 2:
            raise ValueError(f"population is 2 or more, not {self.population}")
        if not self.objectives:
            raise ValueError("objective is empty")
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) != len(metrics):
            raise ValueError(f"objective names a metric twice: {', '.join(metrics)}")
        space = self.parsed_space
        if self.sampler == "grid":
            space.require_grid()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, also where there is one."""
        one = isinstance(self.objective, Objective)
        return (self.objective,) if one else self.objective  # type: ignore[return-value]

    @cached_property
    def parsed_space(self) -> Space:
        """The space. Raises ConfigError."""
        return parse_space(self.space)


@dataclass(frozen=True)
class EvaluateSpec:
    """How each trial is judged.

    Attributes:
        split: None: test for an ablation, validation for a search; never train.
        num_draws: K; None: the preset's.
        primary: The metric that the study is about.
        secondary: The others that are tested, in order.
    """

    split: Split | None = None
    num_draws: int | None = None
    primary: str = "auroc"
    secondary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject impossible counts and metrics that are named twice."""
        if self.num_draws is not None and self.num_draws < 1:
            raise ValueError(f"num_draws is 1 or more, not {self.num_draws}")
        if self.primary in self.secondary:
            raise ValueError(f"primary {self.primary} is secondary too")
        twice = [name for name in self.secondary if self.secondary.count(name) > 1]
        if twice:
            raise ValueError(f"secondary names {shown(twice[0])} twice; keep one")


@dataclass(frozen=True)
class BudgetSpec:
    """What a study may cost.

    Attributes:
        device_hours: Hours times accelerators (cores, where there are none).
    """

    device_hours: float

    def __post_init__(self) -> None:
        """Reject a budget that buys nothing."""
        if self.device_hours <= 0:
            raise ValueError(f"device_hours is above 0, not {self.device_hours}")


@dataclass(frozen=True)
class StageResources:
    """What a stage worker of one stage reserves.

    Attributes:
        workers: Size of the worker group of a training stage and of the pools that draw; every
            other stage is built by one.
        minimum_workers: An elastic worker group may shrink to so many; None: it may not.
        cpus: Cores per worker; None: the configuration's `num_threads`.
        gpus: Accelerators per worker; a fraction where several stages fit on one.
    """

    workers: int = 1
    minimum_workers: int | None = None
    cpus: float | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Reject worker groups without workers or devices."""
        if self.workers < 1:
            raise ValueError(f"workers is 1 or more, not {self.workers}")
        if self.minimum_workers is not None and not 1 <= self.minimum_workers <= self.workers:
            raise ValueError(
                f"minimum_workers lies in 1..{self.workers}, not {self.minimum_workers}"
            )
        if (self.cpus is not None and self.cpus <= 0) or self.gpus < 0:
            raise ValueError(f"cpus {self.cpus} is above 0 and gpus {self.gpus} is 0 or more")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus above 1 are whole, not {self.gpus}")

    @property
    def least(self) -> int:
        """The smallest worker group it runs with."""
        return self.minimum_workers or self.workers

    @property
    def cores(self) -> float:
        """Cores that one worker reserves."""
        return 1.0 if self.cpus is None else self.cpus

    def for_threads(self, num_threads: int) -> "StageResources":
        """Return these with a core for each thread if the number of cores is left open."""
        return self if self.cpus is not None else replace(self, cpus=float(num_threads))


@dataclass(frozen=True)
class ResourcesSpec:
    """What stage workers reserve, by stage. None of it enters a key.

    Attributes:
        default: Of every stage that is not named.
        stages: By stage name; `draws` also stands for `draws-test` and `draws-validation`.
        concurrency: Most stages built at once, also asked of a cluster that has no room for them
            yet and can grow; None: what the cluster has room for.
    """

    default: StageResources = field(default_factory=StageResources)
    stages: dict[str, StageResources] = field(default_factory=dict)
    concurrency: int | None = None

    def __post_init__(self) -> None:
        """Reject a study that may do nothing."""
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency is 1 or more, not {self.concurrency}")

    def of(self, stage: str, family: str) -> StageResources:
        """Return what a stage's stage worker reserves: by its name, else its family's."""
        return self.stages.get(stage, self.stages.get(family, self.default))

    def for_threads(self, num_threads: int) -> "ResourcesSpec":
        """Return these with a core for each thread wherever the number of cores is left open."""
        stages = {name: each.for_threads(num_threads) for name, each in self.stages.items()}
        return replace(self, default=self.default.for_threads(num_threads), stages=stages)


@dataclass(frozen=True)
class TrackingSpec:
    """What is written to Weights & Biases besides the numbers.

    Attributes:
        images: Also a few drawn crops; off unless the file says so.
    """

    images: bool = False


@dataclass(frozen=True)
class StudySpec:
    """A study: an ablation or a search.

    Attributes:
        name: Its folder in the ledger.
        base: What every trial starts from.
        question: One sentence, printed over every table.
        seeds: Number of training seeds, or the seeds themselves; the same in every arm.
        ablation: Either this
        search: or this.
        evaluate: How each trial is judged.
        budget: None: no limit.
        resources: What stage workers reserve.
        tracking: What W&B gets.
    """

    name: str
    base: BaseSpec
    question: str = ""
    seeds: int | tuple[int, ...] = 1
    ablation: AblationSpec | None = None
    search: SearchSpec | None = None
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    budget: BudgetSpec | None = None
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)

    def __post_init__(self) -> None:
        """Reject what is neither ablation nor search, and splits that are not to be judged."""
        try:
            study_folder(self.name)
        except InputError as error:
            raise ValueError(f"name: {error}") from error
        if (self.ablation is None) == (self.search is None):
            way = "add one of them" if self.search is None else "remove one of them"
            raise ValueError(f"ablation, search: a study has either `ablation` or `search`; {way}")
        if isinstance(self.seeds, int) and self.seeds > MAXIMUM_TRIALS:
            raise ValueError(f"seeds={self.seeds}: a study has at most {MAXIMUM_TRIALS:,} trials")
        seeds = self.train_seeds
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(
                f"seeds={shown(self.seeds)}: expected a count of 1 or more, or distinct seeds"
            )
        if self.search is not None:
            if self.seeds != 1:
                raise ValueError(f"seeds={shown(self.seeds)}: a search states them in search.seeds")
            if self.evaluate.split not in (None, "validation"):
                raise ValueError(
                    f"evaluate.split={self.evaluate.split!r}: a search sees validation only; "
                    "leave it out"
                )
        elif self.evaluate.split == "train":
            raise ValueError(
                "evaluate.split='train': what the models learnt from is never judged; use test or "
                "validation"
            )

    @property
    def train_seeds(self) -> tuple[int, ...]:
        """The training seeds of an ablation."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def split(self) -> Split:
        """The evaluated split."""
        return self.evaluate.split or ("validation" if self.search else "test")


def parse_study(mapping: Mapping[str, Any]) -> StudySpec:
    """Read a study's mapping. Raises ConfigError naming path, value and the nearest valid key.

    `compare` is read as the ablation that it stands for.
    """
    return parse(StudySpec, expanded(mapping))


def read_study(path: Path) -> StudySpec:
    """Read a study file. Raises InputError that begins with the file's name."""
    with about(str(path)):
        return parse_study(read_yaml_mapping(path))


def require_extension(old: Mapping[str, Any], new: StudySpec) -> None:
    """Check that a study file only extends what the ledger says was run.

    More proposals, added seeds, another budget, resources, question or tracking are extensions;
    so are another store or cohort path, whose contents enter the keys.

    Raises ConfigError naming the first path that changes what was already decided.
    """
    past = parse_study(old)
    before, after = _fixed(past), _fixed(new)
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            raise ConfigError(
                f"{path}={shown(after.get(path))}: the study {new.name} was started with "
                f"{shown(before.get(path))}; give the changed study a new name"
            )
    if past.search is not None and new.search is not None:
        if new.search.num_trials < past.search.num_trials:
            raise ConfigError(
                f"search.num_trials={new.search.num_trials}: {past.search.num_trials} before; "
                "it can only be raised"
            )
    elif not set(past.train_seeds) <= set(new.train_seeds):
        raise ConfigError(
            f"seeds={shown(new.seeds)}: {shown(past.seeds)} before; seeds can only be added"
        )


_FREE = {
    "question",
    "seeds",
    "budget",
    "resources",
    "tracking",
    "base.cohort",
    "base.store",
    "search.num_trials",
    "search.confirm_seeds",
}


def _fixed(spec: StudySpec) -> dict[str, Any]:
    """Return the leaves that an extension may not change, by dotted path."""
    leaves = flat(to_mapping(spec), empty=True).items()
    free = tuple(f"{path}." for path in _FREE)
    return {path: value for path, value in leaves if not f"{path}.".startswith(free)}
