"""Callbacks for training frameworks: import the one of yours, ``hf`` or ``lightning``."""
