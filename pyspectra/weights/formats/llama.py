"""Meta's checkpoints of Llama: ``consolidated.00.pth`` and one more for each rank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats.model_parallel import Rules, check_no_key, joined
from pyspectra.weights.formats.registry import Folder, read_file
from pyspectra.weights.order import natural_key

__all__ = ["FOLDER", "read"]

_RANK: Final = re.compile(r"consolidated\.(\d{2})\.pth")
_EMBEDDING: Final = "tok_embeddings.weight"
_NORM: Final = "norm.weight"


def _rules(ranks: Sequence[Contents]) -> Rules:
    """Return the rules: Llama 1 and 2 cut the embedding along its width, later ones by tokens."""
    shapes = {entry.key: entry.shape for entry in ranks[0].entries}
    width, norm = shapes.get(_EMBEDDING), shapes.get(_NORM)
    by_tokens = width is not None and norm is not None and width[-1:] == norm[:1]
    outputs, inputs = r"wq|wk|wv|w1|w3|output", "wo|w2"
    if by_tokens:
        outputs += "|tok_embeddings"
    else:
        inputs += "|tok_embeddings"
    return Rules(
        outputs=re.compile(rf"(?:^|\.)(?:{outputs})\.weight$"),
        inputs=re.compile(rf"(?:^|\.)(?:{inputs})\.weight$"),
        whole=re.compile(r"(?:^|\.)gate\.weight$"),
    )


def _ranks(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if _RANK.fullmatch(path.name)]
    return sorted(found, key=lambda path: natural_key(path.name))


def read(folder: Path, *, key: str | None = None) -> Contents:
    """List the tensors of a checkpoint in pieces.

    Parameters
    ----------
    folder : Path
        Holds ``consolidated.00.pth`` and those of the other ranks.
    key : str, optional
        Must be None.

    Raises
    ------
    FormatError
        If a rank is missing, or the files are no pieces of one model.
    """
    check_no_key(key)
    paths = _ranks(folder)
    expected = [f"consolidated.{i:02}.pth" for i in range(len(paths))]
    if [path.name for path in paths] != expected:
        missing = next(name for name in expected if name not in {path.name for path in paths})
        raise FormatError(f"{folder}: the file of a rank is missing: {missing}.")
    ranks = [read_file(path) for path in paths]
    contents = joined(folder, ranks, _rules(ranks))
    beside = tuple(p.absolute() for p in folder.glob("*.json"))
    return replace(contents, files=(*contents.files, *beside))


def _recognises(folder: Path) -> bool:
    # Beside the files of a Hugging Face folder they are a copy of the model.
    standard = any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*"))
    return not standard and len(_ranks(folder)) > 1


FOLDER = Folder("llama", _recognises, read)
