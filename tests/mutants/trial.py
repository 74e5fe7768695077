"""One fault tried out: planted in a copy of the sources, the related tests run there.

The working tree is never written. The tests run in a process of their own, forked from a server
that has imported torch and its like already, so that a trial costs its tests and not the imports.
"""

import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.faults import REPOSITORY, Fault, fast_options

COPIED = ("namd", "analysis", "experiments", "tests")
FILES = ("pyproject.toml", "Makefile", "README.md")
PACKAGES = "namd,tests.typechecking.checked"
HEAVY = (
    "torch",
    "torchvision",
    "torchmetrics.image.fid",
    "torchmetrics.functional.image",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.schedulers.scheduling_ddim",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.models.auto.modeling_auto",
    "peft",
    "sklearn.linear_model",
    "pandas",
    "scipy.stats",
    "skimage",
    "hypothesis",
    "beartype",
    "jaxtyping",
    "pytest",
)
STRANGE = 99
"""Exit status of a process whose tests did not import the copy."""
CRASHES = ("SyntaxError", "IndentationError", "ImportError", "ModuleNotFoundError", "NameError")

State = Literal["caught", "survived", "broken"]


@dataclass(frozen=True)
class Outcome:
    """What the related tests said of a fault.

    Attributes:
        state: `caught`: a test failed; `survived`: none did; `broken`: nothing can be said,
            because the planted text is not code that runs, or the tests could not be.
        detail: The test that failed, or why nothing can be said.
    """

    state: State
    detail: str


@contextlib.contextmanager
def copied(root: Path = REPOSITORY) -> Iterator[Path]:
    """Yield a copy of the sources and tests, without compiled files; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="namd-mutant-") as name:
        copy = Path(name)
        for folder in COPIED:
            if (root / folder).is_dir():
                skip = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(root / folder, copy / folder, ignore=skip)
        for file in FILES:
            if (root / file).is_file():
                shutil.copy2(root / file, copy / file)
        yield copy


@contextlib.contextmanager
def planted(copy: Path, fault: Fault) -> Iterator[None]:
    """Carry the fault in the copy inside this block."""
    path = copy / fault.file
    sound = path.read_text(encoding="utf-8")
    _write(path, fault.planted(sound))
    try:
        yield
    finally:
        _write(path, sound)


def _write(path: Path, source: str) -> None:
    """Write a module, and forget its compiled file: it is believed by size and whole seconds."""
    path.write_text(source, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def try_out(copy: Path, fault: Fault, timeout_s: float) -> Outcome:
    """Plant a fault in the copy, run its tests, take it out again."""
    with planted(copy, fault):
        try:
            compile((copy / fault.file).read_text(encoding="utf-8"), fault.file, "exec")
        except SyntaxError as error:
            return Outcome("broken", f"SyntaxError: {error}")
        return run_tests(copy, fault.tests, timeout_s)


def run_tests(copy: Path, tests: Sequence[str], timeout_s: float) -> Outcome:
    """Run test files of a copy up to the first failure, marked tests left out, and judge it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    with tempfile.TemporaryDirectory(prefix="namd-outcome-") as folder:
        report, output = Path(folder) / "report.xml", Path(folder) / "output"
        arguments = (str(copy), [*tests, "-x"], str(report), str(output))
        process = context.Process(target=_pytest, args=arguments)
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            return Outcome("caught", f"ran past {timeout_s:g} s")
        text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        return judged(process.exitcode, report, text)


def judged(exitcode: int | None, report: Path, output: str) -> Outcome:
    """Return the outcome that pytest's exit status and JUnit report stand for."""
    if exitcode == 0:
        return Outcome("survived", "every related test passed")
    last = output.strip().splitlines()[-1] if output.strip() else "no output"
    if exitcode != 1 or not report.is_file():
        return Outcome("broken", f"pytest ended with {exitcode}: {last}")
    for case in ElementTree.parse(report).iter("testcase"):
        for found in (*case.iter("failure"), *case.iter("error")):
            message = str(found.get("message", ""))
            name = f"{case.get('classname')}::{case.get('name')}"
            if message == "collection failure":
                return Outcome("broken", f"{case.get('name')} cannot be imported")
            if message.startswith(CRASHES):
                return Outcome("broken", f"{name}: {message.splitlines()[0]}")
            return Outcome("caught", name)
    return Outcome("broken", f"pytest failed without a failed test: {last}")


def _pytest(copy: str, arguments: list[str], report: str, output: str) -> None:
    """Run pytest in this process with everything of the project imported from the copy."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(copy)
    own = {str(REPOSITORY), "", "."}
    sys.path[:] = [copy, *(place for place in sys.path if place not in own)]
    for name in list(sys.modules):
        if name.partition(".")[0] in COPIED:
            del sys.modules[name]
    import pytest

    fast = fast_options(Path("Makefile").read_text(encoding="utf-8"))
    quiet = ("-q", "-p", "no:cacheprovider", "--no-header")
    options = (f"--jaxtyping-packages={PACKAGES}", f"--junitxml={report}", f"--rootdir={copy}")
    status = int(pytest.main([*fast, *quiet, *options, *arguments]))
    package = sys.modules.get("namd")
    if package is None or not str(package.__file__).startswith(copy + os.sep):
        status = STRANGE
    sys.stdout.flush()
    os._exit(status)
