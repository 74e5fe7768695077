"""What may leave this machine: values without paths, hosts, addresses and identifiers."""

import math
import re
import socket
from collections.abc import Mapping
from typing import Any

IDENTIFIERS = frozenset(
    ("case_id", "patient_id", "lesion_id", "host", "hostname", "pid", "user", "address")
)
"""Keys whose values are never sent, wherever they stand."""

_PATH = re.compile(r"(?:\w+://|(?<![\w.])~?/)(?:[^\s/'\",:;()]+/)+([^\s/'\",:;()]*)")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
_PAIR = re.compile(r"\(case .+?, k=(?=\d+\))")
"""How messages of a drawing pipeline name a case (namd.distributed.pairs.pair_in_words)."""

_SHORTEST_HOST = 3
"""A shorter host name would be found inside ordinary words."""


def clean(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON value without identifying keys; see `clean_text` for its strings.

    Numbers that are not finite become None, since JSON has none.
    """
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items() if str(key) not in IDENTIFIERS}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def clean_text(text: str) -> str:
    """Return a text with folders cut from its paths, without case ids, addresses and this host."""
    text = _PAIR.sub("(a case, k=", text)
    text = _ADDRESS.sub("…", _PATH.sub(r"…/\1", text))
    host = socket.gethostname()
    if len(host) > _SHORTEST_HOST:
        text = re.sub(rf"\b{re.escape(host)}\b", "…", text)
    return text
