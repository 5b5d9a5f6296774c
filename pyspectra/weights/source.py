"""Sources of weights: whatever holds a model, seen as layers that load on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyspectra._arrays import array_info, is_torch_module
from pyspectra._support.arguments import check_path
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError, MissingPathError
from pyspectra.weights import hub
from pyspectra.weights.catalogue import Contents, catalogue
from pyspectra.weights.copies import set_aside
from pyspectra.weights.factors import with_products
from pyspectra.weights.formats import (
    folder_of,
    huggingface,
    indices,
    module,
    read_file,
    state_dict,
)
from pyspectra.weights.formats.quantisation import quantisation
from pyspectra.weights.layer import Layer
from pyspectra.weights.quantised import dequantised, may_be_quantised
from pyspectra.weights.skip import SkippedLayer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["WeightSource", "find_model", "open_weights"]


class WeightSource:
    """The weights of one model; iterates over its layers.

    Made by :func:`open_weights`. Also a context manager that closes itself.

    Attributes
    ----------
    name : str
        The path as given, the class of the module, or ``"state dict"``.
    format : str
        E.g. ``"safetensors"``, ``"torch"``, ``"npz"``, ``"torch_module"``, ``"state_dict"``.
    layers : tuple of Layer
        Floating-point weights of rank two or more, in the order of the model as names tell it
        (`pyspectra.weights.order`): the same of a module and of its files. The parts of a fused
        weight (query, key and value; the gates of a recurrent cell) follow it, and a LoRA pair is
        the one layer of its product.
    skipped : tuple of SkippedLayer
        Every other tensor, with the reason.
    files : tuple of Path
        The files that the weights are read from, and those that belong to them: shards, index and
        configuration. Empty for a model in memory.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> with ps.open_weights({"fc.weight": np.ones((9, 8)), "fc.bias": np.ones(9)}) as source:
    ...     [(layer.name, layer.shape) for layer in source], source.skipped[0].reason
    ([('fc', (9, 8))], 'bias: not a weight matrix')
    """

    def __init__(self, name: str, contents: Contents) -> None:
        self.name: str = name
        self.format: str = contents.format
        self.layers: tuple[Layer, ...]
        self.skipped: tuple[SkippedLayer, ...]
        entries = with_products(dequantised(set_aside(contents.entries), contents.quantisation))
        self.layers, skipped = catalogue(entries, contents.lora_scale)
        self.skipped = (*skipped, *contents.beside)
        self.files: tuple[Path, ...] = contents.files
        self._close = contents.close

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return (
            f"WeightSource({self.name!r}, format={self.format!r}, layers={len(self.layers)}, "
            f"skipped={len(self.skipped)})"
        )

    def close(self) -> None:
        """Let go of held tensors; layers that need them raise `FormatError` from then on.

        Sources that reopen their file for every tensor hold nothing, and stay usable.
        """
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_weights(model_or_path: Any, *, key: str | None = None) -> WeightSource:
    """Open a model's weights: names, shapes and types now, elements when a layer is loaded.

    Parameters
    ----------
    model_or_path : torch.nn.Module, Mapping, str, os.PathLike or WeightSource
        A module; a state dict with torch or numpy values, also inside a checkpoint's wrapper;
        a file such as ``.safetensors`` or ``.pt`` (`pyspectra.weights.formats.suffixes` lists them
        all); a Hugging Face folder or index, sharded or not, also of an adapter; the name of a
        model on the hub (``"org/model"``) that is in the local cache. A `WeightSource` is returned
        as it is.
    key : str, optional
        Which part of a checkpoint that holds several models, as a dotted path:
        ``key="model_ema"``. By default the part that goes by one of the usual names, and what
        lies beside it is listed in `skipped`. Of a file of flat names, what the names of a part
        begin with; of a pipeline, a component: ``key="unet"``.

    Returns
    -------
    WeightSource
        Its layers, and what was skipped.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    FormatError
        If the file is corrupt, unsupported or refused. Pickled code is never executed.
    MissingDependencyError
        If reading the file needs a package that is not installed.
    TypeError, ValueError
        If the argument is none of the above, or an empty path; if `key` names no part.

    Notes
    -----
    Weights of a documented quantisation are layers in float32, computed when they are loaded
    (``Layer.stored_as``).

    LoRA pairs are scaled by the ``adapter_config.json`` of the folder; where there is none (a
    file, a state dict, a module), by 1, which leaves the power-law exponent as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra import open_weights
    >>> weights = {"fc.weight": np.ones((3, 2)), "fc.bias": np.zeros(3)}
    >>> averages = {"fc.weight": np.zeros((3, 2))}
    >>> source = open_weights({"model": weights, "model_ema": averages, "epoch": 7})
    >>> [(layer.name, layer.kind, layer.shape) for layer in source]
    [('fc', 'linear', (3, 2))]
    >>> for skipped in source.skipped:
    ...     print(skipped.name, "-", skipped.reason)
    fc.bias - bias: not a weight matrix
    model_ema - other weights of the checkpoint: key='model_ema' chooses them
    >>> source = open_weights({"model": weights, "model_ema": averages}, key="model_ema")
    >>> float(source.layers[0].load().data.sum())
    0.0
    """
    if isinstance(model_or_path, WeightSource):
        _check_no_key(key, "a WeightSource, which is open")
        return model_or_path
    if is_torch_module(model_or_path):
        _check_no_key(key, "a torch module, which is one model")
        return WeightSource(type(model_or_path).__name__, module.read(model_or_path))
    if isinstance(model_or_path, Mapping):
        return WeightSource("state dict", state_dict.read(model_or_path, key=key))
    if isinstance(model_or_path, (str, os.PathLike)):
        path = find_model(os.fspath(model_or_path))
        contents = _read_path(path, key)
        if any(map(may_be_quantised, contents.entries)):
            folder = path if path.is_dir() else path.parent
            told = {**quantisation(folder), **(contents.quantisation or {})}
            contents = replace(contents, quantisation=told)
        return WeightSource(str(os.fspath(model_or_path)), contents)
    array = array_info(model_or_path) is not None
    raise ArgumentTypeError(
        "open_weights",
        "model_or_path",
        "be a torch module, a state dict or a path",
        f"an object of type {type(model_or_path).__name__}",
        "pyspectra.esd(W) takes one matrix; {'name.weight': W} is a model of one"
        if array
        else None,
    )


def _check_no_key(key: str | None, what: str) -> None:
    if key is not None:
        raise ArgumentValueError("open_weights", "key", f"be None for {what}", repr(key))


def find_model(text: str) -> Path:
    """Return the path of a model that exists, be it in the cache of the Hugging Face hub."""
    path = check_path("open_weights", "model_or_path", text)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # no permission; a NUL in the name
        raise FormatError(f"{path} cannot be read: {error}") from error
    if exists:
        return path
    snapshot = hub.cached(text)
    if snapshot is None:
        shown = text if hub.is_url(text) else str(path)
        hint = hub.where_to_get(text, path)
        raise MissingPathError("open_weights", "model_or_path", "exist", repr(shown), hint)
    return snapshot


def _read_path(path: Path, key: str | None) -> Contents:
    if path.is_dir():
        folder = folder_of(path)
        read = huggingface.read_folder if folder is None else folder.read
        return read(path, key=key)
    if not path.is_file():  # a pipe would be waited for, a device never ends
        raise FormatError(f"{path} is neither a file nor a folder.")
    if path.name.endswith(indices.INDEX_SUFFIX):
        return indices.read_index(path, key)
    return read_file(path, key)
