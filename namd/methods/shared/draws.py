"""Stage `draws`: one artifact per draw index; the model comes from the method."""

import importlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from namd.data.cohort import Cohort
from namd.data.splits import evaluation_subset
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.sample.draws import Drawer, draw


def evaluation_cases(context: StageContext) -> Cohort:
    """Return the cases of the split under evaluation, cut to the stated subset by patient hash."""
    settings = context.settings.evaluate
    split = str(context.values["split"])
    cohort = read_split(context.cohort, split)
    index = evaluation_subset(cohort.table, split, settings.num_cases, settings.minimum_malignant)
    return cohort.select(index)


def run(context: StageContext) -> Iterator[Step]:
    """Draw the missing indices of the evaluation cases.

    Writes, per index, `images.safetensors` (float16, (N, H, W) in [-1, 1]) and `cases.parquet`.
    """
    module, _, attribute = str(context.values["drawer"]).partition(":")
    cohort = evaluation_cases(context)
    drawer: Drawer = getattr(importlib.import_module(module), attribute)(context, cohort)
    indices = sorted(index for index in context.outputs if index is not None)
    total = len(indices)
    for number, index in enumerate(indices):
        images = draw(drawer, index)
        _write(context, index, images, cohort.table["case_id"].to_numpy())
        yield Step(number + 1, total, {}, finished=index)


def _write(context: StageContext, index: int, images: torch.Tensor, case_ids: np.ndarray) -> None:
    folder = context.outputs[index]
    save_file({"images": images[:, 0].half().contiguous()}, folder / "images.safetensors")
    pd.DataFrame({"case_id": case_ids}).to_parquet(folder / "cases.parquet")
