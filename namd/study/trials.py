"""From a study file and a method to trials: resolved configurations with their training seeds.

Every path of the file is checked here against the method's configuration class, before anything
starts.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from namd.config.errors import ConfigError, about, shown
from namd.config.fingerprint import fingerprint
from namd.config.parsing import identity_mapping, merge, nearest, set_path
from namd.data.settings import CohortDemands
from namd.ledger.schema import Queued, trial_id
from namd.methods.base import Method, num_threads, read_path
from namd.pipeline.run_configuration import RunConfiguration, from_mapping, method_of
from namd.statistics.metrics import METRICS
from namd.study.asha import Mode, Rung
from namd.study.designs import Arm, merge_duplicates
from namd.study.spec import MAXIMUM_TRIALS, ResourcesSpec, StopEarly, StudySpec

TRAIN_SEED = "train_seed"
RESERVED = ("method", "preset", TRAIN_SEED, "evaluate.split", "evaluate.num_draws")
"""Paths that the study file sets elsewhere: base.method, base.preset, seeds, evaluate."""

ARM_STARTS = ("method", "preset")
"""What an arm of a comparison may start from instead of the base's."""

MEASURED_BY = {
    "lpips": ("evaluate.lpips", "alex"),
    "fid": ("evaluate.fid", "inception"),
    "kid": ("evaluate.fid", "inception"),
}
"""Metrics that need pretrained weights: the setting that switches each on, and to what."""


@dataclass(frozen=True)
class Trial:
    """One configuration with one training seed.

    Attributes:
        trial: Its id: a hash of the resolved configuration and the seed.
        seed: train_seed.
        overrides: What it changes of the base, by dotted path.
        configuration: Resolved: nothing is left to decide.
        arm: Of an ablation, else empty.
        proposal: Number of a search's proposal, else None.
    """

    trial: str
    seed: int
    overrides: Mapping[str, Any]
    configuration: RunConfiguration
    arm: str = ""
    proposal: int | None = None

    def queued(self) -> Queued:
        """Return the body of the record that queues the trial."""
        return Queued(
            arm=self.arm, proposal=self.proposal, seed=self.seed, overrides=dict(self.overrides)
        )


