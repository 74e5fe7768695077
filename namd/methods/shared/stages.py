"""The stages that every method shares: the judge, rows without training, draws and their scores."""

from dataclasses import replace

from namd.data.schema import EHR_FEATURES, NODULE_FEATURES
from namd.evaluate.settings import EvaluateSettings
from namd.methods.base import CohortSlice, Stage
from namd.models.settings import TrunkSettings
from namd.models.weights import locate

BODIES = "namd.methods.stages"
CROPS = ("case_id", "patient_id", "baseline", "followup")
TRUNKS = ("evaluate.lpips", "evaluate.fid")
LPIPS_TRUNK, INCEPTION_TRUNK = "trunks.lpips_alex", "trunks.inception"
SUBSET = ("evaluate.num_cases", "evaluate.minimum_malignant")
TRUTH = ("case_id", "patient_id", "label", "followup", "baseline", "spacing_mm")
LAW = ("mask", "months", "sim_p", "card.simulation", *NODULE_FEATURES)


def resolve_evaluation(evaluate: EvaluateSettings, trunks: TrunkSettings) -> EvaluateSettings:
    """Replace every `auto` by what this machine has the weights for."""
    lpips, fid = evaluate.lpips, evaluate.fid
    if lpips == "auto":
        lpips = "off" if locate("lpips-alex", trunks.lpips_alex) is None else "alex"
    if fid == "auto":
        fid = "off" if locate("inception", trunks.inception) is None else "inception"
    return replace(evaluate, lpips=lpips, fid=fid)


def trunk_paths(evaluate: EvaluateSettings) -> tuple[str, ...]:
    """Return the configuration paths of the trunks that scoring reads; none where all is off."""
    lpips = (LPIPS_TRUNK,) if evaluate.lpips == "alex" else ()
    return (*lpips, INCEPTION_TRUNK) if evaluate.fid == "inception" else lpips


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
            code_version=3,
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
            code_version=2,
            kind="mapping",
            body=f"{BODIES}.scores:run",
            reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
            weights=trunk_paths(evaluate),
            upstream=(f"draws-{split}", "judge"),
            cohort=CohortSlice(TRUTH, (split,)),
            index=index,
            values={"split": split},
        )
        for index in range(evaluate.num_draws)
    ]


def reference_stages(evaluate: EvaluateSettings) -> list[Stage]:
    """Return the rows without training, and one redraw of the ideal sampler per draw index."""
    split = evaluate.split
    reference = Stage(
        name=f"reference-{split}",
        code_version=1,
        kind="mapping",
        body=f"{BODIES}.reference:run",
        reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
        weights=trunk_paths(evaluate),
        upstream=("judge",),
        cohort=CohortSlice((*TRUTH, *EHR_FEATURES, "sim_p"), ("train", split)),
        values={"split": split},
    )
    ideal = [
        Stage(
            name=f"ideal-{split}",
            code_version=1,
            kind="mapping",
            body=f"{BODIES}.ideal:run",
            reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
            weights=trunk_paths(evaluate),
            upstream=("judge",),
            cohort=CohortSlice((*TRUTH, *LAW), (split,)),
            seeds=("evaluate.ideal_seed",),
            index=index,
            values={"split": split},
        )
        for index in range(evaluate.num_draws)
    ]
    return [reference, *ideal]


def reconstruction_stage(evaluate: EvaluateSettings) -> Stage:
    """Return the row of real follow-ups through the VAE: what the autoencoder alone costs."""
    split = evaluate.split
    return Stage(
        name=f"reconstruction-{split}",
        code_version=1,
        kind="mapping",
        body=f"{BODIES}.reconstruction:run",
        reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
        weights=trunk_paths(evaluate),
        upstream=("vae", "judge"),
        cohort=CohortSlice(TRUTH, (split,)),
        values={"split": split},
    )
