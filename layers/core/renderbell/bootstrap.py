"""Wires the real parts of each function, once at its cold start.

Each function imports here only what it uses: a cold start pays for every module.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from secrets import token_urlsafe
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from uuid import uuid4

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from renderbell import models  # noqa: F401 - pydantic, which is dear to import behind a dozen modules: docs/decisions.md
from renderbell.refresh import Refreshed
from renderbell.store import Store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SSMProvider
    from mypy_boto3_secretsmanager.client import SecretsManagerClient

    from renderbell.api import ApiParts
    from renderbell.authorize import Authorizer
    from renderbell.invoke import Invoker
    from renderbell.notify import Notifier
    from renderbell.poll import Poller
    from renderbell.task import StoredFile
    from renderbell.telemetry import Counts

T = TypeVar("T")

logger = Logger()

SECRET_MAX_AGE_S = 300
BATCH_THREADS = 10  # registrations or reads at a time, which is what a client of botocore keeps connections for

# How long one call to AWS may take before it is given up for good: every try may spend the connect time-out twice (TCP
# and TLS) and the read time-out, and the waits between tries grow from 1 s to 2 and 4 s. tests/unit/test_clients.py
# holds these sums against the leases, claims and time limits that they must fit.
QUICK = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})  # 11 s
TICKING = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})  # 24 s
HOLDING = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 4})  # 35 s
STORING = Config(connect_timeout=2, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})  # 39 s
COPYING = STORING.merge(Config(s3={"payload_signing_enabled": False}))  # what is sent carries a checksum, over TLS
PRESIGNING = QUICK.merge(Config(signature_version="s3v4", s3={"addressing_style": "path"}))


def utc_now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


_MAKING = RLock()


class Later(Protocol):
    """Says when to make something that not every start of a function comes to need."""

    def __call__(self, make: Callable[[], T]) -> Callable[[], T]: ...


def at_first_use(make: Callable[[], T]) -> Callable[[], T]:
    """A function that makes something when it is first called; one thread at a time, as a session of botocore must."""
    made: list[T] = []

    def get() -> T:
        if not made:
            with _MAKING:
                if not made:
                    made.append(make())
        return made[0]

    return get


def api(environment: Mapping[str, str] = os.environ, later: Later = at_first_use) -> ApiParts:
    """What the API's routes need."""
    from renderbell.addresses import EgressPolicy
    from renderbell.api import ApiParts
    from renderbell.callbacks import Callbacks
    from renderbell.connections import Connections, parameters_under
    from renderbell.endpoints import MANAGED_PREFIX
    from renderbell.fetch import PollClient
    from renderbell.idempotency import Idempotency
    from renderbell.ids import ENTROPY_BYTES, new_id
    from renderbell.invoke import LambdaInvoker
    from renderbell.keys import Keys
    from renderbell.listing import Listing
    from renderbell.manage import Endpoints
    from renderbell.presigned import presigned_url
    from renderbell.redeliver import Redelivery
    from renderbell.register import Tasks
    from renderbell.settings import ApiSettings
    from renderbell.threads import SideBySide
    from renderbell.wake import PollerWaker

    settings = ApiSettings.from_environment(environment)
    s3 = later(lambda: boto3.client("s3", config=PRESIGNING))
    master = secret_text(later(lambda: boto3.client("secretsmanager", config=QUICK)), settings.master_secret_id)
    parameters = later(parameter_store)
    connections = Connections(parameters_under(parameters, settings.connections_path), time.monotonic)

    def presign(file: StoredFile, expires_s: int, download_name: str | None) -> str:
        return presigned_url(s3(), file.bucket, file.key, expires_s=expires_s, download_name=download_name)

    def fresh_id(prefix: str) -> str:
        return new_id(prefix, utc_now(), os.urandom(ENTROPY_BYTES))

    store = Store(boto3.client("dynamodb", config=QUICK), settings.table_name)
    egress = EgressPolicy.from_settings(settings.allow_http_webhooks, settings.allowed_private_cidrs)
    side_by_side = SideBySide(BATCH_THREADS)
    invoker = LambdaInvoker(later(lambda: boto3.client("lambda", config=QUICK)))
    waker = PollerWaker(
        store=store,
        invoker=invoker,
        clock=utc_now,
        workers=settings.poller_workers,
        function_name=settings.poller_function_name,
    )
    tasks = Tasks(
        store=store,
        connections=connections,
        fetch=PollClient(connections_per_host=1).fetch,
        invoker=invoker,
        egress=egress,
        clock=utc_now,
        new_id=partial(fresh_id, "tsk"),
        slots=settings.slots,
        poller_workers=settings.poller_workers,
        poller_function=settings.poller_function_name,
        notifier_function=settings.notifier_function_name,
        task_retention_days=settings.task_retention_days,
        side_by_side=side_by_side,
        tells_bus=bool(settings.event_bus_name),
    )
    return ApiParts(
        tasks=tasks,
        listing=Listing(store=store, clock=utc_now, slots=settings.slots, side_by_side=side_by_side),
        redelivery=Redelivery(
            tasks=tasks,
            store=store,
            waker=waker,
            clock=utc_now,
        ),
        callbacks=Callbacks(
            store=store,
            connections=connections,
            waker=waker,
            clock=utc_now,
            side_by_side=side_by_side,
        ),
        endpoints=Endpoints(
            store=store,
            waker=waker,
            egress=egress,
            master_secret=lambda: master().encode(),
            clock=utc_now,
            new_id=partial(fresh_id, MANAGED_PREFIX),
            new_test_id=partial(fresh_id, "tst"),
            slots=settings.slots,
            side_by_side=side_by_side,
        ),
        keys=Keys(store=store, clock=utc_now, new_id=partial(fresh_id, "key"), new_secret=token_urlsafe),
        idempotency=Idempotency(store=store, clock=utc_now, new_token=lambda: uuid4().hex),
        connections=connections,
        presign=presign,
        master_secret=lambda: master().encode(),
        clock=utc_now,
        public_base_url=settings.public_base_url,
        video_retention_days=settings.video_retention_days,
    )


