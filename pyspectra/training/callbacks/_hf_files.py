"""The folder of averaged weights beside a model of transformers."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pyspectra._support.termination import cleaning_up
from pyspectra.edit.files.torch_files import save_torch

FOLDER, STATE = "ema", "ema_state.pt"
_WEIGHTS = "model.safetensors"


def plain(model: torch.nn.Module) -> Any:
    """Return the model that torch.compile has wrapped, whose names are those of its class."""
    return getattr(model, "_orig_mod", model)


def write(
    parent: Path,
    model: torch.nn.Module,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
) -> None:
    """Write averaged weights, and the state of an `EMA` if there is one, below `parent`.

    Raises
    ------
    OSError
        If it cannot be written; the folder that was there is then unchanged.
    """
    inner = plain(model)
    names = {k.removeprefix("_orig_mod."): v for k, v in weights.items()}
    own = names if inner is not model else dict(weights)

    def fill(folder: Path) -> None:
        if hasattr(inner, "save_pretrained"):
            inner.save_pretrained(folder, state_dict=own)
        else:
            file = folder / _WEIGHTS
            safetensors.torch.save_file(_untied(own), file, metadata={"format": "pt"})
        if state is not None:
            save_torch(torch.save, state, folder / STATE)

    _replace(parent, fill)


def copy(source: Path, parent: Path) -> None:
    """Copy a folder of averaged weights below `parent`.

    Raises
    ------
    OSError
        If it cannot be read or written.
    """
    if os.path.realpath(source) == os.path.realpath(parent / FOLDER):
        return
    _replace(parent, lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True))


def _replace(parent: Path, fill: Callable[[Path], Any]) -> None:
    """Let `fill` fill a folder, which then takes its place whole or not at all."""
    temporary = parent / f".{FOLDER}.{secrets.token_hex(8)}.tmp"
    with cleaning_up():
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            target = parent / FOLDER
            shutil.rmtree(target, ignore_errors=True)  # left by an earlier run in the same folder
            os.replace(temporary, target)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
                # The folder that was asked for, not the name that it has while it is written.
                error.filename = str(parent / FOLDER / Path(error.filename).name)
            raise


def load_into(model: torch.nn.Module, folder: Path) -> list[str]:
    """Load averaged weights into a model.

    Returns
    -------
    list of str
        Names of parameters that the files do not have; if there are any, nothing has changed.
    """
    inner = plain(model)
    if (folder / "adapter_config.json").is_file():
        inner.load_adapter(str(folder), inner.active_adapters[0])
        return []
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(safetensors.torch.load_file(file))
    tied = dict(inner.named_parameters(remove_duplicate=False))
    found = {tied[name] for name in state if name in tied}
    missing = [name for name, p in inner.named_parameters() if p not in found]
    if not missing:
        inner.load_state_dict(state, strict=False)
    return missing


def has_optimizer(checkpoint: Path | None) -> bool:
    """Tell whether a checkpoint has the state of the optimizer."""
    return checkpoint is not None and (checkpoint / "optimizer.pt").is_file()


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each name memory of its own: the format stores no sharing."""
    seen: set[int] = set()
    out = {}
    for name, value in weights.items():
        own = value.contiguous()
        out[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return out
