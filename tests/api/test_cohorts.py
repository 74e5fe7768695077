"""Cohorts from Python: the same as the command's, found by name, and honest when shown."""

import numpy as np
import pytest

import namd
from namd.api.cohorts import cohort_folder
from namd.cli.main import main
from namd.data.cohort import read_card
from tests.data.conftest import make_cohort


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohorts") / "c"
    with pytest.warns(UserWarning, match="no case"):
        return namd.build_phantom(folder, cases=8, replicates=1)


def test_a_phantom_built_by_a_call_is_the_one_that_the_command_builds(built, tmp_path, capsys):
    words = ["--cases", "8", "--replicates", "1", "--seed", "23", "--out", str(tmp_path / "c")]
    assert main(["cohort", "build", "phantom", *words]) == 0
    assert capsys.readouterr().out
    assert read_card(built.folder) == read_card(tmp_path / "c")


def test_a_cohort_shows_that_it_is_simulated(built):
    read = namd.Cohort.read(built.folder)
    assert len(read) == len(built) == 8
    for shown in (repr(read), read._repr_html_()):
        assert "SIMULATED: label" in shown
    kept = read.select(np.arange(3))
    assert (type(kept), len(kept)) == (namd.Cohort, 3)
    measured = make_cohort(size=32)
    measured.card.pop("simulation", None)
    own = namd.Cohort(table=measured.table, baseline=measured.baseline, card=measured.card)
    assert "SIMULATED" not in repr(own) + own._repr_html_()


def test_only_a_whole_cohort_on_disk_can_be_trained_on(tmp_path):
    made = make_cohort(size=32)
    made.write(tmp_path / "c")
    read = namd.Cohort.read(tmp_path / "c")
    assert cohort_folder(read, tmp_path) == tmp_path / "c"
    assert cohort_folder(str(tmp_path / "c"), tmp_path) == tmp_path / "c"
    for part in (read.select([0, 1]), namd.Cohort.read(tmp_path / "c", ["test"]), made):
        with pytest.raises(namd.InputError, match="write it to a folder"):
            cohort_folder(part, tmp_path)


def test_what_cannot_be_built_is_refused_before_the_work(built, tmp_path):
    refused = [
        (lambda: namd.build_phantom(built.folder), "exists already"),
        (lambda: namd.build_phantom(cases=0), "at least 1 case"),
        (lambda: namd.build_phantom(cases=8, size_px=10), "too small for nodules"),
        (lambda: namd.build_phantom(cases=8, settings={"signs.strenght": 1.0}), "strength"),
        (lambda: namd.build_phantom(cases=8, settings={"signs": {"strength": "x"}}), "signs"),
        (lambda: namd.build_phantom(cases=8, law="fast"), "law"),
        (lambda: namd.build_crops("x.npz", "x.csv", seed=1, replace=["label"]), "simulate=True"),
        (lambda: namd.build_crops("x.npz", "x.csv", seed=1), "x.npz"),
        (lambda: namd.Cohort.read(tmp_path / "none"), "none"),
    ]
    for build, message in refused:
        with pytest.raises(namd.InputError, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)
