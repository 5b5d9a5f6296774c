"""Run programs, and print what was found and the scores: `python -m faults.unseen` in `tests/`."""

import argparse

from .run import programs


def line(program, findings):
    """Return a row of the table."""
    said = ", ".join(f"{x.code} ({x.step})" for x in findings if x.severity != "info")
    named = "" if not program.causes else "yes" if program.is_named(findings) else "no"
    return f"| {program.name} | {program.part} | {named} | {said} |"


def score(part, results):
    """Return the scores of one part of the programs."""
    own = [(p, found) for p, found in results if p.part == part]
    healthy = [[x.severity for x in found] for p, found in own if not p.causes]
    faulty = [(p, found) for p, found in own if p.causes]
    errors = sum("error" in severities for severities in healthy)
    alarms = sum(bool({"error", "warning"} & set(severities)) for severities in healthy)
    named = sum(p.is_named(found) for p, found in faulty)
    first = sum(p.is_first(found) for p, found in faulty)
    counts = f"{len(healthy)} | {errors} | {alarms} | {len(faulty)} | {named} | {first}"
    return f"| {part} | {counts} |"


def main():
    """Run the programs that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--three", action="store_true", help="three lines, not the whole guide")
    parser.add_argument("--names", nargs="*")
    asked = parser.parse_args()
    results = []
    for program in programs():
        if asked.names is None or program.name in asked.names:
            results.append((program, program.run(whole=not asked.three)))
            print(line(*results[-1]), flush=True)
    print("| part | healthy | with an error | with any alarm | faulty | named | first |")
    print("|---|---|---|---|---|---|---|")
    for part in ("seen", "held out", "later"):
        print(score(part, results))


if __name__ == "__main__":
    main()
