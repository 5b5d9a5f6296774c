"""Writing a model like another one, tensor by tensor, with new values for some of its tensors."""

from __future__ import annotations

import json
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import require_torch
from pyspectra._support.files import NewFile
from pyspectra.edit.files.checkpoint import TORCH_SUFFIXES, Checkpoint, Tensor
from pyspectra.edit.files.extras import as_bytes
from pyspectra.edit.files.rounding import round_to
from pyspectra.edit.files.targets import Target
from pyspectra.edit.files.torch_files import save_torch
from pyspectra.errors import FormatError
from pyspectra.types import FloatArray

__all__ = ["CHUNK", "NewValues", "write_checkpoint"]

# Elements that are in memory at a time where a tensor is copied.
CHUNK: Final = 1 << 18

# Configuration, tokenizer and the code of a model: what a folder needs besides its weights.
_COMPANIONS: Final = (".json", ".txt", ".model", ".jinja", ".py", ".vocab", ".bpe", ".tiktoken")
_NOT_COMPANIONS = re.compile(r"trainer_state\.json|.*\.index\.json", re.IGNORECASE)

NewValues = Callable[[Tensor], "Iterable[FloatArray] | None"]
"""Returns the elements of a floating-point tensor in their order, as float64, in parts of any size
and shape (an array in a list, a generator); None for a tensor that is copied, bit by bit."""


def write_checkpoint(
    target: Target,
    model: Checkpoint,
    new_values: NewValues,
    *,
    inputs: Sequence[Path] = (),
    one_file: bool = False,
    same_memory: Callable[[Tensor], Hashable | None] | None = None,
    advance: Callable[[str], None] = lambda key: None,
) -> None:
    """Write a model with the names, shapes, types and order of another one.

    Parameters
    ----------
    target : Target
        Where to: a file gets all tensors. A folder gets the files that `model` has, its shards with
        their index included, and configuration, tokenizer and code beside them.
    model : Checkpoint
        The model to follow.
    new_values : callable
        See `NewValues`. It is not asked for integers and booleans, which are copied.
    inputs : sequence of Path
        Files that are read besides those of `model`: none is replaced.
    one_file : bool
        Give a folder one ``model.safetensors``, whatever files `model` has.
    same_memory : callable, optional
        Of a tensor, what is equal for those that share memory in a torch file (`Tensor.identity` by
        default). They share it in the new one too, and only the first is asked for.
    advance : callable
        Told the name of each tensor that is done.

    Raises
    ------
    FormatError
        If a state dict holds what has no place in a safetensors file, or a file has changed.
    ArgumentValueError, OSError
        If it cannot be written; nothing is left of it then.

    Notes
    -----
    Values are rounded once, to nearest even, to the type of their tensor. Memory is what
    `new_values` takes and a few megabytes; a torch file is held whole.
    """
    files = _files(target, model, one_file)
    for name, part in files.items():
        if not _is_torch(name) and part.extras:
            extra = next(iter(part.extras))
            raise FormatError(
                f"{model.path}: {extra!r} is not a tensor, and has no place in a safetensors file. "
                "Hint: give 'out' the suffix .pt."
            )
    writer = _Writer(new_values, same_memory or (lambda tensor: tensor.identity), advance)
    with target.written([*model.files, *inputs]) as temporary:
        if target.kind != "folder":
            writer.write(temporary, target.path.name, model)
            return
        temporary.mkdir()
        for name, part in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            writer.write(temporary / name, name, part)
        _copy_companions(model.path, temporary)
        if model.index is not None and not one_file:
            shutil.copyfile(model.index, temporary / model.index.name)


def _files(target: Target, model: Checkpoint, one_file: bool) -> Mapping[str, Checkpoint]:
    """Return the names of the files to write, and what each holds."""
    if target.kind != "folder":
        return {target.path.name: model}
    if model.parts and not one_file:
        return model.parts
    first = model.files[0].name
    if one_file or not model.path.is_dir():
        adapter = first.startswith("adapter_model")
        return {"adapter_model.safetensors" if adapter else "model.safetensors": model}
    return {first: model}


