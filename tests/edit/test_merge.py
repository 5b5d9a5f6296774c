"""Merging: equal to the published formulas, to peft, for every place a model can be in."""

import importlib.util
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as sn
import safetensors.torch as st
import torch
from reference import merging as reference

import pyspectra as ps
from pyspectra.edit import merge_job, trimming
from pyspectra.edit.files import writing
from pyspectra.edit.merge_methods import METHODS
from pyspectra.edit.trimming import largest

SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "b.weight": (4, 3, 2), "scale": ()}
WEIGHTS, SCALE = (0.7, 1.3, 0.4), 0.6
DENSITY = (0.35, 0.6, 0.8)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tensors of a few numbers be read in several parts, and be counted instead of sorted."""
    monkeypatch.setattr(merge_job, "CHUNK", 10)
    monkeypatch.setattr(writing, "CHUNK", 4)
    monkeypatch.setattr(trimming, "HELD", 6)


def arrays(seed: int, near: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Return random tensors, near others if there are some, a quarter of them the same."""
    rng = np.random.default_rng(seed)
    found = {key: np.asarray(rng.standard_normal(shape)) for key, shape in SHAPES.items()}
    if near is None:
        return found
    return {k: np.asarray(near[k] + x * (rng.random(x.shape) < 0.75)) for k, x in found.items()}


BASE = arrays(0)
MODELS = [arrays(seed, BASE) for seed in (1, 2, 3)]


def options(method: str) -> dict[str, Any]:
    record = next(m for m in METHODS if m.name == method)
    found: dict[str, Any] = {"method": method, "weights": WEIGHTS, "scale": SCALE}
    if record.keeps != "all":
        found["density"] = DENSITY
    if record.keeps == "random":
        found["seed"] = 11
    return found


NAMES = [m.name for m in METHODS]


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [None, True, False])
@pytest.mark.parametrize("method", NAMES)
def test_as_the_papers_say(method: str, normalize: bool | None) -> None:
    given = {**options(method), "normalize": normalize}
    got = ps.merge(BASE, MODELS, **given)
    expected = reference.merged(BASE, MODELS, **given)
    assert list(got) == list(BASE)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-13, atol=1e-14, err_msg=key)


@pytest.mark.parametrize("method", ["ties", "magnitude_prune"])
def test_the_largest_of_the_whole_model(method: str) -> None:
    got = ps.merge(BASE, MODELS, **options(method), scope="global")
    expected = reference.merged(BASE, MODELS, **options(method), scope="global")
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-13, atol=1e-14, err_msg=key)
    apart = ps.merge(BASE, MODELS, **options(method))
    assert any(not np.allclose(got[key], apart[key]) for key in got)


def test_negative_weights_take_away() -> None:
    for method in NAMES:
        given = {**options(method), "weights": (0.7, -1.3, 0.4)}
        got, expected = ps.merge(BASE, MODELS, **given), reference.merged(BASE, MODELS, **given)
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-13, atol=1e-14, err_msg=key)


def merge_utils() -> Any:
    """Load this one module of peft, since the whole of it takes seconds to import."""
    package = importlib.util.find_spec("peft")
    if package is None or package.origin is None:
        pytest.skip("peft is not installed")
    file = Path(package.origin).parent / "utils" / "merge_utils.py"
    spec = importlib.util.spec_from_file_location("merge_utils_of_peft", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", NAMES)
def test_as_peft(method: str) -> None:
    peft = merge_utils()
    vectors = [torch.from_numpy(m["a.weight"] - BASE["a.weight"]) for m in MODELS]
    density, weights = 0.37, torch.full((3,), 0.8, dtype=torch.float64)
    if method.startswith("dare"):  # its masks are those of torch's generator: give it ours
        zero = {"a.weight": np.zeros((7, 5))}
        alone = [
            ps.merge(zero, [{"a.weight": v.numpy()} if i == j else zero for j in range(3)],
                     method="dare_linear", density=density, seed=5)["a.weight"]
            for i, v in enumerate(vectors)
        ]  # fmt: skip
        assert (
            0 < sum(np.count_nonzero(x) for x in alone) < sum(np.count_nonzero(v) for v in vectors)
        )
        vectors = [torch.from_numpy(x) for x in alone]
        name = {"dare_linear": "task_arithmetic", "dare_ties": "ties"}[method]
        with pytest.warns(UserWarning, match="density"):
            expected = (
                peft.ties(vectors, weights, density=1.0)
                if name == "ties"
                else peft.magnitude_prune(vectors, weights, density=1.0)
            )
        given: dict[str, Any] = {"density": density, "seed": 5}
    else:
        given = {} if method == "task_arithmetic" else {"density": density}
        expected = getattr(peft, method)(vectors, weights, **given)
    # peft multiplies the mean of TIES by the weight, which here is the scale.
    how = {"scale": 0.8} if method.endswith("ties") else {"weights": [0.8] * 3}
    got = ps.merge(BASE, MODELS, method=method, **how, **given)["a.weight"] - BASE["a.weight"]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-13)


