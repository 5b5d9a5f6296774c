"""Collectors: torch hooks that only look, and hand plain numbers to the rules."""
