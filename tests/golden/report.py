"""The golden report: made by ``python -m golden.report`` from tests/, once a version.

Later versions must load report.npz, and find in report.json what they compute themselves.
"""

from pathlib import Path
from typing import Any

import numpy as np

import pyspectra as ps

OPTIONS: dict[str, Any] = {
    "randomize": True, "mp_fit": True, "detx": True, "vectors": True, "bootstrap": 20, "seed": 5
}  # fmt: skip


def model() -> dict[str, np.ndarray]:
    """Return a small model; the stream of RandomState is frozen for good."""
    rng = np.random.RandomState(7)
    return {
        "embed_tokens.weight": rng.standard_t(3, (40, 16)),
        "conv.weight": rng.standard_t(3, (16, 12, 3, 2)),
        "attn.in_proj_weight": rng.standard_normal((48, 16)),
        "fc.weight": rng.standard_t(3, (30, 20)).astype(np.float32),
        "fc.bias": np.zeros(30, np.float32),
        "zero.weight": np.zeros((12, 10)),
        "bad.weight": np.full((9, 9), np.nan),
        "tiny.weight": np.ones((3, 3)),
    }


def main() -> None:
    report = ps.analyze(model(), **OPTIONS)
    report.save(Path(__file__).with_name("report.npz"))
    report.to_json(Path(__file__).with_name("report.json"))


if __name__ == "__main__":
    main()
