"""Whatever is wrong with a source: exit 2, one line about it, and nothing left behind."""

import io
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from namd.cli.main import main
from namd.config.seeding import generator
from tests.data.small_source import COUNT, SIDE, SmallSource


@pytest.fixture
def source(tmp_path) -> SmallSource:
    return SmallSource(tmp_path)


def refusal(source: SmallSource, capsys, *words: str) -> str:
    """Build what must be refused, and return the one line that says why."""
    capsys.readouterr()
    before = sorted(path.name for path in source.folder.iterdir())
    assert source.build(*words) == 2
    shown = capsys.readouterr().err.splitlines()
    errors = [line for line in shown if line.startswith("error: ")]
    assert len(errors) == 1
    assert len(errors[0]) < 600
    assert "Traceback" not in "\n".join(shown)
    assert sorted(path.name for path in source.folder.iterdir()) == before
    return errors[0]


def put(name, change):
    """Replace an array by what a function makes of it."""
    return lambda s: s.arrays.__setitem__(name, change(s.arrays.get(name, s.arrays["hu"])))


def follow(name=None, value=None):
    def bend(source):
        source.follow()
        if name is not None:
            source.arrays[name] = value

    return bend


def cell(column, value, line=3):
    def bend(source):
        if column not in source.table:
            source.table[column] = None
        source.table[column] = source.table[column].astype(object)
        source.table.loc[line, column] = value

    return bend


def column(**values):
    return lambda source: [source.table.__setitem__(n, v) for n, v in values.items()]


def renamed(old, new):
    def bend(source):
        source.table = source.table.rename(columns={old: new})

    return bend


def both(*bends):
    return lambda source: [bend(source) for bend in bends]


def padded_and_stored(padding):
    def change(hu):
        stored = hu.astype(np.int32) + 1024
        stored[:, :6] = padding
        return stored

    return change


def one_crop_stored(hu):
    hu = hu.copy()
    hu[5] += 1024
    return hu


