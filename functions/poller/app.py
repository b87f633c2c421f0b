"""EventBridge Scheduler, another worker or a registration -> one tick of a worker."""

from __future__ import annotations

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from renderbell import bootstrap
from renderbell.errors import RenderbellError

logger = Logger()
parts = bootstrap.poller()


@logger.inject_lambda_context
def handler(event: dict[str, object], context: LambdaContext) -> None:
    """Serves `{"worker", "task_id"?}`; any other event is the schedule's, which starts worker 0 and the others."""
    worker = event.get("worker", 0)
    task_id = event.get("task_id")
    if not isinstance(worker, int) or not 0 <= worker < parts.workers or not isinstance(task_id, str | None):
        raise RenderbellError("an event names a worker of this deployment, and at most one task")
    if "worker" not in event:
        parts.start_others(context.function_name)
    try:
        limit_s = context.get_remaining_time_in_millis() / 1000 - parts.reserve_s
        parts.poller.poll_due_tasks(worker, woken_for=task_id, time_limit_s=limit_s)
    finally:
        parts.counts.flush()
