"""Merging: what several fine-tunings added to one base, added to it together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from pyspectra._arrays import is_torch_module, is_torch_tensor, require_torch
from pyspectra._support.arguments import check_flag, shown
from pyspectra._support.progress import check_progress, progress_bar
from pyspectra.edit.adapters import Adapter, adapter_of, is_adapter
from pyspectra.edit.files import Target, Tensor, check_target, write_checkpoint
from pyspectra.edit.files.rounding import round_to
from pyspectra.edit.memory import copied
from pyspectra.edit.merge_arguments import check_models, check_settings
from pyspectra.edit.merge_job import Job, MergedTensor
from pyspectra.edit.task_vectors import Base, Difference, difference_from, opened
from pyspectra.errors import ArgumentValueError, called_as
from pyspectra.weights import open_weights
from pyspectra.weights.formats import state_dict

__all__ = ["MergedModel", "MergedTensor", "merge"]

_FUNCTION = "merge"
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class MergedModel:
    """What has been merged into a file or a folder.

    Attributes
    ----------
    path : str
        What was written.
    base : str
        The base.
    models : tuple of str
        What was merged into it, in the order of `weights`.
    method : str
    weights, densities : tuple of float
        Of each model.
    tensors : tuple of MergedTensor
        The floating-point tensors in the order of writing, tied ones once where they share memory.
    n_copied : int
        Integer and boolean tensors, taken from the base.
    not_finite : tuple of str
        Names of tensors that merging has given a NaN or an infinity.

    Examples
    --------
    >>> import tempfile, pyspectra as ps
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import load_file, save_file
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, value in (("base", 1.0), ("a", 2.0), ("b", 4.0)):
    ...     save_file({"w": np.full(3, value, np.float32)}, folder / f"{name}.safetensors")
    >>> base, a, b = (folder / f"{name}.safetensors" for name in ("base", "a", "b"))
    >>> done = ps.merge(base, [a, b], weights=[0.5, 0.25], out=folder / "merged.safetensors")
    >>> done.method, done.weights, load_file(done.path)["w"]
    ('task_arithmetic', (0.5, 0.25), array([2.25, 2.25, 2.25], dtype=float32))
    """

    path: str
    base: str
    models: tuple[str, ...]
    method: str
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    tensors: tuple[MergedTensor, ...]
    n_copied: int
    not_finite: tuple[str, ...]


@overload
def merge(
    base: Any,
    models: Sequence[Any],
    *,
    method: str = "task_arithmetic",
    weights: Sequence[float] | None = None,
    density: float | Sequence[float] | None = None,
    scale: float = 1.0,
    normalize: bool | None = None,
    scope: str | None = None,
    seed: int | None = None,
    out: None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any: ...


@overload
def merge(
    base: Path,
    models: Sequence[Any],
    *,
    method: str = "task_arithmetic",
    weights: Sequence[float] | None = None,
    density: float | Sequence[float] | None = None,
    scale: float = 1.0,
    normalize: bool | None = None,
    scope: str | None = None,
    seed: int | None = None,
    out: Path,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> MergedModel: ...


def merge(
    base: Any,
    models: Sequence[Any],
    *,
    method: str = "task_arithmetic",
    weights: Sequence[float] | None = None,
    density: float | Sequence[float] | None = None,
    scale: float = 1.0,
    normalize: bool | None = None,
    scope: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> Any:
    """Merge models that were trained from one base.

    Parameters
    ----------
    base : nn.Module, mapping or path
        The model that all of them were trained from: in memory; or a ``.safetensors`` file, a torch
        checkpoint, an index of shards or a model folder.
    models : sequence of nn.Module, mapping or path
        The tuned models, each of any of these kinds. Their floating-point tensors have the names
        and shapes of the base; their element types may differ. Or adapters of LoRA pairs, as PEFT
        saves them: a folder knows their scale, in a file or a state dict it is 1.
    method : {"task_arithmetic", "magnitude_prune", "ties", "dare_linear", "dare_ties"}
        What becomes of the task vectors (a tuned model less the base), see Notes.
    weights : sequence of float, optional
        One for each model, 1 by default. A negative one takes away what that model has learned.
    density : float or sequence of float, optional
        Share of each task vector that stays, in (0, 1], for all or for each model: by default 0.2
        of the largest, and 0.5 at random.
    scale : float
        Factor on what is added to the base: the lambda of the papers.
    normalize : bool, optional
        Whether to divide the sum by the weights in it: the default for ``ties`` and ``dare_ties``,
        not for the others. Task arithmetic becomes the weighted mean of the models.
    scope : {"tensor", "global"}, optional
        Whether the largest numbers are those of each tensor (the default, as in mergekit and peft)
        or of the whole task vector (as published).
    seed : int, optional
        Seed of what is dropped at random, by default 0.
    out : path, optional
        Where to write the result if `base` is a path: a ``.safetensors`` or torch file, or a new
        folder, which gets the shards, configuration and tokenizer of the base.
    overwrite : bool
        Whether `out` may be a file that exists. A file that is read is never replaced.
    progress : bool or "auto"
        Whether to show a bar on standard error for what takes over two seconds; ``"auto"``: on a
        terminal.

    Returns
    -------
    dict or MergedModel
        Of a base in memory a new state dict, which shares no memory with it; of one in files what
        was written.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    FormatError
        If a file cannot be read.
    TypeError, ValueError
        If an argument is not as described, goes with another method, a model does not fit the base,
        or `out` is one of the inputs, or exists and `overwrite` is False.
    OSError
        If the output cannot be written. Nothing is left half-written.

    Notes
    -----
    With task vectors d_i, weights w_i and x_i = w_i d_i, the result is base + scale * m:

    - ``task_arithmetic``: m is the sum of x_i.
    - ``magnitude_prune``: the same, of which only the int(density * n) largest of each d_i by
      magnitude are left; of equal ones those that come first (with ``scope="global"`` all).
    - ``ties``: after that each weight takes the sign of the sum of its x_i, and m is the mean of
      those x_i with that sign: their sum over the sum of their ``|w_i|``. A sum of exactly zero
      counts as positive, as in mergekit and peft (the authors' code takes the sign of most others).
    - ``dare_linear``: each number of d_i is dropped with probability 1 - density, the others are
      divided by the density; m is the sum of x_i.
    - ``dare_ties``: the same, and then the signs and means of ``ties``.

    Everything is computed in float64 and rounded once, to the base's own types, the largest finite
    number of them at most. Numbers to which nothing is added stay as they are, bit by bit, and so
    do integers and booleans, which come from the base. Tied weights stay tied. What is dropped
    depends on the seed, the tensor's name and the place of the model in `models`, not on threads or
    files.

    Of files a few megabytes are in memory at a time, with any method; a torch output is held whole.
    The largest numbers are found by counting, for which differences are read one to five times
    more. Statistics of batch normalisation are merged as weights are.

    References
    ----------
    Ilharco et al., "Editing models with task arithmetic", ICLR 2023, arXiv 2212.04089. Yadav et
    al., "TIES-merging: resolving interference when merging models", NeurIPS 2023, arXiv 2306.01708.
    Yu et al., "Language models are super Mario", ICML 2024, arXiv 2311.03099.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> base = {"fc.weight": np.zeros((2, 2))}
    >>> a = {"fc.weight": np.array([[4.0, 0.1], [-2.0, 3.0]])}
    >>> b = {"fc.weight": np.array([[2.0, 5.0], [3.0, -0.2]])}
    >>> ps.merge(base, [a, b])["fc.weight"]
    array([[6. , 5.1],
           [1. , 2.8]])
    >>> ps.merge(base, [a, b], method="ties", density=0.75)["fc.weight"]
    array([[3., 5.],
           [3., 3.]])
    """
    check_progress(_FUNCTION, progress)
    given = check_models(models)
    settings = check_settings(
        len(given), method, weights=weights, density=density, scale=scale, normalize=normalize,
        scope=scope, seed=seed,
    )  # fmt: skip
    replace = check_flag(_FUNCTION, "overwrite", overwrite)
    state = base.state_dict() if is_torch_module(base) else base
    before = Base(opened(_FUNCTION, "base", state, "merged"))
    target = _target(before, out, replace)
    if not before.tensors:
        got = f"{before.model.name}, which has none"
        raise ArgumentValueError(_FUNCTION, "base", "hold floating-point tensors", got)
    total = len(before.tensors) if target is None else len(before.model.tensors)
    with (
        contextlib.ExitStack() as stack,
        progress_bar(total, "merging", progress, function=_FUNCTION) as advance,
    ):
        job = Job(before, _vectors(before, base, given, stack), settings)
        if target is None:
            return _in_memory(state, job, advance)
        return _in_files(target, job, advance)


def _target(base: Base, out: Path | None, overwrite: bool) -> Target | None:
    """Return where to write; None for a base in memory."""
    if base.model.checkpoint is None:
        if out is not None:
            hint = "save the state dict that comes back"
            requirement = "be None where 'base' is in memory"
            raise ArgumentValueError(_FUNCTION, "out", requirement, shown(out), hint)
        return None
    if out is None:
        requirement = "name a file or a folder where 'base' is in one"
        raise ArgumentValueError(_FUNCTION, "out", requirement, "None")
    return check_target(_FUNCTION, out, [base.model.checkpoint.path], overwrite)


def _vectors(
    base: Base, base_given: Any, given: Sequence[Any], stack: contextlib.ExitStack
) -> list[Difference | Adapter]:
    """Return the task vectors of models and of adapters, which the stack keeps open."""
    found: list[Difference | Adapter] = []
    source = None
    for i, one in enumerate(given):
        argument = f"models[{i}]"
        model = opened(_FUNCTION, argument, one, "merged")
        if is_torch_module(one) or not is_adapter(model):
            found.append(difference_from(_FUNCTION, argument, base, model))
            continue
        if source is None:
            with called_as(_FUNCTION, model_or_path="base"):
                source = stack.enter_context(open_weights(base_given))
        with called_as(_FUNCTION, model_or_path=argument):
            adapter = stack.enter_context(open_weights(one))
        found.append(adapter_of(_FUNCTION, argument, base, source, adapter, one, model))
    return found


def _in_files(target: Target, job: Job, advance: Callable[[str], None]) -> MergedModel:
    """Merge into a new file or folder."""
    model, settings = job.base.model, job.settings
    assert model.checkpoint is not None
    files = [*model.files, *(file for vector in job.vectors for file in vector.files)]
    target.check_not_input(files)
    write_checkpoint(target, model.checkpoint, job.values, inputs=files, advance=advance)
    return MergedModel(
        path=os.fspath(target.path),
        base=model.name,
        models=tuple(vector.name for vector in job.vectors),
        method=settings.method.name,
        weights=settings.weights,
        densities=settings.densities,
        tensors=tuple(job.tensors),
        n_copied=sum(not t.dtype.is_float for t in model.tensors.values()),
        not_finite=tuple(job.not_finite),
    )


def _in_memory(state: Mapping[Any, Any], job: Job, advance: Callable[[str], None]) -> Any:
    """Merge into a copy of a state dict."""
    target = copied(_FUNCTION, state)
    values = state_dict.flat(target)
    for tensor in job.base.tensors:
        raw = np.concatenate([round_to(part.reshape(-1), tensor.dtype.name)
                              for part in job.values(tensor)] or [np.empty(0)])  # fmt: skip
        _assign(values[tensor.key], tensor, raw)
        advance(tensor.key)
    return target


def _assign(value: Any, tensor: Tensor, raw: np.ndarray) -> None:
    """Write elements, as they are stored, into an array of their type."""
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False).reshape(tensor.shape)
    if is_torch_tensor(value):
        torch = require_torch("merging")
        with torch.no_grad():
            made = torch.from_numpy(native.view(f"i{tensor.dtype.item_bytes}"))
            value.copy_(made.view(value.dtype))
    else:
        value[...] = native if value.dtype.kind == "f" else native.view(value.dtype)
