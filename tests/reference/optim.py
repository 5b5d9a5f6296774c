"""The optimizer step in numpy: update rules, masks, moving average, Philox.

`S` is the type of the arithmetic: float64 for the formula itself, float32 for the very bits of the
kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

M32 = 0xFFFFFFFF


def philox4x32(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Salmon et al., SC 2011, figure 3 and table 2: ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & M32, (a >> 32) ^ c3 ^ k1, a & M32
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c0, c1, c2, c3


def draw(key: int, step: int, stream: int, e: int) -> int:
    """The 16-bit draw of element `e`."""
    block, half = 16 * (e // 128) + (e % 64) // 4, 4 * (e % 128 // 64) + e % 4
    words = philox4x32((block & M32, block >> 32, step, stream), (key & M32, key >> 32))
    return words[half // 2] >> (16 * (half % 2)) & 0xFFFF


def draws(key: int, step: int, stream: int, offset: int, size: int) -> Array:
    return np.array([draw(key, step, stream, offset + i) for i in range(size)], dtype=np.uint16)


def to_bfloat16(x: Array, random: Array | None = None) -> Array:
    """float32 to bfloat16 bit patterns: to nearest even, or up with the chance of the rest."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    extra = 0x7FFF + (bits >> 16 & 1) if random is None else random.astype(np.uint64)
    special = bits >> 16 | np.where(np.isnan(x), 0x40, 0).astype(np.uint64)
    return np.where(np.isfinite(x), bits + extra >> 16, special).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rule(name: str, p: Array, g: Array, m: Array, v: Array, o: dict[str, Any], S: Any) -> Any:
    """New (p, m, v). `o["decays"]` tells where weight decay applies."""
    t, lr, wd = o["step"], o["lr"], o["weight_decay"]
    decays = o.get("decays", np.ones(p.shape, bool))
    if name in ("sgd", "sgd_momentum"):
        mu = o["momentum"]
        g = np.where(decays, g + S(wd) * p, g)
        if name == "sgd":
            return p - S(lr) * g, m, v
        start = o.get("momentum_start", 1)
        m = m * S(mu) + S(1.0 if t == start else 1 - o["dampening"]) * g
        return p - S(lr) * (g + S(mu) * m if o["nesterov"] else m), m, v
    b1, b2, eps = o["beta1"], o["beta2"], S(o["eps"])
    correction1, root2 = 1 - b1**t, (1 - b2**t) ** 0.5
    if name == "adamw_alicemind":
        m = m * S(b1) + S(1 - b1) * g
        v = v * S(b2) + S(1 - b2) * g * g
        p = p - S(lr * root2 / correction1) * (m / (np.sqrt(v) + eps))
        return np.where(decays, p - S(lr * wd) * p, p), m, v
    if name == "adamw":
        p = np.where(decays, p * S(1 - lr * wd), p)
    else:
        g = np.where(decays, g + S(wd) * p, g)
    m = lerp(m, g, 1 - b1, S)
    v = v * S(b2) + S(1 - b2) * g * g
    return p - S(lr / correction1) * (m / (np.sqrt(v) * S(1 / root2) + eps)), m, v


def lerp(a: Array, b: Array, weight: float, S: Any) -> Array:
    """From a towards b, reckoned from the nearer end, as torch.lerp does."""
    if S(weight) < S(0.5):
        return a + S(weight) * (b - a)
    return b - (S(1) - S(weight)) * (b - a)


def ema(old: Array, p: Array, decay: float, S: Any) -> Array:
    return old - S(1 - decay) * (old - p)


def tf_decay(decay: float, n: int) -> float:
    return min(decay, (1 + n) / (10 + n))


def power_decay(decay: float, n: int, power: float, inv_gamma: float) -> float:
    """EMAWarmup of k-diffusion: 1 - (1 + n / inv_gamma) ** -power, bounded."""
    return min(decay, 1 - (1 + n / inv_gamma) ** -power)


def blocked_sum(x: Array) -> float:
    """Sum in float64 in the kernel's order: lanes of 8, tiles of 128, blocks of 4096."""
    total = 0.0
    for block in (x[b : b + 4096].astype(np.float64) for b in range(0, x.size, 4096)):
        subtotal = 0.0
        for tile in (block[t : t + 128] for t in range(0, block.size, 128)):
            lanes = np.zeros(8)
            for k in range(0, tile.size, 8):
                row = tile[k : k + 8]
                lanes[: row.size] += row
            subtotal += sum(lanes.tolist())
        total += subtotal
    return total


def statistics(
    g: Array, before: Array, after: Array, drive: Array, decays: Array, moves: bool
) -> dict[str, float]:
    """What a step did: gradient as given, parameter before and after, what moves it (the first
    moment), where weight decay applies, and whether the learning rate is not zero."""
    g, w, new = (x.astype(np.float64) for x in (g, before, after))
    u = new - w
    known = np.abs(g[~np.isnan(g)])
    lost = (new == w) & ((drive != 0) | decays & (w != 0))
    return {
        "grad_squares": blocked_sum(g * g),
        "grad_max": float(known.max(initial=0.0)),
        "param_squares": blocked_sum(w * w),
        "update_squares": blocked_sum(u * u),
        "grad_dot_update": blocked_sum(g * u),
        "non_finite": float(np.sum(~np.isfinite(g))),
        "zero": float(np.sum(g == 0)),
        "rounded_away": float(np.sum(lost)) if moves else 0.0,
    }
