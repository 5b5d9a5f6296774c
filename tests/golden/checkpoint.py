"""The golden averaged checkpoints, made by ``python -m golden.checkpoint`` once a version.

Later versions must read checkpoint.safetensors and checkpoint.pt, and find the mean of `states` in
both.
"""

import tempfile
from pathlib import Path

import numpy as np

from pyspectra.training import average_checkpoints


def states() -> list[dict[str, np.ndarray]]:
    """Return what was averaged; the stream of RandomState is frozen for good."""
    rng = np.random.RandomState(11)
    return [
        {
            "embed.weight": rng.standard_normal((6, 4)).astype(np.float32),
            "fc.weight": rng.standard_normal((5, 4)),
            "fc.bias": rng.standard_normal(5).astype(np.float16),
            "steps": np.array(step),
            "mask": np.array([True, step > 1]),
        }
        for step in (1, 2, 3)
    ]


def main() -> None:
    from safetensors.numpy import save_file

    folder = Path(tempfile.mkdtemp())
    for step, state in enumerate(states(), start=1):
        save_file(state, folder / f"step_{step}.safetensors")
    for suffix in (".safetensors", ".pt"):
        out = Path(__file__).with_name(f"checkpoint{suffix}")
        average_checkpoints(folder, out, weights=[1, 1, 2], overwrite=True)


if __name__ == "__main__":
    main()
