"""Which artifacts a configuration needs, in which order, under which keys. Nothing is built here.

Needs no torch: a plan is made by searches and by `namd run --plan` without a model in memory.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from namd.config.errors import ConfigError, InputError
from namd.config.fingerprint import fingerprint
from namd.config.parsing import identity_mapping, is_later_at_default, is_unchanged
from namd.config.places import local_path
from namd.data.schema import EVERYTHING
from namd.methods.base import CohortSlice, Stage, declared_slice, num_threads, read_path
from namd.methods.declared import CARD_COLUMNS
from namd.models.weights import WeightStatus, require_all, status_of
from namd.models.weights_settings import WEIGHTS
from namd.pipeline.digests import DigestCache

KEY_SCHEMA = 2
"""Bumped when what goes into a key changes; every artifact is then made anew."""

Fingerprint = Callable[[CohortSlice], str]


@dataclass(frozen=True)
class Node:
    """A stage of one configuration, with all that decides its content.

    Attributes:
        stage: Its declaration.
        key: SHA-256 (hex) of `identity`.
        identity: Everything that was hashed, as plain values.
        inputs: Keys of what it reads, by the name under which the body sees it, each with the
            name of the stage that makes it.
        settings: The declared slice of the configuration, by attribute.
        num_threads: Threads that each of its operations on the CPU takes.
    """

    stage: Stage
    key: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str]]
    settings: SimpleNamespace
    num_threads: int = 1

    @property
    def label(self) -> str:
        """The name shown to people."""
        return self.stage.label


@dataclass(frozen=True)
class Plan:
    """The nodes that a result needs, upstream first, members of a family side by side.

    Attributes:
        nodes: In that order.
        missing: Pretrained weights that are not on this disk; the keys are then provisional, and
            nothing can be built under them.
    """

    nodes: tuple[Node, ...]
    missing: tuple[WeightStatus, ...] = ()

    def groups(self) -> list[tuple[Node, ...]]:
        """Return the nodes by stage name; the members of a family are built together."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(node.stage.name, []).append(node)
        return [tuple(nodes) for nodes in found.values()]


def make_plan(
    stages: Sequence[Stage],
    config: object,
    cohort: Path | None = None,
    *,
    targets: Iterable[str] | None = None,
    digests: DigestCache | None = None,
    cohort_digest: Fingerprint | None = None,
    provisional: bool = False,
) -> Plan:
    """Return the plan of a configuration whose automatic choices are already resolved.

    Args:
        stages: All stages of the method, in any order.
        config: The dataclass that the stages' dotted paths lead into.
        cohort: The cohort's folder.
        targets: Names of the stages whose artifacts are wanted; None: all of them.
        digests: Memory of digests of weights and cohorts.
        cohort_digest: Replaces the cohort's own fingerprint.
        provisional: Plan without external weights that are not there, under provisional keys.

    Raises:
        InputError: External weights are named that are not there, or packages are needed that are
            not installed, and keys are to be final.
        ValueError: The stages do not form a graph.
    """
    digests = digests or DigestCache()
    cohort_digest = cohort_digest or _cohort_digest(cohort, digests)
    ordered = _in_order(stages, targets)
    missing = missing_weights(ordered, config)
    if not provisional:
        require_all(missing)
        _require_packages(ordered)
    nodes: dict[tuple[str, int | None], Node] = {}
    for stage in ordered:
        inputs = {
            label: node for name in stage.upstream for label, node in _upstream(stage, name, nodes)
        }
        nodes[stage.name, stage.index] = _node(stage, config, inputs, digests, cohort_digest)
    return Plan(tuple(nodes.values()), missing)


def _require_packages(stages: Sequence[Stage]) -> None:
    """Raise InputError for the first package that a stage needs and this Python has not."""
    for package, line in {p: line for s in stages for p, line in s.packages.items()}.items():
        if importlib.util.find_spec(package) is None:
            raise InputError(line)


def missing_weights(stages: Sequence[Stage], config: object) -> tuple[WeightStatus, ...]:
    """Return what is known of the weights that these stages need and this disk has not."""
    paths = dict.fromkeys(path for stage in stages for path in stage.weights)
    found = (_weight_status(config, path) for path in paths)
    return tuple(status for status in found if status is not None and not status.found)


def _node(
    stage: Stage,
    config: object,
    inputs: Mapping[str, Node],
    digests: DigestCache,
    cohort_digest: Fingerprint,
) -> Node:
    weights = {path: _weight_digest(config, path, digests) for path in stage.weights}
    identity = {
        "key_schema": KEY_SCHEMA,
        "stage": stage.name,
        "body": stage.body,
        "code_version": stage.code_version,
        "index": stage.index,
        "values": dict(stage.values),
        "drawer": None if stage.drawer is None else dataclasses.asdict(stage.drawer),
        "slice": {
            path: _slice(config, path, stage.weights)
            for path in stage.reads
            if not _says_nothing_new(config, path)
        },
        "seeds": {path: read_path(config, path) for path in stage.seeds},
        "num_threads": num_threads(config),
        "weights": weights,
        "upstream": {label: node.key for label, node in inputs.items()},
        "cohort": None if stage.cohort is None else _cohort_identity(stage.cohort, cohort_digest),
    }
    return Node(
        stage,
        fingerprint(identity),
        identity,
        {label: (node.stage.name, node.key) for label, node in inputs.items()},
        declared_slice(stage, config),
        num_threads(config),
    )


