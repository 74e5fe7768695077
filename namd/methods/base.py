"""What a stage and a method are. No stage body and no torch import belongs here."""

import dataclasses
import importlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from namd.config.errors import ConfigError, shown
from namd.config.parsing import nearest
from namd.config.presets import load_preset, preset_description
from namd.data.settings import CohortDemands
from namd.methods.declared import (
    DeclaredCohort,
    DeclaredSettings,
    declared_inputs,
    declared_values,
)
from namd.storage.stage_names import StageName
from namd.train.workers import World

StageRole = Literal["train", "map", "draw", "score", "reference", "rejudge", "copies"]
"""What a stage is for. `train` is built by a worker group, `draw` also by a pool of workers.

`draw` and `score` have one artifact per draw index; `reference` makes rows of the table without a
model; `rejudge` has a further judge's scores of the images in all rows; `copies` has distances to
the train crops, of real images, or of one draw index.
"""


@dataclass(frozen=True)
class Step:
    """Progress of a stage body: `index` of `total` done, and what was measured there.

    `finished` names the member of a family (a draw index) whose output folder is complete, so
    that it can be published while the rest go on.
    """

    index: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    finished: int | None = None


@dataclass(frozen=True)
class CohortSlice:
    """The cohort columns and splits that a stage reads; only these enter its key."""

    columns: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class DrawerCode:
    """Where a method's drawer is defined.

    Attributes:
        path: Import path `module:Class` of a `namd.sample.draws.Drawer`.
        code_version: Bumped when its images would change; moves the keys of these draws alone.
    """

    path: str
    code_version: int


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        family: What is made, without split and draw index: `vae`, `draws`, `scores`.
        code_version: Bumped when the stage's output would change for the same inputs.
        role: What the stage is for.
        body: Import path `module:function` of `run(context) -> Iterator[Step]`.
        reads: Dotted paths of the configuration sections that the body may read.
        upstream: Names of the stages whose artifacts the body reads.
        cohort: What the body reads of the cohort; None: nothing.
        seeds: Dotted paths of the seeds that the body uses.
        weights: Dotted paths of configuration values that name external weights.
        split: The one split whose cases are drawn, scored or measured; None: no single one.
        index: Draw index for a stage of which there is one artifact per draw.
        drawer: The model that a stage of role `draw` draws with.
        row: Name of the row of the result table that a stage of role `reference` scores; None:
            its scores name their rows themselves.
        values: Extra constants that distinguish stages sharing a body.
        packages: Python packages beside those of the lock that the body needs, each with the line
            for a machine that lacks it.
    """

    family: str
    code_version: int
    role: StageRole
    body: str
    reads: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    cohort: CohortSlice | None = None
    seeds: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    split: str | None = None
    index: int | None = None
    drawer: DrawerCode | None = None
    row: str | None = None
    values: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder, unique within a run but for the index: `draws-test`."""
        return self.family if self.split is None else f"{self.family}-{self.split}"

    @property
    def constants(self) -> dict[str, str | int | float | bool]:
        """What the body finds in `context.values`: its own, its split and its drawer's path."""
        split = {} if self.split is None else {"split": self.split}
        drawer = {} if self.drawer is None else {"drawer": self.drawer.path}
        return {**self.values, **split, **drawer}

    @property
    def label(self) -> str:
        """The name shown to people: `draws-test[7]` for one of a family."""
        return self.recorded.label

    @property
    def recorded(self) -> StageName:
        """What records and events say of it."""
        return StageName(self.name, self.index, self.family, self.role, self.split)

    def load_body(self) -> Callable[["StageContext"], Generator[Step, None, None]]:
        """Import the body. Raises ImportError or AttributeError if the path is wrong."""
        module, _, attribute = self.body.partition(":")
        return getattr(importlib.import_module(module), attribute)


@dataclass
class StageContext:
    """All that a stage body may touch; what its stage does not declare is refused by name.

    There is no context without a declaration, so every runner gives a body the same views.

    Args:
        stage: The declaration.
        config: The configuration, or a slice that holds what the stage declares of it.
        cohort_path: The cohort's folder.
        artifacts: Payload folders by label; those that the stage declares become its inputs.

    Attributes:
        settings: The declared configuration slice, by attribute.
        values: The stage's own constants.
        cohort: The declared columns and splits of the cohort.
        inputs: Payload folder of each upstream stage, by name. A family (draws) is keyed
            `name[index]`.
        outputs: Empty folder to fill, per index; `{None: folder}` for a single artifact.
        checkpoints: Folder that survives a killed attempt at the same key. A body yields a
            step before it saves a checkpoint at that step, so that no measurement is lost
            between the two; a resumed body's first step tells from where it goes on.
        world: Rank, number and device of the workers.
        workers: Mean number of workers over the wall time, where it changed meanwhile.
        notes: What the body wants recorded in the manifest (JSON-able).
        warn: Says one line to the user now, and keeps it in the manifest.
    """

    stage: Stage
    config: InitVar[object]
    cohort_path: InitVar[Path]
    artifacts: InitVar[Mapping[str, Path]]
    outputs: Mapping[int | None, Path]
    checkpoints: Path
    world: World
    warn: Callable[[str], None]
    workers: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    settings: Any = field(init=False)
    values: Mapping[str, str | int | float | bool] = field(init=False)
    cohort: DeclaredCohort = field(init=False)
    inputs: Mapping[str, Path] = field(init=False)

    def __post_init__(
        self, config: object, cohort_path: Path, artifacts: Mapping[str, Path]
    ) -> None:
        """Cut everything to what the stage declares."""
        stage, read = self.stage, self.stage.cohort or CohortSlice((), ())
        self.settings = DeclaredSettings(stage.name, declared_slice(stage, config))
        self.values = declared_values(stage.name, stage.constants)
        self.cohort = DeclaredCohort(stage.name, cohort_path, read.columns, read.splits)
        self.inputs = declared_inputs(stage.name, stage.upstream, artifacts)

    @property
    def out(self) -> Path:
        """The output folder of a stage with a single artifact."""
        (folder,) = self.outputs.values()
        return folder


