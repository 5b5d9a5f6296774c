"""`analyze(device=...)`: the device's engine against the CPU's, layer by layer."""

from __future__ import annotations

import functools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from devices import ONE_ORDER

import pyspectra as ps
from pyspectra import Status, ops
from pyspectra._arrays import HostArray
from pyspectra._cuda import devices, eigenvalues
from pyspectra.analysis import engine as engines
from pyspectra.spectra import sign_test
from pyspectra.spectra.esd import needs_svd
from pyspectra.weights import Layer, open_weights

ALPHA_RTOL = 1e-9


def model() -> dict[str, Any]:
    """Every kind of layer, in every type, with those that fail."""
    rng = np.random.default_rng(3)

    def heavy(*shape: int) -> Any:
        return torch.tensor(rng.standard_t(2.5, shape))

    broken = heavy(10, 10)
    broken[3, 4] = torch.nan
    low_rank = heavy(15, 3) @ heavy(3, 12)
    return {
        "embed.weight": heavy(30, 12).float(),
        "bf16.weight": heavy(20, 12).bfloat16(),
        "half.weight": heavy(12, 17).half(),
        "conv.weight": heavy(13, 12, 3, 2).float(),
        "broken.weight": broken,
        "transposed.weight": heavy(12, 20).float().T,
        "low_rank.weight": low_rank,  # beyond a Gram matrix: goes to the SVD
        "zero.weight": torch.zeros(10, 10),
        "norm.weight": torch.ones(16),
        "square.weight": heavy(12, 12),
        "lstm.weight_ih_l0": heavy(32, 9).float(),
    }


def assert_same(of_host: ps.Report, of_device: ps.Report) -> None:
    assert [r.name for r in of_host.layers] == [r.name for r in of_device.layers]
    assert [(s.name, s.reason) for s in of_host.skipped] == [
        (s.name, s.reason) for s in of_device.skipped
    ]
    for a, b in zip(of_host.layers, of_device.layers, strict=True):
        assert (a.esd.status, a.esd.method, a.fit.status) == (
            b.esd.status,
            b.esd.method,
            b.fit.status,
        )
        norm = float(np.max(a.esd.evals)) if a.esd.status is Status.OK else 0.0
        np.testing.assert_allclose(a.esd.evals, b.esd.evals, rtol=1e-9, atol=1e-13 * norm)
        assert b.alpha == pytest.approx(a.alpha, rel=ALPHA_RTOL, nan_ok=True)
        assert b.fit.xmin == pytest.approx(a.fit.xmin, rel=ALPHA_RTOL, nan_ok=True)
        assert a.warning == b.warning
        if a.esd.method == "svd" or not needs_svd(a.esd.evals, a.esd.status):  # else rank is chance
            assert b.metrics == pytest.approx(a.metrics, rel=1e-6, abs=1e-12, nan_ok=True)
    assert of_device.verdict.label == of_host.verdict.label
    mean = of_host.verdict.mean_alpha
    assert of_device.verdict.mean_alpha == pytest.approx(mean, rel=ALPHA_RTOL, nan_ok=True)


@ONE_ORDER
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": False},
        {"randomize": True, "mp_fit": True, "seed": 5},
        {"vectors": True, "detx": True},
        {"estimator": "farms(9, 2)"},
        {"method": "gram"},
        {"method": "svd"},
        {"method": "svd", "randomize": True, "layers": "square"},
        {"layers": "conv"},
        {"bootstrap": 20, "fix_fingers": "clip_xmax"},
    ],
    ids=str,
)
def test_the_same_report_as_on_the_cpu(device: str, options: Any) -> None:
    assert_same(ps.analyze(model(), **options), ps.analyze(model(), device="cuda", **options))


