"""What WeightWatcher calls the options of an analysis, answered with ours."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["refuse_foreign_names"]

# A keyword of WeightWatcher 0.7.7's `analyze` that is none of ours -> what to do instead.
_INSTEAD = {
    "model": "the model is the first argument",
    "fit": "fit='PL' is estimator='ww' (the default), fit='TPL' is estimator='tpl'",
    "plot": "call plot('esd', layer=name) of the report that analyze returns",
    "savefig": "call plot('esd', layer=name) of the report that analyze returns; it gives a figure",
    "detX": "write detx=True",
    "min_size": "min_evals=n is the smallest number of eigenvalues",
    "max_size": "max_evals=n is the largest number of eigenvalues",
    "max_N": "max_evals=n is the largest number of eigenvalues; there is no limit by default",
    "svd_method": "write method='gram' or method='svd'; both are exact",
    "tolerance": "no eigenvalue is cut off; to_pandas(dialect='weightwatcher') counts as they do",
    "ww2x": "write pool=False for a row a slice of a convolution",
    "intra": "a fused weight is analysed whole and in its parts, without an option",
    "conv2d_fft": "convolutions are analysed by their kernel positions only",
    "conv2d_norm": "eigenvalues are those of the weights as stored; "
    "to_pandas(dialect='weightwatcher') has their factor",
    "glorot_fix": "eigenvalues are those of the weights as stored",
    "normalize": "eigenvalues are those of the weights as stored",
    "rescale": "eigenvalues are those of the weights as stored",
    "channels": "the layout of a kernel follows from the kind of its layer",
    "stacked_layers": "stacks of experts are recognised, and pooled",
    "peft": "adapters are recognised: analyze the adapter's folder, or give base_model=",
    "start_ids": "to_pandas(dialect='weightwatcher') has their layer_id",
    "pl_package": "every estimator is our own; estimator='csn' is Clauset's by the book",
    "max_fingers": "fix_fingers='clip_xmax' clips at most nine, which is their default",
    "finger_thresh": "fix_fingers='clip_xmax' clips while alpha falls by more than 1",
    "xmin_max": "write estimator='fix_finger(x)'",
    "params": "every option is a keyword of analyze",
}


def refuse_foreign_names(names: Iterable[str]) -> None:
    """Answer the keywords of WeightWatcher's `analyze` that are none of ours.

    Parameters
    ----------
    names : iterable of str
        The keywords of a call of `pyspectra.analyze`.

    Raises
    ------
    TypeError
        If one is WeightWatcher's; the message says what to do instead.
    """
    for name in names:
        if name in _INSTEAD:
            raise TypeError(
                f"analyze: there is no option {name!r}, which is WeightWatcher's. "
                f"Hint: {_INSTEAD[name]}."
            )
