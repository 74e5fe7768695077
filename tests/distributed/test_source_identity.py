"""Workers build for a driver with the same source, wherever it lies, and for no other."""

from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
from ray.actor import ActorHandle
from ray.exceptions import RayError

from namd.config.errors import InputError, StageError
from namd.config.search_path import ROOT
from namd.distributed import stage_worker
from namd.distributed.drawing import _one_line_errors
from namd.distributed.source_identity import SourceError, own_source, require_same_source
from namd.distributed.source_probe import require_answer
from namd.distributed.stage_worker import StageWorker
from namd.distributed.work import Bench, Parts, Work, ended
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Store
from namd.study.spec import StageResources

MODULE = "losses/alignment.py"


@pytest.fixture
def driver(tmp_path):
    """What a driver knows of a small namd."""
    return own_source(checkout(tmp_path / "driver"))


@pytest.fixture
def elsewhere(tmp_path):
    """Another folder with the same package."""
    return checkout(tmp_path / "elsewhere")


def checkout(folder: Path) -> Path:
    for name in ("__init__.py", "losses/__init__.py", MODULE):
        copy = folder / "namd" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / "namd" / name).read_text())
    return folder


def append(folder: Path, text: str) -> None:
    path = folder / "namd" / MODULE
    path.write_text(f"{path.read_text()}\n{text}\n")


def test_the_same_source_in_another_folder_is_the_same(driver, elsewhere):
    require_same_source(driver, elsewhere)
    assert own_source(elsewhere).file != driver.file


def test_a_comment_is_no_other_source(driver, elsewhere):
    append(elsewhere, "# A comment.")
    assert own_source(elsewhere).files_digest != driver.files_digest
    require_same_source(driver, elsewhere)


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_other_source_is_refused_with_both_files_and_hashes(driver, elsewhere, change):
    path = elsewhere / "namd" / MODULE
    if change == "edited":
        append(elsewhere, "EDITED = 1")
    elif change == "added":
        path.with_name("another.py").write_text("")
    else:
        path.unlink()
    with pytest.raises(SourceError) as refused:
        require_same_source(driver, elsewhere)
    line = str(refused.value)
    for source in (driver, own_source(elsewhere)):
        assert f"{source.version} of {source.file} (source {source.digest[:12]})" in line
    assert "\n" not in line


@pytest.mark.parametrize("same", [False, True])
def test_a_stage_worker_with_other_source_builds_nothing_and_says_so(
    tmp_path, driver, monkeypatch, same
):
    source = own_source() if same else driver
    bench = Bench("toys", str(tmp_path / "s"), Path("none"), Parts(), source)
    started = StageWorker(bench, Mock(spec=ActorHandle))
    monkeypatch.setattr(StageWorker, "_execute", lambda *_: None)
    monkeypatch.setattr(stage_worker, "_stoppable", lambda *_: nullcontext())
    monkeypatch.setattr(stage_worker, "run_values", lambda *_: {"auroc": 0.5})
    monkeypatch.setattr(StageWorker, "_open", lambda _: Mock(spec=Store))
    built = started.build(Work(1, (), "alone", StageResources()))
    rows = started.evaluate(Mock(spec=RunConfiguration), ())
    if same:
        assert (built.state, rows.values) == ("built", {"auroc": 0.5})
    else:
        assert (built.state, rows.values, rows.state) == ("unusable", None, "unusable")
        assert built.reason.startswith("a worker imports namd")
        assert rows.reason == built.reason


def test_a_node_answers_with_its_namd_or_with_none():
    own = own_source()
    require_answer("a", (own.version, "/opt/namd/__init__.py", own.files_digest), own)
    with pytest.raises(InputError, match=r"node b has namd 0\.0 of /opt/namd/__init__\.py"):
        require_answer("b", ("0.0", "/opt/namd/__init__.py", "0" * 64), own)
    with pytest.raises(InputError, match="node c has no namd"):
        require_answer("c", ("", "", ""), own)


def test_no_trial_is_to_blame_for_another_namd():
    assert ended(SourceError("another namd")).state == "unusable"
    assert ended(StageError("a body's fault")).state == "failed"


def test_a_drawing_worker_with_another_namd_is_distinguished_from_one_that_fails():
    text = "ray::DrawWorker()\nnamd.distributed.source_identity.SourceError: a worker imports x"
    with pytest.raises(SourceError, match="a worker imports x"), _one_line_errors():
        raise RayError(text)
