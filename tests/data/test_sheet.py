import errno

import pytest

from namd.config.errors import InputError
from namd.data.sheet import write_sheet

PNG = b"\x89PNG"


def test_a_sheet_is_a_picture_of_the_chosen_cases(cohort, tmp_path):
    path = write_sheet(cohort, tmp_path / "deep" / "sheet.png", num=8)
    assert path.read_bytes().startswith(PNG)


def test_the_same_cohort_gives_the_same_sheet(cohort, tmp_path):
    one = write_sheet(cohort, tmp_path / "one.png", num=4).read_bytes()
    assert write_sheet(cohort, tmp_path / "two.png", num=4).read_bytes() == one
    assert write_sheet(cohort, tmp_path / "three.png", num=5).read_bytes() != one


def test_a_sheet_of_nothing_is_refused(cohort, tmp_path):
    with pytest.raises(InputError, match="--num 0"):
        write_sheet(cohort, tmp_path / "sheet.png", num=0)
    with pytest.raises(InputError, match="no case"):
        write_sheet(cohort.select([]), tmp_path / "sheet.png")


def test_a_full_disk_leaves_no_half_sheet(cohort, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(InputError, match=r"sheet\.png: cannot be written \(No space left"):
            write_sheet(cohort, tmp_path / "sheet.png", 1)
    assert list(tmp_path.iterdir()) == []
    write_sheet(cohort, tmp_path / "sheet.png", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
