"""Files of weights that are not read, and the way from each of them to one that is.

To name the way from another one, add a record to the list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Way", "way_of", "way_of_folder"]


@dataclass(frozen=True)
class Way:
    """A kind of file or folder that is not read.

    Attributes
    ----------
    what : str
        What it is, with its article.
    hint : str
        How to save what is read, as a sentence.
    names : str
        Regular expression that matches the names of such files, in lower case.
    inside : tuple of str
        Names in a folder, any of which makes it one; ``*`` stands for anything.
    """

    what: str
    hint: str
    names: str = ""
    inside: tuple[str, ...] = ()


_KERAS: Final = "in TensorFlow, model.save('model.keras') or model.save_weights('m.weights.h5')"
_FLAT: Final = (
    "numpy.savez('model.npz', **{name: numpy.asarray(x) for name, x in "
    "flax.traverse_util.flatten_dict(params, sep='.').items()})"
)

_WAYS: Final = (
    Way(
        "a checkpoint of TensorFlow",
        f"{_KERAS} save what is read; without the model's code, numpy.savez('model.npz', **{{name: "
        "reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}) does, of reader "
        "= tf.train.load_checkpoint(path).",
        r".*\.ckpt(-\d+)?\.(index|meta|data-\d+-of-\d+)|.*\.(index|data-\d+-of-\d+)"
        r"|.*ckpt-\d+(\.meta)?",
        ("*.data-?????-of-?????",),
    ),
    Way(
        "a SavedModel of TensorFlow",
        f"{_KERAS} save what is read, or export it by tf2onnx.",
        r".*\.pb|.*\.pbtxt",
        ("saved_model.pb", "saved_model.pbtxt"),
    ),
    Way(
        "a checkpoint of orbax",
        "restore it with orbax.checkpoint.StandardCheckpointer().restore(path), and save it with "
        f"{_FLAT}.",
        inside=("manifest.ocdbt", "_CHECKPOINT_METADATA", "_METADATA", "checkpoint.ocdbt"),
    ),
    Way(
        "a model of TensorFlow Lite, whose weights are converted for devices",
        "analyse the model that it was converted from.",
        r".*\.(tflite|lite)",
    ),
    Way(
        "an archive of TorchServe",
        "unzip it, and pass the .pt or .pth file inside.",
        r".*\.mar",
    ),
    Way(
        "a model of Core ML",
        "analyse the model that it was converted from.",
        r".*\.(mlmodel|mlpackage|mlmodelc)",
        ("Manifest.json",),
    ),
    Way(
        "an engine of TensorRT, which holds compiled code for one device",
        "analyse the ONNX file or the checkpoint that it was built from.",
        r".*\.(engine|plan|trt)",
    ),
    Way(
        "a model of OpenVINO",
        "analyse the model that it was converted from.",
        r".*\.xml",
    ),
    Way(
        "a file of the older llama.cpp (GGML)",
        "convert it to GGUF with llama.cpp's convert_llama_ggml_to_gguf.py.",
        r".*\.(ggml|ggjt)|ggml-.*",
    ),
    Way(
        "a program of ExecuTorch, whose weights are converted for devices",
        "analyse the model that it was exported from.",
        r".*\.pte",
    ),
    Way(
        "a pickle, which could run code",
        "load it where you trust it, and save the weights with numpy.savez or safetensors.",
        r".*\.(pkl|pickle|joblib|dill)",
    ),
)


def way_of(path: Path) -> Way | None:
    """Return the way from a file that is not read, by its name; None if nobody knows it."""
    name = path.name.lower()
    return next((way for way in _WAYS if way.names and re.fullmatch(way.names, name)), None)


def way_of_folder(folder: Path) -> Way | None:
    """Return the way from a folder that is not read, by what it holds; None if nobody knows it."""
    name = folder.name.lower()
    for way in _WAYS:
        # Other programs have a Manifest.json, too.
        named = "Manifest.json" not in way.inside or re.fullmatch(way.names, name)
        if named and any(any(folder.glob(pattern)) for pattern in way.inside):
            return way
    return None
