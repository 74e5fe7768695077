"""What may leave this machine: values under known keys, and only words and numbers of texts.

A deny list is never complete, so a text is split, and only tokens of a known shape are kept. A
person's name is a plain word and has that shape too: messages must not contain any.
"""

import getpass
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

IDENTIFIERS = frozenset(
    (
        *("case_id", "patient_id", "lesion_id", "series", "study_uid", "email", "cwd", "home"),
        *("host", "hostname", "pid", "user", "username", "address", "ip", "node", "node_ip"),
    )
)
"""Keys whose values are never sent, at any depth."""

PLACES = frozenset(
    (
        *("cohort", "store", "weights", "folder", "path", "file", "directory", "source"),
        *("clip_weights", "lpips_vgg", "lpips_alex", "inception", "dicom", "images", "ehr"),
    )
)
"""Keys, or ends of dotted keys, whose values may name a file: a single plain word is kept."""

GONE = "…"
"""Replaces removed text."""

_WORD = r"[A-Z]?[a-zà-öø-ÿ]+|[A-Z]{1,6}s?"
_NUMBER = r"[-+±]?\d{1,6}(?:\.\d+)?(?:[eE][-+]?\d{1,3})?"
_UNITS = r"(?:%|s|ms|min|h|d|B|KiB|MiB|GiB|TiB|x|mm|cm|px)"
_SNAKE = r"[A-Za-z]+(?:_[A-Za-z]+)+"
_DOTTED = r"([a-z_]+)(?:\.[a-z_]+)+"
_ERROR = r"(?:[a-z_]+\.)*(?:[A-Z][a-z]*)+(?:Error|Exception|Warning|Interrupt|Exit)"
_TOKEN = re.compile(
    rf"(?:{_WORD})(?:[-'’](?:{_WORD}))*|{_SNAKE}|{_ERROR}"
    rf"|{_NUMBER}{_UNITS}?|{_UNITS}|\d{{1,3}}/\d{{1,3}}"
    r"|and/or|w/o|n/a|I/O|W&B|NaN|CUDA|DataFrame|DDIM|[^\w\s/\\:@~^]+"
)
_IN_DOTS = re.compile(_DOTTED)
_ASSIGNED = re.compile(rf"(?:{_SNAKE}|{_WORD}|{_DOTTED})=(?:{_NUMBER}|{_WORD}|{_SNAKE})?")
_SEPARATORS = re.compile(r"([\s,;|()\[\]{}\"“”`]+)")
_EDGES = re.compile(r"(['‘<*#]*)(.*?)(['’>*.!?:]*)", re.DOTALL)
_QUOTED = re.compile(r"(?<!\w)'[^'\n]*'(?!\w)")
_PLACE = re.compile(
    r"(?<![\w.])(?:[A-Za-z]:\\|\\\\|~|/|\w+://)\S*(?:(?:\s\S+){0,2}?\s[^\s/\\]*[\w.][/\\]\S*)?"
)
"""A path, with up to two blanks in the names of its folders."""
_PAIR = re.compile(r"\(case .+?, k=(?=\d+\))")
"""A case in the messages of a drawing pipeline (namd.distributed.pairs.pair_text)."""
_NAMED = re.compile(
    r"\b(?i:((?:case|patient|lesion|nodule|subject|scan|series|host|node|user)s?(?: id)?:?)) "
    r"(?=[^\s,;()\[\]]*[A-Z\d])[^\s,;()\[\]]+"
)
"""A token after such a word that is no plain word itself is its name."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_+-][A-Za-z0-9]+)*")
_PLAIN = re.compile(r"[a-z_]+")


def clean(value: Any, known: frozenset[str] = frozenset()) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON value without identifying keys, its strings cleaned.

    A string that is a single name (`bf16`, `no_align`) is a choice and is kept, unless its key is
    one of PLACES; for any other see `clean_text`. Non-finite numbers become None, since
    JSON has none.

    Args:
        value: Of JSON's types.
        known: As `clean_text`.
    """
    if isinstance(value, Mapping):
        return {
            str(key): _clean_item(str(key), item, known)
            for key, item in value.items()
            if str(key) not in IDENTIFIERS
        }
    if isinstance(value, list | tuple):
        return [clean(item, known) for item in value]
    if isinstance(value, str):
        single = _NAME.fullmatch(value) and value not in _this_machine()
        return value if single else clean_text(value, known)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def clean_text(text: str, known: frozenset[str] = frozenset()) -> str:
    """Return a text without everything that is not a plain word or number.

    Paths, addresses, names of hosts and files, anything in single quotes, tokens that mix letters
    and digits, and long numbers become `…`.

    Args:
        text: A message or a question.
        known: First parts of dotted names that are kept, such as those of a configuration.
    """
    text = _QUOTED.sub(GONE, _PLACE.sub(GONE, _PAIR.sub("(a case, k=", text)))
    text = _NAMED.sub(rf"\1 {GONE}", text)
    return "".join(_clean_token(token, known) for token in _SEPARATORS.split(text))


def _clean_item(key: str, item: Any, known: frozenset[str]) -> Any:  # noqa: ANN401 - JSON
    """Return what may be sent of a mapping's value."""
    if key.rpartition(".")[2] in PLACES and isinstance(item, str):
        return item if _PLAIN.fullmatch(item) and item not in _this_machine() else GONE
    return clean(item, known)


def _clean_token(token: str, known: frozenset[str]) -> str:
    if not token or _SEPARATORS.fullmatch(token):
        return token
    match = _EDGES.fullmatch(token)
    if match is None or not match[2]:
        return token
    before, core, after = match.groups()
    kept = core not in _this_machine() and _is_plain(core, known)
    return token if kept else f"{before}{GONE}{after}"


def _is_plain(core: str, known: frozenset[str]) -> bool:
    if _TOKEN.fullmatch(core) or _ASSIGNED.fullmatch(core):
        return True
    dotted = _IN_DOTS.fullmatch(core)
    return dotted is not None and dotted[1] in known


@cache
def _this_machine() -> frozenset[str]:
    """Return the words that name this machine and its user."""
    host = socket.gethostname()
    words = {host, host.partition(".")[0], *map(os.environ.get, ("USER", "LOGNAME"))}
    # The user may have no passwd entry, as in containers.
    with suppress(KeyError, OSError, ImportError):
        words.add(getpass.getuser())
    return frozenset(word for word in words if word)
