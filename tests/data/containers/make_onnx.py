"""Write the golden files of ONNX, and the weights in them: ``python make_onnx.py`` with torch 2.13.

One by each exporter of torch. The notes on nodes that name lines of code are taken out.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

FOLDER = Path(__file__).parent


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = (self.query(y) @ self.key(y).transpose(-1, -2)).softmax(-1) @ x
        return x + self.down(self.up(x).relu())


class Words(nn.Module):
    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.blocks = nn.ModuleList([Block(8) for _ in range(2)])
        if recurrent:
            self.rnn = nn.LSTM(8, 5, num_layers=2, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(10, 8, batch_first=True)
        self.head = nn.Linear(8, 6, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.gru(self.rnn(x)[0])[0] if hasattr(self, "rnn") else x)


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.depthwise, self.grouped = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1, groups=2)
        self.up, self.head = nn.ConvTranspose2d(6, 4, 2), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.grouped(self.depthwise(self.stem(x)).relu()))
        return self.head(x.mean((2, 3)))


def export(model: nn.Module, given: torch.Tensor, name: str, dynamo: bool) -> None:
    path = FOLDER / f"{name}.onnx"
    torch.onnx.export(model.eval(), (given,), str(path), dynamo=dynamo, external_data=dynamo)
    if dynamo:
        loaded = onnx.load(path, load_external_data=False)
        for node in loaded.graph.node:
            kept = [p for p in node.metadata_props if p.key.endswith("name_scopes")]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        path.write_bytes(loaded.SerializeToString())
    arrays = {key: value.numpy() for key, value in model.state_dict().items() if value.ndim > 1}
    np.savez(FOLDER / f"{name}.onnx.npz", **arrays)


def main() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (2, 4))
    export(Words(recurrent=True), tokens, "words", dynamo=False)
    export(Words(recurrent=False), tokens, "words_dynamo", dynamo=True)
    export(Images(), torch.randn(1, 3, 8, 8), "images", dynamo=True)


if __name__ == "__main__":
    main()
