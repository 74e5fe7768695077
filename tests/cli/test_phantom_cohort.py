"""One recipe, one phantom: every command finds the same one, and a plan renders none."""

import json
from pathlib import Path

import pytest
import toy_studies as toys

from namd.cli import demo
from namd.cli import main as front
from namd.cli.named_cohorts import find_cohort
from namd.cli.study_inputs import find_study_cohort
from namd.config.errors import InputError
from namd.data.named_cohort import Phantom, phantom_named
from namd.data.settings import CohortDemands
from namd.study.spec import parse_study
from tests.data.conftest import make_cohort

RUN = ["run", "--preset", "tiny", "--plan"]


@pytest.fixture
def builds(monkeypatch):
    """The folders in which a phantom was built; a small cohort stands for a rendered one."""
    folders: list[Path] = []

    def build(_phantom: Phantom, folder: Path, _stages: object = None) -> None:
        folders.append(folder)
        make_cohort(size=32).write(folder)

    monkeypatch.setattr(Phantom, "build", build)
    return folders


def answered(capsys, *words):
    assert front.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_plan_of_a_phantom_that_is_not_built_counts_and_renders_nothing(
    studies, builds, capsys, tmp_path
):
    file = toys.write_file(tmp_path, toys.ABLATION)
    study = ["study", "plan", file, "--store", studies, "--cohort"]
    (studies / "cohorts" / "phantom-other").mkdir(parents=True)
    answer = answered(capsys, *study, "phantom")
    assert (answer["cohort_built"], answer["stages_in_store"]) == (False, 0)
    assert (
        answered(capsys, *RUN, "--store", studies, "--cohort", "phantom")["cohort_built"] is False
    )
    assert front.main([*map(str, study), "phantom"]) == 0
    text = capsys.readouterr().out
    assert "not built yet, so nothing made from it can be in the store" in text
    assert "phantom-other" in text
    assert builds == []
    assert [path.name for path in (studies / "cohorts").iterdir()] == ["phantom-other"]

    make_cohort(size=32).write(tmp_path / "built")
    other = answered(capsys, *study, tmp_path / "built", "--no-calibration")
    assert other["cohort_built"] is True
    for name in ("trials", "stages_total", "stages_distinct"):
        assert answer[name] == other[name]


def test_a_plan_finds_a_phantom_that_was_built_under_the_keys_of_its_folder(
    studies, builds, capsys
):
    folder = find_cohort("phantom:40", studies)
    assert folder == Phantom(40).folder(studies)
    by_word = answered(capsys, *RUN, "--store", studies, "--cohort", "phantom:40")
    by_folder = answered(capsys, *RUN, "--store", studies, "--cohort", folder)
    assert by_word == by_folder
    assert by_word["cohort_built"] is True
    other = answered(capsys, *RUN, "--store", studies, "--cohort", "phantom:41")
    assert other["cohort_built"] is False
    keys = [{s["label"]: s["key"] for s in found["stages"]} for found in (by_word, other)]
    assert keys[0]["vae"] != keys[1]["vae"]


def test_demo_run_and_study_share_the_phantom_of_a_recipe(studies, builds):
    spec = demo.demo_study()
    assert spec.base.cohort == "phantom:1500"
    of_run = find_cohort("phantom:1500", studies)
    assert find_study_cohort(None, spec, str(studies)) == of_run
    assert find_study_cohort("phantom:1500", parse_study(toys.ABLATION), str(studies)) == of_run
    assert find_study_cohort(None, spec, str(studies), build=False) == of_run
    assert builds == [of_run]
    assert find_cohort("phantom", studies) != of_run
    assert len(builds) == 2


def test_a_phantom_too_small_for_the_configuration_is_refused_before_it_is_built(studies, builds):
    for build in (True, False):
        with pytest.raises(InputError, match=r"crops of 92 pixels are smaller than image\.size 93"):
            find_cohort("phantom", studies, CohortDemands(image_size=93), build=build)
    assert builds == []
    find_cohort("phantom", studies, CohortDemands(image_size=32))
    assert len(builds) == 1


@pytest.mark.parametrize("word", ["phantom:", "phantom:0", "phantom:-3", "phantom:many"])
def test_a_phantom_of_no_number_of_cases_is_refused(word):
    with pytest.raises(InputError, match="phantom:CASES"):
        phantom_named(word)
    assert phantom_named("phantom:7") == Phantom(7)


def test_a_folder_called_phantom_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert phantom_named("phantom") == Phantom()
    (tmp_path / "phantom").mkdir()
    assert phantom_named("phantom") is None
    assert phantom_named("cohorts/phantom") is None
