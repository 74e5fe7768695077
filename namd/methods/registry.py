"""The methods that exist, as one explicit table: it does not depend on what was imported.

A configuration that names no method means the first.
"""

from types import MappingProxyType

from namd.methods.base import Method
from namd.methods.namd.method import METHOD as NAMD

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "namd": NAMD,
    }
)
