"""Writing runs with W&B: files on this machine, or also to the user's own account.

The only module that imports wandb, and only once the first run is written: the import takes
seconds.
"""

import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from namd.config.errors import InputError, StageError
from namd.tracking.runs import RunContent, shortened
from namd.tracking.wandb_environment import (
    account_settings_only,
    hide_variables,
    require_project,
)

Mode = Literal["offline", "online"]

PROJECT = "namd"
"""The default project; `$WANDB_PROJECT` names another."""

ARTIFACT_LIMIT = 128
"""Most characters of an artifact's name."""

_INIT_TIMEOUT_S = 30.0


class TrackingError(StageError):
    """W&B failed to write a run."""


@runtime_checkable
class OpenRun(Protocol):
    """A run that is being written."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to its history."""
        ...

    def finish(
        self,
        content: RunContent,
        *,
        tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        images: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Write summary and tags of `content` (its history was logged), and end.

        The tables, by name, become one artifact.
        """
        ...


@runtime_checkable
class RunWriter(Protocol):
    """Writes runs; a run replaces an earlier one with the same id."""

    @property
    def streaming(self) -> bool:
        """Whether a stage is shown while it is built."""
        ...

    def open(self, content: RunContent) -> OpenRun:
        """Begin a run."""
        ...

    def close(self) -> None:
        """Close: nothing more is written."""
        ...

    def abandon(self) -> None:
        """End immediately, from another thread, even during a write."""
        ...


class WandbWriter:
    """Writes runs under `folder/wandb`, one folder per run.

    W&B's own records of the machine (host, user, program, arguments, packages, git,
    code, console, utilisation) are switched off, and its debug logs, which contain paths, are
    removed with each finished run. Of variables and W&B's own settings only the account's are
    used (namd.tracking.wandb_environment): the others are hidden until the writer is closed.

    Args:
        folder: Created if absent.
        mode: `offline` needs no key and opens no connection.
        project: Name in the account. Raises InputError if W&B would refuse it.
    """

    def __init__(self, folder: Path, mode: Mode = "offline", project: str | None = None) -> None:
        self.folder = folder.absolute()
        self.mode: Mode = mode
        self.project = require_project(project or os.environ.get("WANDB_PROJECT") or PROJECT)
        # Before a study starts: its threads and processes must not see the variables change.
        self._hidden = hide_variables()
        self._earlier: dict[str, list[Path]] | None = None
        self._opened = False

    @property
    def streaming(self) -> bool:
        """Whether runs are online: then a stage is shown while it is built."""
        return self.mode == "online"

    def open(self, content: RunContent) -> "WandbRun":
        """Start a run. Raises TrackingError.

        If W&B cannot be reached, this run and all later ones are written offline.
        """
        wandb = _wandb()
        with _failures():
            self._remove_earlier(content.run_id)
            try:
                run = self._init(wandb, content)
            except wandb.errors.CommError:
                if self.mode == "offline":
                    raise
                self.mode = "offline"
                run = self._init(wandb, content)
        return WandbRun(run, self.folder)

    def close(self) -> None:
        """End W&B's service process, and restore what was hidden from it. Raises TrackingError."""
        try:
            if self._opened:
                with _failures():
                    _wandb().teardown()
        except SystemExit as error:
            raise TrackingError(f"W&B: its service ended with {error.code}") from error
        finally:
            os.environ.update(self._hidden)

    def abandon(self) -> None:
        """Kill W&B's service process, so that pending calls fail and the exit does not wait for it.

        Never raises. A service that another process started is left alone.
        """
        if not self._opened:
            return
        from wandb.sdk import wandb_setup

        connection = getattr(wandb_setup.singleton(), "_connection", None)
        handle = getattr(getattr(connection, "_proc", None), "_process", None)
        if handle is not None:
            handle.kill()
            # Otherwise W&B says goodbye to the dead process at exit, with a traceback. It leaves
            # this process with the dead one's exit code, which a study must survive.
            with suppress(TrackingError, SystemExit), _failures():
                _wandb().teardown()

    def _init(self, wandb: Any, content: RunContent) -> Any:  # noqa: ANN401 - wandb is untyped
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            host="namd",
            program="namd",
            x_executable="python",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            symlink=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            sagemaker_disable=True,
            docker="",
            init_timeout=_INIT_TIMEOUT_S,
        )
        self._opened = True
        with account_settings_only():
            return wandb.init(
                project=self.project,
                dir=str(self.folder),
                mode=self.mode,
                reinit="create_new",
                id=content.run_id,
                name=content.name,
                group=content.group,
                job_type=content.job_type,
                config=dict(content.config),
                tags=list(content.tags) or None,
                settings=settings,
            )

    def _remove_earlier(self, run_id: str) -> None:
        """Remove files of the same run: offline runs cannot be continued."""
        if self._earlier is None:
            self._earlier = {}
            for path in (self.folder / "wandb").glob("*run-*-*"):
                self._earlier.setdefault(path.name.rpartition("-")[2], []).append(path)
        for path in self._earlier.pop(run_id, ()):
            shutil.rmtree(path, ignore_errors=True)


