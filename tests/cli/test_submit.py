"""`namd submit` up to the cluster: what is refused before anything is sent, and what is printed."""

import json
import zipfile
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from namd.cli.main import main
from namd.distributed import jobs
from namd.distributed.jobs import parse_submission_id

ADDRESS = "http://cluster:8265"
STUDY = """
name: two-arms
base: {preset: tiny, method: namd, cohort: phantom, store: ...}
seeds: 1
ablation: {design: arms, toggles: {align: {vae.alignment.weight: 0}}}
"""


class Cluster:
    """A job server that ends every job at once."""

    def __init__(self, ending=JobStatus.SUCCEEDED, code=0):
        self.jobs, self.ending, self.code, self.sent = {}, ending, code, []

    def list_jobs(self) -> list:
        return list(self.jobs.values())

    def submit_job(self, **request) -> str:
        name = request["submission_id"]
        assert parse_submission_id(name) is not None
        with zipfile.ZipFile(request["runtime_env"]["working_dir"]) as packed:
            self.sent = packed.namelist()
        self.jobs[name] = SimpleNamespace(
            submission_id=name,
            status=self.ending,
            metadata=request["metadata"],
            driver_exit_code=self.code,
            entrypoint=request["entrypoint"],
        )
        return name

    def get_job_info(self, job_id: str):
        return self.jobs[job_id]

    async def tail_job_logs(self, job_id: str):
        yield "one line\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("NAMD_STORE", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = []\n')
    file = tmp_path / "experiments" / "study.yaml"
    file.parent.mkdir()
    file.write_text(STUDY)
    return file


@pytest.fixture
def cluster(monkeypatch):
    found = Cluster()
    monkeypatch.setattr(jobs, "connect", lambda _address: found)
    return found


def submitted(project, *words):
    return main(["submit", str(project), "--address", ADDRESS, *words])


