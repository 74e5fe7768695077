import gzip

import pytest

from namd.config.errors import InputError
from namd.data.sources.columns import read_columns
from namd.data.sources.delimited import read_delimited

NEEDED = ("nodule_id", "patient_id", "pixel_spacing_mm")
HEADER = ["nodule_id", "patient_id", "pixel_spacing_mm", "label"]
ROWS = [["n0", "p0", "0.6", "0"], ["n1", "p1", "0.7", "1"]]


def text_of(rows, delimiter=","):
    return "".join(delimiter.join(row) + "\n" for row in rows)


PLAIN = text_of([HEADER, *ROWS])

SAME_TABLE = {
    "plain": PLAIN,
    "comma at the end of each row": text_of([HEADER, *([*row, ""] for row in ROWS)]),
    "commas at the end of every line": text_of([[*row, "", ""] for row in (HEADER, *ROWS)]),
    "comma at the end of the header": text_of([[*HEADER, ""], *ROWS]),
    "semicolon": text_of([HEADER, *ROWS], ";"),
    "tab": text_of([HEADER, *ROWS], "\t"),
    "declared comma": "sep=,\n" + PLAIN,
    "declared semicolon": "sep=;\r\n" + text_of([HEADER, *ROWS], ";"),
    "mark of UTF-8": "\ufeff" + PLAIN,
    "Windows": PLAIN.replace("\n", "\r\n"),
    "blank lines": "\n" + PLAIN.replace("\n", "\n\n"),
    "spaces": PLAIN.replace(",", " , "),
    "quotes": text_of([[f'"{cell}"' for cell in row] for row in (HEADER, *ROWS)]),
}


@pytest.mark.parametrize("name", SAME_TABLE)
def test_one_table_in_many_spellings_has_its_columns_in_place(name, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(SAME_TABLE[name], newline="")
    table = read_delimited(path, NEEDED).table
    assert list(table.columns) == HEADER
    assert table.to_numpy().tolist() == ROWS


@pytest.mark.parametrize("encode", [gzip.compress, lambda raw: raw.decode().encode("utf-16")])
def test_packed_and_wide_files_are_read(encode, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(encode(PLAIN.encode()))
    assert read_delimited(path, NEEDED).table.to_numpy().tolist() == ROWS


REFUSED = {
    "longer row": (text_of([HEADER, ROWS[0], [*ROWS[1], "9"]]), "line 3 has 5 fields .* header 4"),
    "value behind commas": (text_of([HEADER, [*ROWS[0], "", "9"]]), "line 2 has 6 fields"),
    "shorter row": (text_of([HEADER, ROWS[0], ROWS[1][:3]]), "line 3 has 3 fields .* header 4"),
    "value under an empty name": (text_of([[*HEADER, ""], [*ROWS[0], "9"]]), "line 2 has 5 fields"),
    "doubled column": (text_of([[*HEADER, "label"], [*ROWS[0], "1"]]), "label is named 2 times"),
    "header alone": (text_of([HEADER]), "a header and no case below it"),
    "nothing": ("", "holds no header"),
    "commas alone": (",,,\n,,,\n", "holds no header"),
    "odd declaration": ("sep=#\n" + PLAIN, "declares '#' as delimiter; use a comma"),
    "open quote": (PLAIN + '"n2,p2\n', "line 4: not a CSV"),
    "open quote above": (
        PLAIN + 'n2,p2,0.6,"1\nn3,p3,0.6,1\nn4,p4,0.6,1\n',
        "line 4: not a CSV: a quoted field opens there and runs on to line 6 .*; a stray quote",
    ),
    "quote closed by another": (
        PLAIN + 'n2,p2,0.6,"1\nn3,"p3",0.6,1\n',
        "line 4: not a CSV: a quoted field opens there and runs on to line 5",
    ),
    "swallowed rows": (
        PLAIN + 'n2,p2,0.6,"1\nn3,p3,0.6,1\nn4,p4,0.6,1"\nn5,p5,0.6,1\n',
        "runs from line 4 to line 6 and holds whole rows; remove a stray quote",
    ),
    "swallowed in the middle": (
        PLAIN + 'n2,"p2,0.6,1\nn3,p3,0.6,1\nn4,p4",0.6,1\n',
        "runs from line 4 to line 6 and holds whole rows",
    ),
    "NUL": (PLAIN + "n\0,p,1,1\n", "NUL bytes"),
    "workbook": ("PK\x03\x04rest", "a workbook or zip archive; save the sheet as CSV"),
    "Parquet": ("PAR1rest", "a Parquet file; save it as CSV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_never_shifted_cut_or_filled(name, tmp_path):
    text, message = REFUSED[name]
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    with pytest.raises(InputError, match=message):
        read_delimited(path, NEEDED)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("Grün".encode("latin-1"), r"not a CSV in UTF-8 \(byte 2\); save it as CSV UTF-8"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "cannot be unpacked"),
        (b"\x1f\x8b\x08rubbish", "cannot be unpacked"),
    ],
)
def test_bytes_that_are_no_text_are_named(raw, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message):
        read_delimited(path, NEEDED)


def test_more_than_a_table_holds_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(PLAIN.encode() + b" " * 5000))
    assert len(read_delimited(path, NEEDED).table) == 2
    monkeypatch.setattr("namd.data.sources.delimited.MAX_BYTES", 4000)
    with pytest.raises(InputError, match="holds more than"):
        read_delimited(path, NEEDED)


@pytest.mark.parametrize(
    "spelling",
    ["", "NA", "na", "N/A", "#N/A", "NaN", "None", "none", "NULL", "<NA>", ".", ".M", ".n"],
)
def test_spellings_of_missing_are_all_missing(spelling, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN + f"n2,p2,0.6,{spelling}\n")
    assert read_columns(path).words["label"].tolist() == ["0", "1", None]


def test_an_id_may_not_be_missing_and_the_line_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN + '\n"n\'2",None,0.6,1\n')
    with pytest.raises(InputError, match=r"no patient_id in line 5$"):
        read_columns(path)
    path.write_text(PLAIN + "n2,p\x1b[31m,0.6,1\n")
    with pytest.raises(InputError, match=r"patient_id holds a control or .* in line 4$"):
        read_columns(path)


