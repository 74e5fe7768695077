"""`namd submit`: a study as a job of a Ray cluster elsewhere, with `study run` at its other end."""

import argparse
import os
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from namd.cli.output import add_json_option, answer, size, tell
from namd.cli.phantom import phantom_named
from namd.config.errors import InputError, about
from namd.config.places import local_path, place

if TYPE_CHECKING:
    from namd.distributed.jobs import Decision, JobClient, Request
    from namd.distributed.upload import Upload
    from namd.study.spec import StudySpec

PROJECT_MARKS = ("pyproject.toml", ".git")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("submit", help="run a study on a Ray cluster elsewhere")
    parser.add_argument("file", type=local_path, metavar="FILE", help="the study file")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_API_SERVER_ADDRESS"),
        metavar="URL",
        help="the cluster's dashboard, such as http://127.0.0.1:8265 "
        "(default: $RAY_API_SERVER_ADDRESS)",
    )
    parser.add_argument(
        "--store",
        type=place,
        metavar="URL",
        help="store, as the cluster's nodes see it (default: the study file's, then $NAMD_STORE)",
    )
    parser.add_argument(
        "--cohort",
        type=place,
        metavar="DIR",
        help="folder of a cohort, as the nodes see it, or `phantom` (default: the study file's)",
    )
    parser.add_argument("--wait", action="store_true", help="follow it; exit as it exits")
    parser.add_argument(
        "--again", action="store_true", help="start it even if it ended well in the same words"
    )
    parser.add_argument(
        "--working-dir",
        type=local_path,
        metavar="DIR",
        help="the project to send (default: the one that the study file lies in)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATH",
        help="leave this out of what is sent; may be repeated",
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="a variable of the job"
    )
    installing = parser.add_mutually_exclusive_group()
    installing.add_argument(
        "--image-has-dependencies",
        dest="install",
        action="store_false",
        help="install nothing on the nodes (default)",
    )
    installing.add_argument(
        "--install",
        action="store_true",
        help="install the project's dependencies on every node, save torch and Ray",
    )
    parser.set_defaults(func=submit_command, install=False)
    add_json_option(parser)


def submit_command(arguments: argparse.Namespace) -> int:
    """Submit or find the study's job. Without `--wait` 0; else as the job ended.

    Raises InputError before anything is sent where the file, a path, the size or the token is not
    right.
    """
    from namd.distributed.jobs import connect, recorded_attempts, submit
    from namd.distributed.upload import collect, write_archive
    from namd.study.spec import read_study
    from namd.study.trials import Configurator

    spec = read_study(arguments.file)
    with about(str(arguments.file)):
        Configurator(spec).check()
    if not arguments.address:
        raise InputError("no cluster: name its dashboard's URL with --address")
    root, file = _project(arguments.file, arguments.working_dir)
    request = _request(arguments, spec, root, file)
    upload = collect(root, arguments.exclude, keep=[root / file])
    client = connect(arguments.address)
    store = request.store or spec.base.given("store")
    with tempfile.TemporaryDirectory(prefix="namd-submit-") as folder:
        package = Path(folder) / "project.zip"
        write_archive(upload, package)
        decision = submit(
            client,
            request,
            package,
            address=arguments.address,
            recorded=recorded_attempts(store, spec.name),
            again=arguments.again,
        )
    tell(_what_happened(decision, upload))
    return _finish(arguments, client, spec.name, decision, upload)


def _finish(
    arguments: argparse.Namespace,
    client: "JobClient",
    study: str,
    decision: "Decision",
    upload: "Upload",
) -> int:
    """Follow the job where asked to, and say how it stands."""
    from namd.distributed.jobs import follow

    found = decision.found
    code = 0
    if arguments.wait and (found is None or found.live):
        try:
            found = follow(client, decision.submission_id, _write_log, address=arguments.address)
        except KeyboardInterrupt:
            tell(f"{decision.submission_id} goes on; the same command follows it again")
            raise
    if arguments.wait and found is not None:
        code = found.outcome
    status = found.status if found is not None else "SUBMITTED"
    value: dict[str, Any] = {
        "study": study,
        "submission_id": decision.submission_id,
        "attempt": decision.attempt,
        "attached": decision.found is not None,
        "status": status,
        "exit": code,
        "address": arguments.address,
        "bytes": upload.num_bytes,
    }
    answer(arguments, value, f"{decision.submission_id}: {status.lower()}")
    return code


def _request(
    arguments: argparse.Namespace, spec: "StudySpec", root: Path, file: PurePosixPath
) -> "Request":
    from namd import __name__ as package
    from namd.config.fingerprint import fingerprint
    from namd.config.parsing import to_mapping
    from namd.distributed.jobs import Request, requirements_of

    store = arguments.store or (None if spec.base.given("store") else os.environ.get("NAMD_STORE"))
    _require_place("store", store, spec.base.given("store"))
    _require_place("cohort", arguments.cohort, spec.base.given("cohort"))
    what = [to_mapping(spec), store, arguments.cohort]
    return Request(
        study=spec.name,
        file=file,
        fingerprint=fingerprint(what),
        store=store,
        cohort=arguments.cohort,
        version=_version(package),
        packages=requirements_of(root) if arguments.install else (),
        environment=_environment(arguments.env),
    )


def _require_place(name: str, given: str | None, inside: str | None) -> None:
    """Check that a place is named, and means the same on every machine. Raises InputError."""
    word = given or inside
    if not word:
        raise InputError(f"no {name}: name it with --{name}, as the cluster's nodes see it")
    if "://" in word or Path(word).is_absolute() or (name == "cohort" and phantom_named(word)):
        return
    raise InputError(
        f"{name} {word}: a relative folder means another place on each node; give the absolute "
        "folder that the nodes share, or a URL"
    )


def _project(file: Path, given: Path | None) -> tuple[Path, PurePosixPath]:
    """Return the folder to send and the study file's place in it. Raises InputError."""
    place = file.resolve()
    root = given.resolve() if given is not None else _root(place)
    if root not in place.parents:
        raise InputError(f"{file}: lies outside the folder that is sent, {root}")
    return root, PurePosixPath(place.relative_to(root).as_posix())


def _root(file: Path) -> Path:
    for folder in file.parents:
        if any((folder / mark).exists() for mark in PROJECT_MARKS):
            return folder
    raise InputError(f"{file}: lies in no project; name the folder to send with --working-dir")


def _environment(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"--env {word}: expected NAME=VALUE")
        found[name] = value
    return found


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _what_happened(decision: "Decision", upload: "Upload") -> str:
    name = decision.submission_id
    if decision.found is None:
        return f"{name}: submitted, {len(upload.files)} files, {size(upload.num_bytes)}"
    if decision.found.live:
        return f"{name}: runs already ({decision.found.status.lower()}); nothing was submitted"
    return f"{name}: ended well in these words; --again starts it anew"


def _write_log(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
