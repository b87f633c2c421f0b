"""Waking another function: asynchronous, and only a hint, because `due_at` brings back what gets lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mypy_boto3_lambda.client import LambdaClient

__all__ = ["Invoker", "LambdaInvoker"]


class Invoker(Protocol):
    """Whatever can start a function without waiting for it."""

    def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
        """Starts the function with the payload; raises where the invocation is not accepted."""


class LambdaInvoker:
    """Starts functions through AWS Lambda's queue of asynchronous events."""

    def __init__(self, client: Callable[[], LambdaClient]) -> None:
        self._client = client

    def invoke(self, function_name: str, payload: Mapping[str, object]) -> None:
        """Starts the function; an event that is not accepted raises botocore's error."""
        self._client().invoke(
            FunctionName=function_name,
            InvocationType="Event",
            Payload=json.dumps(payload, separators=(",", ":")).encode(),
        )
