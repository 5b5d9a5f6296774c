"""The losses of distillation: the formulas, padding, gradients, features, and the plain loop."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from reference.distillation import hard_row, soft_row

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pyspectra.finetune import (  # noqa: E402
    Distillation,
    FeatureMatching,
    FeatureRecorder,
    distillation_loss,
    feature_loss,
)

# float64 on both sides, sums of a few dozen terms.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
OPTIONS = {"temperature": 3.0, "weight": 0.7, "label_smoothing": 0.1}


def logits(*shape: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(4 * rng.standard_normal(shape)) for _ in range(2))


def by_hand(s: Any, t: Any, y: Any, mask: Any = None, reduction: str = "mean") -> Any:
    """Rows of the reference, reduced; `y` of -100 and a false `mask` do not count."""
    s, t, y = s.detach().numpy(), t.numpy(), y.numpy()
    T, w, e = OPTIONS["temperature"], OPTIONS["weight"], OPTIONS["label_smoothing"]
    counted = y != -100
    softly = counted if mask is None else mask.numpy()
    soft, hard = np.zeros(y.shape), np.zeros(y.shape)
    for i in np.ndindex(y.shape):
        soft[i] = soft_row(s[i], t[i], T) if softly[i] else 0.0
        hard[i] = hard_row(s[i], y[i], e) if counted[i] else 0.0
    if reduction == "none":
        return w * soft + (1 - w) * hard
    a, b = (1, 1) if reduction == "sum" else (max(softly.sum(), 1), max(counted.sum(), 1))
    return w * soft.sum() / a + (1 - w) * hard.sum() / b


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5)])
def test_the_loss_is_that_of_the_formula(shape: tuple[int, ...], reduction: str) -> None:
    s, t = logits(*shape)
    y = torch.randint(0, 5, shape[:-1])
    y.view(-1)[::3] = -100
    found = distillation_loss(s, t, y, **OPTIONS, reduction=reduction)
    np.testing.assert_allclose(found, by_hand(s, t, y, None, reduction), **CLOSE)
    mask = torch.rand(shape[:-1]) < 0.6
    found = distillation_loss(s, t, y, **OPTIONS, mask=mask, reduction=reduction)
    np.testing.assert_allclose(found, by_hand(s, t, y, mask, reduction), **CLOSE)


def test_the_gradient_is_that_of_the_differences() -> None:
    s, t = logits(4, 3)
    y = torch.tensor([0, -100, 2, 1])
    s.requires_grad_()
    t.requires_grad_()
    distillation_loss(s, t, y, **OPTIONS).backward()
    assert t.grad is None
    for i in np.ndindex(4, 3):
        step = torch.zeros_like(s)
        step[i] = 1e-6
        change = by_hand(s + step, t.detach(), y) - by_hand(s - step, t.detach(), y)
        assert float(s.grad[i]) == pytest.approx(change / 2e-6, rel=1e-5, abs=1e-8)


def test_labels_alone_and_the_teacher_alone_are_what_torch_computes() -> None:
    s, t = logits(6, 4)
    y = torch.tensor([0, 1, 2, 3, -100, 2])
    alone = distillation_loss(s, t, y, weight=0.0, label_smoothing=0.2, temperature=5.0)
    torch.testing.assert_close(alone, F.cross_entropy(s, y, label_smoothing=0.2))
    teacher = distillation_loss(s, t, weight=1.0, temperature=2.5)
    kl = F.kl_div(F.log_softmax(s / 2.5, 1), F.softmax(t / 2.5, 1), reduction="batchmean")
    torch.testing.assert_close(teacher, 2.5**2 * kl)
    assert float(distillation_loss(s, t, weight=0.25)) == pytest.approx(
        float(distillation_loss(s, t, weight=1.0)) / 4
    )


def test_a_high_temperature_matches_centred_logits() -> None:
    """Hinton et al., section 2.1: half the squared difference, over the classes."""
    s, t = (z - z.mean(1, keepdim=True) for z in logits(5, 6))
    found = distillation_loss(s, t, weight=1.0, temperature=1e4)
    torch.testing.assert_close(found, ((s - t).square().mean(1) / 2).mean(), rtol=1e-3, atol=0)


def test_outputs_of_a_regression_are_compared_by_their_squares() -> None:
    s, t = logits(6, 2)
    y, mask = torch.randn(6, 2), torch.tensor([True, True, False, True, True, False])
    found = distillation_loss(s, t, y, temperature=None, weight=0.3, mask=mask)
    wanted = 0.3 * F.mse_loss(s[mask], t[mask]) + 0.7 * F.mse_loss(s, y.double())
    torch.testing.assert_close(found, wanted)
    one, other = logits(6, 1)
    flat = distillation_loss(one, other, torch.ones(6), temperature=None, weight=0.3)
    torch.testing.assert_close(
        flat, 0.3 * F.mse_loss(one, other) + 0.7 * F.mse_loss(one, torch.ones(6, 1).double())
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_and_classes_that_are_ruled_out(dtype: Any) -> None:
    s = torch.tensor([[3e4, -3e4, 0.0], [1.0, 2.0, -math.inf]], dtype=dtype, requires_grad=True)
    t = torch.tensor([[-3e4, 3e4, 0.0], [2.0, 1.0, -math.inf]], dtype=dtype)
    found = distillation_loss(s, t, torch.tensor([1, 0]), temperature=2.0, reduction="none")
    assert found.dtype == torch.float32
    values = found.detach()
    assert float(values[0]) == pytest.approx(0.5 * 4 * 3e4 + 0.5 * 6e4, rel=2e-2)
    p, q = torch.tensor([1.0, 0.5]).softmax(0), torch.tensor([0.5, 1.0]).softmax(0)
    kl = float((p * (p / q).log()).sum())
    hard = float(-torch.tensor([1.0, 2.0]).log_softmax(0)[0])
    assert float(values[1]) == pytest.approx(2 * kl + 0.5 * hard, rel=1e-5)
    found.sum().backward()
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [2.0, None])
def test_a_broken_teacher_is_not_taken_for_one_that_agrees(
    broken: float, temperature: float | None
) -> None:
    student = torch.zeros(2, 3)
    teacher = torch.tensor([[broken, 0.0, 0.0], [0.0, 0.0, 0.0]])
    loss = distillation_loss(student, teacher, temperature=temperature, reduction="none")
    assert not loss[0].isfinite()
    assert loss[1] == 0


def test_a_batch_of_padding_costs_nothing() -> None:
    s, t = logits(2, 3, 4)
    s.requires_grad_()
    loss = distillation_loss(s, t, torch.full((2, 3), -100))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not s.grad.any()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"teacher": torch.zeros(2, 4)}, {}, "'teacher_logits' must have the shape"),
        ({"teacher": torch.zeros(2, 3).long()}, {}, "'teacher_logits' must be a floating-point"),
        ({"student": [[0.0]]}, {}, "'student_logits' must be a floating-point tensor"),
        ({"labels": torch.zeros(3).long()}, {}, r"'labels' must have the shape \(2,\)"),
        ({"labels": torch.zeros(2)}, {}, "'labels' must be integers"),
        ({"labels": [0, 1]}, {}, "'labels' must be a tensor"),
        ({"labels": torch.zeros(3, 3)}, {"temperature": None}, "'labels' must have the shape"),
        ({}, {"mask": torch.ones(2)}, "'mask' must be a tensor of bool"),
        ({}, {"mask": torch.ones(3).bool()}, "'mask' must have the shape"),
        ({}, {"temperature": 0.0}, "'temperature' must be positive"),
        ({}, {"weight": 1.5}, r"'weight' must be in \[0, 1\]"),
        ({}, {"label_smoothing": 1.0}, "'label_smoothing' must be"),
        ({}, {"label_smoothing": 0.1, "temperature": None}, "'label_smoothing' must be 0"),
        ({}, {"reduction": "batchmean"}, "'reduction' must be one of"),
        ({}, {"ignore_index": 0.5}, "'ignore_index' must be an integer"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    given = {"student": torch.zeros(2, 3), "teacher": torch.zeros(2, 3), "labels": None}
    with pytest.raises((ValueError, TypeError), match=f"distillation_loss: {message}"):
        distillation_loss(*{**given, **arguments}.values(), **options)


# --- features -------------------------------------------------------------------------------------


def test_features_are_compared_where_they_count() -> None:
    a, b = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    torch.testing.assert_close(feature_loss(a, b), F.mse_loss(a, b))
    mask = torch.rand(3, 4) < 0.5
    torch.testing.assert_close(feature_loss(a, b, mask=mask), F.mse_loss(a[mask], b[mask]))
    assert float(feature_loss(a, b, mask=torch.zeros(3).bool())) == 0
    with pytest.raises(ValueError, match="feature_loss: 'mask' must have the shape"):
        feature_loss(a, b, mask=torch.ones(3, 5).bool())
    with pytest.raises(ValueError, match="'teacher_features' must have the shape"):
        feature_loss(a, b[:, :2])


def test_a_recorder_keeps_outputs_and_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5), nn.Identity())
    x = torch.randn(2, 3)
    with FeatureRecorder(model, ["0", "1"]) as features:
        assert not features
        out, _ = model(x)
    assert list(features) == ["0", "1"]
    assert features["1"] is out
    assert features["0"].requires_grad
    assert not any(m._forward_hooks for m in model.modules())
    with FeatureRecorder(model, ["0"], with_gradient=True) as features, torch.no_grad():
        model(x)
    assert not features
    with pytest.raises(KeyError), FeatureRecorder(model, ["0"]):
        raise KeyError
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(ValueError, match="'modules' must name modules of the model, got '7'"):
        FeatureRecorder(model, ["7"])
    with pytest.raises(TypeError, match="'modules' must be names"):
        FeatureRecorder(model, "0")


def convolutions(width: int) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(width * 4, 3)
    )


@pytest.mark.parametrize("kind", ["images", "vectors", "same"])
def test_projections_bridge_widths_and_are_trained(kind: str) -> None:
    if kind == "images":
        student, teacher, x = convolutions(2), convolutions(5), torch.randn(6, 1, 4, 4)
    else:
        wide = 7 if kind == "vectors" else 3
        student, teacher = (nn.Sequential(nn.Linear(4, n), nn.Linear(n, 2)) for n in (3, wide))
        x = torch.randn(6, 4)
    state = torch.get_rng_state()
    matching = FeatureMatching(student, teacher, {"0": "0"}, x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    own = [tuple(p.shape) for p in matching.parameters()]
    assert own == {"images": [(5, 2, 1, 1), (5,)], "vectors": [(7, 3), (7,)], "same": []}[kind]
    assert not {*student.parameters()} & {*matching.parameters()}
    student.train()
    student(x)
    with torch.no_grad():
        teacher(x)
    a, b = student[0](x).detach(), teacher[0](x).detach()
    if kind == "images":
        weight, bias = matching.parameters()
        a = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], a) + bias[:, None, None]
    elif kind == "vectors":
        weight, bias = matching.parameters()
        a = a @ weight.T + bias
    loss = matching.loss()
    student.eval()
    torch.testing.assert_close(loss, F.mse_loss(a, b))
    loss.backward()
    assert student[0].weight.grad.any()
    assert all(p.grad.any() for p in matching.parameters())
    assert teacher[0].weight.grad is None
    with pytest.raises(RuntimeError, match="no features of '0' of the student"):
        matching.loss()
    matching.remove()
    assert not any(m._forward_hooks for net in (student, teacher) for m in net.modules())
    again = FeatureMatching(student, teacher, {"0": "0"}, x, seed=3)
    for p, q in zip(again.parameters(), matching.parameters(), strict=True):
        assert torch.equal(p, q)


def test_features_that_cannot_be_paired_are_refused() -> None:
    student, teacher = convolutions(2), convolutions(5)
    x = torch.randn(2, 1, 4, 4)
    for layers, message in (
        ({"0": "3"}, "pair features that differ in their width alone"),
        ({"0": "9"}, "name modules of the model, got '9'"),
        ({}, "name at least one module"),
    ):
        with pytest.raises(ValueError, match=f"FeatureMatching: 'layers' must {message}"):
            FeatureMatching(student, teacher, layers, x)
    assert not any(m._forward_hooks for net in (student, teacher) for m in net.modules())


# --- a teacher in a loop --------------------------------------------------------------------------


class Told(nn.Module):
    def forward(self, x: Any) -> Any:
        return {"loss": x}


class Speaker(nn.Module):
    """Counts how it is called; it drops out in training, and takes keywords."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)
        self.drop.eval()
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, x: Any, scale: float = 1.0) -> Any:
        self.calls.append((self.training, torch.is_grad_enabled()))
        return {"logits": scale * self.drop(self.inner(x))}


