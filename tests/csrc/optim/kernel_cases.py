"""Arrays, rows and options that the tests of the step kernel share."""

from __future__ import annotations

from typing import Any

import numpy as np
from reference import optim as ref

from pyspectra import ops

DTYPES = ("float16", "bfloat16", "float32", "float64")
KEY = 0xFEDC_BA98_7654_3210
BASE = {
    "lr": 0.013,
    "beta1": 0.87,
    "beta2": 0.985,
    "eps": 3e-6,
    "weight_decay": 0.07,
    "step": 5,
    "momentum": 0.8,
    "dampening": 0.15,
    "nesterov": True,
}


def arrays(n: int, dtype: str, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng([seed, n])
    S = np.float64 if dtype == "float64" else np.float32
    stored = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
    a: dict[str, Any] = {}
    for name, scale in (("param", 1.0), ("grad", 0.3)):
        x = scale * rng.standard_normal(n)
        a[name] = (
            ref.to_bfloat16(x.astype(np.float32))
            if dtype == "bfloat16"
            else x.astype(stored[dtype])
        )
    a["exp_avg"] = (0.1 * rng.standard_normal(n)).astype(S)
    a["exp_avg_sq"] = (0.01 * rng.random(n)).astype(S)
    a["ema"] = rng.standard_normal(n).astype(S)
    a["mask"] = np.packbits(rng.random(n) < 0.4, bitorder="little")
    return a


def row(
    a: dict[str, Any], dtype: str, *, roles: str = "param grad exp_avg exp_avg_sq", option: int = 0
) -> list[int]:
    names = ops.STEP_COLUMNS[: ops.STEP_COLUMNS.index("size")]
    used = roles.split()
    address = [a[k].ctypes.data if k in used and a[k].size else 0 for k in names]
    n = a["param"].size
    whole = max(n, 1)
    return [*address, n, -1, 0, whole, whole, KEY, ops.DTYPE_CODES[dtype], option]


def run(rows: Any, options: Any, **kwargs: Any) -> Any:
    return ops.optim_step(ops.optim_table(rows), options, **kwargs)


def column(name: str) -> int:
    return ops.STEP_COLUMNS.index(name)


def options(rule: str, **changes: Any) -> Any:
    return ops.StepOptions(rule=ops.OPTIM_RULES[rule].code, **{**BASE, **changes})


def widened(x: Any, dtype: str, S: Any) -> Any:
    return ref.from_bfloat16(x) if dtype == "bfloat16" else x.astype(S)
