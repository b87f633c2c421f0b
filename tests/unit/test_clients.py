"""How long a call to AWS may take: the settings of every client that a function makes, and what really happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Barrier, Lock
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from botocore.retries.standard import ExponentialBackoff, RetryContext

from renderbell import bootstrap
from renderbell.deliver import DELIVERY_TIMEOUT_S
from renderbell.errors import ConfigurationError
from renderbell.jobs import SAVING_S
from renderbell.poll import LEASE_S, RENEW_S, SETTLING_S, TICK_S
from renderbell.refresh import RETRY_S, STALE_S
from renderbell.schedule import CLAIM_RENEW_S, CLAIM_S
from tests.environment import ENVIRONMENT
from tests.template.expanded import expanded
from tests.unit.raw_server import Handler, Visit, always, answer, raw_server

T = TypeVar("T")

FUNCTIONS = ("api", "authorizer", "poller", "notifier")
CALLS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "events": ("put_events", {"Entries": [{"Source": "s", "DetailType": "d", "Detail": "{}"}]}),
    "dynamodb": ("get_item", {"TableName": "t", "Key": {"pk": {"S": "a"}, "sk": {"S": "b"}}}),
    "lambda": ("invoke", {"FunctionName": "f", "InvocationType": "Event", "Payload": b"{}"}),
    "s3": ("upload_part", {"Bucket": "b", "Key": "k", "UploadId": "u", "PartNumber": 1, "Body": b"x" * 100_000}),
    "secretsmanager": ("get_secret_value", {"SecretId": "s"}),
    "ssm": ("get_parameters_by_path", {"Path": "/p"}),
}


class RecordingSession(boto3.Session):
    """Remembers the clients that are made, by service."""

    def __init__(self) -> None:
        super().__init__(aws_access_key_id="test", aws_secret_access_key="test", region_name="eu-central-1")
        self.made: dict[str, BaseClient] = {}

    def client(self, service_name: Any, *args: Any, **more: Any) -> Any:
        made = super().client(service_name, *args, **more)
        self.made[service_name] = made
        return made


@pytest.fixture(scope="module")
def clients() -> Mapping[str, Mapping[str, BaseClient]]:
    """Every client that each function makes, by function and service: those too that it makes later."""
    return {function: clients_of(function, at_once) for function in FUNCTIONS}


def at_once(make: Callable[[], T]) -> Callable[[], T]:
    """Makes at the start what could be made at its first use."""
    made = make()
    return lambda: made


def clients_of(function: str, later: bootstrap.Later) -> Mapping[str, BaseClient]:
    """The clients that a function makes at its start, if it makes others at the given time."""
    session = RecordingSession()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setattr(boto3, "DEFAULT_SESSION", session)
        build = getattr(bootstrap, function)
        build(later=later) if function != "authorizer" else build()
    return session.made


@dataclass(frozen=True)
class Timing:
    """What a client's configuration says of time."""

    connect_s: float
    read_s: float
    tries: int
    mode: str


def timing(client: BaseClient) -> Timing:
    config: Any = client.meta.config  # the stubs do not know its options
    retries = config.retries
    return Timing(config.connect_timeout, config.read_timeout, retries["total_max_attempts"], retries["mode"])


def waits_s(client: BaseClient) -> float:
    """The most that a call waits between its tries, by botocore's own word."""
    wait = ExponentialBackoff(random=lambda: 1.0)
    numbers = range(1, timing(client).tries)
    return float(sum(wait.delay_amount(RetryContext(attempt_number=number)) for number in numbers))


def longest_call_s(client: BaseClient) -> float:
    """The most that a call takes which hangs in every try: connecting, the TLS handshake, the answer, and the waits.

    It holds for one address of a service: where every packet to it is dropped, each further one costs a connect
    time-out more.
    """
    its = timing(client)
    return its.tries * (2 * its.connect_s + its.read_s) + waits_s(client)


def limit_of(function: str) -> float:
    limit: float = expanded()["Resources"][f"{function.title()}Function"]["Properties"]["Timeout"]
    return limit


