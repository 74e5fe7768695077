"""`namd methods`: the rows of Table 1 that can be run, and what their stages cost here."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.cli.output import add_json_option, answer, columns, echo
from namd.config.errors import InputError, shown
from namd.config.places import place

if TYPE_CHECKING:
    from namd.methods.base import Method
    from namd.study.method_costs import StageCost

DRAWS = {True: "draws differ", False: "one outcome", None: "by configuration"}
COHORT = "phantom:200"
"""Large enough for the batches of every preset that needs no weights, and rendered in seconds."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("methods", help="list the methods that can be run")
    parser.add_argument(
        "--measure",
        metavar="PRESET",
        help="parameters and seconds per step of every stage, by short runs on this machine",
    )
    parser.add_argument(
        "--method", action="append", metavar="M", help="measure this one only; may be repeated"
    )
    parser.add_argument(
        "--cohort",
        type=place,
        metavar="DIR",
        help=f"measure on this cohort (default: {COHORT}, rendered for the purpose)",
    )
    add_json_option(parser)
    parser.set_defaults(func=list_methods)


def list_methods(arguments: argparse.Namespace) -> int:
    """List name, paper, whether draws differ, and presets; with `--measure` also what they cost.

    Raises InputError if a method or its preset does not exist, or needs weights that are missing.
    """
    from namd.methods.registry import METHODS

    if arguments.measure is not None:
        return _measure_methods(arguments, METHODS)
    for option in ("method", "cohort"):
        if (value := getattr(arguments, option)) is not None:
            raise InputError(f"--{option} {shown(value)}: it belongs to --measure PRESET; add that")
    found = [_described(method) for method in METHODS.values()]
    rows = [[m.name, m.paper, DRAWS[_stated(m)], ", ".join(m.presets)] for m in METHODS.values()]
    answer(arguments, {"methods": found}, columns(["method", "paper", "draws", "presets"], rows))
    return 0


def _described(method: "Method") -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "paper": method.paper,
        "stochastic": _stated(method),
        "presets": list(method.presets),
    }


def _measure_methods(arguments: argparse.Namespace, methods: "Mapping[str, Method]") -> int:
    """Measure the methods that have the preset, one after the other."""
    from namd.pipeline.run_configuration import method_of

    preset = arguments.measure
    named = arguments.method or [name for name, m in methods.items() if preset in m.presets]
    chosen = [method_of({"method": name}) for name in dict.fromkeys(named)]
    if not chosen:
        raise InputError(f"--measure {shown(preset)}: no method has this preset; see namd presets")
    for method in chosen:
        method.preset(preset)
    costs: dict[str, list[StageCost]] = {}
    with tempfile.TemporaryDirectory(prefix="namd-methods-") as folder:
        for method, found in _costs(chosen, preset, arguments.cohort or COHORT, Path(folder)):
            costs[method.name] = found
    value = [
        _described(m) | {"preset": preset, "stages": [c.to_mapping() for c in costs[m.name]]}
        for m in chosen
    ]
    answer(arguments, {"methods": value}, _cost_table(chosen, costs))
    return 0


def _costs(
    methods: "Sequence[Method]", preset: str, cohort: str, scratch: Path
) -> "Iterator[tuple[Method, list[StageCost]]]":
    from namd.cli.named_cohorts import find_cohort
    from namd.pipeline.run_configuration import resolve
    from namd.pipeline.run_plan import require_weights
    from namd.study.calibrated_plan import cohort_size
    from namd.study.method_costs import measure_draws, method_costs

    # All are examined before the first is measured: an error would lose what was measured.
    configurations = [resolve(preset, None, [f"method={method.name}"]) for method in methods]
    for configuration in configurations:
        require_weights(configuration)
    folders = [find_cohort(cohort, scratch, each.demands()) for each in configurations]
    for method, configuration, folder in zip(methods, configurations, folders, strict=True):
        echo(f"{method.name}: three short runs of preset {preset}")
        size = cohort_size(folder, configuration.config.evaluate.split)
        yield method, method_costs(configuration, size, measure_draws(folder))


def _cost_table(methods: "Sequence[Method]", costs: "Mapping[str, Sequence[StageCost]]") -> str:
    header = ["method", "stage", "parameters", "seconds each", "at full length", "together"]
    rows = [
        [
            method.name,
            cost.stage,
            f"{cost.parameters:,}",
            f"{cost.seconds_each:.3f}",
            f"{cost.amount:,} {cost.unit}s",
            f"{cost.amount * cost.seconds_each:.0f} s",
        ]
        for method in methods
        for cost in costs[method.name]
    ]
    return columns(header, rows)


def _stated(method: "Method") -> bool | None:
    """Return whether draws differ; None if that depends on the configuration."""
    return method.stochastic if isinstance(method.stochastic, bool) else None
