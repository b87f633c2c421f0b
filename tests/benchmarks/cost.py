"""What 1,000,000 tasks cost, from measured units and list prices: arithmetic only.

Prices are AWS's list prices for us-east-1 in USD, without free tiers, as the pricing pages of the services showed them
in November 2026: Lambda (arm64), DynamoDB (on demand, Standard), Step Functions, EventBridge Scheduler, SQS, API
Gateway (REST), S3 (Standard), CloudWatch, X-Ray, Secrets Manager, data transfer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from renderbell.errors import ProviderError
from tests.benchmarks.machine import ROOT
from tests.benchmarks.report import Bar, Plot, Section, Table
from tests.benchmarks.table import RESOURCES, parameter
from tests.benchmarks.usage import Usage
from tests.benchmarks.writes import INTERVAL_S, PROCESSING_S, Units

MILLION = 1_000_000
MONTH_S = 730 * 3600.0
MINUTES = MONTH_S / 60
DAYS = 730 / 24
SHARE = 1 / 50  # of the loop of Step Functions

WRITE_UNIT, READ_UNIT, TABLE_GB_MONTH, RECOVERY_GB_MONTH = 0.625e-6, 0.125e-6, 0.25, 0.20
LAMBDA_GB_S, LAMBDA_REQUEST = 0.0000133334, 0.20e-6
DURABLE_OPERATION = 8.00e-6
TRANSITION = 25.0e-6
EXPRESS_REQUEST, EXPRESS_GB_HOURS = 1.00e-6, ((1_000, 0.06), (4_000, 0.03))  # so many at so much; then half of it
QUEUE_REQUEST = 0.40e-6
SCHEDULE = 1.00e-6
REST_CALL = 3.50e-6
S3_PUT, S3_GB_MONTH = 5.0e-6, 0.023
LOGS_GB, LOGS_GB_MONTH = 0.50, 0.03
METRIC_MONTH, ALARM_MONTH, SECRET_MONTH = 0.30, 0.10, 0.40
TRACE = 5.00e-6
TRANSFER_GB = 0.09

# What a loop's own poll takes: a function of 256 MB that waits 0.3 s for the provider's answer.
POLL_GB_S = 0.3 * 0.25
ROUNDS = PROCESSING_S / INTERVAL_S
EXPRESS_GB = 0.0625  # the least that is billed

# Assumed, not measured.
VIDEO_BYTES = 20e6
DOWNLOAD_BYTES_S = 25e6
KEYS = 10  # in use in every minute; API Gateway remembers each for a minute
ACCESS_LOG_BYTES = 600.0
POLLS_PER_PROCESSOR_S = 2000.0  # less than "Polls per processor second" has measured
BUSY_SHARE = 0.5  # of a worker's processor, so that there is room for bursts
PROCESSOR_MB = 1769  # of a function's memory bring one processor (docs.aws.amazon.com/lambda, "Memory")

MEMORY_MB, LEAST_MEMORY_MB = int(parameter("PollerMemory")), 256

Bill = Mapping[str, float]


# -- what others would be ---------------------------------------------------------------------------------------------


def step_functions() -> float:
    """A Standard workflow: each round waits, calls and chooses; beside the rounds, three transitions."""
    return MILLION * ((3 * ROUNDS + 3) * TRANSITION + ROUNDS * _poll())


def durable_functions() -> float:
    """Each round is a step and a wait; beside the rounds, two operations. What they store is left out."""
    return MILLION * ((2 * ROUNDS + 2) * DURABLE_OPERATION + ROUNDS * _poll())


def express() -> float:
    """An Express workflow that runs as long as the task. It may not run for more than five minutes."""
    left, usd = MILLION * PROCESSING_S * EXPRESS_GB / 3600, 0.0
    for hours, price in EXPRESS_GB_HOURS:
        usd += min(left, hours) * price
        left -= min(left, hours)
    return usd + MILLION * (EXPRESS_REQUEST + ROUNDS * _poll())


def queue() -> float:
    """A delayed message for each poll: sent, received, deleted."""
    return MILLION * ROUNDS * (3 * QUEUE_REQUEST + _poll())


def schedules() -> float:
    """A schedule of its own for each task, which fires once a minute and not oftener."""
    return MILLION * PROCESSING_S / 60 * (SCHEDULE + _poll())


def _poll() -> float:
    return LAMBDA_REQUEST + POLL_GB_S * LAMBDA_GB_S


# -- what ours is -----------------------------------------------------------------------------------------------------


def workers_for(tasks: float) -> int:
    """How many workers poll so many tasks a month, with the default memory."""
    polls_s = tasks * ROUNDS / MONTH_S
    one = MEMORY_MB / PROCESSOR_MB * POLLS_PER_PROCESSOR_S * BUSY_SHARE
    return max(1, -int(-polls_s // one))


def polling(units: Units, workers: int, memory_mb: int = MEMORY_MB) -> Bill:
    """A month of pollers that always have tasks."""
    return {
        "pollers": workers * MINUTES * (units.poller_s * memory_mb / 1024 * LAMBDA_GB_S + LAMBDA_REQUEST),
        "the schedule": MINUTES * SCHEDULE,
        "leases and looks": workers
        * MINUTES
        * (units.lease_writes_per_minute * WRITE_UNIT + units.reads_per_minute * READ_UNIT),
    }


def state(units: Units) -> float:
    """What a task's own item and its marker cost, and the look at the lease that wakes a poller."""
    return units.state * WRITE_UNIT + READ_UNIT


