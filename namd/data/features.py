"""The vector f of nodule attributes that latent distances are compared with (NAMD Eq 3)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.data.schema import CODES, NODULE_FEATURES

Normalisation = Literal["standardised", "raw"]
SIZES = ("SCT_LONG_DIA", "SCT_PERP_DIA")
CATEGORIES = ("SCT_PRE_ATT", "SCT_EPI_LOC", "SCT_MARGINS")


@dataclass(frozen=True)
class NoduleFeatures:
    """How the five nodule features of a case become a vector.

    `standardised` [ours]: both diameters less the train mean over the train deviation, then each
    categorical feature one-hot over its NLST codes divided by sqrt(2), so that two different
    codes are one unit apart and one code is none. `raw` [the released code]: the five codes and
    millimetres as they are.

    Attributes:
        normalisation: Which of the two.
        mean_mm: Of the two diameters over the fitted cases.
        std_mm: Likewise (ddof 0); 1 where all fitted diameters are equal.
    """

    normalisation: Normalisation
    mean_mm: tuple[float, float] = (0.0, 0.0)
    std_mm: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.normalisation not in ("standardised", "raw"):
            raise ValueError(
                f"normalisation must be standardised or raw, got {self.normalisation!r}"
            )

    @classmethod
    def fit(
        cls, table: pd.DataFrame, normalisation: Normalisation = "standardised"
    ) -> "NoduleFeatures":
        """Measure mean and deviation on the train split's table; missing values are skipped.

        Raises:
            ValueError: there is not one diameter to standardise by.
        """
        if normalisation == "raw":
            return cls(normalisation)
        sizes = _numbers(table, SIZES)
        known = np.isfinite(sizes).sum(axis=0)
        if not known.all():
            raise ValueError(f"no case has a {SIZES[int(known.argmin())]} to standardise by")
        mean, std = np.nanmean(sizes, axis=0), np.nanstd(sizes, axis=0)
        std = np.where(std > 0, std, 1.0)
        return cls(normalisation, (float(mean[0]), float(mean[1])), (float(std[0]), float(std[1])))

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of the vector is."""
        if self.normalisation == "raw":
            return NODULE_FEATURES
        return SIZES + tuple(
            f"{name}={code}" for name in CATEGORIES for code in sorted(CODES[name])
        )

    def transform(
        self, table: pd.DataFrame
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the vectors (N, F) and whether each is complete (N,).

        A case with a missing or unknown feature is not complete and its vector is zeros: it is
        left out of the loss, not imputed.
        """
        values = _numbers(table, NODULE_FEATURES)
        complete = np.asarray(np.isfinite(values).all(axis=1), dtype=bool)
        if self.normalisation == "standardised":
            sizes = (_numbers(table, SIZES) - self.mean_mm) / self.std_mm
            blocks = [_one_hot(table, name) for name in CATEGORIES]
            complete &= np.all([block.any(axis=1) for block in blocks], axis=0)
            values = np.concatenate([sizes, *(block / np.sqrt(2.0) for block in blocks)], axis=1)
        return np.where(complete[:, None], values, 0.0).astype(np.float32), complete

    def to_mapping(self) -> dict[str, Any]:
        """Return what `from_mapping` takes, of plain JSON types."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "NoduleFeatures":
        """Rebuild from `to_mapping`."""
        mean, std = mapping["mean_mm"], mapping["std_mm"]
        return cls(
            mapping["normalisation"],
            (float(mean[0]), float(mean[1])),
            (float(std[0]), float(std[1])),
        )


def _numbers(table: pd.DataFrame, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return table[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)


def _one_hot(table: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    codes = _numbers(table, (name,))
    return codes == np.array(sorted(CODES[name]), dtype=np.float64)