def authorizer(environment: Mapping[str, str] = os.environ) -> Authorizer:
    """What the authorizer needs."""
    from renderbell.authorize import Authorizer
    from renderbell.settings import AuthorizerSettings

    settings = AuthorizerSettings.from_environment(environment)
    secrets = boto3.client("secretsmanager", config=QUICK)
    return Authorizer(
        store=Store(boto3.client("dynamodb", config=QUICK), settings.table_name),
        first_secret=secret_text(lambda: secrets, settings.first_key_secret_id),
    )


def parameter_store() -> SSMProvider:
    """Parameter Store, where the connections are."""
    from aws_lambda_powertools.utilities.parameters import SSMProvider

    return SSMProvider(boto3_client=boto3.client("ssm", config=QUICK))


def secret_text(
    client: Callable[[], SecretsManagerClient], secret_id: str, clock: Callable[[], float] = time.monotonic
) -> Callable[[], str]:
    """A function that gives a secret's text, read every five minutes; the old one serves while it cannot be read."""

    def read(_: str | None) -> str:
        return client().get_secret_value(SecretId=secret_id)["SecretString"]

    return Refreshed("a secret", read, clock, max_age_s=SECRET_MAX_AGE_S).get


HOUSEKEEPING_THREADS = 8  # looks, renewals and invocations do not wait for slow polls
MAX_THREADS = 1000  # a Lambda function may have 1,024
STARTING_S = 10.0  # how long worker 0 goes on starting the others before it sees to its own tasks
RESERVE_S = 40.0  # what the function's time limit leaves after a tick: its polls end, and its last write may hang


class PollerParts(NamedTuple):
    """What the poller's handler needs."""

    poller: Poller
    workers: int
    invoker: Invoker
    counts: Counts
    reserve_s: float = RESERVE_S
    clock: Callable[[], float] = time.monotonic

    def start_others(self, function_name: str) -> None:
        """Starts the workers beside worker 0; one that is not started now is started by the next minute's tick."""
        until = self.clock() + STARTING_S
        for worker in range(1, self.workers):
            if self.clock() >= until:  # AWS Lambda hangs: worker 0's tasks must not wait for it
                logger.error("workers not started", extra={"first": worker, "workers": self.workers})
                return
            try:
                self.invoker.invoke(function_name, {"worker": worker})
            except (BotoCoreError, ClientError):
                logger.exception("worker not started", extra={"worker": worker})


