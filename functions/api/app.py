"""API Gateway -> the API."""

from renderbell.start import starting

with starting():
    from renderbell import bootstrap
    from renderbell.api import build_handler

    handler = build_handler(bootstrap.api())
