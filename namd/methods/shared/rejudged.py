"""Stage `rejudged-<seed>-<split>`: a further judge scores every image that the first one scored.

Only its scores are of use: image metrics and diameters do not depend on a judge.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.data.simulation.ideal import redraw
from namd.evaluate.scores import DRAWN, SCORES_FILE, judged
from namd.methods.base import StageContext, Step
from namd.methods.shared.draws import evaluation_cases
from namd.methods.shared.reconstruction import reconstructed
from namd.models.judge import load_judge
from namd.models.vae import load_vae
from namd.storage.stage_names import label_of


def run(context: StageContext) -> Iterator[Step]:
    """Score real images, draws, reconstructions and the ideal sampler's images.

    Reads the further judge, `draws-<split>` and, if the method has one, `vae`; writes
    `scores.parquet` with columns row, case_id, k, score. What has no image has no score here.
    """
    cohort = evaluation_cases(context)
    judge = load_judge(context.inputs[str(context.values["judge"])], context.world.device)
    frames = [
        pd.DataFrame(
            {
                "row": row,
                "case_id": cohort.table["case_id"].to_numpy(),
                "k": k,
                "score": torch.sigmoid(
                    judged(judge, torch.from_numpy(images)[:, None], context.world.device)[0]
                ).numpy(),
            }
        )
        for row, k, images in _images(context, cohort)
    ]
    frame = pd.concat(frames, ignore_index=True)
    absent = cohort.table["case_id"][~np.asarray(cohort.has_followup)]
    of_followups = frame["row"].isin(("real_followup", "reconstruction"))
    frame.loc[of_followups & frame["case_id"].isin(absent), "score"] = np.nan
    frame.to_parquet(context.out / SCORES_FILE, index=False)
    yield Step(1, 1, {})


def _images(context: StageContext, cohort: Cohort) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield row, draw index and images in [-1, 1], in the order of the cases."""
    size, settings = context.settings.image.size, context.settings
    followup = to_unit(centre_cut(np.asarray(cohort.followup), size))
    baseline = to_unit(centre_cut(cohort.baseline, size))
    yield "real_baseline", 0, baseline
    yield "copied_baseline", 0, baseline
    yield "real_followup", 0, followup
    inputs = dict(context.inputs)
    if "vae" in inputs:
        vae = load_vae(inputs["vae"])[0].to(context.world.device)
        images = reconstructed(vae, followup, settings.precision, context.world.device)
        yield "reconstruction", 0, images
    for k in range(settings.evaluate.num_draws):
        label = label_of(str(context.values["scored"]), k)
        if label in inputs:
            drawn = pd.read_parquet(inputs[label] / "cases.parquet")["case_id"].to_numpy()
            if not np.array_equal(drawn, cohort.table["case_id"].to_numpy()):
                raise RuntimeError(f"draw {k} holds other cases than the evaluated subset")
            images = load_file(inputs[label] / "images.safetensors")["images"]
            yield DRAWN, k, images.astype(np.float32)
    if cohort.card.get("simulation") and "sim_p" in cohort.table:
        for k in range(settings.evaluate.num_draws):
            images = redraw(cohort, np.arange(len(cohort)), settings.evaluate.ideal_seed, k)
            yield "ideal_sampler", k, to_unit(centre_cut(images, size))
