"""Masks over the parameters of a model, for optimizers that move a part of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pyspectra.finetune.select import masks_of

__all__ = ["child_mask"]


def child_mask(
    scores: Mapping[str, Tensor], reserve_p: float = 0.3, scope: str = "global"
) -> dict[str, Tensor]:
    """Return the child network: the weights with the highest scores.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Name -> scores, of `fisher_diag` or any others.
    reserve_p : float
        Part of the weights in the child network, in (0, 1]. Where many scores equal the threshold,
        such as the zeros of weights that no loss depends on, more is taken: up to everything.
    scope : {"global", "tensor", "row"}
        What they compete within; see `select`.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> boolean mask, True = trainable; what ``ChildAdamW(mode="D", mask=...)`` takes.

    Raises
    ------
    ValueError, TypeError
        As `select`.

    References
    ----------
    Xu et al., EMNLP 2021, arXiv 2109.05687: Child-Tuning_D.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import child_mask
    >>> scores = {"a": torch.tensor([1.0, 9.0, 2.0, 8.0]), "b": torch.zeros(4)}
    >>> child_mask(scores, reserve_p=0.25)["a"]
    tensor([False,  True, False,  True])
    """
    return masks_of(scores, reserve_p, scope, "top", 0, "child_mask")
