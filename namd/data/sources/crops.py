"""Source `crops`: an npz of HU crops and a CSV with one line per nodule.

Reading, choosing and resampling belong here; simulating follow-ups does not.

The npz holds `hu` (N, H, W) in HU and may hold

- `votes` (N, H, W): how many readers' contours hold the pixel; a pixel is the nodule's where at
  least half of the case's readers (column `readers`) say so; or `mask` (N, H, W), 0 and 1;
- `followup_hu` (N, H, W): the same nodule later, and `has_followup` (N,) where not all have one;
- `nodule_id` (N,), checked against the table's where both are there.

The CSV's column names are mapped to the words below by a YAML file or a mapping; a word that is
mapped to null is not read (`namd.data.sources.columns`). The defaults fit the crops cut from
LIDC-IDRI.
"""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
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
from namd.data.sources.columns import CropFiles, numbers, padded, read_columns, some, whole
from namd.data.splits import assign_split

Progress = Callable[[int, int], None]

HANDED_ON = ("side", "z_frac", "texture", "spiculation", "readers")
"""Words that the simulation may read; they become `source_*` columns and are not written."""

UNKNOWN_LABEL = -1

LEAST_AIR_HU = -300
"""Aerated lung lies near -850 HU, emphysema and air lower; no crop set of lungs is without."""

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
) -> Cohort:
    """Read, choose and resample crops into a cohort.

    Args:
        files: What to read.
        settings: Spacing, size, selection and split fractions.
        seed: Split seed.
        select: Keep only nodules whose follow-up can be simulated: marked by enough readers,
            of a size within the settings, with a contour.
        progress: Called with (crops done, crops in all).

    Raises:
        InputError: a file, column or value cannot be used.
    """
    arrays = _read_arrays(files.images)
    words = read_columns(files.table, files.columns)
    words = _align(words, arrays, files)
    excluded: dict[str, int] = {}
    if select:
        words, excluded = _select(words, arrays, settings, files)
    _require_finite(arrays["hu"], words, files.images, "hu")
    table = _table(words, files, settings, seed)
    baseline, mask = _resample_baseline(words, arrays, settings, files, progress)
    followup, has = _resample_followup(words, arrays, settings, files)
    if has is not None and has.any() and words.get("months") is None:
        raise InputError(
            f"{files.table}: follow-ups need the months between the scans; map `months` to a column"
        )
    cohort = Cohort(table, baseline, followup, has, mask)
    cohort.card = _card(cohort, files, excluded)
    return cohort


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # np.load takes other files for arrays or pickles, and speaks of unsafe loading.
        if path.is_file() and not zipfile.is_zipfile(path):
            raise InputError(f"{path}: not an npz, or cut short; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --images takes an npz") from None
    except (ValueError, OSError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not an npz of plain arrays ({error})") from error
    if "hu" not in arrays:
        raise InputError(f"{path}: no array `hu`; it holds {', '.join(arrays) or 'nothing'}")
    shape = arrays["hu"].shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"{path}: hu has shape {shape}; it must be (cases, size, size)")
    for name in ("hu", "followup_hu"):
        if name in arrays:
            _require_hu(path, name, arrays[name])
    for name in ("votes", "mask", "followup_hu"):
        if name in arrays and arrays[name].shape != shape:
            raise InputError(f"{path}: {name} has shape {arrays[name].shape}, hu has {shape}")
    return arrays


