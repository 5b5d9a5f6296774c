"""`as_host`: what is taken without a copy, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pyspectra._arrays import HostArray, as_host, is_torch_module, is_torch_tensor


def host(x: object) -> HostArray:
    return as_host(x, function="eigvals", argument="W")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpy_is_shared_with_its_strides(dtype: str) -> None:
    base = np.arange(24, dtype=dtype).reshape(4, 6)
    view = base.T[::2, ::-1]
    array = host(view)
    assert array.dtype == dtype
    assert array.data.strides == view.strides
    assert np.shares_memory(array.data, base)
    assert array.shape == (3, 4)
    assert array.ndim == 2
    assert array.nbytes == view.nbytes
    np.testing.assert_array_equal(array.to_float64(), view.astype(np.float64))


def test_foreign_byte_order_and_unaligned_memory_are_copied() -> None:
    swapped = np.arange(5, dtype=">f4")
    assert host(swapped).data.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(host(swapped).to_float64(), np.arange(5.0))
    unaligned = np.zeros(41, np.uint8)[1:].view(np.float64)
    assert host(unaligned).data.flags.aligned


def test_numbers_in_lists_become_float64() -> None:
    assert host([[1, 2], [3, 4]]).dtype == "float64"
    assert host([1.5]).data.tolist() == [1.5]


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.arange(3), "dtype int64"),
        (np.ones(3, bool), "dtype bool"),
        ([True, False], "dtype bool"),
        (np.ones(3, complex), "dtype complex128"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "a masked array"),
        (None, "an object of type NoneType"),
        ("text", "an object of type str"),
        (object(), "an object of type object"),
    ],
)
def test_refusals_name_what_arrived(x: object, got: str) -> None:
    message = f"eigvals: 'W' must be a floating-point array, got {got}. Hint: "
    with pytest.raises(TypeError) as caught:
        host(x)
    assert str(caught.value).startswith(message)


def test_ragged_list_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="eigvals: 'W' must be a rectangular array"):
        host([[1.0], [1.0, 2.0]])


def test_bfloat16_bits_convert_exactly() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001, 0x7FC0], np.uint16)
    values = HostArray(bits, "bfloat16").to_float64()
    np.testing.assert_array_equal(values, [1.0, -2.0, np.inf, 2.0**-133, np.nan])


def test_host_array_refuses_a_mismatch() -> None:
    with pytest.raises(TypeError, match="must hold uint16 for dtype bfloat16"):
        HostArray(np.zeros(2, np.float32), "bfloat16")
    with pytest.raises(TypeError, match="'dtype' must be one of"):
        HostArray(np.zeros(2, np.int8), "int8")


def test_view_shares_memory() -> None:
    array = host(np.arange(8.0).reshape(2, 2, 2))
    part = array.view((slice(None), slice(None), 1))
    assert np.shares_memory(part.data, array.data)
    assert part.data.tolist() == [[1.0, 3.0], [5.0, 7.0]]


def test_asking_about_tensors_does_not_import_torch() -> None:
    code = (
        "import sys, pyspectra._arrays as a, pyspectra.weights\n"
        "assert not a.is_torch_tensor(1) and not a.is_torch_module(1)\n"
        "a.as_host([1.0], function='f', argument='x')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_tensors_are_shared() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(12.0).reshape(3, 4).requires_grad_()
    assert is_torch_tensor(x)
    assert is_torch_module(torch.nn.Linear(1, 1))
    array = host(x.T[::2])
    assert array.data.ctypes.data == x.data_ptr()
    np.testing.assert_array_equal(array.to_float64(), x.detach().T[::2].double().numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_half_types_are_exact(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype)).T
    array = host(x)
    assert array.dtype == dtype
    assert array.data.ctypes.data == x.data_ptr()
    np.testing.assert_array_equal(array.to_float64(), x.double().numpy())


def test_torch_negative_view_is_resolved() -> None:
    torch = pytest.importorskip("torch")
    x = torch.complex(torch.ones(2), torch.tensor([3.0, 4.0])).conj().imag
    assert host(x).data.tolist() == [-3.0, -4.0]


def test_torch_refusals() -> None:
    torch = pytest.importorskip("torch")
    cases = {
        "dtype int64": torch.arange(3),
        "dtype bool": torch.ones(3, dtype=torch.bool),
        "dtype complex64": torch.ones(3, dtype=torch.complex64),
        "dtype float8_e4m3fn": torch.ones(3).to(torch.float8_e4m3fn),
        "a sparse tensor (layout sparse_coo)": torch.eye(3).to_sparse(),
        "a tensor without data (meta device)": torch.ones(3, device="meta"),
        "an uninitialised lazy parameter": torch.nn.LazyLinear(2).weight,
    }
    for got, x in cases.items():
        with pytest.raises(TypeError) as caught:
            host(x)
        assert f"must be a floating-point array, got {got}. Hint: " in str(caught.value)
