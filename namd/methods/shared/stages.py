"""Declarations of the stages that methods share: autoencoder, judge, draws, scores, rows.

Two methods that declare one of these with the same settings share its artifact.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from namd.data.schema import EHR_FEATURES, FOLLOWUP_DIAMETERS, NODULE_FEATURES
from namd.evaluate.settings import IDEAL, EvaluateSettings
from namd.methods.base import CohortSlice, DrawerCode, Stage
from namd.methods.shared.settings import MethodConfig
from namd.models.settings import TrunkSettings
from namd.models.weights import locate

BODIES = "namd.methods.shared"
CROPS = ("case_id", "patient_id", "baseline", "followup")
TRUNKS = ("evaluate.lpips", "evaluate.fid")
LPIPS_TRUNK, INCEPTION_TRUNK = "trunks.lpips_alex", "trunks.inception"
SUBSET = ("evaluate.num_cases", "evaluate.minimum_malignant")
CHOSEN_BY = ("case_id", "patient_id", "label")
"""Columns by which `draws.evaluation_cases` chooses the subset."""
TRUTH = ("case_id", "patient_id", "label", "followup", "baseline", "spacing_mm")
JUDGE = "judge"
"""Name of the stage whose model judges images of every method alike."""

LAW = ("mask", "months", "sim_p", "card.simulation", *NODULE_FEATURES)


_Config = TypeVar("_Config", bound=MethodConfig)


def resolved(config: _Config) -> _Config:
    """Replace every `auto` of the shared sections by what this machine will do."""
    precision = "fp32" if config.precision == "auto" else config.precision
    evaluate = resolve_evaluation(config.evaluate, config.trunks)
    return replace(config, precision=precision, evaluate=evaluate)


def resolve_evaluation(evaluate: EvaluateSettings, trunks: TrunkSettings) -> EvaluateSettings:
    """Replace every `auto` by what this machine has the weights for."""
    lpips, fid = evaluate.lpips, evaluate.fid
    if lpips == "auto":
        lpips = "off" if locate("lpips-alex", trunks.lpips_alex) is None else "alex"
    if fid == "auto":
        fid = "off" if locate("inception", trunks.inception) is None else "inception"
    return replace(evaluate, lpips=lpips, fid=fid)


def trunk_paths(evaluate: EvaluateSettings) -> tuple[str, ...]:
    """Return the configuration paths of the trunks that scoring reads; none if all is off."""
    lpips = (LPIPS_TRUNK,) if evaluate.lpips == "alex" else ()
    return (*lpips, INCEPTION_TRUNK) if evaluate.fid == "inception" else lpips


def autoencoder_stages(config: Any) -> list[Stage]:  # noqa: ANN401 - any method's configuration
    """Return the autoencoder with all that it needs, and the latents of every training pair.

    The configuration has sections `vae`, `features`, `image`, `latents`, `perceptual` and `trunks`.
    """
    perceptual = bool(config.vae.perceptual.weight) and config.perceptual.source != "lpips"
    lpips = bool(config.vae.perceptual.weight) and not perceptual
    trunk = ("trunks.lpips_vgg",) if lpips else ()
    features = (*NODULE_FEATURES, *FOLLOWUP_DIAMETERS, "label")
    vae = Stage(
        family="vae",
        code_version=1,
        role="train",
        body=f"{BODIES}.vae:run",
        reads=(
            "vae",
            "features",
            "image",
            "precision",
            "perceptual.source",
            "perceptual.channels",
            *trunk,
        ),
        upstream=("perceptual",) if perceptual else (),
        cohort=CohortSlice((*CROPS, *features), ("train", "validation")),
        seeds=("train_seed",),
        weights=("vae.architecture.weights", *trunk),
    )
    latents = Stage(
        family="latents",
        code_version=1,
        role="map",
        body=f"{BODIES}.latents:run",
        reads=("image", "precision", "latents"),
        upstream=("vae",),
        cohort=CohortSlice(CROPS, ("train", "validation")),
    )
    return [*([perceptual_stage()] if perceptual else []), vae, latents]


def perceptual_stage() -> Stage:
    """Return the small encoder, trained without labels, that stands in for LPIPS's trunk."""
    return Stage(
        family="perceptual",
        code_version=1,
        role="train",
        body=f"{BODIES}.perceptual:run",
        reads=("perceptual", "image.size", "precision"),
        cohort=CohortSlice(CROPS, ("train",)),
    )


def judge_stage() -> Stage:
    """Return the judge: one for all methods and training seeds, with a seed of its own."""
    return Stage(
        family=JUDGE,
        code_version=1,
        role="train",
        body=f"{BODIES}.judge:run",
        reads=("judge", "image", "precision"),
        cohort=CohortSlice((*CROPS, "label"), ("train", "validation")),
    )