def _is_torch(name: str) -> bool:
    return Path(name).suffix.lower() in TORCH_SUFFIXES


class _Writer:
    """Writes files, each from a model or a shard of it."""

    def __init__(
        self,
        new_values: NewValues,
        same_memory: Callable[[Tensor], Hashable | None],
        advance: Callable[[str], None],
    ) -> None:
        self.new_values = new_values
        self.same_memory = same_memory
        self.advance = advance

    def write(self, file: Path, name: str, model: Checkpoint) -> None:
        """Write the new file `file` in the format of a file that is called `name`."""
        if _is_torch(name):
            self.write_torch(file, Path(name).suffix.lower(), model)
        else:
            self.write_safetensors(file, model)

    def raw_chunks(self, tensor: Tensor) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the bytes of the new elements, some at a time."""
        values = self.new_values(tensor) if tensor.dtype.is_float else None
        if values is None:
            yield from tensor.raw_chunks(CHUNK)
            return
        done = 0
        for part in values:
            flat = np.ascontiguousarray(part, np.float64).reshape(-1)
            raw = np.ascontiguousarray(round_to(flat, tensor.dtype.name)).view(np.uint8)
            done += len(raw)
            yield raw
        # A fault of the caller: no file may have elements of one tensor in the next one.
        assert done == tensor.nbytes, f"{tensor.key}: {done} bytes instead of {tensor.nbytes}"

    def write_safetensors(self, file: Path, model: Checkpoint) -> None:
        """Write a new safetensors file: the header first, then tensor after tensor."""
        # Wide types first, as the reference implementation does: every tensor is then aligned.
        order = sorted(model.tensors.values(), key=lambda t: (-t.dtype.item_bytes, t.key))
        with NewFile(file) as handle:
            handle.write(_header(order, dict(model.metadata) or {"format": "pt"}))
            for tensor in order:
                for raw in self.raw_chunks(tensor):
                    handle.write(raw.data)
                self.advance(tensor.key)

    def write_torch(self, file: Path, suffix: str, model: Checkpoint) -> None:
        """Write a new torch checkpoint: a state dict, or a ``.ckpt`` of Lightning from such."""
        torch = require_torch("writing a torch checkpoint")
        state: OrderedDict[str, Any] = OrderedDict()
        owners: dict[Hashable, str] = {}
        for key, tensor in model.tensors.items():
            identity = self.same_memory(tensor)
            owner = None if identity is None else owners.setdefault(identity, key)
            if owner is not None and owner != key:
                state[key] = state[owner]
            else:
                result = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype.name))
                if tensor.nbytes:
                    flat, done = as_bytes(result), 0
                    for raw in self.raw_chunks(tensor):
                        flat[done : done + len(raw)] = raw
                        done += len(raw)
                state[key] = result
            self.advance(key)
        state.update(model.extras)
        state.__dict__.update(model.attributes)
        # Lightning makes a module from what stands beside the state dict.
        lightning = suffix == ".ckpt" and model.container
        value = {**model.container, "state_dict": state} if lightning else state
        save_torch(torch.save, value, file)


def _header(order: list[Tensor], metadata: dict[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for t in order:
        end = position + t.nbytes
        header[t.key] = {"dtype": t.dtype.code, "shape": t.shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _copy_companions(source: Path, folder: Path) -> None:
    """Copy the small files of a model folder, and of its subfolders that hold no weights."""
    if not source.is_dir():
        return
    for path in source.iterdir():
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.is_file()]
            if inside and all(p.suffix.lower() in _COMPANIONS for p in inside):
                (folder / path.name).mkdir(exist_ok=True)
                for p in inside:
                    shutil.copyfile(p, folder / path.name / p.name)
        elif path.suffix.lower() in _COMPANIONS and not _NOT_COMPANIONS.fullmatch(path.name):
            shutil.copyfile(path, folder / path.name)