def test_a_teacher_is_evaluated_without_gradients_and_left_as_it_was() -> None:
    teacher, student = Speaker(), nn.Linear(4, 3)
    distil = Distillation(teacher, **OPTIONS)
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    state = torch.get_rng_state()
    modes = [m.training for m in teacher.modules()]
    loss = distil(student(x), {"x": x, "labels": y, "unknown": 1, "scale": 2.0}, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in teacher.modules()] == modes == [True, True, False]
    assert teacher.calls == [(False, False)]
    wanted = distillation_loss(student(x), 2 * teacher.inner(x), y, **OPTIONS)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert teacher.inner.weight.grad is None
    torch.testing.assert_close(distil(student(x), (x, y), y), distil(student(x), x, y))


def test_an_attribute_is_no_part_of_a_model() -> None:
    student = nn.Linear(4, 3)
    names = {*student.state_dict()}
    student.distil = Distillation(Speaker())
    assert {*student.state_dict()} == names
    assert len([*student.parameters()]) == 2
    assert student.train().distil.teacher.calls == []
    assert pickle.loads(pickle.dumps(student.distil)).weight == 0.5


def test_features_join_the_loss() -> None:
    student, teacher = (nn.Sequential(nn.Linear(4, n), nn.Linear(n, 3)) for n in (2, 5))
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    matching = FeatureMatching(student, teacher, {"0": "0"}, x)
    distil = Distillation(teacher, features=matching, feature_weight=0.3)
    found = distil(student(x), x, y)
    plain = distillation_loss(student(x), teacher(x), y)
    apart = feature_loss(matching.projections[0](student[0](x)), teacher[0](x))
    torch.testing.assert_close(found, plain + 0.3 * apart)


