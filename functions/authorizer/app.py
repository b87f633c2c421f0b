"""API Gateway asks whether a key is known -> its owner and scope."""

from renderbell.start import starting

with starting():
    from renderbell import bootstrap
    from renderbell.authorize import build_handler

    handler = build_handler(bootstrap.authorizer())
