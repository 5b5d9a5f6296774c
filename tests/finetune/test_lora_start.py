"""PiSSA and OLoRA: PEFT's products and residuals, and a model that computes what it did before."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from reference import low_rank as ref
from torch import nn

from pyspectra.finetune import init_lora, olora, pissa

# Two float32 decompositions of a matrix of norm 20: some EPS of the norm, times a rotation of the
# r-th direction with the next, whose singular values are some percent apart.
PEFT_ATOL = 2e-4
# One rounding of W, of A and of B to bfloat16, of products of size one.
BFLOAT_ATOL = 2e-2

METHODS = ("pissa", "olora")


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (7, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_factors_are_those_of_the_papers(shape: tuple[int, int], method: str) -> None:
    W = np.random.default_rng(0).standard_normal(shape)
    r, scaling = min(5, *shape), 0.25
    start = {"pissa": pissa, "olora": olora}[method](W, r, scaling=scaling)
    A, B = ref.pissa(W, r, scaling) if method == "pissa" else ref.olora(W, r)
    assert start.A.shape == (r, shape[1])
    assert start.B.shape == (shape[0], r)
    # Singular vectors have two signs: the product has one.
    np.testing.assert_allclose(start.B @ start.A, B @ A, atol=1e-8)
    np.testing.assert_allclose(np.abs(start.A), np.abs(A), atol=1e-6)
    np.testing.assert_allclose(start.residual, W - scaling * B @ A, atol=1e-8)
    share = np.linalg.norm(scaling * B @ A) ** 2 / np.linalg.norm(W) ** 2
    assert start.share == pytest.approx(share)


def test_arrays_of_any_kind() -> None:
    W = torch.randn(12, 9)
    for narrow in (W.half(), W.bfloat16(), W.double().T.contiguous().T):
        start = pissa(narrow, 3)
        np.testing.assert_allclose(start.residual + start.B @ start.A, narrow.double(), atol=1e-12)
    zero = pissa(np.zeros((4, 3)), 2)
    assert not zero.A.any()
    assert zero.share == 0.0
    assert pissa(np.full((4, 3), 1e300), 1).share == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), 1), "'W' must be a matrix"),
        ((np.zeros((0, 4)), 1), "'W' must be a matrix that is not empty"),
        ((np.full((4, 4), np.nan), 1), "'W' must be finite"),
        ((np.eye(4), 5), "'r' must be an integer from 1 to 4, got 5"),
        ((np.eye(4), 1, -1.0), "'scaling' must be positive"),
    ],
)
def test_refused_arrays(arguments: Any, message: str) -> None:
    W, r, *scaling = arguments
    for function in (pissa, olora):
        with pytest.raises(ValueError, match=f"{function.__name__}: {message}"):
            function(W, r, scaling=scaling[0] if scaling else 1.0)


# --- models of PEFT -------------------------------------------------------------------------------


class Small(nn.Module):
    """Two linear layers of different shapes, one of GPT-2's, and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.embed = nn.Embedding(11, 16)
        self.up = nn.Linear(16, 24)
        self.mid = Conv1D(20, 24)
        self.down = nn.Linear(20, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.mid(torch.tanh(self.up(self.embed(x))))
        return self.down(torch.tanh(hidden))


@pytest.fixture(scope="module")
def peft() -> Any:
    pytest.importorskip("transformers", reason="PEFT needs it")
    with warnings.catch_warnings():  # one library calls what the other has deprecated
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft", reason="PEFT's adapters are what is set")


def adapted(peft: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    torch.manual_seed(1)
    model = Small()
    with torch.no_grad():
        model.mid.weight.copy_(torch.randn(24, 20))
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["up", "mid", "down"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(lora_dropout=0.0, **options)
        return peft.get_peft_model(model.to(dtype), config)


def parts(model: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    layer = getattr(model.base_model.model, name)
    return layer.get_delta_weight("default").detach(), layer.base_layer.weight.detach()


X = torch.arange(10).reshape(2, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_products_and_residuals_are_those_of_peft(
    peft: Any, method: str, rslora: bool, dtype: torch.dtype
) -> None:
    # PEFT takes the QR of GPT-2's layers as they are stored, for which A and B have other shapes.
    names = ["up", "mid", "down"] if method == "pissa" else ["up", "down"]
    options = {"use_rslora": rslora, "target_modules": names}
    theirs = adapted(peft, dtype, init_lora_weights=method, **options)
    ours = adapted(peft, dtype, **options)
    before = ours(X).detach()
    shares = init_lora(ours, method)
    assert [*shares] == [f"base_model.model.{name}" for name in names]
    if method == "pissa":
        assert all(0.1 < share < 1.0 for share in shares.values())
    atol = PEFT_ATOL if dtype == torch.float32 else BFLOAT_ATOL
    for name in names:
        for a, b in zip(parts(ours, name), parts(theirs, name), strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a.float(), b.float(), atol=atol, rtol=0.0)
    assert ours.peft_config["default"].init_lora_weights == method
    torch.testing.assert_close(ours(X), before, atol=1e-5 if atol < 1e-2 else 3e-2, rtol=0.0)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"lora_bias": True}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_the_model_computes_what_it_did(peft: Any, method: str, options: Any) -> None:
    targets = ["embed", "up", "mid", "down"] if not options else ["up", "down"]
    model = adapted(peft, target_modules=targets, **options)
    before, weights = model(X).detach(), copy.deepcopy(model.state_dict())
    shares = init_lora(model, method)
    torch.testing.assert_close(model(X), before, atol=1e-5, rtol=0.0)
    assert [name.rpartition(".")[2] for name in shares] == [t for t in targets if t != "embed"]
    changed = {key for key, value in model.state_dict().items() if (value != weights[key]).any()}
    assert len(changed) == 3 * len(shares)
    model(X).square().mean().backward()
    for name in shares:  # both halves move from the first step on
        layer = model.get_submodule(name)
        assert layer.lora_A["default"].weight.grad.any()
        assert layer.lora_B["default"].weight.grad.any()


def test_the_residual_makes_up_for_rounded_factors(peft: Any) -> None:
    model = adapted(peft, torch.bfloat16)
    whole = parts(model, "up")[1].double()
    init_lora(model)
    layer = model.base_model.model.up
    A, B = (getattr(layer, f"lora_{x}")["default"].weight.detach().double() for x in "AB")
    residual = layer.base_layer.weight.detach().double()
    error = (residual + layer.scaling["default"] * B @ A - whole).abs()
    assert (error <= 2.0**-8 * residual.abs() + 1e-12).all()  # one rounding of the residual


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_converted_as_peft_does(peft: Any, method: str, tmp_path: Any) -> None:
    """On the first base, the adapter and its conversion to plain LoRA give the same model."""
    targets = ["up", "down"]
    model = adapted(peft, target_modules=targets)
    base = copy.deepcopy(model.unload())
    model = adapted(peft, target_modules=targets)
    init_lora(model, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "start")
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.add_(0.1 * torch.randn_like(p))
        trained = model(X).detach()
        model.save_pretrained(tmp_path / "tuned")
        model.save_pretrained(
            tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start")
        )
        for folder, rank in (("tuned", 4), ("plain", 8)):
            loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / folder)
            assert loaded.peft_config["default"].r == rank
            torch.testing.assert_close(loaded(X), trained, atol=PEFT_ATOL, rtol=0.0)
            changed = (parts(loaded, "up")[1] != base.up.weight).any()
            assert bool(changed) == (folder == "tuned")


def test_what_cannot_be_set_is_refused_and_left(peft: Any) -> None:
    def refused(model: Any, message: str, **options: Any) -> None:
        before = copy.deepcopy(model.state_dict())
        with pytest.raises((ValueError, TypeError), match=f"init_lora: {message}"):
            init_lora(model, **options)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, before[key], atol=0.0, rtol=0.0, equal_nan=True)

    refused(adapted(peft), "'method' must be one of", method="loftq")
    refused(adapted(peft), "'adapter' must be one of 'default'", adapter="other")
    refused(Small(), "'model' must have one LoRA adapter")
    refused(adapted(peft, target_modules=["embed"]), "'model' must have one LoRA adapter")
    refused(adapted(peft, r=9, target_modules=["up", "down"]), ".*rank 9 of shape .8, 20.")
    twice = adapted(peft)
    init_lora(twice)
    refused(twice, "'model' must have an adapter that was not trained.*up")
    merged = adapted(peft)
    merged.merge_adapter()
    refused(merged, "'model' must have no merged adapter")
    refused(adapted(peft, lora_alpha=0), "'model' must have a positive lora_alpha, got a scaling")
    broken = adapted(peft)
    with torch.no_grad():
        broken.base_model.model.down.base_layer.weight[0, 0] = torch.nan
    refused(broken, "'model' must be finite, got NaN or infinity in 'base_model.model.down'")
    two = adapted(peft)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two.add_adapter("more", peft.LoraConfig(r=2, target_modules=["up"]))
    refused(two, "'model' must have one LoRA adapter, got")
    refused(two, "'model' must have one adapter a layer", adapter="more")
    tied = adapted(peft, target_modules=["up"])
    tied.base_model.model.twin = nn.Linear(16, 24)
    tied.base_model.model.twin.weight = tied.base_model.model.up.base_layer.weight
    refused(tied, "'model' must share no weight that is to change, got a tied weight")
    with pytest.raises(TypeError, match=r"init_lora: 'model' must be a torch\.nn\.Module"):
        init_lora({})  # type: ignore[arg-type]