SPOILT = {
    # Arrays of another kind or shape.
    "complex HU": (put("hu", lambda hu: hu.astype(complex)), "hu holds complex numbers"),
    "text as HU": (put("hu", lambda hu: hu.astype(str)), "hu holds text"),
    "bytes as HU": (put("hu", lambda hu: hu.astype("S6")), "hu holds text"),
    "dates as HU": (put("hu", lambda hu: hu.astype("M8[D]")), "hu holds dates"),
    "durations as HU": (put("hu", lambda hu: hu.astype("m8[s]")), "hu holds durations"),
    "booleans as HU": (put("hu", lambda hu: hu > 0), "hu holds booleans"),
    "objects as HU": (put("hu", lambda hu: hu.astype(object)), "hu holds objects"),
    "records as HU": (put("hu", lambda hu: hu.astype([("a", "i2")])), "hu holds records"),
    "no crop": (put("hu", lambda hu: hu[:0]), "give at least 1 crop"),
    "no pixel": (put("hu", lambda hu: hu[:, :0, :0]), "of 1 to 4096 pixels"),
    "one crop": (put("hu", lambda hu: hu[0]), r"hu has shape \(24, 24\)"),
    "oblong crops": (put("hu", lambda hu: hu[:, :20]), r"must be \(cases, size, size\)"),
    "NaN HU": (put("hu", lambda hu: np.where(hu > 0, np.nan, hu)), "is NaN or not within"),
    "infinite HU": (put("hu", lambda hu: np.where(hu > 0, np.inf, hu)), "is NaN or not within"),
    "small mask": (put("mask", lambda m: m[:, :8, :8]), "mask has shape"),
    "NaN mask": (put("mask", lambda m: np.where(m, 1, np.nan)), "mask of cases n0"),
    "soft mask": (put("mask", lambda m: np.where(m, 0.7, 0.2)), "mask of cases n0"),
    "inverted masks": (put("mask", lambda m: ~m), "mask of cases n0, .* covers most of"),
    "one inverted mask": (
        put("mask", lambda m: np.concatenate([m[:3], ~m[3:4], m[4:]])),
        "mask of cases n3 covers most of .* inverted",
    ),
    "empty masks": (put("mask", np.zeros_like), "no mask marks a pixel"),
    "labelled mask": (put("mask", lambda m: m * np.arange(1, SIDE + 1)), "mask of cases n0"),
    "negative mask": (put("mask", lambda m: np.where(m, -1, 0)), "mask of cases n0"),
    "text mask": (put("mask", lambda m: m.astype(str)), "mask holds text"),
    "has_followup alone": (put("has_followup", lambda _: np.ones(COUNT)), "without followup_hu"),
    "has_followup of text": (
        follow("has_followup", np.array(["False"] * COUNT)),
        "has_followup holds text",
    ),
    "has_followup of 2": (follow("has_followup", np.full(COUNT, 2)), "true or false, 0 or 1"),
    "has_followup of NaN": (follow("has_followup", np.full(COUNT, np.nan)), "true or false"),
    "few has_followup": (follow("has_followup", np.ones(3)), r"has_followup has shape \(3,\)"),
    "few follow-ups": (
        both(follow(), put("followup_hu", lambda hu: hu[:3])),
        "followup_hu has shape",
    ),
    "few ids": (put("nodule_id", lambda _: np.arange(3)), r"nodule_id has shape \(3,\)"),
    "other ids": (put("nodule_id", lambda _: np.arange(COUNT)), "do not lie where"),
    "objects beside": (put("more", lambda _: np.array([{}] * 3)), "more holds objects"),
    "no hu": (lambda s: s.arrays.pop("hu"), "no array `hu`; it holds mask"),
    # Intensities and sizes in other units.
    "stored values": (put("hu", lambda hu: hu + 1024), "stored values"),
    "stored and -976": (put("hu", padded_and_stored(-976)), "stored values"),
    "stored and -1024": (put("hu", padded_and_stored(-1024)), "stored values"),
    "stored and -2000": (put("hu", padded_and_stored(-2000)), "stored values"),
    "stored and -3024": (put("hu", padded_and_stored(-3024)), "stored values"),
    "one crop stored": (put("hu", one_crop_stored), "hu of cases n5 holds no lung"),
    "stored follow-ups": (
        both(follow(), put("followup_hu", lambda hu: hu + 1024)),
        "followup_hu lies within",
    ),
    "cm": (column(SCT_LONG_DIA=0.8, SCT_PERP_DIA=0.7), "median of 0.8, which cannot be mm"),
    "one in cm": (
        both(cell("SCT_LONG_DIA", 0.8), cell("SCT_PERP_DIA", 0.7)),
        "below 2 mm, .* crops-n3$",
    ),
    "perpendicular": (cell("SCT_PERP_DIA", 7), "SCT_PERP_DIA is above SCT_LONG_DIA in crops-n3$"),
    "later perpendicular": (
        both(follow(), column(followup_SCT_LONG_DIA=6, followup_SCT_PERP_DIA=7)),
        "followup_SCT_PERP_DIA is above",
    ),
    "later cm": (
        both(follow(), column(followup_SCT_LONG_DIA=0.9, followup_SCT_PERP_DIA=0.7)),
        "followup_SCT_LONG_DIA has a median of 0.9, which cannot be mm",
    ),
    "one later in cm": (
        both(
            follow(),
            column(followup_SCT_LONG_DIA=7),
            cell("followup_SCT_LONG_DIA", 0.9),
        ),
        "followup_SCT_LONG_DIA is below 2 mm, .* crops-n3",
    ),
    "masses later in cm": (
        both(follow(), column(SCT_LONG_DIA=60, SCT_PERP_DIA=50, followup_SCT_LONG_DIA=6.1)),
        "followup_SCT_LONG_DIA is 0.1 times SCT_LONG_DIA in the median; give both in mm",
    ),
    "width alone in cm": (
        column(SCT_PERP_DIA=0.5),
        "SCT_PERP_DIA is 0.083 times SCT_LONG_DIA in the median",
    ),
    "same day": (both(follow(), column(months=0)), "months is 0 beside .* no follow-up; give"),
    # Lines and crops that do not fit.
    "fewer lines": (lambda s: setattr(s, "table", s.table[:20]), "20 lines, .* holds 24 crops"),
    "more lines": (put("hu", lambda hu: hu[:9]), "mask has shape"),
    "row of text": (column(row="first"), "row of cases .* is no number"),
    "half a row": (column(row=0.5), "row must be a whole number"),
    "endless row": (both(column(row=range(COUNT)), cell("row", "1e300")), "must be a whole number"),
    "row twice": (column(row=0), "rows 0, .* are doubled"),
    # Values that are none.
    "dates": (cell("SCT_LONG_DIA", "2001-01-02"), r"is no number \('2001-01-02'\)"),
    "decimal comma": (cell("SCT_LONG_DIA", "6,5"), "write a decimal point, not a comma"),
    "infinite": (cell("SCT_LONG_DIA", "inf"), "is no number"),
    "overflow": (cell("SCT_LONG_DIA", "1e400"), r"not within 0\.5\.\.\.200"),
    "400 digits": (cell("label", "1" * 400), "label .* is none of 0, 1"),
    "dash": (cell("SCT_LONG_DIA", "-"), "what is not known is an empty field, NA"),
    "a word": (cell("SCT_LONG_DIA", "unknown"), "what is not known is an empty field, NA"),
    "no spacing": (cell("pixel_spacing_mm", "NULL"), "spacing_mm of cases n3 is missing"),
    "no patient": (cell("patient_id", "None"), "no patient_id in line 5$"),
    "escape in an id": (cell("patient_id", "p\x1b[2J"), "control or invisible .* line 5$"),
    "reversed id": (cell("patient_id", "\u202ep1"), "control or invisible .* in line 5$"),
    "endless id": (cell("patient_id", "p" * 5000), "more than 200 in all, in line 5$"),
    "endless split": (column(split="x" * 5000), "is 'xxx"),
    "half a reader": (column(n_readers=0.5), "readers of cases .* is no count"),
    "readers owed": (cell("n_readers", -1), "readers of cases n3 is no count"),
    "one case twice": (cell("nodule_id", "n2"), "case_id is not unique: crops-n2"),
    "side in words": (column(side="up", z_frac=0.5), "is neither R"),
    "height in per cent": (column(side="R", z_frac=50), "z_frac of cases .* is not within 0"),
    "no months": (both(follow(), column(months="")), "months is missing beside a follow-up"),
    # Splits and patients.
    "odd split": (column(split="a"), "is 'a'; write train, training, validation"),
    "half a split": (
        both(column(split="train"), cell("split", "")),
        "split of cases n3 is nothing",
    ),
    "leaking split": (column(split=["train", "test"] * 12), "patient in more than one split: p0"),
    "two spellings": (
        column(patient_id=["007", "7"] * 12, split=["train", "test"] * 12),
        "'007' and '7'",
    ),
    "a dash more": (
        column(patient_id=["P-1", "P1"] * 12, split=["train", "test"] * 12),
        "'P-1' and 'P1'",
    ),
    "thousands": (
        column(patient_id=["1,000", "1000"] * 12, split=["train", "test"] * 12),
        "'1,000' and '1000'",
    ),
    "nearly label": (renamed("label", "Label"), "column Label would not be used"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_each_fault_is_one_line_and_leaves_nothing(source, capsys, name):
    bend, message = SPOILT[name]
    bend(source)
    source.write()
    line = refusal(source, capsys)
    assert re.search(message, line), line


SOUND = {
    "as it is": lambda source: None,
    "floats": put("hu", lambda hu: hu.astype(np.float32)),
    "another byte order": put("hu", lambda hu: hu.astype(">i4")),
    "padding": put("hu", lambda hu: np.where(np.arange(SIDE) < 4, -1024, hu)),
    "mask of 255": put("mask", lambda m: m * np.uint8(255)),
    "mask of floats": put("mask", lambda m: m.astype(float)),
    "ids in bytes": put("nodule_id", lambda _: np.array([f"n{i}" for i in range(24)], "S")),
    "follow-ups": follow("has_followup", np.arange(COUNT) % 2),
    "some crops": both(lambda s: setattr(s, "table", s.table[:20]), column(row=range(20))),
    "crops that ids name": both(
        put("nodule_id", lambda _: np.array([f"n{i}" for i in range(24)])),
        lambda s: setattr(s, "table", s.table[:20]),
    ),
    "no diameter": column(SCT_LONG_DIA="#N/A", SCT_PERP_DIA="None"),
    "round nodules": column(SCT_PERP_DIA=6),
    "small nodules": column(SCT_LONG_DIA=3, SCT_PERP_DIA=0.9),
    "side": column(side="right", z_frac=1),
    "grown fourfold": both(follow(), column(followup_SCT_LONG_DIA=24, followup_SCT_PERP_DIA=6)),
    "shrunk": both(follow(), column(followup_SCT_LONG_DIA=3, followup_SCT_PERP_DIA=2)),
    "a day later": both(follow(), column(months=0.04)),
    "no time without follow-up": column(months=0),
    "own split": column(split=["train"] * 12 + ["val"] * 6 + ["TEST"] * 6),
    "one mask empty": put("mask", lambda m: m & (np.arange(COUNT) != 3)[:, None, None]),
    "other separators": column(patient_id=["P-11", "P1-1"] * 12, split=["train", "test"] * 12),
    "an array beside": put("more", lambda _: np.arange(3)),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_unusual_and_sound_is_built(source, name):
    SOUND[name](source)
    source.write()
    assert source.build() == 0
    assert (source.out / "cases.parquet").is_file()


def member(array, shape=None, dtype=None, version=(1, 0)) -> bytes:
    """Return an npy whose header may claim something else."""
    stream = io.BytesIO()
    header = {"descr": dtype or "<i2", "fortran_order": False, "shape": shape or array.shape}
    write = {(1, 0): np.lib.format.write_array_header_1_0}
    write[2, 0] = np.lib.format.write_array_header_2_0
    write[version](stream, header)
    return stream.getvalue() + array.tobytes()


def header_of(text: str) -> bytes:
    raw = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw


DAMAGED_MEMBERS = {
    "terabytes": lambda hu: member(hu, shape=(10**9, 24, 24)),
    "more than int64": lambda hu: member(hu, shape=(10**30, 24, 24)),
    "negative": lambda hu: member(hu, shape=(-24, 24, -24)),
    "another type": lambda hu: member(hu, dtype="<f8"),
    "cut short": lambda hu: member(hu)[:-100],
    "too long": lambda hu: member(hu) + b"more",
    "nothing": lambda hu: b"",
    "no magic": lambda hu: hu.tobytes(),
    "version 9": lambda hu: b"\x93NUMPY\x09\x00" + member(hu)[8:],
    "header of words": lambda hu: header_of("hello"),
    "header of code": lambda hu: header_of("__import__('os').getcwd()"),
    "open header": lambda hu: header_of("{'descr': '<i2', 'shape': (1,"),
    "deep header": lambda hu: header_of("(" * 5000),
    "no shape": lambda hu: header_of("{'descr': '<i2', 'fortran_order': False}"),
    "shape of words": lambda hu: header_of("{'descr':'<i2','fortran_order':False,'shape':('a',)}"),
    "type of words": lambda hu: header_of("{'descr':'wat','fortran_order':False,'shape':(1,1,1)}"),
    "header of bytes": lambda hu: b"\x93NUMPY\x01\x00\x10\x00" + b"\xff\xfe" * 8,
    "long header": lambda hu: b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + hu.tobytes(),
}


@pytest.mark.parametrize("name", DAMAGED_MEMBERS)
def test_a_damaged_header_is_refused_before_anything_is_unpacked(source, capsys, name):
    source.write()
    hu = source.arrays["hu"]
    source.write_members({"hu.npy": DAMAGED_MEMBERS[name](hu)})
    line = refusal(source, capsys)
    assert "c.npz: hu " in line
    assert "pickle" not in line


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_sound_header_is_read(source, version):
    source.write()
    source.write_members({"hu.npy": member(source.arrays["hu"], version=version), "note.txt": b""})
    assert source.build() == 0


def test_an_encrypted_archive_and_a_doubled_array_are_named(source, capsys):
    source.write()
    content = member(source.arrays["hu"])
    source.write_members({"hu.npy": content})
    raw = bytearray(source.images.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(magic) + place] |= 1
    source.images.write_bytes(bytes(raw))
    assert "hu is encrypted" in refusal(source, capsys)
    with zipfile.ZipFile(source.images, "w") as archive:
        archive.writestr("hu.npy", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("hu.npy", content)
    assert "hu.npy is in it more than once" in refusal(source, capsys)


def test_crops_that_shrink_like_a_bomb_or_exceed_the_memory_are_not_unpacked(
    source, capsys, monkeypatch
):
    source.write()
    source.write_members({"hu.npy": member(np.full((COUNT, 256, 256), -850, np.int16))})
    assert "no lung" not in refusal(source, capsys)
    monkeypatch.setattr("namd.data.sources.archive.BOMB_BYTES", 2**20)
    assert "crops of a scan do not shrink so far" in refusal(source, capsys)
    source.write()
    assert source.build() == 0
    (source.out / "card.json").unlink()
    (source.out / "cases.parquet").unlink()
    source.out.rmdir()
    monkeypatch.setattr("namd.data.sources.archive.MEMORY_SHARE", 1e-9)
    assert "of memory can be used" in refusal(source, capsys)


def test_bytes_flipped_anywhere_never_end_in_a_traceback(source, capsys):
    source.write()
    rng = generator("test-flipped-bytes")
    ends = {0: 0, 2: 0}
    for path in (source.images, source.csv):
        whole = path.read_bytes()
        places = [*range(0, 64, 4), *range(len(whole) - 90, len(whole), 5)]
        places += rng.integers(0, len(whole), 8).tolist()
        for number, place in enumerate(places):
            spoilt = bytearray(whole)
            spoilt[place] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(spoilt))
            source.out = source.folder / f"C-{path.name}-{number}"
            code = source.build()
            ends[code] += 1
            assert source.out.exists() == (code == 0)
            assert "Traceback" not in capsys.readouterr().err
        path.write_bytes(whole)
    assert ends[2] > 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id: null", "case_id cannot be null"),
        ("patient_id: null", "patient_id cannot be null"),
        ("spacing_mm: ~", "spacing_mm cannot be null"),
        ("label: [a, b]", "label must be the name of one column"),
        ("label: {a: b}", "label must be the name of one column"),
        ("lable: x", "did you mean label"),
        ("- a", "expected a mapping"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(source, capsys, text, message):
    source.write()
    mapping = source.folder / "map.yaml"
    mapping.write_text(text)
    assert message in refusal(source, capsys, "--columns", str(mapping))
    mapping.write_text("label: null")
    assert source.build("--columns", str(mapping)) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "1000000", "--spacing", "0.00001"], "size must be at most"),
        (["--simulate-followup", "--replicates", "100000000"], "GiB of crops"),
        (["--images", "."], "Is a directory"),
        (["--table", "."], "Is a directory"),
    ],
)
def test_what_cannot_be_done_is_not_begun(source, capsys, words, message):
    source.write()
    assert message in refusal(source, capsys, *words)


FULL_DISK = """
import resource, sys
from namd.cli.main import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk_leaves_neither_a_cohort_nor_its_folders(source):
    source.write()
    out = source.folder / "made" / "for" / "it"
    files = ["--images", str(source.images), "--table", str(source.csv)]
    words = ["cohort", "build", "crops", *files, "--size", "16", "--seed", "3", "--out", str(out)]
    ended = subprocess.run(
        # -B: Python would cut its own bytecode short too, and read it in the next process.
        [sys.executable, "-B", "-c", FULL_DISK, "2000", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "it: the cohort cannot be written (File too large)" in ended.stderr.splitlines()[-1]
    assert not (source.folder / "made").exists()
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "cases.parquet"]
    assert [path.name for path in out.parent.iterdir()] == ["it"]
