"""Finding the weights of others on this disk and judging whether they may be read.

Nothing is downloaded here and nothing is loaded: this module imports neither torch nor a model
library, so that a run can say at its start what it will miss.

A folder format is looked for in `weights/<folder>` (what the presets name), in
`$NAMD_WEIGHTS/<folder>` and in the Hugging Face cache, in this order. Another folder or hub name
that the configuration gives is used or refused: looking further would hide a misspelt path. A
checkpoint is looked for where its library will look: torch hub's cache.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.models.weights_settings import WEIGHTS, ExternalWeight

FOLDER_VARIABLE = "NAMD_WEIGHTS"
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
# Longer than any header of a real model (100 MB is safetensors' own limit).
_LONGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class WeightStatus:
    """What is known of one set of weights on this machine.

    Attributes:
        name: Key of `WEIGHTS`.
        title: What a person calls it.
        purpose: What a run does with it.
        found: Whether it can be used.
        path: Where it lies; None: nowhere.
        looked: Every place that was looked at, in order.
        problem: Why it cannot be used; empty where it can.
        licence: Licence of the weights.
        gated: Whether its terms must be accepted first.
        fetch: The command that fetches it on a connected machine.
        fallback: What a run does without it.
    """

    name: str
    title: str
    purpose: str
    found: bool
    path: str | None
    looked: tuple[str, ...]
    problem: str
    licence: str
    gated: bool
    fetch: str
    fallback: str

    @property
    def announcement(self) -> str:
        """One line for the start of a run."""
        if self.found:
            return f"{self.title}: {self.path}"
        return f"{self.title}: {self.problem}; instead: {self.fallback}"

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self) | {"looked": list(self.looked)}


def locate(name: str, configured: str | None = None) -> Path | None:
    """Return where usable weights lie (a folder, or a checkpoint's file), or None.

    Args:
        name: Key of `WEIGHTS`.
        configured: Folder or hub name `owner/name` that the configuration gives.

    Raises:
        InputError: The name is unknown.
    """
    weight = _weight(name)
    for place in _places(weight, configured):
        if place is not None and examine(place, weight) == "":
            return place
    return None


def require(name: str, configured: str | None = None) -> Path:
    """Return where usable weights lie.

    Raises InputError saying what is missing, where it was looked for and how to fetch it.
    """
    status = status_of(name, configured)
    if status.path is None or not status.found:
        raise InputError(
            f"{status.title}: {status.problem}; looked at {', '.join(status.looked)}; "
            f"fetch it with: {status.fetch}; or {status.fallback}"
        )
    return Path(status.path)


def has_lpips_vgg() -> bool:
    """Whether the lpips package can build its VGG distance from this disk."""
    return locate("lpips-vgg") is not None


def describe(
    preset: str | None = None, config: Mapping[str, Any] | None = None
) -> list[WeightStatus]:
    """Return the status of every weight that a preset wants, in the table's order.

    Args:
        preset: A preset's name; None: every weight there is.
        config: Configuration as a mapping, whose values may name folders.
    """
    config = config or {}
    return [
        status_of(weight.name, configured)
        for weight in WEIGHTS.values()
        if (configured := configured_value(config, weight)) is not None
        or preset is None
        or preset in weight.presets
    ]


def status_of(name: str, configured: str | None = None) -> WeightStatus:
    """Return what is known of one set of weights. Raises InputError for an unknown name."""
    weight = _weight(name)
    looked: list[str] = []
    problems: list[str] = []
    path: Path | None = None
    for label, place in _labelled_places(weight, configured):
        looked.append(label)
        if place is None:
            continue
        problem = examine(place, weight)
        if not problem:
            path, problems = place, []
            break
        if place.exists():
            problems.append(f"{place}: {problem}")
    return WeightStatus(
        name=weight.name,
        title=weight.title,
        purpose=weight.purpose,
        found=path is not None,
        path=None if path is None else str(path),
        looked=tuple(looked),
        problem="" if path else ("; ".join(problems) or "not on this disk"),
        licence=weight.licence,
        gated=weight.gated,
        fetch=weight.fetch_command,
        fallback=weight.fallback,
    )


def configured_value(config: Mapping[str, Any], weight: ExternalWeight) -> str | None:
    """Return the folder or hub name that a configuration gives for a weight, or None."""
    value: Any = config
    for name in weight.config_path.split(".") if weight.config_path else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) and value != weight.config_word else None


def examine(place: Path, weight: ExternalWeight) -> str:
    """Return why weights at a place cannot be used, or an empty text."""
    if weight.format == "checkpoint":
        return _examine_checkpoint(place)
    return _examine_folder(place, weight)


def hub_checkpoints() -> Path:
    """Return the folder in which torch hub keeps downloaded checkpoints."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _weight(name: str) -> ExternalWeight:
    if name not in WEIGHTS:
        raise InputError(f"weights {name!r} are unknown; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _places(weight: ExternalWeight, configured: str | None) -> Iterator[Path | None]:
    for _, place in _labelled_places(weight, configured):
        yield place


def _labelled_places(
    weight: ExternalWeight, configured: str | None
) -> Iterator[tuple[str, Path | None]]:
    if weight.format == "checkpoint":
        place = hub_checkpoints() / weight.filename
        yield str(place), place
        return
    if configured not in (None, weight.preset_folder):
        yield from _configured_places(weight, str(configured))
        return
    place = _descend(Path(weight.preset_folder), weight)
    yield str(place), place
    root = os.environ.get(FOLDER_VARIABLE)
    if root:
        place = _descend(Path(root).expanduser() / weight.folder, weight)
        yield f"${FOLDER_VARIABLE}: {place}", place
    else:
        yield f"${FOLDER_VARIABLE} (not set)", None
    yield f"Hugging Face cache: {weight.repository}", _cached_folder(weight.repository, weight)


def _configured_places(
    weight: ExternalWeight, configured: str
) -> Iterator[tuple[str, Path | None]]:
    folder = Path(configured).expanduser()
    place = _descend(folder, weight)
    yield f"{weight.config_path or 'configuration'}: {place}", place
    if not folder.exists() and _is_hub_name(configured):
        yield f"Hugging Face cache: {configured}", _cached_folder(configured, weight)


def _is_hub_name(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and not text.startswith(".")


def _descend(folder: Path, weight: ExternalWeight) -> Path:
    inner = folder / weight.subfolder
    return inner if weight.subfolder and inner.is_dir() else folder


def _cached_folder(repository: str, weight: ExternalWeight) -> Path | None:
    # Imported here: it costs half a second, which `namd --help` has not got.
    from huggingface_hub import try_to_load_from_cache

    inside = f"{weight.subfolder}/config.json" if weight.subfolder else "config.json"
    found = try_to_load_from_cache(repository, inside)
    return Path(found).parent if isinstance(found, str) else None


def _examine_checkpoint(place: Path) -> str:
    if not place.is_file():
        return "not there"
    expected = place.stem.rpartition("-")[2]
    stat = place.stat()
    digest = _file_digest(place, stat.st_size, stat.st_mtime_ns)
    if not digest.startswith(expected):
        return f"its SHA-256 starts with {digest[:8]}, not {expected}: a broken download"
    return ""


@functools.lru_cache(maxsize=32)
def _file_digest(place: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - cache key
    with place.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _examine_folder(folder: Path, weight: ExternalWeight) -> str:
    if not folder.is_dir():
        return "not there"
    return (
        _wrong_config(folder / "config.json", weight)
        or _wrong_tensors(folder, weight)
        or _missing_companion(folder, weight.companions)
    )


def _wrong_config(path: Path, weight: ExternalWeight) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no config.json"
    except (OSError, ValueError):
        return "config.json cannot be read as JSON"
    if not isinstance(config, dict):
        return "config.json holds no mapping"
    stated = config.get("_class_name" if weight.format == "diffusers" else "model_type")
    if stated not in weight.classes:
        return f"config.json describes {stated}, not {' or '.join(weight.classes)}"
    return ""


def _wrong_tensors(folder: Path, weight: ExternalWeight) -> str:
    stem = _STEMS[weight.format]
    whole = folder / f"{stem}.safetensors"
    if whole.is_file():
        return _wrong_safetensors(whole)
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return _wrong_shards(index)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return f"only pickled weights ({pickles[0]}), which are never read; save it as safetensors"
    return f"no {stem}.safetensors"


def _wrong_shards(index: Path) -> str:
    try:
        shards: Iterable[str] = set(
            json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{index.name} cannot be read"
    for shard in sorted(shards):
        if Path(shard).name != shard:
            return f"{index.name} points outside its folder ({shard})"
        problem = _wrong_safetensors(index.parent / shard)
        if problem:
            return problem
    return ""


def _wrong_safetensors(path: Path) -> str:
    """Check the header alone: it says which bytes must follow, and costs no read of gigabytes."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LONGEST_HEADER_BYTES:
                return (
                    f"{path.name} is no safetensors file (a Git LFS pointer or a broken download)"
                )
            header = json.loads(stream.read(length))
        end = max(
            entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"
        )
    except FileNotFoundError:
        return f"no {path.name}"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{path.name} is no safetensors file"
    if path.stat().st_size != 8 + length + end:
        return f"{path.name} is cut short"
    return ""


def _missing_companion(folder: Path, groups: tuple[str, ...]) -> str:
    for group in groups:
        if not any((folder / name).is_file() for name in group.split("|")):
            return f"no {' or '.join(group.split('|'))}"
    return ""
