"""`namd submit`: a study as a job of a Ray cluster elsewhere, with `study run` at its other end."""

import argparse
import os
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from namd.cli.output import add_json_option, answer, echo, size
from namd.config.errors import InputError, about
from namd.config.places import local_path, place
from namd.data.named_cohort import phantom_named

if TYPE_CHECKING:
    from namd.distributed.jobs import Decision, JobClient, Request
    from namd.distributed.upload import Upload
    from namd.study.spec import StudySpec

PROJECT_MARKS = ("pyproject.toml", ".git")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("submit", help="run a study on a Ray cluster elsewhere")
    parser.add_argument("file", type=local_path, metavar="FILE", help="the study file")
    _add_places(parser)
    parser.add_argument("--wait", action="store_true", help="follow it; exit as it exits")
    parser.add_argument(
        "--again", action="store_true", help="start it even if it ended well in the same words"
    )
    _add_upload(parser)
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


def _add_places(parser: argparse.ArgumentParser) -> None:
    """Declare where the cluster, the store and the cohort are."""
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


def _add_upload(parser: argparse.ArgumentParser) -> None:
    """Declare what is sent to the cluster."""
    parser.add_argument(
        "--working-dir",
        type=local_path,
        metavar="DIR",
        help="the folder that paths are relative to, on the nodes as here (default: the project "
        "that the study file lies in, else its folder)",
    )
    parser.add_argument(
        "--include",
        action="append",
        type=local_path,
        default=[],
        metavar="PATH",
        help="also send this file, or what git does not ignore in this folder; without it namd's "
        "sources and the study file are all that is sent; may be repeated",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATH",
        help="leave this out of what is sent; may be repeated",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be sent, with bytes, and send nothing; needs no cluster",
    )


def submit_command(arguments: argparse.Namespace) -> int:
    """Submit or find the study's job. Without `--wait` 0; else as the job ended.

    Raises InputError before anything is sent if the file, a path, a content, the size or the token
    is not right.
    """
    from namd.distributed.upload import collect
    from namd.study.spec import read_study
    from namd.study.trials import Configurator

    spec = read_study(arguments.file)
    with about(str(arguments.file)):
        Configurator(spec).check()
    missing = _missing(arguments, spec)
    if missing and not arguments.dry_run:
        raise InputError(next(iter(missing.values())))
    root, file = _project(arguments.file, arguments.working_dir)
    request = _request(arguments, spec, root, file)
    upload = collect(root, file, include=arguments.include, exclude=arguments.exclude)
    if arguments.dry_run:
        return _list_files(arguments, request, upload, list(missing))
    for path in sorted(upload.included):
        echo(f"included: {path}, {size(upload.files[path])}")
    return _send(arguments, request, upload, request.store or spec.base.given("store"))


def _send(
    arguments: argparse.Namespace, request: "Request", upload: "Upload", store: str | None
) -> int:
    from namd.distributed.jobs import connect, recorded_attempts, submit
    from namd.distributed.upload import write_archive

    client = connect(arguments.address)
    with tempfile.TemporaryDirectory(prefix="namd-submit-") as folder:
        package = Path(folder) / "project.zip"
        write_archive(upload, package)
        decision = submit(
            client,
            request,
            package,
            address=arguments.address,
            recorded=recorded_attempts(store, request.study),
            again=arguments.again,
        )
    echo(_what_happened(decision, upload))
    return _finish(arguments, client, request.study, decision, upload)


def _list_files(
    arguments: argparse.Namespace, request: "Request", upload: "Upload", missing: list[str]
) -> int:
    """Answer a dry run."""
    files = [{"path": str(path), "bytes": count} for path, count in upload.files.items()]
    value: dict[str, Any] = {
        "study": request.study,
        "dry_run": True,
        "files": files,
        "bytes": upload.num_bytes,
        "included": [str(path) for path in sorted(upload.included)],
        "sources": str(upload.sources),
        "missing": missing,
    }
    lines = [f"{count:>9}  {path}" for path, count in upload.files.items()]
    lines.append(
        f"{len(files)} files, {size(upload.num_bytes)}; namd's sources are those of "
        f"{upload.sources}; nothing was sent"
    )
    if missing:
        lines.append(f"still to be named: {', '.join(missing)}")
    answer(arguments, value, "\n".join(lines))
    return 0


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
            echo(f"{decision.submission_id} goes on; the same command follows it again")
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
    from namd.config.fingerprint import fingerprint
    from namd.config.parsing import to_mapping
    from namd.distributed.jobs import Request, requirements_of

    store = arguments.store or (None if spec.base.given("store") else os.environ.get("NAMD_STORE"))
    _require_shared("store", store or spec.base.given("store"))
    _require_shared("cohort", arguments.cohort or spec.base.given("cohort"))
    what = [to_mapping(spec), store, arguments.cohort]
    return Request(
        study=spec.name,
        file=file,
        fingerprint=fingerprint(what),
        store=store,
        cohort=arguments.cohort,
        version=_version(),
        packages=requirements_of(root) if arguments.install else (),
        environment=_environment(arguments.env),
    )


def _missing(arguments: argparse.Namespace, spec: "StudySpec") -> dict[str, str]:
    """Return the options that a submission lacks, and what to say of each."""
    missing = {}
    if not arguments.address:
        missing["--address"] = "no cluster: name its dashboard's URL with --address"
    store = arguments.store or spec.base.given("store") or os.environ.get("NAMD_STORE")
    given = {"store": store, "cohort": arguments.cohort or spec.base.given("cohort")}
    for name, value in given.items():
        if not value:
            missing[f"--{name}"] = (
                f"no {name}: name it with --{name}, as the cluster's nodes see it"
            )
    return missing


def _require_shared(name: str, given: str | None) -> None:
    """Check that a place means the same on every machine. Raises InputError."""
    if not given or "://" in given or Path(given).is_absolute():
        return
    if name == "cohort" and phantom_named(given):
        return
    raise InputError(
        f"{name} {given}: a relative folder means another place on each node; give the absolute "
        "folder that the nodes share, or a URL"
    )


def _project(file: Path, given: Path | None) -> tuple[Path, PurePosixPath]:
    """Return the folder that paths are relative to, and the study file's. Raises InputError."""
    place = file.resolve()
    root = given.resolve() if given is not None else _root(place)
    if root not in place.parents:
        raise InputError(f"{file}: lies outside the folder that is sent, {root}")
    return root, PurePosixPath(place.relative_to(root).as_posix())


def _root(file: Path) -> Path:
    """Return the project that a file lies in, else its folder."""
    for folder in file.parents:
        if any((folder / mark).exists() for mark in PROJECT_MARKS):
            return folder
    return file.parent


def _environment(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"--env {word}: expected NAME=VALUE")
        found[name] = value
    return found


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("namd")
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
