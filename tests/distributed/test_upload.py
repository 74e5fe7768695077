"""What a job is sent: what a study needs; of everything else what was named, and is text."""

import os
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from planted import ASKED_FOR, DISGUISED, NEVER

from namd.config.errors import InputError
from namd.distributed import upload
from namd.distributed.content import refusal
from namd.distributed.upload import collect, is_source, write_archive

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY = PurePosixPath("experiments/study.yaml")
NEEDED = {
    "namd/cli/main.py": b"import namd\n",
    "namd/data/schema.py": b"",
    "namd/methods/namd/presets/tiny.yaml": b"vae: {}\n",
    "analysis/study_table.py": b"",
    "pyproject.toml": b"[project]\n",
    "requirements.lock": b"numpy==2.0 --hash=sha256:" + b"0" * 64,
    str(STUDY): b"name: x\n",
}


def put(root: Path, name: str, data: bytes = b"x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_all(root: Path, *files: dict[str, bytes]) -> None:
    for found in files:
        for name, data in found.items():
            put(root, name, data)


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


def names(found: upload.Upload) -> set[str]:
    return {str(path) for path in found.files}


@pytest.fixture(params=["tracked", "untracked", "without git"])
def checkout(request, tmp_path):
    """A checkout of namd with everything that people leave in one, also among its sources."""
    root = tmp_path / "project"
    put_all(root, NEEDED, NEVER, DISGUISED, ASKED_FOR)
    put_all(root / "namd" / "data", NEVER)
    put_all(root / "experiments", NEVER)
    if request.param != "without git":
        git(root, "init", "--quiet")
    if request.param == "tracked":
        git(root, "add", "--all", "--force")
    return root


def test_what_a_study_needs_is_sent_and_nothing_that_lies_beside_it(checkout):
    assert len(NEVER) + len(DISGUISED) > 60
    assert names(collect(checkout, STUDY)) == set(NEEDED)


def test_what_git_ignores_among_the_sources_stays(tmp_path):
    put_all(tmp_path, NEEDED, {"namd/private.py": b"", ".gitignore": b"private.py\nexperiments/\n"})
    git(tmp_path, "init", "--quiet")
    assert names(collect(tmp_path, STUDY)) == set(NEEDED)
    put(tmp_path, ".gitignore", b"experiments/\n")
    assert names(collect(tmp_path, STUDY)) == {*NEEDED, "namd/private.py"}


@pytest.mark.parametrize("name", [*NEVER, *DISGUISED])
def test_what_must_stay_is_refused_even_by_name(tmp_path, name):
    put_all(tmp_path, NEEDED, NEVER, DISGUISED)
    with pytest.raises(InputError) as raised:
        collect(tmp_path, STUDY, include=[tmp_path / name])
    assert name in str(raised.value)
    assert "--exclude" in str(raised.value)
    assert str(raised.value).count("\n") == 0
    assert "MRN" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ASKED_FOR)
def test_text_is_sent_if_it_is_included_by_name(tmp_path, name):
    put_all(tmp_path, NEEDED, ASKED_FOR)
    found = collect(tmp_path, STUDY, include=[tmp_path / name])
    assert names(found) == {*NEEDED, name}
    assert {str(path) for path in found.included} == {name}
    assert found.files[PurePosixPath(name)] == len(ASKED_FOR[name])


def test_a_folder_goes_without_what_git_ignores_and_one_bad_file_stops_it(tmp_path):
    put_all(tmp_path, NEEDED, {"mine/a.yaml": b"", "mine/deep/b.py": b"", "mine/secret.txt": b""})
    put(tmp_path, ".gitignore", b"secret.txt\nhidden/\n")
    put(tmp_path, "hidden/c.yaml")
    git(tmp_path, "init", "--quiet")
    mine = tmp_path / "mine"
    assert names(collect(tmp_path, STUDY, include=[mine])) - set(NEEDED) == {
        "mine/a.yaml",
        "mine/deep/b.py",
    }
    with pytest.raises(InputError, match="git ignores it"):
        collect(tmp_path, STUDY, include=[tmp_path / "hidden"])
    put(tmp_path, "mine/deep/series", DISGUISED["notes/series"])
    with pytest.raises(InputError, match="mine/deep/series: not sent"):
        collect(tmp_path, STUDY, include=[mine])
    found = collect(tmp_path, STUDY, include=[mine], exclude=["./mine/deep/"])
    assert names(found) - set(NEEDED) == {"mine/a.yaml"}


