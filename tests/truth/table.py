"""Print the table of benchmarks/truth.md: python tests/truth/table.py, from tests/.

"Before" is the verdict of WeightWatcher's words and one test for randomness: more than a third of
the layers not to be told from random (p > 0.01) is "untrained", more than a third with alpha above
6 or below 2 "under-trained" or "over-trained", else "well trained".
"""

import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyspectra as ps
from truth import cases


def before(report):
    fitted = [layer for layer in report.wholes if layer.status is ps.Status.OK]
    if not fitted:
        return "cannot be judged"
    quick = [layer.null is not None and layer.null.quick > 0.01 for layer in fitted]
    told = [x for x, random in zip(fitted, quick, strict=True) if not random]
    under, over = sum(x.alpha > 6 for x in told), sum(x.alpha < 2 for x in told)
    if 3 * sum(quick) > len(fitted):
        return "untrained"
    if 3 * under > len(fitted) and under >= max(over, 1):
        return "under-trained"
    return "over-trained" if 3 * over > len(fitted) else "well trained"


def main():
    scores = cases.facts()
    print("| truth | seeds | test score | before | after |\n|---|---|---|---|---|")
    for title, group in (
        ("trained", cases.TRAINED), ("untrained", cases.UNTRAINED), ("spoilt", cases.SPOILT)
    ):  # fmt: skip
        rows = defaultdict(list)
        for name, make in group.items():
            report = ps.analyze(make(), progress=False)
            kind = "fresh" if cases.is_fresh(name) else "chosen"
            score = scores.get(name, {}).get("test")
            rows[name.rpartition("-")[0], kind].append(
                (score, before(report), report.verdict.label)
            )
        for (run, kind), found in rows.items():
            own = [score for score, _, _ in found if score is not None]
            reach = f"{min(own):.2f} to {max(own):.2f}" if own else ""
            cells = [
                ", ".join(f"{label} {n}" for label, n in Counter(x[i] for x in found).most_common())
                for i in (1, 2)
            ]
            line = (f"{title}: {run}, {kind}", str(len(found)), reach, *cells)
            print("|", " | ".join(line), "|", flush=True)


if __name__ == "__main__":
    main()
