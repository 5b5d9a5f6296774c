"""Every tensor of a source is a layer or is listed as skipped, once, whatever the names are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyspectra as ps
from pyspectra.errors import FormatError
from pyspectra.training import average_checkpoints
from pyspectra.weights import WeightSource, open_weights

Array = np.ndarray

FOLDERS = st.sampled_from(
    ["model", "state_dict", "module", "net", "a", "a.b", "encoder", "optimizer", "model_ema", "ema",
     "config", 1, "1", None, "None", ""]
)  # fmt: skip
LEAVES = st.sampled_from(
    ["weight", "a.weight", "a", "b.weight", "a.b.weight", "b", "bias", "w.bias", "encoder", 1, "1",
     "in_proj_weight", "experts.down", "q.lora_A.weight", "q.lora_B.weight", "q.lora_down.weight",
     "q.lora_up.weight", "c_attn.weight", "c_attn[q].weight", "q[lora BA].weight", "q.alpha",
     "weight_ih_l0", "model", "", ".weight"]
)  # fmt: skip
RANKS = st.sampled_from([0, 1, 2, 2, 2, 3])


def trees() -> st.SearchStrategy[dict[Any, Any]]:
    leaf = st.dictionaries(LEAVES, RANKS, max_size=5)
    return st.recursive(
        leaf,
        lambda inner: st.tuples(leaf, st.dictionaries(FOLDERS, inner, max_size=3)).map(
            lambda two: {**two[1], **two[0]}
        ),
        max_leaves=6,
    )


def filled(tree: dict[Any, Any], sides: Iterator[int]) -> dict[Any, Any]:
    """Put an array of a shape of its own in the place of every rank."""
    out: dict[Any, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out[key] = filled(value, sides)
        else:
            side = next(sides)
            shape = (side, 3, 2)[:value]
            array = np.full(shape, side, np.float32)
            out[key] = array
    return out


def arrays(tree: dict[Any, Any], path: str = "") -> Iterator[tuple[str, Array]]:
    for key, value in tree.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            yield from arrays(value, f"{name}.")
        else:
            yield name, value


def below(tree: dict[Any, Any], name: str) -> Iterator[Array]:
    """Arrays in a mapping that goes by this dotted name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            if str(key) == name:
                yield from (array for _, array in arrays(value))
            elif name.startswith(f"{key}."):
                yield from below(value, name[len(str(key)) + 1 :])


def mark(array: Array) -> Any:
    """What tells an array from all others: its value."""
    return float(array.reshape(-1)[0])


def assert_all_listed(source: WeightSource, tree: dict[Any, Any]) -> None:
    everything = Counter(mark(array) for _, array in arrays(tree))
    found: Counter[float] = Counter()
    for layer in source.layers:
        if layer.part_of is None and layer.kind != "lora":
            found[mark(layer.load().data)] += 1
    assert len({layer.name for layer in source.layers}) == len(source.layers)
    unnamed = []
    for row in source.skipped:
        str(row.reason)
        if row.shape is not None and row.shape != ():
            found[float(row.shape[0])] += 1  # every array has a first side of its own
        else:
            unnamed.append(row)
    # Scalars, and mappings that are listed as one: by their names.
    scalars = Counter(n for n, array in arrays(tree) if array.shape == ())
    covered = set()
    for row in unnamed:
        inside = [row.name, f"{row.name}.weight"]
        inside += [full for full in scalars if full.endswith((f".{row.name}", f".{inside[1]}"))]
        covered |= {mark(a) for n, a in arrays(tree) if a.shape == () and n in inside}
        for depth in ("", *prefixes(tree)):
            covered |= {mark(array) for array in below(tree, f"{depth}{row.name}")}
    for value, count in everything.items():
        assert found[value] + (value in covered and not found[value]) == count, (value, tree)


def prefixes(tree: dict[Any, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{path}{key}."
            yield from prefixes(value, f"{path}{key}.")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_of_a_nested_mapping(tree: dict[Any, Any]) -> None:
    content = filled(tree, iter(range(4, 1000)))
    assert_all_listed(open_weights(content), content)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(trees())
def test_of_a_torch_checkpoint(tmp_path: Path, tree: dict[Any, Any]) -> None:
    torch = pytest.importorskip("torch")

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tensors(v) for k, v in value.items()}
        return torch.from_numpy(np.array(value))

    content = filled(tree, iter(range(4, 1000)))
    torch.save(tensors(content), tmp_path / "m.pt")
    assert_all_listed(open_weights(tmp_path / "m.pt"), content)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(LEAVES.filter(lambda k: isinstance(k, str) and k != ""), RANKS, max_size=12))
