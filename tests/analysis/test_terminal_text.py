"""A report on a terminal: nothing is wider than it, nothing is lost, nothing is markup."""

import pytest

from analysis.html_page import Table
from analysis.terminal_text import table_lines

TABLE = Table(
    ("arm", "changed", "seeds", "AUROC", "minus full", "p"),
    (
        ("full", "nothing", "2", "0.804 [0.632, 0.908]", "-", "-"),
        (
            "no_align",
            "vae.alignment.weight = 0",
            "2",
            "0.603 [0.425, 0.757]",
            "0.2 [0.1, 0.3]",
            "1",
        ),
        ("neither", "vae.a = 0\nvae.b = 1", "1 of 2", "0.600", "", "< 0.001"),
    ),
)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_table_fits_and_holds_every_word(width):
    lines = table_lines(TABLE, width)
    assert max(map(len, lines)) <= width
    found = " ".join(lines)
    cells = [cell for row in TABLE.rows for cell in row if cell != "-"]
    for word in (word for cell in cells for word in cell.split()):
        assert word in found
    assert "[0.632, 0.908]" in found
    assert not any(line.startswith("|") for line in lines)


def test_wide_columns_stand_beside_each_other_and_narrow_ones_do_not():
    wide, narrow = table_lines(TABLE, 120), table_lines(TABLE, 40)
    assert wide[0].split()[:3] == ["arm", "changed", "seeds"]
    assert any("no_align" in line and "0.603 [0.425, 0.757]" in line for line in wide)
    assert "arm no_align" in narrow
    assert not any("no_align" in line and "0.603" in line for line in narrow)


def test_an_interval_is_never_parted():
    for width in range(58, 90):
        assert any("[0.425, 0.757]" in line for line in table_lines(TABLE, width))
        assert any("< 0.001" in line for line in table_lines(TABLE, width))


def test_markup_in_a_cell_is_text():
    (line,) = [x for x in table_lines(Table(("a", "b"), (("[red]x[/red]", "y"),)), 80) if "x" in x]
    assert "[red]x[/red]" in line
