"""Search spaces: what may be varied, under which condition, and the overrides a point stands for.

Which point is tried next is the engine's business.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from namd.config.errors import ConfigError, shown
from namd.config.parsing import nearest

Kind = Literal["uniform", "log_uniform", "int", "log_int", "choice", "preset"]

_KINDS = ("uniform", "log_uniform", "int", "log_int", "choice")
_KEYS = (*_KINDS, "when", "else", "points")

MAXIMUM_GRID = 100_000
"""A grid of more points than this is a mistake, not a search."""


class _Absent:
    """Distinct from null, which is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@runtime_checkable
class Suggester(Protocol):
    """What of an Optuna trial is used: the value of one parameter."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401
        """Return one of the choices."""


@dataclass(frozen=True)
class Parameter:
    """One line of a space.

    Attributes:
        name: A dotted path of the configuration, or (without a dot) a switch that only heads
            conditions.
        kind: Its distribution; `preset`: none, the preset's own value where the condition holds.
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
        choices: Of `choice`.
        when: Parameter name to the values under which this one exists; all must hold.
        otherwise: Value where the condition is false; ABSENT: nothing is set then.
        points: Of `uniform` and `log_uniform` under the grid sampler.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    otherwise: Any = ABSENT
    points: int | None = None

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is true; a parameter that is absent itself makes it false."""
        return all(
            name in values and values[name] in allowed for name, allowed in self.when.items()
        )

    def suggest(self, suggester: Suggester) -> Any:  # noqa: ANN401 - any configuration value
        """Ask for a value."""
        if self.kind == "choice":
            labels = [_label(choice) for choice in self.choices]
            return self.choices[labels.index(suggester.suggest_categorical(self.name, labels))]
        log = self.kind.startswith("log_")
        if self.kind in ("int", "log_int"):
            return suggester.suggest_int(self.name, int(self.low), int(self.high), log=log)
        return suggester.suggest_float(self.name, self.low, self.high, log=log)

    def contains(self, value: object) -> bool:
        """Whether a value could have been suggested."""
        if self.kind == "choice":
            return _label(value) in [_label(choice) for choice in self.choices]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        whole = self.kind in ("uniform", "log_uniform") or float(value).is_integer()
        return whole and self.low <= value <= self.high

    def num_values(self) -> int:
        """Return the most values that its grid may have. Raises ConfigError without `points`."""
        if self.kind == "choice":
            return len(self.choices)
        whole = int(self.high) - int(self.low) + 1
        if self.kind == "int" and self.points is None:
            return whole
        if self.points is None:
            raise ConfigError(f"search.space.{self.name}: sampler grid needs `points: N` here")
        return min(self.points, whole) if self.kind in ("int", "log_int") else self.points

    def grid(self) -> list[Any]:
        """Return the values of the grid sampler. Raises ConfigError without `points`."""
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int" and self.points is None:
            return list(range(int(self.low), int(self.high) + 1))
        if self.points is None:
            raise ConfigError(f"search.space.{self.name}: sampler grid needs `points: N` here")
        shares = [n / max(1, self.points - 1) for n in range(self.points)]
        if self.kind.startswith("log_"):
            ratio = math.log(self.high / self.low)
            values: list[float] = [self.low * math.exp(share * ratio) for share in shares]
        else:
            values = [self.low + share * (self.high - self.low) for share in shares]
        values[-1] = self.high if self.points > 1 else values[-1]
        if self.kind in ("int", "log_int"):
            return sorted({round(value) for value in values})
        return values

    def extremes(self) -> list[Any]:
        """Return the values that must be allowed for the whole range to be: bounds or choices."""
        found: list[Any] = list(self.choices)
        if self.kind in ("uniform", "log_uniform"):
            found = [self.low, self.high]
        elif self.kind in ("int", "log_int"):
            found = [int(self.low), int(self.high)]
        return found if self.otherwise is ABSENT else [*found, self.otherwise]

    @property
    def is_switch(self) -> bool:
        """Whether it is no path of the configuration."""
        return "." not in self.name


@dataclass(frozen=True)
class Space:
    """Parameters, each after those its condition names."""

    parameters: tuple[Parameter, ...]

    def suggest(self, suggester: Suggester) -> dict[str, Any]:
        """Return a point: the value of every parameter that exists there, and no other."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.kind != "preset" and parameter.holds(values):
                values[parameter.name] = parameter.suggest(suggester)
        return values

    def overrides(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a point sets, by dotted path; switches set nothing."""
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.is_switch:
                continue
            if parameter.name in point:
                found[parameter.name] = point[parameter.name]
            elif not parameter.holds(point) and parameter.otherwise is not ABSENT:
                found[parameter.name] = parameter.otherwise
        return found

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield every point of the grid once, the last parameter varying fastest."""
        yield from self._grid(0, {})

    def require_grid(self) -> None:
        """Refuse a grid that cannot be walked; values are counted before any is made.

        Raises ConfigError naming a parameter without `points`, or the sizes where there are more
        than MAXIMUM_GRID points.
        """
        sizes = {p.name: p.num_values() for p in self.parameters if p.kind != "preset"}
        most = math.prod(sizes.values())
        if most <= MAXIMUM_GRID:
            return
        count = f"{most:,}"
        if any(p.when for p in self.parameters) and max(sizes.values()) <= MAXIMUM_GRID:
            # Conditions cut branches off: the product only bounds the number of points.
            if sum(1 for _ in itertools.islice(self.grid(), MAXIMUM_GRID + 1)) <= MAXIMUM_GRID:
                return
            count = f"more than {MAXIMUM_GRID:,}"
        listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size > 1)
        raise ConfigError(
            f"search.space: a grid of {count} points ({listed}), where at most {MAXIMUM_GRID:,} "
            "are searched; give `points` or fewer choices, or take sampler random or tpe"
        )

    def _grid(self, depth: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if depth == len(self.parameters):
            yield values
            return
        parameter = self.parameters[depth]
        if parameter.kind == "preset" or not parameter.holds(values):
            yield from self._grid(depth + 1, values)
            return
        for value in parameter.grid():
            yield from self._grid(depth + 1, {**values, parameter.name: value})

    def labels(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point as Optuna holds it: choices by their labels."""
        kinds = {parameter.name: parameter.kind for parameter in self.parameters}
        return {n: _label(v) if kinds[n] == "choice" else v for n, v in point.items()}

    def admits(self, point: Mapping[str, Any]) -> bool:
        """Whether a point is whole and of this space: what a warm start may take over."""
        expected = [p for p in self.parameters if p.kind != "preset" and p.holds(point)]
        return {p.name for p in expected} == set(point) and all(
            p.contains(point[p.name]) for p in expected
        )

    def checks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (parameter, overrides) whose parsing shows that every path and bound is allowed.

        Each extreme is tried alone, and pairs of two parameters' extremes are left to the run:
        a combination that no configuration allows is a failed trial.
        """
        for parameter in self.parameters:
            if not parameter.is_switch:
                for value in parameter.extremes():
                    yield parameter.name, {parameter.name: value}


def parse_space(mapping: Mapping[str, Any], path: str = "search.space") -> Space:
    """Read a space from a study file. Raises ConfigError naming path and value."""
    if not isinstance(mapping, Mapping) or not mapping:
        raise ConfigError(f"{path}={shown(mapping)}: expected parameters, at least one")
    parameters = {
        name: _parameter(str(name), entry, f"{path}.{name}") for name, entry in mapping.items()
    }
    _check_conditions(parameters, path)
    ordered = _in_order(parameters, path)
    _require_reachable(ordered, path)
    return Space(tuple(ordered))


def _parameter(name: str, entry: Any, path: str) -> Parameter:  # noqa: ANN401 - from YAML
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{path}={shown(entry)}: expected a mapping such as {{uniform: [0, 1]}}")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(
                f"{path}.{key}={shown(entry[key])}: unknown key{nearest(str(key), _KEYS)}"
            )
    kinds: list[Kind] = [kind for kind in _KINDS if kind in entry]  # type: ignore[misc]
    when = _condition(entry.get("when"), f"{path}.when")
    otherwise = entry.get("else", ABSENT)
    if otherwise is not ABSENT and not when:
        raise ConfigError(f"{path}.else={shown(otherwise)}: there is no `when` that could be false")
    if not kinds and when and otherwise is not ABSENT:
        return Parameter(name, "preset", when=when, otherwise=otherwise)
    if len(kinds) != 1:
        raise ConfigError(
            f"{path}: needs exactly one of {', '.join(_KINDS)}, got {kinds or 'none'}"
        )
    (kind,) = kinds
    if kind == "choice":
        choices = _choices(entry[kind], f"{path}.{kind}")
        return Parameter(name, kind, choices=choices, when=when, otherwise=otherwise)
    low, high = _bounds(kind, entry[kind], f"{path}.{kind}")
    points = entry.get("points")
    if points is not None and (
        isinstance(points, bool) or not isinstance(points, int) or points < 1
    ):
        raise ConfigError(f"{path}.points={shown(points)}: expected a whole number of 1 or more")
    return Parameter(name, kind, low, high, when=when, otherwise=otherwise, points=points)


def _choices(value: Any, path: str) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{path}={shown(value)}: expected a list of values")
    if not all(_is_plain(choice) for choice in value):
        raise ConfigError(f"{path}={shown(value)}: numbers among the choices must be finite")
    labels = [_label(choice) for choice in value]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{path}={shown(value)}: a value stands twice")
    return tuple(value)


def _bounds(kind: Kind, value: Any, path: str) -> tuple[float, float]:  # noqa: ANN401
    whole = kind in ("int", "log_int")
    numbers = (int,) if whole else (int, float)
    if (
        not isinstance(value, list)
        or len(value) != 2
        or any(isinstance(v, bool) or not isinstance(v, numbers) for v in value)
        or not all(_is_finite(v) for v in value)
    ):
        raise ConfigError(
            f"{path}={shown(value)}: expected [low, high], two {'whole ' * whole}numbers"
        )
    low, high = value
    if low >= high:
        raise ConfigError(f"{path}={shown(value)}: the first number must be below the second")
    if not _is_finite(float(high) - float(low)):
        raise ConfigError(f"{path}={shown(value)}: too wide: the difference is no finite number")
    if kind.startswith("log_") and low <= 0:
        raise ConfigError(f"{path}={shown(value)}: a logarithmic range lies above 0")
    return (low, high) if whole else (float(low), float(high))


def _is_plain(value: Any) -> bool:  # noqa: ANN401
    """Return whether the ledger's JSON can hold a value: no number in it is infinite or NaN."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_finite(number: float) -> bool:
    """Return whether a number is a finite float; a whole number beyond all floats is not."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _condition(value: Any, path: str) -> dict[str, tuple[Any, ...]]:  # noqa: ANN401
    """Return name to allowed values: `a`, `not a`, `{a: 1}` and `{a: [1, 2]}` are read."""
    if value is None:
        return {}
    if isinstance(value, str) and value:
        negated = value.startswith("not ")
        return {value.removeprefix("not ").strip(): (not negated,)}
    if isinstance(value, Mapping) and value:
        return {
            str(name): tuple(allowed) if isinstance(allowed, list) else (allowed,)
            for name, allowed in value.items()
        }
    raise ConfigError(f"{path}={shown(value)}: expected a parameter's name or {{name: value}}")


def _check_conditions(parameters: Mapping[str, Parameter], path: str) -> None:
    named = set(itertools.chain.from_iterable(p.when for p in parameters.values()))
    for parameter in parameters.values():
        for name, allowed in parameter.when.items():
            if name not in parameters:
                raise ConfigError(
                    f"{path}.{parameter.name}.when={shown(name)}: no such parameter"
                    f"{nearest(name, parameters)}"
                )
            if not allowed:
                raise ConfigError(
                    f"{path}.{parameter.name}.when.{name}=[]: no value is allowed, so "
                    f"{parameter.name} would never be searched; name a value or leave `when` out"
                )
            for value in allowed:
                if not parameters[name].contains(value):
                    raise ConfigError(
                        f"{path}.{parameter.name}.when: {name} is never {shown(value)}, so it is "
                        "absent always"
                    )
        if parameter.is_switch and parameter.name not in named:
            raise ConfigError(
                f"{path}.{parameter.name}: neither a path of the configuration nor the head of a "
                "`when`"
            )
        if parameter.is_switch and parameter.otherwise is not ABSENT:
            raise ConfigError(f"{path}.{parameter.name}.else: a switch sets nothing")


def _in_order(parameters: Mapping[str, Parameter], path: str) -> list[Parameter]:
    """Return parameters after those that their conditions name, else as written."""
    done: dict[str, Parameter] = {}
    while len(done) < len(parameters):
        ready = [p for p in parameters.values() if p.name not in done and set(p.when) <= set(done)]
        if not ready:
            ring = ", ".join(name for name in parameters if name not in done)
            raise ConfigError(f"{path}: conditions form a ring among {ring}")
        for parameter in ready:
            done[parameter.name] = parameter
    return list(done.values())


def _require_reachable(ordered: list[Parameter], path: str) -> None:
    """Refuse a parameter whose conditions, with those of what they name, exclude each other.

    Parameters vary independently, so it exists somewhere exactly if each one named on the way
    keeps an allowed value. Raises ConfigError.
    """
    needs: dict[str, dict[str, tuple[Any, ...]]] = {}
    for parameter in ordered:
        need: dict[str, tuple[Any, ...]] = {}
        for layer in (parameter.when, *(needs[name] for name in parameter.when)):
            for name, allowed in layer.items():
                kept = tuple(value for value in need.get(name, allowed) if value in allowed)
                if not kept:
                    raise ConfigError(
                        f"{path}.{parameter.name}.when: the conditions on {name} exclude each "
                        f"other, so {parameter.name} would never be searched"
                    )
                need[name] = kept
        needs[parameter.name] = need


def _label(value: Any) -> Any:  # noqa: ANN401
    """Return a choice as Optuna can hold it; lists and mappings by their JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return json.dumps(value, sort_keys=True)