def test_what_is_dropped_depends_on_seed_name_and_place_alone() -> None:
    base = {"w": np.zeros((50, 40)), "v": np.zeros((50, 40))}
    ones = {key: np.ones((50, 40)) for key in base}

    def dropped(**given: Any) -> list[np.ndarray]:
        made = ps.merge(base, [ones], method="dare_linear", density=0.3, **given)
        return [made["w"], made["v"]]

    w, v = dropped()
    assert set(np.unique(w)) == {0.0, 1 / 0.3}
    assert abs(np.count_nonzero(w) / 2000 - 0.3) < 4 * (0.21 / 2000) ** 0.5
    assert np.array_equal(w, dropped(seed=0)[0])
    second = ps.merge(base, [ones, ones], weights=[0, 1], method="dare_linear", density=0.3)["w"]
    for other in (v, dropped(seed=1)[0], second):
        assert 0.3 < np.mean((w > 0) == (other > 0)) < 0.8


def test_the_largest_are_found_by_counting() -> None:
    rng = np.random.default_rng(0)
    vector = np.round(rng.standard_normal(500), 1) * rng.choice([1.0, 1e-300, 1e12], 500)
    vector[:3] = [np.inf, -np.inf, 0.0]
    for count in (0, 1, 2, 7, 100, 333, 499, 500):
        parts = [vector[i : i + 60] for i in range(0, 500, 60)]
        trim = largest(lambda parts=parts: iter(parts), 500, count)  # type: ignore[misc]
        got = np.concatenate([trim(part) for part in parts])
        np.testing.assert_array_equal(got, reference.trimmed(vector, count))
    equal = np.full(300, -1.5)
    trim = largest(lambda: [equal[:100], equal[100:]], 300, 120)
    got = np.concatenate([trim(equal[:100]), trim(equal[100:])])
    assert np.array_equal(np.flatnonzero(got), np.arange(120))


# --- where models are ---------------------------------------------------------------------------


