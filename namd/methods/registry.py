"""The methods that exist, as one explicit table: it does not depend on what was imported."""

from collections.abc import Mapping
from types import MappingProxyType

from namd.methods import namd
from namd.methods.base import Method

METHODS = MappingProxyType(
    {
        "namd": Method(
            name="namd",
            title="NAMD",
            paper="Song et al. 2026, arXiv 2603.15932",
            stochastic=True,
            config_class=namd.NAMDConfig,
            stages=namd.stages,
            presets=("tiny", "small", "base", "paper", "paper-authors-code"),
            resolve=namd.resolve,
            demands=namd.demands,
        )
    }
)

_RUNG_METRICS: Mapping[str, Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {"namd": namd.RUNG_METRICS}
)


def rung_metrics(method: Method) -> Mapping[str, Mapping[str, str]] | None:
    """Return what a method's stages measure that a rung may use; None: the method does not say.

    Kept here and not with the stages: it decides nothing about what a body makes.
    """
    known = METHODS.get(method.name) is method
    return _RUNG_METRICS.get(method.name) if known else None
