"""What a job is sent: sources, and nothing that may be about people."""

import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.config.errors import InputError
from namd.distributed import upload
from namd.distributed.upload import collect, write_archive

STAYS = (
    ".git/objects/12/34",
    ".venv/lib/module.py",
    "namd/__pycache__/module.pyc",
    ".mypy_cache/x.json",
    "wandb/run.txt",
    "runs/one/metrics.jsonl",
    "data/patients.csv",
    "stores/mine/x.json",
    "scans/one.dcm",
    "tables/people.parquet",
    "elsewhere/store.json",
    "elsewhere/vae/manifest.json",
    "people/cases.parquet",
    "people/card.json",
    "people/crops/one.txt",
)
GOES = ("namd/data/schema.py", "namd/cli/store.py", "experiments/study.yaml", "README.md")


def put(root: Path, name: str, size: int = 1) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


def names(found: upload.Upload) -> set[str]:
    return {str(path) for path in found.files}


@pytest.fixture(params=["with git", "without git"])
def project(request, tmp_path):
    """A project with sources and with everything that must stay here."""
    root = tmp_path / "project"
    root.mkdir()
    if request.param == "with git":
        git(root, "init", "--quiet")
    for name in (*STAYS, *GOES):
        put(root, name)
    return root


def test_sources_go_and_data_stores_and_caches_stay(project):
    assert names(collect(project)) == set(GOES)


def test_what_is_left_out_by_name_stays_too(project):
    assert names(collect(project, ["experiments", "./README.md"])) == {
        "namd/data/schema.py",
        "namd/cli/store.py",
    }


def test_what_git_ignores_stays_save_the_study_file(tmp_path):
    git(tmp_path, "init", "--quiet")
    put(tmp_path, ".gitignore").write_text("private/\n")
    study, other = put(tmp_path, "private/study.yaml"), put(tmp_path, "private/other.yaml")
    assert names(collect(tmp_path)) == {".gitignore"}
    assert names(collect(tmp_path, keep=[study])) == {".gitignore", "private/study.yaml"}
    assert other.is_file()


@pytest.mark.parametrize("folder", ["runs", "data", "store", "build", "wandb", "people", "left"])
def test_the_study_file_goes_wherever_it_lies_and_nothing_beside_it(project, folder):
    study = put(project, f"{folder}/study.yaml")
    put(project, f"{folder}/cases.parquet")
    assert names(collect(project, ["left"], keep=[study])) == {*GOES, f"{folder}/study.yaml"}


def test_links_are_not_followed(tmp_path):
    outside = put(tmp_path, "outside/secret.txt")
    put(tmp_path, "project/module.py")
    (tmp_path / "project" / "link.txt").symlink_to(outside)
    (tmp_path / "project" / "folder").symlink_to(outside.parent)
    assert names(collect(tmp_path / "project")) == {"module.py"}


def test_a_project_with_data_left_in_it_is_refused_and_the_data_named(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "LIMIT_BYTES", 2**20)
    put(tmp_path, "module.py", 1000)
    put(tmp_path, "notes/big/one.bin", 2**20)
    put(tmp_path, "notes/small/one.bin", 10)
    with pytest.raises(InputError, match=r"1\.0 MiB to send.*largest: notes/big 1\.0 MiB") as told:
        collect(tmp_path)
    assert "\n" not in str(told.value)
    assert "--exclude" in str(told.value)
    assert names(collect(tmp_path, ["notes/big"])) == {"module.py", "notes/small/one.bin"}


def test_history_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "LIMIT_BYTES", 100)
    put(tmp_path, ".git/objects/pack", 1000)
    put(tmp_path, "module.py", 10)
    assert collect(tmp_path).num_bytes == 10


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        collect(tmp_path / "nothing")


def test_the_archive_holds_the_files_and_depends_on_nothing_else(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for root, order in ((first, GOES), (second, reversed(GOES))):
        for name in order:
            put(root, name).write_text(name)
    write_archive(collect(first), tmp_path / "a.zip")
    write_archive(collect(second), tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert {name: packed.read(name).decode() for name in packed.namelist()} == {
            name: name for name in GOES
        }
    put(second, GOES[0]).write_text("changed")
    write_archive(collect(second), tmp_path / "c.zip")
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "c.zip").read_bytes()


@given(st.dictionaries(st.sampled_from(["a", "a/b", "a/b/c", "d/e"]), st.integers(0, 100)))
def test_folders_sum_to_the_whole(sizes):
    files = {PurePosixPath(f"{name}/file.py"): size for name, size in sizes.items()}
    found = upload.Upload(Path(), files)
    assert sum(size for _, size in found.largest()) == found.num_bytes
