"""Fisher scores: the numbers, and that measuring them changes nothing."""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from reference import finetune as ref

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra._support import progress as progress_module  # noqa: E402
from pyspectra.finetune import fisher as fisher_module  # noqa: E402
from pyspectra.finetune import fisher_diag  # noqa: E402


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(dropout)

    def forward(self, x: Any) -> Any:
        return x + self.dropout(self.fc2(torch.tanh(self.fc1(self.norm(x)))))


class Model(nn.Module):
    def __init__(self, dropout: float = 0.0, width: int = 5) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(width, dropout) for _ in range(2)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def loss_fn(model: Any, batch: Any) -> Any:
    x, y = batch
    return nn.functional.cross_entropy(model(x).float(), y)


def data(sizes: tuple[int, ...] = (8, 8, 3), scale: float = 1.0) -> list[Any]:
    g = torch.Generator().manual_seed(7)
    return [
        (scale * torch.randn(n, 5, generator=g), torch.randint(0, 3, (n,), generator=g))
        for n in sizes
    ]


def model(seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    return Model(**kwargs)


def gradients(m: Any, batches: list[Any]) -> dict[str, list[Any]]:
    """By backward() on a copy in training mode, with the random state as it is now."""
    m.train()
    out: dict[str, list[Any]] = {}
    for batch in batches:
        m.zero_grad()
        loss_fn(m, batch).backward()
        for name, p in m.named_parameters():
            out.setdefault(name, []).append(p.grad.clone().float().numpy())
    return out


WEIGHTS = [f"layers.{i}.fc{j}.weight" for i in (0, 1) for j in (1, 2)]


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_grad_norm", [0.05, 1.0, None])
def test_the_mean_over_batches_of_the_squared_clipped_gradient(max_grad_norm: Any) -> None:
    grads = gradients(model(), data(scale=4.0))
    scores = fisher_diag(model(), data(scale=4.0), loss_fn, max_grad_norm=max_grad_norm)
    assert list(scores) == WEIGHTS
    for name, score in scores.items():
        expected = ref.fisher(grads[name], max_grad_norm)
        assert score.dtype == torch.float32
        assert not score.requires_grad
        np.testing.assert_allclose(score.numpy(), expected, rtol=2e-5, atol=1e-12)
    clipped = ref.fisher(grads[WEIGHTS[0]], 0.05)
    assert not np.allclose(clipped, ref.fisher(grads[WEIGHTS[0]], None), rtol=0.1)


@pytest.mark.parametrize("max_grad_norm", [0.05, None])
def test_per_sample_is_the_mean_over_samples(max_grad_norm: Any) -> None:
    def without_norms() -> Any:  # one sample has no batch statistics
        m = model()
        for layer in m.layers:
            layer.norm = nn.Identity()
        return m

    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in data() for i in range(len(y))]
    grads = gradients(without_norms(), singles)
    options: dict[str, Any] = {"max_grad_norm": max_grad_norm, "per_sample": True}
    scores = fisher_diag(without_norms(), data(), loss_fn, **options)
    for name, score in scores.items():
        expected = ref.fisher(grads[name], max_grad_norm)
        np.testing.assert_allclose(score.numpy(), expected, rtol=2e-5, atol=1e-12)
    whole = [tuple(torch.cat(parts) for parts in zip(*data(), strict=True))]
    rebatched = fisher_diag(without_norms(), whole, loss_fn, **options)
    assert all(torch.equal(rebatched[n], scores[n]) for n in WEIGHTS)


