"""The methods that exist, as one explicit table: it does not depend on what was imported."""

from types import MappingProxyType

from namd.methods.base import Method
from namd.methods.namd.method import METHOD as NAMD

DEFAULT_METHOD = "namd"
"""The method of a configuration that names none."""

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "namd": NAMD,
    }
)
