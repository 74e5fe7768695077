"""Access to S3 for ledger and artifacts: time limits, and retries during outages.

Independent of the layout of the bucket.
"""

import math
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from namd.config.errors import InputError

if TYPE_CHECKING:
    from s3fs import S3FileSystem

PATIENCE_VARIABLE = "NAMD_S3_PATIENCE_S"
"""Names the variable that overrides `PATIENCE_S`, the longest outage that is waited out."""

PATIENCE_S = 60.0

CONNECT_S = 5
"""Limit of one try to connect."""

ANSWER_S = 15
"""Limit of silence after a request was sent, or between two pieces of its answer."""

SLOWEST_BYTES_PER_S = 1e6
"""Slower uploads are aborted: a stopped server accepts some bytes and then no more."""

LONGEST_PAUSE_S = 5.0
RECHECK_S = 1.0
"""After an outage exceeded its limit, calls fail at once for this long before the next try.

Or for twice as long as the last try took, if that is more: a study that ends has several records
left to write, and each would wait for a stopped server.
"""

_BUSY = frozenset({"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted"})

_HOST = re.compile(r"[\w.-]+(:\d+)?/?")

P = ParamSpec("P")
T = TypeVar("T")


class S3Away(OSError):  # noqa: N818 - says what is the case
    """S3 does not answer, or answers that it cannot serve now."""


class Patience:
    """Tries calls again while S3 is away, with growing pauses, for a limited time.

    All threads share an outage: it begins with the first call that fails, and ends with the
    first one that is answered. If the server has never answered, the address is more likely wrong
    than the server away: then nothing is retried.

    Args:
        name: The URL, for messages.
        limit_s: How long an outage is waited out; None: `$NAMD_S3_PATIENCE_S`, else `PATIENCE_S`.
        answered: Whether the server is known to have answered, if only another process.
        clock: Monotonic seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        name: str,
        limit_s: float | None = None,
        answered: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.limit_s = _limit() if limit_s is None else limit_s
        self._answered = answered
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._began: float | None = None
        self._refused: tuple[float, str] | None = None

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the call's result. Raises S3Away, or OSError for other errors of S3."""
        first: float | None = None
        pause_s = 0.2
        while True:
            self._refuse()
            began = self._clock()
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                if not is_away(error):
                    raise _as_os_error(self.name, error) from error
                now = self._clock()
                first = now if first is None else first
                rest_s = self._rest_s(first, now - began, error)
            else:
                self._hear()
                return result
            self._sleep(min(pause_s, rest_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _hear(self) -> None:
        with self._lock:
            self._answered, self._began, self._refused = True, None, None

    def _refuse(self) -> None:
        """Fail at once if the outage has just exceeded its limit."""
        with self._lock:
            if self._refused is not None and self._clock() < self._refused[0]:
                raise S3Away(self._refused[1])

    def _rest_s(self, first: float, took_s: float, error: Exception) -> float:
        """Return how much longer to wait. Raises S3Away once the limit is exceeded."""
        with self._lock:
            now = self._clock()
            self._began = now if self._began is None else self._began
            rest_s = self._began + self.limit_s - now if self._answered else 0.0
            # Other calls may be answered all the while: this one has its limit too.
            rest_s = min(rest_s, first + self.limit_s - now)
            if rest_s > 0:
                return rest_s
            tried = f"; tried for {now - self._began:.0f} s" if self._answered else ""
            text = f"{self.name} does not answer ({_in_words(error)}{tried})"
            self._refused = (now + max(RECHECK_S, 2 * took_s), text)
            raise S3Away(text) from error


def open_s3(**options: Any) -> "S3FileSystem":  # noqa: ANN401 - for s3fs
    """Return s3fs with time limits, without its own caches and retries; see `Patience`.

    Address and credentials come from where the AWS tools find them, unless `options` set them.

    Raises InputError if a variable names an invalid address.
    """
    import s3fs  # a local study must not pay for it

    _require_addresses()
    limits = {
        "connect_timeout": CONNECT_S,
        "read_timeout": ANSWER_S,
        "retries": {"total_max_attempts": 1},
    }
    filesystem = s3fs.S3FileSystem(
        use_listings_cache=False, skip_instance_cache=True, config_kwargs=limits, **options
    )
    filesystem.retries = 1
    return filesystem


def upload_limit_s(num_bytes: int) -> float:
    """Return how long a request with this many bytes may take."""
    return CONNECT_S + ANSWER_S + num_bytes / SLOWEST_BYTES_PER_S


def is_away(error: BaseException) -> bool:
    """Whether an error means that S3 is unreachable or too busy, which may pass by itself."""
    from aiohttp import ClientError as StreamError
    from botocore.exceptions import ConnectionError as NotConnected
    from botocore.exceptions import HTTPClientError
    from botocore.parsers import ResponseParserError

    kinds = (TimeoutError, ConnectionError, StreamError, NotConnected, HTTPClientError)
    if isinstance(error, (S3Away, *kinds, ResponseParserError)):
        return True
    reply = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if not isinstance(reply, dict):
        return False
    status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # 501: the request is not implemented; a retry is useless.
    busy = status == 429 or (status >= 500 and status != 501)
    return busy or reply.get("Error", {}).get("Code") in _BUSY


def _as_os_error(name: str, error: Exception) -> Exception:
    """Return an error as the OSError that callers expect; s3fs passes others through."""
    from botocore.exceptions import BotoCoreError, ClientError

    # An invalid address in ~/.aws/config is a ValueError.
    address = isinstance(error, ValueError) and "endpoint" in str(error)
    if address or isinstance(error, BotoCoreError | ClientError):
        return OSError(f"{name}: {_in_words(error)}")
    return error


def _require_addresses() -> None:
    """Refuse variables that botocore would refuse with a ValueError, at the first request."""
    from botocore.utils import is_valid_endpoint_url

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        value = os.environ.get(name, "")
        scheme, _, rest = value.partition("://")
        if value and not (scheme in ("http", "https") and is_valid_endpoint_url(value)):
            host = rest or value
            such = f", such as http://{host}" if _HOST.fullmatch(host) else ""
            raise InputError(
                f"{name}={value}: not the address of a server; it begins with http:// or "
                f"https://{such}"
            )


def _in_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "a request took longer than it may"


def _limit() -> float:
    given = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        limit_s = float(given) if given else PATIENCE_S
    except ValueError:
        limit_s = math.nan
    if not 0 <= limit_s < math.inf:
        raise InputError(f"{PATIENCE_VARIABLE}={given!r}: expected a number of seconds, 0 or more")
    return limit_s
