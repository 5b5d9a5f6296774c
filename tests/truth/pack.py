"""Put what `train.py` made into ``states/``: one file a run, and the scores beside those there.

python tests/truth/pack.py MADE
"""

import json
import sys
from pathlib import Path

import numpy as np

KEPT_BEFORE = (
    "digits_wide-0", "digits_wide-100", "gru-200", "mixer-200", "tanh-200", "momentum-200",
)  # fmt: skip


def main():
    made, out = Path(sys.argv[1]), Path(__file__).parent / "states"
    out.mkdir(exist_ok=True)
    facts = out / "facts.json"
    runs, scores = {}, json.loads(facts.read_text()) if facts.exists() else {}
    for path in sorted(made.glob("*.npz")):
        name = path.stem
        if name.startswith("before-"):
            name = name.removeprefix("before-")
            if name not in KEPT_BEFORE:
                continue
            name = name.replace("-", "_before-")
        else:
            scores[name] = json.loads(path.with_suffix(".json").read_text())
        run, _, seed = name.rpartition("-")
        with np.load(path) as file:
            runs.setdefault(run, {}).update({f"{seed}/{k}": file[k] for k in file})
    for run, arrays in runs.items():
        np.savez_compressed(out / f"{run}.npz", **arrays)
    text = json.dumps(
        {k: {m: round(x, 3) for m, x in v.items()} for k, v in scores.items()}, indent=1
    )
    facts.write_text(text + "\n")


if __name__ == "__main__":
    main()
