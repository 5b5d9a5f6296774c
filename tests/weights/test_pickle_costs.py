"""Pickles of a few megabytes that cost gigabytes or hours where nothing counts what they do.

Each says something once, remembers it, and has it copied, hashed or compared many times. They run
in a process with a limit on memory and on processor time, far above what refusing them takes and
far below what they ask for.
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyspectra.weights.formats import pickle_budget, torch_checkpoint
from pyspectra.weights.formats.pickle_budget import Budget
from pyspectra.weights.formats.pickle_values import PickleError

MEMORY_BYTES = 3 << 29
CPU_SECONDS = 30

PRIME = (1 << 61) - 1  # Python hashes an integer to itself modulo this


def name(path: str) -> bytes:
    return b"c" + path.replace(" ", "\n").encode() + b"\n"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(x: int) -> bytes:
    raw = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def put(i: int) -> bytes:
    """Remember the top of the stack, and drop it."""
    return b"q" + bytes([i]) + b"0"


def get(i: int) -> bytes:
    return b"h" + bytes([i])


def listed(items: bytes) -> bytes:
    return b"(" + items + b"l"


def again(function: str, argument: bytes, times: int, more: bytes = b"") -> bytes:
    """Call a function with the same argument again and again, and keep what it returns."""
    remembered = name(function) + put(0) + argument + put(1) + more + put(2)
    call = get(0) + b"(" + get(1) + (get(2) if more != b"N" else b"") + b"tR"
    return remembered + listed(call * times)


def numbers(count: int, after: bytes = b"") -> bytes:
    return b"".join(b"J" + struct.pack("<i", i) + after for i in range(count))


def rotated(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) % (1 << 64)


def colliding_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs that all have one hash: Python's function for tuples, solved for the second."""
    first, second, start = 11400714785074694791, 14029467366897019727, 2870177450012600261
    modulus = 1 << 64
    wanted = rotated(12345678901234567 * pow(first, -1, modulus) % modulus, 33)
    pairs: list[tuple[int, int]] = []
    for a in range(1, 64 * count):
        after = rotated((start + a * second) % modulus, 31) * first % modulus
        b = (wanted - after) * pow(second, -1, modulus) % modulus
        b -= modulus * (b >= modulus // 2)
        if abs(b) < PRIME and b != -1:
            pairs.append((a, b))
        if len(pairs) == count:
            break
    assert len({hash(pair) for pair in pairs}) == 1
    return pairs


def a_layout_of_everything() -> bytes:
    """A list of 2**100 elements, as text."""
    doubling = b"](" + b"N" + b"eq\0"
    for i in range(100):
        doubling += b"0](" + get(i) * 2 + b"eq" + bytes([i + 1])
    return again("torch.serialization _get_layout", doubling, 1, b"N")


def a_long_name() -> bytes:
    """An object of a class with a name of a megabyte, again and again."""
    return (text("a" * (1 << 20)) + put(0) + get(0) * 2 + b"\x93" + put(1)
            + listed((get(1) + b")\x810") * 200_000))  # fmt: skip


def long_keys() -> bytes:
    """Two keys of equal text in different places, which are compared at each use."""
    letters = text("a" * 65_000)
    tuples = (b"(" + get(i) * 64 + b"t" + put(i + 2) for i in (0, 1))
    return (letters + put(0) + letters + put(1) + b"".join(tuples)
            + b"}(" + (get(2) + b"N" + get(3) + b"N") * 400_000 + b"u")  # fmt: skip


def an_update_of_many() -> bytes:
    """The state of an object, of which nothing is kept, looked through again and again."""
    return (b"(" + numbers(500_000, b"N") + b"d" + put(1) + name("collections OrderedDict") + b")R"
            + (get(1) + b"b") * 10_000)  # fmt: skip


LATIN = text("latin1")
BYTES = b"B" + struct.pack("<I", 4 << 20) + b"a" * (4 << 20)
MANY = [PRIME * (i + 1) for i in range(100_000)]

PROGRAMS: dict[str, Callable[[], bytes]] = {
    "encode": lambda: again("_codecs encode", text("a" * (4 << 20)), 1200, LATIN),
    "bytearray": lambda: again("builtins bytearray", BYTES, 1200, b"N"),
    "OrderedDict": lambda: again(
        "collections OrderedDict", listed(numbers(100_000, b"N\x86")), 3000, b"N"
    ),
    "OrderedDict of one key": lambda: again(
        "collections OrderedDict", b"NN\x86" + put(3) + listed(get(3) * 1_000_000), 3000, b"N"
    ),
    "set": lambda: again("builtins set", listed(numbers(300_000)), 3000, b"N"),
    "set of one element": lambda: again("builtins set", listed(b"N" * 2_000_000), 3000, b"N"),
    "set of letters": lambda: again("builtins set", text("a" * (1 << 20)), 3000, b"N"),
    "frozenset": lambda: again("builtins frozenset", listed(numbers(300_000)), 3000, b"N"),
    "Counter": lambda: again(
        "collections Counter", b"(" + numbers(300_000, b"N") + b"d", 3000, b"N"
    ),
    "Size": lambda: again("torch Size", listed(b"K\1" * 1_000_000), 3000, b"N"),
    "integer keys": lambda: b"}(" + b"".join(integer(x) + b"N" for x in MANY) + b"u",
    "integers in a set": lambda: b"\x8f(" + b"".join(map(integer, MANY)) + b"\x90",
    "integers in a frozenset": lambda: b"(" + b"".join(map(integer, MANY)) + b"\x91",
    "pairs as keys": lambda: (
        b"}(" + b"".join(integer(a) + integer(b) + b"\x86N" for a, b in colliding_pairs(60_000))
        + b"u"
    ),
    "long keys": long_keys,
    "layout": a_layout_of_everything,
    "name": a_long_name,
    "name inside a name": lambda: again(
        "builtins getattr", name("x y"), 400_000, text("a" * 60_000)
    ),
    "state": an_update_of_many,
}  # fmt: skip

CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
from pyspectra.weights import open_weights
from pyspectra.errors import FormatError
try:
    assert len(open_weights(sys.argv[1])) == 0
except FormatError:
    pass
print("alive")
"""


@pytest.mark.parametrize("case", PROGRAMS)
def test_what_a_pickle_costs_is_bounded(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("model/data.pkl", b"\x80\x02" + PROGRAMS[case]() + b".")
    assert path.stat().st_size < 12 << 20
    done = subprocess.run(
        [sys.executable, "-c", CODE, path, str(MEMORY_BYTES), str(CPU_SECONDS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


# --- what is counted ----------------------------------------------------------------------------


def test_copies_are_counted_before_they_are_made() -> None:
    budget = Budget(1000)
    room = 1000 + pickle_budget.FREE_COPIES
    budget.copied_bytes(room - 10)
    budget.copied_items(10)
    with pytest.raises(PickleError, match="copy more than it holds"):
        budget.copied_items(1)
    with pytest.raises(PickleError, match="more than 16777216 instructions"):
        Budget(1 << 30).copied_items(pickle_budget.MAX_STEPS + 1)


def test_integers_that_share_a_hash_are_few() -> None:
    budget = Budget(0)
    fits = [x for x in (PRIME * i for i in range(-20, 21)) if abs(x) < 1 << 64]
    assert [budget.key(x) for x in fits] == fits
    assert len(fits) == 17
    for x in (1 << 64, -(1 << 64), (1 << 64, "a"), ("a", -(1 << 64))):
        with pytest.raises(PickleError, match="more than 64 bits"):
            budget.key(x)


def test_keys_of_text_are_cheap_and_keys_of_numbers_are_not() -> None:
    merges = Budget(1 << 22)
    for i in range(100_000):  # the merges of a tokenizer
        merges.key((f"left{i}", f"right{i}"))
        merges.key((f"left{i}", i))
    pairs = Budget(1 << 22)
    for i in range(10_000):
        pairs.key((i, i))
    with pytest.raises(PickleError, match="instructions"):
        list(map(pairs.key, zip(range(20_000), range(20_000), strict=True)))


def test_long_keys_are_charged_for_their_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_budget, "MAX_STEPS", 1000)
    budget = Budget(1 << 20)
    for _ in range(10):
        budget.key("a" * 25_600)
    with pytest.raises(PickleError, match="more than 1000 instructions"):
        budget.key("a" * 256)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_writes_is_within_its_means(protocol: int, tmp_path: Path) -> None:
    """Large values of every kind that a call copies, each written once."""
    torch = pytest.importorskip("torch")
    rows = [(f"key{i}", i) for i in range(20_000)]
    values: dict[str, Any] = {
        "bytes": [bytes(range(256)) * 10_000],
        "bytearray": bytearray(range(256)) * 10_000,
        "set": set(range(150_000)),
        "frozenset": frozenset(range(150_000)),
        "counter": Counter(dict(rows)),
        "ordered": OrderedDict(rows),
        "vocabulary": {i: f"token{i}" for i in range(40_000)},
        "steps": {i * 1000: 0.5 for i in range(40_000)},
        "merges": {(f"a{i}", f"b{i}"): i for i in range(40_000)},
        "heads": {(i, j): None for i in range(48) for j in range(64)},
    }
    path = tmp_path / "model.pt"
    torch.save(values, path, pickle_protocol=protocol)
    assert torch_checkpoint.stored(path) == values
    assert len(pickle.dumps(values, protocol)) > pickle_budget.FREE_COPIES
