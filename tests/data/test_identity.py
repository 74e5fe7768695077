import pytest

from namd.data.identity import alike, nearly_alike, shown, spelling_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("007", "7"),
        ("0", "000"),
        ("107", "107.0"),
        ("107", "1.07E+02"),
        ("ab-12", "AB-12"),
        ("P 7", "p_007"),
        ("P7", " P7 "),
        ("José", "Jose\u0301"),
        ("PA1", "P\u0410\u0031"),
        ("P1", "P\u200b1"),
        ("P1", "\uff301"),
        ("LIDC-IDRI-0007", "LIDC-IDRI-7"),
        ("P 1", "P1"),
        ("P-1", "P1"),
        ("P.1", "P_001"),
        ("p1.", "p1"),
        ("-p1", "p1"),
        ("1,000", "1000"),
        ("S-1-A2", "S1-A2"),
    ],
)
def test_two_spellings_of_one_id_share_a_key(one, other):
    assert spelling_key(one) == spelling_key(other)
    assert alike([one, "else", other]) == [(one, other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "70"),
        ("1.1", "1.10"),
        ("107", "107.5"),
        ("P1-2", "P12"),
        ("a01b2", "a1b02"),
        ("Jose", "José"),
        ("p1", "q1"),
        ("1.5e0", "15"),
        ("1.01", "1.1"),
        ("1,00", "100"),
        ("P-1", "P-2"),
    ],
)
def test_different_ids_do_not(one, other):
    assert spelling_key(one) != spelling_key(other)
    assert alike([one, other]) == []


def test_repeats_are_one_spelling_and_look_alikes_are_shown_apart():
    assert alike(["7", "7", "8"]) == []
    assert shown(["PA", "P\u0410"]) == r"'PA' and 'P\u0410'"


@pytest.mark.parametrize(
    ("one", "other"), [("P-11", "P1-1"), ("P1-2", "P12"), ("1.1", "1-1"), ("a b", "ab")]
)
def test_ids_that_differ_in_separators_may_be_one_or_two_patients(one, other):
    assert alike([one, other]) == []
    assert nearly_alike([one, "else", other, one.lower()]) == [(one, other)]


@pytest.mark.parametrize(("one", "other"), [("P-1", "P1"), ("P-11", "P-12"), ("7", "007")])
def test_ids_of_one_key_or_with_other_letters_are_not_nearly_alike(one, other):
    assert nearly_alike([one, other]) == []
