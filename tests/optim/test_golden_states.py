"""Optimizer states that earlier versions have saved load, and go on with the same bits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.optimizer_states import FOLDER, KINDS, continued, options

FILES = sorted(path for path in FOLDER.glob("*.pt") if path.name.rsplit("-", 1)[0] in KINDS)


def test_there_is_a_state_of_every_kind() -> None:
    assert {path.name.rsplit("-", 1)[0] for path in FILES} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("from_state", [True, False], ids=["options-of-the-state", "given-again"])
def test_a_saved_run_goes_on(path: Path, from_state: bool) -> None:
    record: dict[str, Any] = torch.load(path, weights_only=True)
    cls, settings = options(path.name.rsplit("-", 1)[0])
    params = {name: torch.nn.Parameter(x.clone()) for name, x in record["weights"].items()}
    # A state brings its options and masks, but for what belongs to the optimizer as a whole.
    whole = {k: v for k, v in settings.items() if k in ("max_grad_norm",)}
    optimizer = cls(params.items(), **(whole if from_state else settings))
    masks = from_state and settings.get("mode") is not None
    with pytest.warns(UserWarning, match="changes 'mode'") if masks else contextlib.nullcontext():
        optimizer.load_state_dict(record["state"])
    after = continued(optimizer, params, record["grads"])
    for what, expected in record["after"].items():
        for name, x in expected.items():
            assert torch.equal(after[what][name], x), (what, name)
            assert after[what][name].dtype is x.dtype