@pytest.mark.parametrize("mark", ["store.json", "cases.parquet"])
@pytest.mark.parametrize("given", ["people", "people/crops", "people/crops/one.txt", "."])
def test_nothing_is_taken_out_of_a_cohort_or_a_store(tmp_path, mark, given):
    put_all(tmp_path, NEEDED, {"people/crops/one.txt": b"", "other/one.txt": b""})
    assert "people/crops/one.txt" in names(collect(tmp_path, STUDY, include=[tmp_path / given]))
    put(tmp_path, f"people/{mark}")
    with pytest.raises(InputError, match="people is a cohort or a store"):
        collect(tmp_path, STUDY, include=[tmp_path / given])
    collect(tmp_path, STUDY, include=[tmp_path / "other"])


@pytest.mark.parametrize("folder", ["runs", "data", "store", "build", "wandb", "people", "left"])
def test_the_study_file_goes_wherever_it_lies_and_nothing_beside_it(tmp_path, folder):
    put_all(tmp_path, NEEDED, {f"{folder}/study.yaml": b"", f"{folder}/store.json": b""})
    put(tmp_path, f"{folder}/cases.parquet")
    found = collect(tmp_path, PurePosixPath(folder, "study.yaml"), exclude=[folder])
    assert names(found) == {*NEEDED, f"{folder}/study.yaml"} - {str(STUDY)}


def test_links_lead_nowhere(tmp_path):
    root = tmp_path / "project"
    outside = put(tmp_path, "outside/secret.txt")
    put_all(root, NEEDED, {"mine/a.txt": b""})
    (root / "mine" / "folder").symlink_to(outside.parent)
    (root / "link.txt").symlink_to(outside)
    (root / "other").symlink_to(outside.parent)
    (root / "inside").symlink_to(root / "mine")
    assert names(collect(root, STUDY)) == set(NEEDED)
    for name in ("mine", "link.txt", "other", "inside"):
        with pytest.raises(InputError, match="is a link"):
            collect(root, STUDY, include=[root / name])
    with pytest.raises(InputError, match="is outside"):
        collect(root, STUDY, include=[root / "other" / "secret.txt"])
    found = collect(root, STUDY, include=[root / "mine"], exclude=["mine/folder"])
    assert names(found) == {*NEEDED, "mine/a.txt"}
    assert names(collect(root, STUDY, include=[root / "inside" / "a.txt"])) == names(found)


@pytest.mark.parametrize("kept", [True, False], ids=["with git", "without git"])
@pytest.mark.parametrize("name", ["namd/data/schema.py", "namd/data", "namd", "pyproject.toml"])
def test_a_linked_source_is_refused_and_not_left_out(tmp_path, name, kept):
    root = tmp_path / "project"
    put_all(root, NEEDED)
    if kept:
        git(root, "init", "--quiet")
    assert names(collect(root, STUDY)) == set(NEEDED)
    (root / name).rename(tmp_path / "elsewhere")
    (root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        collect(root, STUDY)


@pytest.mark.parametrize("name", ["nothing.txt", "pipe", "../outside.txt"])
def test_what_is_no_file_of_the_project_is_refused(tmp_path, name):
    root = tmp_path / "project"
    put_all(root, NEEDED)
    put(tmp_path, "outside.txt")
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match=r"no such file|is not a file|is outside"):
        collect(root, STUDY, include=[root / name])


@pytest.mark.parametrize("name", ["nothing", "..", "../project2", "/"])
def test_what_cannot_be_left_out_is_refused(tmp_path, name):
    root = tmp_path / "project"
    put_all(root, NEEDED)
    with pytest.raises(InputError, match="no such file or folder"):
        collect(root, STUDY, exclude=[name])
    for given in ("analysis", "./analysis/", str(root / "analysis"), "namd/../analysis"):
        found = collect(root, STUDY, exclude=[given])
        assert set(NEEDED) - names(found) == {"analysis/study_table.py"}


