"""Wires the real parts of each function, once at its cold start.

Each function imports here only what it uses: a cold start pays for every module.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.parameters import SecretsProvider, SSMProvider
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from renderbell.store import Store

if TYPE_CHECKING:
    from renderbell.api import ApiParts
    from renderbell.authorize import Authorizer
    from renderbell.invoke import LambdaInvoker
    from renderbell.notify import Notifier
    from renderbell.poll import Poller
    from renderbell.task import StoredFile
    from renderbell.telemetry import Counts

logger = Logger()

SECRET_MAX_AGE_S = 300
# The API answers within seconds or not at all: API Gateway waits 29 s.
QUICK = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
PRESIGNING = QUICK.merge(Config(signature_version="s3v4", s3={"addressing_style": "path"}))


def utc_now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


def api(environment: Mapping[str, str] = os.environ) -> ApiParts:
    """What the API's routes need."""
    from renderbell.api import ApiParts
    from renderbell.connections import Connections, parameters_under
    from renderbell.egress import EgressPolicy
    from renderbell.invoke import LambdaInvoker
    from renderbell.presigned import presigned_url
    from renderbell.register import Tasks, new_task_id
    from renderbell.settings import ApiSettings

    settings = ApiSettings.from_environment(environment)
    s3 = boto3.client("s3", config=PRESIGNING)
    secrets = SecretsProvider(boto3_client=boto3.client("secretsmanager", config=QUICK))
    parameters = SSMProvider(boto3_client=boto3.client("ssm", config=QUICK))
    connections = Connections(parameters_under(parameters, settings.connections_path), time.monotonic)

    def presign(file: StoredFile, expires_s: int, download_name: str | None) -> str:
        return presigned_url(s3, file.bucket, file.key, expires_s=expires_s, download_name=download_name)

    return ApiParts(
        tasks=Tasks(
            store=Store(boto3.client("dynamodb", config=QUICK), settings.table_name),
            connections=connections,
            invoker=LambdaInvoker(boto3.client("lambda", config=QUICK)),
            egress=EgressPolicy.from_settings(settings.allow_http_webhooks, settings.allowed_private_cidrs),
            clock=utc_now,
            new_id=lambda: new_task_id(utc_now(), os.urandom(10)),
            slots=settings.slots,
            poller_workers=settings.poller_workers,
            poller_function=settings.poller_function_name,
            notifier_function=settings.notifier_function_name,
            task_retention_days=settings.task_retention_days,
        ),
        connections=connections,
        presign=presign,
        master_secret=lambda: secret_text(secrets, settings.master_secret_id)().encode(),
        clock=utc_now,
        public_base_url=settings.public_base_url,
        video_retention_days=settings.video_retention_days,
    )


def authorizer(environment: Mapping[str, str] = os.environ) -> Authorizer:
    """What the authorizer needs."""
    from renderbell.authorize import Authorizer
    from renderbell.settings import AuthorizerSettings

    settings = AuthorizerSettings.from_environment(environment)
    secrets = SecretsProvider(boto3_client=boto3.client("secretsmanager", config=QUICK))
    return Authorizer(
        store=Store(boto3.client("dynamodb", config=QUICK), settings.table_name),
        first_secret=secret_text(secrets, settings.first_key_secret_id),
    )


def secret_text(provider: SecretsProvider, secret_id: str) -> Callable[[], str]:
    """A function that gives a secret's text, read from Secrets Manager every five minutes."""

    def read() -> str:
        return str(provider.get(secret_id, max_age=SECRET_MAX_AGE_S))

    return read


# The poller's and the notifier's calls are many and short; one that hangs must not hold a claim or a lease.
STEADY = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})
HOUSEKEEPING_THREADS = 8  # looks, renewals and invocations do not wait for slow polls
MAX_THREADS = 1000  # a Lambda function may have 1,024


@dataclass(frozen=True, slots=True)
class PollerParts:
    """What the poller's handler needs."""

    poller: Poller
    workers: int
    invoker: LambdaInvoker
    counts: Counts
    reserve_s: float

    def start_others(self, function_name: str) -> None:
        """Starts the workers beside worker 0; one that is not accepted is started by the next minute's tick."""
        for worker in range(1, self.workers):
            try:
                self.invoker.invoke(function_name, {"worker": worker})
            except (BotoCoreError, ClientError):
                logger.exception("worker not started", extra={"worker": worker})


