"""EventBridge Scheduler, another worker or the API -> one tick of a worker."""

from __future__ import annotations

from renderbell.start import starting

with starting():
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from renderbell import bootstrap
    from renderbell.errors import RenderbellError

    logger = Logger()
    parts = bootstrap.poller()


@logger.inject_lambda_context
def handler(event: dict[str, object], context: LambdaContext) -> None:
    """Serves `{"worker", "task_id"?}` and `{"worker", "delivery": {"pk", "sk"}}`, which name what is due now.

    Any other event is the schedule's, which starts worker 0 and the others.
    """
    worker = event.get("worker", 0)
    if not isinstance(worker, int) or not 0 <= worker < parts.workers:
        raise RenderbellError("an event names a worker of this deployment")
    woken_for = _named(event)
    if "worker" not in event:
        parts.start_others(context.function_name)
    try:
        limit_s = context.get_remaining_time_in_millis() / 1000 - parts.reserve_s
        parts.poller.poll_due_tasks(worker, woken_for=woken_for, time_limit_s=limit_s)
    finally:
        parts.counts.flush()


def _named(event: dict[str, object]) -> str | tuple[str, str] | None:
    """The task or the delivery that an event names, if it names one."""
    task_id, delivery = event.get("task_id"), event.get("delivery")
    if delivery is None and isinstance(task_id, str | None):
        return task_id
    match delivery:
        case {"pk": str(pk), "sk": str(sk)}:
            return pk, sk
    raise RenderbellError("an event names at most one task or one delivery")
