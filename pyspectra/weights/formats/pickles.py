"""A reader of pickles that imports and calls nothing.

A pickle is a program for a small stack machine. This one knows the instructions that plain
containers, numbers and text need; what the program wants imported becomes a `Global`, a name; what
it wants called or built goes to a function of the caller, which knows the few names that mean
something and answers the rest with `Foreign`, an object without content.

Why not `pickle.Unpickler` with a `find_class` of its own: its memo is an array as long as the
greatest index that a file names, and it hashes whatever a file makes a key, so that a few bytes
take all memory, and three million nested tuples overflow the stack of the process. Here every
container is counted, and keys are plain.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any, Final

from pyspectra.weights.formats.pickle_budget import Budget
from pyspectra.weights.formats.pickle_values import (
    Foreign,
    Global,
    PickleError,
    Record,
    TruncatedError,
)

__all__ = ["Call", "read_pickle"]

MAX_INTEGER_BYTES: Final = 255


Call = Callable[[Global, tuple[Any, ...], bool, Budget], Any]
"""Answers a call of a name with arguments; the flag says that it is a class for certain.

What it copies it counts in the budget.
"""


def read_pickle(
    raw: bytes, call: Call, persistent: Callable[[Any], Any], start: int = 0
) -> tuple[Any, int]:
    """Run the program of a pickle.

    Parameters
    ----------
    raw : bytes
        Bytes that hold the pickle.
    call : callable
        Answers what the pickle calls or builds.
    persistent : callable
        Answers what the pickle refers to outside of itself.
    start : int
        Where the pickle begins.

    Returns
    -------
    value : object
        Plain containers, numbers, text, `Global`, `Foreign`, and what the two functions returned.
    end : int
        Where the pickle ends.

    Raises
    ------
    PickleError
        If the program is broken, costs too much, or uses an instruction that no checkpoint needs.
    """
    machine = _Machine(raw, start, call, persistent)
    return machine.run(), machine.position


_MARK: Final = object()


class _Machine:
    """The stack, the memo and the instructions."""

    def __init__(
        self, raw: bytes, start: int, call: Call, persistent: Callable[[Any], Any]
    ) -> None:
        self.raw = raw
        self.position = start
        self.call = call
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = Budget(len(raw) - start)
        self.version = 0

    def run(self) -> Any:
        while True:
            self.budget.step()
            code = self.take(1)[0]
            if code == _STOP:
                return self.pop()
            step = _INSTRUCTIONS.get(code)
            if step is None:
                raise PickleError(f"instruction {code:#04x} at byte {self.position - 1}")
            step(self)

    # --- reading ------------------------------------------------------------

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.raw):
            raise TruncatedError("the pickle is truncated")
        found = self.raw[self.position : end]
        self.position = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        end = self.raw.find(b"\n", self.position)
        if end < 0:
            raise TruncatedError("the pickle is truncated")
        found = self.raw[self.position : end]
        self.position = end + 1
        return _text(found)

    def protocol(self) -> None:
        self.version = self.number(1)
        if self.version > 5:
            raise PickleError("a pickle of a protocol above 5")

    def frame(self) -> None:
        self.take(8)  # the length of what follows, for readers that read ahead

    # --- the stack ----------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("an instruction lacks its operand")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("an instruction lacks its operand")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise PickleError("an instruction lacks its mark")

    def drop(self) -> None:
        if not self.stack:
            raise PickleError("an instruction lacks its operand")
        self.stack.pop()

    def drop_marked(self) -> None:
        self.since_mark()

    def made(self, container: Any) -> None:
        self.budget.container()
        self.stack.append(container)

    # --- containers ---------------------------------------------------------

    def tuple_of(self, count: int) -> None:
        items = tuple(reversed([self.pop() for _ in range(count)]))
        self.made(items)

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise PickleError(f"elements are added to an object of type {type(target).__name__}")

    def set_items(self, flat: list[Any]) -> None:
        target = self.top()
        if isinstance(target, dict):
            if len(flat) % 2:
                raise PickleError("a key lacks its value")
            for key, value in zip(flat[::2], flat[1::2], strict=True):
                target[self.budget.key(key)] = value
        elif not isinstance(target, Foreign):
            raise PickleError(f"items are set in an object of type {type(target).__name__}")

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, set):
            target.update(map(self.budget.key, items))
        elif not isinstance(target, Foreign):
            raise PickleError(f"elements are added to an object of type {type(target).__name__}")

    def make_dict(self) -> None:
        items = self.since_mark()
        self.made({})
        self.set_items(items)

    def make_frozenset(self) -> None:
        self.made(frozenset(map(self.budget.key, self.since_mark())))

    # --- the memo -----------------------------------------------------------

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise PickleError(f"nothing has been remembered as {index}")
        self.push(self.memo[index])

    # --- what would be imported, called and built ---------------------------

    def make_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a name that is no text")
        if self.version < 3:  # written with the names of Python 2, whoever wrote it
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        self.made(Global(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.make_global(module, name)

    def answer(self, function: Any, arguments: Any, is_class: bool) -> None:
        if not isinstance(arguments, tuple):
            raise PickleError("arguments that are no tuple")
        if isinstance(function, Foreign):
            self.made(Foreign(function.name))
        elif isinstance(function, Global):
            self.made(self.call(function, arguments, is_class, self.budget))
        else:
            raise PickleError(f"an object of type {type(function).__name__} is called")

    def reduce(self) -> None:
        arguments = self.pop()
        self.answer(self.pop(), arguments, False)

    def new_object(self) -> None:
        arguments = self.pop()
        self.answer(self.pop(), arguments, True)

    def new_object_with_keywords(self) -> None:
        self.pop()
        self.new_object()

    def marked_object(self) -> None:
        items = self.since_mark()
        if not items:
            raise PickleError("an object without a class")
        self.answer(items[0], tuple(items[1:]), True)

    def named_object(self) -> None:
        self.make_global(self.line(), self.line())
        named = self.pop()
        self.answer(named, tuple(self.since_mark()), True)

    def build(self) -> None:
        """Drop the state of an object, unless it is a record that keeps it.

        torch keeps the versions of modules in the state of a dict.
        """
        state = self.pop()
        target = self.top()
        if isinstance(target, Record):
            target.state[:] = [state]
        ordered = type(target) is not dict and isinstance(target, dict)
        if ordered and isinstance(state, dict) and "_metadata" in state:
            vars(target)["_metadata"] = state["_metadata"]


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:  # Python writes paths that are no text in this way; nobody could print them
        return raw.decode("utf-8", "surrogatepass").encode("utf-8", "replace").decode("utf-8")
    except UnicodeDecodeError as error:
        raise PickleError("text that is no UTF-8") from error


def _integer(machine: _Machine, size: int) -> int:
    if size > MAX_INTEGER_BYTES:
        raise PickleError(f"an integer of {size} bytes")
    return int.from_bytes(machine.take(size), "little", signed=True)


_STOP: Final = ord(".")

_Step = Callable[[_Machine], None]

_INSTRUCTIONS: Final[dict[int, _Step]] = {
    # Framing, marks, what is dropped or doubled.
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("("): lambda m: m.push(_MARK),
    ord("0"): _Machine.drop,
    ord("1"): _Machine.drop_marked,
    ord("2"): lambda m: m.push(m.top()),
    # Numbers and text.
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(_integer(m, 4)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    0x8A: lambda m: m.push(_integer(m, m.number(1))),
    0x8B: lambda m: m.push(_integer(m, m.number(4))),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("T"): lambda m: m.push(_text(m.take(m.number(4)))),
    ord("U"): lambda m: m.push(_text(m.take(m.number(1)))),
    ord("X"): lambda m: m.push(_text(m.take(m.number(4)))),
    0x8C: lambda m: m.push(_text(m.take(m.number(1)))),
    0x8D: lambda m: m.push(_text(m.take(m.number(8)))),
    ord("B"): lambda m: m.push(m.take(m.number(4))),
    ord("C"): lambda m: m.push(m.take(m.number(1))),
    0x8E: lambda m: m.push(m.take(m.number(8))),
    0x96: lambda m: m.made(bytearray(m.take(m.number(8)))),
    # Containers.
    ord("]"): lambda m: m.made([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    ord("l"): lambda m: m.made(m.since_mark()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.made(tuple(m.since_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m.made({}),
    ord("d"): _Machine.make_dict,
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.since_mark()),
    0x8F: lambda m: m.made(set()),
    0x90: lambda m: m.add_items(m.since_mark()),
    0x91: _Machine.make_frozenset,
    # The memo.
    ord("q"): lambda m: m.put(m.number(1)),
    ord("r"): lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.number(1)),
    ord("j"): lambda m: m.get(m.number(4)),
    # What would be imported, called and built.
    ord("c"): lambda m: m.make_global(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    0x81: _Machine.new_object,
    0x92: _Machine.new_object_with_keywords,
    ord("o"): _Machine.marked_object,
    ord("i"): _Machine.named_object,
    ord("Q"): lambda m: m.made(m.persistent(m.pop())),
}
