"""Calls to S3 are tried again while it is away, for a limited time, and only then."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from namd.config.errors import InputError
from namd.storage import s3
from namd.storage.s3 import PATIENCE_VARIABLE, Patience, S3Away, is_away

URL = "s3://bucket/prefix"
GONE = EndpointConnectionError(endpoint_url="http://somewhere:9000/bucket")


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Server:
    """Is away from one moment to another."""

    def __init__(self, clock: Clock, away: tuple[float, float], error: Exception = GONE) -> None:
        self.clock, self.away, self.error, self.tries = clock, away, error, 0

    def __call__(self) -> str:
        self.tries += 1
        if self.away[0] <= self.clock.now - 100 < self.away[1]:
            raise self.error
        return "answer"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patience(clock: Clock, answered: bool = True) -> Patience:
    return Patience(URL, 60.0, answered, clock, clock.sleep)


def test_a_short_outage_is_waited_out_with_growing_pauses(clock):
    server = Server(clock, (0, 40))
    assert patience(clock)(server) == "answer"
    assert clock.slept[:5] == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert max(clock.slept) == 5.0
    assert clock.now - 100 < 40 + 5


def test_a_long_outage_ends_at_the_limit_with_one_line_that_names_the_place(clock):
    with pytest.raises(S3Away, match=rf"^{URL} does not answer \(.*somewhere:9000.*60 s\)$"):
        patience(clock)(Server(clock, (0, 1e9)))
    assert clock.now - 100 == pytest.approx(60)


def test_an_address_that_never_answered_is_not_waited_for(clock):
    server = Server(clock, (0, 5))
    with pytest.raises(S3Away, match="does not answer"):
        patience(clock, answered=False)(server)
    assert (server.tries, clock.slept) == (1, [])
    clock.now += 10
    once = patience(clock, answered=False)
    assert once(server) == "answer"
    server.away = (clock.now - 100, clock.now - 100 + 20)
    assert once(server) == "answer"


def test_an_outage_is_one_for_all_calls(clock):
    calls, server = patience(clock), Server(clock, (0, 1e9))
    with pytest.raises(S3Away):
        calls(server)
    tries, moment = server.tries, clock.now
    with pytest.raises(S3Away):
        calls(server)
    assert (server.tries, clock.now) == (tries, moment)
    clock.now += s3.RECHECK_S
    with pytest.raises(S3Away):
        calls(server)
    assert server.tries == tries + 1


def test_a_server_that_stands_still_is_asked_less_often(clock):
    calls, moments = patience(clock), []

    def hang() -> None:
        moments.append(clock.now)
        clock.now += 20
        raise TimeoutError

    for _ in range(50):
        with pytest.raises(S3Away):
            calls(hang)
        clock.now += 1
    assert moments[-1] - moments[-2] == pytest.approx(60, abs=2)


def test_an_answer_ends_the_outage_and_the_next_one_is_waited_out_again(clock):
    calls, server = patience(clock), Server(clock, (0, 100))
    with pytest.raises(S3Away):
        calls(server)
    clock.now = 201.0
    assert calls(server) == "answer"
    server.away = (101, 130)
    assert calls(server) == "answer"


def test_what_the_server_says_is_handed_on_at_once(clock):
    server = Server(clock, (0, 1e9), FileNotFoundError("no such key"))
    with pytest.raises(FileNotFoundError):
        patience(clock)(server)
    assert server.tries == 1


def client_error(status: int, code: str) -> ClientError:
    found = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(found, "PutObject")


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (GONE, True),
        (ReadTimeoutError(endpoint_url="x"), True),
        (TimeoutError(), True),
        (client_error(503, "SlowDown"), True),
        (client_error(500, "InternalError"), True),
        (client_error(409, "ConditionalRequestConflict"), True),
        (client_error(501, "NotImplemented"), False),
        (client_error(403, "AccessDenied"), False),
        (client_error(404, "NoSuchKey"), False),
        (FileExistsError("taken"), False),
    ],
)
def test_only_what_may_pass_by_itself_counts_as_away(error, away):
    assert is_away(error) is away
    translated = OSError("in s3fs's words")
    translated.__cause__ = error
    assert is_away(translated) is (away and isinstance(error, ClientError))


@pytest.mark.parametrize("text", ["soon", "-1", "inf"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(monkeypatch, text):
    monkeypatch.setenv(PATIENCE_VARIABLE, text)
    with pytest.raises(InputError, match=PATIENCE_VARIABLE):
        Patience(URL)


def test_the_limit_is_taken_from_the_environment(monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "7")
    assert Patience(URL).limit_s == 7
    monkeypatch.delenv(PATIENCE_VARIABLE)
    assert Patience(URL).limit_s == s3.PATIENCE_S


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        ("localhost:9000", "such as http://localhost:9000"),
        ("ftp://minio", "such as http://minio"),
        ("http://", "begins with http:// or https://"),
        ("http:/minio", "begins with http:// or https://"),
    ],
)
def test_an_address_that_is_none_is_refused_before_it_is_used(monkeypatch, name, value, way_out):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name}={value}: not the address.*{way_out}"):
        s3.open_s3()


@pytest.mark.parametrize("value", ["", "http://localhost:9000", "https://s3.example.org"])
def test_an_address_with_its_scheme_is_taken(monkeypatch, value):
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    assert s3.open_s3() is not None