class WandbRun:
    """A W&B run that is being written."""

    def __init__(self, run: Any, folder: Path) -> None:  # noqa: ANN401 - wandb is untyped
        self._run = run
        self._folder = folder

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to its history. Raises TrackingError."""
        with _failures():
            self._run.log(dict(metrics), step=step)

    def finish(
        self,
        content: RunContent,
        *,
        tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        images: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Write summary, tags and tables, and close the run. Raises TrackingError."""
        files = Path(self._run.settings.sync_dir)
        with _failures():
            if tuple(self._run.tags or ()) != content.tags:
                self._run.tags = content.tags
            if images:
                self._run.log({"draws": [_image(*image) for image in images]})
            if tables:
                self._log_tables(content, tables)
            for name, value in content.summary.items():
                self._run.summary[name] = value
            self._run.finish(exit_code=1 if content.failed else 0)
        for name in ("logs", "tmp"):
            shutil.rmtree(files / name, ignore_errors=True)

    def _log_tables(
        self, content: RunContent, tables: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> None:
        wandb = _wandb()
        place = self._folder / "wandb" / "tables" / content.group
        shutil.rmtree(place, ignore_errors=True)
        with _staged_under(place):
            name = shortened(f"{content.group}-table", ARTIFACT_LIMIT)
            artifact = wandb.Artifact(name, type="table")
            for title, rows in tables.items():
                columns = list(dict.fromkeys(name for row in rows for name in row))
                data = [[row.get(name) for name in columns] for row in rows]
                artifact.add(wandb.Table(columns, data, allow_mixed_types=True), title)
            self._run.log_artifact(artifact)


def wandb_mode(asked: str | None, environment: Mapping[str, str] = os.environ) -> Mode | None:
    """Return the mode: the given one, else `$WANDB_MODE`, else offline; None: write nothing.

    Raises InputError for an unknown mode, and for `online` without a key.
    """
    word = asked or environment.get("WANDB_MODE") or "offline"
    if word in ("off", "disabled"):
        return None
    if word in ("offline", "dryrun"):
        return "offline"
    if word not in ("online", "run"):
        raise InputError(f"W&B mode {word!r}: use offline, online or off")
    if not _has_key(environment):
        raise InputError(
            "W&B online: no key; run `wandb login` once, set WANDB_API_KEY, or leave it offline "
            "and send the files later with `wandb sync`"
        )
    return "online"


def _has_key(environment: Mapping[str, str]) -> bool:
    """Whether W&B would find a key without a prompt."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    wandb = _wandb()
    from wandb.sdk.lib import wbauth

    try:
        host = environment.get("WANDB_BASE_URL", "https://api.wandb.ai")
        return wbauth.read_netrc_auth(host=host) is not None
    except (wandb.errors.AuthenticationError, ValueError, OSError):
        return False


def _wandb() -> Any:  # noqa: ANN401 - wandb is untyped
    """Import W&B with its error reports to its makers switched off."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


@contextmanager
def _failures() -> Iterator[None]:
    """Turn all errors of W&B into TrackingError."""
    wandb = _wandb()
    from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError
    from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

    try:
        yield
    except (
        wandb.Error,
        WandbServiceConnectionError,
        HandleAbandonedError,
        MailboxClosedError,
        ServerResponseError,
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        raise TrackingError(f"W&B: {type(error).__name__}: {error}") from error


@contextmanager
def _staged_under(folder: Path) -> Iterator[None]:
    """Keep an artifact's files beside the runs: `wandb sync` needs them, and a home may be full."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def _image(caption: str, png: bytes) -> Any:  # noqa: ANN401 - wandb is untyped
    from PIL import Image

    return _wandb().Image(Image.open(io.BytesIO(png)), caption=caption)
