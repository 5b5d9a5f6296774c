"""Networks that people start from."""

import itertools

from torch import nn
from torch.nn import functional as F


def mlp(*widths, act=nn.ReLU, dropout=0.0, flat=False):
    """Return a multilayer perceptron of these widths."""
    layers = [nn.Flatten()] if flat else []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), act()] + ([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def cnn(classes=10, norm=nn.BatchNorm2d, width=16):
    """Return two convolutions with a norm after each, for pictures of 14 x 14."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        norm(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        norm(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 9, classes),
    )


class Residual(nn.Module):
    """Residual blocks, the last norm of each starting at zero."""

    def __init__(self, classes=10, width=16, blocks=2):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            )
            for _ in range(blocks)
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent network that answers after the last step, or after every step for letters."""

    def __init__(self, width_in, width, width_out, *, cell=nn.GRU, letters=False, batch_first=True):
        super().__init__()
        self.embed = nn.Embedding(width_in, width) if letters else None
        self.cell = cell(width if letters else width_in, width, batch_first=batch_first)
        self.head = nn.Linear(width, width_out)

    def forward(self, x):
        hidden, _ = self.cell(x if self.embed is None else self.embed(x))
        return self.head(hidden if self.embed is not None else hidden[:, -1])


class Letters(nn.Module):
    """A small causal transformer over letters; `tied`: the head shares the embedding's weights."""

    def __init__(self, size, width=32, depth=2, span=32, *, tied=False, causal=True):
        super().__init__()
        self.embed, self.place = nn.Embedding(size, width), nn.Embedding(span, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head, self.causal = (
            nn.LayerNorm(width),
            nn.Linear(width, size, bias=False),
            causal,
        )
        if tied:
            nn.init.normal_(self.embed.weight, std=width**-0.5)
            self.head.weight = self.embed.weight

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if self.causal else None
        return self.head(
            self.norm(self.body(self.embed(x) + self.place.weight[: x.shape[1]], mask))
        )
