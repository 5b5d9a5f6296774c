"""Signatures and documentation of the optimizers, completed from the records of their options."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any, get_type_hints

from pyspectra.optim._fused.options import OPTIONS, SHARED, SharedOptions

# Where the section of parameters ends: before the title of the next one.
_NEXT_SECTION = re.compile(r"\n\n(?=[A-Z][a-z ]+\n---)")


def complete(cls: type) -> None:
    """Name the options of a constructor that takes ``**options``, and document all that it has."""
    init: Any = cls.__dict__.get("__init__")
    if init is None or "options" not in inspect.signature(init).parameters:
        return
    init.__signature__ = _signature(init)
    if cls.__doc__:
        cls.__doc__ = _documentation(cls.__doc__, init.__signature__)


def _signature(init: Any) -> inspect.Signature:
    signature = inspect.signature(init)
    hints = get_type_hints(SharedOptions)
    own = [p for name, p in signature.parameters.items() if name != "options"]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[name]
        )
        for name, option in SHARED.items()
    ]
    return signature.replace(parameters=[*own, *shared])


def _documentation(doc: str, signature: inspect.Signature) -> str:
    doc = inspect.cleandoc(doc)
    entries = [
        f"{name} : {option.kind}\n{textwrap.fill(option.help, 92)}".replace("\n", "\n    ")
        for name in signature.parameters
        if (option := OPTIONS.get(name)) is not None
    ]
    begin = doc.index("Parameters\n---")
    found = _NEXT_SECTION.search(doc, begin + len("Parameters\n"))
    end = len(doc) if found is None else found.start()
    return "\n".join([doc[:end], *entries]) + doc[end:]
