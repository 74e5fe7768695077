"""Stages `train_crops` and `copies`: how near images come to crops of the train split.

`train_crops-<split>` holds the features of every train crop and the distances of the real images
of the evaluated split, which are the same for every method; `copies-<split>` holds those of the
draws, one artifact per draw.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import angles_for, centre_cut, rotated_crops
from namd.evaluate.copies import DISTANCES_FILE, crop_features, nearest
from namd.evaluate.scores import DRAWN
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.draws import evaluation_cases
from namd.storage.stage_names import label_of

FEATURES_FILE, TRAIN_FILE = "features.safetensors", "train.parquet"
TIMES = ("baseline", "followup")


class TrainCrops:
    """The features of all train crops, at each angle at which a model may have seen them.

    Attributes:
        features: (R, D).
        table: case_id, patient_id, time and angle of each, (R,).
    """

    def __init__(self, features: torch.Tensor, table: pd.DataFrame) -> None:
        self.features, self.table = features, table

    @classmethod
    def of(cls, context: StageContext) -> "TrainCrops":
        """Return those of the train split, of both time points."""
        cohort, image = read_split(context.cohort, "train"), context.settings.image
        features, tables = [], []
        for angle in angles_for(cohort.baseline.shape[-1], image.size, image.rotations):
            for time in TIMES:
                cases = cohort if time == "baseline" else _with_followup(cohort)
                if not len(cases):
                    continue
                crops = rotated_crops(np.asarray(cases.stacks[time]), angle, image.size)
                features.append(crop_features(crops))
                table = pd.DataFrame(cases.table[["case_id", "patient_id"]])
                tables.append(table.assign(time=time, angle=angle))
        return cls(torch.cat(features), pd.concat(tables, ignore_index=True))

    def save(self, folder: Path) -> None:
        """Write both."""
        save_file({"features": self.features.contiguous()}, folder / FEATURES_FILE)
        self.table.to_parquet(folder / TRAIN_FILE, index=False)

    @classmethod
    def load(cls, folder: Path) -> "TrainCrops":
        """Undo `save`."""
        features = load_tensors(folder / FEATURES_FILE)["features"]
        return cls(features, pd.read_parquet(folder / TRAIN_FILE))

    def distances(self, row: str, k: int, images: np.ndarray, cases: pd.DataFrame) -> pd.DataFrame:
        """Return each image's distance, and which train crop is the nearest.

        Args:
            row: Of the table.
            k: Draw index.
            images: In [-1, 1], (N, H, W).
            cases: case_id and patient_id of each.
        """
        distance, place = nearest(
            torch.from_numpy(np.ascontiguousarray(images, np.float32)),
            self.features,
            cases["patient_id"].to_numpy(str),
            self.table["patient_id"].to_numpy(str),
        )
        found = self.table.iloc[np.maximum(place, 0)].reset_index(drop=True)
        return pd.DataFrame(
            {
                "row": row,
                "case_id": cases["case_id"].to_numpy(),
                "k": k,
                "distance": distance,
                "train_case": found["case_id"].where(place >= 0),
                "train_time": found["time"].where(place >= 0),
                "angle": found["angle"],
            }
        )


def run_real(context: StageContext) -> Iterator[Step]:
    """Describe the train crops and measure real images of the evaluated cases against them."""
    train, cohort = TrainCrops.of(context), evaluation_cases(context)
    train.save(context.out)
    paired, size = _with_followup(cohort), context.settings.image.size
    baseline, followup = (
        train.distances(row, 0, to_unit(centre_cut(np.asarray(stack), size)), cases.table)
        for row, stack, cases in (
            ("real_baseline", cohort.baseline, cohort),
            ("real_followup", paired.followup, paired),
        )
    )
    frame = pd.concat([baseline, followup], ignore_index=True)
    frame.to_parquet(context.out / DISTANCES_FILE, index=False)
    yield Step(1, 1, {"train_crops": float(len(train.table))})


def run(context: StageContext) -> Iterator[Step]:
    """Measure each draw index that is asked for.

    Reads `draws-<split>[k]` and `train_crops-<split>`; writes `copies.parquet` per index.
    """
    train = TrainCrops.load(context.inputs[str(context.values["train_crops"])])
    cases = evaluation_cases(context).table
    indices = sorted(index for index in context.outputs if index is not None)
    for number, index in enumerate(indices):
        folder = context.inputs[label_of(str(context.values["scored"]), index)]
        drawn = pd.read_parquet(folder / "cases.parquet")["case_id"].to_numpy()
        if not np.array_equal(drawn, cases["case_id"].to_numpy()):
            raise RuntimeError(f"draw {index} holds other cases than the evaluated subset")
        images = load_file(folder / "images.safetensors")["images"]
        frame = train.distances(DRAWN, index, images, cases)
        frame.to_parquet(context.outputs[index] / DISTANCES_FILE, index=False)
        distance = float(frame["distance"].mean())
        yield Step(number + 1, len(indices), {"nearest_train": distance}, finished=index)


def _with_followup(cohort: Cohort) -> Cohort:
    return cohort.select(np.flatnonzero(np.asarray(cohort.has_followup)))
