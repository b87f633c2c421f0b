"""Who calls, and what may they do: an API key's owner and scope, and the policy that lets them in."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from renderbell.errors import RenderbellError
from renderbell.keys import KEY_PREFIX, Scope, hash_key
from renderbell.store import ApiKey

__all__ = ["Authorizer", "Caller", "KeyStore", "UnauthorizedError", "build_handler"]

FIRST_OWNER = "default"
FIRST_KEY_ID = "first"
logger = Logger()

_KEY = re.compile(r"rbk_[!-~]{16,256}")


class UnauthorizedError(RenderbellError):
    """The request carries no key that is known."""


class Caller(NamedTuple):
    """Whom a key stands for."""

    owner: str
    scope: Scope
    key_id: str


class KeyStore(Protocol):
    """What is used of the store."""

    def key(self, key_hash: str) -> ApiKey | None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Authorizer:
    """Lets in who has the deployment's first key or a key from the store.

    `first_secret` gives the generated secret that makes the first key.
    """

    store: KeyStore
    first_secret: Callable[[], str]

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who sends these headers; raises `UnauthorizedError`, and lets trouble of ours pass as it is."""
        key = next((value for name, value in headers.items() if name.lower() == "x-api-key"), "")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UnauthorizedError("no usable key")
        first = KEY_PREFIX + self.first_secret()
        if hmac.compare_digest(key.encode(), first.encode()):
            return Caller(FIRST_OWNER, Scope.ADMIN, FIRST_KEY_ID)
        found = self.store.key(hash_key(key))
        if found is None:
            raise UnauthorizedError("unknown key")
        return Caller(found.owner, Scope(found.scope), found.key_id)

    def policy(self, event: Mapping[str, object]) -> dict[str, object]:
        """The answer to an API Gateway event of type REQUEST: the caller, let into the whole stage.

        The answer is cached for every route, so it must not name the one that was asked for.
        """
        headers = event.get("headers")
        caller = self.caller(headers if isinstance(headers, Mapping) else {})
        api, stage, *_ = str(event["methodArn"]).split("/")
        statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{api}/{stage}/*"}
        return {
            "principalId": caller.owner,
            "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
            "context": {"owner": caller.owner, "scope": caller.scope.value, "key_id": caller.key_id},
        }


def build_handler(authorizer: Authorizer) -> Callable[[dict[str, Any], LambdaContext], dict[str, object]]:
    """The Lambda handler over the given authorizer.

    API Gateway makes 401 of exactly this exception, and 500 of any other: trouble of ours never looks like a wrong
    key.
    """

    @logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, object]:
        try:
            policy = authorizer.policy(event)
        except UnauthorizedError as error:
            logger.info("refused", extra={"reason": str(error)})
            raise Exception("Unauthorized") from None
        logger.info("let in", extra={"context": policy["context"]})
        return policy

    return handler
