"""The table of planted faults fits the source, and the runner counts what it should."""

import contextlib
import dataclasses
import json

import pytest
import yaml

from tests.mutants import __main__ as runner
from tests.mutants.faults import (
    REPOSITORY,
    Fault,
    TableError,
    chosen,
    fast_options,
    read_table,
    require_fast,
)
from tests.mutants.trial import Outcome, copied, judged, planted, try_out

TABLE = read_table()
ROOMS = ("methods", "train", "sample", "evaluate", "data")
FAULT = Fault("n", "namd/a.py", "x + y", "x - y", "a difference", ("tests/test_house.py",))
FAST = fast_options((REPOSITORY / "Makefile").read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", sorted({fault.room for fault in TABLE}))
def test_every_fault_fits_its_file_once_and_can_be_read(room):
    own = [fault for fault in TABLE if fault.room == room]
    for fault in own:
        source = (REPOSITORY / fault.file).read_text(encoding="utf-8")
        if fault.file.endswith(".yaml"):
            assert yaml.safe_load(fault.planted(source)) != yaml.safe_load(source)
        else:
            compile(fault.planted(source), fault.file, "exec")
        require_fast(fault, FAST)
        assert fault.means.endswith(".")


def test_enough_faults_are_planted_in_the_rooms_that_compose():
    assert len(TABLE) >= 60
    planted_in = [fault.room for fault in TABLE]
    assert {room: planted_in.count(room) for room in ROOMS if planted_in.count(room) < 8} == {}


@pytest.mark.parametrize(
    ("source", "count"), [("z = x * y", 0), ("z = x + y\nw = x + y", 2)], ids=["gone", "twice"]
)
def test_a_fault_whose_text_is_gone_or_there_twice_is_named(source, count):
    with pytest.raises(TableError, match=f"n: its old text occurs {count} times in namd/a.py"):
        FAULT.planted(source)
    assert FAULT.planted("z = x + y") == "z = x - y"
    with pytest.raises(TableError, match="the same"):
        dataclasses.replace(FAULT, new=FAULT.old).planted("z = x + y")


def test_a_table_that_repeats_a_name_or_misses_a_field_is_refused(tmp_path):
    entry = '[[fault]]\nname = "n"\nfile = "f"\nold = "a"\nnew = "b"\nmeans = "m."\ntests = []\n'
    (tmp_path / "one.toml").write_text(entry)
    assert read_table(tmp_path)[0].old == "a"
    (tmp_path / "two.toml").write_text(entry)
    with pytest.raises(TableError, match="n: two faults"):
        read_table(tmp_path)
    (tmp_path / "two.toml").write_text(entry.replace('means = "m."\n', ""))
    with pytest.raises(TableError, match="n: means is missing"):
        read_table(tmp_path)


def test_tests_that_test_fast_leaves_out_catch_nothing(tmp_path):
    require_fast(FAULT, FAST)
    slow = dataclasses.replace(FAULT, tests=("tests/endtoend/test_tiny_run.py",))
    with pytest.raises(TableError, match=r"n: .* is no test of `make test-fast`"):
        require_fast(slow, FAST)
    with pytest.raises(TableError, match="no file"):
        require_fast(dataclasses.replace(FAULT, tests=("tests/test_nothing.py",)), FAST)
    makefile = 'PARALLEL_PART := x \\\n\t-m "not slow and not ray"\nSERIAL_PART := x -m "ray"\n'
    assert fast_options(makefile) == ("-m", "not slow and not ray")
    with pytest.raises(TableError, match="0 choices"):
        fast_options("test:\n\tpytest\n")


def test_names_rooms_and_files_choose():
    assert chosen(TABLE, []) == TABLE
    assert {fault.room for fault in chosen(TABLE, ["train"])} >= {"train"}
    (one,) = chosen(TABLE, ["guidance-sign"])
    assert one in chosen(TABLE, [one.file])
    with pytest.raises(TableError, match="nothing-like-it"):
        chosen(TABLE, ["nothing-like-it"])


def test_a_fault_is_planted_in_a_copy_and_taken_out_again(tmp_path):
    (tmp_path / "namd" / "__pycache__").mkdir(parents=True)
    (tmp_path / "namd" / "a.py").write_text("z = x + y\n")
    (tmp_path / "README.md").write_text("")
    with copied(tmp_path) as copy:
        assert not (copy / "namd" / "__pycache__").exists()
        (copy / "namd" / "__pycache__").mkdir()
        for _ in range(2):
            compiled = copy / "namd" / "__pycache__" / "a.cpython-311.pyc"
            compiled.touch()
            with planted(copy, FAULT):
                assert (copy / "namd" / "a.py").read_text() == "z = x - y\n"
                assert not compiled.exists(), "of the same size and second: it would be believed"
                compiled.touch()
            assert (copy / "namd" / "a.py").read_text() == "z = x + y\n"
            assert not compiled.exists()
        torn = dataclasses.replace(FAULT, new="x -")
        assert try_out(copy, torn, 1).state == "broken"
    assert (tmp_path / "namd" / "a.py").read_text() == "z = x + y\n"
    assert not copy.exists()


def report(tmp_path, inside):
    path = tmp_path / "report.xml"
    case = f'<testcase classname="tests.a" name="test_b">{inside}</testcase>'
    path.write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    return path


@pytest.mark.parametrize(
    ("exitcode", "inside", "state"),
    [
        (0, "", "survived"),
        (1, '<failure message="assert 1 == 2"/>', "caught"),
        (1, '<error message="failed on setup with &quot;assert 0&quot;"/>', "caught"),
        (1, '<failure message="ValueError: no"/>', "caught"),
        (1, '<error message="collection failure"/>', "broken"),
        (1, '<failure message="NameError: name z is not defined"/>', "broken"),
        (1, '<failure message="ImportError: z"/>', "broken"),
        (1, "", "broken"),
        (2, "", "broken"),
        (5, "", "broken"),
        (99, "", "broken"),
        (-9, "", "broken"),
    ],
)
def test_only_a_test_that_fails_catches_a_fault(tmp_path, exitcode, inside, state):
    assert judged(exitcode, report(tmp_path, inside), "last line").state == state


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The runner over twenty real faults of which the first so many survive; who was tried."""

    def run(survivors, *options):
        tried = []

        def outcome(_copy, fault, _timeout):
            tried.append(fault.name)
            number = [f.name for f in TABLE].index(fault.name)
            state = "survived" if number < survivors else "caught"
            return Outcome(state, "as made")

        monkeypatch.setattr(runner, "read_table", lambda: TABLE[:20])
        monkeypatch.setattr(runner, "copied", lambda: contextlib.nullcontext(tmp_path))
        monkeypatch.setattr(runner, "try_out", outcome)
        monkeypatch.setattr(runner, "run_tests", lambda *_a: Outcome("survived", ""))
        status = runner.main([f"--record={tmp_path / 'record.jsonl'}", "--jobs=1", *options])
        return status, tried

    return run


@pytest.mark.parametrize(("survivors", "status"), [(0, 0), (1, 0), (2, 1)])
def test_the_score_decides_the_exit_status(ran, capsys, survivors, status):
    assert ran(survivors)[0] == status
    captured = capsys.readouterr()
    assert f"{20 - survivors} of  20: {1 - survivors / 20:.1%}, 95% wanted" in captured.out
    for fault in TABLE[:survivors]:
        assert f"survived: {fault.name} ({fault.file})\n    {fault.means}" in captured.out
    assert "[20/20]" in captured.err


def test_json_holds_every_outcome(ran, capsys):
    ran(3, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["faults"], found["caught"], found["score"]) == (20, 17, 0.85)
    states = [entry["state"] for entry in found["outcomes"]]
    assert states == ["survived"] * 3 + ["caught"] * 17


def test_what_is_on_record_is_not_tried_again_unless_asked(ran, tmp_path, capsys):
    _, first = ran(1, TABLE[0].name)
    assert first == [f.name for f in TABLE[:20] if TABLE[0].name in f.name]
    with (tmp_path / "record.jsonl").open("a") as stream:
        stream.write('{"digest": "torn')
    assert len(ran(1)[1]) == 20 - len(first)
    assert ran(1, TABLE[0].name, "--again")[1] == first


def test_an_outcome_of_other_sources_does_not_count(ran, monkeypatch):
    assert len(ran(0)[1]) == 20
    assert ran(0)[1] == []
    monkeypatch.setattr(runner, "digests", lambda _root, faults: {f.name: f.name for f in faults})
    assert len(ran(0)[1]) == 20


def test_nothing_is_reported_while_the_tests_fail_without_a_fault(ran, monkeypatch, capsys):
    assert ran(0, TABLE[0].name)[0] == 0
    monkeypatch.setattr(runner, "run_tests", lambda *_a: Outcome("caught", "tests.a::test_b"))
    assert runner.main(["--again", "--record=/nonexistent/record", TABLE[0].name]) == 2
    assert "fail without any fault (tests.a::test_b)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fault_is_caught_by_tests_of_the_copy_and_a_harmless_one_survives():
    (real,) = chosen(TABLE, ["window-of-another-paper"])
    harmless = dataclasses.replace(real, new=f"{real.old}  # as it was")
    with copied() as copy:
        assert try_out(copy, real, 600).state == "caught"
        assert try_out(copy, harmless, 600).state == "survived"
        unimportable = dataclasses.replace(real, new=f"{real.old}\nimport nothing_like_it")
        assert try_out(copy, unimportable, 600).state == "broken"
