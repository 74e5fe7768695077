"""The methods that exist, as one explicit table: it does not depend on what was imported."""

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
