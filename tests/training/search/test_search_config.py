"""Configurations from files: what fits its annotation, and what is said of all else."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, MissingPathError
from pyspectra.training import search
from pyspectra.training.search.config import merged


class Kind(enum.Enum):
    FAST = "fast"
    EXACT = 2
    BOTH = ("fast", 2)


@dataclass(frozen=True)
class Optimizer:
    lr: float
    steps: int = 3
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None


@dataclass(frozen=True)
class Config:
    optimizer: Optimizer = Optimizer(0.01, steps=7)
    act: Literal["relu", "gelu", 3] = "relu"
    out: Path = Path("run")
    name: str = "größe 🦎"
    amp: bool = False
    hidden: tuple[int, ...] = (64, 32)
    tags: list[str] = field(default_factory=list)
    kind: Kind = Kind.FAST
    seed: int | None = None
    size: int | float | str = 1
    table: dict[str, int] = field(default_factory=dict)
    anything: Any = None
    second: Optional[Optimizer] = None  # noqa: UP045  # the older spelling, too


def read(tmp_path, suffix, text, cls=Config, overrides=()):
    file = tmp_path / f"run.{suffix}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return search.read_config(file, cls, overrides)


TOML = """
amp = true
hidden = [1, 2]
kind = "fast"
[optimizer]
lr = 1e-4
clip = 1
"""
YAML = "amp: true\nhidden: [1, 2]\nkind: fast\noptimizer:\n  lr: 1e-4\n  clip: 1\n"
JSON = '{"amp":true,"hidden":[1,2],"kind":"fast","optimizer":{"lr":1e-4,"clip":1}}'


@pytest.mark.parametrize(("suffix", "text"), [("toml", TOML), ("yml", YAML), ("json", JSON)])
def test_all_formats_say_the_same(tmp_path, suffix, text):
    if suffix == "yml":
        pytest.importorskip("yaml")
    config = read(tmp_path, suffix, text, overrides=["act=gelu", "optimizer.steps=5"])
    wanted = Config(Optimizer(1e-4, 5, clip=1.0), "gelu", amp=True, hidden=(1, 2))
    assert config == wanted
    assert type(config.optimizer.clip) is float  # an integer does for a float, and becomes one


def test_what_a_nested_mapping_does_not_say_is_the_default_of_the_field():
    assert search.from_mapping(Config, {"optimizer": {"clip": 2.0}}).optimizer == Optimizer(
        0.01, 7, clip=2.0
    )
    given = search.from_mapping(Config, {"optimizer": Optimizer(1.0)}, ["optimizer.steps=1"])
    assert given.optimizer == Optimizer(1.0, 1)
    with pytest.raises(ArgumentValueError, match=r"'second\.lr' must be given, got no value\."):
        search.from_mapping(Config, {"second": {}})  # None has no learning rate to keep


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3), ("optimizer.lr=2", "optimizer.lr", 2.0),
        ("name=12", "name", "12"), ("name=a=b", "name", "a=b"), ("name=", "name", ""),
        ("amp=true", "amp", True), ("hidden=[8]", "hidden", (8,)), ("act=3", "act", 3),
        ("kind=2", "kind", Kind.EXACT), ("kind=BOTH", "kind", Kind.BOTH),
        ("out=x/y", "out", Path("x/y")),
        ("seed=null", "seed", None), ("seed=4", "seed", 4), ("size=1.5", "size", 1.5),
        ("size=big", "size", "big"), ("size=7", "size", 7), ('tags=["a"]', "tags", ["a"]),
        ("table.a=1", "table", {"a": 1}), ("optimizer.clip=null", "optimizer.clip", None),
        (" optimizer.clip = 3 ", "optimizer.clip", 3.0), ("anything=[1]", "anything", [1]),
    ],
)  # fmt: skip
def test_overrides_are_read_by_the_annotation(override, key, value):
    config = search.from_mapping(Config, {}, [override])
    for name in key.split("."):
        config = getattr(config, name)
    assert (type(config), config) == (type(value), value)


def test_scalars_of_numpy_are_those_of_python():
    values = {"optimizer": {"lr": np.float32(0.5)}, "act": np.int64(3), "amp": np.True_}
    config = search.from_mapping(Config, values)
    assert (config.optimizer.lr, config.act, config.amp) == (0.5, 3, True)
    assert [type(x) for x in (config.optimizer.lr, config.act, config.amp)] == [float, int, bool]


@pytest.mark.parametrize("override", ["lr", "=1", "a..b=1", ".a=1", 3])
def test_malformed_overrides(override):
    with pytest.raises(ArgumentValueError, match=r"have the form 'optimizer\.lr=1e-3'"):
        search.from_mapping(Config, {}, [override])
    with pytest.raises(ArgumentTypeError, match="be a list of texts"):
        search.from_mapping(Config, {}, "amp=true")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"optimizer": {"lr": "1e-4"}},
         "'optimizer.lr' must be a number, got '1e-4'. Hint: write it without quotes."),
        ({"optimizer": {"lr": True}}, "'optimizer.lr' must be a number, got True."),
        ({"optimizer": {"lr": math.nan}},
         "'optimizer.lr' must be a number that float64 can hold, got nan."),
        ({"optimizer": {"lr": 10**400}},
         "'optimizer.lr' must be a number that float64 can hold, got an object of type int."),
        ({"optimizer": {"lr": None}}, "'optimizer.lr' must be a number, got None."),
        ({"optimizer": {"steps": 3.0}},
         "'optimizer.steps' must be an integer, got 3.0. Hint: write 3."),
        ({"optimizer": {"steps": True}}, "'optimizer.steps' must be an integer, got True."),
        ({"optimizer": {"betas": [0.9]}},
         "'optimizer.betas' must be a list of 2 values, got [0.9]."),
        ({"optimizer": {"betas": [0.9, "x"]}}, "'optimizer.betas[1]' must be a number, got 'x'."),
        ({"optimizer": 3}, "'optimizer' must hold the fields of Optimizer, got 3."),
        ({"optimizer": {"clip": "off"}},
         "'optimizer.clip' must be a number or be null, got 'off'."),
        ({"optimzer": {}},
         "'optimzer' must be a field of Config, got an unknown key. "
         "Hint: did you mean 'optimizer'?"),
        ({"optimizer": {"learning_rate": 1}},
         "'optimizer.learning_rate' must be a field of Optimizer, got an unknown key. "
         "Hint: fields are lr, steps, betas, clip."),
        ({1: 2}, "'1' must be a field of Config, got an unknown key. Hint: fields are optimizer, "
         "act, out, name, amp, hidden, tags, kind, seed, size, table, anything, second."),
        ({"act": "gelo"},
         "'act' must be one of 'relu', 'gelu', 3, got 'gelo'. Hint: did you mean 'gelu'?"),
        ({"act": 3.0}, "'act' must be one of 'relu', 'gelu', 3, got 3.0."),
        ({"amp": "no"},
         "'amp' must be true or false, got 'no'. Hint: write false, without quotes."),
        ({"amp": 1}, "'amp' must be true or false, got 1."),
        ({"name": False}, "'name' must be text, got False. Hint: quote it."),
        ({"out": 3}, "'out' must be a path, got 3. Hint: quote it."),
        ({"hidden": "12"}, "'hidden' must be a list, got '12'."),
        ({"hidden": [1, [2]]}, "'hidden[1]' must be an integer, got [2]."),
        ({"kind": "fsat"},
         "'kind' must be one of 'fast', 2, 'BOTH', got 'fsat'. Hint: did you mean 'fast'?"),
        ({"seed": "x"}, "'seed' must be an integer or be null, got 'x'."),
        ({"table": {"a": "b"}}, "'table.a' must be an integer, got 'b'."),
        ({"table": {1: 1}}, "'table (a key)' must be text, got 1. Hint: quote it."),
        ({"table": []}, "'table' must be a mapping, got []."),
        ({"second": {"lr": "x"}}, "'second.lr' must be a number, got 'x'."),
        ([], "'mapping' must hold the fields of Config, got []."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(mapping, message):
    with pytest.raises(ArgumentValueError) as caught:
        search.from_mapping(Config, mapping)
    assert str(caught.value) == f"from_mapping: {message}"


@dataclass(frozen=True)
class Required:
    a: int
    b: int
    c: float = 1.0

    def __post_init__(self):
        if self.a < 0:
            raise ValueError("a must not be negative.")


@dataclass(frozen=True)
class Outer:
    inner: Required


def test_all_that_is_missing_is_named(tmp_path):
    with pytest.raises(ArgumentValueError) as caught:
        read(tmp_path, "json", '{"inner": {}}', Outer)
    assert str(caught.value) == (
        f"{tmp_path / 'run.json'}: 'inner.a' must be given, got no value. "
        "Hint: 'inner.b' must be given, too."
    )


def test_what_the_class_refuses_has_its_place(tmp_path):
    with pytest.raises(ArgumentValueError) as caught:
        read(tmp_path, "json", '{"inner": {"a": -1, "b": 2}}', Outer)
    assert str(caught.value) == (
        f"{tmp_path / 'run.json'}: 'inner' must be accepted by Required, got {{'a': -1, 'b': 2}}. "
        "Hint: a must not be negative."
    )


def test_classes_that_are_none():
    @dataclass
    class Unresolved:
        x: Nowhere  # noqa: F821

    @dataclass
    class Unsupported:
        x: complex = 0j

    for cls, complaint in [
        (dict, "'cls' must be a dataclass"),
        (Config(), "'cls' must be a dataclass"),
        (Unresolved, "'cls' must have annotations that can be resolved"),
    ]:
        with pytest.raises(ArgumentTypeError, match=complaint):
            search.from_mapping(cls, {})
    with pytest.raises(ArgumentTypeError, match="'x' must have an annotation that configurations"):
        search.from_mapping(Unsupported, {"x": 1})
    with pytest.raises(ArgumentTypeError, match="'config' must be a dataclass"):
        search.to_dict({})


# --- files of strangers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        ("toml", "amp = true\namp = false", "Cannot overwrite a value"),
        ("toml", "amp =", "Invalid value"),
        ("toml", "x = " + "9" * 5000, "integer string conversion"),
        ("json", '{"amp": true, "amp": false}', "the key 'amp' appears twice"),
        ("json", '{"optimizer": {"lr": 1, "lr": 2}}', "the key 'lr' appears twice"),
        ("json", "[" * 100000, "nested too deeply"),
        ("json", "3", "must hold names with values, got 3"),
        ("json", b"\xff\xfe", "can't decode"),
        ("yaml", "amp: true\namp: false", "the key 'amp' appears twice, again in line 2"),
        ("yaml", "{lr: 1, 'lr': 2}", "the key 'lr' appears twice"),
        ("yaml", "a: [1", "while parsing"),
        ("yaml", "? [a, b]\n: c", "unhashable"),
        ("yaml", "[" * 1100, "nested too deeply"),
        ("yaml", "- 1\n- 2", "must hold names with values"),
        ("yaml", "a: 1\n---\nb: 2", "another document"),
        ("yaml", "seed: " + "9" * 5000, "integer string conversion"),
        ("yaml", "seed: !!int x", "invalid literal"),
        ("yaml", "name: !!python/object/apply:os.system ['touch owned']", "python/object/apply"),
        ("yaml", "name: !!python/name:os.system ''", "python/name"),
        ("yaml", "a: \x1b[31m", "not allowed"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path, monkeypatch, suffix, text, message):
    if suffix == "yaml":
        pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ps.FormatError) as caught:
        read(tmp_path, suffix, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert str(caught.value).isprintable()
    assert [file.name for file in tmp_path.iterdir()] == [f"run.{suffix}"]  # nothing was run


def test_hostile_names_and_recursion(tmp_path):
    pytest.importorskip("yaml")
    with pytest.raises(ArgumentValueError) as caught:
        read(tmp_path, "yaml", '"\\e[31mred": 1')
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ps.FormatError, match="nested too deeply"):
        read(tmp_path, "yaml", "child: &a\n  child: *a\n", Node)
    endless = {}
    endless["child"] = endless
    with pytest.raises(ArgumentValueError, match="not be nested without end"):
        search.from_mapping(Node, endless)
    laughs = ["a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ps.FormatError, match="stand for more than 1000000 values"):
        read(tmp_path, "yaml", "\n".join([*laughs, "lr: *a11"]))


@dataclass(frozen=True)
class Node:
    child: Node | None = None


def test_scalars_of_yaml_are_those_of_version_1_2(tmp_path):
    pytest.importorskip("yaml")
    text = """
