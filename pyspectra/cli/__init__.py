"""The command ``pyspectra``."""
