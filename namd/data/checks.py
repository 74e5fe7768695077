"""What must hold of a cohort before anything is trained on it; each failure is one line with ids.

Checks only look: what to do about a problem is the caller's to decide.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from namd.config.errors import InputError
from namd.data import schema
from namd.data.cohort import Cohort, cohort_fingerprint, read_card, read_cases, read_schema
from namd.data.features import SIZES
from namd.data.identity import alike, nearly_alike, shown
from namd.data.settings import CohortDemands

SHOWN_IDS = 10
MORE = "more patients, another --seed or another split column are needed"

LEAVE_FOLLOWUPS = (
    "give the months between the scans, or leave these follow-ups out (has_followup 0, or "
    "--simulate-followup --replace followup)"
)

MIN_MEDIAN_MM = 3.0
"""Nodules are 4 mm and more in screening; in cm they are 0.4 to 3, where masses begin."""
MIN_DIAMETER_MM = 2.0
MIN_MEDIAN_RATIO = 0.2
"""Half the cases cannot be five times as long as wide, or grow or shrink so; cm make it ten."""


class RefusedCohortError(InputError):
    """A cohort that must not be used.

    Attributes:
        problems: One line each.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        super().__init__(f"cohort refused: {problems[0]}{more}")


def require_sound(cohort: Cohort) -> None:
    """Raise RefusedCohortError if `find_problems` finds any."""
    problems = find_problems(cohort)
    if problems:
        raise RefusedCohortError(problems)


def require_trainable(folder: str | Path, demands: CohortDemands | None = None) -> None:
    """Refuse what would spoil a run in silence or stop it late.

    Leaks, splits that lack something, cases that are not those of the card. `check_folder` looks
    at everything but what a configuration demands.

    Raises:
        InputError: there is no cohort, or it must not be trained on, or not as demanded.
    """
    stored = read_schema(folder)
    problems = schema_problems(stored)
    demanded: list[str] = []
    if not problems:
        read = ["case_id", "patient_id", "lesion_id", "split", "label", *SIZES, "followup"]
        cases = read_cases(Path(folder), read)
        table = cases.drop_columns(["followup"]).to_pandas()
        present = cases["followup"].is_valid().to_numpy()
        problems = [
            *_content_problems(folder, stored),
            *_split_problems(table),
            *_usability_problems(table, present),
        ]
        demanded = list(_unmet(demands or CohortDemands(), stored, table))
    if problems:
        raise InputError(
            f"{folder}: {problems[0]}; nothing was started, `namd cohort check {folder}` lists "
            "every problem"
        )
    if demanded:
        raise InputError(f"{folder}: {demanded[0]}; nothing was started")


def check_folder(folder: str | Path) -> tuple[Cohort | None, list[str]]:
    """Read a cohort and return it with its problems; None where its columns forbid reading.

    Raises:
        InputError: there is no cohort.
    """
    structure = schema_problems(read_schema(folder))
    if structure:
        return None, structure
    try:
        cohort = Cohort.read(folder)
    except InputError as error:
        return None, [str(error)]
    problems = find_problems(cohort) or usability_problems(cohort)
    try:
        return cohort, [*problems, *_content_problems(folder, read_schema(folder))]
    except InputError as error:
        return cohort, [*problems, str(error)]


def _content_problems(folder: str | Path, stored: pa.Schema) -> list[str]:
    """Return that the cases are not those that the card was written for, if so."""
    written = read_card(folder).get("fingerprint")
    content = cohort_fingerprint(folder, stored.names)
    if written == content:
        return []
    return [
        f"fingerprint: the card says {str(written)[:12]}, the cases have {content[:12]}; "
        "they were changed after the cohort was built"
    ]