def polling_and_state(units: Units, tasks: float, memory_mb: int = MEMORY_MB) -> float:
    """Ours for 1,000,000 tasks, where there are so many in a month."""
    month = sum(polling(units, workers_for(tasks), memory_mb).values()) + tasks * state(units)
    return month / tasks * MILLION


@dataclass(frozen=True, slots=True)
class Deployed:
    """What the template and the code bring whether there are tasks or not."""

    alarms: int
    secrets: int
    metrics: int


def deployed() -> Deployed:
    """As counted in them; the metrics are all that could ever be written."""
    kinds = [resource["Type"] for resource in RESOURCES["Resources"].values()]
    errors = len(ProviderError.__subclasses__())  # by name, of the poller and of the notifier
    counted = 0
    for modules in (("poll",), ("notify", "deliver")):
        told = "".join((ROOT / "layers/core/renderbell" / f"{name}.py").read_text() for name in modules)
        counted += len(set(re.findall(r'\bcount\("(\w+)"', told))) + errors
    return Deployed(kinds.count("AWS::CloudWatch::Alarm"), kinds.count("AWS::SecretsManager::Secret"), counted)


def standing(what: Deployed) -> Bill:
    """What a month costs whether there are tasks or not."""
    return {
        "the schedule": MINUTES * SCHEDULE,
        f"CloudWatch: {what.alarms} alarms": what.alarms * ALARM_MONTH,
        f"Secrets Manager: {what.secrets} secrets": what.secrets * SECRET_MONTH,
    }


def idle_month(units: Units, usage: Usage, what: Deployed) -> Bill:
    """A month without a task or a call."""
    return {
        "Lambda: poller": MINUTES * (usage.idle_s * MEMORY_MB / 1024 * LAMBDA_GB_S + LAMBDA_REQUEST),
        "DynamoDB: leases and looks": MINUTES * units.idle_reads_per_minute * READ_UNIT,
        "CloudWatch: logs": MINUTES * _logs(usage.poller_logged),
        **standing(what),
    }


def whole_bill(units: Units, usage: Usage, what: Deployed, tasks: float) -> Bill:
    """So many tasks in a month, each registered by one call and shown by another."""
    pollers = polling(units, workers_for(tasks))
    kept_months = (int(parameter("TaskRetentionDays")) + 14 + 1) / DAYS
    copy_s = usage.notifier_s + VIDEO_BYTES / DOWNLOAD_BYTES_S
    return {
        "API Gateway": tasks * 2 * REST_CALL,
        "Lambda: API": tasks * 2 * (usage.api_s * 0.5 * LAMBDA_GB_S + LAMBDA_REQUEST),
        "Lambda: authorizer": KEYS * MINUTES * (usage.authorizer_s * 0.5 * LAMBDA_GB_S + LAMBDA_REQUEST),
        "Lambda: poller": pollers["pollers"],
        "Lambda: notifier": tasks * (copy_s * 1.0 * LAMBDA_GB_S + LAMBDA_REQUEST),
        "DynamoDB: writes": tasks * units.writes * WRITE_UNIT,
        "DynamoDB: reads": tasks * (units.reads + units.shown) * READ_UNIT,
        "DynamoDB: leases and looks": pollers["leases and looks"],
        "DynamoDB: storage and recovery": tasks
        * units.stored_bytes
        / 1e9
        * kept_months
        * (TABLE_GB_MONTH + RECOVERY_GB_MONTH),
        "S3: requests": tasks * S3_PUT,
        "S3: a month of each video": tasks * VIDEO_BYTES / 1e9 * S3_GB_MONTH,
        "CloudWatch: logs": tasks * _logs(2 * (usage.api_logged + ACCESS_LOG_BYTES) + usage.notifier_logged)
        + MINUTES * _logs(workers_for(tasks) * usage.poller_logged + KEYS * usage.authorizer_logged),
        f"CloudWatch: {what.metrics} metrics": what.metrics * METRIC_MONTH,
        "X-Ray, if it takes all": tasks * 3 * TRACE,
        "webhooks and answers, sent out": tasks * 3 * usage.webhook_bytes / 1e9 * TRANSFER_GB,
        **standing(what),
    }


def _logs(size_bytes: float) -> float:
    """Taking log lines in, and keeping them for as long as the template says."""
    return size_bytes / 1e9 * (LOGS_GB + LOGS_GB_MONTH * int(parameter("LogRetentionDays")) / DAYS)


# -- as a section -----------------------------------------------------------------------------------------------------


