import itertools
import re

import numpy as np
import pandas as pd
import pytest

from namd.data.report import FEATURES, report_text
from namd.data.schema import FAMILY_FEATURES

FIGURE_4 = (
    "Lung cancer screening with low dose computed tomography performed for this 68 years old male "
    "with prior diagnosis of emphysema and family history of cancer. A part solid nodule, with "
    "spiculated margin, 27 mm in size is present in the right lower lobe."
)
RECORD = {
    "SCT_PRE_ATT": 3,
    "SCT_EPI_LOC": 3,
    "SCT_LONG_DIA": 27.0,
    "SCT_PERP_DIA": 20.4,
    "SCT_MARGINS": 1,
    "age": 68.0,
    "gender": 1,
    "diagemph": 1,
    "famfather": 1,
    "fammother": 0,
    "fambrother": 0,
    "famsister": 0,
    "famchild": 0,
}
CLAUSES = {
    "SCT_PRE_ATT": "part solid",
    "SCT_EPI_LOC": "in the right lower lobe",
    "SCT_LONG_DIA": "27 ",
    "SCT_PERP_DIA": "20 mm",
    "SCT_MARGINS": "spiculated margin",
    "age": "68 years old",
    "gender": "male",
    "diagemph": "prior diagnosis of emphysema",
    "famfather": "family history of cancer",
}
GRAMMAR = re.compile(
    r"Lung cancer screening with low dose computed tomography performed for this"
    r"( \d+ years old)?( patient| male| female)"
    r"( with (?:(?:no )?prior diagnosis of emphysema|(?:no )?family history of cancer"
    r"|(?:no )?prior diagnosis of emphysema and (?:no )?family history of cancer))?\. "
    r"A( soft tissue| ground glass| part solid| fluid attenuation| fat attenuation)? nodule"
    r"(?:, with (?:spiculated|smooth|poorly defined) margin, {size}"
    r"| with (?:spiculated|smooth|poorly defined) margin| {size})?"
    r" is present( in the (?:(?:right|left) (?:upper|middle|lower) lobe|lingula))?\.".replace(
        "{size}", r"(?:\d+(?: x \d+)? mm in size|\d+ mm in perpendicular diameter)"
    )
)


def test_the_sentence_of_figure_4():
    assert report_text(RECORD) == FIGURE_4


def test_every_subset_is_grammatical_and_says_exactly_what_it_knows():
    names = list(CLAUSES)
    for count in range(len(names) + 1):
        for subset in itertools.combinations(names, count):
            text = report_text({name: RECORD[name] for name in subset}, perpendicular=True)
            assert GRAMMAR.fullmatch(text), text
            for name, clause in CLAUSES.items():
                assert (clause in text) == (name in subset), (name, text)


def test_the_grammar_of_these_tests_refuses_a_broken_sentence():
    assert GRAMMAR.fullmatch(FIGURE_4)
    assert not GRAMMAR.fullmatch(FIGURE_4.replace("68 years old male", "68 years old"))
    assert not GRAMMAR.fullmatch(FIGURE_4.replace(" nodule, with", " nodule with"))


def test_nothing_known_is_said_as_nothing():
    assert report_text({}) == report_text(RECORD, include=())
    assert "patient. A nodule is present." in report_text({})


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, float("nan")])
@pytest.mark.parametrize("name", FEATURES)
def test_a_missing_value_reads_like_an_absent_one(name, missing):
    absent = {key: value for key, value in RECORD.items() if key != name}
    assert report_text({**RECORD, name: missing}) == report_text(absent)


def test_no_and_unknown_read_differently():
    assert "no prior diagnosis of emphysema" in report_text({"diagemph": 0})
    assert "emphysema" not in report_text({})


def test_a_negative_family_history_needs_all_five_relatives():
    known = dict.fromkeys(FAMILY_FEATURES, 0)
    assert "with no family history of cancer" in report_text(known)
    assert "family" not in report_text({**known, "famchild": None})
    assert "family" not in report_text(known, include=FAMILY_FEATURES[:4])
    assert "with family history of cancer" in report_text(
        {**known, "famchild": None, "fammother": 1}
    )


def test_include_picks_features():
    text = report_text(RECORD, include=("SCT_LONG_DIA", "age"))
    assert text.endswith("for this 68 years old patient. A nodule 27 mm in size is present.")


def test_include_refuses_a_feature_that_no_report_knows():
    with pytest.raises(ValueError, match="smoking"):
        report_text(RECORD, include=("smoking",))


def test_the_perpendicular_diameter_is_an_option():
    assert "20" not in report_text(RECORD)
    assert "27 x 20 mm in size" in report_text(RECORD, perpendicular=True)


def test_a_code_of_no_table_is_refused_and_other_is_left_out():
    with pytest.raises(ValueError, match="SCT_EPI_LOC = 7"):
        report_text({**RECORD, "SCT_EPI_LOC": 7})
    assert report_text({**RECORD, "SCT_EPI_LOC": 8}).endswith("is present.")


def test_millimetres_are_rounded_half_up():
    found = [report_text({"SCT_LONG_DIA": size}) for size in (27.4, 27.5, 27.9)]
    assert [re.findall(r"(\d+) mm", text) for text in found] == [["27"], ["28"], ["28"]]
