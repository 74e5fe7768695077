"""A study goes on with the cases it was begun on, wherever they lie now."""

import json

import pytest

from namd.config.errors import InputError
from namd.ledger.view import StudyView
from namd.study.same_cohort import require_same_cohort


def cohort(folder, fingerprint):
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return folder


def begun(**about) -> StudyView:
    return StudyView("parts", attempt=1, about={"cohort": "/old/C", **about})


def test_the_same_cases_elsewhere_are_the_same_cohort(tmp_path):
    moved = cohort(tmp_path / "moved", "a" * 64)
    assert require_same_cohort(begun(cohort_fingerprint="a" * 64), moved) == "a" * 64


def test_other_cases_are_refused_with_both_cohorts_named(tmp_path):
    other = cohort(tmp_path / "other", "b" * 64)
    with pytest.raises(InputError, match=r"other: holds other cases \(b{12}\)") as raised:
        require_same_cohort(begun(cohort_fingerprint="a" * 64), other)
    assert "(aaaaaaaaaaaa, then in /old/C)" in str(raised.value)


def test_a_new_study_and_one_whose_ledger_names_no_cohort_take_any_cohort(tmp_path):
    other = cohort(tmp_path / "other", "b" * 64)
    assert require_same_cohort(StudyView("parts"), other) == "b" * 64
    assert require_same_cohort(begun(), other) == "b" * 64
    (other / "card.json").unlink()
    assert require_same_cohort(begun(), other) is None
