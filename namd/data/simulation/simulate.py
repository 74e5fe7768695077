"""From a cohort of baselines to a cohort with records, labels and follow-ups of known truth."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import psutil
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from namd.config.errors import InputError
from namd.config.parsing import to_mapping
from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.simulation import brock, record
from namd.data.simulation.change import Change, Nodule, draw, follow_mask, render
from namd.data.simulation.contour import diameters, outline
from namd.data.simulation.known import Known, find_known, require_possible
from namd.data.simulation.settings import SimulationSettings
from namd.statistics.ranking import auroc

Progress = Callable[[int, int], None]

NOMINAL_MONTHS = 12.0


def simulate(
    cohort: Cohort,
    settings: SimulationSettings,
    seed: int,
    progress: Progress | None = None,
    *,
    replace: Collection[str] = (),
) -> Cohort:
    """Give every nodule `settings.replicates` fresh records, labels and follow-ups.

    What the cohort knows is kept, and only what it lacks is drawn; the card counts both. A cohort
    that lacks nothing is returned itself. A replicate keeps its patient_id (and so its split and
    its place in patient bootstraps) and its lesion_id; its case_id ends in `-r0`, `-r1`, ... A
    case with a follow-up of its own enters once. A draw depends on the seed and the case's own
    ids alone; only the intercept, solved for the prevalence, depends on which cases there are.

    Args:
        cohort: Baselines with masks; `source_side` (R, L) and `source_z_frac` place the lobe
            where they are given.
        settings: The law.
        seed: Of all the simulation's draws.
        progress: Called with (cases done, cases in all).
        replace: Names of `namd.data.simulation.known.SIMULATED` that are drawn although they are
            known.

    Raises:
        InputError: A case has no mask, or no diameters: a nodule whose border is unknown cannot
            be grown. Or what is kept is impossible or contradicts what would be drawn.
    """
    known = find_known(cohort, replace)
    if not known.drawn:
        cohort.card = {**cohort.card, "values": known.counts}
        return cohort
    _require_nodules(cohort.select(~known.followed))
    require_possible(cohort, replace)
    _require_memory(cohort, settings.replicates)
    repeated = np.tile(np.arange(len(cohort)), settings.replicates)
    replicate = np.repeat(np.arange(settings.replicates), len(cohort))
    enters = (replicate == 0) | ~known.followed[repeated]
    repeated, replicate = repeated[enters], replicate[enters]
    table = cohort.table.iloc[repeated].reset_index(drop=True)
    table["case_id"] = [
        f"{case}-r{number}" for case, number in zip(table["case_id"], replicate, strict=True)
    ]
    kept = Known(
        {name: values[repeated] for name, values in known.values.items()},
        known.followed[repeated],
        known.counts,
    )
    table, intercept = _draw_truth(table, replicate, kept, settings, seed)
    table, followup = _draw_followups(cohort, table, repeated, kept, settings, seed, progress)
    simulated = Cohort(
        table=table,
        baseline=cohort.baseline[repeated],
        followup=followup,
        has_followup=np.ones(len(table), dtype=bool),
        mask=cohort.stacks["mask"][repeated],
    )
    simulated.card = _card(cohort, simulated.table, settings, seed, intercept, known)
    return simulated


def _draw_followups(
    cohort: Cohort,
    table: pd.DataFrame,
    repeated: NDArray[np.intp],
    kept: Known,
    settings: SimulationSettings,
    seed: int,
    progress: Progress | None,
) -> tuple[pd.DataFrame, NDArray[np.int16]]:
    """Return the table with what was drawn, and a follow-up of every case: its own or a drawn one.

    Args:
        cohort: The source.
        table: A row per case that is made.
        repeated: The source's row of each.
        kept: What each of them keeps.
        settings: The law.
        seed: Of the draws.
        progress: Called with (cases done, cases in all).
    """
    unfollowed = np.flatnonzero(~kept.followed)
    sources = np.unique(repeated[unfollowed])
    nodules = dict(zip(sources.tolist(), read_nodules(cohort, sources), strict=True))
    followup = cohort.stacks["followup"][repeated].astype(np.int16)
    columns: list[dict[str, float]] = [{} for _ in repeated]
    cases, labels, months = (table[name].to_numpy() for name in ("case_id", "label", "months"))
    for row, source in enumerate(repeated.tolist()):
        if not kept.followed[row]:
            nodule = dataclasses.replace(nodules[source], months=float(months[row]))
            rng = generator("simulated-followup", seed, str(cases[row]))
            change = draw(settings, nodule, int(labels[row]), rng)
            followup[row] = render(settings, nodule, change, rng)
            columns[row] = _columns(nodule, change)
        if progress is not None:
            progress(row + 1, len(table))
    if not len(unfollowed):
        return table, followup
    drawn = pd.DataFrame(columns)
    for name in ("SCT_LONG_DIA", "SCT_PERP_DIA"):
        measured = table[name].astype(float) * drawn[f"followup_{name}"]
        own = kept.values[f"followup_{name}"]
        drawn[f"followup_{name}"] = np.where(kept.followed, own, measured)
    return pd.concat([table.drop(columns=drawn.columns, errors="ignore"), drawn], axis=1), followup


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


def _require_memory(cohort: Cohort, replicates: int) -> None:
    needed = replicates * sum(stack.nbytes for stack in cohort.stacks.values())
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"replicates {replicates}: {needed / 2**30:.1f} GiB of crops, and {free / 2**30:.1f} "
            "GiB of memory are free; ask for fewer"
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
    kept: Known,
    settings: SimulationSettings,
    seed: int,
) -> tuple[pd.DataFrame, float | None]:
    """Add records, lobes, months, p and labels where nothing is kept; return the intercept too.

    The intercept is solved over the labels that are drawn; None if there are none. `sim_p` is the
    truth and so is there only if every label is drawn from it.
    """
    table = table.copy()
    number = pd.Series(replicate, index=table.index)
    drawn = record.draw_records(settings.record, seed, table["patient_id"], number)
    for name in drawn:
        table[name] = _filled(kept.values[name], drawn[name])
    lobe = _filled(kept.values["SCT_EPI_LOC"], _lobes(table, seed))
    left_out = [record.lobe_is_missing(settings.record, seed, case) for case in table["case_id"]]
    missing = np.isnan(kept.values["SCT_EPI_LOC"]) & left_out
    table["SCT_EPI_LOC"] = np.where(missing, np.nan, lobe)
    image, known = _logits(table, lobe)
    logit = settings.image_factor * image + settings.record_factor * known
    drawn_label = np.isnan(kept.values["label"]) & ~kept.followed
    intercept, probability = None, np.full(len(table), np.nan)
    uniform, months = _draw_label_and_months(table["case_id"], settings, seed)
    if drawn_label.any():
        intercept = brock.solve_intercept(logit[drawn_label], settings.prevalence)
        probability[drawn_label] = expit(intercept + logit[drawn_label])
    own_months = kept.values["months"]
    table["months"] = np.where(
        kept.followed, own_months, _filled(own_months, months.astype(np.float32))
    )
    table["label"] = np.where(drawn_label, uniform < probability, kept.values["label"])
    uniform[~drawn_label] = np.nan
    truth = {
        "sim_replicate": replicate,
        "sim_lobe": lobe,
        "sim_image_logit": image,
        "sim_record_logit": known,
        "sim_p": probability,
        "sim_label_uniform": uniform,
    }
    if not drawn_label.all():
        del truth["sim_p"]
    for name, values in truth.items():
        table[name] = np.asarray(values, dtype="float32")
    return table, intercept


def _logits(
    table: pd.DataFrame, lobe: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Brock's log-odds of what the scan shows, and of the record."""

    def column(name: str) -> NDArray[np.float64]:
        return table[name].to_numpy(dtype=float, na_value=np.nan)

    image = brock.image_logit(
        *(column(n) for n in ("SCT_LONG_DIA", "SCT_PERP_DIA", "SCT_PRE_ATT", "SCT_MARGINS"))
    )
    family = np.sum([column(name) for name in record.FAMILY], axis=0)
    known = brock.record_logit(column("age"), column("gender"), family, column("diagemph"), lobe)
    return image, known


def _filled(kept: NDArray[np.float64], drawn: ArrayLike) -> NDArray[np.float64]:
    """Return what is kept, and what was drawn where nothing is."""
    return np.where(np.isnan(kept), np.asarray(drawn, dtype=np.float64), kept)


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
    cohort: Cohort,
    table: pd.DataFrame,
    settings: SimulationSettings,
    seed: int,
    intercept: float | None,
    known: Known,
) -> dict[str, Any]:
    return {
        **cohort.card,
        "values": known.counts,
        "simulation": {
            "seed": seed,
            "settings": to_mapping(settings),
            "intercept": intercept,
            "simulated": known.drawn,
            "replaced_label": known.counts["label"]["replaced"] > 0,
            "ideal_auroc": ideal_auroc(table) if "sim_p" in table else None,
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
