"""What is fuzzed: a reader each, from a file of bytes to tensors, and averaging.

A target may refuse its input with an error of the package; whatever else it raises, a hang, or
memory without bound is a finding.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz import mutate

import pyspectra as ps
from pyspectra.training import History, average_checkpoints

SEEDS = Path(__file__).parent / "seeds"
CONTAINERS = "../../data/containers"  # golden files, from the folder of seeds

# What a caller is told to expect of a broken file.
REFUSALS = (ps.PyspectraError, FileNotFoundError)


def read(path: Path) -> None:
    """Open a file or folder and load every layer."""
    with ps.open_weights(path) as source:
        for layer in source.layers:
            layer.load()
        for skipped in source.skipped:
            str(skipped.reason)


def read_folder(path: Path) -> None:
    read(path.parent)


def read_report(path: Path) -> None:
    ps.Report.load(path)


def average(path: Path) -> None:
    """Average a broken file with the good one it was made from."""
    out = path.with_name(f"average{path.suffix}")
    out.unlink(missing_ok=True)
    try:
        average_checkpoints([path.with_name(f"good{path.suffix}"), path], out, progress=False)
    finally:
        left = [p for p in path.parent.iterdir() if p.name.endswith(".tmp")]
    if left:
        raise AssertionError(f"left behind: {left}")


def average_folders(path: Path) -> None:
    """Average a folder of shards, one of them broken, with itself."""
    other = path.parent / "other"
    if not other.exists():
        shutil.copytree(path.parent, other)
    average_checkpoints([path.parent, other], path.with_name("out.safetensors"), progress=False)


def read_history(path: Path) -> None:
    History.load(path)


@dataclass(frozen=True)
class Target:
    """One thing that reads files.

    Attributes
    ----------
    name : str
    file : str
        What the broken file is called.
    seeds : str
        Pattern of the good files, in ``seeds/``; a folder stands for all that is in it, of which
        `file` is broken.
    mutate : callable
    run : callable
        Reads the broken file.
    """

    name: str
    file: str
    seeds: str
    mutate: mutate.Mutation
    run: Callable[[Path], None] = read

    def inputs(self, seed: int, folder: Path) -> Iterator[Path]:
        """Write one broken file after the other into `folder`, and yield its path."""
        rng = random.Random(f"{self.name}/{seed}")
        found = sorted(SEEDS.glob(self.seeds))
        assert found, f"no seeds {self.seeds}"
        while True:
            source = rng.choice(found)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if source.is_dir():
                shutil.copytree(source, folder, dirs_exist_ok=True)
                source /= self.file
            good = source.read_bytes()
            path = folder / self.file
            if self.run is average:
                (folder / f"good{path.suffix}").write_bytes(good)
            path.write_bytes(self.mutate(good, rng))
            yield path


TARGETS = {
    target.name: target
    for target in (
        Target("safetensors", "model.safetensors", "*.safetensors", mutate.by_safetensors),
        Target("torch", "model.pt", "zip_*.pt", mutate.by_zip),
        Target("torch_legacy", "model.pt", "legacy_*.pt", mutate.by_pickle),
        Target("npz", "model.npz", "*.npz", mutate.by_zip),
        Target("npy", "model.npy", "*.npy", mutate.by_bytes),
        Target("onnx", "model.onnx", f"{CONTAINERS}/words.onnx", mutate.by_bytes),
        Target("gguf", "model.gguf", f"{CONTAINERS}/small.gguf", mutate.by_bytes),
        Target("flax", "model.msgpack", f"{CONTAINERS}/small.msgpack", mutate.by_bytes),
        Target("exported", "model.pt2", f"{CONTAINERS}/small.pt2", mutate.by_zip),
        Target("distributed", ".metadata", f"{CONTAINERS}/sharded", mutate.by_pickle, read_folder),
        Target("index", "model.safetensors.index.json", "shards", mutate.by_json, read_folder),
        Target("adapter", "adapter_config.json", "adapter", mutate.by_json, read_folder),
        Target("report", "report.npz", "report.saved", mutate.by_zip, read_report),
        Target("average_safetensors", "model.safetensors", "*.safetensors",
               mutate.by_safetensors, average),
        Target("average_torch", "model.pt", "zip_*.pt", mutate.by_zip, average),
        Target("average_shards", "model-00001-of-00002.safetensors", "shards",
               mutate.by_safetensors, average_folders),
        Target("tensorboard", "events.out.tfevents.runs", "*.tfevents.runs", mutate.by_bytes,
               read_history),
        Target("history", "trainer_state.json", "*.history", mutate.by_json, read_history),
        Target("lines", "run.jsonl", "*.lines", mutate.by_lines, read_history),
        Target("table", "run.csv", "*.table", mutate.by_bytes, read_history),
    )
}  # fmt: skip


def attempt(target: Target, path: Path) -> str | None:
    """Run a target on a broken file; return what went wrong, None if it was read or refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that read: not what is looked for
            target.run(path)
    except REFUSALS:
        return None
    except MemoryError:
        return "MemoryError"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