def test_a_student_learns_what_its_teacher_says() -> None:
    teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    distil = Distillation(teacher, temperature=4.0, weight=1.0)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=50)
    x = torch.randn(64, 4)

    def loss() -> Any:
        optimizer.zero_grad()
        value = distil(student(x), x)
        value.backward()
        return value

    optimizer.step(loss)
    x = torch.randn(100, 4)
    torch.testing.assert_close(student(x).softmax(1), teacher(x).softmax(1), atol=1e-3, rtol=0)


def test_what_is_no_teacher_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Distillation: 'teacher' must be a torch\.nn\.Module"):
        Distillation("bert")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Distillation: 'weight' must be in \[0, 1\]"):
        Distillation(nn.Linear(2, 2), weight=2.0)
    with pytest.raises(TypeError, match="Distillation: 'features' must be a FeatureMatching"):
        Distillation(nn.Linear(2, 2), features=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Distillation: 'teacher' must return a tensor"):
        Distillation(Told()).teacher_logits(torch.ones(2))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_in_lightning_no_checkpoint_has_the_teacher(tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties, while they are imported
        pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):
        def __init__(self, teacher: Any) -> None:
            super().__init__()
            self.student = nn.Linear(4, 3)
            self.distil = Distillation(teacher, temperature=4.0, weight=0.9)

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return self.distil(self.student(x), x, y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    x, teacher = torch.randn(12, 4), Speaker()
    data = torch.utils.data.TensorDataset(x, torch.arange(12) % 3)
    module, before = Module(teacher), teacher.inner.weight.clone()
    start = module.student.weight.detach().clone()
    fit = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    fit.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {*saved["state_dict"]} == {"student.weight", "student.bias"}
    assert teacher.calls == [(False, False)] * 3
    assert torch.equal(teacher.inner.weight, before)
    assert not torch.equal(module.student.weight, start)
