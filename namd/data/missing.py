"""What a method may put for a value that a record lacks. By itself nothing here is ever applied."""

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from namd.data.schema import FAMILY_FEATURES

RELEASED: Mapping[str, int] = MappingProxyType(
    {"SCT_MARGINS": 3, **dict.fromkeys(FAMILY_FEATURES, 0)}
)
"""NAMD's released code: a margin that is missing is poorly defined, a relative had no cancer."""


def filled_as_released(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the released code's values where these features are missing."""
    return table.fillna({name: value for name, value in RELEASED.items() if name in table})