def test_a_column_that_is_not_found_names_those_that_are_and_the_delimiter(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN.replace(",", ";").replace("patient_id", "who"))
    with pytest.raises(InputError, match=r"no column patient_id .* who, .*\(delimiter semicolon\)"):
        read_columns(path)


def test_columns_that_are_not_used_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",nodule_id,patient_id,pixel_spacing_mm,label,dose\n1,n0,p0,0.6,1,2\n")
    assert read_columns(path).unused == ["dose", "column 1 (without a name)"]
    path.write_text(PLAIN)
    assert read_columns(path).unused == []


@pytest.mark.parametrize("name", ["Label", "LABEL", "la-bel", "label_"])
def test_a_column_that_nearly_has_our_name_is_not_passed_over(name, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN.replace("label", name))
    with pytest.raises(InputError, match=f"column {name} would not be used"):
        read_columns(path)
    assert read_columns(path, {"label": None}).unused == [name]
    assert read_columns(path, {"label": name}).words["label"].tolist() == ["0", "1"]


def test_fields_over_several_lines_are_read_and_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN + 'n2,p2,0.6,"a\nb, and c"\nn3,p3,0.6,1\n\n"n4",p4,0.6,"1\n\n"\n')
    file = read_delimited(path, NEEDED)
    assert file.table["nodule_id"].tolist() == ["n0", "n1", "n2", "n3", "n4"]
    assert file.spans == [(4, 5), (8, 10)]
    (remark,) = read_columns(path).remarks
    assert "run over lines 4-5, 8-10;" in remark
    path.write_text(PLAIN)
    assert read_columns(path).remarks == []


def test_several_lines_without_an_id_are_all_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN + "n2,,0.6,1\nn3,,0.6,1\n")
    with pytest.raises(InputError, match=r"no patient_id in lines 4, 5$"):
        read_columns(path)
