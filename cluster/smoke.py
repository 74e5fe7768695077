"""`make cluster-smoke`: a study on a Ray head and a second raylet here, and on local Ray alone.

Both tables must be the same, and nothing of it may be left running. Exit code 0 where everything
held. Each process that this starts, or that its processes start, carries a mark in its
environment, by which the end finds what is left.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

PROJECT = Path(__file__).resolve().parents[1]
STUDY = PROJECT / "cluster" / "smoke.yaml"
NAME = "cluster-smoke"
MARK = "NAMD_SMOKE"
CASES = 160
SEED = 2
START_S = 240.0
LIMIT_S = 900.0
TERMINATE_S = 15.0
TOLERANCE = 1e-6
OBJECT_STORE_BYTES = 100_000_000


class SmokeError(Exception):
    """Something did not hold; one line."""


def main() -> int:
    """Run the check. Returns 0 where everything held, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    keep = parser.parse_args().keep
    # A folder's name enters those of sockets, which may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="nsmk-", dir="/tmp"))
    environment = marked_environment(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    code = 1
    try:
        check(folder, environment)
        code = 0
    except SmokeError as error:
        say(began, f"FAILED: {error}")
        print_logs(folder)
    finally:
        left = end_processes(environment[MARK])
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if left:
        say(began, f"FAILED: processes are left: {left}")
        return 1
    say(began, "held; nothing is left running" if code == 0 else "nothing is left running")
    return code


def check(folder: Path, environment: Mapping[str, str]) -> None:
    """Do it all. Raises SmokeError."""
    began = time.monotonic()
    cohort, shared, alone = folder / "cohort", folder / "cluster-store", folder / "local-store"
    build = ["cohort", "build", "phantom", "--cases", str(CASES), "--replicates", "4"]
    namd([*build, "--seed", str(SEED), "--out", str(cohort)], environment)
    say(began, "cohort built")
    with cluster(folder, environment) as address:
        say(began, f"two raylets answer at {address}")
        submit = ["submit", str(STUDY), "--address", address]
        submit += ["--store", str(shared), "--cohort", str(cohort)]
        require_refused(submit, environment)
        say(began, "a wrong token is refused")
        first = namd([*submit, "--wait"], environment)
        expect(first["submission_id"] == f"namd-{NAME}-1", f"submitted as {first}")
        say(began, f"{first['submission_id']}: {first['status'].lower()}")
        again = namd(submit, environment)
        same = again["attached"] and again["submission_id"] == first["submission_id"]
        expect(same, f"submitted again as {again}")
        say(began, "submitted again, nothing is started")
    namd(study_run(alone, cohort), environment)
    say(began, "the same study on local Ray is over")
    compare(status(shared, environment), status(alone, environment))
    say(began, "both tables are the same")


def study_run(store: Path, cohort: Path) -> list[str]:
    """Return the command that runs the study on local Ray."""
    words = ["study", "run", str(STUDY), "--address", "local"]
    return [*words, "--store", str(store), "--cohort", str(cohort)]


def status(store: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return how the study stands in a store."""
    return namd(["study", "status", NAME, "--store", str(store)], environment)


def compare(shared: Mapping[str, Any], alone: Mapping[str, Any]) -> None:
    """Check that two statuses show the same trials and the same numbers. Raises SmokeError."""
    expect(shared["trials"] == alone["trials"], f"{shared['trials']} and {alone['trials']}")
    expect(shared["trials"]["completed"] == 2, f"completed: {shared['trials']}")
    one, other = flat(shared["arms"]), flat(alone["arms"])
    expect(one.keys() == other.keys(), f"fields differ: {sorted(one.keys() ^ other.keys())}")
    expect(any(isinstance(value, float) for value in one.values()), "the tables hold no number")
    for name, value in one.items():
        same = value == other[name] or (
            isinstance(value, float) and abs(value - other[name]) <= TOLERANCE
        )
        expect(same, f"{name}: {value} on the cluster, {other[name]} alone")


def flat(value: object, name: str = "arms") -> dict[str, Any]:
    """Return the leaves of a JSON value by their place."""
    if isinstance(value, Mapping):
        parts = [flat(item, f"{name}.{key}") for key, item in value.items()]
    elif isinstance(value, list):
        parts = [flat(item, f"{name}[{number}]") for number, item in enumerate(value)]
    else:
        return {name: value}
    return {key: item for part in parts for key, item in part.items()}


def require_refused(submit: list[str], environment: Mapping[str, str]) -> None:
    """Check that another token is refused as bad input. Raises SmokeError."""
    wrong = {**environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = run(["-m", "namd.cli.main", *submit, "--json"], wrong)
    expect(done.returncode == 2, f"a wrong token ended with {done.returncode}: {done.stderr}")


@contextmanager
def cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Start a head and a second raylet of one core each; yields the dashboard's URL."""
    # One block of ports: a port found free singly may be another's by the time it is used.
    ports = iter(free_ports(16))
    gcs, dashboard = next(ports), next(ports)
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    head += ["--dashboard-host=127.0.0.1"]
    head += [f"--resources={json.dumps({'namd_driver': 8})}", "--include-dashboard=true"]
    head += [f"--ray-client-server-port={next(ports)}"]
    address = f"http://127.0.0.1:{dashboard}"
    with ExitStack() as stack:
        for number, (name, words) in enumerate(
            (("head", head), ("second", [f"--address=127.0.0.1:{gcs}"]))
        ):
            # A folder for each: two raylets of one folder remove each other's copy of a job's
            # sources, as if they were done with it, under the running job.
            own = [f"--temp-dir={folder / name}", *own_ports(ports)]
            start_raylet(
                stack,
                folder / f"{name}.log",
                [*words, *own],
                environment,
                lambda wanted=number + 1: count_nodes(address, environment) >= wanted,
            )
        yield address


def start_raylet(
    stack: ExitStack,
    log: Path,
    words: list[str],
    environment: Mapping[str, str],
    answers: Callable[[], bool],
) -> None:
    """Run `ray start` in the foreground until the stack is left. Raises SmokeError.

    A raylet dies where its agent needs more than 15 s to start, as on a machine that others keep
    busy; it is started again.
    """
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
    command += ["--num-cpus=1", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", *words]
    end = time.monotonic() + START_S
    while True:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while process.poll() is None and not answers():
            if time.monotonic() > end:
                terminate(process)
                raise SmokeError(f"{log.stem}: no raylet after {START_S:.0f} s")
            time.sleep(1.0)
        if process.poll() is None:
            stack.callback(terminate, process)
            return
        expect(time.monotonic() < end, f"{log.stem}: no raylet after {START_S:.0f} s")


def terminate(process: subprocess.Popen[bytes]) -> None:
    """End a process, at last by force."""
    process.terminate()
    try:
        process.wait(TERMINATE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def own_ports(ports: Iterator[int]) -> list[str]:
    """Return the options that keep two raylets of one host apart."""
    names = ("node-manager-port", "object-manager-port", "dashboard-agent-listen-port")
    names += ("dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port")
    # Worker ports 0: the system chooses.
    chosen = [f"--{name}={next(ports)}" for name in names]
    return [*chosen, "--min-worker-port=0", "--max-worker-port=0"]


def free_ports(count: int) -> list[int]:
    """Return so many ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def count_nodes(address: str, environment: Mapping[str, str]) -> int:
    """Return how many nodes the dashboard knows; 0 while it does not answer."""
    headers = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    try:
        answer = requests.get(f"{address}/nodes?view=summary", headers=headers, timeout=5)
        if answer.status_code != 200:
            return 0
        nodes = answer.json()["data"]["summary"]
    except (requests.exceptions.RequestException, KeyError, ValueError):
        return 0
    return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def namd(words: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a command of namd and return what it says. Raises SmokeError where it fails."""
    done = run(["-m", "namd.cli.main", *words, "--json"], environment)
    last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
    expect(done.returncode == 0, f"namd {words[0]} ended with {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python on words, its stderr kept beside the cluster's logs."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    name = "-".join(word for word in words[2:5] if word.isalpha())
    with (Path(environment["NAMD_SMOKE_LOGS"]) / f"{name}.log").open("a") as log:
        log.write(done.stderr + done.stdout)
    return done


def marked_environment(folder: Path) -> dict[str, str]:
    """Return the environment of everything started here: a token, a mark, this Python first."""
    hidden = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH", "NAMD_STORE")
    own = {name: value for name, value in os.environ.items() if name not in hidden}
    return {
        **own,
        "PATH": f"{Path(sys.executable).parent}:{own.get('PATH', '')}",
        MARK: folder.name,
        "NAMD_SMOKE_LOGS": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def end_processes(mark: str) -> list[str]:
    """End every process that carries the mark; return those that would not end."""
    found = marked(mark)
    for process in found:
        with_patience(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=TERMINATE_S)
    # Those that were started while others ended carry the mark as well.
    alive = list({process.pid: process for process in [*alive, *marked(mark)]}.values())
    for process in alive:
        with_patience(process.kill)
    psutil.wait_procs(alive, timeout=TERMINATE_S)
    return [f"{process.pid} {process.name()}" for process in marked(mark)]


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that carry the mark, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def with_patience(end: Callable[[], None]) -> None:
    """Call what may find its process gone."""
    with suppress(psutil.NoSuchProcess):
        end()


def print_logs(folder: Path) -> None:
    """Show the end of each log of a failed check."""
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        sys.stderr.write(f"--- {log.name}\n" + "\n".join(lines) + "\n")


def expect(holds: bool, otherwise: str) -> None:
    """Raise SmokeError unless something holds."""
    if not holds:
        raise SmokeError(" ".join(otherwise.split())[:500])


def say(began: float, line: str) -> None:
    """Print what was reached, and when."""
    sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
