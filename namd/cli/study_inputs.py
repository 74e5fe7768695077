"""What study commands are given: a study file, a store, a name; found, or refused in one line.

What the commands then do with it is not decided here.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from namd.config.errors import ConfigError, InputError, about
from namd.config.places import place
from namd.study.opening import (
    Ledger,
    find_study,
    open_studies,
    read_whole,
    readable,
    require_store,
    store_url,
)

if TYPE_CHECKING:
    from namd.data.settings import CohortDemands
    from namd.ledger.view import StudyView
    from namd.storage.process import Holder
    from namd.study.spec import StudySpec

__all__ = ["Ledger", "open_studies", "read_whole", "readable", "require_store", "store_url"]

State = Literal["running", "finished", "stopped", "interrupted"]


@dataclass(frozen=True)
class Driver:
    """Who runs a study, if anybody does.

    Attributes:
        state: `running`; `finished` or `stopped` as the ledger says; `interrupted`: its process
            is lost silently.
        holder: The process that last held the lease; None: the lease was released.
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


def open_ledger(arguments: argparse.Namespace) -> Ledger:
    """Return the ledger of `arguments.name` under `--store`; a study's file may stand for its name.

    Raises InputError if the store or the study is not there, naming the nearest.
    """
    spec = _spec_in_place_of_name(arguments.name)
    with about(arguments.name):
        url = store_url(arguments.store, spec)
    name = arguments.name if spec is None else spec.name
    return find_study(url, name)


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
            view.apply(event)


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

    Raises InputError if there is neither.
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

    Raises InputError if none is named or there is none, ConfigError where the study file names
    one that is not there.
    """
    from namd.cli.named_cohorts import find_cohort
    from namd.data.named_cohort import phantom_named

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


def _spec_in_place_of_name(word: str) -> "StudySpec | None":
    from namd.study.spec import read_study

    path = Path(word)
    if path.suffix not in (".yaml", ".yml"):
        return None
    if not path.is_file():
        raise InputError(f"{word}: no such study file; a study is named as in `namd study list`")
    return read_study(path)
