"""The embedded default: an emulated AWS, simulated providers, a verifying receiver, the demo."""
