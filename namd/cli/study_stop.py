"""`namd study stop | retry`: what a person asks of a study that was started."""

import argparse
import getpass
import socket
import time

from namd.cli.output import answer, echo
from namd.cli.study_inputs import Ledger, find_driver, open_ledger, read_status
from namd.cli.study_status import report_of
from namd.config.errors import InputError

FAILED = 1
POLL_S = 0.5
REMINDER_S = 10.0
"""Seconds between two lines while a study is stopping."""


def stop_command(arguments: argparse.Namespace) -> int:
    """Ask a study's driver to stop and wait until it has; 1 where it has not in time.

    Raises InputError if the study is not running.
    """
    from namd.ledger.requests import request_stop

    ledger = open_ledger(arguments)
    status = read_status(ledger)
    driver = find_driver(ledger, status.ended)
    if driver.state != "running":
        raise InputError(f"study {ledger.name}: not running ({driver.state}); nothing to stop")
    reason = f"namd study stop, by {_person()}"
    asked = request_stop(ledger.storage, ledger.name, status.attempt, reason)
    echo(f"{'asked' if asked else 'a request already asks'} {driver.named} to stop")
    if arguments.timeout and not _wait(ledger, arguments.timeout):
        echo(
            f"{ledger.name} still runs after {arguments.timeout:g} s; it stops at its next "
            f"checkpoint. If {driver.named} hangs, end that process: the study can be resumed"
        )
        answer(arguments, {"study": ledger.name, "stopped": False}, f"{ledger.name}: stopping")
        return FAILED
    report = report_of(ledger)
    value = {"study": ledger.name, "stopped": bool(arguments.timeout), "state": report["state"]}
    answer(arguments, value, f"{ledger.name}: {report['about']}")
    return 0


def retry_command(arguments: argparse.Namespace) -> int:
    """Make failed trials pending again and say how to run them. Raises InputError."""
    from namd.ledger.view import lasting
    from namd.study.record import open_study
    from namd.study.spec import parse_study
    from namd.study.trials import Configurator

    ledger = open_ledger(arguments)
    view = read_status(ledger)
    driver = find_driver(ledger, view.ended)
    if driver.state == "running":
        raise InputError(
            f"study {ledger.name}: {driver.named} is running it; stop it first with "
            f"`namd study stop {ledger.name} --store {ledger.url}`"
        )
    freed: list[str] = []
    if view.counts()["failed"]:
        spec = parse_study(view.specification)
        about = lasting(view.about)
        with open_study(ledger.storage, spec, Configurator(spec), about=about) as study:
            freed = study.retry_failed()
            study.stopped(f"{len(freed)} failed trials are to be run again")
    value = {"study": ledger.name, "pending_again": freed, "resume": ledger.resume}
    text = "no trial has failed"
    if freed:
        text = f"{len(freed)} failed trials are pending again; run them with `{ledger.resume}`"
    answer(arguments, value, f"{ledger.name}: {text}")
    return 0


def _wait(ledger: Ledger, timeout_s: float) -> bool:
    """Return whether the driver released the lease in time."""
    began = last = time.monotonic()
    while time.monotonic() - began < timeout_s:
        if find_driver(ledger, "").state != "running":
            return True
        if time.monotonic() - last >= REMINDER_S:
            last = time.monotonic()
            echo(f"waiting: what is being built writes a checkpoint first ({last - began:.0f} s)")
        time.sleep(POLL_S)
    return False


def _person() -> str:
    """Return who asks; a container may have no name for its user."""
    try:
        return f"{getpass.getuser()} on {socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()