def tensors(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return values in four types, with integers beside them."""
    types = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    made = {k: torch.tensor(v).to(t) for (k, v), t in zip(values.items(), types, strict=True)}
    return {**made, "steps": torch.arange(5)}


class Net(torch.nn.Module):
    def __init__(self, values: dict[str, np.ndarray]) -> None:
        super().__init__()
        for key, value in tensors(values).items():
            owner: torch.nn.Module = self
            *path, name = key.split(".")
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, torch.nn.Module())
                owner = getattr(owner, part)
            if value.is_floating_point():
                setattr(owner, name, torch.nn.Parameter(value))
            else:
                owner.register_buffer(name, value)


PLACES = ("module", "state dict", "file", "torch file", "folder", "shards", "torch shards", "index")


def place(values: dict[str, np.ndarray], where: str, folder: Path) -> Any:
    """Put a model somewhere."""
    state = tensors(values)
    if where == "module":
        return Net(values)
    if where == "state dict":
        return state
    if where.endswith("file"):
        path = folder / ("model.pt" if "torch" in where else "model.safetensors")
        (torch.save if "torch" in where else st.save_file)(state, path)
        return path
    (folder / "config.json").write_text("{}")
    if where == "folder":
        st.save_file(state, folder / "model.safetensors")
        return folder
    suffix = "bin" if "torch" in where else "safetensors"
    weight_map = {}
    for i, keys in enumerate((["a.bias", "steps"], ["a.weight", "b.weight", "scale"])):
        name = f"model-{i + 1:05d}-of-00002.{suffix}"
        (torch.save if suffix == "bin" else st.save_file)(
            {k: state[k] for k in keys}, folder / name
        )
        weight_map.update(dict.fromkeys(keys, name))
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index if where == "index" else folder


def read(path: Path) -> dict[str, torch.Tensor]:
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.bin")]
    found: dict[str, torch.Tensor] = {}
    for file in files:
        is_safe = file.suffix == ".safetensors"
        found |= st.load_file(file) if is_safe else torch.load(file, weights_only=True)
    return found


def rounded(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values).to(dtype)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("where", PLACES)
def test_every_place_gives_the_same_bits(tmp_path: Path, where: str, method: str) -> None:
    folders = [tmp_path / name for name in ("base", "one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    base = place(BASE, where, folders[0])
    others = ("state dict", where, "folder")
    models = [
        place(values, other, folder)
        for values, other, folder in zip(MODELS, others, folders[1:], strict=True)
    ]
    as_stored = [
        {k: t.double().numpy() for k, t in tensors(v).items() if k in SHAPES}
        for v in (BASE, *MODELS)
    ]
    expected = reference.merged(as_stored[0], as_stored[1:], **options(method))
    if where in ("module", "state dict"):
        before = {k: t.clone() for k, t in tensors(BASE).items()}
        got = ps.merge(base, models, **options(method))
        state = base.state_dict() if where == "module" else base
        assert all(torch.equal(state[key], before[key]) for key in before)
        assert all(got[key].data_ptr() != state[key].data_ptr() for key in state)
    else:
        suffix = base.suffix if "file" in where else ""
        done = ps.merge(base, models, **options(method), out=tmp_path / f"out{suffix}")
        got = read(Path(done.path))
        assert sorted(t.name for t in done.tensors) == sorted(SHAPES)
        assert (done.n_copied, done.not_finite, done.weights) == (1, (), WEIGHTS)
        for row in done.tensors:
            deltas = [m[row.name] - as_stored[0][row.name] for m in as_stored[1:]]
            assert row.norm == pytest.approx(np.linalg.norm(as_stored[0][row.name]))
            assert row.delta_norms == pytest.approx([np.linalg.norm(d) for d in deltas])
            added = expected[row.name] - as_stored[0][row.name]
            assert row.merged_norm == pytest.approx(np.linalg.norm(added))
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
            [*(f.name for f in folders), f"out{suffix}"]
        )
        if where in ("folder", "shards", "torch shards"):
            same = {p.name for p in base.iterdir()}
            assert {p.name for p in (tmp_path / "out").iterdir()} == same
    assert set(got) == {*SHAPES, "steps"}
    for key, value in tensors(BASE).items():
        assert got[key].dtype == value.dtype
        if key == "steps":
            assert torch.equal(got[key], value)
        else:
            # The sums are taken in another order: half a spacing, and no more, is a tie.
            assert torch.allclose(got[key].double(), torch.tensor(expected[key]), rtol=2.0**-8)
            bits = rounded(expected[key], value.dtype)
            assert (got[key] != bits).double().mean() <= 0.1


def test_types_are_those_of_the_base_and_rounded_once() -> None:
    # 1 + 2^-8 is a tie of bfloat16, and a little more is not; via float32 it would be one.
    base = {"w": torch.ones(3, dtype=torch.bfloat16)}
    model = {"w": torch.tensor([1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-40, 2.0], dtype=torch.float64)}
    got = ps.merge(base, [model])["w"]
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [1.0, 1 + 2.0**-7, 2.0]
    half = {"w": np.full(2, 6e4, np.float16)}
    got = ps.merge(half, [{"w": np.array([6e4 + 1e4, 5e4])}])["w"]
    assert got.tolist() == [65504.0, 49984.0]


def test_ties_stay_and_may_be_named_once(tmp_path: Path) -> None:
    W, V = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    shared = torch.tensor(W)
    base = {"embed": shared, "head": shared, "other": torch.tensor(V)}
    one = {"embed": torch.tensor(W + 1), "other": torch.tensor(V)}
    sn.save_file({k: t.numpy() for k, t in one.items()}, tmp_path / "one.safetensors")
    again = torch.tensor(W + 2)
    two = {"head": again, "embed": again, "third": again, "other": torch.tensor(V)}
    got = ps.merge(base, [tmp_path / "one.safetensors", two])
    assert got["embed"].data_ptr() == got["head"].data_ptr()
    assert torch.equal(got["head"], shared + 3)
    torch.save(base, tmp_path / "base.pt")
    done = ps.merge(tmp_path / "base.pt", [one, two], out=tmp_path / "out.pt")
    loaded = read(tmp_path / "out.pt")
    assert loaded["embed"].data_ptr() == loaded["head"].data_ptr()
    assert [t.name for t in done.tensors] == ["embed", "other"]
    apart = {"embed": torch.tensor(W), "head": torch.tensor(W + 1), "other": torch.tensor(V)}
    with pytest.raises(ValueError, match=r"'models\[1\]' must .* 'embed' and 'head' differ"):
        ps.merge(base, [one, apart])


def test_what_is_not_finite_is_named_and_masks_stay(tmp_path: Path) -> None:
    mask = np.array([0.0, -np.inf, np.nan, -0.0])
    base = {"mask": mask, "w": np.ones(4), "v": np.ones(4)}
    broken = {**base, "w": np.array([1.0, np.nan, 2.0, np.inf])}
    for method in NAMES:
        got = ps.merge(base, [broken, base], method=method)
        assert got["mask"].tobytes() == mask.tobytes()
        assert np.array_equal(got["v"], base["v"])
        assert np.isnan(got["w"][1]) or method.startswith("dare")
    for name, state in (("base", base), ("broken", broken)):
        sn.save_file(state, tmp_path / f"{name}.safetensors")
    done = ps.merge(
        tmp_path / "base.safetensors", [tmp_path / "broken.safetensors"],
        out=tmp_path / "out.safetensors",
    )  # fmt: skip
    assert done.not_finite == ("w",)


# --- adapters -----------------------------------------------------------------------------------


def adapter(seed: int, rank: int = 2) -> dict[str, np.ndarray]:
    """Return LoRA pairs as PEFT names them: of two layers and an embedding."""
    rng = np.random.default_rng(seed)
    name = "base_model.model.layers.{}.fc.lora_{}.weight"
    found = {}
    for i in range(2):
        found[name.format(i, "A")] = rng.standard_normal((rank, 6))
        found[name.format(i, "B")] = rng.standard_normal((9, rank))
    found["base_model.model.embed.lora_embedding_A"] = rng.standard_normal((rank, 11))
    found["base_model.model.embed.lora_embedding_B"] = rng.standard_normal((6, rank))
    return found


def with_adapter(base: dict[str, np.ndarray], pairs: dict[str, np.ndarray], scale: float) -> Any:
    made = {key: W.copy() for key, W in base.items()}
    prefix = "base_model.model."
    for i in range(2):
        name = f"layers.{i}.fc"
        B, A = (pairs[f"{prefix}{name}.lora_{half}.weight"] for half in "BA")
        made[f"{name}.weight"] += scale * B @ A
    B, A = (pairs[f"{prefix}embed.lora_embedding_{half}"] for half in "BA")
    made["embed.weight"] += scale * (B @ A).T
    return made


@pytest.mark.parametrize("method", NAMES)
def test_adapters_are_what_they_add_to_the_base(tmp_path: Path, method: str) -> None:
    rng = np.random.default_rng(0)
    base = {f"layers.{i}.fc.weight": rng.standard_normal((9, 6)) for i in range(2)}
    base |= {"embed.weight": rng.standard_normal((11, 6)), "norm.bias": rng.standard_normal(6)}
    one, two = adapter(1), adapter(2)
    full = {key: W + rng.standard_normal(W.shape) for key, W in base.items()}
    sn.save_file(two, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 3.0})
    )
    given = options(method)
    expected = reference.merged(
        base, [with_adapter(base, one, 1.0), full, with_adapter(base, two, 1.5)], **given
    )
    got = ps.merge(base, [one, full, tmp_path], **given)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, atol=1e-12, err_msg=key)
    if method == "ties":
        sn.save_file(base, tmp_path / "base.safetensors")
        ps.merge(
            tmp_path / "base.safetensors", [one, full, tmp_path], out=tmp_path / "o.pt", **given
        )
        loaded = read(tmp_path / "o.pt")
        assert all(np.array_equal(loaded[key].numpy(), value) for key, value in got.items())


def test_adapters_that_do_not_fit() -> None:
    base = {"layers.0.fc.weight": np.ones((9, 6)), "layers.1.fc.weight": np.ones((9, 6)),
            "embed.weight": np.ones((11, 6))}  # fmt: skip
    pairs = adapter(0)
    head = {**pairs, "base_model.model.head.weight": np.ones((2, 6))}
    dora = {**pairs, "base_model.model.layers.0.fc.lora_magnitude_vector": np.ones(9)}
    narrow = {key: W for key, W in base.items() if "layers.1" not in key}
    wide = {**base, "layers.1.fc.weight": np.ones((6, 9))}
    for state, model, message in (
        (base, head, "which has 'base_model.model.head.weight' besides"),
        (base, dora, "lora_magnitude_vector' besides"),
        (narrow, pairs, "layers.1.fc.* belongs to no such tensor"),
        (wide, pairs, "layers.1.fc.* belongs to no such tensor"),
    ):
        begin = r"merge: 'models\[0\]' must have LoRA pairs alone.*"
        with pytest.raises(ValueError, match=begin + message):
            ps.merge(state, [model])


def adapter_folder(folder: Path, pairs: dict[str, np.ndarray], **config: Any) -> Path:
    folder.mkdir()
    sn.save_file(pairs, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, **config})
    )
    return folder


@pytest.mark.parametrize(
    ("names", "flag"), [(["square"], True), (["square", "wide"], True), (["square", "wide"], False)]
)
def test_weights_with_their_inputs_first_are_added_to_so(
    tmp_path: Path, names: list[str], flag: bool
) -> None:
    """GPT-2's: the shape of a square one tells nothing, the configuration or another one does."""
    rng = np.random.default_rng(0)
    base = {
        "square.weight": rng.standard_normal((6, 6)),
        "wide.weight": rng.standard_normal((6, 9)),
    }
    pairs = {}
    expected = dict(base)
    for name in names:
        columns, rows = base[f"{name}.weight"].shape
        A, B = rng.standard_normal((2, columns)), rng.standard_normal((rows, 2))
        pairs |= {f"base_model.model.{name}.lora_{h}.weight": x for h, x in (("A", A), ("B", B))}
        expected[f"{name}.weight"] = base[f"{name}.weight"] + (B @ A).T
    folder = adapter_folder(tmp_path / "adapter", pairs, fan_in_fan_out=flag)
    got = ps.merge(base, [folder])
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, atol=1e-12, err_msg=key)
    sn.save_file(base, tmp_path / "base.safetensors")
    of_files = ps.intruder_dimensions(tmp_path / "base.safetensors", folder)
    turned = ps.intruder_dimensions(
        {key: W.T for key, W in base.items()}, {key: W.T for key, W in expected.items()}
    )
    assert {name: x.n for name, x in of_files.items()} == {name: turned[name].n for name in names}


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_adapters_of_what_is_left_of_the_base_are_refused(tmp_path: Path, start: str) -> None:
    base = {f"layers.{i}.fc.weight": np.ones((9, 6)) for i in range(2)}
    base["embed.weight"] = np.ones((11, 6))
    folder = adapter_folder(tmp_path / "adapter", adapter(0), init_lora_weights=start)
    begin = rf"must be an adapter of the base as it is, .* init_lora_weights='{start}'"
    with pytest.raises(ValueError, match=r"merge: 'models\[0\]' " + begin):
        ps.merge(base, [folder])
    with pytest.raises(ValueError, match="reduce_intruders: 'tuned' " + begin):
        ps.reduce_intruders(base, folder, out=tmp_path / "new")
    with pytest.raises(ValueError, match="intruder_dimensions: 'tuned' " + begin):
        ps.intruder_dimensions(base, folder)
    activated = adapter_folder(tmp_path / "a", adapter(0), alora_invocation_tokens=[7, 11])
    with pytest.raises(
        ValueError, match=r"merge: 'models\[0\]' must be an adapter that counts for"
    ):
        ps.merge(base, [activated])
    plain = adapter_folder(tmp_path / "plain", adapter(0), init_lora_weights="gaussian")
    assert not np.array_equal(ps.merge(base, [plain])["embed.weight"], base["embed.weight"])