def draw_stages(
    evaluate: EvaluateSettings,
    *,
    drawer: DrawerCode,
    reads: tuple[str, ...],
    upstream: tuple[str, ...],
    columns: tuple[str, ...],
    weights: tuple[str, ...] = (),
    seeds: tuple[str, ...] = ("draw_seed",),
    stochastic: bool = True,
    packages: Mapping[str, str] | None = None,
) -> list[Stage]:
    """Return the draws of the evaluated split, then their scores: one stage each per draw index.

    Unless `evaluate.copies` is off, their distances to the train crops come last. A draw never
    depends on their number. A method whose draws do not differ has one.

    Args:
        evaluate: Which split and cases, and how many draws.
        drawer: The method's own model.
        reads: Configuration paths of that model.
        upstream: Stages whose artifacts it reads.
        columns: Of the cohort, besides those by which cases are chosen.
        weights: Configuration paths that name external weights.
        seeds: Configuration paths of the seeds that draws depend on.
        stochastic: Whether draws differ.
        packages: As a stage states them.
    """
    indices = range(evaluate.num_draws if stochastic else 1)
    draws = [
        Stage(
            family="draws",
            code_version=3,
            role="draw",
            body=f"{BODIES}.draws:run",
            reads=(*reads, *SUBSET),
            upstream=upstream,
            cohort=CohortSlice(tuple(dict.fromkeys((*columns, *CHOSEN_BY))), (evaluate.split,)),
            seeds=seeds,
            weights=weights,
            split=evaluate.split,
            index=index,
            drawer=drawer,
            packages=packages or {},
        )
        for index in indices
    ]
    copies = _copies_stages(evaluate, indices) if evaluate.copies else []
    return [*draws, *_score_stages(evaluate, indices), *copies]


def _score_stages(evaluate: EvaluateSettings, indices: range) -> list[Stage]:
    """Return one stage per draw: the judge's probabilities and image metrics."""
    split = evaluate.split
    return [
        Stage(
            family="scores",
            code_version=2,
            role="score",
            body=f"{BODIES}.scores:run",
            reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
            weights=trunk_paths(evaluate),
            upstream=(f"draws-{split}", JUDGE),
            cohort=CohortSlice(TRUTH, (split,)),
            split=split,
            index=index,
            values={"scored": f"draws-{split}"},
        )
        for index in indices
    ]


def _copies_stages(evaluate: EvaluateSettings, indices: range) -> list[Stage]:
    """Return the train crops with the real images' distances to them, then one stage per draw."""
    split = evaluate.split
    train = Stage(
        family="train_crops",
        code_version=1,
        role="copies",
        body=f"{BODIES}.copies:run_real",
        reads=("image", *SUBSET),
        cohort=CohortSlice((*CROPS, "label"), tuple(dict.fromkeys(("train", split)))),
        split=split,
    )
    draws = [
        Stage(
            family="copies",
            code_version=1,
            role="copies",
            body=f"{BODIES}.copies:run",
            reads=SUBSET,
            upstream=(f"draws-{split}", train.name),
            cohort=CohortSlice(CHOSEN_BY, (split,)),
            split=split,
            index=index,
            values={"scored": f"draws-{split}", "train_crops": train.name},
        )
        for index in indices
    ]
    return [train, *draws]


def reference_stages(evaluate: EvaluateSettings) -> list[Stage]:
    """Return the judge, the rows without a model, and the ideal sampler's draws, one an index."""
    split = evaluate.split
    reference = _rows("reference", (JUDGE,), evaluate)
    columns = (*TRUTH, *EHR_FEATURES, "sim_p")
    reference = replace(reference, cohort=CohortSlice(columns, ("train", split)))
    ideal = replace(
        _rows("ideal", (JUDGE,), evaluate),
        cohort=CohortSlice((*TRUTH, *LAW), (split,)),
        seeds=("evaluate.ideal_seed",),
        row=IDEAL,
    )
    redraws = (replace(ideal, index=index) for index in range(evaluate.num_draws))
    return [judge_stage(), reference, *redraws]


def further_judges(evaluate: EvaluateSettings, *, vae: bool = False) -> list[Stage]:
    """Return, for each further judge's seed, the judge and its scores of every image.

    `vae`: the method has an autoencoder, whose reconstructions are scored too.
    """
    return [stage for seed in evaluate.judge_seeds for stage in _further_judge(evaluate, seed, vae)]


def _further_judge(evaluate: EvaluateSettings, seed: int, vae: bool) -> list[Stage]:
    split, judge = evaluate.split, replace(judge_stage(), family=f"judge-{seed}")
    rejudged = Stage(
        family=f"rejudged-{seed}",
        code_version=1,
        role="rejudge",
        body=f"{BODIES}.rejudged:run",
        reads=("image", "precision", *SUBSET, "evaluate.num_draws"),
        upstream=(f"draws-{split}", judge.family, *(("vae",) if vae else ())),
        cohort=CohortSlice((*TRUTH, *LAW), (split,)),
        seeds=("evaluate.ideal_seed",),
        split=split,
        values={"judge": judge.family, "scored": f"draws-{split}"},
    )
    return [replace(judge, values={"seed": seed}), rejudged]


def reconstruction_stage(evaluate: EvaluateSettings) -> Stage:
    """Return the row of real follow-ups through the VAE: what the autoencoder alone costs."""
    stage = _rows("reconstruction", ("vae", JUDGE), evaluate)
    return replace(stage, row="reconstruction")


def _rows(family: str, upstream: tuple[str, ...], evaluate: EvaluateSettings) -> Stage:
    """Return a stage that scores images which no method drew."""
    return Stage(
        family=family,
        code_version=1,
        role="reference",
        body=f"{BODIES}.{family}:run",
        reads=("image", "precision", *SUBSET, *TRUNKS, *trunk_paths(evaluate)),
        weights=trunk_paths(evaluate),
        upstream=upstream,
        cohort=CohortSlice(TRUTH, (evaluate.split,)),
        split=evaluate.split,
    )
