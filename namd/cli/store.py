"""`namd store`: what is kept, how it was made, whether it is intact, and what may go."""

import argparse
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from namd.cli.output import add_json_option, answer, columns, duration, echo, size
from namd.cli.store_owners import as_cell, as_value, store_owners
from namd.config.errors import InputError
from namd.config.places import place
from namd.config.store_places import require_place

if TYPE_CHECKING:
    from namd.pipeline.store import Entry, Store

FAILED = 1

_OF_RUN = ("method", "preset", "train_seed", "created")


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--store`; `$NAMD_STORE` stands in where it is left out."""
    parser.add_argument(
        "--store",
        type=place,
        default=os.environ.get("NAMD_STORE"),
        metavar="URL",
        help="folder of the artifacts (default: $NAMD_STORE)",
    )


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `store` and its commands."""
    parser = subparsers.add_parser("store", help="list, show, verify and remove artifacts")
    commands = parser.add_subparsers(dest="store_command", metavar="COMMAND", required=True)
    ls = commands.add_parser("ls", help="list artifacts")
    ls.add_argument("what", nargs="?", metavar="STAGE|KEY", help="only these")
    ls.set_defaults(func=list_artifacts)
    show = commands.add_parser("show", help="print a manifest or the record of a run")
    show.add_argument("what", metavar="STAGE/KEY|RUN")
    show.set_defaults(func=show_artifact)
    rm = commands.add_parser("rm", help="remove artifacts; runs that need them build them again")
    rm.add_argument("what", nargs="+", metavar="STAGE/KEY|RUN")
    rm.set_defaults(func=remove_artifacts)
    gc = commands.add_parser("gc", help="remove what killed processes left behind")
    gc.add_argument("--unused", action="store_true", help="also artifacts of no recorded run")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.set_defaults(func=collect)
    verify = commands.add_parser("verify", help="read every file and compare digests")
    verify.add_argument("what", nargs="?", metavar="STAGE|KEY", help="only these")
    verify.set_defaults(func=verify_artifacts)
    for command in (ls, show, rm, gc, verify):
        add_store_option(command)
        add_json_option(command)


def open_named_store(arguments: argparse.Namespace, create: bool = False) -> "Store":
    """Return the store of `--store`. Raises InputError if none is named or it is unusable."""
    from namd.pipeline.store import open_store

    if not arguments.store:
        raise InputError("no store: name its folder with --store or in $NAMD_STORE")
    require_place(arguments.store)
    return open_store(arguments.store, create=create)


def view_named_store(arguments: argparse.Namespace) -> "Store":
    """Return the store of `--store` to look into, empty if there is none yet.

    Raises InputError if none is named, or if something else lies there.
    """
    from namd.pipeline.store import view_store

    if not arguments.store:
        raise InputError("no store: name its folder with --store or in $NAMD_STORE")
    require_place(arguments.store)
    store = view_store(arguments.store)
    if store.is_empty:
        echo(f"store {arguments.store}: nothing is there yet; `namd run` makes it")
    return store


def list_artifacts(arguments: argparse.Namespace) -> int:
    """List keys with state, size and time; unfinished ones too, and the runs that used them."""
    from namd.pipeline.run import readable_runs

    store = open_named_store(arguments)
    entries = _entries(store, arguments.what) if arguments.what else list(store.entries())
    owners = store_owners(store)
    found = [
        {**_describe(store, entry), "studies": as_value(owners.of_artifact(entry.key))}
        for entry in entries
    ]
    rows = [
        [
            str(item["label"]),
            item["key"][:12],
            item["state"],
            size(item["bytes"]) if item["bytes"] is not None else "-",
            duration(item["seconds"]) if item["seconds"] is not None else "-",
            item["created"] or "-",
            as_cell(owners.of_artifact(item["key"])),
        ]
        for item in found
    ]
    header = ["stage", "key", "state", "size", "built in", "created", "study: arms"]
    text = columns(header, rows)
    recorded, damaged = ({}, {}) if arguments.what else readable_runs(store)
    for line in damaged.values():
        echo(line)
    runs = [
        {**_run_row(key, record), "studies": as_value(owners.of_run(record))}
        for key, record in recorded.items()
    ]
    runs.sort(key=lambda run: str(run["created"]))
    if runs:
        lines = [
            [
                run["run"][:12],
                *("-" if run[name] is None else str(run[name]) for name in _OF_RUN),
                as_cell({of["study"]: dict.fromkeys(of["arms"]) for of in run["studies"]}),
            ]
            for run in runs
        ]
        text += "\n\n" + columns(["run", *_OF_RUN, "study: arms"], lines)
    answer(arguments, {"artifacts": found, "runs": runs}, text)
    return 0


def _run_row(key: str, record: dict[str, Any]) -> dict[str, Any]:
    summary = {"run": key, "train_seed": record.get("config", {}).get("train_seed")}
    return summary | {name: record.get(name) for name in ("method", "preset", "created")}


def show_artifact(arguments: argparse.Namespace) -> int:
    """Print a manifest or a run's record."""
    store = open_named_store(arguments)
    runs = _runs(store, arguments.what)
    if runs:
        value: dict[str, Any] = runs[_only(arguments.what, list(runs))]
    else:
        entry = _only(arguments.what, [e for e in _entries(store, arguments.what) if e.committed])
        artifact = store.find(entry.stage, entry.key)
        if artifact is None:
            raise InputError(f"{arguments.what}: not published")
        value = {**artifact.manifest(), "files": artifact.files, "folder": str(artifact.folder)}
    answer(arguments, value, json.dumps(value, indent=1, sort_keys=True))
    return 0


def remove_artifacts(arguments: argparse.Namespace) -> int:
    """Remove the named artifacts and records."""
    from namd.storage.run_records import RUNS

    store = open_named_store(arguments)
    removed: list[str] = []
    for word in arguments.what:
        runs = _runs(store, word, damaged_too=True)
        if runs:
            key = _only(word, list(runs))
            store.backend.remove(f"{RUNS}/{key}")
            removed.append(f"{RUNS}/{key}")
            continue
        for entry in _entries(store, word):
            store.remove(entry.stage, entry.key)
            removed.append(f"{entry.stage}/{entry.key}")
    answer(arguments, {"removed": removed}, "\n".join(f"removed {place}" for place in removed))
    return 0


def collect(arguments: argparse.Namespace) -> int:
    """Remove leftovers, and with `--unused` what no recorded run refers to and no study holds."""
    from namd.pipeline.collection import collect as remove_unneeded

    store = open_named_store(arguments)
    wanted = partial(_wanted, store) if arguments.unused else None
    freed = remove_unneeded(store, wanted, arguments.dry_run)
    verb = "would remove" if arguments.dry_run else "removed"
    lines = [f"{verb} {place}" for place in freed.removed]
    lines += [f"left {place}: being built" for place in freed.held]
    value = {"removed": freed.removed, "held": freed.held, "dry_run": arguments.dry_run}
    answer(arguments, value, "\n".join(lines) or "nothing to remove")
    return 0


def _wanted(store: "Store") -> set[tuple[str, str]]:
    """Return (stage, key) of what recorded runs refer to and live studies hold."""
    from namd.ledger.pins import pinned
    from namd.pipeline.run import recorded_runs
    from namd.storage.opening import open_storage

    # Pins first: a study that ends meanwhile has recorded its runs before it releases them.
    pins = pinned(open_storage(store.backend.name))
    return pins | {
        (stage["name"], stage["key"])
        for record in recorded_runs(store).values()
        for stage in record["stages"]
    }


def verify_artifacts(arguments: argparse.Namespace) -> int:
    """Compare every published file with its digest. Returns 1 where one is damaged."""
    store = open_named_store(arguments)
    entries = _entries(store, arguments.what) if arguments.what else list(store.entries())
    published = [entry for entry in entries if entry.committed]
    damaged = []
    for entry in published:
        problems = store.verify(entry.stage, entry.key)
        if problems:
            damaged.append({"stage": entry.stage, "key": entry.key, "problems": problems})
            for problem in problems:
                echo(f"{entry.stage}/{entry.key[:12]}: {problem}")
    value = {"checked": len(published), "damaged": damaged}
    text = f"{len(published)} artifacts checked, {len(damaged)} damaged"
    answer(arguments, value, text)
    return FAILED if damaged else 0


def _describe(store: "Store", entry: "Entry") -> dict[str, Any]:
    """Return one line of the listing. A damaged artifact is listed as such."""
    from namd.storage.errors import StoreError

    known: dict[str, Any] = {"label": entry.stage, "bytes": None, "seconds": None, "created": None}
    state = "being built" if entry.held else "unfinished"
    if entry.committed:
        try:
            # A listing reads no payload; what it shows of a manifest is checked.
            artifact = store.find(entry.stage, entry.key, digests=False)
            if artifact is not None:
                manifest = artifact.manifest()
                state = "published"
                known = {
                    "label": manifest.get("label", entry.stage),
                    "bytes": artifact.size,
                    "seconds": manifest.get("wall_seconds"),
                    "created": manifest.get("created"),
                }
        except StoreError as error:
            state = "damaged"
            echo(str(error))
    return {"stage": entry.stage, "key": entry.key, "state": state, **known}


def _runs(store: "Store", word: str, damaged_too: bool = False) -> dict[str, dict[str, Any]]:
    """Return the records of runs whose keys begin so; a damaged one is empty, or refused."""
    from namd.pipeline.run import readable_runs
    from namd.storage.run_records import RUNS

    word = word.removeprefix(f"{RUNS}/")
    if "/" in word or len(word) < 4:
        return {}
    recorded, damaged = readable_runs(store)
    for key, line in damaged.items():
        if key.startswith(word) and not damaged_too:
            raise InputError(line)
        recorded[key] = {}
    return {key: record for key, record in recorded.items() if key.startswith(word)}


def _entries(store: "Store", word: str) -> "list[Entry]":
    found = store.match(word)
    if not found:
        stages = ", ".join(sorted({entry.stage for entry in store.entries()})) or "none yet"
        raise InputError(
            f"{word}: no such artifact or run in {store.backend.name}; stages there: {stages}"
        )
    return found


def _only(word: str, found: list[Any]) -> Any:  # noqa: ANN401 - runs or entries
    if not found:
        raise InputError(f"{word}: nothing published under that name")
    if len(found) > 1:
        raise InputError(f"{word}: {len(found)} match; give more of the key")
    return found[0]
