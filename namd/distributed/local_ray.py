"""The environment of a Ray cluster on this machine only, which no other user can reach.

It listens on loopback, with a token that is stored in no file, and keeps its files in a folder
whose path is short enough for sockets and which needs no home. Its workers import what this
process imports.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.job_config import JobConfig

from namd.config.errors import InputError
from namd.config.search_path import import_folders, inherited_python_path

SOCKET_PATH = 107
"""Characters that the path of a Unix socket may have."""

_LONGEST_SOCKET = "/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_PREFIX = "namd-"
RAY_FOLDER = "r"
"""Ray makes its folder writable for all users; its parent may be entered by its owner only."""

_FOLDER = f"/{_PREFIX}12345678/{RAY_FOLDER}"
_ELSEWHERE = ("/tmp", "/var/tmp", "/dev/shm")
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class WorkerImports(JobConfig):
    """A job whose workers import from the driver's folders, never from its current one.

    For a submitted job the runtime environment has the sources.
    """

    def __init__(self) -> None:
        folders = [] if _SUBMITTED in os.environ else import_folders()
        # Ray prepends them one by one.
        super().__init__(_py_driver_sys_path=folders[::-1])

    def _runtime_env_has_working_dir(self) -> bool:
        """Keep Ray from adding the script's folder and the current one."""
        return True


@contextmanager
def private_ray() -> Iterator[None]:
    """Restrict a Ray cluster that is started within to this user."""
    keeps_loopback = ray_constants.ENABLE_RAY_CLUSTER
    variables = {
        "PYTHONPATH": inherited_python_path() or None,
        "RAY_AUTH_TOKEN": _token(),
        "RAY_AUTH_TOKEN_PATH": None,
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        # Ray's own switch for isolated machines: all sockets on 127.0.0.1.
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    }
    try:
        with _environment(variables):
            ray_constants.ENABLE_RAY_CLUSTER = False
            AuthenticationTokenLoader.instance().reset_cache()
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = keeps_loopback
        AuthenticationTokenLoader.instance().reset_cache()


def short_folder() -> Path:
    """Make a folder for Ray's files that only this user may enter.

    It is in $RAY_TMPDIR, else in the temporary directory, else in one with a shorter path.

    Raises:
        InputError: Every candidate has too long a path for Ray's sockets, or is not writable.
    """
    named = os.environ.get("RAY_TMPDIR")
    refused = []
    for place in (named,) if named else dict.fromkeys((_temporary(), *_ELSEWHERE)):
        if len(f"{place}{_FOLDER}{_LONGEST_SOCKET}") > SOCKET_PATH:
            longest = SOCKET_PATH - len(f"{_FOLDER}{_LONGEST_SOCKET}")
            refused.append(f"{place} has more than {longest} characters")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))  # of mode 0700
        except OSError as error:
            refused.append(f"{place}: {error.strerror}")
    raise InputError(
        f"no folder for Ray's files ({'; '.join(refused)}); name one with RAY_TMPDIR that is short "
        "and writable"
    )


def _temporary() -> str:
    try:
        return str(Path(tempfile.gettempdir()).absolute())
    except FileNotFoundError:
        return _ELSEWHERE[0]


@cache
def _token() -> str:
    return secrets.token_hex(32)


@contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Set variables, or unset those that are None, and restore them at the end."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
