"""Studies as jobs of a remote Ray cluster: submitted once, found again, followed to their end.

A thin layer over Ray's JobSubmissionClient.
"""

import asyncio
import os
import re
import shlex
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from namd.config.errors import InputError, StageError
from namd.config.places import local_path
from namd.distributed.content import secret_in

STOPPED = 143
FAILED = 1

CLUSTERS_OWN = re.compile(r"(torch|torchvision|ray)\b")
"""Requirements that the nodes' image provides: another torch means gigabytes and other kernels, and
another Ray cannot talk to the cluster's."""

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW(OR)?D|CREDENTIAL", re.IGNORECASE)

LOST_S = 120.0
"""Seconds without an answer after which `follow` gives the cluster up."""

POLL_S = 2.0
_TRIES = 3
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # Ray kills a stopped job after 3 s; saving and uploading a checkpoint takes longer.
    "RAY_JOB_STOP_WAIT_TIME_S": "120",
}
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@runtime_checkable
class JobClient(Protocol):
    """The part of JobSubmissionClient that is used here."""

    def list_jobs(self) -> list[Any]:
        """Return the details of all jobs that the cluster knows."""

    def submit_job(self, **request: Any) -> str:  # noqa: ANN401 - Ray's keywords
        """Start a job. Raises RuntimeError if its id is taken."""

    def get_job_info(self, job_id: str) -> Any:  # noqa: ANN401 - Ray's JobDetails
        """Return a job's details."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """Yield the job's output, from its beginning, until it ends."""


@dataclass(frozen=True)
class Request:
    """A study to be run on a remote cluster.

    Attributes:
        study: The study's name.
        file: The study file, relative to the root of the upload.
        fingerprint: Hash of the study file's contents, store and cohort.
        store: URL, or folder on the cluster's nodes; None: the study file's.
        cohort: Folder on the cluster's nodes, or `phantom`; None: the study file's.
        version: The project's version, shown in lists of jobs.
        packages: Requirements to install on every node; none if the image has them.
        environment: The job's variables, visible to everyone who may list jobs.
    """

    study: str
    file: PurePosixPath
    fingerprint: str
    store: str | None = None
    cohort: str | None = None
    version: str = ""
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse secrets, which everyone who may list jobs could read."""
        for option, place in (("--store", self.store), ("--cohort", self.cohort)):
            if place is not None and secret_in(place):
                raise InputError(
                    f"{option}: contains {secret_in(place)}, and everyone who may list jobs can "
                    "read a job's command; put it into the nodes' environment and pass the path "
                    "without it"
                )
        for name, value in (self.environment or {}).items():
            if SECRET.search(name) or secret_in(value):
                raise InputError(
                    f"{name}: everyone who may list jobs can read a job's variables; put it on the "
                    "nodes instead, as a secret of the pods or in the nodes' environment"
                )

    @property
    def entrypoint(self) -> str:
        """The command that the cluster runs.

        Always with `--resume`, which also starts a new study: only the store knows whether it is
        new. With `exec`, so that signals reach the driver and not a shell.
        """
        words = [
            "exec",
            "python",
            "-m",
            "namd.cli.main",
            "study",
            "run",
            str(self.file),
            "--resume",
        ]
        words += ["--address", "auto"]
        if self.store is not None:
            words += ["--store", self.store]
        if self.cohort is not None:
            words += ["--cohort", self.cohort]
        return shlex.join(words)

    def runtime_env(self, package: Path) -> dict[str, Any]:
        """Return the job's runtime environment: the sources, and packages only on request."""
        environment = {**_ENVIRONMENT, **(self.environment or {})}
        found: dict[str, Any] = {"working_dir": str(package), "env_vars": environment}
        if self.packages:
            found["uv"] = {"packages": list(self.packages)}
        return found


@dataclass(frozen=True)
class KnownJob:
    """One attempt at a study that the cluster knows.

    Attributes:
        submission_id: The job's id.
        attempt: The attempt's number, part of the id.
        status: Ray's status.
        live: Whether it is pending or running.
        fingerprint: See `Request`; None if it was not submitted by `namd submit`.
        exit_code: None while it is live, or if its process left none.
    """

    submission_id: str
    attempt: int
    status: str
    live: bool
    fingerprint: str | None
    exit_code: int | None

    @property
    def outcome(self) -> int:
        """The exit code of `--wait`: the driver's own, or 143 if the job was stopped."""
        if self.status == JobStatus.SUCCEEDED.value:
            return 0
        if self.status == JobStatus.STOPPED.value:
            return STOPPED
        return self.exit_code if self.exit_code and self.exit_code > 0 else FAILED


