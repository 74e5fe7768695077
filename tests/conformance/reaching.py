"""A stage body that reads one named thing and nothing else."""

import functools
from collections.abc import Iterator
from typing import Any

from namd.data.schema import TENSORS
from namd.methods.base import StageContext, Step


def run(context: StageContext) -> Iterator[Step]:
    """Read what the values name; leave empty outputs."""
    look(context, str(context.values["kind"]), str(context.values["name"]))
    for number, index in enumerate(context.outputs):
        yield Step(number + 1, len(context.outputs), finished=index)


def look(context: StageContext, kind: str, name: str) -> Any:
    """Read a split, a column of the first declared split, a configuration value or an input."""
    if kind == "split":
        return context.cohort.read(name)
    if kind == "column":
        cases = context.cohort.read(context.stage.cohort.splits[0])
        if name.startswith("card."):
            return cases.card.get(name.removeprefix("card."))
        return getattr(cases, name) if name in TENSORS else cases.table.get(name)
    if kind == "value":
        return functools.reduce(getattr, name.split("."), context.settings)
    return context.inputs[name]
