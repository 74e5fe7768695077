from typing import get_args

import pytest

from namd.cli.cohort import LAWS
from namd.config.errors import InputError
from namd.data.card import (
    LAW_MEANINGS,
    card_text,
    finish_card,
    ideal_auroc,
    law_of,
    simulated_columns,
)
from namd.data.cohort import read_card
from namd.data.settings import SplitFractions
from namd.data.simulation.settings import Law
from namd.statistics.notices import SIMULATED, simulated_notice


def test_a_card_says_what_is_real_and_what_is_simulated(cohort):
    cohort.card["real"] = ["baseline", "label"]
    cohort.card["simulation"] = {
        "seed": 3,
        "settings": {"law": "nlst", "scan": {"shift_mm": 0.7}},
        "simulated": ["label", "followup"],
        "ideal_auroc": {"test": 0.81234, "train": None},
    }
    finish_card(cohort, split_seed=3, fractions=SplitFractions())
    text = card_text(cohort.card)
    assert "- **real**: baseline\n" in text
    assert "- **simulated**: label, followup\n" in text
    assert "test 0.812" in text
    assert "train -" in text
    assert "`scan.shift_mm`: 0.7" in text
    assert "Law **nlst**: NLST's growth alone" in text
    assert law_of(cohort.card) == "nlst"
    assert "Research use only" in text
    assert ideal_auroc(cohort.card) == {"test": 0.81234, "train": None}


def test_a_real_cohort_speaks_of_no_simulation(cohort):
    finish_card(cohort, split_seed=3, fractions=SplitFractions())
    text = card_text(cohort.card)
    assert "## Simulation" not in text
    assert "- **simulated**: nothing" in text
    assert simulated_columns(cohort.card) == []
    assert law_of(cohort.card) is None
    assert "Law **" not in text
    assert ideal_auroc(cohort.card) is None


def test_every_law_has_a_meaning_of_its_own():
    assert set(LAW_MEANINGS) == set(get_args(Law)) == set(LAWS)
    assert len(set(LAW_MEANINGS.values())) == len(LAW_MEANINGS)


def test_a_banner_names_the_law_if_it_is_known():
    assert "under the law sober." in simulated_notice("sober")
    assert simulated_notice(None) == SIMULATED
    assert "law" not in SIMULATED


def test_counts_are_those_of_the_table(cohort):
    finish_card(cohort, split_seed=3, fractions=SplitFractions())
    table = cohort.table
    for split, counts in cohort.card["splits"].items():
        inside = table["split"] == split
        assert counts["cases"] == inside.sum()
        assert counts["malignant"] == (inside & (table["label"] == 1)).sum()
        assert counts["followups"] == cohort.has_followup[inside].sum()
    assert cohort.card["cases"] == len(cohort)


def test_a_bare_card_is_still_readable():
    assert "not stated" in card_text({})


def test_the_card_of_what_is_no_folder_is_refused_once_with_the_way_out(tmp_path, cohort):
    cohort.card = {"source": "here"}
    cohort.write(tmp_path / "C")
    assert read_card(tmp_path / "C")["source"] == "here"
    file = tmp_path / "st.yaml"
    file.write_text("a: 1")
    for place, what in ((file, "is a file"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=f"^{place}: {what}; name a cohort's folder"):
            read_card(place)
    (tmp_path / "C" / "card.json").unlink()
    (tmp_path / "C" / "card.json").mkdir()
    with pytest.raises(InputError) as refused:
        read_card(tmp_path / "C")
    assert str(refused.value).count("card.json") == 1
