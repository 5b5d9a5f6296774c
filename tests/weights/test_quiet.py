"""Looking at a model changes nothing, at no moment: not for other threads, not for an interrupt."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.weights import open_weights
from pyspectra.weights.formats import module as module_format
from pyspectra.weights.formats import quiet

torch = pytest.importorskip("torch")
nn = torch.nn
parametrizations = pytest.importorskip("torch.nn.utils.parametrizations")
parametrize = pytest.importorskip("torch.nn.utils.parametrize")
prune = pytest.importorskip("torch.nn.utils.prune")


def as_float64(layer: Any) -> np.ndarray:
    found: np.ndarray = layer.load().to_float64()
    return found


def old_spectral() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of torch say so, or not
        return nn.utils.spectral_norm(nn.Linear(12, 11))


def old_weight_norm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of torch say so, or not
        return nn.utils.weight_norm(nn.Linear(12, 11))


MAKERS: dict[str, Callable[[], Any]] = {
    "spectral": lambda: parametrizations.spectral_norm(nn.Linear(12, 11)),
    "spectral_conv": lambda: parametrizations.spectral_norm(nn.Conv2d(9, 8, 3)),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(12, 11)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(12, 11)),
    "twice": lambda: parametrizations.spectral_norm(
        parametrizations.spectral_norm(nn.Linear(12, 11))
    ),
    "old_spectral": old_spectral,
    "old_weight_norm": old_weight_norm,
    "pruned": lambda: prune.l1_unstructured(nn.Linear(12, 11), "weight", amount=0.5),
}


def model_of_all() -> Any:
    torch.manual_seed(0)
    model = nn.ModuleDict({name: make() for name, make in MAKERS.items()})
    model["dropout"] = nn.Dropout()
    model["norm"] = nn.BatchNorm1d(3)
    return model.train()


def snapshot(model: Any) -> Any:
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [m.training for m in model.modules()],
        [(id(t), t._version, t.detach().clone()) for t in tensors],
        [sorted(vars(m)) for m in model.modules()],
        torch.get_rng_state(),
    )


def assert_same(before: Any, after: Any) -> None:
    assert before[0] == after[0]
    assert before[2] == after[2]
    assert torch.equal(before[3], after[3])
    for (i, version, value), (j, other_version, other) in zip(before[1], after[1], strict=True):
        assert (i, version) == (j, other_version)
        assert torch.equal(value, other)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_weight_is_that_of_evaluation_mode(name: str, training: bool) -> None:
    torch.manual_seed(1)
    model = MAKERS[name]().train(training)
    before = snapshot(model)
    (layer,) = open_weights(model).layers
    found = as_float64(layer)
    assert_same(before, snapshot(model))
    model.eval()
    model(torch.ones(1, 9, 4, 4) if name == "spectral_conv" else torch.ones(1, 12))
    np.testing.assert_allclose(found, model.weight.detach().double().numpy(), rtol=1e-6, atol=1e-7)


def test_analysis_leaves_everything_as_it_was() -> None:
    model = model_of_all()
    before = snapshot(model)
    report = ps.analyze(model, randomize=True, min_evals=5)
    assert len(report.layers) == len(MAKERS)
    assert_same(before, snapshot(model))


def test_another_thread_never_sees_another_mode() -> None:
    model = model_of_all()
    modules = list(model.modules())
    done = threading.Event()
    seen: set[bool] = set()

    def watch() -> None:
        while not done.is_set():
            seen.update(m.training for m in modules)

    watcher = threading.Thread(target=watch)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        watcher.start()
        for _ in range(15):
            for layer in open_weights(model).layers:
                layer.load()
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(interval)
    assert seen == {True}


class Stop(Exception):
    """What interrupts."""


def test_an_interrupt_at_any_line_leaves_everything_as_it_was() -> None:
    model = model_of_all()
    before = snapshot(model)
    watched = {module_format.__file__, quiet.__file__, parametrize.__file__,
               parametrizations.__file__}  # fmt: skip
    lines = 0
    stop_at = -1

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            lines += 1
            if lines == stop_at:
                raise Stop
        return trace

    def look() -> None:
        for layer in open_weights(model).layers:
            layer.load()

    def traced() -> None:
        nonlocal lines
        lines = 0
        tracer = sys.gettrace()
        sys.settrace(trace)
        try:
            look()
        finally:
            sys.settrace(tracer)

    traced()
    total = lines
    assert total > 200
    for line in range(1, total, 41):
        stop_at = line
        with pytest.raises((Stop, ps.FormatError)):
            traced()
        assert before[0] == [m.training for m in model.modules()]
    assert_same(before, snapshot(model))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that interrupt")
def test_control_c_during_an_analysis() -> None:
    model = model_of_all()
    before = snapshot(model)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(40):
            signal.setitimer(signal.ITIMER_REAL, 1e-3 + 5e-4 * i)
            try:
                for _ in range(100):
                    for layer in open_weights(model).layers:
                        layer.load()
            except KeyboardInterrupt:
                pass
            assert before[0] == [m.training for m in model.modules()]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert_same(before, snapshot(model))


class Counting(nn.Module):  # type: ignore[misc, name-defined]
    """Keeps count in every way that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.plain = torch.zeros(1)
        self.calls = 0
        self.modes: list[bool] = []
        self.inner = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        self.seen += 1
        self.plain += 1
        self.calls += 1
        self.modes.append(self.training)
        return self.inner(2 * x)


def test_a_parametrization_that_keeps_count_does_not_count_us() -> None:
    linear = nn.Linear(12, 11)
    counting = Counting()
    parametrize.register_parametrization(linear, "weight", counting)
    before = snapshot(linear)
    state = counting.calls, len(counting.modes), float(counting.plain)
    (layer,) = open_weights(linear).layers
    np.testing.assert_array_equal(
        as_float64(layer), 2 * linear.parametrizations.weight.original.detach().double().numpy()
    )
    assert (counting.calls, len(counting.modes), float(counting.plain)) == state
    assert_same(before, snapshot(linear))


def test_a_hook_of_a_stranger_works_on_a_copy() -> None:
    class Hook:
        name = "weight"
        calls = 0

        def compute_weight(self, module: Any) -> Any:
            self.calls += 1
            module.scale += 1
            assert not module.training
            return 2 * module.weight_orig

        def __call__(self, module: Any, inputs: Any) -> None:
            module.weight = self.compute_weight(module)

    linear = nn.Linear(12, 11)
    original = linear.weight
    del linear._parameters["weight"]
    linear.register_parameter("weight_orig", original)
    linear.register_buffer("scale", torch.ones(1))
    linear.weight = 2 * original.detach()
    hook = Hook()
    linear.register_forward_pre_hook(hook)
    before = snapshot(linear)
    (layer,) = open_weights(linear).layers
    np.testing.assert_array_equal(as_float64(layer), 2 * original.detach().double().numpy())
    assert hook.calls == 0
    assert_same(before, snapshot(linear))


def test_a_cache_of_parametrizations_is_left_alone() -> None:
    model = parametrizations.spectral_norm(nn.Linear(12, 11))
    with parametrize.cached():
        open_weights(model).layers[0].load()
        assert not parametrize._cache