Pair = collections.namedtuple("Pair", ["x", "y"])
FORMS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "dict": (lambda x, y: {"x": x, "y": y}, lambda b: (b["x"], b["y"])),
    "UserDict": (lambda x, y: collections.UserDict(x=x, y=y), lambda b: (b["x"], b["y"])),
    "nested": (lambda x, y: ({"x": [x]}, y), lambda b: (b[0]["x"][0], b[1])),
    "namedtuple": (Pair, lambda b: (b.x, b.y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_per_sample_splits_the_usual_batches(form: str) -> None:
    wrap, unwrap = FORMS[form]

    def samples_only(m: Any, batch: Any) -> Any:
        x, y = unwrap(batch)
        assert len(x) == len(y) == 1
        return loss_fn(m.eval(), (x, y))  # one sample has no batch statistics

    batches = data((4, 2))
    expected = fisher_diag(
        model(), batches, lambda m, b: loss_fn(m.eval(), b), per_sample=True, params=WEIGHTS
    )
    found = fisher_diag(
        model(), [wrap(*b) for b in batches], samples_only, per_sample=True, params=WEIGHTS
    )
    assert all(torch.equal(found[n], expected[n]) for n in WEIGHTS)


def test_float32_sums_for_bfloat16_models() -> None:
    m = model().to(torch.bfloat16)
    batches = [(x.to(torch.bfloat16), y) for x, y in data((8,) * 40)]
    grads = gradients(model().to(torch.bfloat16), batches)
    for name, score in fisher_diag(m, batches, loss_fn, max_grad_norm=None).items():
        assert score.dtype == torch.float32
        np.testing.assert_allclose(score.numpy(), ref.fisher(grads[name], None), rtol=2e-5)


def test_dropout_is_on_as_in_training() -> None:
    scores = fisher_diag(model(dropout=0.6).eval(), data(), loss_fn)
    still = fisher_diag(model(dropout=0.0).eval(), data(), loss_fn)
    assert not torch.allclose(scores[WEIGHTS[0]], still[WEIGHTS[0]], rtol=0.01)


def test_choosing_parameters() -> None:
    def choose(params: Any) -> list[str]:
        return list(fisher_diag(model(), data(), loss_fn, params=params))

    assert choose(None) == WEIGHTS
    assert choose(["head.bias", "head.weight"]) == ["head.bias", "head.weight"]
    assert choose(n for n in ("head.bias", "head.bias")) == ["head.bias"]
    assert choose(lambda name, p: p.ndim == 1 and "norm" not in name) == [
        "layers.0.fc1.bias",
        "layers.0.fc2.bias",
        "layers.1.fc1.bias",
        "layers.1.fc2.bias",
        "head.bias",
    ]


def test_weights_that_no_loss_depends_on_score_zero() -> None:
    m = model()
    m.spare = nn.Linear(2, 2)
    scores = fisher_diag(m, data(), loss_fn, params=["spare.weight", "head.weight"])
    assert not scores["spare.weight"].any()
    assert scores["head.weight"].all()


def test_scores_of_zero_alone_are_an_error() -> None:
    """All of them would be selected: the loss has lost sight of the model."""
    other = model()
    with pytest.raises(ValueError, match=r"fisher_diag: 'loss_fn' must depend on .* for all 4"):
        fisher_diag(model(), data(), lambda m, batch: loss_fn(other, batch))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", ""])
def test_parameters_are_known_by_the_names_of_the_plain_model(prefix: str) -> None:
    wrapped: Any = model()
    if prefix == "module.":
        wrapped = torch.nn.DataParallel(wrapped)
    elif prefix:
        wrapped = torch.compile(wrapped, backend="eager")
    scores = fisher_diag(wrapped, data(), loss_fn, params=["layers.0.fc1.weight", "head.weight"])
    assert list(scores) == [f"{prefix}layers.0.fc1.weight", f"{prefix}head.weight"]


@pytest.mark.parametrize("group", ["all", 3, object()])
def test_what_is_no_process_group_is_refused(group: Any) -> None:
    with pytest.raises(TypeError, match="fisher_diag: 'process_group' must be 'auto', None or"):
        fisher_diag(model(), data(), loss_fn, process_group=group)


def test_a_loader_without_a_length() -> None:
    def stream() -> Iterator[Any]:
        yield from data()

    found, expected = (fisher_diag(model(), d, loss_fn) for d in (stream(), data()))
    assert all(torch.equal(found[n], expected[n]) for n in WEIGHTS)


# --- nothing else changes -------------------------------------------------------------------------


def snapshot(m: Any) -> Any:
    return (
        [module.training for module in m.modules()],
        {n: v.clone() for n, v in m.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in m.parameters()],
        torch.get_rng_state(),
    )


def assert_same(a: Any, b: Any) -> None:
    assert a[0] == b[0]
    assert all(torch.equal(v, b[1][n]) for n, v in a[1].items())
    for x, y in zip(a[2], b[2], strict=True):
        assert (x is None and y is None) or torch.equal(x, y)
    assert torch.equal(a[3], b[3])


def prepared() -> Any:
    m = model(dropout=0.5)
    loss_fn(m, data()[0]).backward()
    m.head.bias.grad = None
    m.train()
    m.layers[0].eval()
    m.layers[1].norm.eval()
    return m


@pytest.mark.parametrize("per_sample", [False, True])
def test_modes_gradients_buffers_and_random_state_stay(per_sample: bool) -> None:
    m = prepared()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data((12,))[0]), batch_size=4, shuffle=True
    )

    def loss(model_: Any, batch: Any) -> Any:
        assert model_.training
        if per_sample:
            for layer in model_.layers:
                layer.norm.eval()
        return loss_fn(model_, batch)

    before, grad = snapshot(m), m.head.weight.grad
    scores = fisher_diag(m, loader, loss, per_sample=per_sample)
    assert_same(before, snapshot(m))
    assert m.head.weight.grad is grad
    assert all(s.any() for s in scores.values())