@dataclass(frozen=True)
class Decision:
    """What to do with a request.

    Attributes:
        submission_id: Id of the job to follow.
        attempt: Number of its attempt.
        found: The job, if it exists already; None: submit it.
    """

    submission_id: str
    attempt: int
    found: KnownJob | None = None


def submission_id(study: str, attempt: int) -> str:
    """Return the job's id, a function of study and attempt."""
    return f"namd-{study}-{attempt}"


def parse_submission_id(text: str) -> tuple[str, int] | None:
    """Return study and attempt, or None for another's id. Names of studies may hold dashes."""
    match = re.fullmatch(r"namd-(.+)-([1-9]\d*)", text)
    return (match[1], int(match[2])) if match else None


def connect(address: str) -> JobSubmissionClient:
    """Return a client of the cluster whose dashboard answers at an http(s) URL.

    Raises InputError if no dashboard answers there, or the token is missing or wrong.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--address {address}: give the URL of the cluster's dashboard, such as "
            "http://127.0.0.1:8265"
        )
    # Ray prefers these variables to its argument; here the argument wins.
    hidden = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        with _one_line_errors(address):
            return JobSubmissionClient(address, headers=_token_header())
    except RuntimeError as error:
        # Something answers at the address, but it is not Ray's dashboard.
        reason = str(error).splitlines()[0]
        raise InputError(f"{address}: no Ray dashboard answers ({reason})") from error
    finally:
        os.environ.update(hidden)


def known_jobs(client: JobClient, study: str) -> list[KnownJob]:
    """Return the study's attempts in order."""
    found = [_known(details) for details in client.list_jobs() if details.submission_id]
    ours = [job for name, job in (pair for pair in found if pair) if name == study]
    return sorted(ours, key=lambda job: job.attempt)


def decide(request: Request, jobs: Sequence[KnownJob], recorded: int, again: bool) -> Decision:
    """Choose between following an existing job and starting the next attempt.

    Args:
        request: The study to run.
        jobs: The study's attempts that the cluster knows, in order.
        recorded: Number of times the study was opened, from the ledger; 0 if it cannot be read.
        again: Also repeat an attempt that succeeded with the same fingerprint.

    A live job is followed even if its study file differs: one study has one driver.
    """
    live = [job for job in jobs if job.live]
    if live:
        return Decision(live[-1].submission_id, live[-1].attempt, live[-1])
    last = jobs[-1] if jobs else None
    if last and last.outcome == 0 and last.fingerprint == request.fingerprint and not again:
        return Decision(last.submission_id, last.attempt, last)
    # A job may die before it opens the study, and a cluster forgets jobs that the ledger has.
    attempt = max(recorded, last.attempt if last else 0) + 1
    return Decision(submission_id(request.study, attempt), attempt)


def submit(
    client: JobClient,
    request: Request,
    package: Path,
    *,
    address: str,
    recorded: int = 0,
    again: bool = False,
) -> Decision:
    """Start the study's next attempt, or find the existing one.

    Two concurrent submissions choose the same id; the cluster accepts one, and the other finds it.

    Raises:
        InputError: The token is missing or wrong.
        StageError: The cluster refuses the job.
    """
    refusal = ""
    for _ in range(_TRIES):
        with _one_line_errors(address):
            decision = decide(request, known_jobs(client, request.study), recorded, again)
        if decision.found is not None:
            return decision
        try:
            with _one_line_errors(address):
                _start(client, request, decision, package)
            return decision
        except RuntimeError as error:
            refusal = str(error)
    raise StageError(f"{address} refuses the job: {refusal.splitlines()[0] if refusal else '?'}")


