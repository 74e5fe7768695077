"""Finding the pretrained weights on this disk and judging whether they may be read.

Nothing is downloaded here and nothing is loaded: this module imports neither torch nor a model
library, so that a run can say at its start what it will miss.

A folder format is looked for in `weights/<folder>` (what the presets name), in
`$NAMD_WEIGHTS/<folder>` and in the Hugging Face cache, in this order. Another folder or hub name
that the configuration gives is used or refused: looking further would hide a misspelt path. A
checkpoint (one file) is looked for in `weights/`, in `$NAMD_WEIGHTS` and in torch hub's cache,
where its library would put it; or at the file or folder that the configuration gives.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.config.places import local_path
from namd.models.weights_settings import LOCAL_ROOT, WEIGHTS, ExternalWeight

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

    @property
    def refusal(self) -> str:
        """One line for a run that cannot start without it: folder, command and fallback."""
        return (
            f"{self.title}: {self.problem}; looked at {', '.join(self.looked)}; "
            f"fetch it with: {self.fetch}; or {self.fallback}"
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self) | {"looked": list(self.looked)}


def locate(name: str, configured: str | None = None, revision: str | None = None) -> Path | None:
    """Return where usable weights lie (a folder, or a checkpoint's file), or None.

    Args:
        name: Key of `WEIGHTS`.
        configured: Folder, file or hub name `owner/name` that the configuration gives.
        revision: Commit or branch of a hub name; None: the default branch.

    Raises:
        InputError: The name is unknown.
    """
    path = status_of(name, configured, revision).path
    return None if path is None else Path(path)


def require(name: str, configured: str | None = None, revision: str | None = None) -> Path:
    """Return where usable weights lie.

    Raises InputError saying what is missing, where it was looked for and how to fetch it.
    """
    status = status_of(name, configured, revision)
    if status.path is None:
        raise InputError(status.refusal)
    return Path(status.path)


def require_all(statuses: Iterable[WeightStatus]) -> None:
    """Raise InputError, one line on the first missing weights and the names of the others."""
    missing = [status for status in statuses if not status.found]
    if not missing:
        return
    others = ", ".join(status.title for status in missing[1:])
    raise InputError(
        missing[0].refusal + (f"; missing as well: {others} (see namd weights)" if others else "")
    )


def has_lpips_vgg(configured: str | None = None) -> bool:
    """Whether the lpips package can build its VGG distance from this disk."""
    return locate("lpips-vgg", configured) is not None


def describe(config: Mapping[str, Any] | None = None) -> list[WeightStatus]:
    """Return the status of every weight that a configuration can use, in the table's order.

    Those that it names, and the checkpoints that it would take from their usual places.

    Args:
        config: A whole configuration as a mapping; None: every weight there is.
    """
    if config is None:
        return [status_of(weight.name) for weight in WEIGHTS.values()]
    return [
        status_of(weight.name, configured)
        for weight in WEIGHTS.values()
        if (configured := configured_value(config, weight)) is not None
        or (weight.format == "checkpoint" and _has(config, weight.config_path))
    ]


def _has(config: Mapping[str, Any], path: str) -> bool:
    """Whether a configuration has a value at a dotted path, be it null."""
    value: object = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return bool(path)


def status_of(
    name: str, configured: str | None = None, revision: str | None = None
) -> WeightStatus:
    """Return what is known of one set of weights. Raises InputError for an unknown name."""
    weight = _weight(name)
    looked: list[str] = []
    problems: list[str] = []
    path: Path | None = None
    if weight.open and _is_elsewhere(weight, configured):
        weight = replace(weight, classes=())
    for label, place in _labelled_places(weight, configured, revision):
        looked.append(label)
        if place is None:
            continue
        problem = examine(place, weight)
        if not problem:
            path, problems = place, []
            break
        if _is_there(place):
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
        fetch=_fetch_command(weight, configured),
        fallback=weight.fallback,
    )


def configured_value(config: Mapping[str, Any], weight: ExternalWeight) -> str | None:
    """Return the folder or hub name that a configuration gives for a weight, or None."""
    value = _text_at(config, weight.config_path)
    return None if value == weight.config_word else value


def examine(place: Path, weight: ExternalWeight) -> str:
    """Return why weights at a place cannot be used, or an empty text."""
    look = _examine_checkpoint if weight.format == "checkpoint" else _examine_folder
    try:
        return look(place, weight)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _is_folder(place: Path) -> bool:
    try:
        return place.is_dir()
    except OSError:
        return False


def _is_there(place: Path) -> bool:
    """Whether something lies at a place, as far as this user may look: a home may be another's."""
    try:
        return place.exists()
    except OSError:
        return False


def hub_checkpoints() -> Path:
    """Return the folder in which torch hub keeps downloaded checkpoints."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return local_path(home) / "hub" / "checkpoints"


def _weight(name: str) -> ExternalWeight:
    if name not in WEIGHTS:
        raise InputError(f"weights {name!r} are unknown; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _text_at(config: Mapping[str, Any], path: str) -> str | None:
    value: Any = config
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def _is_elsewhere(weight: ExternalWeight, configured: str | None) -> bool:
    """Whether the configuration names another place than the published weights' own."""
    return configured not in (None, weight.preset_folder, weight.repository)


def _fetch_command(weight: ExternalWeight, configured: str | None) -> str:
    """Return the command for what is configured, where that is another hub name."""
    if weight.open and _is_elsewhere(weight, configured) and _is_hub_name(str(configured)):
        return f"hf download {configured}"
    return weight.fetch_command


def _labelled_places(
    weight: ExternalWeight, configured: str | None, revision: str | None
) -> Iterator[tuple[str, Path | None]]:
    if weight.format == "checkpoint":
        yield from _checkpoint_places(weight, configured)
        return
    if configured not in (None, weight.preset_folder):
        yield from _configured_places(weight, str(configured), revision)
        return
    place = _descend(Path(weight.preset_folder), weight)
    yield str(place), place
    root = os.environ.get(FOLDER_VARIABLE)
    if root:
        place = _descend(local_path(root) / weight.folder, weight)
        yield f"${FOLDER_VARIABLE}: {place}", place
    else:
        yield f"${FOLDER_VARIABLE} (not set)", None
    cached = _cached_folder(weight.repository, weight, revision)
    yield f"Hugging Face cache: {weight.repository}", cached


def _checkpoint_places(
    weight: ExternalWeight, configured: str | None
) -> Iterator[tuple[str, Path | None]]:
    if configured is not None:
        place = local_path(configured)
        named = [place / name for name in weight.filenames] if _is_folder(place) else [place]
        yield from ((f"{weight.config_path}: {file}", file) for file in named)
        return
    root = os.environ.get(FOLDER_VARIABLE)
    folders = [Path(LOCAL_ROOT), *([local_path(root)] if root else []), hub_checkpoints()]
    yield from (
        (str(folder / name), folder / name) for folder in folders for name in weight.filenames
    )


def _configured_places(
    weight: ExternalWeight, configured: str, revision: str | None
) -> Iterator[tuple[str, Path | None]]:
    folder = local_path(configured)
    place = _descend(folder, weight)
    yield f"{weight.config_path or 'configuration'}: {place}", place
    if not _is_there(folder) and _is_hub_name(configured):
        yield f"Hugging Face cache: {configured}", _cached_folder(configured, weight, revision)


def _is_hub_name(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and not text.startswith(".")


def _descend(folder: Path, weight: ExternalWeight) -> Path:
    inner = folder / weight.subfolder
    return inner if weight.subfolder and _is_folder(inner) else folder


def _cached_folder(
    repository: str, weight: ExternalWeight, revision: str | None = None
) -> Path | None:
    # Imported here: it costs half a second, which `namd --help` has not got.
    from huggingface_hub import try_to_load_from_cache

    inside = f"{weight.subfolder}/config.json" if weight.subfolder else "config.json"
    found = try_to_load_from_cache(repository, inside, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _examine_checkpoint(place: Path, weight: ExternalWeight) -> str:
    if not place.is_file():
        return "not there"
    if place.suffix == ".safetensors":
        # Nothing publishes a digest of this form; its own digest enters the key instead.
        return _wrong_safetensors(place)
    expected = weight.digest_start
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
    except (OSError, ValueError, RecursionError):
        return "config.json cannot be read as JSON"
    if not isinstance(config, dict):
        return "config.json holds no mapping"
    stated = config.get("_class_name" if weight.format == "diffusers" else "model_type")
    if weight.classes and stated not in weight.classes:
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
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
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
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return f"{path.name} is no safetensors file"
    if path.stat().st_size != 8 + length + end:
        return f"{path.name} is cut short"
    return ""


def _missing_companion(folder: Path, groups: tuple[str, ...]) -> str:
    for group in groups:
        if not any((folder / name).is_file() for name in group.split("|")):
            return f"no {' or '.join(group.split('|'))}"
    return ""