def _upstream(
    stage: Stage, name: str, nodes: Mapping[tuple[str, int | None], Node]
) -> list[tuple[str, Node]]:
    """Return what `name` means to a stage.

    A single artifact; of a family the member with the stage's own index; or, to a stage without
    an index, every member.
    """
    members = [node for (other, _), node in nodes.items() if other == name]
    if stage.index is not None and all(node.stage.index is not None for node in members):
        members = [node for node in members if node.stage.index == stage.index]
    if not members:
        raise ValueError(f"{stage.label} reads {name}, which has no member for it")
    return [(node.label, node) for node in members]


def _in_order(stages: Sequence[Stage], targets: Iterable[str] | None) -> list[Stage]:
    """Return the stages that the targets need, each after everything it reads."""
    families: dict[str, list[Stage]] = {}
    for stage in stages:
        family = families.setdefault(stage.name, [])
        if any(other.index == stage.index for other in family):
            raise ValueError(f"two stages are called {stage.label}")
        family.append(stage)
    done: dict[str, list[Stage]] = {}
    visiting: list[str] = []

    def visit(name: str, reader: str) -> None:
        if name in done:
            return
        if name not in families:
            raise ValueError(f"{reader} reads {name}, which is no stage of this method")
        if name in visiting:
            raise ValueError(f"stages read each other in a ring: {' -> '.join([*visiting, name])}")
        visiting.append(name)
        for stage in families[name]:
            for upstream in stage.upstream:
                visit(upstream, stage.label)
        visiting.pop()
        done[name] = families[name]

    for target in families if targets is None else targets:
        visit(target, "the result")
    return [stage for family in done.values() for stage in family]


def _slice(config: object, path: str, weights: Sequence[str]) -> Any:  # noqa: ANN401
    """Return the plain value at a path, with the places of external weights left out.

    Where weights lie says nothing about what they hold; their digest enters the key instead.
    """
    value = identity_mapping(read_path(config, path))
    for weight in weights:
        if weight == path:
            return None
        if weight.startswith(f"{path}."):
            *parents, leaf = weight.removeprefix(f"{path}.").split(".")
            place = value
            for name in parents:
                place = place[name]
            place[leaf] = None
    return value


def _says_nothing_new(config: object, path: str) -> bool:
    """Whether a path leads to a field that configurations once lacked, or to such fields alone."""
    owner, _, leaf = path.rpartition(".")
    return is_unchanged(read_path(config, path)) or is_later_at_default(
        read_path(config, owner) if owner else config, leaf
    )


def _weight_digest(config: object, path: str, digests: DigestCache) -> str | None:
    """Return the digest of the weights named at a dotted path.

    A hub name is looked up on this disk. A word that is no place (`embedded`) stands for itself.
    Weights that are missing have none, only a word that no digest can be.
    """
    status = _weight_status(config, path)
    if status is not None:
        if status.path is None:
            return f"missing:{status.name}"
        return digests.weights(Path(status.path).resolve())
    value = read_path(config, path)
    if value is None:
        return None
    place = local_path(str(value))
    if place.exists():
        return digests.weights(place.resolve())
    if "/" in str(value):
        raise ConfigError(f"{path}={value!r}: no such file or folder; `namd weights` lists them")
    return f"name:{value}"


def _weight_status(config: object, path: str) -> WeightStatus | None:
    """Return what is known of the weights at a dotted path; None: none are asked for there.

    A checkpoint's path may be null: it is then sought in its usual places.
    """
    value = read_path(config, path)
    for weight in WEIGHTS.values():
        if weight.config_path == path and value != weight.config_word:
            if value is None and weight.format != "checkpoint":
                return None
            revision = read_path(config, weight.revision_path) if weight.revision_path else None
            return status_of(weight.name, value, revision)
    return None


def _cohort_identity(cohort: CohortSlice, cohort_digest: Fingerprint) -> dict[str, Any]:
    return {**dataclasses.asdict(cohort), "fingerprint": cohort_digest(cohort)}


def _cohort_digest(folder: Path | None, digests: DigestCache) -> Fingerprint:
    def digest(cohort: CohortSlice) -> str:
        from namd.data.cohort import CARD_FILE, CASES_FILE, cohort_fingerprint, read_schema

        if folder is None:
            raise ValueError("these stages read a cohort, and none was given")
        place = folder.resolve()
        name = f"cohort:{place}:{','.join(sorted(cohort.columns))}:{','.join(cohort.splits)}"
        files = [path for path in (place / CASES_FILE, place / CARD_FILE) if path.exists()]
        columns = cohort.columns
        if EVERYTHING in columns:
            columns = (*read_schema(place).names, *CARD_COLUMNS)
        return digests.get(name, files, lambda: cohort_fingerprint(place, columns, cohort.splits))

    return digest
