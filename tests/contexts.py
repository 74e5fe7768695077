"""Contexts for tests that call a stage's body by itself."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from namd.data.schema import EVERYTHING, SPLITS
from namd.methods.base import CohortSlice, Stage, StageContext, StageRole


def open_stage(
    family: str,
    body: str,
    settings: object,
    inputs: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
    role: StageRole = "map",
) -> Stage:
    """Return a stage that declares all of its settings and inputs, and a whole cohort."""
    return Stage(
        family=family,
        code_version=1,
        role=role,
        body=body,
        reads=() if settings is None else tuple(vars(settings)),
        upstream=tuple({label.partition("[")[0] for label in inputs}),
        cohort=CohortSlice((EVERYTHING,), SPLITS),
        values=values or {},
    )


def open_context(
    settings: object,
    values: Mapping[str, Any],
    cohort_path: Path,
    inputs: Mapping[str, Path],
    outputs: Mapping[int | None, Path],
    checkpoints: Path,
    world: Any,
    warn: Callable[[str], None],
) -> StageContext:
    """Return the context of a stage that declares everything it is given, and a whole cohort.

    What the real stages declare is the matter of `tests/conformance/test_declarations.py`.
    """
    return StageContext(
        stage=open_stage("test", "none:none", settings, inputs, values),
        config=settings,
        cohort_path=cohort_path,
        artifacts=inputs,
        outputs=outputs,
        checkpoints=checkpoints,
        world=world,
        warn=warn,
    )
