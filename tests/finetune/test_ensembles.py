"""Ensembles: what they say together, how far members disagree, against loops in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from reference.distillation import combined, entropy, mutual_information, softmax
from reference.distillation import disagreement as disagreement_of

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import EnsemblePrediction, disagreement, ensemble_predict  # noqa: E402

# float64 on both sides, sums of a few dozen terms.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
WEIGHTS = [3.0, 1.0, 0.0, 2.0]
SHARES = np.array(WEIGHTS) / 6


def logits(*shape: int) -> np.ndarray:
    return 2 * np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_mean_is_that_of_the_formula(combine: str, kind: str) -> None:
    z = logits(4, 6, 5)
    given = z if kind == "numpy" else torch.from_numpy(z)
    found = EnsemblePrediction.of(given, combine=combine, weights=WEIGHTS)
    wanted = [combined(z[:, i], SHARES, combine) for i in range(6)]
    np.testing.assert_allclose(found.mean, wanted, **CLOSE)
    parts = EnsemblePrediction.of([*given], combine=combine, weights=WEIGHTS)
    assert torch.equal(parts.mean, found.mean)
    assert torch.equal(parts.members, torch.from_numpy(z))


def test_numbers_have_a_mean_and_no_softmax() -> None:
    y = logits(4, 6, 1)
    found = EnsemblePrediction.of(y, combine="outputs", weights=WEIGHTS).mean
    np.testing.assert_allclose(found, np.tensordot(SHARES, y, axes=1), **CLOSE)


def test_members_of_several_types_have_one_that_holds_all() -> None:
    narrow, wide = torch.tensor([[1e30, 1.0]]), torch.tensor([[0.5, 0.25]])
    found = EnsemblePrediction.of([wide.half(), narrow.bfloat16()], combine="outputs")
    assert torch.equal(found.members, torch.stack([wide, narrow.bfloat16().float()]))
    assert EnsemblePrediction.of([wide, torch.tensor([[3, 4]])]).members[0].tolist() == [
        [0.5, 0.25]
    ]


def test_a_class_may_be_ruled_out() -> None:
    z = torch.tensor([[[0.0, -math.inf]], [[0.0, 0.0]]])
    assert EnsemblePrediction.of(z).mean.tolist() == [[0.75, 0.25]]
    assert EnsemblePrediction.of(z, combine="logits").mean.tolist() == [[1.0, 0.0]]
    assert EnsemblePrediction.of(z, weights=[0, 1], combine="logits").mean.tolist() == [[0.5, 0.5]]


class Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.norm, self.drop = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.norm.eval()

    def forward(self, x: Any, labels: Any = None) -> Any:
        assert labels is None
        assert not torch.is_grad_enabled()
        return {"loss": None, "logits": self.drop(self.norm(self.inner(x)))}


def test_models_are_run_over_batches_and_left_as_they_were() -> None:
    models = [Net(seed) for seed in range(3)]
    x, y = torch.randn(7, 4), torch.arange(7) % 3
    modes = [[m.training for m in net.modules()] for net in models]
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in models]
    state = torch.get_rng_state()
    whole = ensemble_predict(models, x, combine="logits", weights=[1, 2, 3])
    assert torch.equal(torch.get_rng_state(), state)
    assert [[m.training for m in net.modules()] for net in models] == modes
    for net, old in zip(models, before, strict=True):
        assert all(torch.equal(old[k], v) for k, v in net.state_dict().items())
    wanted = [net.eval().norm(net.inner(x)).detach() for net in models]
    torch.testing.assert_close(whole.members, torch.stack(wanted))
    mean = sum(w * z for w, z in zip((1 / 6, 1 / 3, 1 / 2), wanted, strict=True))
    torch.testing.assert_close(whole.mean, mean.softmax(-1))
    for inputs in (
        [x[:3], x[3:]],
        [(x[:3], y[:3]), [x[3:], y[3:]]],
        {"x": x, "labels": y, "other": 1},
        ({"x": part, "labels": None} for part in (x[:3], x[3:])),
    ):
        found = ensemble_predict(models, inputs, combine="logits", weights=[1, 2, 3])
        torch.testing.assert_close(found.mean, whole.mean)


def test_a_loader_that_shuffles_is_read_once_for_all() -> None:
    models = [nn.Linear(4, 3) for _ in range(3)]
    loader = torch.utils.data.DataLoader(torch.randn(20, 4), batch_size=6, shuffle=True)
    twice = ensemble_predict([models[0], models[0]], loader)
    assert torch.equal(*twice.members)
    assert ensemble_predict([lambda x: (models[0](x), "more")], loader).mean.shape == (20, 3)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "torch", "prediction"])
def test_disagreement_is_that_of_the_formulas(kind: str) -> None:
    z = logits(4, 6, 5)
    z[:, 0] = z[0, 0]  # of one sample all say the same
    p = np.array([[softmax(row) for row in member] for member in z])
    given: Any = {"logits": z, "probabilities": p, "torch": torch.from_numpy(z),
                  "prediction": EnsemblePrediction.of(z)}[kind]  # fmt: skip
    found = disagreement(given, logits=kind != "probabilities", weights=WEIGHTS)
    wanted = [mutual_information(p[:, i], SHARES) for i in range(6)]
    np.testing.assert_allclose(found.mutual_information, wanted, rtol=1e-12, atol=1e-13)
    assert found.mutual_information[0] < 1e-14
    mean = [entropy(np.tensordot(SHARES, p[:, i], axes=1)) for i in range(6)]
    np.testing.assert_allclose(found.entropy, mean, **CLOSE)
    classes = z.argmax(-1)
    assert found.rate == pytest.approx(disagreement_of(classes, SHARES), rel=1e-12)
    np.testing.assert_array_equal(
        found.pairs, [[np.mean(a != b) for b in classes] for a in classes]
    )
    assert disagreement(z).rate == pytest.approx(disagreement_of(classes, np.ones(4)), rel=1e-12)


def test_disagreement_of_tokens_and_of_members_that_are_sure() -> None:
    z = np.zeros((3, 2, 4, 3))
    for m in range(3):
        z[m, ..., m] = 900.0
    found = disagreement(z)
    assert found.rate == 1.0
    np.testing.assert_allclose(found.mutual_information, np.full((2, 4), math.log(3)), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ensemble_predict([], torch.ones(1)), "ensemble_predict: 'models' must hold"),
        (lambda: ensemble_predict(3, torch.ones(1)), "ensemble_predict: 'models' must hold"),
        (lambda: ensemble_predict(["a"], torch.ones(1)), "'models' must hold at least one model"),
        (
            lambda: ensemble_predict(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2)),
            "'models' must be a sequence of models, got an object of type Sequential",
        ),
        (lambda: ensemble_predict([nn.Identity()], 3), "'inputs' must be a batch or batches"),
        (lambda: ensemble_predict([nn.Identity()], []), "'inputs' must hold at least one batch"),
        (
            lambda: ensemble_predict([nn.Identity()], [torch.ones(2, 3), torch.ones(2, 4)]),
            "'inputs' must give outputs of one shape",
        ),
        (
            lambda: ensemble_predict([nn.Identity()], torch.ones(2, 3), combine="mean"),
            "ensemble_predict: 'combine' must be one of",
        ),
        (
            lambda: ensemble_predict([nn.Identity()], torch.ones(2, 3), weights=[1, 2]),
            "ensemble_predict: 'weights' must be 1 numbers",
        ),
        (
            lambda: ensemble_predict([lambda x: "yes"], torch.ones(2, 3)),
            "ensemble_predict: 'models' must return a tensor",
        ),
        (lambda: EnsemblePrediction.of([]), "'members' must hold arrays of one shape, got none"),
        (lambda: EnsemblePrediction.of(np.ones(3)), "'members' must be floats of shape"),
        (lambda: EnsemblePrediction.of(np.ones((2, 3)), weights=[0, 0]), "'weights' must be 2"),
        (lambda: EnsemblePrediction.of(np.ones((2, 3)), weights=["a", 1]), "'weights' must be 2"),
        (lambda: disagreement(np.ones((1, 2, 3))), "two members or more"),
        (lambda: disagreement(np.ones((2, 2, 3)), logits=False), "must be probabilities"),
        (lambda: disagreement(np.ones((2, 2, 3)), weights=[1, 0]), "'weights' must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
