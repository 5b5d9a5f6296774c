"""The options of the optimizers: each is one record, and all else derives from the records.

A record says how a value is checked, which fields of the kernel's options it fills, whether it
belongs to a parameter group or to the optimizer, and what its documentation is. The documentation
and the signatures of the constructors, the checks of groups (given, changed or loaded) and the
options of a step derive from it (groups.py, documentation.py). Options that every optimizer has are
the fields of `SharedOptions`: adding one there, and the line that obeys it, is all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict, get_type_hints

from torch import Tensor

from pyspectra import ops
from pyspectra._support.arguments import check_flag, check_seed
from pyspectra.optim._fused import checks
from pyspectra.optim._fused.checks import Check

Kernel = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
"""Takes a value and its group; returns fields of `ops.StepOptions`."""


@dataclass(frozen=True)
class Option:
    """What there is to know of one option.

    Attributes
    ----------
    kind : str
        Its type, as documentation has it.
    help : str
        Its documentation.
    check : Check or None
        Checks a value; None where the owner of the option checks it.
    default : object
        Default of an option that every optimizer has; the signatures have those of the others.
    kernel : Kernel or None
        What it comes to in the kernel's options; None where it decides something else.
    of_whole : bool
        Does it belong to the optimizer, not to a group?
    in_torch : bool
        Do torch's optimizers save it in their groups?
    shapes : callable or None
        What of the value decides the rows of the kernel's table; other options are read at each
        step.
    """

    kind: str
    help: str
    check: Check | None = None
    default: Any = None
    kernel: Kernel | None = field(default=None, repr=False)
    of_whole: bool = False
    in_torch: bool = False
    shapes: Callable[[Any], object] | None = field(default=None, repr=False)


# --- what they come to in the kernel --------------------------------------------------------------


def _as(name: str) -> Kernel:
    return lambda value, _group: {name: value}


def _host_lr(value: Any, _group: Mapping[str, Any]) -> dict[str, Any]:
    # One on a device is read there: to read it here would wait for the device.
    return {"lr": 0.0 if getattr(value, "is_cuda", False) else float(value)}


def keep_threshold(reserve_p: float) -> int:
    """Quantise a probability to units of 2^-16, at least one of them."""
    return max(1, round(reserve_p * 65536.0))


def _same(value: Any) -> object:
    return value


# --- the records ----------------------------------------------------------------------------------

_AS_IN_TORCH = "Accepted as torch's optimizers have it; the step is the same, one fused pass"

ORDERS = {"torch": "adamw", "alicemind": "adamw_alicemind"}
"""Update rules of ``order``."""


class RuleOptions(TypedDict, total=False):
    """Options that some update rules have; signatures say which, and their defaults."""

    lr: Annotated[
        float | Tensor,
        Option("float", "Learning rate.", checks.learning_rate, kernel=_host_lr, in_torch=True),
    ]
    betas: Annotated[
        tuple[float, float],
        Option(
            "tuple of two floats",
            "Decays of the first and of the second moment, in [0, 1).",
            checks.pair_of_decays,
            kernel=lambda value, _: {"beta1": value[0], "beta2": value[1]},
            in_torch=True,
        ),
    ]
    eps: Annotated[
        float,
        Option(
            "float",
            "Term of the denominator that keeps it from zero.",
            checks.not_negative,
            kernel=_as("eps"),
            in_torch=True,
        ),
    ]
    weight_decay: Annotated[
        float,
        Option(
            "float",
            "Weight decay: decoupled in AdamW; an L2 penalty, which enters the gradient, in the "
            "other optimizers.",
            checks.not_negative,
            kernel=_as("weight_decay"),
            in_torch=True,
        ),
    ]
    amsgrad: Annotated[
        bool,
        Option(
            "bool",
            "Only False: the greatest second moment so far is not kept.",
            checks.refused("torch.optim has AMSGrad, and `EMA.attach` averages beside it"),
        ),
    ]
    momentum: Annotated[
        float,
        Option(
            "float",
            "Decay of the momentum; 0 for none.",
            checks.not_negative,
            kernel=_as("momentum"),
            in_torch=True,
            shapes=lambda value: value == 0,
        ),
    ]
    dampening: Annotated[
        float,
        Option(
            "float",
            "Share of the gradient that does not enter the momentum.",
            checks.number,
            kernel=_as("dampening"),
            in_torch=True,
        ),
    ]
    nesterov: Annotated[
        bool,
        Option(
            "bool",
            "Nesterov's momentum, which needs a momentum and no dampening.",
            check_flag,
            kernel=_as("nesterov"),
            in_torch=True,
        ),
    ]
    mode: Annotated[
        str | None,
        Option(
            '{None, "F", "D"}',
            'Which gradients are masked, before both moments. "F": each step each element is kept '
            "with probability `reserve_p` and divided by it; elements left out still move by their "
            'momentum. "D": the fixed `mask`, without a scale. None: none.',
            checks.one_of(None, "F", "D"),
            shapes=_same,
        ),
    ]
    reserve_p: Annotated[
        float,
        Option(
            "float",
            'In (2^-17, 1]; for "F" rounded to a multiple of 2^-16.',
            checks.reserve_p,
            kernel=lambda value, group: (
                {"keep": keep_threshold(value)} if group["mode"] == "F" else {}
            ),
        ),
    ]
    mask: Annotated[
        Mapping[Any, Any] | None,
        Option(
            "mapping, optional",
            'For "D": name or parameter -> boolean array of its shape, True = trainable. '
            "Parameters that it leaves out train fully. It is saved with the state (packed, one "
            "bit an element).",
            of_whole=True,
        ),
    ]
    order: Annotated[
        str,
        Option('{"torch", "alicemind"}', "See Notes.", checks.one_of(*ORDERS), shapes=_same),
    ]
    decay_masked: Annotated[
        bool,
        Option(
            "bool",
            'For "D": does weight decay apply to the weights outside the child network too?',
            check_flag,
            kernel=_as("decay_masked"),
        ),
    ]
    compact: Annotated[
        bool,
        Option(
            "bool",
            'For "D": keep moments of the child network only, 8 bytes an element of it and one bit '
            "an element of the mask, and move less memory. The bits of the step are those of whole "
            "moments for eps > 0, except that a non-finite gradient outside the child network goes "
            "unseen: those gradients are not read. Such a state loads into this class, not into "
            "torch's.",
            check_flag,
            shapes=_same,
        ),
    ]


class SharedOptions(TypedDict, total=False):
    """Options that every optimizer has."""

    maximize: Annotated[
        bool,
        Option(
            "bool",
            "Only False: the step goes down the gradient.",
            checks.refused("take the loss with the opposite sign"),
            False,
        ),
    ]
    differentiable: Annotated[
        bool,
        Option(
            "bool",
            "Only False: no gradient can be taken through the step.",
            checks.refused("torch's optimizers can be differentiated through"),
            False,
        ),
    ]
    foreach: Annotated[
        bool | None,
        Option("bool, optional", f"{_AS_IN_TORCH}.", checks.or_none(check_flag)),
    ]
    fused: Annotated[
        bool | None,
        Option("bool, optional", f"{_AS_IN_TORCH}.", checks.or_none(check_flag)),
    ]
    capturable: Annotated[
        bool,
        Option(
            "bool",
            f"{_AS_IN_TORCH}, which can always be captured in a CUDA graph.",
            check_flag,
            False,
        ),
    ]

    ema_decay: Annotated[
        float | None,
        Option(
            "float, optional",
            "Decay of the moving average of the weights; None for no average. It starts from the "
            "weights before the first step and is kept in float32. A parameter that has no "
            "gradient takes no step, and neither does its average.",
            checks.or_none(checks.share),
            kernel=lambda value, _: {} if value is None else {"ema_decay": value},
            shapes=lambda value: value is None,
        ),
    ]
    ema_warmup: Annotated[
        str | None,
        Option(
            '{"tf", "power", None}',
            'At update number n the decay is, for "tf", min(ema_decay, (1 + n) / (10 + n)); for '
            '"power", min(ema_decay, 1 - (1 + n)^(-2/3)), of `EMA` with its defaults; for None, '
            "ema_decay.",
            checks.one_of(*ops.EMA_WARMUPS),
            "tf",
            kernel=lambda value, _: {"ema_warmup": ops.EMA_WARMUPS[value]},
        ),
    ]
    ema_every: Annotated[
        int,
        Option(
            "int",
            "Average every so many steps; n counts averages.",
            checks.count,
            1,
            kernel=_as("ema_every"),
        ),
    ]
    seed: Annotated[
        int,
        Option(
            "int",
            "Seed of random masks and of stochastic rounding, in [0, 2^64).",
            check_seed,
            0,
            shapes=_same,
        ),
    ]
    stochastic_rounding: Annotated[
        bool,
        Option(
            "bool",
            "Round bfloat16 parameters up or down with the probability of what is cut off; other "
            "types round to nearest (float16 with a warning).",
            check_flag,
            False,
            kernel=_as("stochastic_rounding"),
            shapes=_same,
        ),
    ]
    master_weights: Annotated[
        bool,
        Option(
            "bool",
            "Keep a float32 copy (state ``master``) of parameters of 16 bits: the rule moves the "
            "copy, the parameter is its rounding, the average follows the copy. It is made at the "
            "first step: load weights before that, or the state with them.",
            check_flag,
            False,
            shapes=_same,
        ),
    ]
    max_grad_norm: Annotated[
        float | None,
        Option(
            "float, optional",
            "Clip the norm over all gradients, as ``clip_grad_norm_`` but without writing to them. "
            "As there, a norm that is not finite is not hidden: NaN makes every weight NaN, and "
            "Inf those whose gradient it is. Under ``torch.amp.GradScaler`` the norm is of "
            "unscaled gradients, and a step whose gradients are not finite is left out: weights, "
            "moments, average, step count and so the next random numbers stay as they are.",
            checks.or_none(checks.positive),
            of_whole=True,
        ),
    ]
    statistics: Annotated[
        bool,
        Option(
            "bool",
            "Take the statistics that `statistics()` returns, from what the step has in cache.",
            check_flag,
            False,
            of_whole=True,
        ),
    ]


def _records(fields: type) -> dict[str, Option]:
    hints = get_type_hints(fields, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


SHARED = _records(SharedOptions)
OPTIONS = {**_records(RuleOptions), **SHARED}
"""Every option of every optimizer, by name."""