def poller(environment: Mapping[str, str] = os.environ, later: Later = at_first_use) -> PollerParts:
    """What a tick needs."""
    from aws_lambda_powertools import Metrics

    from renderbell.agenda import most_in_flight
    from renderbell.connections import Connections, parameters_under
    from renderbell.fetch import PollClient
    from renderbell.invoke import LambdaInvoker
    from renderbell.poll import Poller, PollSettings
    from renderbell.refresh import in_background
    from renderbell.settings import PollerSettings
    from renderbell.telemetry import Counts
    from renderbell.threads import WorkerPool

    settings = PollerSettings.from_environment(environment)
    threads = min(MAX_THREADS, most_in_flight(settings.poll_concurrency) + HOUSEKEEPING_THREADS)
    config = TICKING.merge(Config(max_pool_connections=min(threads, 128)))
    parameters = later(parameter_store)
    invoker = LambdaInvoker(later(lambda: boto3.client("lambda", config=config)))
    counts = Counts(Metrics())
    use_case = Poller(
        store=Store(boto3.client("dynamodb", config=config), settings.table_name),
        # The tick's own thread asks for connections; it must not wait for a Parameter Store that hangs.
        connections=Connections(
            parameters_under(parameters, settings.connections_path), time.monotonic, spawn=in_background
        ),
        fetch=PollClient(connections_per_host=settings.poll_concurrency).fetch,
        notify=partial(invoker.invoke, settings.notifier_function_name),
        clock=utc_now,
        pool=WorkerPool(threads),
        settings=PollSettings(settings.poller_workers, settings.slots, settings.poll_concurrency),
        count=counts.add,
        flush=counts.flush,
        random=random.random,
        new_token=lambda: uuid4().hex,
    )
    return PollerParts(use_case, settings.poller_workers, invoker, counts)


class NotifierParts(NamedTuple):
    """What the notifier's handler needs."""

    notifier: Notifier
    counts: Counts


def notifier(environment: Mapping[str, str] = os.environ, later: Later = at_first_use) -> NotifierParts:
    """What an invocation of the notifier needs."""
    from aws_lambda_powertools import Metrics

    from renderbell import endpoints
    from renderbell.addresses import EgressPolicy
    from renderbell.archive import Archive
    from renderbell.bus import BusOrWeb, EventBus
    from renderbell.connections import Connections, parameters_under
    from renderbell.deliver import Deliverer
    from renderbell.delivery import MAX_ENDPOINTS
    from renderbell.egress import Downloader, WebhookClient
    from renderbell.fetch import PollClient
    from renderbell.notify import Notifier
    from renderbell.settings import NotifierSettings
    from renderbell.telemetry import Counts
    from renderbell.threads import SideBySide

    settings = NotifierSettings.from_environment(environment)
    parameters = later(parameter_store)
    secrets = boto3.client("secretsmanager", config=QUICK)  # nearly every start signs something
    master = secret_text(lambda: secrets, settings.master_secret_id)
    counts = Counts(Metrics())
    s3 = later(lambda: boto3.client("s3", config=COPYING))
    store = Store(boto3.client("dynamodb", config=HOLDING), settings.table_name)
    web = WebhookClient(
        policy=EgressPolicy.from_settings(settings.allow_http_webhooks, settings.allowed_private_cidrs),
        clock=utc_now,
    )
    bus = None
    if settings.event_bus_name:
        bus = EventBus(
            client=later(lambda: boto3.client("events", config=QUICK)),
            name=settings.event_bus_name,
            clock=time.monotonic,
        )
    side_by_side = SideBySide(MAX_ENDPOINTS)
    use_case = Notifier(
        store=store,
        archive=Archive(s3, settings.bucket_name, Downloader(), max_bytes=settings.max_video_bytes),
        connections=Connections(parameters_under(parameters, settings.connections_path), time.monotonic),
        fetch=PollClient(connections_per_host=1).fetch,
        side_by_side=side_by_side,
        deliverer=Deliverer(
            store=store,
            poster=BusOrWeb(web, bus),
            secrets=lambda key, at: endpoints.secrets_of(master().encode(), key, at),
            clock=utc_now,
            sleep=time.sleep,
            side_by_side=side_by_side,
            random=random.random,
            new_token=lambda: uuid4().hex,
            count=counts.add,
        ),
        clock=utc_now,
        new_token=lambda: uuid4().hex,
        count=counts.add,
    )
    return NotifierParts(use_case, counts)
