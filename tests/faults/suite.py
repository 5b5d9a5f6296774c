"""Run all and print the tables: ``python -m faults.suite --seeds 5`` from ``tests/``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from faults.cases import FAULTS, HEALTHY
from faults.loop import run


def findings(watch):
    """Return conclusions as (code, severity, step)."""
    return [(x.code, x.severity, x.step) for x in watch.report()]


def rows(seeds, architectures, only=None):
    """Run every case; yield one row each."""
    for architecture in architectures:
        for seed in seeds:
            for fault in FAULTS:
                if architecture in fault.only and (only is None or only in fault.name):
                    found = findings(run(architecture, fault.setup, seed))
                    yield {
                        "kind": "fault", "case": fault.name, "codes": fault.codes,
                        "exact": fault.exact, "architecture": architecture, "seed": seed,
                        "found": found,
                    }  # fmt: skip
            for name, setup in HEALTHY.items():
                if only is None or only in name:
                    yield {
                        "kind": "healthy", "case": name, "architecture": architecture,
                        "seed": seed, "found": findings(run(architecture, setup, seed)),
                    }  # fmt: skip


def loud(row):
    """Return the findings of a row that a person would be disturbed by."""
    return [x for x in row["found"] if x[1] != "info"]


def table(all_rows, out=sys.stdout):
    """Print recall, first cause, steps to detection; then the alarms on healthy runs."""
    groups = defaultdict(list)
    for r in all_rows:
        groups[r["kind"], r["case"]].append(r)
    print("| fault | kind | runs | recall | first | step | else |", file=out)
    print("|---|---|---|---|---|---|---|", file=out)
    totals = defaultdict(lambda: [0, 0, 0])
    for (kind, case), group in groups.items():
        if kind != "fault":
            continue
        hits = [[x for x in r["found"] if x[0] in r["codes"]] for r in group]
        first = [bool(loud(r)) and loud(r)[0][0] in r["codes"] for r in group]
        steps = sorted(h[0][2] or 0 for h in hits if h)
        others = sorted({x[0] for r in group for x in loud(r) if x[0] not in r["codes"]})
        name = "exact" if group[0]["exact"] else "statistical"
        totals[name][0] += len(group)
        totals[name][1] += sum(map(bool, hits))
        totals[name][2] += sum(first)
        print(f"| {case} | {name} | {len(group)} | {sum(map(bool, hits)) / len(group):.2f} | "
              f"{sum(first) / len(group):.2f} | {steps[len(steps) // 2] if steps else '-'} | "
              f"{', '.join(others)} |", file=out)  # fmt: skip
    for name, (n, hit, first) in totals.items():
        print(f"\n{name}: {n} runs, recall {hit / n:.3f}, right cause first {first / n:.3f}",
              file=out)  # fmt: skip
    healthy = [r for r in all_rows if r["kind"] == "healthy"]
    if healthy:
        errors = [r for r in healthy if any(x[1] == "error" for x in r["found"])]
        alarmed = [r for r in healthy if loud(r)]
        print(
            f"\nhealthy: {len(healthy)} runs, {len(errors)} with an error, {len(alarmed)} with "
            f"an error or a warning ({100 * len(alarmed) / len(healthy):.1f} %)",
            file=out,
        )
        for r in alarmed:
            print("  ", r["architecture"], r["case"], r["seed"], loud(r), file=out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--architectures", nargs="*", default=["mlp", "cnn", "transformer"])
    parser.add_argument("--only")
    parser.add_argument("--json")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    done = list(rows(seeds, given.architectures, given.only))
    if given.json:
        Path(given.json).write_text(json.dumps(done))
    table(done)


if __name__ == "__main__":
    main()