a: 1e-4
b: no
c: 010
d: 1:30
e: 2026-01-01
f: ~
g:
h: .inf
i: 0x10
j: 0o10
k: +.5
l: "1"
m: True
n: 1_000
base: &base {x: 1, y: 2}
o: {<<: *base, y: 3}
p: {<<: *base}
"""
    file = tmp_path / "a.yaml"
    file.write_text(text)

    @dataclass
    class Free:
        values: dict[str, Any]

    found = search.read_config(
        file,
        dataclasses.make_dataclass(
            "All", [(name, Any, None) for name in "abcdefghijklmnop"] + [("base", Any, None)]
        ),
    )
    values = dataclasses.asdict(found)
    assert values.pop("o") == {"x": 1, "y": 3}
    assert values.pop("p") == values.pop("base") == {"x": 1, "y": 2}
    assert list(values.values()) == [
        1e-4, "no", 10, "1:30", "2026-01-01", None, None, math.inf, 16, 8, 0.5, "1", True, "1_000",
    ]  # fmt: skip


def test_paths_that_are_no_configuration(tmp_path):
    with pytest.raises(MissingPathError, match="must be a file"):
        search.read_config(tmp_path / "none.toml", Config)
    with pytest.raises(ArgumentValueError, match=r"end with one of \.toml, \.yaml, \.yml, \.json"):
        search.read_config(tmp_path / "run.ini", Config)
    with pytest.raises(ArgumentTypeError, match="be a path"):
        search.read_config(3, Config)


def test_an_empty_file_has_all_defaults(tmp_path):
    pytest.importorskip("yaml")
    assert read(tmp_path, "yaml", "") == read(tmp_path, "toml", b"\xef\xbb\xbf") == Config()


# --- properties ---------------------------------------------------------------------------------

FINITE = st.floats(allow_nan=False)
CONFIGS = st.builds(
    Config,
    optimizer=st.builds(
        Optimizer, lr=FINITE, steps=st.integers(), betas=st.tuples(FINITE, FINITE),
        clip=st.none() | FINITE,
    ),
    act=st.sampled_from(["relu", "gelu", 3]),
    out=st.sampled_from([Path("a/b"), Path("c")]),
    name=st.text(),
    amp=st.booleans(),
    hidden=st.lists(st.integers(), max_size=3).map(tuple),
    tags=st.lists(st.text(), max_size=3),
    kind=st.sampled_from(Kind),
    seed=st.none() | st.integers(),
    size=st.integers() | FINITE | st.text(),
    table=st.dictionaries(st.text(), st.integers(), max_size=3),
    second=st.none() | st.builds(Optimizer, lr=FINITE),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
def test_a_configuration_survives_json(config):
    again = search.from_mapping(Config, json.loads(json.dumps(search.to_dict(config))))
    assert again == config
    assert type(again.size) is type(config.size)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Config)]), PLAIN))
def test_any_mapping_fits_or_is_refused_by_name(mapping):
    try:
        config = search.from_mapping(Config, mapping)
    except ArgumentValueError as error:
        config, refused = None, error.argument
    if config is None:
        assert refused.partition(".")[0].partition("[")[0].split()[0] in mapping
    else:
        assert search.from_mapping(Config, search.to_dict(config)) == config or "nan" in str(config)


def test_merging_leaves_what_it_is_given():
    mapping = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(mapping, {"a.b": 5, "d.e": 6}) == {"a": {"b": 5, "c": 2}, "d": {"e": 6}}
    assert mapping == {"a": {"b": 1, "c": 2}, "d": 3}