def follow(
    client: JobClient, job_id: str, write: Callable[[str], None], *, address: str
) -> KnownJob:
    """Forward a job's output until it ends, across lost connections.

    Raises StageError if the cluster has not answered for LOST_S.
    """
    log = _Log(write)
    heard = time.monotonic()
    while True:
        try:
            asyncio.run(log.tail(client, job_id))
            found = _known(client.get_job_info(job_id))
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            if time.monotonic() - heard > LOST_S:
                raise StageError(
                    f"{address} has not answered for {LOST_S:.0f} s ({error}); run the same "
                    "command again: it finds the job, or resumes the study on a new cluster"
                ) from error
        else:
            heard = time.monotonic()
            if found is not None and not found[1].live:
                return found[1]
        time.sleep(POLL_S)


def recorded_attempts(store: str | None, study: str) -> int:
    """Return the number of times a study was opened; 0 if the store cannot be read from here.

    A cluster's store need not be reachable from the machine that submits.
    """
    if store is None:
        return 0
    from botocore.exceptions import BotoCoreError

    from namd.ledger.reading import LedgerDamaged
    from namd.ledger.view import read_view
    from namd.storage.opening import open_storage

    try:
        return read_view(open_storage(store), study, detailed=False).attempt
    except (OSError, BotoCoreError, LedgerDamaged):
        return 0


def requirements_of(project: Path) -> tuple[str, ...]:
    """Return a project's dependencies without those that the nodes' image must provide.

    Raises InputError if its pyproject.toml cannot be read.
    """
    try:
        text = (project / "pyproject.toml").read_text(encoding="utf-8")
        found = tomllib.loads(text)["project"]["dependencies"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(
            f"{project / 'pyproject.toml'}: names no dependencies to install ({error})"
        ) from error
    return tuple(name for name in found if not CLUSTERS_OWN.match(name))


def _start(client: JobClient, request: Request, decision: Decision, package: Path) -> None:
    client.submit_job(
        entrypoint=request.entrypoint,
        submission_id=decision.submission_id,
        runtime_env=request.runtime_env(package),
        metadata={
            "namd_study": request.study,
            "namd_attempt": str(decision.attempt),
            "namd_version": request.version,
            "namd_fingerprint": request.fingerprint,
        },
        # With 0 CPUs Ray runs the driver on the head node, which is no spot node.
        entrypoint_num_cpus=0,
    )


def _known(details: Any) -> tuple[str, KnownJob] | None:  # noqa: ANN401 - Ray's JobDetails
    parsed = parse_submission_id(details.submission_id or "")
    if parsed is None:
        return None
    status = JobStatus(details.status)
    job = KnownJob(
        details.submission_id,
        parsed[1],
        status.value,
        not status.is_terminal(),
        (details.metadata or {}).get("namd_fingerprint"),
        details.driver_exit_code,
    )
    return parsed[0], job


class _Log:
    """A job's log, which Ray repeats from its start at each connection; written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = 0

    async def tail(self, client: JobClient, job_id: str) -> None:
        """Write what was not written before, until the log or the connection ends."""
        seen = 0
        async for text in client.tail_job_logs(job_id):
            fresh = text[max(self._written - seen, 0) :]
            seen += len(text)
            if fresh:
                self._write(fresh)
                self._written = seen


def _token_header() -> dict[str, str]:
    """Return the token as a header, from the variables and files that Ray uses.

    Ray's own loader ends the process if $RAY_AUTH_TOKEN_PATH cannot be read, and ignores a
    token unless RAY_AUTH_MODE=token; here a token is always used if it is set.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and (named or mode == "token"):
        path = local_path(named) if named else Path.home() / ".ray" / "auth_token"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InputError(f"{path}: the token cannot be read; {_TOKEN_WAY_OUT}") from error
    return {"Authorization": f"Bearer {token}"} if token else {}


_TOKEN_WAY_OUT = (
    "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN, or its file in "
    "RAY_AUTH_TOKEN_PATH"
)


@contextmanager
def _one_line_errors(address: str) -> Iterator[None]:
    """Raise an InputError of one line if a cluster cannot be used."""
    try:
        yield
    except AuthenticationError as error:
        missing = "required" in str(error)
        what = "asks for a token" if missing else "refuses this token"
        raise InputError(f"{address} {what}; {_TOKEN_WAY_OUT}") from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{address}: no Ray dashboard answers ({reason})") from error
