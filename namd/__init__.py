"""namd plans, runs and judges searches and ablations of lung-nodule progression models.

    import namd

    run = namd.run("tiny", cohort="phantom:200", store="runs/store")
    run.rows                                                        # a DataFrame
    namd.Study.open("alignment-ablation", "runs/store").arms()      # likewise

Importing it loads nothing heavy: each public name is imported when it is first used. For research
only; not for clinical use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namd.api.cohorts import Cohort, build_crops, build_phantom
    from namd.api.predictions import Prediction
    from namd.api.runs import Run, RunPlan, load_run, plan, run, weights
    from namd.api.studies import Study
    from namd.api.study_plan import StudyPlan
    from namd.config.errors import ConfigError, InputError, StageError

__all__ = [
    "Cohort",
    "ConfigError",
    "InputError",
    "Prediction",
    "Run",
    "RunPlan",
    "StageError",
    "Study",
    "StudyPlan",
    "build_crops",
    "build_phantom",
    "load_run",
    "plan",
    "run",
    "weights",
]

_MODULES = {
    "Cohort": "namd.api.cohorts",
    "ConfigError": "namd.config.errors",
    "InputError": "namd.config.errors",
    "Prediction": "namd.api.predictions",
    "Run": "namd.api.runs",
    "RunPlan": "namd.api.runs",
    "StageError": "namd.config.errors",
    "Study": "namd.api.studies",
    "StudyPlan": "namd.api.study_plan",
    "build_crops": "namd.api.cohorts",
    "build_phantom": "namd.api.cohorts",
    "load_run": "namd.api.runs",
    "plan": "namd.api.runs",
    "run": "namd.api.runs",
    "weights": "namd.api.runs",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'namd' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
