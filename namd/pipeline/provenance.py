"""What a manifest says about the program that made an artifact: versions, commit, source, host."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "namd"
LIBRARIES = (
    "numpy",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "torchmetrics",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "safetensors",
)


@cache
def environment() -> dict[str, Any]:
    """Return versions, git commit and host of this process. Imports none of the libraries."""
    return {
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


@cache
def source_hash(module: str) -> str:
    """Return the SHA-256 of the project's source that a module can reach by its imports.

    Imports are read from the source text, those inside functions too, so nothing is executed.
    A module outside the project counts alone.
    """
    digest = hashlib.sha256()
    for name in sorted(reachable(module)):
        path = _path(name)
        if path is not None:
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reachable(module: str) -> set[str]:
    """Return the names of the project's modules that a module can import, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _path(name)
        if path is None:
            continue
        found.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting.extend(other for other in _imports(tree) if other.split(".")[0] == PACKAGE)
    return found


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@cache
def _path(module: str) -> Path | None:
    """Return a module's source file, or None where the name is no module with one."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