def test_they_stay_after_an_exception_too() -> None:
    m = prepared()
    calls = []

    def breaks(model_: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("broken batch")
        return loss_fn(model_, batch)

    before = snapshot(m)
    with pytest.raises(KeyError, match="broken batch"):
        fisher_diag(m, data(), breaks)
    assert_same(before, snapshot(m))


def test_buffers_that_are_replaced_come_back() -> None:
    class Counting(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("nothing", None)

        def forward(self, x: Any) -> Any:
            self.calls = self.calls + 1
            return super().forward(x)

    m = Counting()
    calls = m.calls
    fisher_diag(m, data(), loss_fn)
    assert m.calls is calls
    assert m.calls == 0
    assert m.nothing is None


def test_buffers_that_cannot_be_written_stay() -> None:
    m = model()
    m.register_buffer("expanded", torch.zeros(1).expand(4))
    expanded = m.expanded
    fisher_diag(m, data(), loss_fn)
    assert m.expanded is expanded


def test_it_works_inside_no_grad() -> None:
    expected = fisher_diag(model(), data(), loss_fn)
    with torch.no_grad():
        found = fisher_diag(model(), data(), loss_fn)
    assert all(torch.equal(found[n], expected[n]) for n in WEIGHTS)


def test_the_progress_bar(monkeypatch: Any) -> None:
    seen: list[Any] = []

    @contextlib.contextmanager
    def bar(total: Any, description: str, progress: Any, *, function: str) -> Iterator[Any]:
        seen.append((total, description, progress, function))
        yield seen.append

    monkeypatch.setattr(fisher_module, "progress_bar", bar)
    fisher_diag(model(), data(), loss_fn, progress=True)
    fisher_diag(model(), iter(data()), loss_fn)
    assert seen == [
        *[(3, "Fisher", True, "fisher_diag"), "", "", ""],
        *[(None, "Fisher", "auto", "fisher_diag"), "", "", ""],
    ]


def test_a_bar_without_a_total(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(progress_module, "DELAY_SECONDS", -1.0)
    fisher_diag(model(), iter(data()), loss_fn, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err != ""


# --- refusals -------------------------------------------------------------------------------------


def poisoned(value: float) -> list[Any]:
    batches = data()
    batches[1][0][2, 0] = value
    return batches


def test_gradients_that_are_not_finite_name_parameter_and_batch() -> None:
    m = model()
    for layer in m.layers:
        layer.norm = nn.Identity()
    message = r"gradient of 'layers\.0\.fc1\.weight' must be finite, got norm nan in batch 1"
    with pytest.raises(ValueError, match=message):
        fisher_diag(m, poisoned(math.nan), loss_fn)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x))


def frozen() -> Any:
    m = model()
    m.head.weight.requires_grad_(False)
    return m


@pytest.mark.parametrize(
    ("m", "args", "kwargs", "error", "message"),
    [
        (Plain, (data(), loss_fn), {}, ValueError, r"Plain has none .* Hint: pass params=lambda"),
        (model, (data(), loss_fn), {"params": lambda n, p: False}, ValueError, "that chose none"),
        (
            model,
            (data(), loss_fn),
            {"params": []},
            ValueError,
            "'params' must name.*got an empty list",
        ),
        (model, (data(), loss_fn), {"params": "head"}, TypeError, "a list of names, got 'head'"),
        (model, (data(), loss_fn), {"params": ["hed"]}, ValueError, "got 'hed'"),
        (frozen, (data(), loss_fn), {"params": ["head.weight"]}, ValueError, "require a gradient"),
        (model, ([], loss_fn), {}, ValueError, "'loader' must give at least one batch"),
        (model, (data(), loss_fn), {"max_grad_norm": 0.0}, ValueError, "'max_grad_norm' must be"),
        (model, (data(), loss_fn), {"progress": 2}, ValueError, "fisher_diag: 'progress'"),
        (model, (data(), lambda m, b: m(b[0])), {}, ValueError, r"tensor of shape \(8, 3\)"),
        (model, (data(), lambda m, b: 1.5), {}, ValueError, "'loss_fn' must return .* got 1.5"),
        (
            model,
            (data(), lambda m, b: loss_fn(m, b).detach()),
            {},
            ValueError,
            "without a gradient",
        ),
        (
            model,
            ([(torch.ones(4, 5), torch.ones(3))], loss_fn),
            {"per_sample": True},
            ValueError,
            r"first axis, got lengths \['3', '4'\]",
        ),
        (
            model,
            ([(torch.ones(4, 5), "text")], loss_fn),
            {"per_sample": True},
            TypeError,
            "got an object of type str",
        ),
    ],
)
def test_refusals(m: Any, args: Any, kwargs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fisher_diag(m(), *args, **kwargs)


@pytest.mark.parametrize(
    "bad",
    [
        {"model": None},
        {"loader": None},
        {"loss_fn": None},
        {"params": 3},
        {"max_grad_norm": "a"},
        {"per_sample": 1},
    ],
    ids=str,
)
def test_arguments_of_another_kind_are_named(bad: Any) -> None:
    good: dict[str, Any] = {
        "model": torch.nn.Linear(2, 1),
        "loader": [torch.ones(3, 2)],
        "loss_fn": lambda model, batch: model(batch).mean(),
    }
    with pytest.raises(TypeError, match=f"fisher_diag: '{next(iter(bad))}' must be"):
        fisher_diag(**{**good, **bad})
