"""Names of layers without what wrappers add: ``torch.compile``, parallelism, PEFT."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["unwrapped_name"]

# What wrappers put before the names of the module inside: at the start, or wherever they stand.
_WRAPPERS: Final = re.compile(
    r"^(?:module|_forward_module|base_model\.model)\."
    r"|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\."
)
# What PEFT calls the module that it adapts, inside its own.
_BASE_LAYER: Final = re.compile(r"\.base_layer(?=[.\[]|$)")


def unwrapped_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Leave out of a name what wrappers add to it.

    Parameters
    ----------
    name : str
        Of a layer, or of a tensor.

    Returns
    -------
    plain : str
        The name in the module inside.
    removed : tuple of str
        What was left out.

    Examples
    --------
    >>> unwrapped_name("module.layers.0._orig_mod.fc")
    ('layers.0.fc', ('module.', '_orig_mod.'))
    """
    removed: list[str] = []
    while (match := _WRAPPERS.search(name)) is not None:
        removed.append(match[0])
        name = name[: match.start()] + name[match.end() :]
    name, count = _BASE_LAYER.subn("", name)
    if count:
        removed.append(".base_layer")
    return name, tuple(removed)
