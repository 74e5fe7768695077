"""The stages that every method shares: the judge, rows without training, draws and their scores."""

from namd.data.schema import EHR_FEATURES, FOLLOWUP_DIAMETERS
from namd.evaluate.settings import EvaluateSettings
from namd.methods.base import CohortSlice, Stage

BODIES = "namd.methods.stages"
CROPS = ("case_id", "patient_id", "baseline", "followup")
SUBSET = ("evaluate.num_cases", "evaluate.minimum_malignant")
TRUTH = ("case_id", "patient_id", "label", "followup", "baseline", "spacing_mm")


def judge_stage() -> Stage:
    """Return the judge: one for all methods and training seeds, with a seed of its own."""
    return Stage(
        name="judge",
        code_version=1,
        kind="training",
        body=f"{BODIES}.judge:run",
        reads=("judge", "image", "precision"),
        cohort=CohortSlice((*CROPS, "label"), ("train", "validation")),
    )


def draw_stages(
    evaluate: EvaluateSettings,
    *,
    drawer: str,
    reads: tuple[str, ...],
    upstream: tuple[str, ...],
    columns: tuple[str, ...],
    weights: tuple[str, ...] = (),
) -> list[Stage]:
    """Return one stage per draw of the evaluated split; a draw never depends on their number."""
    split = evaluate.split
    return [
        Stage(
            name=f"draws-{split}",
            code_version=1,
            kind="mapping",
            body=f"{BODIES}.draws:run",
            reads=(*reads, *SUBSET),
            upstream=upstream,
            cohort=CohortSlice(columns, (split,)),
            seeds=("draw_seed",),
            weights=weights,
            index=index,
            values={"split": split, "drawer": drawer},
        )
        for index in range(evaluate.num_draws)
    ]


def score_stages(evaluate: EvaluateSettings) -> list[Stage]:
    """Return one stage per draw: the judge's probabilities and image metrics."""
    split = evaluate.split
    return [
        Stage(
            name=f"scores-{split}",
            code_version=1,
            kind="mapping",
            body=f"{BODIES}.scores:run",
            reads=("image", *SUBSET),
            upstream=(f"draws-{split}", "judge"),
            cohort=CohortSlice(TRUTH, (split,)),
            index=index,
            values={"split": split},
        )
        for index in range(evaluate.num_draws)
    ]
