"""A saved report comes back whole, and no file can make the reader do what it should not."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.report import OPTIONS, model

import pyspectra as ps
from pyspectra.types import Value

GOLDEN = Path(__file__).parents[1] / "golden"
EVERYTHING: dict[str, Any] = {
    "randomize": True, "mp_fit": True, "detx": True, "vectors": True, "bootstrap": 8
}  # fmt: skip


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "conv.weight": rng.standard_t(3, (16, 12, 2, 2)),
        "attn.in_proj_weight": rng.standard_normal((60, 20)),
        "fc.weight": rng.standard_t(3, (40, 30)).astype(np.float32),
        "zero.weight": np.zeros((20, 12)),
        "bad.weight": np.full((9, 9), np.nan),
        "tiny.weight": np.ones((2, 2)),
        "empty.weight": np.ones((0, 5)),
        "fc.bias": np.zeros(40),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        EVERYTHING,
        EVERYTHING | {"pool": False},
        {"fix_fingers": "clip_xmax", "layers": ["conv", 3]},
        {"estimator": "tpl", "xmax": 30.0},
        {"estimator": "farms(8, 3, 1)"},
        {"base_model": {k: v * 0.9 for k, v in weights().items()} | {"new.weight": np.eye(9)}},
        {"min_evals": 1000},
    ],
)
def test_everything_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    report = ps.analyze(weights(), **options)
    path = tmp_path / "report.npz"
    report.save(path)
    again = ps.Report.load(path)
    assert type(again) is ps.Report
    assert again == report
    assert hash(again) == hash(report)
    assert again.options == report.options
    assert [str(s.skip) for s in again.skipped] == [s.reason for s in report.skipped]
    assert again.to_json() == report.to_json()
    for dialect in ("pyspectra", "weightwatcher"):
        assert again.to_csv(dialect=dialect) == report.to_csv(dialect=dialect)
    assert again.findings == report.findings
    assert repr(again) == repr(report)
    for a, b in zip(again.layers, report.layers, strict=True):
        assert a.esd.evals.tobytes() == b.esd.evals.tobytes()
        assert a.measured.keys() == b.measured.keys()
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first


def test_numpy_reads_the_arrays(tmp_path: Path) -> None:
    report = ps.analyze(weights())
    report.save(tmp_path / "report.npz")
    with np.load(tmp_path / "report.npz") as arrays:
        np.testing.assert_array_equal(arrays["layers/0/esd/evals"], report.layers[0].esd.evals)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ps.analyze(weights())
    path = tmp_path / "report.npz"
    report.save(path)
    old = path.read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        ps.analyze(weights(), detx=True).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["report.npz"]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured(Value):
    number: float
    values: tuple[int, ...]


def test_a_new_measurement_is_saved_by_its_class(tmp_path: Path) -> None:
    (layer,) = ps.analyze({"fc.weight": weights()["fc.weight"]}).layers
    measured = {"new": Measured(float("inf"), (1, 2))}
    report = ps.analyze({"fc.weight": weights()["fc.weight"]})
    report = dataclasses.replace(report, layers=(dataclasses.replace(layer, measured=measured),))
    report.save(tmp_path / "a")
    assert ps.Report.load(tmp_path / "a").layers[0].measured == measured
    strange = dataclasses.replace(layer, measured={"new": object()})
    with pytest.raises(TypeError, match=r"'layers/0/measured/new' must be a .*Value, got object"):
        dataclasses.replace(report, layers=(strange,)).save(tmp_path / "a")


# --- files that are no saved report -------------------------------------------------------------


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    path = GOLDEN / "report.npz"
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def array(values: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(values), **options)
    return out.getvalue()


def with_document(change: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        document = json.loads(members["report.json"])
        change(document)
        members["report.json"] = json.dumps(document).encode()

    return apply


def layer_fields(document: Any) -> Any:
    return document["report"]["layers"]["$tuple"][0]["$class"][1]


def put(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    return with_document(lambda d: layer_fields(d).update(changes))


EVALS = "layers/0/esd/evals.npy"
HUGE = (
    array(np.zeros(3)).replace(b"(3,), }", b"(3000000000000,), }").replace(b"}            ", b"}")
)
HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "no document": (lambda m: m.pop("report.json"), "has no member 'report.json'"),
    "another document": (lambda m: m.update({"report.json": b"[1]"}), "schema is 'None'"),
    "no JSON": (lambda m: m.update({"report.json": b"{"}), "is not JSON"),
    "no text": (lambda m: m.update({"report.json": b"\xff\xfe"}), "is not JSON"),
    "a constant": (lambda m: m.update({"report.json": b"NaN"}), "NaN is not JSON"),
    "endless digits": (lambda m: m.update({"report.json": b"1" * 9999}), "is not JSON"),
    "deep nesting": (lambda m: m.update({"report.json": b"[" * 100_000}), "nested too deeply"),
    "later schema": (
        with_document(lambda d: d.update(schema="pyspectra.saved/2")),
        "schema is 'pyspectra.saved/2', not .*; a later version",
    ),
    "JSON of a report": (
        with_document(lambda d: d.update(schema="pyspectra.report/1")), "schema is 'pyspectra.rep"
    ),
    "no report": (with_document(lambda d: d.pop("report")), "holds no report"),
    "pickles": (
        lambda m: m.update({EVALS: array(np.array([{}], object), allow_pickle=True)}),
        "holds no numbers",
    ),
    "a bare pickle": (lambda m: m.update({EVALS: pickle.dumps(1)}), "is damaged"),
    "a short array": (lambda m: m.update({EVALS: m[EVALS][:-8]}), "is damaged: .* does not fit"),
    "a huge array": (lambda m: m.update({EVALS: HUGE}), "is damaged|not the size"),
    "no array": (lambda m: m.pop(EVALS), "array 'layers/0/esd/evals' is missing"),
    "two axes": (lambda m: m.update({EVALS: array(np.ones((2, 2)))}), "'evals' of ESD is of the"),
    "integers": (lambda m: m.update({EVALS: array([1, 2])}), "'evals' of ESD is of the wrong kind"),
    "other sizes": (lambda m: m.update({EVALS: array(np.ones(2))}), "of a ESD contradict"),
    "text for a number": (put(layer_id="1"), "'layer_id' of LayerReport is of the wrong kind"),
    "a truth for a number": (put(rf=True), "'rf' of LayerReport is of the wrong kind"),
    "text for a fit": (put(fit="fit"), "'fit' of LayerReport is of the wrong kind"),
    "a list for a tuple": (put(shape=[1, 2]), "'shape' of LayerReport is of the wrong kind"),
    "metrics of text": (put(metrics={"$map": {"norm": "1"}}), "'metrics' of LayerReport"),
    "a new field": (put(colour="red"), "LayerReport has no field 'colour'; a later version"),
    "a lost field": (with_document(lambda d: layer_fields(d).pop("kind")), "LayerReport has no 'k"),
    "a new class": (put(fit={"$class": ["os.system", {}]}), "there is no class 'os.system'"),
    "an odd class": (put(fit={"$class": [["x"], {}]}), "a class is not a name and fields"),
    "a new tag": (put(fit={"$call": "ls"}), r"there is no tag '\$call'"),
    "no tag": (put(fit={"a": 1, "b": 2}), "keys .*, not one tag"),
    "an odd tag": (put(fit={"$array": 3}), r"'\$array' holds a int"),
    "no number": (put(rf={"$float": "1e5"}), "'1e5' is no number"),
    "no status": (put(fit={"$status": "fine"}), "there is no status 'fine'"),
    "a new option": (
        with_document(lambda d: d["report"]["options"]["$options"].update(colour=1)),
        "its options are wrong .*'colour'",
    ),
    "a wrong option": (
        with_document(lambda d: d["report"]["options"]["$options"].update(seed=-1)),
        "its options are wrong .*'seed'",
    ),
    "a new reason": (
        with_document(
            lambda d: d["report"]["skipped"]["$tuple"][0]["$class"][1]["skip"]["$class"][1].update(
                code="moved"
            )
        ),
        "of a Skip contradict",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, members: dict[str, bytes], tmp_path: Path) -> None:
    changed = dict(members)
    change, words = HOSTILE[case]
    change(changed)
    path = write(tmp_path / "bad.npz", changed)
    with pytest.raises(
        ps.FormatError, match=f"^Report.load: 'path' .*no saved report: .*({words})"
    ):
        ps.Report.load(path)


def test_compressed_members_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    """They are small on disk, and as large as they like in memory."""
    path = write(tmp_path / "bomb", members | {"x.npy": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ps.FormatError, match="is compressed or encrypted"):
        ps.Report.load(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip file at all", bytes(1000)])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ps.FormatError, match="no saved report"):
        ps.Report.load(tmp_path / "a")


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    """One byte changed, anywhere: refused, or without consequence."""
    whole = (GOLDEN / "report.npz").read_bytes()
    want = ps.Report.load(GOLDEN / "report.npz")
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for place in rng.integers(0, len(whole), 60):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            assert ps.Report.load(path) == want
        except ps.FormatError:
            continue
    path.write_bytes(whole[:-30])
    with pytest.raises(ps.FormatError):
        ps.Report.load(path)


def test_paths_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ps.Report.load(tmp_path / "none")
    with pytest.raises(TypeError, match=r"^Report.load: 'path' must be a path"):
        ps.Report.load(3)  # type: ignore[arg-type]


# --- files of earlier versions ------------------------------------------------------------------


def test_the_golden_report_loads_and_is_what_this_version_computes() -> None:
    old = ps.Report.load(GOLDEN / "report.npz")
    new = ps.analyze(model(), **OPTIONS)
    assert [layer.label for layer in old] == [layer.label for layer in new]
    for a, b in zip(old, new, strict=True):
        assert (a.kind, a.shape, a.dtype, a.key, a.status) == (
            b.kind, b.shape, b.dtype, b.key, b.status
        )  # fmt: skip
        np.testing.assert_allclose(a.esd.evals, b.esd.evals, rtol=1e-9, atol=1e-12)
    written = json.loads((GOLDEN / "report.json").read_text(encoding="utf-8"))
    same(written, json.loads(new.to_json()))  # columns of that version; a later one may have more


def test_the_golden_json_is_what_this_version_writes() -> None:
    old = json.loads((GOLDEN / "report.json").read_text(encoding="utf-8"))
    same(old, json.loads(ps.Report.load(GOLDEN / "report.npz").to_json()))


def same(old: Any, new: Any, path: str = "") -> None:
    """All that is in the old is in the new, to rounding; later versions may add."""
    if isinstance(old, dict):
        for key, value in old.items():
            same(value, new[key], f"{path}/{key}")
    elif isinstance(old, list | tuple):
        assert len(old) == len(new), path
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            same(a, b, f"{path}/{i}")
    elif isinstance(old, float) and new is not None:
        assert new == pytest.approx(old, rel=1e-6, abs=1e-9), path
    else:
        assert old == new, path


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("/")])
def test_what_is_no_file_is_refused_and_not_read(path: Path) -> None:
    """A device that never ends took all memory."""
    if not path.exists():
        pytest.skip(f"this system has no {path}")
    with pytest.raises(ps.FormatError, match="it is not a file"):
        ps.Report.load(path)