def measure(units: Units, usage: Usage) -> Section:
    """Two tables: polling and state alone against the loops, and the whole bill by service."""
    loop, monthly, daily = step_functions(), polling_and_state(units, MILLION), polling_and_state(units, MILLION * DAYS)
    designs = {
        "Step Functions, Standard: wait, call, choose": loop,
        "Lambda durable functions: step, wait": durable_functions(),
        "Step Functions, Express (ends after five minutes)": express(),
        "SQS: a delayed message for each poll": queue(),
        "EventBridge Scheduler: one schedule a task (once a minute, not every 10 s)": schedules(),
        "Renderbell, 1,000,000 tasks a month": monthly,
        "Renderbell, 1,000,000 tasks a day": daily,
        f"the same, in a month, with PollerMemory={LEAST_MEMORY_MB} (not judged)": polling_and_state(
            units, MILLION, LEAST_MEMORY_MB
        ),
    }
    what = deployed()
    bills = [whole_bill(units, usage, what, tasks) for tasks in (MILLION, MILLION * DAYS)]
    idle = idle_month(units, usage, what)
    whole = [
        [name, f"{bills[0].get(name, 0):,.2f}", f"{bills[1].get(name, 0) / DAYS:,.2f}", f"{idle.get(name, 0):,.2f}"]
        for name in dict.fromkeys([*bills[0], *idle])
    ]
    sums = [
        "together",
        *(f"{one:,.2f}" for one in (sum(bills[0].values()), sum(bills[1].values()) / DAYS, sum(idle.values()))),
    ]
    video = bills[0]["S3: a month of each video"]
    return Section(
        title="Cost",
        target="polling and state alone cost at most 1/50 of the loop of Step Functions, for 1,000,000 tasks",
        verdict=(
            f"1/{loop / monthly:.2f} at 1,000,000 tasks a month ({monthly:,.2f} USD against {loop * SHARE:,.2f}), "
            f"1/{loop / daily:.0f} at 1,000,000 a day"
        ),
        met=max(monthly, daily) <= SHARE * loop,
        head=["polling and state alone, USD for 1,000,000 tasks", "USD", "of the loop"],
        rows=[[name, f"{usd:,.2f}", f"1/{loop / usd:.1f}"] for name, usd in designs.items()],
        more=[
            Table(
                "The whole bill, USD",
                ["service", "1,000,000 tasks in a month", "the same, of 1,000,000 a day", "an idle month"],
                [*whole, sums],
            )
        ],
        notes=_notes(units, usage, loop, video),
        plot=Plot(
            "cost",
            "USD for 1,000,000 tasks, polling and state alone",
            "",
            bars=[Bar(name.split(" (")[0], usd) for name, usd in designs.items()],
        ),
    )


def _notes(units: Units, usage: Usage, loop: float, video: float) -> list[str]:
    asked = polling_and_state(units, MILLION) + MILLION * units.request * WRITE_UNIT
    workers = workers_for(MILLION * DAYS)
    return [
        f"Like for like: 1,000,000 tasks of {PROCESSING_S:g} s, each polled every {INTERVAL_S:g} s, {ROUNDS:g} times. "
        "The others' polls are functions of 256 MB that run for 0.3 s each. Ours are one poller of "
        f"{MEMORY_MB} MB at all times ({workers} at 1,000,000 a day), its leases and looks, and "
        f"{units.state:g} write units for each task's own item and its marker, from registration until the provider is "
        f"done. With the request's item, which holds webhooks and metadata ({units.request:g} units more), "
        f"it is {asked:,.2f}, 1/{loop / asked:.1f}. Neither side copies or tells here. An Express loop, queues and "
        "schedules keep no state that can be read.",
        f"Measured: {units.writes:g} write and {units.reads:g} read units a task, {units.shown:g} to show it; the API "
        f"{usage.api_s * 1000:.0f} ms a call, the authorizer {usage.authorizer_s * 1000:.0f}, the notifier "
        f"{usage.notifier_s * 1000:.0f} with a small video, a tick without tasks {usage.idle_s * 1000:.0f}; log lines "
        f"of {usage.api_logged:,.0f}, {usage.authorizer_logged:,.0f}, {usage.notifier_logged:,.0f} and "
        f"{usage.poller_logged:,.0f} bytes for each run of API, authorizer, notifier and poller; webhooks of "
        f"{usage.webhook_bytes:,.0f} bytes. Durations are this machine's, on the local stack, and stand only roughly "
        "for AWS Lambda's.",
        f"Assumed: videos of {VIDEO_BYTES / 1e6:g} MB, of which each is kept for a month ({video:,.2f} of the bill), "
        f"and come at {DOWNLOAD_BYTES_S / 1e6:g} MB/s; {KEYS} API keys in use every minute; {ACCESS_LOG_BYTES:g} bytes "
        "of access log a call; all metrics that the code can write; records kept until their retention ends. List "
        "prices of us-east-1 without free tiers; left out are calls to Secrets Manager, SSM and KMS, EventBridge, a "
        "NAT gateway, the links' downloads, and retries.",
    ]