def test_of_flat_files(tmp_path: Path, ranks: dict[str, int]) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    content = filled(ranks, iter(range(4, 1000)))
    save_file(content, tmp_path / "m.safetensors")
    assert_all_listed(open_weights(tmp_path / "m.safetensors"), content)
    np.savez(tmp_path / "m.npz", **content)
    assert_all_listed(open_weights(tmp_path / "m.npz"), content)


def test_of_a_module_and_its_state_dict() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.ModuleDict({
        "a": nn.Linear(5, 4), "conv": nn.Conv2d(3, 2, 3), "rnn": nn.LSTM(4, 3),
        "norm": nn.BatchNorm1d(7),
        "attention": nn.MultiheadAttention(8, 2), "bilinear": nn.Bilinear(2, 3, 4),
    })  # fmt: skip
    model["tied"] = nn.Linear(5, 4, bias=False)
    model["tied"].weight = model["a"].weight
    model.weight = nn.Parameter(torch.ones(3, 3))
    names = {key.removesuffix(".weight") for key in model.state_dict()}
    for source in map(open_weights, (model, model.state_dict())):
        listed = Counter(layer.name for layer in source.layers if layer.part_of is None)
        listed.update(row.name for row in source.skipped)
        assert listed == Counter(names)


# --- names that collide -------------------------------------------------------------------------


def W(rows: int) -> Array:
    return np.random.default_rng(rows).standard_normal((rows, 9))


@pytest.mark.parametrize(
    ("content", "layers", "skipped"),
    [
        (
            {"encoder": W(12), "model": {"g.weight": W(13)}, "discriminator": {"d.weight": W(14)}},
            {"g": 13},
            {("encoder", (12, 9), "beside_model"), ("discriminator", None, "other_weights")},
        ),
        ({1: W(12), "1": W(13)}, {"1": 12}, {("1", (13, 9), "same_name")}),
        (
            {"a": {"b.weight": W(12)}, "a.b.weight": W(13)},
            {"a.b": 12},
            {("a.b", (13, 9), "same_name")},
        ),
        ({"a": W(12), "a.weight": W(13)}, {"a.weight": 13}, {("a", (12, 9), "name")}),
        ({"b": W(12), "b.c": W(13)}, {"b": 12, "b.c": 13}, set()),
        (
            {"model": {"a.weight": W(12)}, "optimizer": {"m": W(13)}, "moments": [W(14)]},
            {"a": 12},
            {("optimizer", None, "training_state"), ("moments", None, "not_a_tensor")},
        ),
        (
            {"a": {"w.weight": W(12)}, "model_ema": {"w.weight": W(13)}},
            {"a.w": 12},
            {("model_ema", None, "other_weights")},
        ),
    ],
)
def test_names_that_collide(
    content: dict[Any, Any], layers: dict[str, int], skipped: set[Any]
) -> None:
    source = open_weights(content)
    assert {la.name: la.load().data.shape[0] for la in source.layers} == layers
    assert {(s.name, s.shape, s.skip.code) for s in source.skipped} == skipped


def test_a_key_that_a_reason_tells_can_be_used() -> None:
    content = {
        "state": {"a": {"w.weight": W(12)}, "model_ema": {"w.weight": W(13)}, "x": {"y": W(14)}},
    }
    source = open_weights(content, key="state")
    keys = [s.skip.detail["key"] for s in source.skipped if s.skip.code == "other_weights"]
    assert keys == ["state.model_ema"]
    assert open_weights(content, key=keys[0]).layers[0].shape == (13, 9)


def test_what_collides_stays_listed_beside_a_base_model() -> None:
    report = ps.analyze(
        {1: W(12), "1": W(13), "b": W(14)}, base_model={"1": W(22)[:12], "b": W(23)[:14]}
    )
    assert {(s.name, s.skip.code) for s in report.skipped} == {("1", "same_name")}
    assert [row.name for row in report.layers] == ["1", "b"]


