"""Write the golden archive of torch.export: ``python make_exported.py`` with torch 2.13."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).parent


class Model(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 2), nn.Linear(4, 6), nn.Linear(6, 4))
        self[2].weight = nn.Parameter(torch.randn(6, 4).t())  # not row by row
        self.register_buffer("steps", torch.ones(2, 3))


def main() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    program = torch.export.export(model, (torch.randn(1, 3, 5, 5),))
    torch.export.save(program, FOLDER / "small.pt2")
    # The program names the lines of code that it came from, which are nobody's business.
    with zipfile.ZipFile(FOLDER / "small.pt2") as given:
        kept = {n: given.read(n) for n in given.namelist() if "/models/" not in n}
    with zipfile.ZipFile(FOLDER / "small.pt2", "w") as out:
        for name, raw in kept.items():
            out.writestr(name, raw)
    weights = {k: v.numpy() for k, v in model.state_dict().items() if k.endswith(".weight")}
    np.savez(FOLDER / "small.pt2.npz", **weights)


if __name__ == "__main__":
    main()