def last_object(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_study_is_submitted_and_found_again(project, cluster, capsys):
    assert submitted(project, "--store", "/store", "--json") == 0
    answer = last_object(capsys)
    assert answer["submission_id"] == "namd-two-arms-1"
    assert (answer["attempt"], answer["attached"], answer["status"]) == (1, False, "SUBMITTED")
    assert " experiments/study.yaml " in cluster.jobs["namd-two-arms-1"].entrypoint
    assert submitted(project, "--store", "/store", "--json") == 0
    again = last_object(capsys)
    assert (again["submission_id"], again["attached"]) == ("namd-two-arms-1", True)
    assert submitted(project, "--store", "/elsewhere", "--json") == 0
    assert last_object(capsys)["submission_id"] == "namd-two-arms-2"


@pytest.mark.parametrize(("ending", "code", "left"), [("SUCCEEDED", 0, 0), ("FAILED", 143, 143)])
def test_who_waits_sees_the_log_and_ends_as_the_job_does(
    project, cluster, capsys, ending, code, left
):
    cluster.ending, cluster.code = JobStatus(ending), code
    assert submitted(project, "--store", "/store", "--wait", "--json") == left
    captured = capsys.readouterr()
    assert "one line" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["exit"] == left


def test_who_does_not_wait_does_not_hear_of_the_end(project, cluster, capsys):
    cluster.ending, cluster.code = JobStatus.FAILED, 1
    assert submitted(project, "--store", "/store") == 0
    assert "one line" not in capsys.readouterr().err


def test_the_stores_variable_stands_in_for_the_option(project, cluster, monkeypatch):
    monkeypatch.setenv("NAMD_STORE", "/from/environment")
    assert submitted(project) == 0
    assert "--store /from/environment" in cluster.jobs["namd-two-arms-1"].entrypoint


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no store"),
        (["--store", "relative/store"], "relative folder"),
        (["--store", "/store", "--cohort", "mine"], "relative folder"),
        (["--store", "/store", "--env", "NAME"], "expected NAME=VALUE"),
        (["--store", "/store", "--env", "WANDB_API_KEY=x"], "everyone who may list jobs"),
        (["--store", "/store", "--working-dir", "/"], "--exclude"),
        (["--store", "/store", "--install", "--image-has-dependencies"], "not allowed with"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_sent(
    project, cluster, capsys, monkeypatch, tmp_path, words, expected
):
    if "/" in words:
        from namd.distributed import upload

        monkeypatch.setattr(upload, "LIMIT_BYTES", 10)
        words = [str(tmp_path) if word == "/" else word for word in words]
    assert submitted(project, *words) == 2
    captured = capsys.readouterr().err
    assert expected in captured
    assert captured.count("\n") == 1
    assert cluster.jobs == {}


def planted(project, tmp_path):
    """What lies in people's projects, beside the study file and above it."""
    for folder in (tmp_path, project.parent):
        for name in ("nodules.npz", "nodules.csv", "SCAN.DCM", ".env", "id_rsa", "notes.txt"):
            (folder / name).write_text("MRN-1\n")


def test_a_dry_run_lists_every_file_with_its_bytes_and_needs_no_cluster(
    project, capsys, monkeypatch, tmp_path
):
    def connect(_address):
        raise AssertionError("a dry run asks no cluster")

    monkeypatch.setattr(jobs, "connect", connect)
    planted(project, tmp_path)
    assert main(["submit", str(project), "--dry-run", "--json"]) == 0
    answer = last_object(capsys)
    sizes = {entry["path"]: entry["bytes"] for entry in answer["files"]}
    assert sizes["experiments/study.yaml"] == len(STUDY)
    assert sizes.keys() - {"experiments/study.yaml"} == {
        name for name in sizes if name.startswith(("namd/", "analysis/"))
    }
    assert "namd/cli/main.py" in sizes
    assert answer["bytes"] == sum(sizes.values())
    assert (answer["included"], answer["missing"]) == ([], ["--address", "--store"])
    words = ["--include", str(tmp_path / "nodules.csv"), "--store", "/store", "--address", ADDRESS]
    assert main(["submit", str(project), "--dry-run", "--json", *words]) == 0
    answer = last_object(capsys)
    assert {"path": "nodules.csv", "bytes": 6} in answer["files"]
    assert (answer["included"], answer["missing"]) == (["nodules.csv"], [])
    assert main(["submit", str(project), "--dry-run"]) == 0
    assert f"{len(STUDY):>9}  experiments/study.yaml\n" in capsys.readouterr().out


def test_what_is_included_is_listed_before_anything_goes(project, cluster, capsys, tmp_path):
    planted(project, tmp_path)
    words = ["--store", "/store", "--include", str(tmp_path / "notes.txt")]
    assert submitted(project, *words, "--include", str(tmp_path / "nodules.csv")) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["included: nodules.csv, 6 B", "included: notes.txt, 6 B"]
    assert "submitted" in said[2]
    assert set(cluster.sent) >= {"nodules.csv", "notes.txt", "experiments/study.yaml"}


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_an_included_scan_or_key_is_refused_and_nothing_is_sent(
    project, cluster, capsys, tmp_path, words
):
    planted(project, tmp_path)
    for name in ("SCAN.DCM", "id_rsa", "nodules.npz"):
        include = ["--include", str(tmp_path / name)]
        assert submitted(project, "--store", "/store", *include, *words) == 2
        captured = capsys.readouterr()
        assert f"{name}: not sent" in captured.err
        assert captured.err.count("\n") == 1
    assert cluster.jobs == {}


def test_a_study_file_in_no_project_goes_alone_with_namd(project, cluster, tmp_path):
    (tmp_path / "pyproject.toml").unlink()
    planted(project, tmp_path)
    assert submitted(project, "--store", "/store") == 0
    own = {name for name in cluster.sent if not name.startswith(("namd/", "analysis/"))}
    assert own == {"study.yaml"}


def test_a_study_file_outside_the_project_is_refused(project, cluster, capsys, tmp_path):
    (tmp_path / "other").mkdir()
    words = ["--store", "/store", "--working-dir", str(tmp_path / "other")]
    assert submitted(project, *words) == 2
    assert "lies outside" in capsys.readouterr().err
    assert submitted(project, "--store", "/store", "--working-dir", str(tmp_path)) == 0


def test_a_study_that_its_method_does_not_know_is_refused_here(project, cluster, capsys):
    project.write_text(STUDY.replace("alignment.weight", "alignment.wieght"))
    assert submitted(project, "--store", "/store") == 2
    assert "wieght" in capsys.readouterr().err
    assert cluster.jobs == {}


def test_without_an_address_there_is_no_cluster(project, cluster, capsys):
    assert main(["submit", str(project), "--store", "/store"]) == 2
    assert "--address" in capsys.readouterr().err
