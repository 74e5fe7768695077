"""Whatever is wrong with a stored cohort: exit 2 and one line each, never a traceback."""

import json
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from namd.cli.main import main
from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.checks import require_trainable
from namd.data.cohort import CARD_FILE, CASES_FILE


@pytest.fixture
def stored(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    return tmp_path / "C"


def commands(folder):
    sheet = folder.parent / "sheet.png"
    return {
        "check": ["cohort", "check", str(folder)],
        "card": ["cohort", "card", str(folder)],
        "show": ["cohort", "show", str(folder), "--out", str(sheet), "--num", "1"],
    }


def said(words, capsys, code=2):
    """Run a command and return its lines on stderr."""
    capsys.readouterr()
    assert main(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in lines)
    assert all(len(line) < 600 for line in lines)
    return lines


def changed(folder, name, values, kind=None):
    """Replace a column of the stored cases."""
    table = pq.read_table(folder / CASES_FILE)
    place = table.schema.get_field_index(name)
    column = values(table[name].to_pylist())
    array = pa.array(column, kind or table.schema.field(name).type)
    pq.write_table(table.set_column(place, name, array), folder / CASES_FILE)


def test_a_sound_cohort_is_checked_described_and_shown(stored, capsys):
    for words in commands(stored).values():
        assert said(words, capsys, code=0) == []


FIRST = "case-000-0"
VALUES = {
    "NaN months": ("months", float("nan"), f"column months: NaN or infinite in {FIRST}"),
    "infinite months": ("months", float("inf"), f"months is not within 0...240 in {FIRST}"),
    "infinite age": ("age", float("inf"), f"age is not within 0...120 in {FIRST}"),
    "infinite years ago": ("age", float("-inf"), f"age is not within 0...120 in {FIRST}"),
    "NaN age": ("age", float("nan"), f"column age: NaN or infinite in {FIRST}"),
    "NaN spacing": ("spacing_mm", float("nan"), f"spacing_mm is missing in {FIRST}"),
    "infinite diameter": ("SCT_LONG_DIA", float("inf"), "SCT_LONG_DIA is not within"),
    "perpendicular": ("SCT_PERP_DIA", 99.0, f"SCT_PERP_DIA is above SCT_LONG_DIA in {FIRST}"),
    "cm": ("SCT_LONG_DIA", 1.1, "SCT_LONG_DIA is below 2 mm, which no scan resolves"),
    "label": ("label", 7, f"label 7 is none of 0, 1 or missing in {FIRST}"),
    "split": ("split", "holdout", "split is none of train, validation, test in"),
}


@pytest.mark.parametrize("name", VALUES)
def test_impossible_values_are_problems_on_lines_of_their_own(stored, capsys, name):
    column, value, message = VALUES[name]
    changed(stored, column, lambda values: [value, *values[1:]])
    lines = said(commands(stored)["check"], capsys)
    assert any(message in line for line in lines), lines
    for words in commands(stored).values():
        assert main(words) in (0, 2)


def test_one_patient_under_two_spellings_is_a_problem_across_splits_alone(stored, cohort, capsys):
    train = cohort.table["patient_id"][cohort.table["split"] == "train"].unique()
    test = cohort.table["patient_id"][cohort.table["split"] == "test"].unique()[0]

    def spelled(new, old):
        return lambda values: [new if value == old else value for value in values]

    changed(stored, "patient_id", spelled(train[0].upper(), train[1]))
    lines = said(commands(stored)["check"], capsys)
    assert any("warning: maybe one patient under two spellings: " in line for line in lines)
    assert not any("more than one split" in line for line in lines)
    changed(stored, "patient_id", spelled(train[0].upper() + " ", test))
    lines = said(commands(stored)["check"], capsys)
    assert any("problem: maybe one patient under two spellings in more" in line for line in lines)
    assert any(ascii(train[0]) in line for line in lines)


@pytest.mark.parametrize("name", ["check", "card", "show"])
def test_a_file_or_nothing_is_no_cohort(stored, tmp_path, capsys, name):
    file = tmp_path / "file"
    file.write_text("hello")
    for folder in (file, tmp_path / "absent", file / "below", tmp_path):
        words = [str(folder) if word == str(stored) else word for word in commands(stored)[name]]
        (line,) = said(words, capsys)
        assert line.startswith(f"error: {folder}")
    (stored / CARD_FILE).unlink()
    (stored / CARD_FILE).mkdir()
    lines = said(commands(stored)[name], capsys)
    assert any("card.json: cannot be read (Is a directory)" in line for line in lines)


CARDS = {
    "nothing": ("", "not JSON"),
    "a list": ("[]", "got list"),
    "NaN": ('{"spacing_mm": NaN}', "NaN is no JSON number"),
    "400 digits": ('{"cases": 1' + "0" * 5000 + "}", "not JSON"),
    "deep": ("[" * 100000, "not JSON"),
    "spacing of words": ('{"spacing_mm": "wide"}', "spacing_mm is no number"),
    "splits of words": ('{"splits": "all"}', "splits is no object"),
    "a split of words": ('{"splits": {"train": "all"}}', "splits.train is no object"),
    "real of words": ('{"real": 3}', "real is no array"),
    "simulation of words": ('{"simulation": "yes"}', "simulation is no"),
    "ceilings of words": ('{"simulation": {"ideal_auroc": {"test": "high"}}}', "ideal_auroc.test"),
    "fractions of words": ('{"fractions": {"train": "most"}}', "fractions.train is no number"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_damaged_card_is_named_with_its_part(stored, capsys, name):
    text, message = CARDS[name]
    (stored / CARD_FILE).write_text(text)
    for words in commands(stored).values():
        lines = said(words, capsys)
        assert any(message in line for line in lines), lines


def test_a_card_that_lacks_parts_or_has_more_is_read(stored, capsys):
    card = json.loads((stored / CARD_FILE).read_text())
    (stored / CARD_FILE).write_text(json.dumps({"site": [1], "fingerprint": card["fingerprint"]}))
    assert said(commands(stored)["card"], capsys, code=0) == []
    assert said(commands(stored)["check"], capsys, code=0) == []


def test_columns_of_another_shape_or_type_end_in_one_line(stored, capsys):
    table = pq.read_table(stored / CASES_FILE)
    place = table.schema.get_field_index("mask")
    small = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((len(table), 8, 8), np.uint8))
    pq.write_table(table.set_column(place, "mask", small), stored / CASES_FILE)
    assert said(commands(stored)["check"], capsys) == [
        "problem: columns baseline and mask: different shapes"
    ]
    (line,) = said(commands(stored)["show"], capsys)
    assert "damaged (mask has shape" in line
    place = table.schema.get_field_index("age")
    words = table.set_column(place, "age", pa.array(["old"] * len(table)))
    pq.write_table(words, stored / CASES_FILE)
    (line,) = said(commands(stored)["show"], capsys)
    assert "damaged (" in line
    pq.write_table(table.append_column("age", table["age"]), stored / CASES_FILE)
    lines = said(commands(stored)["check"], capsys)
    assert lines == ["problem: column age: is there more than once"]


def test_bytes_flipped_anywhere_never_end_in_a_traceback(stored, capsys):
    path = stored / CASES_FILE
    whole = path.read_bytes()
    rng = generator("test-flipped-cohort")
    places = [*range(0, 8, 2), *range(len(whole) - 2000, len(whole), 60)]
    places += rng.integers(0, len(whole), 20).tolist()
    ends = []
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(spoilt))
        for words in commands(stored).values():
            ends.append(main(words))
            assert "Traceback" not in capsys.readouterr().err
        with suppress(InputError):
            require_trainable(stored)
    path.write_bytes(whole[: len(whole) // 2])
    ends += [main(commands(stored)["check"]), main(commands(stored)["show"])]
    assert set(ends) == {0, 2}
