"""Plant every fault of the table, one at a time, and print the share that the fast tests catch."""

import argparse
import contextlib
import hashlib
import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tests.mutants.faults import (
    REPOSITORY,
    Fault,
    TableError,
    chosen,
    fast_options,
    read_table,
    require_fast,
)
from tests.mutants.trial import Outcome, copied, run_tests, try_out

WANTED = 0.95
TIMEOUT_S = 600.0
BASELINE_TIMEOUT_S = 1800.0
RECORD = REPOSITORY / "build" / "mutants.jsonl"
"""Outcomes so far; kept between runs, and read again only for the same sources."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if enough faults are caught, 1 if not, 2 if the table or the tests are unfit."""
    options = _options(arguments)
    try:
        table = read_table()
        fast = fast_options((REPOSITORY / "Makefile").read_text(encoding="utf-8"))
        for fault in table:
            require_fast(fault, fast)
            fault.planted((REPOSITORY / fault.file).read_text(encoding="utf-8"))
        faults = chosen(table, options.names)
    except (TableError, FileNotFoundError) as error:
        return _refused(str(error))
    if options.list:
        _say("\n".join(f"{fault.name:44} {fault.file}" for fault in faults))
        return 0
    record = Record(options.record, faults)
    if options.again:
        record.forget(faults)
    left = [fault for fault in faults if fault.name not in record.outcomes]
    if left:
        _progress(f"{len(left)} of {len(faults)} faults to try")
        reason = _unfit(left)
        if reason is not None:
            return _refused(reason)
        _try_all(left, options.jobs, record)
    return _report(faults, record.outcomes, as_json=options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="part of a fault's name, its room or its file")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--json", action="store_true", help="print the outcomes as one object")
    parser.add_argument("--list", action="store_true", help="print the faults and try none")
    parser.add_argument("--again", action="store_true", help="try again what is on record")
    parser.add_argument("--record", type=Path, default=RECORD, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def digests(root: Path, faults: Sequence[Fault]) -> dict[str, str]:
    """Return the digest of what each fault's outcome depends on, by its name.

    All of namd, what tests share with one another, the fault, and its test files.
    """
    shared = (path for path in (root / "tests").rglob("*.py") if not path.name.startswith("test_"))
    common = hashlib.sha256()
    for path in sorted({*(root / "namd").rglob("*.py"), *shared}):
        common.update(str(path.relative_to(root)).encode() + path.read_bytes())
    found = {}
    for fault in faults:
        own = common.copy()
        own.update(json.dumps(asdict(fault), sort_keys=True).encode())
        for test in fault.tests:
            own.update((root / test).read_bytes())
        found[fault.name] = own.hexdigest()
    return found


class Record:
    """Outcomes of the sources as they are, appended to a file as they come.

    Attributes:
        outcomes: By the fault's name.
    """

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path = path
        self.digests = digests(REPOSITORY, faults)
        self.outcomes: dict[str, Outcome] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            # A line that a kill has torn, or of another form, is tried again.
            with contextlib.suppress(json.JSONDecodeError, KeyError):
                entry = json.loads(line)
                if entry["digest"] == self.digests.get(entry["name"]):
                    self.outcomes[entry["name"]] = Outcome(entry["state"], entry["detail"])

    def forget(self, faults: Sequence[Fault]) -> None:
        """Take these faults as never tried."""
        for fault in faults:
            self.outcomes.pop(fault.name, None)

    def add(self, fault: Fault, outcome: Outcome) -> None:
        """Keep an outcome, so that a killed run goes on behind it."""
        self.outcomes[fault.name] = outcome
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"digest": self.digests[fault.name], "name": fault.name, **asdict(outcome)}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _unfit(faults: Sequence[Fault]) -> str | None:
    """Return why nothing follows from these faults' tests; None if they pass as they are."""
    tests = sorted({test for fault in faults for test in fault.tests})
    _progress(f"running {len(tests)} test files without a fault first")
    with copied() as copy:
        outcome = run_tests(copy, tests, BASELINE_TIMEOUT_S)
    if outcome.state == "survived":
        return None
    return f"the tests fail without any fault ({outcome.detail}); mend them first"


def _try_all(faults: Sequence[Fault], jobs: int, record: Record) -> None:
    started, total = time.monotonic(), len(faults)
    with _copies(max(1, min(jobs, total))) as borrow, ThreadPoolExecutor(max(1, jobs)) as pool:

        def one(fault: Fault) -> tuple[Fault, Outcome]:
            with borrow() as copy:
                return fault, try_out(copy, fault, TIMEOUT_S)

        for number, (fault, outcome) in enumerate(pool.map(one, faults), 1):
            record.add(fault, outcome)
            spent = time.monotonic() - started
            left = spent / number * (total - number)
            _progress(
                f"[{number}/{total}] {outcome.state:8} {fault.name}: {outcome.detail} "
                f"({left / 60:.0f} min left)"
            )


@contextlib.contextmanager
def _copies(
    count: int,
) -> Iterator[Callable[[], contextlib.AbstractContextManager[Path]]]:
    """Yield a way to borrow one of `count` copies of the sources."""
    with contextlib.ExitStack() as stack:
        free: queue.Queue[Path] = queue.Queue()
        for _ in range(count):
            free.put(stack.enter_context(copied()))

        @contextlib.contextmanager
        def borrow() -> Iterator[Path]:
            copy = free.get()
            try:
                yield copy
            finally:
                free.put(copy)

        yield borrow


def _report(faults: Sequence[Fault], outcomes: dict[str, Outcome], *, as_json: bool) -> int:
    caught = [f for f in faults if outcomes[f.name].state == "caught"]
    score = len(caught) / len(faults)
    if as_json:
        entries = [
            {"name": f.name, "file": f.file, "means": f.means, **asdict(outcomes[f.name])}
            for f in faults
        ]
        counts = {"faults": len(faults), "caught": len(caught), "score": score, "wanted": WANTED}
        _say(json.dumps(counts | {"outcomes": entries}, indent=1))
    else:
        for fault in faults:
            if fault not in caught:
                outcome = outcomes[fault.name]
                _say(f"{outcome.state}: {fault.name} ({fault.file})\n    {fault.means}")
                _say(f"    {outcome.detail}")
        for room in dict.fromkeys(fault.room for fault in faults):
            own = [fault for fault in faults if fault.room == room]
            _say(f"{room:10} {sum(fault in caught for fault in own):3} of {len(own):3}")
        _say(f"caught     {len(caught):3} of {len(faults):3}: {score:.1%}, {WANTED:.0%} wanted")
    return int(score < WANTED)


def _refused(reason: str) -> int:
    sys.stderr.write(f"mutants: {reason}\n")
    return 2


def _progress(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", OMP_NUM_THREADS="1")
    sys.exit(main())