# -- the sums ---------------------------------------------------------------------------------------------------------


def test_a_function_makes_clients_of_these_services(clients: Mapping[str, Mapping[str, BaseClient]]) -> None:
    assert {function: set(made) for function, made in clients.items()} == {
        "api": {"dynamodb", "lambda", "s3", "secretsmanager", "ssm"},
        "authorizer": {"dynamodb", "secretsmanager"},
        "poller": {"dynamodb", "lambda", "ssm"},
        "notifier": {"dynamodb", "events", "s3", "secretsmanager", "ssm"},
    }


def test_a_start_makes_only_the_clients_that_it_is_sure_to_need() -> None:
    assert {function: set(clients_of(function, bootstrap.at_first_use)) for function in FUNCTIONS} == {
        "api": {"dynamodb"},
        "authorizer": {"dynamodb", "secretsmanager"},
        "poller": {"dynamodb"},
        "notifier": {"dynamodb", "secretsmanager"},
    }


def test_what_is_made_at_its_first_use_is_made_once_and_by_one_thread_at_a_time() -> None:
    making, made = Lock(), []

    def make() -> object:
        assert making.acquire(blocking=False), "another thread is making one"
        time.sleep(0)  # the others come
        made.append(object())
        making.release()
        return made[-1]

    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            made.clear()
            all_come = Barrier(8)
            gets = [bootstrap.at_first_use(make), bootstrap.at_first_use(make)]

            def use(number: int, all_come: Barrier = all_come, gets: list[Callable[[], object]] = gets) -> object:
                all_come.wait()
                return gets[number % 2]()

            found = list(threads.map(use, range(8)))
            assert (len(made), set(found[::2]) | set(found[1::2])) == (2, set(made))
            assert len(set(found[::2])) == 1


def test_what_could_not_be_made_is_made_at_the_next_use() -> None:
    tries = iter([ConfigurationError("no region"), None])

    def make() -> str:
        if (trouble := next(tries)) is not None:
            raise trouble
        return "made"

    get = bootstrap.at_first_use(make)
    with pytest.raises(ConfigurationError):
        get()
    assert (get(), get()) == ("made", "made")


def test_every_client_tries_again_and_gives_up(clients: Mapping[str, Mapping[str, BaseClient]]) -> None:
    for made in clients.values():
        assert all(2 <= timing(client).tries <= 4 for client in made.values())
        assert {timing(client).mode for client in made.values()} == {"standard"}, "the older mode waits otherwise"
    dynamodb = clients["notifier"]["dynamodb"]
    assert longest_call_s(dynamodb) == 4 * (2 + 2 + 3) + (1 + 2 + 4) == 35, "the sum itself"


@pytest.mark.parametrize("function", ["api", "authorizer"])
def test_a_request_answers_in_time_while_two_services_hang(
    clients: Mapping[str, Mapping[str, BaseClient]], function: str
) -> None:
    """A registration may wait for Parameter Store, whose old values then serve, and for the wake-up, which may fail."""
    assert limit_of(function) < 29, "API Gateway gives up then"
    assert all(2 * longest_call_s(client) + 2 < limit_of(function) for client in clients[function].values())