def poller(environment: Mapping[str, str] = os.environ) -> PollerParts:
    """What a tick needs."""
    from aws_lambda_powertools import Metrics

    from renderbell.agenda import most_in_flight
    from renderbell.connections import Connections, parameters_under
    from renderbell.egress import PollClient
    from renderbell.invoke import LambdaInvoker
    from renderbell.poll import SETTLING_S, Poller, PollSettings
    from renderbell.settings import PollerSettings
    from renderbell.telemetry import Counts
    from renderbell.threads import WorkerPool

    settings = PollerSettings.from_environment(environment)
    threads = min(MAX_THREADS, most_in_flight(settings.poll_concurrency) + HOUSEKEEPING_THREADS)
    config = STEADY.merge(Config(max_pool_connections=min(threads, 128)))
    parameters = SSMProvider(boto3_client=boto3.client("ssm", config=STEADY))
    invoker = LambdaInvoker(boto3.client("lambda", config=config))
    counts = Counts(Metrics())
    use_case = Poller(
        store=Store(boto3.client("dynamodb", config=config), settings.table_name),
        connections=Connections(parameters_under(parameters, settings.connections_path), time.monotonic),
        fetch=PollClient(connections_per_host=settings.poll_concurrency).fetch,
        notify=partial(invoker.invoke, settings.notifier_function_name),
        clock=utc_now,
        pool=WorkerPool(threads),
        settings=PollSettings(settings.poller_workers, settings.slots, settings.poll_concurrency),
        count=counts.add,
        random=random.random,
        new_token=lambda: uuid4().hex,
    )
    return PollerParts(use_case, settings.poller_workers, invoker, counts, SETTLING_S)


@dataclass(frozen=True, slots=True)
class NotifierParts:
    """What the notifier's handler needs."""

    notifier: Notifier
    counts: Counts


def notifier(environment: Mapping[str, str] = os.environ) -> NotifierParts:
    """What an invocation of the notifier needs."""
    from aws_lambda_powertools import Metrics

    from renderbell import endpoints
    from renderbell.archive import Archive
    from renderbell.connections import Connections, parameters_under
    from renderbell.deliver import Deliverer
    from renderbell.delivery import MAX_ENDPOINTS
    from renderbell.egress import Downloader, EgressPolicy, PollClient, WebhookClient
    from renderbell.notify import Notifier
    from renderbell.settings import NotifierSettings
    from renderbell.telemetry import Counts
    from renderbell.threads import SideBySide

    settings = NotifierSettings.from_environment(environment)
    secrets = SecretsProvider(boto3_client=boto3.client("secretsmanager", config=STEADY))
    parameters = SSMProvider(boto3_client=boto3.client("ssm", config=STEADY))
    master = secret_text(secrets, settings.master_secret_id)
    counts = Counts(Metrics())
    # No claim is renewed while a call to S3 hangs, so all of its tries together end within one claim.
    s3 = boto3.client("s3", config=STEADY.merge(Config(read_timeout=20, retries={"total_max_attempts": 2})))
    store = Store(boto3.client("dynamodb", config=STEADY), settings.table_name)
    use_case = Notifier(
        store=store,
        archive=Archive(s3, settings.bucket_name, Downloader(), max_bytes=settings.max_video_bytes),
        connections=Connections(parameters_under(parameters, settings.connections_path), time.monotonic),
        fetch=PollClient(connections_per_host=1).fetch,
        deliverer=Deliverer(
            store=store,
            poster=WebhookClient(
                policy=EgressPolicy.from_settings(settings.allow_http_webhooks, settings.allowed_private_cidrs),
                clock=utc_now,
            ),
            secrets=lambda owner: [endpoints.derive_secret(master().encode(), "owner", owner, 1)],
            clock=utc_now,
            sleep=time.sleep,
            side_by_side=SideBySide(MAX_ENDPOINTS),
            random=random.random,
            new_token=lambda: uuid4().hex,
            count=counts.add,
        ),
        clock=utc_now,
        new_token=lambda: uuid4().hex,
        count=counts.add,
    )
    return NotifierParts(use_case, counts)