def read_path(config: object, path: str) -> Any:  # noqa: ANN401 - any configuration value
    """Return the value at a dotted path of nested dataclasses.

    Raises AttributeError naming the path where it leads nowhere.
    """
    value = config
    for name in path.split("."):
        if not hasattr(value, name):
            raise AttributeError(f"the configuration has no {path}")
        value = getattr(value, name)
    return value


def num_threads(config: object) -> int:
    """Return the threads that a configuration fixes for each operation; one if it has no say.

    Float sums depend on the number, so it is part of every key and never the machine's.
    """
    return int(getattr(config, "num_threads", 1))


def declared_slice(stage: Stage, config: object) -> SimpleNamespace:
    """Return what a stage declares of a configuration, by attribute."""
    return cut(config, _outermost((*stage.reads, *stage.seeds)))


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths without those that lie inside another one."""
    distinct = list(dict.fromkeys(paths))
    return tuple(
        path for path in distinct if not any(path.startswith(f"{other}.") for other in distinct)
    )


def cut(config: object, paths: tuple[str, ...]) -> SimpleNamespace:
    """Return the slice of a configuration that lies under the given dotted paths."""
    root = SimpleNamespace()
    for path in paths:
        *parents, leaf = path.split(".")
        place = root
        for name in parents:
            if not hasattr(place, name):
                setattr(place, name, SimpleNamespace())
            place = getattr(place, name)
        setattr(place, leaf, read_path(config, path))
    return root


@dataclass(frozen=True)
class Method:
    """One row of the paper's Table 1.

    Attributes:
        name: The word used in configuration files.
        title: The row's title in tables.
        paper: Short citation.
        stochastic: Whether K matters; deterministic rows report no spread. A function, if that
            depends on the configuration.
        config_class: Frozen dataclass that its configuration is parsed into.
        stages: From a configuration to its stages, upstream first.
        presets: Names of its presets, the smallest first; each a YAML file in `preset_folder`.
        preset_folder: Where they lie.
        resolve: Replaces every automatic choice of a configuration by what this machine will
            do; runs before any key is formed, so that keys say what was done.
        demands: What a configuration asks of a cohort; None: nothing beyond what every run does.
        rung_metrics: What its stages measure on validation that a rung of a search may stop trials
            by, per stage name, and which way is better; None: unrestricted.
        default_rungs: Metric per stage name at whose end a search stops trials if its file names
            no rung; empty: the file must name one.
    """

    name: str
    title: str
    paper: str
    stochastic: bool | Callable[[Any], bool]
    config_class: type
    stages: Callable[[Any], tuple[Stage, ...]]
    presets: tuple[str, ...] = ()
    preset_folder: Path | None = None
    resolve: Callable[[Any], Any] | None = None
    demands: Callable[[Any], CohortDemands] | None = None
    rung_metrics: Mapping[str, Mapping[str, str]] | None = None
    default_rungs: Mapping[str, str] = field(default_factory=dict)

    def draws_differ(self, config: object) -> bool:
        """Return whether another draw index is another image under this configuration."""
        return self.stochastic if isinstance(self.stochastic, bool) else self.stochastic(config)

    def preset(self, name: str) -> dict[str, Any]:
        """Return the configuration that a preset states. Raises ConfigError for another's name."""
        return load_preset(name, self._folder_of(name))

    def describe_preset(self, name: str) -> str:
        """Return in one line what a preset is for. Raises ConfigError for another's name."""
        return preset_description(name, self._folder_of(name))

    def _folder_of(self, preset: str) -> Path:
        if preset not in self.presets or self.preset_folder is None:
            raise ConfigError(
                f"preset {shown(preset)} does not exist for method {self.name}"
                f"{nearest(str(preset), self.presets)}"
            )
        return self.preset_folder


def require_frozen(config_class: type) -> None:
    """Raise TypeError unless the class is a frozen dataclass."""
    parameters = getattr(config_class, "__dataclass_params__", None)
    if not dataclasses.is_dataclass(config_class) or not parameters or not parameters.frozen:
        raise TypeError(f"{config_class.__name__} must be a frozen dataclass")
