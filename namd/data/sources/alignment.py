"""Which crop belongs to which line of the table, and what of either is left over."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.errors import InputError
from namd.data.identity import spelling_key
from namd.data.sources.archive import Arrays
from namd.data.sources.columns import CropFiles, ReadColumns, some, whole


def align(words: dict[str, pd.Series], arrays: Arrays, files: CropFiles) -> dict[str, pd.Series]:
    """Return the words with the npz row of every line as `row`.

    Raises InputError if a line and its crop cannot be identified, or do not belong together.
    """
    count, crops = len(words["case_id"]), len(arrays["hu"])
    ids = arrays.get("nodule_id")
    if "row" not in words and ids is None and count != crops:
        raise InputError(
            f"{files.table}: {count} lines, and {files.images} holds {crops} crops; which is whose "
            "cannot be known: give the crop's number (from 0) in a column `row`, or an array "
            "`nodule_id`"
        )
    rows = pd.Series(range(count)) if "row" not in words else whole(words, "row", files)
    outside = ~rows.between(0, len(arrays["hu"]) - 1)
    if outside.any() or rows.duplicated().any():
        wrong = rows[outside | rows.duplicated()].tolist()
        raise InputError(
            f"{files.table}: rows {some(wrong)} are doubled or not among the "
            f"{len(arrays['hu'])} crops of {files.images}"
        )
    if ids is not None:
        stored = [_id_text(value) for value in ids[rows.to_numpy()].tolist()]
        pairs = zip(words["case_id"], stored, strict=True)
        differ = [a for a, b in pairs if spelling_key(str(a)) != spelling_key(b)]
        if differ:
            raise InputError(
                f"{files.table}: cases {some(differ)} do not lie where {files.images} says; "
                "map `row` to the column that counts the crops"
            )
    return {**words, "row": rows}


def followed_lines(
    words: dict[str, pd.Series], arrays: Arrays, files: CropFiles
) -> npt.NDArray[np.bool_] | None:
    """Return which lines have a follow-up of their own; None: the npz holds no follow-ups."""
    if "followup_hu" not in arrays:
        return None
    given = arrays.get("has_followup")
    if given is None:
        return np.ones(len(words["row"]), dtype=bool)
    if not np.isin(given, (0, 1)).all():
        raise InputError(f"{files.images}: has_followup must be true or false, 0 or 1")
    return np.asarray(given.astype(bool)[words["row"].to_numpy()])


def set_aside_idle(arrays: Arrays, files: CropFiles) -> list[str]:
    """Remove the array that another one makes idle, and return its name."""
    if "has_followup" in arrays and "followup_hu" not in arrays:
        raise InputError(f"{files.images}: has_followup without followup_hu; give both or neither")
    if "mask" in arrays and "votes" in arrays:
        del arrays["votes"]
        return ["votes"]
    return []


def unused_columns(read: ReadColumns, arrays: Arrays, simulated: bool) -> list[str]:
    """Return the columns that no value of the cohort comes from."""
    idle = {"texture", "spiculation"}
    if not simulated:
        idle |= {"side", "z_frac"}
    if "votes" not in arrays and not simulated:
        idle.add("readers")
    if "followup_hu" not in arrays:
        idle.add("followup_spacing_mm")
    used = {column for word, column in read.sources.items() if word not in idle}
    idle_columns = {read.sources[word] for word in idle if word in read.sources} - used
    return [*read.unused, *sorted(idle_columns)]


def _id_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
