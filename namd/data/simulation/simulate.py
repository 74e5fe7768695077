"""From a cohort of baselines to a cohort with records, labels and follow-ups of known truth."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from namd.config.errors import InputError
from namd.config.parsing import to_mapping
from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.simulation import brock, record
from namd.data.simulation.change import Change, Nodule, draw, follow_mask, render
from namd.data.simulation.contour import diameters, outline
from namd.data.simulation.settings import SimulationSettings
from namd.statistics.ranking import auroc

Progress = Callable[[int, int], None]

NOMINAL_MONTHS = 12.0
SIMULATED = (
    "label",
    "months",
    "age",
    "gender",
    "diagemph",
    *record.FAMILY,
    "SCT_EPI_LOC",
    "followup",
    "followup_SCT_LONG_DIA",
    "followup_SCT_PERP_DIA",
)


def simulate(
    cohort: Cohort, settings: SimulationSettings, seed: int, progress: Progress | None = None
) -> Cohort:
    """Give every nodule `settings.replicates` fresh records, labels and follow-ups.

    Labels and follow-ups that the cohort has are replaced. A replicate keeps its patient_id (and
    so its split and its place in patient bootstraps) and its lesion_id; its case_id ends in
    `-r0`, `-r1`, ... A draw depends on the seed and the case's own ids alone; only the
    intercept, solved for the prevalence, depends on which cases there are.

    Args:
        cohort: Baselines with masks; `source_side` (R, L) and `source_z_frac` place the lobe
            where they are given.
        settings: The law.
        seed: Of all the simulation's draws.
        progress: Called with (cases done, cases in all).

    Raises:
        InputError: A case has no mask, or no diameters: a nodule whose border is unknown cannot
            be grown.
    """
    _require_nodules(cohort)
    repeated = np.tile(np.arange(len(cohort)), settings.replicates)
    replicate = np.repeat(np.arange(settings.replicates), len(cohort))
    table = cohort.table.iloc[repeated].reset_index(drop=True)
    table["case_id"] = [
        f"{case}-r{number}" for case, number in zip(table["case_id"], replicate, strict=True)
    ]
    table, intercept = _draw_truth(table, replicate, settings, seed)
    nodules = list(read_nodules(cohort, range(len(cohort))))
    followup = np.empty((len(table), *cohort.baseline.shape[1:]), dtype=np.int16)
    columns: list[dict[str, float]] = []
    cases, labels, months = (table[name].to_numpy() for name in ("case_id", "label", "months"))
    for row, source in enumerate(repeated):
        nodule = dataclasses.replace(nodules[source], months=float(months[row]))
        rng = generator("simulated-followup", seed, str(cases[row]))
        change = draw(settings, nodule, int(labels[row]), rng)
        followup[row] = render(settings, nodule, change, rng)
        columns.append(_columns(nodule, change))
        if progress is not None:
            progress(row + 1, len(table))
    drawn = pd.DataFrame(columns)
    for name in ("SCT_LONG_DIA", "SCT_PERP_DIA"):
        drawn[f"followup_{name}"] = table[name].astype(float) * drawn[f"followup_{name}"]
    table = pd.concat([table.drop(columns=drawn.columns, errors="ignore"), drawn], axis=1)
    simulated = Cohort(
        table=table,
        baseline=cohort.baseline[repeated],
        followup=followup,
        has_followup=np.ones(len(table), dtype=bool),
        mask=cohort.stacks["mask"][repeated],
    )
    simulated.card = _card(cohort, simulated.table, settings, seed, intercept)
    return simulated


def read_nodules(cohort: Cohort, index: Iterable[int] | NDArray[np.integer]) -> Iterator[Nodule]:
    """Yield what drawing and rendering may know of cases. Their labels are not read."""
    spacing, months, attenuation = (
        cohort.table[name].to_numpy() for name in ("spacing_mm", "months", "SCT_PRE_ATT")
    )
    for row in index:
        mask = cohort.stacks["mask"][row]
        yield Nodule(
            baseline=cohort.baseline[row],
            mask=mask,
            outline=outline(mask),
            spacing_mm=float(spacing[row]),
            attenuation=int(np.nan_to_num(attenuation[row])),
            months=float(np.nan_to_num(months[row], nan=NOMINAL_MONTHS)),
        )


def _require_nodules(cohort: Cohort) -> None:
    empty = ~cohort.stacks["mask"].any(axis=(1, 2))
    if empty.any():
        case = cohort.table["case_id"].iloc[int(np.flatnonzero(empty)[0])]
        raise InputError(
            f"{int(empty.sum())} cases have no nodule mask (first: {case}): a follow-up is "
            "simulated by growing the nodule inside its contour; leave these cases out"
        )
    sizes = cohort.table[["SCT_LONG_DIA", "SCT_PERP_DIA"]].to_numpy(dtype=float, na_value=np.nan)
    unsized = ~(np.isfinite(sizes) & (sizes > 0)).all(axis=1)
    if unsized.any():
        case = cohort.table["case_id"].iloc[int(np.flatnonzero(unsized)[0])]
        raise InputError(
            f"{int(unsized.sum())} cases lack SCT_LONG_DIA or SCT_PERP_DIA (first: {case}): "
            "Brock's model needs both; leave these cases out"
        )


def _draw_truth(
    table: pd.DataFrame,
    replicate: NDArray[np.intp],
    settings: SimulationSettings,
    seed: int,
) -> tuple[pd.DataFrame, float]:
    """Add records, lobes, months, p and labels; return the solved intercept too."""
    table = table.copy()
    number = pd.Series(replicate, index=table.index)
    drawn = record.draw_records(settings.record, seed, table["patient_id"], number)
    for name in drawn:
        table[name] = drawn[name]
    lobe = _lobes(table, seed)
    missing = [record.lobe_is_missing(settings.record, seed, case) for case in table["case_id"]]
    table["SCT_EPI_LOC"] = np.where(missing, np.nan, lobe)
    image = brock.image_logit(
        *(
            table[name].to_numpy(dtype=float, na_value=np.nan)
            for name in ("SCT_LONG_DIA", "SCT_PERP_DIA", "SCT_PRE_ATT", "SCT_MARGINS")
        )
    )
    family = drawn[list(record.FAMILY)].sum(axis=1).to_numpy()
    known = brock.record_logit(
        drawn["age"].to_numpy(),
        drawn["gender"].to_numpy(),
        family,
        drawn["diagemph"].to_numpy(),
        lobe,
    )
    logit = settings.image_factor * image + settings.record_factor * known
    intercept = brock.solve_intercept(logit, settings.prevalence)
    uniform, months = _draw_label_and_months(table["case_id"], settings, seed)
    probability = expit(intercept + logit)
    table["months"] = months.astype(np.float32)
    table["label"] = (uniform < probability).astype(int)
    for name, values in {
        "sim_replicate": replicate,
        "sim_lobe": lobe,
        "sim_image_logit": image,
        "sim_record_logit": known,
        "sim_p": probability,
        "sim_label_uniform": uniform,
    }.items():
        table[name] = np.asarray(values, dtype="float32")
    return table, intercept


def _lobes(table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
    blank = [None] * len(table)
    sides = table.get("source_side", blank)
    heights = table.get("source_z_frac", blank)
    places = zip(table["case_id"], sides, heights, strict=True)
    return np.array([record.draw_lobe(seed, str(case), *place) for case, *place in places])


def _draw_label_and_months(
    cases: pd.Series, settings: SimulationSettings, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    uniform, months = np.empty(len(cases)), np.empty(len(cases))
    for row, case in enumerate(cases):
        rng = generator("simulated-label", seed, str(case))
        uniform[row] = rng.random()
        months[row] = NOMINAL_MONTHS + settings.scan.months_sd * np.clip(
            rng.standard_normal(), -2.5, 2.5
        )
    return uniform, months


def _columns(nodule: Nodule, change: Change) -> dict[str, float]:
    """The drawn change, and by how much the mask's own diameters changed.

    Reader and mask measure a little differently; the reader's diameter times the mask's ratio
    keeps both scans on the reader's scale.
    """
    columns = {f"sim_{name}": value for name, value in dataclasses.asdict(change).items()}
    grown = follow_mask(nodule, change)
    after = diameters(grown, nodule.spacing_mm) if grown.any() else (0.0, 0.0)
    before = diameters(nodule.mask, nodule.spacing_mm)
    columns["followup_SCT_LONG_DIA"] = after[0] / before[0]
    columns["followup_SCT_PERP_DIA"] = after[1] / before[1]
    return columns


def _card(
    cohort: Cohort, table: pd.DataFrame, settings: SimulationSettings, seed: int, intercept: float
) -> dict[str, Any]:
    return {
        **cohort.card,
        "simulation": {
            "seed": seed,
            "settings": to_mapping(settings),
            "intercept": intercept,
            "simulated": list(SIMULATED),
            "replaced_label": bool(cohort.table["label"].notna().any()),
            "ideal_auroc": ideal_auroc(table),
        },
    }


def ideal_auroc(table: pd.DataFrame) -> dict[str, float | None]:
    """AUROC of the true p per split, the best any reader of baseline and record can do.

    None for a split that holds one label alone.
    """
    ceilings: dict[str, float | None] = {}
    for split, cases in table.groupby("split"):
        labels = cases["label"].to_numpy(dtype=int)
        both = 0 < labels.sum() < len(labels)
        ceilings[str(split)] = auroc(labels, cases["sim_p"].to_numpy()) if both else None
    return ceilings
