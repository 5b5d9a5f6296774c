"""Child-Tuning D from scores to a resumed run: fisher_diag, child_mask, ChildAdamW."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import child_mask, fisher_diag  # noqa: E402
from pyspectra.optim import ChildAdamW  # noqa: E402


class Transformer(nn.Module):
    """Tells whether token 1 comes up more often than token 2."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.embedding = nn.Embedding(12, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 2)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def loss_fn(model: Any, batch: Any) -> Any:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(count: int) -> list[Any]:
    g = torch.Generator().manual_seed(0)
    out = []
    for _ in range(count):
        tokens = torch.randint(0, 4, (16, 10), generator=g)
        out.append((tokens, ((tokens == 1).sum(1) > (tokens == 2).sum(1)).long()))
    return out


def build() -> Any:
    torch.manual_seed(0)
    return Transformer()


def optimizer(model: Any, mask: Any) -> Any:
    return ChildAdamW(
        model.named_parameters(),
        lr=3e-3,
        weight_decay=0.02,
        mode="D",
        mask=mask,
        decay_masked=False,
        ema_decay=0.9,
        max_grad_norm=1.0,
    )


def train(model: Any, opt: Any, data: list[Any]) -> list[float]:
    model.train()
    losses = []
    for i, batch in enumerate(data):
        torch.manual_seed(i)  # of the dropout
        opt.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


def test_only_the_child_network_trains_and_it_learns() -> None:
    model, data = build(), batches(60)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    mask = child_mask(fisher_diag(model, data[:8], loss_fn), 0.3)
    size, kept = sum(m.numel() for m in mask.values()), sum(int(m.sum()) for m in mask.values())
    assert list(mask) == [
        n for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("encoder.layers.")
    ]
    assert abs(kept - 0.3 * size) <= 1
    losses = train(model, optimizer(model, mask), data)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    for name, p in model.named_parameters():
        moved = p.detach() != start[name]
        assert not moved[~mask[name]].any() if name in mask else moved.any(), name
        if name in mask:
            assert moved[mask[name]].float().mean() > 0.99


def test_the_mask_is_saved_and_resumed(tmp_path: Path) -> None:
    data = batches(12)
    model = build()
    mask = child_mask(fisher_diag(model, data[:4], loss_fn), 0.3)
    opt = optimizer(model, mask)
    train(model, opt, data[:6])
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, tmp_path / "run.pt")
    train(model, opt, data[6:])

    again = build()
    resumed = optimizer(again, None)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["opt"])
    train(again, resumed, data[6:])
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(opt.state[p]["ema"], resumed.state[q]["ema"])


def run(code: str) -> Any:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_torch_loads_with_finetune_and_never_with_the_package_alone() -> None:
    code = "import sys, pyspectra; print('pyspectra.finetune' in sys.modules)"
    assert run(code).stdout.split() == ["False"]
    code = "import sys; sys.modules['torch'] = None; import pyspectra.finetune"
    assert "pyspectra-nn[" in run(code).stderr
