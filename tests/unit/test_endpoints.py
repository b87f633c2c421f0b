from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from renderbell.endpoints import derive_secret, endpoint_id

MASTER = b"a master secret for tests"


def test_a_url_always_stands_for_the_same_endpoint() -> None:
    assert endpoint_id("https://example.com/hook") == "url_19f1352238b915338c91"
    assert endpoint_id("https://example.com/hook?a") != endpoint_id("https://example.com/hook")


@settings(deadline=None)
@given(st.text())
def test_an_endpoint_id_is_short_and_has_no_dot(url: str) -> None:
    assert len(endpoint_id(url)) == 24
    assert "." not in endpoint_id(url)


def test_a_secret_is_derived_as_documented() -> None:
    # printf 'renderbell/v1\0owner\0default\0001' | openssl dgst -sha256 -hmac "$MASTER" -binary | base64
    assert derive_secret(MASTER, "owner", "default", 1) == "whsec_SjJAw80Tu9uefwGhiOl7oSuezp1s/9fQrlR+0gT+qmg="


def test_everything_that_names_a_secret_changes_it() -> None:
    secrets = {
        derive_secret(MASTER, "owner", "default", 1),
        derive_secret(MASTER, "owner", "default", 2),
        derive_secret(MASTER, "owner", "default1", 1),
        derive_secret(MASTER, "endpoint", "default", 1),
        derive_secret(b"another", "owner", "default", 1),
    }
    assert len(secrets) == 5


def test_a_name_cannot_reach_into_the_next_part() -> None:
    with pytest.raises(ValueError, match="NUL"):
        derive_secret(MASTER, "owner", "a\0001", 1)


def test_a_secret_has_the_form_that_standard_webhooks_asks_for() -> None:
    secret = derive_secret(MASTER, "owner", "default", 1)
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    Webhook(secret)
