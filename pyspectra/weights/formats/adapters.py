"""The configuration of adapters (PEFT), as far as it says what LoRA pairs are multiplied with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import read_json
from pyspectra.weights.lora import LoraScale
from pyspectra.weights.name_patterns import NamePattern, UnsafePatternError

__all__ = ["ADAPTER_CONFIG", "lora_scale"]

ADAPTER_CONFIG: Final = "adapter_config.json"
# Ways to start an adapter that take something away from the weights of the base.
_CHANGING_STARTS: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MAX_CHARACTERS: Final = 1 << 21  # in all patterns together


def lora_scale(path: Path) -> LoraScale | None:
    """Read the scale of LoRA pairs from PEFT's configuration.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    LoraScale or None
        None if it tells no alpha.

    Raises
    ------
    FormatError
        If it is not valid, or its patterns cannot be matched safely.
    """
    expected = "a valid adapter configuration"
    config = read_json(path, expected)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: not {expected}: not a JSON object.")
    stabilised, patterns = config.get("use_rslora"), config.get("alpha_pattern")
    if not isinstance(stabilised, (bool, type(None))):
        raise FormatError(f"{path}: not {expected}: 'use_rslora' is {_short(stabilised)}.")
    if not isinstance(patterns, (dict, type(None))):
        raise FormatError(f"{path}: not {expected}: 'alpha_pattern' is {_short(patterns)}.")
    _check_patterns(path, list(patterns or {}))
    if "lora_alpha" not in config:  # PEFT always writes it
        return None
    return LoraScale(
        _number(path, "lora_alpha", config["lora_alpha"]),
        bool(stabilised),
        {p: _number(path, "alpha_pattern", alpha) for p, alpha in (patterns or {}).items()},
        config.get("fan_in_fan_out") is True,
        _changing_start(config.get("init_lora_weights")),
        bool(config.get("alora_invocation_tokens")),
    )


def _changing_start(start: Any) -> str:
    return start if isinstance(start, str) and start.lower().startswith(_CHANGING_STARTS) else ""


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise FormatError(
        f"{path}: not a valid adapter configuration: {name!r} must be a finite number, "
        f"got {_short(value)}."
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:80]


def _check_patterns(path: Path, patterns: list[str]) -> None:
    shown, problem = patterns, "holds more of them than any adapter has modules"
    if sum(map(len, patterns)) <= _MAX_CHARACTERS:
        for pattern in patterns:
            try:
                NamePattern(pattern)
            except UnsafePatternError as error:
                shown, problem = [pattern], str(error)
                break
        else:
            return
    raise FormatError(
        f"{path}: 'alpha_pattern' has {_short(shown[0])}, which is invalid or too intricate a "
        f"regular expression to be matched safely: {problem}. Hint: pass the path of the weights "
        "file instead of the folder's; the update is then not scaled."
    )