def _require_hu(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Refuse crops without any air: normalised ones would be clipped to one shade of grey."""
    known = values[np.isfinite(values)]
    if known.size and known.min() > LEAST_AIR_HU:
        raise InputError(
            f"{path}: {name} lies within {known.min():g}...{known.max():g}, and lung holds air of "
            f"less than {LEAST_AIR_HU} HU; give Hounsfield units, not normalised intensities"
        )


def _align(
    words: dict[str, pd.Series], arrays: dict[str, npt.NDArray[Any]], files: CropFiles
) -> dict[str, pd.Series]:
    """Give the words the npz row of every line as `row`, checked."""
    count = len(words["case_id"])
    rows = pd.Series(range(count)) if "row" not in words else whole(words, "row", files)
    outside = ~rows.between(0, len(arrays["hu"]) - 1)
    if outside.any() or rows.duplicated().any():
        wrong = rows[outside | rows.duplicated()].tolist()
        raise InputError(
            f"{files.table}: rows {some(wrong)} are doubled or not among the "
            f"{len(arrays['hu'])} crops of {files.images}"
        )
    ids = arrays.get("nodule_id")
    if ids is not None:
        told = words["case_id"].to_numpy(dtype=object)
        differ = [a for a, b in zip(told, ids[rows.to_numpy()], strict=True) if str(a) != str(b)]
        if differ:
            raise InputError(
                f"{files.table}: cases {some(differ)} do not lie where {files.images} says; "
                "map `row` to the column that counts the crops"
            )
    return {**words, "row": rows}


def _select(
    words: dict[str, pd.Series],
    arrays: dict[str, npt.NDArray[Any]],
    settings: CropSettings,
    files: CropFiles,
) -> tuple[dict[str, pd.Series], dict[str, int]]:
    """Return the lines whose follow-up can be simulated, and how many fell out for what."""
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
    excluded: dict[str, int] = {}

    def drop(reason: str, wrong: pd.Series) -> None:
        excluded[reason] = int((keep & wrong).sum())
        keep[wrong] = False

    if "readers" in words:
        readers = numbers(words, "readers", files)
        drop(f"fewer than {settings.readers} readers", ~(readers >= settings.readers))
    drop(
        f"not {settings.smallest_mm:g}-{settings.largest_mm:g} mm",
        ~diameter.between(settings.smallest_mm, settings.largest_mm) | perpendicular.isna(),
    )
    empty = [not _native_mask(words, arrays, line).any() for line in keep.index]
    drop("no contour", pd.Series(empty, index=keep.index))
    if not keep.any():
        raise InputError(
            f"{files.table}: no nodule is left "
            f"({', '.join(f'{n} {why}' for why, n in excluded.items())})"
        )
    chosen = {word: values[keep].reset_index(drop=True) for word, values in words.items()}
    return chosen, {reason: number for reason, number in excluded.items() if number}


def _table(
    words: dict[str, pd.Series], files: CropFiles, settings: CropSettings, seed: int
) -> pd.DataFrame:
    case = words["case_id"]
    for word in ("case_id", "patient_id"):
        if words[word].isna().any():
            lines = (np.flatnonzero(words[word].isna()) + 2).tolist()
            raise InputError(f"{files.table}: no {word} in lines {some(lines)}")
    lesion = words.get("lesion_id", case).fillna("nodule-" + case)
    columns: dict[str, Any] = {
        "case_id": [f"{files.source}-{padded(value)}" for value in case],
        "patient_id": words["patient_id"],
        "lesion_id": [f"{files.source}-{padded(value)}" for value in lesion],
        "source": files.source,
        "split": [assign_split(p, seed, settings.fractions) for p in words["patient_id"]],
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
            values = words[word] if word == "side" else numbers(words, word, files)
            columns[f"{schema.SOURCE_PREFIX}{word}"] = values
    return pd.DataFrame(columns)


def _labels(words: dict[str, pd.Series], files: CropFiles) -> pd.Series:
    labels = numbers(words, "label", files)
    return labels.mask(labels == UNKNOWN_LABEL)


def _resample_baseline(
    words: dict[str, pd.Series],
    arrays: dict[str, npt.NDArray[Any]],
    settings: CropSettings,
    files: CropFiles,
    progress: Progress | None,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
    spacing = _spacings(words, "spacing_mm", arrays, settings, files)
    size = settings.size
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
    arrays: dict[str, npt.NDArray[Any]],
    settings: CropSettings,
    files: CropFiles,
) -> tuple[npt.NDArray[np.int16] | None, npt.NDArray[np.bool_] | None]:
    if "followup_hu" not in arrays:
        return None, None
    rows = words["row"].to_numpy()
    given = arrays.get("has_followup", np.ones(len(arrays["hu"]), dtype=bool))
    if given.shape != (len(arrays["hu"]),):
        raise InputError(f"{files.images}: has_followup has shape {given.shape}")
    has = given.astype(bool)[rows]
    followed = {word: values[has].reset_index(drop=True) for word, values in words.items()}
    _require_finite(arrays["followup_hu"], followed, files.images, "followup_hu")
    word = "followup_spacing_mm" if "followup_spacing_mm" in words else "spacing_mm"
    spacing = _spacings(followed, word, arrays, settings, files)
    followup = np.zeros((len(rows), settings.size, settings.size), dtype=np.int16)
    for line, row, native_mm in zip(np.flatnonzero(has), followed["row"], spacing, strict=True):
        crop = arrays["followup_hu"][row]
        followup[line] = resample(crop, native_mm, settings.spacing_mm, settings.size)
    return followup, has


def _spacings(
    words: dict[str, pd.Series],
    word: str,
    arrays: dict[str, npt.NDArray[Any]],
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
    short = ~reaches(native_size, spacing, settings.size, settings.spacing_mm)
    if short.any():
        raise InputError(
            f"{files.images}: crops of cases {some(words['case_id'][short].tolist())} are smaller "
            f"than {settings.size} pixels of {settings.spacing_mm:g} mm; take a smaller --size or "
            "--spacing, or leave them out"
        )
    return spacing


def _native_mask(
    words: dict[str, pd.Series], arrays: dict[str, npt.NDArray[Any]], line: int
) -> npt.NDArray[np.bool_]:
    row = words["row"].iloc[line]
    if "mask" in arrays:
        return np.asarray(arrays["mask"][row] > 0)
    votes = arrays["votes"][row]
    readers = float(votes.max())
    if "readers" in words and words["readers"].iloc[line] is not None:
        readers = float(words["readers"].iloc[line])
    return np.asarray((votes > 0) & (2 * votes.astype(np.int64) >= readers))


def _require_finite(
    images: npt.NDArray[Any], words: dict[str, pd.Series], path: Path, name: str
) -> None:
    """Refuse crops that are not HU, before rounding hides it."""
    chosen = images[words["row"].to_numpy()]
    low, high = schema.LIMITS.hu
    with np.errstate(invalid="ignore"):
        wrong = ~((chosen >= low) & (chosen <= high)).all(axis=(1, 2))
    if wrong.any():
        raise InputError(
            f"{path}: {name} of cases {some(words['case_id'][wrong].tolist())} is NaN or not "
            f"within {low}...{high} HU; clip scanner padding before"
        )


def _card(cohort: Cohort, files: CropFiles, excluded: dict[str, int]) -> dict[str, Any]:
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
        "excluded": excluded,
        "notes": [
            "In-plane resampling with a cubic spline, low-pass filtered where it reduces.",
            "A label of the source itself is what its table says; of LIDC-IDRI that is readers' "
            "suspicion, not pathology.",
        ],
    }