@ONE_ORDER
def test_of_a_file_and_of_what_changed(device: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {k: v.contiguous() for k, v in model().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    base = {k: 0.9 * v for k, v in tensors.items()}
    path = str(tmp_path / "a.safetensors")
    assert_same(ps.analyze(path), ps.analyze(path, device="cuda"))
    assert_same(ps.analyze(path, base_model=base), ps.analyze(path, base_model=base, device="cuda"))


@ONE_ORDER
@pytest.mark.parametrize(("room", "most"), [(0, 6), (1, 6), (8, 8), (100, 12)])
def test_how_many_are_solved_at_once_does_not_matter(
    device: str, room: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = int(room * 8 * 12 * 12 / engines.PENDING_SHARE)
    monkeypatch.setattr(devices, "free_bytes", lambda _: free)
    solved = []
    real = eigenvalues.eigvals_of
    monkeypatch.setattr(eigenvalues, "eigvals_of", lambda g: solved.append(len(g)) or real(g))
    assert_same(ps.analyze(model()), ps.analyze(model(), device="cuda"))
    # The slices of a layer always go together, with others of their order as the budget allows.
    assert max(solved) == most


@ONE_ORDER
def test_large_matrices_go_through_two_stages(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenvalues, "ONE_BLOCK_ORDER", 8)
    state = {f"{i}.weight": torch.randn(40, 36, generator=torch.manual_seed(i)) for i in range(3)}
    assert_same(ps.analyze(state), ps.analyze(state, device="cuda"))


@ONE_ORDER
@pytest.mark.parametrize("room", [0, 3])
def test_batches_shrink_to_what_has_room_and_the_rest_is_the_cpus(
    device: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its draws are the CPU's, and not what is counted here.
    monkeypatch.setattr(sign_test, "signs", lambda *_: sign_test.SignTest(1.0, 1.0))
    of_host = ps.analyze(model())
    workspaces: list[Any] = []
    on_cpu, on_device = [], []

    def crowded(A: torch.Tensor) -> Any:
        assert [ref() for ref in workspaces] == [None] * len(workspaces)
        if len(A) <= room:
            on_device.append(len(A))
            return of_device(A)
        workspace = A.clone()
        workspaces.append(weakref.ref(workspace))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def eigvals(grams: Any) -> Any:
        assert [ref() for ref in workspaces] == [None] * len(workspaces)
        on_cpu.append(len(grams))
        return real(grams)

    real, of_device = ops.eigvals, eigenvalues.eigvals
    monkeypatch.setattr(eigenvalues, "eigvals", crowded)
    monkeypatch.setattr(ops, "eigvals", eigvals)
    assert_same(of_host, ps.analyze(model(), device="cuda"))
    if room:
        assert on_cpu == []
        assert max(on_device) == room
    else:
        assert on_device == []
        assert set(on_cpu) == {1}
    assert workspaces != []


@ONE_ORDER
def test_singular_values_that_have_no_room_are_the_cpus(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(both: torch.Tensor) -> Any:
        tried.append(len(both))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    of_host = ps.analyze(model(), layers="conv", method="svd")
    monkeypatch.setattr(eigenvalues, "eigvals", full)
    assert_same(of_host, ps.analyze(model(), layers="conv", method="svd", device="cuda"))
    assert tried[0] > 1
    assert tried.count(1) == 6


@ONE_ORDER
def test_a_tensor_that_has_no_room_is_reported(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = eigenvalues._gram

    def gram(W: Any) -> Any:
        if tuple(W.shape) == (30, 12):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(W)

    monkeypatch.setattr(eigenvalues, "_gram", gram)
    report = ps.analyze(model(), device="cuda")
    (lost,) = [s for s in report.skipped if s.failed]
    assert lost.name == "embed"
    assert "not enough memory on" in lost.reason
    assert len(report.layers) == len(ps.analyze(model()).layers) - 1


@ONE_ORDER
def test_layers_that_cannot_be_read_leave_the_others_be(device: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{f"{i}.weight": np.eye(9) + i for i in range(6)})
    with open_weights(tmp_path / "a.npz") as source:
        layers = list(source.layers)
    of_host = {"a.weight": np.random.default_rng(0).standard_t(2.0, (30, 20))}
    assert len(layers) == 6
    with open_weights(tmp_path / "a.npz") as source:
        (tmp_path / "a.npz").write_bytes(b"PK")
        report = ps.analyze(source, device="cuda")
        assert [s.failed for s in report.skipped] == [True] * 6
    assert_same(ps.analyze(of_host), ps.analyze(of_host, device="cuda"))


@ONE_ORDER
def test_who_stops_early_waits_for_one_read_at_most(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    second, closing = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        """Lets the read under way end no sooner than those after it are called off."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closing.set()
            super().shutdown(wait)

    def load(k: int) -> HostArray:
        if k == 1:
            second.set()
            assert closing.wait(60)
        loaded.append(k)
        return HostArray(np.eye(9), "float64")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", Pool)
    layers = [
        Layer(f"{k}", "linear", (9, 9), "float64", k, f"{k}", functools.partial(load, k))
        for k in range(5)
    ]
    reads = engines.device_engine(torch.device(device)).reads(layers)
    next(reads)()
    assert second.wait(60)
    reads.close()  # type: ignore[attr-defined]
    assert loaded == [0, 1]
    assert not [t for t in threading.enumerate() if t.name.startswith("pyspectra-read")]


@pytest.mark.gpu
def test_what_is_read_for_a_device_is_pinned() -> None:
    uploads = devices.Uploads(torch.device("cuda", 0))
    for shape in ((7, 3), (300, 1000)):
        of_host = uploads.empty(shape, np.dtype(np.float32))
        of_host[:] = np.random.default_rng(0).standard_normal(shape)
        assert torch.from_numpy(of_host).is_pinned()
        of_device = uploads.send(HostArray(of_host, "float32"))
        want = of_host.copy()
        assert np.array_equal(of_device(...).cpu().numpy(), want)
        assert np.array_equal(of_device((slice(None), 1)).cpu().numpy(), want[:, 1])


@pytest.mark.gpu
def test_a_part_of_what_was_read_is_sent_before_its_memory_is_used_again() -> None:
    """The last element is the last to be copied; the next tensor gets the same block."""
    uploads = devices.Uploads(torch.device("cuda", 0))
    for _ in range(3):
        whole = uploads.empty((2, 1 << 26), np.dtype(np.float32))
        whole[:] = 1.0
        of_device = uploads.send(HostArray(whole[1], "float32"))
        del whole
        uploads.empty((2, 1 << 26), np.dtype(np.float32))[1, -1] = 2.0
        assert of_device(-1).item() == 1.0


@pytest.mark.gpu
def test_the_devices_there_are() -> None:
    state = {"a.weight": torch.randn(300, 280)}
    of_host = ps.analyze(state)
    assert_same(of_host, ps.analyze(state, device="cuda"))
    assert_same(of_host, ps.analyze(state, device=torch.device("cuda", 0)))
    count = torch.cuda.device_count()
    with pytest.raises(ps.DeviceError, match=f"one of the {count} CUDA devices"):
        ps.analyze(state, device=f"cuda:{count}")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "mps", 3, "cpu:0:1", "cpu:x"])
def test_a_device_that_is_none(device: Any) -> None:
    with pytest.raises(ValueError, match=r"^analyze: 'device' must be 'auto', 'cpu', 'cuda' or"):
        ps.analyze({"a.weight": np.eye(20)}, device=device)


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(ops, "cuda_built", lambda: True)
    with pytest.raises(ps.DeviceError, match="one of the 0 CUDA devices that torch"):
        ps.analyze({"a.weight": np.eye(20)}, device="cuda")
    monkeypatch.setattr(ops, "cuda_built", lambda: False)
    with pytest.raises(ps.DeviceError, match="built without CUDA; got 'cuda:1'"):
        ps.analyze({"a.weight": np.eye(20)}, device="cuda:1")