def schema_problems(stored: pa.Schema) -> list[str]:
    """Return what is wrong with the columns of a file: unknown, missing, of another type."""
    problems = []
    for field in stored:
        known = schema.scalar_type(field.name) or schema.TENSOR_TYPES.get(field.name)
        if known is None:
            problems.append(f"column {field.name}: unknown to the schema")
        elif field.name in schema.TENSORS:
            problems += _tensor_problems(field, known)
        elif field.type not in (pa.type_for_alias(known), pa.large_string()):
            problems.append(f"column {field.name}: is {field.type}, must be {known}")
    expected = (*schema.COLUMN_TYPES, *schema.TENSORS)
    doubled = [name for name, count in Counter(stored.names).items() if count > 1]
    problems += [f"column {name}: is there more than once" for name in doubled]
    problems += [f"column {name}: missing" for name in expected if name not in stored.names]
    if problems:
        return problems
    shapes = {name: tuple(stored.field(name).type.shape) for name in schema.TENSORS}
    problems += [
        f"columns baseline and {name}: different shapes"
        for name in schema.TENSORS
        if shapes[name] != shapes["baseline"]
    ]
    return problems


def find_problems(cohort: Cohort) -> list[str]:
    """Return every problem of a cohort's cases, one line each with the ids of such cases."""
    if not len(cohort):
        return ["no case at all"]
    return [
        *_identifier_problems(cohort.table),
        *_leakage_problems(cohort),
        *_value_problems(cohort),
        *_image_problems(cohort),
    ]


def usability_problems(cohort: Cohort) -> list[str]:
    """Return why nothing can be trained or scored on a sound cohort, one line per split.

    Every split is read by a run: models train on the first, the judge also needs both classes
    there and in validation to stop by, and test without either class has no AUROC. Follow-ups are
    what is learned, stopped by and compared with.
    """
    return _usability_problems(cohort.table, _present(cohort, "followup"))


def _usability_problems(table: pd.DataFrame, followed: npt.NDArray[np.bool_]) -> list[str]:
    labels, splits = table["label"], table["split"]
    problems = []
    for split in schema.SPLITS:
        inside = labels[splits == split]
        if not len(inside):
            problems.append(f"split {split}: no case; {MORE}")
            continue
        absent = [
            name for code, name in schema.CODES["label"].items() if not (inside == code).any()
        ]
        if absent:
            problems.append(
                f"split {split}: no {' and no '.join(absent)} case among {len(inside)}; {MORE}"
            )
    return [*problems, *_followup_problems(splits, followed)]


def _unmet(demands: CohortDemands, stored: pa.Schema, table: pd.DataFrame) -> Iterable[str]:
    size = stored.field("baseline").type.shape[0]
    if size < demands.image_size:
        yield (
            f"stored crops of {size} pixels are smaller than image.size {demands.image_size}; "
            "set image.size and judge.architecture.image_size to what is stored, or build the "
            "cohort with larger crops"
        )
    elif size < demands.stored_size:
        yield (
            f"stored crops of {size} pixels have no room to turn images of {demands.image_size} by "
            f"45 degrees, which image.rotations asks for; set image.rotations to quarter, or build "
            f"the cohort with crops of {demands.stored_size} pixels or more (--size)"
        )
    inside = table[table["split"] == "train"]
    for name in SIZES:
        if demands.diameters and not np.isfinite(inside[name].to_numpy(np.float64)).any():
            yield (
                f"split train: no case has a {name}, which features.normalisation=standardised "
                "needs; give the diameters, or set features.normalisation=raw"
            )


def _tensor_problems(field: pa.Field, known: str) -> list[str]:
    kind = field.type
    if not isinstance(kind, pa.FixedShapeTensorType) or kind.value_type != pa.type_for_alias(known):
        return [f"column {field.name}: is {kind}, must be a fixed-shape tensor of {known}"]
    if len(kind.shape) != 2 or kind.shape[0] != kind.shape[1]:
        return [f"column {field.name}: has shape {tuple(kind.shape)}, crops are square"]
    return []


def _identifier_problems(table: pd.DataFrame) -> Iterable[str]:
    for name in schema.REQUIRED:
        empty = table[name].isna() | (table[name].astype(str) == "")
        yield from _line(f"{name} is missing in", table["case_id"][empty])
    doubled = table["case_id"][table["case_id"].duplicated()]
    yield from _line("case_id is not unique:", doubled.unique())
    foreign = ~table["split"].isin(schema.SPLITS)
    yield from _line(f"split is none of {', '.join(schema.SPLITS)} in", table["case_id"][foreign])
    if table["spacing_mm"].nunique() > 1:
        rare = table["spacing_mm"] != table["spacing_mm"].mode().iloc[0]
        yield from _line("spacing_mm differs from the other cases' in", table["case_id"][rare])


