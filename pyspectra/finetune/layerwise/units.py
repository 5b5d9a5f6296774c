"""Which parameters go together: each weight matrix, and what follows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pyspectra.errors import ArgumentValueError
from pyspectra.finetune.blocks import numbered_block
from pyspectra.finetune.layerwise.scores import LayerScore
from pyspectra.optim._fused.names import plain_names

__all__ = ["Unit", "joined", "units"]


@dataclass(frozen=True)
class Unit:
    """Parameters that a rule treats alike.

    Attributes
    ----------
    key : str
        Name of the weight matrix that leads, or of the first parameter where there is none.
    names : tuple of str
        Names of all its parameters, in the order of the model.
    block : str or None
        The numbered block that it is in: ``"encoder.layer.3"``.
    type : str or None
        What follows the first number in its name, ``"attention.self.query"``; None where there is
        no number.
    is_matrix : bool
        Whether a matrix leads.
    """

    key: str
    names: tuple[str, ...]
    block: str | None
    type: str | None
    is_matrix: bool


def units(model: nn.Module, norms: bool = True) -> list[Unit]:
    """Return the parameters of a model in units: each of them is in exactly one.

    A vector follows the matrix of its own module: of several the one of its name (``bias_ih_l0``
    and ``weight_ih_l0``), or the only one. With `norms`, a batch norm follows the layer of its name
    (``conv1`` of ``bn1``) if there is one, else the layer right before it.
    """
    order = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    leaders: dict[str, str] = {}  # of each parameter that follows or leads
    led: dict[str, str] = {}  # module -> its last matrix
    before: str | None = None
    for path, module in model.named_modules():
        own = {n: p for n, p in _own(path, module) if n in order}
        if not own:
            continue
        matrices = [name for name, p in own.items() if p.ndim > 1]
        target = None
        if norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            target = led.get(path.replace("bn", "conv")) or before
        for name in own:
            leaders[name] = target or _leader(name, matrices, next(iter(own)))
        if matrices:
            led[path] = matrices[-1]
        before = matrices[-1] if matrices else None
    members: dict[str, list[str]] = {}
    for name in order:
        members.setdefault(leaders[name], []).append(name)
    matrices_of = {name for name, p in model.named_parameters() if p.ndim > 1}
    return [
        Unit(key, tuple(names), numbered_block(model, key), _type(key), key in matrices_of)
        for key, names in members.items()
    ]


def _own(path: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for leaf, p in module.named_parameters(recurse=False):
        yield f"{path}.{leaf}" if path else leaf, p


def _leader(name: str, matrices: list[str], first: str) -> str:
    if name in matrices:
        return name
    named = [m for m in matrices if m.replace("weight", "bias") == name]
    if named:
        return named[0]
    return matrices[0] if len(matrices) == 1 else name if matrices else first


def _type(key: str) -> str | None:
    """Return what follows the first number in the name of a module."""
    parts = key.split(".")[:-1]
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[i + 1 :])
    return None


def joined(
    function: str, model: nn.Module, found: list[Unit], scores: Iterable[LayerScore]
) -> Mapping[str, LayerScore]:
    """Return the score of each unit that has one, by its key.

    Prefixes of wrappers do not count, and a tied weight goes by any of its names.

    Raises
    ------
    ArgumentValueError
        If there are scores, and none of them is of the model.
    """
    first = {p: name for name, p in model.named_parameters()}
    every = [*model.named_parameters(remove_duplicate=False)]
    names = [name for name, _ in every]
    keys = {name: first[p] for name, p in every}
    keys |= dict(zip(plain_names(names), keys.values(), strict=True))
    leads = {unit.key for unit in found}
    rows = list(scores)
    plain = dict(zip(_keys(rows), plain_names(_keys(rows)), strict=True))
    out: dict[str, LayerScore] = {}
    for row in rows:
        key = keys.get(row.key) or keys.get(plain[row.key])
        if key in leads:
            out.setdefault(key, row)
    if rows and not out:
        got = f"layers such as {rows[0].key!r}, where the model has {next(iter(leads), None)!r}"
        hint = "analyze the model itself, or give scores by the names of model.named_parameters()"
        raise ArgumentValueError(function, "report", "be of the model", got, hint)
    return out


def _keys(rows: list[LayerScore]) -> list[str]:
    return list(dict.fromkeys(row.key for row in rows))
