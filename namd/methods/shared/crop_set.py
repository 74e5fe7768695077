"""Both time points of a cohort's splits as single crops with attributes and labels, in memory.

Training the VAE, the judge and the perceptual encoder reads crops one by one; pairs are read
through the `latents` artifact instead.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.features import NoduleFeatures
from namd.data.intensity import to_unit
from namd.data.missing import filled_as_released
from namd.data.rotation import angles_for, rotated_crops, unhonoured
from namd.methods.declared import DeclaredCohort
from namd.methods.shared.settings import ImageSettings

FOLLOWUP_DIAMETERS = ("SCT_LONG_DIA", "SCT_PERP_DIA")


@dataclass(frozen=True)
class CropBatch:
    """Crops with what is known of them; NaN marks what is not.

    Attributes:
        images: In [-1, 1].
        features: Attribute vectors; rows with a missing attribute hold zeros.
        complete: Whether a row of `features` is whole.
        labels: 1 malignant, 0 benign, NaN unknown.
    """

    images: Float[Tensor, "B 1 H W"]
    features: Float[Tensor, "B F"]
    complete: Float[Tensor, " B"]
    labels: Float[Tensor, " B"]


class CropSet:
    """All crops of one split at every rotation angle the cohort allows.

    Args:
        cohort: The split's cases.
        image: Size and rotations.
        features: Makes attribute vectors; None: they are not read, and have no columns.
        labelled: Whether labels are read; all are unknown if not.
        filled: Whether missing attributes have the released code's values in the features.
    """

    def __init__(
        self,
        cohort: Cohort,
        image: ImageSettings,
        features: NoduleFeatures | None,
        labelled: bool = True,
        *,
        filled: bool = False,
    ) -> None:
        has = np.flatnonzero(np.asarray(cohort.has_followup))
        stored = np.concatenate([cohort.baseline, np.asarray(cohort.followup)[has]])
        cases = np.concatenate([np.arange(len(cohort)), has])
        self.unhonoured = unhonoured(stored.shape[-1], image.size, image.rotations)
        self.angles = angles_for(stored.shape[-1], image.size, image.rotations)
        self.hu = np.stack([rotated_crops(stored, angle, image.size) for angle in self.angles])
        self.case_ids = cohort.table["case_id"].to_numpy()[cases]
        self.labels = np.full(len(cases), np.nan, np.float32)
        if labelled:
            labels = cohort.table["label"].astype("float32").to_numpy(na_value=np.nan)
            self.labels = labels[cases]
        self.features = np.zeros((len(cases), 0), np.float32)
        self.complete = np.zeros(len(cases), bool)
        if features is not None:
            tables = [cohort.table, followup_table(cohort.table.iloc[has])]
            table = pd.concat(tables, ignore_index=True)
            known = filled_as_released(table) if filled else table
            values, self.complete = features.transform(known)
            self.features = np.where(self.complete[:, None], values, 0).astype(np.float32)

    def __len__(self) -> int:
        return len(self.case_ids)

    def batch(
        self, index: np.ndarray, turn: np.ndarray | None = None, device: str = "cpu"
    ) -> CropBatch:
        """Return crops by number; `turn` picks an angle for each, by default none is turned."""
        chosen = np.zeros(len(index), int) if turn is None else turn
        images = torch.from_numpy(to_unit(self.hu[chosen, index]))[:, None]
        return CropBatch(
            images.to(device),
            torch.from_numpy(self.features[index]).to(device),
            torch.from_numpy(self.complete[index].astype(np.float32)).to(device),
            torch.from_numpy(self.labels[index]).to(device),
        )

    def turns(self, purpose: str, seed: int, step: int, count: int) -> np.ndarray:
        """Return a random angle number for each of `count` crops of a step."""
        return generator("rotation", purpose, seed, step).integers(len(self.angles), size=count)


def followup_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the attributes of follow-up crops: the baseline's, with diameters measured anew.

    A follow-up without a diameter of its own keeps a missing one, and so stays out of L_align.
    """
    later = table.copy()
    for name in FOLLOWUP_DIAMETERS:
        later[name] = table.get(f"followup_{name}", np.nan)
    return later


def read_split(cohort: DeclaredCohort, split: str) -> Cohort:
    """Return what a stage may see of the cases of one split.

    Raises InputError if it is empty, UndeclaredError if the stage does not declare it.
    """
    cases = cohort.read(split)
    if not len(cases):
        raise InputError(f"{cohort}: no case in split {split}; build the cohort with more patients")
    return cases


def read_pairs(cohort: DeclaredCohort, split: str) -> Cohort:
    """Return the cases of one split that have a follow-up, as `read_split` does."""
    cases = read_split(cohort, split)
    return cases.select(np.flatnonzero(np.asarray(cases.has_followup)))