def test_averaging_keeps_every_tensor_or_refuses(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for content in (
        {1: torch.ones(2), "1": torch.zeros(2), "b": torch.ones(3)},
        {1: torch.ones(2), "1": 3, "b": torch.ones(3)},
    ):
        for path in paths:
            torch.save(content, path)
        with pytest.raises(FormatError, match="two entries go by the name '1'"):
            average_checkpoints(paths, tmp_path / "mean.pt")
    for path in paths:
        torch.save({"a": torch.ones(2), "deep": {"er": {"b": torch.ones(2)}}}, path)
    with pytest.raises(FormatError, match="'deep' holds tensors beside those of the state dict"):
        average_checkpoints(paths, tmp_path / "mean.pt")
    assert not (tmp_path / "mean.pt").exists()


# --- mappings that hold one another -------------------------------------------------------------


def holding_itself() -> Iterator[dict[Any, Any]]:
    tensor = np.ones((9, 8), np.float32)
    for name in ("model", "state_dict", "x"):
        for own in ({}, {"w": tensor}, {"w.weight": tensor}):
            content: dict[Any, Any] = dict(own)
            content[name] = content
            yield content
    one: dict[Any, Any] = {}
    one["model"] = {"model": one, "net": {"w": tensor}}
    yield one


def test_a_mapping_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def as_torch(value: Any, memo: dict[int, Any]) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if id(value) not in memo:
            memo[id(value)] = made = {}
            made.update({k: as_torch(v, memo) for k, v in value.items()})
        return memo[id(value)]

    for content in holding_itself():
        torch.save(as_torch(content, {}), tmp_path / "m.pt")
        for source in map(open_weights, (content, tmp_path / "m.pt")):
            codes = Counter(s.skip.code for s in source.skipped)
            assert codes["cycle"] + codes["other_weights"] == 1
            assert len(source.layers) + codes["name"] <= 1
            assert max(len(s.name) for s in source.skipped) < 20
        paths = [tmp_path / "m.pt", tmp_path / "n.pt"]
        torch.save(as_torch(content, {}), paths[1])
        try:
            average_checkpoints(paths, tmp_path / "out.pt", overwrite=True)
        except FormatError:
            continue
        assert "w" in "".join(torch.load(tmp_path / "out.pt", weights_only=True))


def test_mappings_that_hold_one_another_many_times_are_refused_at_once(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for leaf in ({"a.weight": torch.ones(9, 8)}, {"a": 1}):
        content: dict[str, Any] = leaf
        for _ in range(7):
            content = {f"m{i}": content for i in range(12)}
        torch.save({"model": content}, tmp_path / "m.pt")
        torch.save({"model": content}, tmp_path / "n.pt")
        assert (tmp_path / "m.pt").stat().st_size < 5000
        start = time.process_time()
        with pytest.raises(FormatError, match=r"m\.pt: refused: mappings that hold one another"):
            open_weights(tmp_path / "m.pt")
        with pytest.raises(FormatError):
            average_checkpoints([tmp_path / "m.pt", tmp_path / "n.pt"], tmp_path / "o.pt")
        # A hang is what is looked for: it took 4.3 s, and takes some hundredths of one.
        assert time.process_time() - start < 2


def test_what_many_entries_share_is_looked_at_once() -> None:
    many: dict[str, Any] = {str(i): i for i in range(30_000)}
    start = time.process_time()
    for shared in (many, list(many)):
        content = {f"k{i}": shared for i in range(30_000)}
        source = open_weights({**content, "model": {"a.weight": W(12)}})
        assert [la.name for la in source.layers] == ["a"]
    assert time.process_time() - start < 20


def test_mappings_that_are_merely_shared_are_listed_under_both_names() -> None:
    block = {"fc.weight": W(12)}
    source = open_weights({"a": block, "b": block})
    assert [la.name for la in source.layers] == ["a.fc"]
    assert [(s.name, s.same_as) for s in source.skipped] == [("b.fc", "a.fc")]


def test_what_is_nested_too_deeply_is_one_line() -> None:
    content: dict[str, Any] = {"a.weight": W(12)}
    for _ in range(40):
        content = {"in": content}
    assert len(open_weights(content).layers) == 1
    for _ in range(40):
        content = {"in": content}
    (row,) = open_weights(content).skipped
    assert row.skip.code == "too_deep"
