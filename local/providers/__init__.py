"""Simulated video providers: the five wire formats with their quirks, over real, playable video files."""
