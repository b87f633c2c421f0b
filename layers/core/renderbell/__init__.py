"""Renderbell rings when a render is done: it polls video providers, keeps the videos and calls the webhooks."""
