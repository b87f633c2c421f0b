"""Webhook endpoints: their ids and their secrets, which are derived and never stored."""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["derive_secret", "endpoint_id"]


def endpoint_id(url: str) -> str:
    """The id of the endpoint that a URL given inline stands for; the same URL always has the same one."""
    return f"url_{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def derive_secret(master: bytes, kind: str, id: str, generation: int) -> str:
    """The signing secret of an endpoint, or of an owner for URLs given inline, in Standard Webhooks' form.

    `kind` is `endpoint` or `owner`. Whoever has the deployment's master secret finds it again; rotating raises the
    generation.
    """
    parts = ("renderbell/v1", kind, id, str(generation))
    if any("\0" in part for part in parts):
        raise ValueError("no part of a secret's name may contain NUL")  # it separates them
    digest = hmac.new(master, "\0".join(parts).encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(digest).decode()}"
