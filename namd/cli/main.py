"""The front door: finds the command, turns errors into exit codes. Commands live in their files.

A command's module offers `add_parser(subparsers)`, which declares it and sets `func`, from parsed
arguments to exit code. Nothing heavy is imported before `func` runs.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from namd.cli import streams
from namd.cli.output import accept_negative_numbers, write_json
from namd.config.account import complete_account
from namd.config.errors import InputError, StageError, one_line
from namd.config.search_path import leave_current_folder

COMMANDS = {
    "cohort": "namd.cli.cohort",
    "run": "namd.cli.run",
    "study": "namd.cli.study",
    "report": "namd.cli.report",
    "submit": "namd.cli.submit",
    "predict": "namd.cli.predict",
    "store": "namd.cli.store",
    "methods": "namd.cli.methods",
    "presets": "namd.cli.presets",
    "weights": "namd.cli.weights",
    "demo": "namd.cli.demo",
}
DESCRIPTION = (
    "Plans, runs and judges nodule-progression models, and never trains the same thing twice. "
    "For research only; not for clinical use."
)
BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
STOPPED = 143
"""Stopped, and the same command continues."""
UNREAD = 141
"""As the shell has it for Unix tools whose reader has gone."""

SHOWING = {
    "methods": (),
    "presets": (),
    "weights": (),
    "store": ("ls", "verify"),
    "cohort": ("check", "card"),
    "study": ("list", "status", "watch", "logs", "best"),
}
"""Commands, with their subcommands, that do nothing but show: they end once no one reads it."""


class _Version(argparse.Action):
    """Prints the installed version; looking it up takes time that no other command should pay."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit with 0."""
        from importlib import metadata

        sys.stdout.write(f"{parser.prog} {metadata.version('namd')}\n")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """argparse with the house's one-line errors and any negative number as a value."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of argparse
        super().__init__(**settings)
        accept_negative_numbers(self)

    def error(self, message: str) -> NoReturn:
        """Raise InputError, which `main` prints."""
        raise InputError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0 on success, 2 on bad input, 1 on failure; SystemExit(143) says that it was stopped and can be
    continued. Without arguments this process is the command: its streams and search path are set.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        leave_current_folder()
        complete_account()
        streams.install()
        streams.end_if_unread(_shows(words))
    # On a full disk a library's log cannot be written either: that is not worth a traceback.
    logging.raiseExceptions = False
    try:
        parsed = build_parser(words).parse_args(words)
        code = int(parsed.func(parsed))
        sys.stdout.flush()
        return code
    except InputError as error:
        return _print_error(str(error), BAD_INPUT, "--json" in words)
    except StageError as error:
        return _print_error(str(error), FAILED, "--json" in words)
    except PermissionError as error:
        return _print_error(f"{error.filename}: {error.strerror}", BAD_INPUT, "--json" in words)
    except SystemExit as stopped:
        if "--json" in words and stopped.code == STOPPED:
            from namd.pipeline.interruption import stop_reason

            write_json({"error": stop_reason(), "exit": STOPPED})
        raise
    except KeyboardInterrupt:
        return _print_error("interrupted by Ctrl-C", INTERRUPTED, "--json" in words)
    except streams.UnreadError:
        return UNREAD


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser with all commands, or only the one that the words begin with."""
    parser = _Parser(prog="namd", description=DESCRIPTION)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = words[0] if words and words[0] in COMMANDS else None
    for name, module in COMMANDS.items():
        if named in (None, name):
            importlib.import_module(module).add_parser(subparsers)
    return parser


def _shows(words: Sequence[str]) -> bool:
    """Whether the words name a command that only shows something."""
    if not words or words[0] not in SHOWING:
        return False
    subcommands = SHOWING[words[0]]
    return not subcommands or any(word in subcommands for word in words[1:2])


def _print_error(message: str, code: int, as_json: bool) -> int:
    line = one_line(message)
    sys.stderr.write(f"error: {line}\n")
    if as_json:
        write_json({"error": line, "exit": code})
    return code


if __name__ == "__main__":
    sys.exit(main())