# --- what is refused ----------------------------------------------------------------------------


def test_models_that_do_not_fit() -> None:
    base = {"w": np.ones((2, 3)), "b": np.ones(2), "ids": np.arange(3)}
    for model, message in (
        ({"w": np.ones((2, 3))}, r"which lacks 'b'\.$"),
        ({}, r"which lacks 'w' \(and 1 more\)"),
        ({**base, "w": np.ones((3, 2))}, r"'w' has shape \(3, 2\) instead of \(2, 3\)"),
        ({**base, "head": np.ones(2)}, "has 'head' besides. Hint: leave out"),
        ({**base, "w": np.ones((2, 3), np.int64)}, "which lacks 'w'"),
    ):
        begin = r"merge: 'models\[1\]' must have the names and shapes of the base.*"
        with pytest.raises(ValueError, match=begin + message):
            ps.merge(base, [base, model])
    assert np.array_equal(ps.merge(base, [{**base, "ids": np.arange(9)}])["ids"], np.arange(3))


def test_bad_arguments(tmp_path: Path) -> None:
    state = {"w": np.ones((2, 3))}
    file = tmp_path / "a.safetensors"
    sn.save_file(state, file)
    calls: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (state, state, {}, TypeError, "'models' must be a sequence of models"),
        (state, str(file), {}, TypeError, "a single one goes into a list"),
        (state, [], {}, ValueError, "'models' must hold a model"),
        (state, [state], {"method": "tise"}, ValueError, "'ties'"),
        (
            state,
            [state],
            {"density": 0.5},
            ValueError,
            "go with method 'magnitude_prune' or 'ties' or",
        ),
        (state, [state], {"seed": 1}, ValueError, "'dare_linear' or 'dare_ties'"),
        (state, [state], {"method": "dare_ties", "scope": "global"}, ValueError, "'scope'"),
        (state, [state], {"method": "ties", "scope": ""}, ValueError, "'scope' must be one of"),
        (state, [state], {"method": "ties", "density": 0}, ValueError, r"in \(0, 1\]"),
        (state, [state], {"method": "ties", "density": [0.1, 0.2]}, ValueError, "each of the 1"),
        (state, [state], {"weights": [0.0]}, ValueError, "not all be 0"),
        (state, [state], {"weights": 0.5}, TypeError, "a sequence of numbers"),
        (state, [state, state], {"weights": {2.0, 1.0}}, TypeError, "numbers, got .* type set"),
        (state, [state], {"scale": np.nan}, ValueError, "'scale'"),
        (state, [state], {"normalize": 1}, TypeError, "'normalize' must be a bool"),
        (state, [state], {"out": tmp_path / "x.pt"}, ValueError, "'out' must be None"),
        (file, [state], {}, ValueError, "'out' must name a file or a folder"),
        (file, [file], {"out": file, "overwrite": True}, ValueError, "one of the inputs"),
        (state, [3], {}, TypeError, r"'models\[0\]' must be a module, a state dict or a path"),
        (state, [tmp_path / "no.pt"], {}, FileNotFoundError, r"'models\[0\]' must exist"),
        ({"i": np.arange(3)}, [state], {}, ValueError, "hold floating-point tensors"),
        ({"w": np.ones(2, complex)}, [state], {}, TypeError, "'w', which is"),
    ]
    for base, models, given, error, message in calls:
        with pytest.raises(error, match=message):
            ps.merge(base, models, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("out", ["out.safetensors", "out.pt", "out"])
def test_an_interrupted_merge_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    base = place(BASE, "file", tmp_path)
    combined, calls = merge_job.combined, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return combined(*args, **kwargs)

    monkeypatch.setattr(merge_job, "combined", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ps.merge(base, [tensors(MODELS[0])], out=tmp_path / out)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_memory_follows_the_parts_that_are_read_and_not_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((merge_job, "CHUNK"), (writing, "CHUNK"), (trimming, "HELD")):
        monkeypatch.setattr(module, name, 1 << 13)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((1024, 2048), np.float32)  # 8 MiB
    for name in ("base", "one", "two"):
        sn.save_file({"w": W + (name != "base") * rng.random(2048, np.float32)}, tmp_path / name)
        (tmp_path / name).rename(tmp_path / f"{name}.safetensors")
    base, one, two = (tmp_path / f"{name}.safetensors" for name in ("base", "one", "two"))
    tracemalloc.start()
    try:
        ps.merge(base, [one, two], method="ties", out=tmp_path / "out.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < W.nbytes / 2


def test_every_method_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "merging.md"
    text = page.read_text()
    for name in NAMES:
        assert f'"{name}"' in (ps.merge.__doc__ or "")
        assert f"``{name}``" in (ps.merge.__doc__ or "")
        assert f"| `{name}` |" in text