def _leakage_problems(cohort: Cohort) -> Iterable[str]:
    table = cohort.table
    yield from _split_problems(table)
    for name in schema.IMAGES:
        present = _present(cohort, name)
        rows = np.flatnonzero(present)
        digests = [hashlib.sha256(cohort.stacks[name][row].tobytes()).hexdigest() for row in rows]
        groups = table.iloc[rows].groupby(pd.Series(digests, index=rows))
        leaks = groups.filter(
            lambda cases: cases["split"].nunique() > 1 and cases["patient_id"].nunique() > 1
        )
        yield from _line(f"the same {name} crop in more than one split:", leaks["case_id"])


def _split_problems(table: pd.DataFrame) -> Iterable[str]:
    for name, word in (("patient_id", "patient"), ("lesion_id", "lesion")):
        splits = table.groupby(name, dropna=True)["split"].nunique()
        for line in _line(f"{word} in more than one split:", splits.index[splits > 1]):
            yield f"{line}; splits go by patient_id, so give all cases of a {word} the same"
    pairs = [shown(ids) for ids, apart in _spelled_alike(table) if apart]
    for line in _line("maybe one patient under two spellings in more than one split:", pairs):
        yield (
            f"{line}; write one spelling, or ids that differ by more than their spelling if they "
            "are two patients"
        )


def spelling_warnings(table: pd.DataFrame) -> list[str]:
    """Return which patients may be one under two spellings.

    Within one split nothing leaks, but intervals count them as two. Ids that differ in separators
    alone (`P-11`, `P1-1`) are two patients in many schemes, so they are no more than a warning in
    two splits either.
    """
    pairs = [shown(ids) for ids, apart in _spelled_alike(table) if not apart]
    lines = _line("maybe one patient under two spellings:", pairs)
    known = table[table["patient_id"].notna()]
    nearly: dict[bool, list[str]] = {False: [], True: []}
    for ids in nearly_alike(known["patient_id"].astype(str)):
        splits = known["split"][known["patient_id"].isin(ids)]
        nearly[splits.nunique() > 1].append(shown(ids))
    for apart, named in nearly.items():
        place = " in more than one split" if apart else ""
        lines += _line(f"maybe one patient with other separators{place}:", named)
    return [f"{line}; they count as two patients" for line in lines]


def mask_warnings(cohort: Cohort) -> list[str]:
    """Return which cases lack the mask that others have."""
    marked = cohort.stacks["mask"].any(axis=(1, 2))
    if not marked.any():
        return []
    return _line("no pixel is marked as nodule in the mask of", cohort.table["case_id"][~marked])


def _spelled_alike(table: pd.DataFrame) -> Iterable[tuple[tuple[str, ...], bool]]:
    """Yield patients that differ in spelling alone, and whether they lie in more than one split."""
    known = table[table["patient_id"].notna()]
    for ids in alike(known["patient_id"].astype(str)):
        yield ids, known["split"][known["patient_id"].isin(ids)].nunique() > 1


def _followup_problems(splits: pd.Series, present: npt.NDArray[np.bool_]) -> Iterable[str]:
    for split in schema.SPLITS:
        inside = (splits == split).to_numpy()
        if inside.any() and not present[inside].any():
            yield (
                f"split {split}: no follow-up among {inside.sum()} cases; give `followup_hu`, or "
                "build the cohort with --simulate-followup"
            )


