"""The routes of API keys, for operators."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import Field

from renderbell.api.problems import documented
from renderbell.api.serving import NO_STORE, current_caller, current_parts, current_seed, json_answer, route
from renderbell.keys import KeyRequest, Owner, Scope
from renderbell.models import Model
from renderbell.store import ApiKey
from renderbell.views import Time


class KeyView(Model):
    """An API key, without the key itself."""

    key_id: str = Field(examples=["key_01k9c5d8m3q7v2x4z6b8n0p1r3"])
    owner: str
    name: str
    scope: Scope
    created_at: Time


class MintedKeyView(KeyView):
    """A new API key; `key` is shown this once."""

    key: str | None = Field(description="Goes into the header `x-api-key`; null in a replay.", examples=["rbk_…"])
    withheld: str | None = Field(default=None, description="In a replay: what is left out.")


class KeyList(Model):
    """The keys of an owner, the oldest first."""

    keys: list[KeyView]


OwnerQuery = Annotated[Owner | None, Query(description="Whose keys; without it, your own.")]


@route(
    "POST",
    "/keys",
    scope=Scope.ADMIN,
    summary="Mint a key",
    operation_id="mintKey",
    tags=["keys"],
    responses=documented(
        401,
        403,
        409,
        413,
        422,
        ok_201=("The key, shown this once.", MintedKeyView),
        words={409: "`too_many_keys`: the owner has 100. `try_again`: its keys are changing just now."},
    ),
)
def post_key(asked: KeyRequest) -> Response[MintedKeyView]:
    """Makes a key for any owner; takes the scope `admin`. Only a hash of it is kept."""
    minted = current_parts().keys.mint(asked, seed=current_seed())
    return json_answer(HTTPStatus.CREATED, MintedKeyView(**dict(_view(minted.key)), key=minted.text))


@route(
    "GET",
    "/keys",
    scope=Scope.ADMIN,
    summary="List keys",
    operation_id="listKeys",
    tags=["keys"],
    responses=documented(401, 403, 422, ok_200=("The owner's keys.", KeyList)),
)
def get_keys(owner: OwnerQuery = None) -> Response[KeyList]:
    """The keys of an owner, without the keys themselves; takes the scope `admin`.

    The deployment's first key is not among them: it is made of a secret in Secrets Manager.
    """
    caller = current_caller()
    found = current_parts().keys.of(owner or caller.owner)
    return json_answer(HTTPStatus.OK, KeyList(keys=[_view(key) for key in found]))


@route(
    "DELETE",
    "/keys/<key_id>",
    scope=Scope.ADMIN,
    summary="Delete a key",
    operation_id="deleteKey",
    tags=["keys"],
    responses=documented(401, 403, 404, 422, ok_204=("It is gone, and lets nobody in after a minute.", None)),
)
def delete_key(
    key_id: Annotated[str, Path(description="The `key_id` of a key.")], owner: OwnerQuery = None
) -> Response[None]:
    """Removes a key of an owner; takes the scope `admin`."""
    caller = current_caller()
    current_parts().keys.delete(key_id, owner=owner or caller.owner)
    return Response(HTTPStatus.NO_CONTENT.value, headers=NO_STORE)


def _view(key: ApiKey) -> KeyView:
    return KeyView(key_id=key.key_id, owner=key.owner, name=key.name, scope=Scope(key.scope), created_at=key.created_at)
