"""What a real sentence encoder is told to have changed by, after a few real training steps."""

from __future__ import annotations

import pytest
import real_models

import pyspectra as ps

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

REVIEWS = (
    ("A warm and funny film that never loses its way.", 1),
    ("The plot makes no sense and the jokes fall flat.", 0),
    ("Beautifully shot, and acted with great care.", 1),
    ("Two hours that I would like to have back.", 0),
    ("One of the best surprises of the year.", 1),
    ("Loud, long and tiresome from start to end.", 0),
    ("A quiet story, told with skill and patience.", 1),
    ("It borrows everything and understands none of it.", 0),
)
RANK = 4


class Lora(torch.nn.Module):
    """A linear layer and an update of low rank."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.a = torch.nn.Parameter(torch.randn(RANK, linear.in_features) / 20)
        self.b = torch.nn.Parameter(torch.zeros(linear.out_features, RANK))

    def forward(self, x):
        return self.linear(x) + x @ self.a.mT @ self.b.mT


@pytest.fixture(scope="module")
def start():
    folder = real_models.minilm_dir()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        [text for text, _ in REVIEWS], padding=True, return_tensors="pt"
    )
    torch.manual_seed(0)
    net = transformers.AutoModel.from_pretrained(folder)
    return net, torch.nn.Linear(384, 2), tokens


def train(net, head, tokens, parameters, lr, steps=4):
    labels = torch.tensor([label for _, label in REVIEWS])
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(
            head(net(**tokens).last_hidden_state.mean(1)), labels
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def state(net, head):
    found = {k: v.detach().clone() for k, v in net.state_dict().items()}
    return found | {"head.weight": head.weight.detach().clone()}


def test_what_was_trained_is_told(start):
    import copy

    net, head, tokens = start
    before = state(net, head)

    # A trained head on a frozen body.
    own = copy.deepcopy(head)
    train(net, own, tokens, list(own.parameters()), 1e-2)
    verdict = ps.analyze(state(net, own), base_model=before).verdict
    assert verdict.label == "cannot be judged"
    assert verdict.n_moved == 1
    assert "|dW|/|W| of head " in verdict.text

    # LoRA on query and value, merged, and merged and rounded to bfloat16.
    tuned = copy.deepcopy(net)
    for parameter in tuned.parameters():
        parameter.requires_grad_(False)
    updates, halves = [], {}
    for i, layer in enumerate(tuned.encoder.layer):
        for part in ("query", "value"):
            update = Lora(getattr(layer.attention.self, part))
            setattr(layer.attention.self, part, update)
            updates.append((f"encoder.layer.{i}.attention.self.{part}", update))
    parameters = [p for _, update in updates for p in (update.a, update.b)]
    train(tuned, head, tokens, parameters, 5e-3)
    merged = dict(before)
    for name, update in updates:
        merged[f"{name}.weight"] = before[f"{name}.weight"] + (update.b @ update.a).detach()
        halves[f"{name}.lora_A.weight"] = update.a.detach()
        halves[f"{name}.lora_B.weight"] = update.b.detach()
    for weights in (merged, {k: v.bfloat16() for k, v in merged.items()}):
        report = ps.analyze(weights, base_model=before)
        assert report.verdict.label == "low rank", report.verdict.text
        kinds = [row["change_kind"] for row in report.rows()]
        assert kinds.count(f"low rank {RANK}") >= 10
        assert len(kinds) == 12
    adapter = ps.analyze(halves, min_evals=1)
    assert adapter.verdict.text.startswith(f"Low rank: 12 LoRA updates of rank {RANK}.")
    assert {row["matrix_rank"] for row in adapter.rows()} == {RANK}

    # All weights, and the same as bfloat16.
    full = copy.deepcopy(net)
    train(full, head, tokens, list(full.parameters()), 3e-4)
    after = state(full, head)
    for weights in (after, {k: v.bfloat16() for k, v in after.items()}):
        report = ps.analyze(weights, base_model=before)
        assert report.verdict.label == "full", report.verdict.text
        low = {row["name"] for row in report.rows() if row["change_rank"]}
        # Of embeddings only the rows of these few tokens and places have moved.
        assert low <= {"embeddings.word_embeddings", "embeddings.position_embeddings"}