def value_problems(table: pd.DataFrame, card: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is impossible about the values of a table, one line each."""
    for name, codes in schema.CODES.items():
        wrong = table[name].notna() & ~table[name].isin(list(codes))
        values = ", ".join(f"{value:g}" for value in sorted(table[name][wrong].unique())[:5])
        known = ", ".join(str(code) for code in codes)
        yield from _line(
            f"{name} {values} is none of {known} or missing in", table["case_id"][wrong]
        )
    for name in schema.COLUMN_TYPES:
        limits = schema.LIMITS.of(name)
        if limits is None:
            continue
        low, high = limits
        wrong = table[name].notna() & ~table[name].between(low, high)
        yield from _line(f"{name} is not within {low:g}...{high:g} in", table["case_id"][wrong])
    yield from _diameter_problems(table, card)


def _diameter_problems(table: pd.DataFrame, card: Mapping[str, Any]) -> Iterable[str]:
    """Yield diameters that contradict each other or are no millimetres.

    Those of a simulated follow-up are each measured along its own axis and may change places.
    """
    drawn = (card.get("simulation") or {}).get("simulated", ())
    pairs = [pair for pair in (SIZES, schema.FOLLOWUP_DIAMETERS) if pair[0] not in drawn]
    for longest, perpendicular in pairs:
        wrong = table[perpendicular] > table[longest]
        yield from _line(f"{perpendicular} is above {longest} in", table["case_id"][wrong])
        yield from _unit_problems(table, longest)
        yield from _ratio_problems(table, perpendicular, longest)
    if len(pairs) > 1:
        yield from _ratio_problems(table, schema.FOLLOWUP_DIAMETERS[0], SIZES[0])


def _unit_problems(table: pd.DataFrame, longest: str) -> Iterable[str]:
    known = table[longest].dropna()
    if len(known) and known.median() < MIN_MEDIAN_MM:
        yield f"{longest} has a median of {known.median():.2g}, which cannot be mm; give mm, not cm"
        return
    small = table[longest] < MIN_DIAMETER_MM
    yield from _line(
        f"{longest} is below {MIN_DIAMETER_MM:g} mm, which no scan resolves (cm?) in",
        table["case_id"][small],
    )


def _ratio_problems(table: pd.DataFrame, one: str, other: str) -> Iterable[str]:
    """Yield that two columns of diameters are in different units, such as mm and cm."""
    ratio = (table[one] / table[other]).median()
    if ratio < MIN_MEDIAN_RATIO or ratio > 1 / MIN_MEDIAN_RATIO:
        yield f"{one} is {ratio:.2g} times {other} in the median; give both in mm"


def _value_problems(cohort: Cohort) -> Iterable[str]:
    table = cohort.table
    yield from value_problems(table, cohort.card)
    for name in cohort.simulated_columns:
        infinite = np.isinf(table[name].to_numpy())
        yield from _line(f"{name} is infinite in", table["case_id"][infinite])
    yield from month_problems(table, _present(cohort, "followup"))


def month_problems(table: pd.DataFrame, followed: npt.NDArray[np.bool_]) -> Iterable[str]:
    """Yield which follow-ups lie at no time after their baseline."""
    timeless = followed & table["months"].isna().to_numpy()
    for line in _line("months is missing beside a follow-up in", table["case_id"][timeless]):
        yield f"{line}; {LEAVE_FOLLOWUPS}"
    same_day = followed & (table["months"] == 0).to_numpy()
    for line in _line("months is 0 beside a follow-up in", table["case_id"][same_day]):
        yield f"{line}; a scan of the same day is no follow-up; {LEAVE_FOLLOWUPS}"


def _image_problems(cohort: Cohort) -> Iterable[str]:
    low, high = schema.LIMITS.hu
    ids = cohort.table["case_id"]
    for name in schema.IMAGES:
        stack = cohort.stacks[name]
        present = _present(cohort, name)
        least, most = stack.min(axis=(1, 2)), stack.max(axis=(1, 2))
        yield from _line(
            f"{name} is not within {low}...{high} HU in",
            ids[present & ((least < low) | (most > high))],
        )
        yield from _line(f"{name} is blank in", ids[present & (least == most)])
    wrong = cohort.stacks["mask"].max(axis=(1, 2)) > 1
    yield from _line("mask holds other values than 0 and 1 in", ids[wrong])


def _present(cohort: Cohort, name: str) -> npt.NDArray[np.bool_]:
    """Return which cases hold an image of this name."""
    if name == "followup" and cohort.has_followup is not None:
        return cohort.has_followup
    return np.ones(len(cohort), dtype=bool)


def _line(problem: str, ids: Iterable[object]) -> list[str]:
    """Return the problem with its ids as one line, or nothing where there are no ids."""
    named = [str(value) for value in ids]
    if not named:
        return []
    more = f" and {len(named) - SHOWN_IDS} more" if len(named) > SHOWN_IDS else ""
    return [f"{problem} {', '.join(named[:SHOWN_IDS])}{more}"]
