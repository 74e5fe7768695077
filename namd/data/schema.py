"""The columns of a cohort, their types, codes and limits belong here.

Nothing is read or checked here, and importing it costs nothing: pyarrow is met in functions only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1

SPLITS = ("train", "validation", "test")
IDENTIFIERS = ("case_id", "patient_id", "lesion_id", "source")
TENSORS = ("baseline", "followup", "mask")
IMAGES = ("baseline", "followup")

NODULE_FEATURES = ("SCT_PRE_ATT", "SCT_EPI_LOC", "SCT_LONG_DIA", "SCT_PERP_DIA", "SCT_MARGINS")
FAMILY_FEATURES = ("famfather", "fammother", "fambrother", "famsister", "famchild")
PATIENT_FEATURES = ("age", "diagemph", "gender", *FAMILY_FEATURES)
EHR_FEATURES = NODULE_FEATURES + PATIENT_FEATURES
FOLLOWUP_DIAMETERS = ("followup_SCT_LONG_DIA", "followup_SCT_PERP_DIA")
SIMULATED_PREFIX = "sim_"
EVERYTHING = "*"
"""Among the columns that a reader declares: every column there is, whatever its name."""
SOURCE_PREFIX = "source_"
"""Columns of an in-memory table that a source hands to the simulation; never written."""

BENIGN, MALIGNANT = 0, 1
MALE, FEMALE = 1, 2

ATTENUATION = MappingProxyType(
    {1: "soft tissue", 2: "ground glass", 3: "part solid", 4: "fluid", 6: "fat", 7: "other"}
)
"""SCT_PRE_ATT. NLST calls 3 `Mixed`; the paper calls it `Part Solid`."""

LOCATION = MappingProxyType(
    {
        1: "right upper lobe",
        2: "right middle lobe",
        3: "right lower lobe",
        4: "left upper lobe",
        5: "lingula",
        6: "left lower lobe",
        8: "other",
    }
)
"""SCT_EPI_LOC."""

MARGINS = MappingProxyType({1: "spiculated", 2: "smooth", 3: "poorly defined"})
"""SCT_MARGINS."""

YES_NO = MappingProxyType({0: "no", 1: "yes"})

CODES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "SCT_PRE_ATT": ATTENUATION,
        "SCT_EPI_LOC": LOCATION,
        "SCT_MARGINS": MARGINS,
        "gender": MappingProxyType({MALE: "male", FEMALE: "female"}),
        "diagemph": YES_NO,
        **dict.fromkeys(FAMILY_FEATURES, YES_NO),
        "label": MappingProxyType({BENIGN: "benign", MALIGNANT: "malignant"}),
    }
)
"""Every code that a column may hold. NLST's `unable to determine` (9) is written as missing."""

UNDETERMINED_CODE = 9
"""NLST's word for a value that was looked at and not found; ingestion writes it as missing."""


@dataclass(frozen=True)
class Limits:
    """What a stored value may be; outside it the cohort is refused.

    HU limits are those of 12-bit CT. The others catch units gone wrong (cm for mm, days for
    months), not unusual patients.
    """

    hu: tuple[int, int] = (-1024, 3071)
    diameter_mm: tuple[float, float] = (0.5, 200.0)
    spacing_mm: tuple[float, float] = (0.05, 5.0)
    months: tuple[float, float] = (0.0, 240.0)
    age: tuple[float, float] = (0.0, 120.0)

    def of(self, column: str) -> tuple[float, float] | None:
        """The limits of a numeric column; None where it has none."""
        if column.endswith("_DIA"):
            return self.diameter_mm
        return {
            "spacing_mm": self.spacing_mm,
            "months": self.months,
            "age": self.age,
        }.get(column)


LIMITS = Limits()

_STRING, _FLOAT = "string", "float32"
COLUMN_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "case_id": _STRING,
        "patient_id": _STRING,
        "lesion_id": _STRING,
        "source": _STRING,
        "split": _STRING,
        "label": "int8",
        "months": _FLOAT,
        "spacing_mm": _FLOAT,
        "SCT_PRE_ATT": "int16",
        "SCT_EPI_LOC": "int16",
        "SCT_MARGINS": "int16",
        "SCT_LONG_DIA": _FLOAT,
        "SCT_PERP_DIA": _FLOAT,
        "age": _FLOAT,
        "gender": "int8",
        "diagemph": "int8",
        **dict.fromkeys(FAMILY_FEATURES, "int8"),
        "followup_SCT_LONG_DIA": _FLOAT,
        "followup_SCT_PERP_DIA": _FLOAT,
    }
)
"""Stored type of every scalar column, in order; `sim_*` columns are float32 and come after."""

TENSOR_TYPES: Mapping[str, str] = MappingProxyType(
    {"baseline": "int16", "followup": "int16", "mask": "uint8"}
)

REQUIRED = (*IDENTIFIERS, "split", "spacing_mm")
"""Scalar columns that hold a value in every row; all others may be missing."""


def scalar_type(column: str) -> str | None:
    """Return the stored type of a scalar column, or None where the schema does not know it."""
    if column.startswith(SIMULATED_PREFIX):
        return _FLOAT
    return COLUMN_TYPES.get(column)


def arrow_schema(size: int, simulated: tuple[str, ...] = ()) -> "pa.Schema":
    """Return the schema of `cases.parquet` for crops of `size` pixels a side.

    Args:
        size: Height and width of the stored crops, in pixels.
        simulated: The `sim_*` columns, which differ between simulations.
    """
    import pyarrow as pa

    scalars = [
        pa.field(name, pa.type_for_alias(alias), nullable=name not in REQUIRED)
        for name, alias in COLUMN_TYPES.items()
    ]
    tensors = [
        pa.field(
            name,
            pa.fixed_shape_tensor(pa.type_for_alias(alias), (size, size)),
            nullable=name != "baseline",
        )
        for name, alias in TENSOR_TYPES.items()
    ]
    draws = [pa.field(name, pa.float32()) for name in simulated]
    return pa.schema(
        [*scalars, *tensors, *draws], metadata={"namd_schema_version": str(SCHEMA_VERSION)}
    )
