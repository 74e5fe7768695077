"""Stage `ideal-<split>`: the ideal sampler's draws, scored like any method's, one artifact each."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.data.simulation.ideal import redraw
from namd.evaluate.scores import COLUMNS, save_scores
from namd.methods.base import StageContext, Step
from namd.methods.shared.draws import evaluation_cases
from namd.methods.shared.scores import make_scorer


def run(context: StageContext) -> Iterator[Step]:
    """Redraw and score each index that is asked for.

    A cohort that is not simulated has no ideal sampler: its score frames are empty.
    """
    cohort = evaluation_cases(context)
    indices = sorted(index for index in context.outputs if index is not None)
    simulated = bool(cohort.card.get("simulation")) and "sim_p" in cohort.table
    scorer = make_scorer(context, cohort) if simulated else None
    size, seed = context.settings.image.size, context.settings.evaluate.ideal_seed
    for number, index in enumerate(indices):
        if scorer is None:
            save_scores(context.outputs[index], pd.DataFrame(columns=list(COLUMNS)), [])
        else:
            images = redraw(cohort, np.arange(len(cohort)), seed, index)
            frame, sets = scorer.score(to_unit(centre_cut(images, size)), index)
            save_scores(context.outputs[index], frame, [sets])
        yield Step(number + 1, len(indices), {}, finished=index)
