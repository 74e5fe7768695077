"""A contact sheet that cannot be is refused at once."""

import pytest

from namd.cli import main as front


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num", "0", "--out", "x.png"], "--num 0: a sheet shows at least 1 case"),
        (["--out", "x.txt"], "--out x.txt: a sheet is a PNG; name it x.png"),
        (["--out", "x"], "--out x: a sheet is a PNG; name it x.png"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused_before_the_cohort_is_read(words, message, capsys):
    assert front.main(["cohort", "show", "absent", *words]) == 2
    assert message in capsys.readouterr().err
    # What is right about the sheet leads on to the cohort, which is not there.
    assert front.main(["cohort", "show", "absent", "--num", "1", "--out", "x.PNG"]) == 2
    assert capsys.readouterr().err.startswith("error: absent")
