"""Pairs (A, B): a recorded line of reason A also proves reason B, and that is meant."""

ALLOWED: set[tuple[str, str]] = set()
