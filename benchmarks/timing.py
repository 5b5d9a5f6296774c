"""How scripts time contenders against each other: in turn, in a random order, with pauses."""

import random
import statistics
import time

# Between calls: longer than threads of OpenMP and BLAS libraries go on spinning. With one thread
# nobody spins.
PAUSE, ALONE = 0.25, 0.02
# What the tests hold eigenvalues to: |error| <= TOLERANCE eps n lambda_max.
TOLERANCE = 20.0
EPS = 2.0**-52
THREADS_HELP = "threads of pyspectra; of numpy's BLAS as OMP_NUM_THREADS says"


def rest(threads):
    """Let the threads of the last call fall asleep."""
    time.sleep(PAUSE if threads > 1 else ALONE)


def alternate(contenders, rounds, *, threads, warmup=1, seed=0):
    """Medians of `rounds` calls of each of {name: function}: ({name: seconds}, {name: result}).

    Every round calls all of them once, so that a machine that changes its speed changes it for all.
    """
    order = random.Random(seed)
    seconds = {name: [] for name in contenders}
    results = {}
    for turn in range(warmup + rounds):
        names = list(contenders)
        order.shuffle(names)
        for name in names:
            rest(threads)
            begin = time.perf_counter()
            results[name] = contenders[name]()
            took = time.perf_counter() - begin
            if turn >= warmup:
                seconds[name].append(took)
    return {name: statistics.median(took) for name, took in seconds.items()}, results


def table(head, rows):
    """Print a table in Markdown."""
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def milliseconds(seconds):
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
