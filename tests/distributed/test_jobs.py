"""A study's jobs on a cluster: which id, whether to follow or to start, what failures print.

The client is faked at its boundary; one slow test submits to a cluster for real.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from namd.config.errors import InputError, StageError
from namd.distributed import jobs
from namd.distributed.jobs import (
    JobClient,
    KnownJob,
    Request,
    connect,
    decide,
    follow,
    known_jobs,
    parse_submission_id,
    submission_id,
    submit,
)

ADDRESS = "http://cluster:8265"
STUDIES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@dataclass
class FakeCluster:
    """A job server: takes an id once, remembers everything."""

    jobs: list[Any] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    logs: list[list[str]] = field(default_factory=list)
    before_submission: Any = None

    def add(self, study, attempt, status="RUNNING", fingerprint="f", code=None):
        details = SimpleNamespace(
            submission_id=submission_id(study, attempt),
            status=JobStatus(status),
            metadata={"namd_fingerprint": fingerprint},
            driver_exit_code=code,
        )
        self.jobs.append(details)
        return details

    def list_jobs(self) -> list[Any]:
        return list(self.jobs)

    def submit_job(self, **request: Any) -> str:
        if self.before_submission is not None:
            self.before_submission()
        name = request["submission_id"]
        if any(job.submission_id == name for job in self.jobs):
            raise RuntimeError(f"Job with submission_id {name} already exists.")
        study, attempt = parse_submission_id(name)
        self.add(study, attempt, "PENDING", request["metadata"]["namd_fingerprint"])
        self.submitted.append(request)
        return name

    def get_job_info(self, job_id: str) -> Any:
        (job,) = [job for job in self.jobs if job.submission_id == job_id]
        return job

    async def tail_job_logs(self, job_id: str):
        for text in self.logs.pop(0):
            if isinstance(text, Exception):
                raise text
            yield text


@pytest.fixture
def cluster():
    found = FakeCluster()
    assert isinstance(found, JobClient)
    return found


def request(study="ablation", **changes):
    values = {"file": PurePosixPath("experiments/study.yaml"), "fingerprint": "f", **changes}
    return Request(study=study, **values)


def sent(cluster, tmp_path, asked=None, **options):
    return submit(cluster, asked or request(), tmp_path / "p.zip", address=ADDRESS, **options)


@given(STUDIES, st.integers(1, 10_000))
def test_an_id_says_its_study_and_attempt(study, attempt):
    assert parse_submission_id(submission_id(study, attempt)) == (study, attempt)


def test_ids_of_others_are_left_alone():
    for name in ("raysubmit_x", "namd-x", "namd-x-0", "namd--1", "namd-x-01"):
        assert parse_submission_id(name) is None


def test_a_study_with_a_longer_name_is_another(cluster):
    cluster.add("ablation-2", 1)
    cluster.add("ablation", 2)
    cluster.jobs.append(SimpleNamespace(submission_id=None, status=JobStatus.RUNNING))
    assert [job.submission_id for job in known_jobs(cluster, "ablation")] == ["namd-ablation-2"]


def test_the_first_attempt_is_started(cluster, tmp_path):
    decision = sent(cluster, tmp_path)
    assert (decision.submission_id, decision.attempt, decision.found) == (
        "namd-ablation-1",
        1,
        None,
    )
    assert len(cluster.submitted) == 1


def test_asked_twice_it_is_started_once(cluster, tmp_path):
    first = sent(cluster, tmp_path)
    second = sent(cluster, tmp_path)
    assert second.submission_id == first.submission_id
    assert second.found is not None
    assert second.found.live
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize(("status", "code"), [("FAILED", 1), ("FAILED", 143), ("STOPPED", None)])
def test_what_ended_unfinished_is_resumed_by_the_next_attempt(cluster, tmp_path, status, code):
    cluster.add("ablation", 1, status, code=code)
    decision = sent(cluster, tmp_path)
    assert decision.submission_id == "namd-ablation-2"
    assert "--resume" in cluster.submitted[0]["entrypoint"].split()


def test_what_ended_well_is_not_run_again_unless_asked_otherwise(cluster, tmp_path):
    cluster.add("ablation", 1, "SUCCEEDED")
    assert sent(cluster, tmp_path).found is not None
    assert cluster.submitted == []
    assert sent(cluster, tmp_path, again=True).submission_id == "namd-ablation-2"


def test_a_study_file_that_asks_for_more_is_run(cluster, tmp_path):
    cluster.add("ablation", 1, "SUCCEEDED", fingerprint="before")
    assert sent(cluster, tmp_path).submission_id == "namd-ablation-2"


def test_attempts_go_on_from_the_ledger_where_the_cluster_is_new(cluster, tmp_path):
    assert sent(cluster, tmp_path, recorded=3).submission_id == "namd-ablation-4"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from(list(JobStatus))), max_size=8),
    st.integers(0, 20),
    st.booleans(),
)
def test_no_decision_ever_starts_beside_a_live_job_or_under_a_used_id(found, recorded, again):
    known = [
        KnownJob(submission_id("s", n), n, s.value, not s.is_terminal(), "f", None)
        for n, s in sorted(dict(found).items())
    ]
    decision = decide(request("s"), known, recorded, again)
    if any(job.live for job in known):
        assert decision.found is not None
        assert decision.found.live
    if decision.found is None:
        assert decision.submission_id not in {job.submission_id for job in known}
        assert decision.attempt > recorded


def test_of_two_submissions_at_one_moment_one_finds_the_other(cluster, tmp_path):
    cluster.before_submission = lambda: (
        setattr(cluster, "before_submission", None),
        cluster.add("ablation", 1),
    )
    decision = sent(cluster, tmp_path)
    assert decision.found is not None
    assert cluster.submitted == []


def test_a_cluster_that_refuses_is_quoted_in_one_line(cluster, tmp_path):
    def refuse():
        raise RuntimeError("Request failed with status code 500: no space.\nTraceback")

    cluster.before_submission = refuse
    with pytest.raises(StageError, match="no space") as raised:
        sent(cluster, tmp_path)
    assert "\n" not in str(raised.value)


def test_the_job_is_sent_with_its_sources_and_installs_nothing(cluster, tmp_path):
    sent(cluster, tmp_path, request(store="/store", cohort="/store/a cohort", version="0.1"))
    (job,) = cluster.submitted
    assert job["entrypoint"] == (
        "exec python -m namd.cli.main study run experiments/study.yaml --resume --address auto "
        "--store /store --cohort '/store/a cohort'"
    )
    assert job["runtime_env"].keys() == {"working_dir", "env_vars"}
    assert job["runtime_env"]["working_dir"].endswith("p.zip")
    assert int(job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert job["entrypoint_num_cpus"] == 0
    assert job["metadata"]["namd_study"] == "ablation"
    assert job["metadata"]["namd_version"] == "0.1"


def test_an_installation_leaves_torch_and_ray_as_the_image_has_them(cluster, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndependencies = ["torch>=2", "torchvision", "ray[tune]>=2",'
        ' "optuna>=4", "torchmetrics>=1"]\n'
    )
    packages = jobs.requirements_of(tmp_path)
    assert packages == ("optuna>=4", "torchmetrics>=1")
    sent(cluster, tmp_path, request(packages=packages))
    assert cluster.submitted[0]["runtime_env"]["uv"] == {"packages": list(packages)}
    with pytest.raises(InputError, match="names no dependencies"):
        jobs.requirements_of(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"])
def test_secrets_are_not_put_where_all_may_read_them(name):
    with pytest.raises(InputError, match=name):
        request(environment={name: "x"})
    assert request(environment={"HF_HUB_OFFLINE": "1"}).runtime_env(Path("p"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", "s3://me:hunter2" + "@bucket.example/x"),
        ("cohort", "https://me:hunter2" + "@host.example/cohort"),
        ("environment", {"PROXY": "http://me:hunter2" + "@proxy.example"}),
        ("environment", {"ACCESS": "AKIA" + "ABCDEFGHIJKLMNOP"}),
    ],
)
def test_secrets_inside_a_value_are_refused_and_not_repeated(field, value):
    with pytest.raises(InputError, match="everyone who may list jobs") as raised:
        request(**{field: value})
    assert "hunter2" not in str(raised.value)
    for plain in (
        {"store": "s3://bucket/x"},
        {"environment": {"PROXY": "http://proxy.example:80"}},
    ):
        assert request(**plain)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 143, 143),
        ("FAILED", None, 1),
        ("FAILED", -9, 1),
        ("STOPPED", None, 143),
        ("STOPPED", 143, 143),
    ],
)
def test_who_waits_ends_as_the_job_does(status, code, outcome):
    assert KnownJob("namd-s-1", 1, status, False, None, code).outcome == outcome


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_S", 0.0)


def test_a_log_is_reported_once_across_lost_connections(cluster, quick):
    job = cluster.add("ablation", 1)
    cluster.logs = [
        ["one\n", RuntimeError("WebSocket connection closed unexpectedly")],
        ["one\n", "two\n", ConnectionError("reset")],
        ["one\ntwo\nthr", "ee\n"],
    ]
    seen: list[str] = []
    job.status, job.driver_exit_code = JobStatus.FAILED, 2
    found = follow(cluster, job.submission_id, seen.append, address=ADDRESS)
    assert "".join(seen) == "one\ntwo\nthree\n"
    assert found.outcome == 2


def test_a_cluster_that_is_gone_is_given_up(cluster, quick, monkeypatch):
    monkeypatch.setattr(jobs, "LOST_S", -1.0)
    job = cluster.add("ablation", 1)
    cluster.logs = [[ConnectionError("refused")]]
    with pytest.raises(StageError, match="resumes the study"):
        follow(cluster, job.submission_id, lambda _text: None, address=ADDRESS)


@pytest.fixture
def answers(monkeypatch):
    """Lets a cluster answer each request with a status; returns the headers it saw."""
    seen: list[dict[str, str]] = []

    def answer(status):
        def reply(method, url, headers=None, **_rest):
            seen.append(headers or {})
            response = requests.Response()
            response.status_code = status
            response._content = b'{"ray_version": "2.60.0"}' if status == 200 else b"no"
            return response

        monkeypatch.setattr(requests, "request", reply)
        return seen

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return answer


def test_the_given_token_is_sent(answers, monkeypatch, tmp_path):
    seen = answers(200)
    connect(ADDRESS)
    assert "Authorization" not in seen[-1]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "word")
    connect(ADDRESS)
    assert seen[-1]["Authorization"] == "Bearer word"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text("other\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    connect(ADDRESS)
    assert seen[-1]["Authorization"] == "Bearer other"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    connect(ADDRESS)
    assert "Authorization" not in seen[-1]


@pytest.mark.parametrize(("status", "word"), [(401, "asks for a token"), (403, "refuses this")])
def test_a_missing_or_wrong_token_is_in_one_line(answers, status, word):
    answers(status)
    with pytest.raises(InputError, match=word) as raised:
        connect(ADDRESS)
    assert "RAY_AUTH_TOKEN_PATH" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_no_dashboard_is_in_one_line(answers):
    answers(404)
    with pytest.raises(InputError, match="no Ray dashboard answers") as raised:
        connect(ADDRESS)
    assert str(raised.value).startswith(ADDRESS)
    assert "\n" not in str(raised.value)


def test_a_token_refused_amid_submission_is_reported_the_same_way(cluster, tmp_path):
    def refuse():
        raise AuthenticationError("Authentication failed: Forbidden")

    cluster.before_submission = refuse
    with pytest.raises(InputError, match="refuses this token"):
        sent(cluster, tmp_path)


def test_a_token_file_that_is_not_there_is_named_before_ray_sees_it(answers, monkeypatch):
    answers(200)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(InputError, match="/nowhere/token"):
        connect(ADDRESS)


def test_nobody_answers(monkeypatch, answers):
    def refuse(*_words, **_rest):
        raise requests.exceptions.ConnectionError("refused")

    monkeypatch.setattr(requests, "request", refuse)
    with pytest.raises(InputError, match="no Ray dashboard answers"):
        connect(ADDRESS)


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://10.0.0.1:10001"])
def test_an_address_that_is_no_dashboard_is_refused(address):
    with pytest.raises(InputError, match="URL of the cluster's dashboard"):
        connect(address)


def test_the_given_address_wins_over_the_environment(answers, monkeypatch):
    answers(200)
    monkeypatch.setenv("RAY_ADDRESS", "http://other:1")
    assert connect(ADDRESS).get_address() == ADDRESS
    assert os.environ["RAY_ADDRESS"] == "http://other:1"


def test_attempts_are_read_from_the_ledger_where_it_is_to_be_read(tmp_path):
    from namd.ledger import schema
    from namd.ledger.schema import Identity
    from namd.ledger.writing import open_writer
    from namd.storage.local import LocalStorage

    with open_writer(LocalStorage(tmp_path), "ablation") as writer:
        for attempt in (1, 2):
            writer.append(Identity(None, attempt, schema.OPENED), {})
    assert jobs.recorded_attempts(str(tmp_path), "ablation") == 2
    assert jobs.recorded_attempts(str(tmp_path), "other") == 0
    assert jobs.recorded_attempts(str(tmp_path / "nothing"), "ablation") == 0
    assert jobs.recorded_attempts(None, "ablation") == 0
