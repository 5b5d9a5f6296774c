"""Broken files from good ones: by bytes, and inside the containers that would show a mere change.

Every mutation is a function of the bytes of a file and a generator of random numbers.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

# Numbers at which readers go wrong.
EDGES = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
)
WORDS = (
    b"[]",
    b"{}",
    b"null",
    b"true",
    b"NaN",
    b"-1",
    b"1e400",
    b'"\\ud800"',
    b"\x00",
    b"../x",
    b"\xff\xfe",
)


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 8, 64, 4096)))
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 50)) + data[stop:]


def remove(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 8, 64)) :]


def overwrite_number(data: bytes, rng: random.Random) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    value = rng.choice(EDGES) % 2 ** (8 * width)
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def insert_word(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(WORDS) + data[at:]


def swap(data: bytes, rng: random.Random) -> bytes:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    a, b, c = cuts
    return data[:a] + data[b:c] + data[a:b] + data[c:]


BYTES: tuple[Mutation, ...] = (
    flip, flip, truncate, repeat, remove, overwrite_number, insert_word, swap
)  # fmt: skip


def by_bytes(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(BYTES)(data, rng)
    return data


# --- JSON ---------------------------------------------------------------------------------------


def _other_value(rng: random.Random) -> Any:
    return rng.choice(
        (None, True, -1, 0.5, 1e400, "", "x" * 5000, [], {}, [[]], {"a": {}}, "../../etc/passwd",
         "\ud800", *EDGES)
    )  # fmt: skip


def _change(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """Change one thing somewhere in a JSON value."""
    if depth < 6 and isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.2:
            return {**value, str(_other_value(rng)): value[key]}
        return {**value, key: _change(value[key], rng, depth + 1)}
    if depth < 6 and isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.1:
            return value[:i] + value[i + 1 :]
        if kind < 0.2:
            return value + [value[i]] * rng.choice((1, 100))
        return [*value[:i], _change(value[i], rng, depth + 1), *value[i + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-8, -1, 1, 8, 2**32))
    return _other_value(rng)


def by_json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        return by_bytes(data, rng)
    if rng.random() < 0.2:
        return by_bytes(data, rng)
    return json.dumps(_change(value, rng)).encode("utf-8", "surrogatepass")


def by_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one of several lines, each of which is JSON."""
    lines = data.split(b"\n")
    i = rng.randrange(len(lines))
    lines[i] = by_json(lines[i], rng)
    return b"\n".join(lines)


# --- pickles ------------------------------------------------------------------------------------

# What a reader of checkpoints answers itself, and what else programs for its machine consist of.
CALLED = (
    "_codecs encode",
    "builtins bytearray",
    "builtins frozenset",
    "builtins getattr",
    "builtins set",
    "collections Counter",
    "collections OrderedDict",
    "collections defaultdict",
    "copyreg _reconstructor",
    "numpy dtype",
    "os system",
    "torch FloatStorage",
    "torch Size",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_wrapper_subclass",
    "torch.serialization _get_layout",
)
STEPS = (
    *b"(01.2NR)]}abdelopstuQ",
    *(0x81, 0x85, 0x86, 0x87, 0x88, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94),
)


def _instructions(data: bytes) -> list[bytes]:
    """Split programs that follow one another, as far as they make sense, and what follows."""
    starts, position = [], 0
    try:
        while True:
            for _, _, place in pickletools.genops(data[position:]):
                starts.append(position + (place or 0))
            position = starts[-1] + 1
    except Exception:  # whatever an earlier mutation broke, or the end
        pass
    ends = [*starts[1:], len(data)]
    return [data[:0], *(data[a:b] for a, b in zip(starts, ends, strict=True))]


def _some_instruction(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return b"c" + rng.choice(CALLED).replace(" ", "\n").encode() + b"\n"
    if kind < 0.5:
        return rng.choice((b"h", b"q")) + bytes([rng.choice((0, 1, 2, 3, 5, 8, 13, 30))])
    if kind < 0.6:
        number = rng.choice(EDGES) * rng.choice((1, -1, 2**61 - 1))
        raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if kind < 0.65:
        raw = rng.choice((b"", b"a", b"model", b"state_dict", b"x.weight", b"latin1", b"a" * 5000))
        return b"X" + len(raw).to_bytes(4, "little") + raw
    return bytes([rng.choice(STEPS)])


def by_pickle(data: bytes, rng: random.Random) -> bytes:
    """Change the program of a pickle, or several, by instructions."""
    if rng.random() < 0.2:
        return by_bytes(data, rng)
    parts = _instructions(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        start = rng.randrange(len(parts) + 1)
        stop = min(len(parts), start + rng.choice((0, 1, 1, 2, 5, 20)))
        kind = rng.random()
        if kind < 0.5:
            times = rng.choice((1, 1, 1, 2, 3, 300, 20_000))
            new = [_some_instruction(rng) for _ in range(rng.choice((1, 2, 3, 6)))] * times
            parts[start:stop] = new
        elif kind < 0.8:
            elsewhere = rng.randrange(len(parts) + 1)
            times = rng.choice((1, 1, 2, 50, 2_000))
            parts[elsewhere:elsewhere] = parts[start:stop] * times
        else:
            del parts[start:stop]
    return b"".join(parts)


# --- containers ---------------------------------------------------------------------------------


def by_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header and make its length right again."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or length > len(data) - 8:
        return by_bytes(data, rng)
    header = by_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _by_name(name: str) -> Mutation:
    if name.endswith(".pkl"):
        return by_pickle
    return by_json if name.endswith(".json") else by_bytes


def by_zip(data: bytes, rng: random.Random) -> bytes:
    """Change a member and write an archive that is valid around it."""
    if rng.random() < 0.3:
        return by_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # whatever an earlier mutation broke
        return by_bytes(data, rng)
    i = rng.randrange(len(members))
    name, content = members[i]
    kind = rng.random()
    if kind < 0.1:
        del members[i]
    elif kind < 0.2:
        members.append((name, content))
    elif kind < 0.25:
        members[i] = (rng.choice(("", "/", "../x", "a\x00b", name * 40)), content)
    else:
        members[i] = (name, _by_name(name)(content, rng))
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice: on purpose
        for member, content in members:
            archive.writestr(zipfile.ZipInfo(member or "empty"), content)
    return out.getvalue()
