"""What study commands are given: a study file, a store, a name; found, or refused in one line.

What the commands then do with it is not decided here.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from namd.cli.store import require_place
from namd.config.errors import ConfigError, InputError, about
from namd.config.places import local_path, place

if TYPE_CHECKING:
    from namd.data.settings import CohortDemands
    from namd.ledger.lease import Holder
    from namd.ledger.storage import Storage
    from namd.ledger.view import StudyView
    from namd.study.spec import StudySpec

State = Literal["running", "finished", "stopped", "interrupted"]


@dataclass(frozen=True)
class Ledger:
    """A study that was started, where its records lie.

    Attributes:
        url: The store: an absolute folder or a URL.
        name: The study's name.
        storage: The store as the ledger reads it.
    """

    url: str
    name: str
    storage: "Storage"

    @property
    def place(self) -> str:
        """Folder or URL of the study's records."""
        return f"{self.url}/studies/{self.name}"

    @property
    def resume(self) -> str:
        """The command that continues it."""
        return f"namd study run {self.name} --resume --store {self.url}"


@dataclass(frozen=True)
class Driver:
    """Who runs a study, if anybody does.

    Attributes:
        state: `running`; `finished` or `stopped` as the ledger says; `interrupted`: its process
            is gone without a word.
        holder: The process that last held the study; None: it gave the study back.
    """

    state: State
    holder: "Holder | None"

    @property
    def named(self) -> str:
        """The process in words."""
        if self.holder is None:
            return "no process"
        return f"process {self.holder.pid} on {self.holder.host}"


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--store`; the study file and `$NAMD_STORE` stand in where it is left out."""
    parser.add_argument(
        "--store",
        type=place,
        metavar="URL",
        help="store of artifacts and ledger (default: the study file's, then $NAMD_STORE)",
    )


def store_url(given: str | None, spec: "StudySpec | None" = None) -> str:
    """Return the store's absolute folder or URL: the command line's, the file's, `$NAMD_STORE`'s.

    Raises InputError where none is named, ConfigError where the study file names a relative folder.
    """
    inside = spec.base.given("store") if spec is not None else None
    if given is None and inside is not None and not _is_absolute(inside):
        raise ConfigError(
            f"base.store={inside!r}: a relative folder means another place to everybody who "
            "reads the file; write an absolute one or a URL, or leave it open and use --store"
        )
    url = given or inside or os.environ.get("NAMD_STORE")
    if not url:
        raise InputError(
            "no store: name its folder or URL with --store, in $NAMD_STORE or in the study "
            "file's base.store"
        )
    require_place(url)
    url = url.removeprefix("file://")
    if "://" in url:
        return url.rstrip("/")
    return str(local_path(url).absolute())


def open_ledger(arguments: argparse.Namespace) -> Ledger:
    """Return the ledger of `arguments.name` under `--store`; a study's file may stand for its name.

    Raises InputError where the store or the study is not there, naming the nearest.
    """
    from namd.config.parsing import nearest

    spec = _spec_in_place_of_name(arguments.name)
    with about(arguments.name):
        url = store_url(arguments.store, spec)
    name = arguments.name if spec is None else spec.name
    storage, names = open_studies(url)
    require_store(url, storage)
    if name not in names:
        hint = nearest(name, names) or "; it holds no study yet"
        raise InputError(f"study {name!r} was never run in the store {url}{hint}")
    return Ledger(url, name, storage)


def open_studies(url: str) -> "tuple[Storage, list[str]]":
    """Return a store's records and the names of its studies. Raises InputError."""
    from namd.ledger.reading import study_names
    from namd.ledger.storage import open_storage

    if "://" not in url and not Path(url).is_dir():
        raise InputError(f"store {url}: no such folder")
    with readable(url):
        storage = open_storage(url)
        return storage, study_names(storage)


def require_store(url: str, storage: "Storage") -> None:
    """Refuse a place that is no store, which would otherwise pass for one without studies.

    Not for a study's first run, which makes a store of an empty place. Raises InputError.
    """
    from namd.pipeline.store import STORE_FILE

    with readable(url):
        try:
            storage.read(STORE_FILE)
        except FileNotFoundError:
            raise InputError(
                f"store {url}: no store there ({STORE_FILE} is missing); name with --store or "
                "$NAMD_STORE the folder or URL that `namd study run` was given"
            ) from None


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn a storage that cannot be read into one line."""
    try:
        yield
    except OSError as error:
        if url in str(error):
            raise InputError(f"store {error}") from error
        raise InputError(f"store {url}: cannot be read ({error})") from error


def read_whole(ledger: Ledger) -> "StudyView":
    """Return all that a study's ledger says. Raises InputError."""
    from namd.ledger.view import read_view

    with readable(ledger.url):
        return read_view(ledger.storage, ledger.name)


def read_status(ledger: Ledger) -> "StudyView":
    """Return what a study's ledger says without its trials' details. Raises InputError."""
    from namd.ledger.view import StudyView

    view = StudyView(ledger.name, detailed=False)
    read_on(ledger, view)
    return view


def read_on(ledger: Ledger, view: "StudyView") -> None:
    """Take in what was recorded since. Raises InputError."""
    from namd.ledger.reading import read_events

    with readable(ledger.url):
        for event in read_events(ledger.storage, ledger.name, view.cursor):
            view.fold(event)


def find_driver(ledger: Ledger, ended: str) -> Driver:
    """Return who runs a study; `ended` is the ledger's last word.

    A process of another machine is watched for a few seconds: its heartbeat must change.
    """
    from namd.ledger.lease import look_at_holder

    with readable(ledger.url):
        seen = look_at_holder(ledger.storage, ledger.name)
    if seen is not None and seen.alive:
        return Driver("running", seen.holder)
    holder = None if seen is None else seen.holder
    if ended == "closed":
        return Driver("finished", holder)
    return Driver("stopped" if ended == "stopped" else "interrupted", holder)


def read_spec(word: str, store: str | None) -> "StudySpec":
    """Return a study file, or the study of that name as the ledger last saw its file.

    Raises InputError where there is neither.
    """
    from namd.study.spec import parse_study, read_study

    path = Path(word)
    if path.is_file():
        return read_study(path)
    if path.suffix in (".yaml", ".yml") or "/" in word:
        raise InputError(f"{word}: no such study file")
    if not (store or os.environ.get("NAMD_STORE")):
        raise InputError(f"{word}: no such study file (to run a recorded study, name its --store)")
    ledger = open_ledger(argparse.Namespace(name=word, store=store))
    recorded = read_whole(ledger).specification
    if not recorded:
        raise InputError(
            f"study {word}: nothing was recorded yet in {ledger.place}; name its file instead"
        )
    with about(source_of(word)):
        return parse_study(recorded)


def source_of(word: str) -> str:
    """Return what errors of a study begin with: its file as it was given, or the recorded study."""
    return word if Path(word).is_file() else f"study {word}"


def find_study_cohort(
    given: str | None,
    spec: "StudySpec",
    url: str,
    recorded: str | None = None,
    demands: "CohortDemands | None" = None,
    build: bool = True,
) -> Path:
    """Return the cohort's absolute folder: the command line's, the file's, or the last run's.

    `demands` is what the study's configurations ask of it. Without `build` a phantom that is not
    built is not rendered, and its folder does not exist yet.

    Raises InputError where none is named or there is none, ConfigError where the study file names
    one that is not there.
    """
    from namd.cli.phantom import phantom_named
    from namd.cli.run import find_cohort

    inside = spec.base.given("cohort")
    word = given or inside or recorded
    if word is None:
        raise InputError(
            "no cohort: name its folder, or `phantom`, with --cohort or in the study file's "
            "base.cohort"
        )
    if "://" in url and phantom_named(word) is not None:
        raise InputError(
            f"cohort {word}: it is built beside a local store; build it first with "
            "`namd cohort build phantom --seed 23 --out DIR` and name that folder with --cohort"
        )
    try:
        return find_cohort(word, Path(url), demands=demands, build=build).absolute()
    except InputError as error:
        if given or word != inside:
            raise
        raise ConfigError(f"base.cohort={word!r}: {error}; or name it with --cohort") from error


def _is_absolute(store: str) -> bool:
    return "://" in store or local_path(store).is_absolute()


def _spec_in_place_of_name(word: str) -> "StudySpec | None":
    from namd.study.spec import read_study

    path = Path(word)
    if path.suffix not in (".yaml", ".yml"):
        return None
    if not path.is_file():
        raise InputError(f"{word}: no such study file; a study is named as in `namd study list`")
    return read_study(path)
