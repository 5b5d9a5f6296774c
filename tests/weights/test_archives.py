"""Archives: what unpacks to more than it should, and ties in ``.npz`` files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.errors import FormatError
from pyspectra.weights import open_weights
from pyspectra.weights.formats import npz, zips


def W(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (12, 9)).astype(np.float32)


# --- what unpacks to more than it should --------------------------------------------------------


def test_an_array_that_unpacks_to_hundreds_of_times_its_size_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAX_UNPACKED_BYTES", 10_000)
    weights = {"zero": np.zeros((500, 100), np.float32), "some": W(0, 500, 100)}
    np.savez_compressed(tmp_path / "m.npz", **weights)
    source = open_weights(tmp_path / "m.npz")
    assert [la.name for la in source.layers] == ["some"]
    (row,) = source.skipped
    assert (row.name, row.shape, row.skip.code, row.failed) == ("zero", (500, 100), "unpacks", True)
    assert "unpack to 200128, over 100 times" in row.reason
    assert "numpy.savez" in row.reason
    report = ps.analyze(tmp_path / "m.npz")
    assert [(f.code, f.severity) for f in report.findings if f.where == "zero"] == [
        ("unpacks", "error")
    ]
    # As the message says.
    np.savez(tmp_path / "stored.npz", **weights)
    assert [la.name for la in open_weights(tmp_path / "stored.npz")] == ["some", "zero"]


def test_the_size_that_an_archive_gives_itself_does_not_help_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAX_UNPACKED_BYTES", 10_000)
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros((500, 100), np.float32))
    raw = bytearray((tmp_path / "m.npz").read_bytes())
    place = raw.rindex(b"PK\x01\x02")
    raw[place + 20 : place + 24] = (100_000).to_bytes(4, "little")  # compressed size
    (tmp_path / "forged.npz").write_bytes(raw)
    (row,) = open_weights(tmp_path / "forged.npz").skipped
    assert row.skip.code == "unpacks"


def test_the_limit_is_a_quarter_of_a_gigabyte() -> None:
    assert (npz.MAX_UNPACKED_BYTES, npz.MAX_RATIO) == (1 << 28, 100)


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x02" + b"N" * 100_000_000 + b".",
        b"\x80\x02X" + (50_000_000).to_bytes(4, "little") + b"a" * 50_000_000 + b".",
        b"\x80\x04(" + b"\x8f" * 2_000_000 + b"l.",
    ],
)
def test_a_pickle_that_unpacks_to_a_thousand_times_its_size(tmp_path: Path, pickle: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", pickle)
    assert len(out.getvalue()) < 200_000
    (tmp_path / "m.pt").write_bytes(out.getvalue())
    with pytest.raises(FormatError, match=r"when it is unpacked; torch\.save stores it"):
        open_weights(tmp_path / "m.pt")


def test_a_checkpoint_that_was_packed_again_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({f"{i}.weight": torch.from_numpy(W(i)) for i in range(300)}, tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as source,
        zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed,
    ):
        for info in source.infolist():
            is_pickle = info.filename.endswith("data.pkl")
            method = zipfile.ZIP_DEFLATED if is_pickle else zipfile.ZIP_STORED
            packed.writestr(info.filename, source.read(info), method)
    assert len(open_weights(tmp_path / "packed.pt").layers) == 300
    assert zips.MAX_UNPACKED_BYTES == 1 << 20


# --- ties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_equal_matrices_are_one_weight(tmp_path: Path, save: object) -> None:
    weights = {
        "head.weight": W(0), "emb.weight": W(0), "other.weight": W(1), "norm_a.weight": W(2, 9),
        "norm_b.weight": W(2, 9), "zero_a.weight": np.zeros((9, 8), np.float32),
        "zero_b.weight": np.zeros((9, 8), np.float32), "turned.weight": np.asfortranarray(W(0)),
        "ones_a.weight": np.ones((9, 8), np.float32), "ones_b.weight": np.ones((9, 8), np.float32),
    }  # fmt: skip
    path = tmp_path / "m.npz"
    save(path, **weights)  # type: ignore[operator]
    source = open_weights(path)
    assert {la.name for la in source.layers} == {
        "emb", "turned", "other", "zero_a", "zero_b", "ones_a", "ones_b"
    }  # fmt: skip
    tie = next(s for s in source.skipped if s.name == "head")
    assert (tie.skip.code, tie.same_as) == ("equal", "emb")
    assert tie.reason == "equal to emb in every byte: one weight under two names"
    tied = {**weights, "emb.weight": weights["head.weight"]}
    assert {la.name: la.layer_id for la in source.layers} == {
        la.name: la.layer_id for la in open_weights(tied)
    }


def test_equal_checksums_are_no_tie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make an array with the checksum of another."""
    path = tmp_path / "m.npz"
    np.savez(path, a=W(0), b=W(1))
    members = zipfile.ZipFile.infolist

    def alike(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        found = members(archive)
        for info in found:
            info.CRC = 1
        return found

    monkeypatch.setattr(zipfile.ZipFile, "infolist", alike)
    monkeypatch.setattr(zipfile.ZipExtFile, "_update_crc", lambda self, data: None)
    assert [la.name for la in open_weights(path)] == ["a", "b"]


def test_ties_of_an_archive_pair_like_those_of_a_state_dict(tmp_path: Path) -> None:
    tied = {"emb.weight": W(0), "x.weight": W(1)}
    tied["head.weight"] = tied["emb.weight"]
    np.savez(tmp_path / "tied.npz", **tied)
    del tied["head.weight"]
    np.savez(tmp_path / "one_name.npz", **tied)  # as safetensors files keep a tie
    names = [tmp_path / "tied.npz", {**tied, "head.weight": tied["emb.weight"]},
             tmp_path / "one_name.npz"]  # fmt: skip
    for a in names:
        for b in names:
            found = ps.distances(a, b)
            assert {x.name for x in found.layers} == {"emb", "x"}
            assert found.only_in_a == found.only_in_b == ()
            assert found.mean == 0


def many_entries_for_one(path: Path, count: int, distinct: bool) -> None:
    """Write an archive whose directory has the same bytes under many entries."""
    values = np.tile(np.random.default_rng(0).integers(0, 2, (256, 256)).astype(np.float32), (8, 4))
    np.savez_compressed(path, a=values)
    with zipfile.ZipFile(path, "a") as archive:
        (entry,) = archive.infolist()
        for i in range(1, count):
            copy = zipfile.ZipInfo(f"a{i}.npy" if distinct else entry.filename)
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(copy, field, getattr(entry, field))
            archive.filelist.append(copy)
        archive._didModify = True


@pytest.mark.parametrize(
    ("distinct", "message"), [(False, "duplicate array names"), (True, "overlaps another array")]
)
def test_the_same_bytes_under_many_names_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distinct: bool, message: str
) -> None:
    """Each would be compared with the first, to tell whether the two are tied."""
    path = tmp_path / "model.npz"
    many_entries_for_one(path, 200, distinct)
    opened = []
    open_entry = zipfile.ZipFile.open

    def counting(archive: zipfile.ZipFile, *args: object, **options: object) -> object:
        opened.append(args)
        return open_entry(archive, *args, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", counting)
    with pytest.raises(FormatError, match=message):
        open_weights(path)
    assert not opened
