"""The table of element types, against numpy, torch and safetensors."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra import ops
from pyspectra._support.dtypes import BY_CODE, BY_NAME, BY_TORCH_STORAGE, DTYPES, FLOAT_DTYPES, find
from pyspectra.weights.skip import REASONS


def test_names_are_unique_and_every_family_has_its_reason_to_be_skipped() -> None:
    assert len(BY_NAME) == len(DTYPES)
    assert len({t.code for t in DTYPES if t.code}) == len(BY_CODE)
    assert {t.family for t in DTYPES} - {"float"} <= set(REASONS)
    assert find("BF16") is find("bfloat16") is BY_NAME["bfloat16"]
    assert find("object") is None


def test_numpy_holds_what_is_copied() -> None:
    for dtype in DTYPES:
        if dtype.is_copied:
            assert dtype.numpy.itemsize == dtype.item_bytes
            if dtype.name != "bfloat16":
                assert dtype.numpy.name == dtype.name
        if dtype.is_float and dtype.name != "bfloat16":
            assert np.finfo(dtype.numpy).eps == dtype.spacing


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    for dtype in DTYPES:
        known = getattr(torch, dtype.name, None)
        if isinstance(known, torch.dtype):
            assert known.itemsize == dtype.item_bytes
            assert known.is_complex == (dtype.family == "complex")
            floating = dtype.family in ("float", "low_precision")
            assert known.is_floating_point == floating
        if dtype.is_float:
            assert torch.finfo(known).eps == dtype.spacing
    for name, dtype in BY_TORCH_STORAGE.items():
        assert getattr(torch, name)._dtype == getattr(torch, dtype.name)


def test_the_kernels_number_the_floats_in_the_order_of_the_table() -> None:
    assert tuple(ops.DTYPE_CODES) == FLOAT_DTYPES == ("float16", "bfloat16", "float32", "float64")
