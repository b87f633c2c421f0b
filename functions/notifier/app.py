"""A finished task, or a due delivery -> the video in S3, the webhooks posted."""

from __future__ import annotations

from renderbell.start import starting

with starting():
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from renderbell import bootstrap

    logger = Logger()
    parts = bootstrap.notifier()


@logger.inject_lambda_context
def handler(event: dict[str, object], context: LambdaContext) -> None:
    """Serves `{"pk", "sk"}` of a task or a delivery, or `{"items": [...]}` of one receiver's deliveries."""
    items = event.get("items")
    logger.info("handling", extra={"items": len(items)} if isinstance(items, list) else {"event": event})
    try:
        parts.notifier.handle(event, lambda: context.get_remaining_time_in_millis() / 1000)
    finally:
        parts.counts.flush()