def test_a_renewal_that_hangs_is_given_up_while_the_lease_still_stands(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    assert longest_call_s(clients["poller"]["dynamodb"]) <= LEASE_S - RENEW_S


def test_a_tick_outlives_its_first_reading_of_connections(clients: Mapping[str, Mapping[str, BaseClient]]) -> None:
    """Its own thread waits then, and renews nothing; later readings happen in another."""
    assert longest_call_s(clients["poller"]["ssm"]) < LEASE_S - RENEW_S


def test_the_pollers_time_limit_covers_a_table_that_hangs_at_the_ticks_end(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    polls_end = TICK_S + SETTLING_S - SAVING_S
    assert polls_end + longest_call_s(clients["poller"]["dynamodb"]) < limit_of("poller")
    assert limit_of("poller") == TICK_S + bootstrap.RESERVE_S


def test_a_tick_begins_in_time_though_its_workers_cannot_be_started(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    assert bootstrap.STARTING_S + longest_call_s(clients["poller"]["lambda"]) < 60, "before the next tick"


def test_a_call_that_hangs_is_given_up_while_the_copys_claim_still_stands(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    left = CLAIM_S - CLAIM_RENEW_S
    for service in ("dynamodb", "s3", "ssm"):
        assert longest_call_s(clients["notifier"][service]) <= left, service


def test_an_attempt_and_a_call_that_hangs_fit_a_deliverys_claim(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    assert DELIVERY_TIMEOUT_S + longest_call_s(clients["notifier"]["dynamodb"]) < CLAIM_S


def test_the_bus_takes_no_longer_than_a_receiver_may(clients: Mapping[str, Mapping[str, BaseClient]]) -> None:
    assert longest_call_s(clients["notifier"]["events"]) <= DELIVERY_TIMEOUT_S


def test_starting_workers_stops_when_lambda_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    now = [1000.0]
    asked: list[object] = []

    class Hanging:
        def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
            asked.append(payload["worker"])
            now[0] += 9
            raise ClientError({"Error": {"Code": "ServiceException", "Message": ""}}, "Invoke")

    wired = bootstrap.poller()
    parts = bootstrap.PollerParts(wired.poller, 64, Hanging(), wired.counts, clock=lambda: now[0])
    parts.start_others("poller")
    assert asked == [1, 2], "63 calls that hang would keep worker 0 from its own tasks for many minutes"


# -- what really happens ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    error: Exception
    took_s: float
    tries: int


def silence(visit: Visit) -> None:
    visit.request()
    visit.wait()


def reset(visit: Visit) -> None:
    visit.request()


JSON = "Content-Type: application/x-amz-json-1.0"
THROTTLED = b'{"__type":"com.amazonaws#ThrottlingException","message":"Rate exceeded"}'
LAMBDA_THROTTLED = "X-Amzn-ErrorType: TooManyRequestsException"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
TROUBLE: Mapping[str, Mapping[str, Handler]] = {
    "hangs": dict.fromkeys(CALLS, silence),
    "resets": dict.fromkeys(CALLS, reset),
    "answers 500": dict.fromkeys(CALLS, always(answer(b"", "500 Internal Server Error"))),
    "throttles": {
        **dict.fromkeys(CALLS, always(answer(THROTTLED, "400 Bad Request", JSON))),
        "lambda": always(answer(b'{"Reason":"CallerRateLimitExceeded"}', "429 Too Many", JSON, LAMBDA_THROTTLED)),
        "s3": always(answer(SLOW_DOWN, "503 Slow Down", "Content-Type: application/xml")),
    },
}
BUSY_S = 5.0  # what a busy machine may add
SCALE_S = 0.25  # the time-outs of these tests; tries and waits are the real ones


def hurried(session: boto3.Session, client: BaseClient, service: str, url: str) -> Callable[[], Outcome]:
    """A call to a server with a client like this one, but shorter time-outs; what it sends is counted."""
    config = client.meta.config.merge(Config(connect_timeout=SCALE_S, read_timeout=SCALE_S))
    made: BaseClient = session.client(service, config=config, endpoint_url=url)  # type: ignore[call-overload]
    operation, arguments = CALLS[service]
    sent: list[object] = []
    made.meta.events.register("before-send", lambda request, **_: sent.append(request))

    def call() -> Outcome:
        began = time.monotonic()
        try:
            getattr(made, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            return Outcome(error, time.monotonic() - began, len(sent))
        raise AssertionError("it should have failed")

    return call


@pytest.fixture(scope="module")
def met(clients: Mapping[str, Mapping[str, BaseClient]]) -> Mapping[tuple[str, str, str], Outcome]:
    """Every client's call in every trouble, side by side, because most of it is waiting."""
    session = boto3.Session("test", "test", region_name="eu-central-1")
    with ExitStack() as servers, ThreadPoolExecutor(64) as threads:
        calls = {
            (trouble, function, service): hurried(
                session, client, service, servers.enter_context(raw_server(handlers[service])).url
            )
            for trouble, handlers in TROUBLE.items()
            for function, made in clients.items()
            for service, client in made.items()
        }
        running = {which: threads.submit(call) for which, call in calls.items()}
        return {which: one.result() for which, one in running.items()}


@pytest.mark.parametrize("trouble", list(TROUBLE))
def test_a_call_to_a_service_in_trouble_ends_with_botocores_error_after_its_tries(
    clients: Mapping[str, Mapping[str, BaseClient]], met: Mapping[tuple[str, str, str], Outcome], trouble: str
) -> None:
    for (kind, function, service), outcome in met.items():
        if kind == trouble:
            client = clients[function][service]
            assert outcome.tries == timing(client).tries, (function, service)
            limit_s = timing(client).tries * 2 * SCALE_S + waits_s(client)
            assert outcome.took_s <= limit_s + BUSY_S, (function, service)


def test_throttling_is_told_from_silence(met: Mapping[tuple[str, str, str], Outcome]) -> None:
    throttled = {"ThrottlingException", "TooManyRequestsException", "SlowDown"}
    for (trouble, function, service), outcome in met.items():
        if trouble == "throttles":
            assert isinstance(outcome.error, ClientError), (function, service)
            assert outcome.error.response["Error"]["Code"] in throttled
        if trouble in {"hangs", "resets"}:
            assert isinstance(outcome.error, BotoCoreError), (function, service)


# -- secrets ----------------------------------------------------------------------------------------------------------


class SecretsManager:
    """Secrets Manager with one secret; it can be out of order."""

    def __init__(self) -> None:
        self.text = "one"
        self.reads = 0
        self.trouble: Exception | None = None

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 - AWS's name
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        return {"SecretString": self.text}


def test_a_secret_is_read_every_five_minutes_and_outlives_an_outage() -> None:
    manager, now = SecretsManager(), [1000.0]
    secret = bootstrap.secret_text(lambda: cast(Any, manager), "first", lambda: now[0])
    assert (secret(), secret(), manager.reads) == ("one", "one", 1)
    manager.text = "two"
    now[0] += bootstrap.SECRET_MAX_AGE_S
    assert (secret(), manager.reads) == ("two", 2)
    manager.trouble = ClientError({"Error": {"Code": "InternalServiceError", "Message": ""}}, "GetSecretValue")
    now[0] += STALE_S
    assert secret() == "two", "nobody is locked out by an outage of some minutes"
    now[0] += 10
    with pytest.raises(ConfigurationError):
        secret()


def test_a_cold_start_while_secrets_manager_is_down_fails_and_recovers() -> None:
    manager, now = SecretsManager(), [1000.0]
    manager.trouble = ReadTimeoutError(endpoint_url="https://secretsmanager.test")
    secret = bootstrap.secret_text(lambda: cast(Any, manager), "first", lambda: now[0])
    for _ in range(3):
        with pytest.raises(ConfigurationError):
            secret()
    assert manager.reads == 1, "not every caller waits for a service that hangs"
    manager.trouble = None
    now[0] += RETRY_S
    assert secret() == "one"


def test_what_is_stored_is_hashed_for_its_checksum_but_not_once_more_to_sign_it(
    clients: Mapping[str, Mapping[str, BaseClient]],
) -> None:
    s3: Any = clients["notifier"]["s3"]
    sent: list[Any] = []

    def note(request: Any, **more: object) -> AWSResponse:
        sent.append(request.headers)
        return AWSResponse(request.url, 200, HTTPHeaders(), SimpleNamespace(stream=list))

    s3.meta.events.register("before-send.s3.UploadPart", note)
    s3.upload_part(Bucket="b", Key="k", UploadId="u", PartNumber=1, Body=b"part", ChecksumSHA256="c3VtIG9mIGEgcGFydA==")
    assert sent[0]["x-amz-checksum-sha256"] == b"c3VtIG9mIGEgcGFydA=="
    assert sent[0]["x-amz-content-sha256"] == b"UNSIGNED-PAYLOAD"
