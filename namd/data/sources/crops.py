"""Source `crops`: an npz of HU crops and a CSV with one line per nodule.

Reading, choosing and resampling belong here; simulating follow-ups does not.

The npz holds `hu` (N, H, W) in HU and may hold

- `votes` (N, H, W): how many readers' contours hold the pixel; a pixel is the nodule's where at
  least half of the case's readers (column `readers`) say so; or `mask` (N, H, W), 0 and 1;
- `followup_hu` (N, H, W): the same nodule later, and `has_followup` (N,) where not all have one;
- `nodule_id` (N,), checked against the table's where both are there.

Whatever else the two files hold is named in the card. The CSV's column names are mapped to the
words below by a YAML file or a mapping; a word that is mapped to null is not read
(`namd.data.sources.columns`). The defaults fit the crops cut from LIDC-IDRI.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.errors import InputError
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.resampling import reaches, resample, resample_mask
from namd.data.settings import CropSettings
from namd.data.sources.alignment import (
    align,
    followed_lines,
    set_aside_idle,
    unused_columns,
)
from namd.data.sources.archive import Arrays, read_archive
from namd.data.sources.columns import (
    MISSING_TEXT,
    CropFiles,
    numbers,
    padded,
    read_columns,
    some,
)
from namd.data.sources.extent import falls_short, stored_size, wanted
from namd.data.sources.intensities import require_finite, require_hu, require_masks
from namd.data.sources.masks import require_on_nodules
from namd.data.splits import assign_split

Progress = Callable[[int, int], None]

HANDED_ON = ("side", "z_frac", "texture", "spiculation", "readers")
"""Words that the simulation may read; they become `source_*` columns and are not written."""

UNKNOWN_LABEL = -1
MAX_READERS = 1000

SPLIT_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "validation": "validation",
        "valid": "validation",
        "val": "validation",
        "dev": "validation",
        "test": "test",
        "testing": "test",
    }
)
"""What a split column may say, in any case of letters."""

SIDES: Mapping[str, str] = MappingProxyType({"r": "R", "right": "R", "l": "L", "left": "L"})

LIDC_PREFIX = "LIDC-IDRI-"
LIDC_CARD: Mapping[str, str] = MappingProxyType(
    {
        "citation": (
            "Armato III et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
            "doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato et al., Med Phys 38:915-931, 2011"
        ),
        "licence": "CC BY 3.0",
    }
)


def build(
    files: CropFiles,
    settings: CropSettings,
    seed: int,
    select: bool = False,
    progress: Progress | None = None,
    *,
    keep_followups: bool = True,
) -> Cohort:
    """Read, choose and resample crops into a cohort.

    Args:
        files: What to read.
        settings: Spacing, size, selection and split fractions.
        seed: Split seed; not used if the table has a split of its own.
        select: Keep only nodules with a follow-up of their own and nodules whose follow-up can be
            simulated: marked by enough readers, of a size within the settings, with a contour.
        progress: Called with (crops done, crops in all).
        keep_followups: Whether a follow-up of its own spares a nodule the selection.

    Raises:
        InputError: a file, column or value cannot be used.
    """
    arrays, unused_arrays = read_archive(files.images)
    unused_arrays += set_aside_idle(arrays, files)
    read = read_columns(files.table, files.columns)
    num_rows, num_crops = len(read.words["case_id"]), len(arrays["hu"])
    if read.remarks and num_rows != num_crops:
        raise InputError(
            f"{files.table}: {num_rows} rows for {num_crops} crops, and {read.remarks[0]} Remove a "
            "stray quote, or the line breaks inside the fields"
        )
    words = align(read.words, arrays, files)
    unused_crops = len(arrays["hu"]) - len(words["row"])
    has = followed_lines(words, arrays, files)
    _require_arrays(words, arrays, files, has)
    kept = has if keep_followups else None
    words, excluded = _chosen(words, arrays, settings, files, kept, select)
    has = followed_lines(words, arrays, files)
    size, remarks = stored_size(settings, words, arrays, files, has)
    settings = replace(settings, size=size)
    require_finite(arrays, words, files.images, "hu")
    table = _table(words, files, settings, seed)
    baseline, mask = _resample_baseline(words, arrays, settings, files, progress)
    followup = _resample_followup(words, arrays, settings, files, has)
    if keep_followups and has is not None and has.any() and words.get("months") is None:
        raise InputError(
            f"{files.table}: follow-ups need the months between the scans; map `months` to a column"
        )
    cohort = Cohort(table, baseline, followup, has, mask)
    cohort.card = _card(cohort, files, excluded)
    if read.remarks or remarks:
        cohort.card["remarks"] = [*read.remarks, *remarks]
    cohort.card["split_column"] = read.sources.get("split")
    cohort.card["unused"] = {
        "columns": unused_columns(read, arrays, simulated=select),
        "arrays": unused_arrays,
        "crops": unused_crops,
    }
    return cohort


def _chosen(
    words: dict[str, pd.Series],
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
    kept: npt.NDArray[np.bool_] | None,
    select: bool,
) -> tuple[dict[str, pd.Series], dict[str, list[str]]]:
    """Return the lines that enter, and the cases that do not by the reason.

    Args:
        words: The lines, by column.
        arrays: The archive.
        settings: What may enter.
        files: What is read.
        kept: Lines whose own follow-up spares them the selection; None if nothing does.
        select: Whether to select at all.
    """
    excluded: dict[str, list[str]] = {}
    spared = np.zeros(len(words["row"]), dtype=bool) if kept is None else kept
    if select and not spared.all():
        words, excluded = _select(words, arrays, settings, files, spared)
    if settings.leave_out_short:
        has = followed_lines(words, arrays, files)
        words, left_out = _leave_out_short(words, arrays, settings, files, has)
        excluded |= left_out
    return words, excluded


def _require_arrays(
    words: dict[str, pd.Series],
    arrays: Arrays,
    files: CropFiles,
    has: npt.NDArray[np.bool_] | None,
) -> None:
    """Check that images are HU, and that contours are contours of these nodules."""
    require_hu(arrays, words, files.images, "hu")
    if has is not None:
        require_hu(arrays, _where(words, has), files.images, "followup_hu")
    require_masks(arrays, words, files.images)
    _require_readers(words, files)
    if "votes" in arrays or "mask" in arrays:
        lines = range(len(words["case_id"]))
        masks = np.stack([_native_mask(words, arrays, line) for line in lines])
        spacing = numbers(words, "spacing_mm", files).to_numpy()
        require_on_nodules(masks, spacing, words["case_id"].tolist(), files.images)


def _select(
    words: dict[str, pd.Series],
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
    spared: npt.NDArray[np.bool_],
) -> tuple[dict[str, pd.Series], dict[str, list[str]]]:
    """Return the lines that are spared or may get a follow-up, and which fell out for what."""
    if "votes" not in arrays and "mask" not in arrays:
        raise InputError(
            f"{files.images}: neither votes nor mask; a follow-up is simulated by growing the "
            "nodule inside its contour"
        )
    for word in ("SCT_LONG_DIA", "SCT_PERP_DIA"):
        if word not in words:
            raise InputError(
                f"{files.table}: no {word}; a simulated follow-up needs both diameters"
            )
    diameter = numbers(words, "SCT_LONG_DIA", files)
    perpendicular = numbers(words, "SCT_PERP_DIA", files)
    keep = pd.Series(True, index=diameter.index)
    excluded: dict[str, list[str]] = {}

    def drop(reason: str, wrong: pd.Series) -> None:
        falling = keep & wrong & ~spared
        excluded[reason] = words["case_id"][falling].tolist()
        keep[falling] = False

    if "readers" in words:
        readers = numbers(words, "readers", files)
        drop(f"fewer than {settings.readers} readers", ~(readers >= settings.readers))
    drop("without both diameters", diameter.isna() | perpendicular.isna())
    drop(
        f"not {settings.smallest_mm:g}-{settings.largest_mm:g} mm",
        ~diameter.between(settings.smallest_mm, settings.largest_mm),
    )
    empty = [not _native_mask(words, arrays, line).any() for line in keep.index]
    drop("no contour", pd.Series(empty, index=keep.index))
    if not keep.any():
        raise InputError(
            f"{files.table}: no nodule is left "
            f"({', '.join(f'{len(ids)} {why}' for why, ids in excluded.items())})"
        )
    return _where(words, keep.to_numpy()), {reason: ids for reason, ids in excluded.items() if ids}


def _leave_out_short(
    words: dict[str, pd.Series],
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
    has: npt.NDArray[np.bool_] | None,
) -> tuple[dict[str, pd.Series], dict[str, list[str]]]:
    """Return the lines whose crops reach as far as the stored ones do, and which do not."""
    short = falls_short(settings, words, arrays, files, has)
    reason = f"crop below {wanted(settings)} pixels of {settings.spacing_mm:g} mm"
    if short.all():
        raise InputError(
            f"{files.images}: no case is left ({len(short)} {reason}); take a smaller --size or "
            "--spacing"
        )
    left_out = {reason: words["case_id"][short].tolist()} if short.any() else {}
    return _where(words, ~short), left_out


def _table(
    words: dict[str, pd.Series], files: CropFiles, settings: CropSettings, seed: int
) -> pd.DataFrame:
    case = words["case_id"]
    lesion = words.get("lesion_id", case).fillna("nodule-" + case)
    columns: dict[str, Any] = {
        "case_id": [f"{files.source}-{padded(value)}" for value in case],
        "patient_id": words["patient_id"],
        "lesion_id": [f"{files.source}-{padded(value)}" for value in lesion],
        "source": files.source,
        "split": _splits(words, files, settings, seed),
        "label": _labels(words, files),
        "spacing_mm": settings.spacing_mm,
        "months": numbers(words, "months", files),
    }
    for name in (*schema.EHR_FEATURES, *schema.FOLLOWUP_DIAMETERS):
        values = numbers(words, name, files)
        if name in ("SCT_PRE_ATT", "SCT_MARGINS"):
            values = values.mask(values == schema.UNDETERMINED_CODE)
        columns[name] = values
    for word in HANDED_ON:
        if word in words:
            values = _sides(words, files) if word == "side" else numbers(words, word, files)
            columns[f"{schema.SOURCE_PREFIX}{word}"] = values
    _require_heights(columns, words, files)
    return pd.DataFrame(columns)


def _where(words: dict[str, pd.Series], chosen: npt.NDArray[np.bool_]) -> dict[str, pd.Series]:
    return {word: values[chosen].reset_index(drop=True) for word, values in words.items()}


def _splits(
    words: dict[str, pd.Series], files: CropFiles, settings: CropSettings, seed: int
) -> list[str]:
    """Return the table's own split where it has one, or else that of the patient's hash."""
    if "split" not in words:
        return [assign_split(p, seed, settings.fractions) for p in words["patient_id"]]
    given = words["split"]
    splits = given.map(lambda name: SPLIT_SPELLINGS.get(str(name).casefold()))
    wrong = splits.isna()
    if wrong.any():
        names = sorted({"nothing" if value is None else repr(value[:40]) for value in given[wrong]})
        raise InputError(
            f"{files.table}: split of cases {some(words['case_id'][wrong].tolist())} is "
            f"{some(names, 3)}; write {', '.join(SPLIT_SPELLINGS)}, or map `split: null` with "
            "--columns to split by a hash of the patient"
        )
    return splits.tolist()


def _sides(words: dict[str, pd.Series], files: CropFiles) -> pd.Series:
    sides = words["side"].map(lambda side: SIDES.get(str(side).casefold()))
    wrong = sides.isna() & words["side"].notna()
    if wrong.any():
        raise InputError(
            f"{files.table}: side of cases {some(words['case_id'][wrong].tolist())} is neither R "
            f"(right) nor L (left); what is not known is {MISSING_TEXT}"
        )
    return sides


def _require_readers(words: dict[str, pd.Series], files: CropFiles) -> None:
    readers = numbers(words, "readers", files)
    wrong = readers.notna() & ~((readers % 1 == 0) & readers.between(0, MAX_READERS))
    if wrong.any():
        raise InputError(
            f"{files.table}: readers of cases {some(words['case_id'][wrong].tolist())} is no count "
            f"within 0...{MAX_READERS}"
        )


def _require_heights(
    columns: Mapping[str, Any], words: dict[str, pd.Series], files: CropFiles
) -> None:
    heights = columns.get(f"{schema.SOURCE_PREFIX}z_frac")
    if heights is None:
        return
    wrong = heights.notna() & ~heights.between(0, 1)
    if wrong.any():
        raise InputError(
            f"{files.table}: z_frac of cases {some(words['case_id'][wrong].tolist())} is not "
            "within 0 (lowest slice) and 1 (highest)"
        )


def _labels(words: dict[str, pd.Series], files: CropFiles) -> pd.Series:
    labels = numbers(words, "label", files)
    return labels.mask(labels == UNKNOWN_LABEL)


def _resample_baseline(
    words: dict[str, pd.Series],
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
    progress: Progress | None,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
    spacing = _spacings(words, "spacing_mm", arrays, settings, files)
    size = wanted(settings)
    baseline = np.empty((len(spacing), size, size), dtype=np.int16)
    contoured = "votes" in arrays or "mask" in arrays
    mask = np.zeros(baseline.shape, dtype=np.uint8) if contoured else None
    for line, (row, native_mm) in enumerate(zip(words["row"], spacing, strict=True)):
        baseline[line] = resample(arrays["hu"][row], native_mm, settings.spacing_mm, size)
        if mask is not None:
            native = _native_mask(words, arrays, line)
            mask[line] = resample_mask(native, native_mm, settings.spacing_mm, size)
        if progress is not None:
            progress(line + 1, len(spacing))
    return baseline, mask


def _resample_followup(
    words: dict[str, pd.Series],
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
    has: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.int16] | None:
    if has is None:
        return None
    rows = words["row"].to_numpy()
    followed = _where(words, has)
    require_finite(arrays, followed, files.images, "followup_hu")
    word = "followup_spacing_mm" if "followup_spacing_mm" in words else "spacing_mm"
    spacing = _spacings(followed, word, arrays, settings, files)
    size = wanted(settings)
    followup = np.zeros((len(rows), size, size), dtype=np.int16)
    for line, row, native_mm in zip(np.flatnonzero(has), followed["row"], spacing, strict=True):
        crop = arrays["followup_hu"][row]
        followup[line] = resample(crop, native_mm, settings.spacing_mm, size)
    return followup


def _spacings(
    words: dict[str, pd.Series],
    word: str,
    arrays: Arrays,
    settings: CropSettings,
    files: CropFiles,
) -> npt.NDArray[np.float64]:
    """Return the native spacings in mm, refusing cases whose crop does not reach far enough."""
    spacing = numbers(words, word, files).to_numpy()
    low, high = schema.LIMITS.spacing_mm
    wrong = ~((spacing >= low) & (spacing <= high))
    if wrong.any():
        raise InputError(
            f"{files.table}: {word} of cases {some(words['case_id'][wrong].tolist())} is missing "
            f"or not within {low:g}-{high:g} mm"
        )
    native_size = arrays["hu"].shape[-1]
    size = wanted(settings)
    short = ~reaches(native_size, spacing, size, settings.spacing_mm)
    if short.any():
        raise InputError(
            f"{files.images}: crops of cases {some(words['case_id'][short].tolist())} are smaller "
            f"than {size} pixels of {settings.spacing_mm:g} mm; take a smaller --size or "
            "--spacing, or leave them out with --leave-out-short"
        )
    return spacing


def _native_mask(words: dict[str, pd.Series], arrays: Arrays, line: int) -> npt.NDArray[np.bool_]:
    row = words["row"].iloc[line]
    if "mask" in arrays:
        return np.asarray(arrays["mask"][row] > 0)
    votes = arrays["votes"][row]
    readers = float(votes.max())
    if "readers" in words and words["readers"].iloc[line] is not None:
        readers = float(words["readers"].iloc[line])
    return np.asarray((votes > 0) & (2 * votes.astype(np.int64) >= readers))


def _card(cohort: Cohort, files: CropFiles, excluded: dict[str, list[str]]) -> dict[str, Any]:
    table = cohort.table
    known = dict(LIDC_CARD) if table["patient_id"].str.startswith(LIDC_PREFIX).all() else {}
    real = ["baseline"]
    if cohort.stacks["mask"].any():
        real.append("mask")
    if cohort.stacks["followup"].any():
        real.append("followup")
    candidates = ("label", "months", *schema.EHR_FEATURES, *schema.FOLLOWUP_DIAMETERS)
    real += [name for name in candidates if table[name].notna().any()]
    return {
        "source": files.source,
        "citation": files.citation or known.get("citation", "not stated"),
        "licence": files.licence or known.get("licence", "not stated"),
        "real": real,
        "rendered": [],
        "excluded": {reason: len(ids) for reason, ids in excluded.items()},
        "excluded_cases": excluded,
        "notes": [
            "In-plane resampling with a cubic spline, low-pass filtered where it reduces.",
            "A label of the source itself is what its table says; of LIDC-IDRI that is readers' "
            "suspicion, not pathology.",
        ],
    }
