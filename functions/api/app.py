"""API Gateway -> the API."""

from renderbell import bootstrap
from renderbell.api import build_handler

handler = build_handler(bootstrap.api())
