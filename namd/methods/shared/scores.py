"""Stage `scores-<split>`: the judge's probability and the image metrics, one artifact per draw."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.evaluate.scores import Scorer, save_scores
from namd.methods.base import StageContext, Step
from namd.methods.shared.draws import evaluation_cases
from namd.methods.shared.stages import JUDGE
from namd.models.judge import load_judge
from namd.storage.stage_names import label_of


def run(context: StageContext) -> Iterator[Step]:
    """Score each draw index that is asked for.

    Reads `draws-<split>[k]` (images.safetensors, cases.parquet) and `judge`; writes, per index,
    `scores.parquet` and `sets.json`.
    """
    cohort = evaluation_cases(context)
    scorer = make_scorer(context, cohort)
    indices = sorted(index for index in context.outputs if index is not None)
    for number, index in enumerate(indices):
        folder = context.inputs[label_of(str(context.values["scored"]), index)]
        images = load_file(folder / "images.safetensors")["images"]
        drawn = pd.read_parquet(folder / "cases.parquet")["case_id"].to_numpy()
        if not np.array_equal(drawn, scorer.case_ids):
            raise RuntimeError(f"draw {index} holds other cases than the evaluated subset")
        frame, sets = scorer.score(images.astype(np.float32), index)
        save_scores(context.outputs[index], frame, [sets])
        metrics = {"mean_probability": float(frame["probability"].mean())}
        yield Step(number + 1, len(indices), metrics, finished=index)


def make_scorer(context: StageContext, cohort: Cohort) -> Scorer:
    """Return the scorer of these cases under the context's judge and evaluation settings."""
    size = context.settings.image.size
    settings = context.settings.evaluate
    # A stage that needs no trunk does not declare its place.
    lpips = context.settings.trunks.lpips_alex if settings.lpips == "alex" else None
    inception = context.settings.trunks.inception if settings.fid == "inception" else None
    return Scorer(
        load_judge(context.inputs[JUDGE], context.world.device),
        cohort.table["case_id"].to_numpy(),
        to_unit(centre_cut(np.asarray(cohort.followup), size)),
        np.asarray(cohort.has_followup),
        cohort.table["spacing_mm"].to_numpy(float),
        lpips=settings.lpips,
        fid=settings.fid,
        lpips_trunk=lpips,
        inception_trunk=inception,
        device=context.world.device,
    )