def test_a_project_without_namd_is_sent_with_the_namd_that_runs(tmp_path):
    put_all(tmp_path, {str(STUDY): b"", "pyproject.toml": b"", "analysis/own.py": b"", "x.py": b""})
    found = collect(tmp_path, STUDY)
    assert found.sources == REPOSITORY
    assert names(found) - {str(STUDY)} == {
        str(path)
        for path in map(PurePosixPath, tracked("namd", "analysis"))
        if "__pycache__" not in path.parts
    }
    own = names(collect(tmp_path, STUDY, include=[tmp_path / "analysis"]))
    assert own - names(found) == {"analysis/own.py"}
    put(tmp_path, "analysis/study_table.py")
    with pytest.raises(InputError, match="collides with"):
        collect(tmp_path, STUDY, include=[tmp_path / "analysis"])


def test_an_installed_namd_may_be_made_of_links(tmp_path, monkeypatch):
    """As uv makes it, in an environment inside the project that git ignores."""
    cache, root = tmp_path / "cache", tmp_path / "project"
    put_all(root, {str(STUDY): b"", ".gitignore": b".venv\n"})
    git(root, "init", "--quiet")
    site = root / ".venv" / "site-packages"
    for name in ("namd/__init__.py", "namd/cli/main.py", "namd/people.csv"):
        target = put(cache, name)
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).symlink_to(target)
    monkeypatch.setattr(upload, "__file__", str(site / "namd" / "distributed" / "upload.py"))
    found = collect(root, STUDY)
    assert names(found) == {str(STUDY), "namd/__init__.py", "namd/cli/main.py"}


def tracked(*folders: str) -> list[str]:
    """Every file of ours in some folders that git tracks or would."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others"]
    done = subprocess.run(
        [*command, "--exclude-standard", *folders], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the git repository to know which files belong to it")
    return [name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]


def test_every_file_of_the_packages_is_a_source_and_may_go():
    """A new kind of file in a package must be entered, or it would be missing on the nodes."""
    for name in tracked("namd", "analysis"):
        assert is_source(PurePosixPath(name)), name
        assert refusal(PurePosixPath(name), (REPOSITORY / name).read_bytes()) is None, name
    assert not is_source(PurePosixPath("namd/nodules.csv"))
    assert not is_source(PurePosixPath("namd/data/lungs.yaml"))
    assert not is_source(PurePosixPath("experiments/alignment_check.py"))


def test_a_source_that_holds_a_key_stops_the_submission(tmp_path):
    put_all(tmp_path, NEEDED, {"namd/own.py": b"KEY = '''" + NEVER["id_rsa"] + b"'''\n"})
    with pytest.raises(InputError, match=r"own\.py: not sent \(a private key\)"):
        collect(tmp_path, STUDY)
    assert "namd/own.py" not in names(collect(tmp_path, STUDY, exclude=["namd/own.py"]))


def test_what_is_too_large_for_sources_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "LIMIT_BYTES", 2**20)
    put_all(tmp_path, NEEDED, {"notes/big/one.txt": b"x" * 2**20, "notes/small/one.txt": b"x"})
    notes = [tmp_path / "notes"]
    with pytest.raises(
        InputError, match=r"1\.0 MiB to send.*largest: notes/big 1\.0 MiB"
    ) as raised:
        collect(tmp_path, STUDY, include=notes)
    assert "\n" not in str(raised.value)
    assert "--exclude" in str(raised.value)
    found = collect(tmp_path, STUDY, include=notes, exclude=["notes/big"])
    assert names(found) == {*NEEDED, "notes/small/one.txt"}


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        collect(tmp_path / "nothing", STUDY)


def test_the_archive_holds_the_checked_bytes_and_depends_on_nothing_else(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    put_all(first, NEEDED)
    put_all(second, dict(reversed(NEEDED.items())))
    (second / "namd/cli/main.py").chmod(0o755)
    write_archive(collect(first, STUDY), tmp_path / "a.zip")
    found = collect(second, STUDY)
    put(second, str(STUDY), NEVER["SCAN.DCM"])
    write_archive(found, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == NEEDED
    put(second, str(STUDY), b"name: y\n")
    write_archive(collect(second, STUDY), tmp_path / "c.zip")
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "c.zip").read_bytes()
