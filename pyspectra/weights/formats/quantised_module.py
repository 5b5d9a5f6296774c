"""What quantised modules keep beside their parameters: bitsandbytes puts scales into attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyspectra._arrays import is_torch_tensor

__all__ = ["partners"]


def partners(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that belong to a quantised parameter, as a state dict names them.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    name : str
        Of its parameter.

    Yields
    ------
    (str, torch.Tensor)
        The name in the module, and the tensor.
    """
    parameter = module._parameters.get(name)
    # 4 bits: the state that dequantises, which the library itself lists.
    state = getattr(parameter, "quant_state", None)
    if state is not None and hasattr(state, "as_dict"):
        listed = state.as_dict(packed=True)
        if isinstance(listed, Mapping):
            yield from ((f"{name}.{key}", x) for key, x in listed.items() if is_torch_tensor(x))
    # 8 bits: the largest number of each row, of the parameter until the first step of the module.
    for owner in (parameter, getattr(module, "state", None)):
        largest = getattr(owner, "SCB", None)
        if is_torch_tensor(largest):
            yield "SCB", largest
            return