class Configurator:
    """Turns overrides into resolved configurations of one study.

    Args:
        spec: The study.
        methods: Replaces the registry.
        preset: Replaces the preset's contents, by mapping.
    """

    def __init__(
        self,
        spec: StudySpec,
        methods: Mapping[str, Method] | None = None,
        preset: Mapping[str, Any] | None = None,
    ) -> None:
        self._methods = methods
        self.spec = self.completed(spec)
        self._preset = preset
        self._starts: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._require_comparison()
        self._start(spec.base.method, spec.base.preset)

    def completed(self, spec: StudySpec) -> StudySpec:
        """Return a study with what its file leaves to the method: the rungs of a search.

        Raises ConfigError if the method has none by default.
        """
        search = spec.search
        if search is None or search.stop_early is None or search.stop_early.asha.rungs is not None:
            return spec
        method = method_of({"method": spec.base.method}, self._methods)
        if not method.default_rungs:
            raise ConfigError(
                f"search.stop_early.asha.rungs: method {method.name} has no rung by default; name "
                "a stage and a metric that it measures on validation"
            )
        modes = method.rung_metrics or {}
        rungs = tuple(
            Rung(stage, metric, mode=cast("Mode", modes.get(stage, {}).get(metric, "max")))
            for stage, metric in method.default_rungs.items()
        )
        asha = replace(search.stop_early.asha, rungs=rungs)
        return replace(spec, search=replace(search, stop_early=StopEarly(asha)))

    def configure(self, overrides: Mapping[str, Any], seed: int) -> RunConfiguration:
        """Return the resolved configuration. Raises ConfigError naming path and value.

        `method` and `preset` among the overrides replace what the base starts from; all other
        values, the base's included, are then checked against that method.
        """
        method = overrides.get("method", self.spec.base.method)
        preset = overrides.get("preset", self.spec.base.preset)
        values = {path: value for path, value in overrides.items() if path not in ARM_STARTS}
        mapping = self._laid_over(self._start(method, preset), values, "a configuration")
        mapping[TRAIN_SEED] = seed
        try:
            return from_mapping(mapping, preset, self._methods)
        except ConfigError:
            if method != self.spec.base.method and self._preset is None:
                self._require_common(method, preset)
            raise

    def _start(self, method: str, preset: str | None) -> dict[str, Any]:
        """Return a method's preset under what the study says of every trial. Raises ConfigError."""
        if (method, preset) not in self._starts:
            base: Mapping[str, Any] = self._preset or {}
            if self._preset is None and preset is not None:
                # Of an arm's method the caller says whose it is.
                with about("base") if method == self.spec.base.method else nullcontext():
                    base = method_of({"method": method}, self._methods).preset(preset)
            evaluate: dict[str, Any] = {"split": self.spec.split}
            if self.spec.evaluate.num_draws is not None:
                evaluate["num_draws"] = self.spec.evaluate.num_draws
            base = merge(base, {"method": method, "evaluate": evaluate})
            laid = self._laid_over(base, self.spec.base.set, "base.set")
            self._starts[method, preset] = laid
        return dict(self._starts[method, preset])

    def _require_common(self, method: str, preset: str | None) -> None:
        """Refuse what `base.set` names and an arm's own method lacks. Raises ConfigError."""
        start = method_of({"method": method}, self._methods).preset(preset) if preset else {}
        known = from_mapping(merge(start, {"method": method}), preset, self._methods).config
        for path, value in self.spec.base.set.items():
            try:
                read_path(known, path)
            except AttributeError:
                raise ConfigError(
                    f"base.set.{path}={shown(value)}: unknown key of method {method}, and base.set "
                    f"holds in every arm; name it in arms of method {self.spec.base.method} instead"
                ) from None

    def _require_comparison(self) -> None:
        """Refuse another method anywhere but in an arm of its own. Raises ConfigError."""
        ablation = self.spec.ablation
        for name, values in ablation.toggles.items() if ablation is not None else ():
            started = [path for path in ARM_STARTS if path in values]
            if started and ablation is not None and ablation.design != "arms":
                raise ConfigError(
                    f"ablation.toggles.{name}.{started[0]}={values[started[0]]!r}: only an arm of "
                    f"its own can have another {started[0]}; use design: arms"
                )

    def base(self) -> RunConfiguration:
        """Return what the study starts from, at its first seed. Raises ConfigError."""
        return self.configure({}, self.spec.train_seeds[0])

    def trial(
        self, overrides: Mapping[str, Any], seed: int, arm: str = "", proposal: int | None = None
    ) -> Trial:
        """Return a trial of these overrides and this seed."""
        configuration = self.configure(overrides, seed)
        return Trial(
            trial_id(_identity(configuration), seed), seed, overrides, configuration, arm, proposal
        )

    def check(self) -> None:
        """Try every toggle, bound and choice on its own, and the names of metrics and stages.

        Raises ConfigError naming its place in the study file.
        """
        _require_metrics(self.spec)
        _require_few(self.spec)
        found = [stage for each in self._each_alone() for stage in each.stages()]
        stages = {stage.name for stage in found}
        self._require_rungs(stages)
        reserved = stages | {stage.family for stage in found}
        for name in self.spec.resources.stages:
            if name not in reserved:
                hint = nearest(name, sorted(reserved))
                raise ConfigError(f"resources.stages.{name}: no such stage{hint}")
        self._require_cores()

    def resources(self) -> ResourcesSpec:
        """Return what stages reserve: a core for each thread if the file does not say."""
        return self.spec.resources.for_threads(self._max_threads())

    def _max_threads(self) -> int:
        return max(num_threads(each.config) for each in self._each_alone())

    def _require_cores(self) -> None:
        """Refuse threads that would share cores. Raises ConfigError."""
        threads, resources = self._max_threads(), self.spec.resources
        named = {"default": resources.default}
        named |= {f"stages.{name}": each for name, each in resources.stages.items()}
        for name, each in named.items():
            if each.cpus is not None and max(1, math.ceil(each.cpus)) < threads:
                raise ConfigError(
                    f"resources.{name}.cpus {each.cpus:g} is below num_threads {threads}, which "
                    "results depend on: reserve that many, leave cpus out, or set num_threads"
                )

    def check_measured(self) -> None:
        """Check that trials measure what the study is about, on this machine as it is.

        A search's objectives and an ablation's primary metric; secondary ones may be missing.
        Not part of `check`: a ledger is also read and taken up where no weights are.

        Raises ConfigError naming the setting that switches the metric on.
        """
        spec = self.spec
        wanted = [(f"evaluate.primary={shown(spec.evaluate.primary)}", spec.evaluate.primary)]
        tried: list[tuple[str, Mapping[str, Any]]] = [("", {})]
        if spec.search is not None:
            wanted = [
                (f"search.objective.metric={shown(o.metric)}", o.metric)
                for o in spec.search.objectives
            ]
            checks = spec.search.parsed_space.checks()
            tried += [(f" under search.space.{name}", values) for name, values in checks]
        elif spec.ablation is not None:
            toggles = spec.ablation.toggles.items()
            tried += [(f" under ablation.toggles.{name}", values) for name, values in toggles]
        for place, metric in wanted:
            if metric in MEASURED_BY:
                self._require_on(place, metric, tried)

    def _require_on(
        self, place: str, metric: str, tried: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> None:
        setting, value = MEASURED_BY[metric]
        searched = self.spec.search is not None and setting in self.spec.search.space
        for where, overrides in tried:
            if searched and setting not in overrides:
                continue
            config = self.configure(overrides, self.spec.train_seeds[0]).config
            if read_path(config, setting) == "off":
                raise ConfigError(
                    f"{place}: {setting} is off{where} (`auto` is off where the weights are not on "
                    f"this machine), so {metric} is not measured; set {setting}: {value} in "
                    "base.set, for which `namd weights` lists what is missing, or name another "
                    "metric"
                )

    def demands(self) -> CohortDemands:
        """Return what a cohort must have for every trial. Raises ConfigError."""
        asked = [each.demands() for each in self._each_alone()]
        return CohortDemands(
            max(each.image_size for each in asked),
            any(each.diameters for each in asked),
            any(each.turned for each in asked),
        )

    def _each_alone(self) -> Iterator[RunConfiguration]:
        """Yield the base, then every toggle, bound and choice on its own. Raises ConfigError."""
        tried: list[tuple[str, Mapping[str, Any]]] = [("base", {})]
        if self.spec.ablation is not None:
            toggles = self.spec.ablation.toggles.items()
            tried += [(f"ablation.toggles.{name}", values) for name, values in toggles]
        if self.spec.search is not None:
            checks = self.spec.search.parsed_space.checks()
            tried += [(f"search.space.{name}", values) for name, values in checks]
        for place, values in tried:
            with about(place):
                configuration = self.configure(values, self.spec.train_seeds[0])
                configuration.stages()
            yield configuration

    def _require_rungs(self, stages: set[str]) -> None:
        """Refuse a rung that no trial would ever reach. Raises ConfigError."""
        search = self.spec.search
        if search is None or search.stop_early is None:
            return
        offered = self.base().method.rung_metrics
        for rung in search.stop_early.asha.rungs or ():
            place = f"search.stop_early.asha.rungs: {rung.name}"
            if rung.stage not in stages:
                hint = nearest(rung.stage, sorted(stages))
                raise ConfigError(f"{place}: no such stage{hint}")
            if offered is None:
                continue
            known = offered.get(rung.stage, {})
            if not known:
                able = ", ".join(f"{name} ({', '.join(each)})" for name, each in offered.items())
                raise ConfigError(
                    f"{place}, metric {shown(rung.metric)}: stage {rung.stage} reports no metric "
                    f"that a rung may use; these do: {able}"
                )
            if rung.metric not in known:
                raise ConfigError(
                    f"{place}, metric {shown(rung.metric)}: stage {rung.stage} reports no such "
                    f"metric{nearest(rung.metric, known)}; a rung there may use {', '.join(known)}"
                )
            if rung.mode != (better := known[rung.metric]):
                raise ConfigError(
                    f"{place}, mode {rung.mode!r}: the best {rung.metric} is the "
                    f"{'lowest' if better == 'min' else 'highest'}; set mode: {better}"
                )

    def _laid_over(
        self, base: Mapping[str, Any], values: Mapping[str, Any], place: str
    ) -> dict[str, Any]:
        result = dict(base)
        for path, value in values.items():
            for reserved in RESERVED:
                if path == reserved or path == reserved.partition(".")[0]:
                    raise ConfigError(
                        f"{place}.{path}={shown(value)}: {reserved} is set by the study file's own "
                        "base.method, seeds and evaluate"
                    )
            result = set_path(result, path, value)
        return result


def ablation_arms(spec: StudySpec, configurator: Configurator) -> list[Arm]:
    """Return the arms of an ablation, those of one configuration merged."""
    if spec.ablation is None:
        raise ValueError(f"study {spec.name} is no ablation")
    seed = spec.train_seeds[0]

    def identify(arm: Arm) -> str:
        return fingerprint(_identity(configurator.configure(arm.overrides, seed)))

    return merge_duplicates(spec.ablation.arms(), identify)


def arm_combinations(spec: StudySpec, configurator: Configurator) -> dict[str, list[list[str]]]:
    """Return, per arm, the sets of applied toggles that come to its configuration, its own first.

    The ledger keeps it at every opening: an effect is formed from combinations, and those of
    a merged arm have no trials of their own. Raises ValueError if the study is no ablation.
    """
    if spec.ablation is None:
        raise ValueError(f"study {spec.name} is no ablation")
    applied = {arm.name: list(arm.applied) for arm in spec.ablation.arms()}
    return {
        arm.name: [applied[name] for name in (arm.name, *arm.aliases)]
        for arm in ablation_arms(spec, configurator)
    }


def ablation_trials(spec: StudySpec, configurator: Configurator) -> list[Trial]:
    """Return arms times seeds, seed by seed, so that a study cut short is balanced."""
    arms = ablation_arms(spec, configurator)
    return [
        configurator.trial(arm.overrides, seed, arm.name)
        for seed in spec.train_seeds
        for arm in arms
    ]


def proposal_trials(
    spec: StudySpec, configurator: Configurator, number: int, overrides: Mapping[str, Any]
) -> list[Trial]:
    """Return the trials of a search's proposal: one per training seed."""
    if spec.search is None:
        raise ValueError(f"study {spec.name} is no search")
    return [
        configurator.trial(overrides, seed, proposal=number) for seed in range(spec.search.seeds)
    ]


def confirmation_seeds(spec: StudySpec) -> Iterable[int]:
    """Return the fresh training seeds on which a search's winner is confirmed."""
    if spec.search is None:
        raise ValueError(f"study {spec.name} is no search")
    return range(spec.search.seeds, spec.search.seeds + spec.search.confirm_seeds)


def _require_few(spec: StudySpec) -> None:
    """Refuse a design that would never end. Raises ConfigError."""
    arms = len(spec.ablation.arms()) if spec.ablation is not None else 0
    if arms * len(spec.train_seeds) > MAXIMUM_TRIALS:
        raise ConfigError(
            f"seeds={shown(spec.seeds)}: {arms:,} arms x {len(spec.train_seeds):,} training seeds, "
            f"where a study has at most {MAXIMUM_TRIALS:,} trials"
        )


def _require_metrics(spec: StudySpec) -> None:
    """Refuse a metric that no trial would ever have. Raises ConfigError."""
    named = [(f"evaluate.primary={shown(spec.evaluate.primary)}", spec.evaluate.primary)]
    named += [(f"evaluate.secondary: {shown(name)}", name) for name in spec.evaluate.secondary]
    for objective in spec.search.objectives if spec.search is not None else ():
        named.append((f"search.objective.metric={shown(objective.metric)}", objective.metric))
    for place, name in named:
        if name not in METRICS:
            raise ConfigError(f"{place}: no such metric{nearest(name, METRICS)}")
    for objective in spec.search.objectives if spec.search is not None else ():
        fewer = METRICS[objective.metric].lower_is_better
        better = "min" if fewer else "max"
        if fewer is not None and objective.mode != better:
            raise ConfigError(
                f"search.objective.mode={objective.mode!r}: the best {objective.metric} is the "
                f"{'lowest' if better == 'min' else 'highest'}; set mode: {better}"
            )


def _identity(configuration: RunConfiguration) -> dict[str, Any]:
    """Return the resolved configuration without its training seed, which stands beside it."""
    mapping = identity_mapping(configuration.config)
    fields = {spec.name for spec in dataclasses.fields(configuration.method.config_class)}
    if TRAIN_SEED not in fields:
        raise ConfigError(f"method {configuration.method.name} has no {TRAIN_SEED} to vary")
    return {"method": configuration.method.name} | {
        name: value for name, value in mapping.items() if name != TRAIN_SEED
    }
