"""Presence map files."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from htsat_sed.annotations import (
    PresenceMapWriter,
    path_of,
    read_metadata,
    read_presence_map,
    read_presence_maps,
    write_presence_map,
)
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError, HtsatSedError

MAP = PresenceMap(
    np.array([[0.25, 1.0], [0.0, 0.5], [0.1, 0.2]], np.float32), ("Dog", "Läuten 🔔"), 0.3125, 0.9
)


def same(one, other):
    np.testing.assert_array_equal(one.scores, other.scores, strict=True)
    return (one.labels, one.token_seconds, one.duration) == (
        other.labels,
        other.token_seconds,
        other.duration,
    )


@given(
    scores=st.tuples(st.integers(0, 5), st.integers(0, 3)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
    ),
    filename=st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, scores, filename):
    path = tmp_path_factory.mktemp("maps") / "map.npz"
    labels = tuple(f"class {k}" for k in range(scores.shape[1]))
    presence_map = PresenceMap(scores, labels, 0.3125, len(scores) * 0.3125)
    write_presence_map(path, presence_map, filename=filename, provenance={"hop": 10})
    assert same(read_presence_map(path), presence_map)
    assert read_metadata(path) == {
        "format": "htsat-sed presence map 1", "filename": filename, "provenance": {"hop": 10},
    }  # fmt: skip


def test_numpy_alone_reads_it(tmp_path):
    write_presence_map(tmp_path / "a.npz", MAP, filename="a.wav")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file) == ["duration", "labels", "metadata", "scores", "token_seconds"]
        np.testing.assert_array_equal(file["scores"], MAP.scores, strict=True)
        assert file["labels"].tolist() == ["Dog", "Läuten 🔔"]
        assert (float(file["token_seconds"]), float(file["duration"])) == (0.3125, 0.9)


def test_rows_as_they_come_make_the_same_file(tmp_path):
    write_presence_map(tmp_path / "whole.npz", MAP, filename="a.wav")
    path = tmp_path / "rows.npz"
    with PresenceMapWriter(path, labels=MAP.labels, token_seconds=0.3125, filename="a.wav") as writer:
        writer.append(MAP.scores[:2])
        writer.append(MAP.scores[2:])
        assert not path.exists()
        writer.finish(0.9)
    assert path.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_writer_that_is_not_finished_leaves_nothing(tmp_path):
    with PresenceMapWriter(tmp_path / "a.npz", labels=("x",), token_seconds=1, filename="a") as writer:
        writer.append(np.zeros((2, 1), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_wants_a_column_a_label(tmp_path):
    with (
        PresenceMapWriter(tmp_path / "a.npz", labels=("x",), token_seconds=1, filename="a") as writer,
        pytest.raises(ValueError, match=r"wanted scores of shape \(t, 1\), got \(2, 2\)"),
    ):
        writer.append(np.zeros((2, 2), np.float32))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(HtsatSedError, match=r"a\.npz: cannot be written: No such file"):
        write_presence_map(tmp_path / "no" / "a.npz", MAP, filename="a.wav")


def test_a_folder_of_maps(tmp_path):
    for filename in ("day1/b.wav", "a.wav", "day1/bad\udcff.wav"):
        path = path_of(tmp_path, filename, ".npz")
        path.parent.mkdir(exist_ok=True)
        write_presence_map(path, MAP, filename=filename)
    maps = dict(read_presence_maps(tmp_path))
    assert list(maps) == ["a.wav", "day1/b.wav", "day1/bad\udcff.wav"]
    assert all(same(presence_map, MAP) for presence_map in maps.values())


def test_two_maps_of_one_recording_are_an_error(tmp_path):
    for name in ("1.npz", "2.npz"):
        write_presence_map(tmp_path / name, MAP, filename="a.wav")
    with pytest.raises(
        AnnotationError, match=r"2\.npz: belongs to the recording a\.wav, and so does .*1\.npz"
    ):
        dict(read_presence_maps(tmp_path))


def test_a_folder_without_maps_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="contains no presence maps"):
        dict(read_presence_maps(tmp_path))
    with pytest.raises(AnnotationError, match="is not a folder"):
        dict(read_presence_maps(tmp_path / "missing"))


def members(**changed):
    standard = {
        "scores": MAP.scores,
        "labels": np.array(MAP.labels),
        "token_seconds": np.array(0.3125),
        "duration": np.array(0.9),
        "metadata": np.array('{"format": "htsat-sed presence map 1", "filename": "a.wav", "provenance": {}}'),
    }
    return {name: array for name, array in (standard | changed).items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"scores": None}, "is not a presence map: There is no item named 'scores.npy' in the archive"),
        ({"scores": MAP.scores.astype(np.float64)}, "scores are float64 and labels <U8, wanted float32"),
        ({"scores": MAP.scores[:, :1]}, r"wanted scores of shape \(T, 2\), .*got \(3, 1\)"),
        ({"scores": MAP.scores * np.float32(np.nan)}, r"has scores that are NaN or outside \[0, 1\]"),
        ({"scores": MAP.scores * 2}, r"has scores that are NaN or outside \[0, 1\]"),
        ({"labels": np.array([1, 2])}, "labels int64"),
        ({"duration": np.array([1.0, 2.0])}, "token_seconds and duration: wanted one number each"),
        ({"token_seconds": np.array(0.0)}, "wanted token_seconds > 0"),
        (
            {"labels": np.array(MAP.labels, dtype=object)},
            "is not a presence map: labels.npy has .* bytes, not .* of object",
        ),
        ({"metadata": np.array("{}")}, "is not a presence map: its metadata: 'format'"),
        ({"metadata": np.array('{"format": "other"}')}, "its metadata: format 'other', wanted 'htsat-sed"),
    ],
)
def test_what_is_no_presence_map_is_an_error(tmp_path, changed, reason):
    np.savez(tmp_path / "a.npz", **members(**changed))
    with pytest.raises(AnnotationError, match=rf"a\.npz: .*{reason}"):
        read_presence_map(tmp_path / "a.npz")


def test_what_numpy_itself_wrote_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", **members(scores=np.asfortranarray(MAP.scores)))
    assert same(read_presence_map(tmp_path / "a.npz"), MAP)


def test_compressed_maps_are_refused_since_their_size_has_no_bound(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **members())
    with pytest.raises(AnnotationError, match=r"scores\.npy is compressed or encrypted"):
        read_presence_map(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((10**13, 2), "<f4"),
        ((0, 10**13), "<f4"),
        ((10**13,), "<U0"),
        ((-3, 2), "<f4"),
        ((), "V1000000000000"),
        (("x",), "<f4"),
        ((3, 2), [("a", "O")]),
    ],
)
@pytest.mark.parametrize("name", ["scores", "labels", "duration", "metadata"])
def test_headers_that_promise_what_is_not_there_take_no_memory(tmp_path, name, shape, dtype):
    np.savez(tmp_path / "a.npz", **members(**{name: None}))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, archive.open(f"{name}.npy", "w") as member:
        text = repr({"descr": dtype, "fortran_order": False, "shape": shape})
        member.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8))
    with pytest.raises(AnnotationError, match=r"a\.npz: is not a presence map: ") as raised:
        read_presence_map(tmp_path / "a.npz")
    assert "\n" not in raised.value.reason


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "[]", "null", '{"format": 1e999}', "\udcff"]
)
def test_metadata_of_any_content_is_one_line(tmp_path, metadata):
    np.savez(tmp_path / "a.npz", **members(metadata=np.array(metadata)))
    with pytest.raises(AnnotationError, match=r"a\.npz: is not a presence map: its metadata: "):
        read_presence_map(tmp_path / "a.npz")


def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path):
    """Every byte, changed to its opposite: bytes that no reader looks at, such as dates, may change."""
    write_presence_map(tmp_path / "a.npz", MAP, filename="a.wav")
    whole = (tmp_path / "a.npz").read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            assert same(read_presence_map(tmp_path / "a.npz"), MAP)
        except AnnotationError as error:
            assert "\n" not in error.reason  # noqa: PT017


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_truncated_file_is_an_error(tmp_path, cut):
    path = tmp_path / "a.npz"
    write_presence_map(path, MAP, filename="a.wav")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(AnnotationError, match="is not a presence map"):
        read_presence_map(path)


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_presence_map(path, MAP, filename="a.wav")
    data = bytearray(path.read_bytes())
    data[data.index(MAP.scores.tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(AnnotationError, match="is not a presence map: Bad CRC-32"):
        read_presence_map(path)


def test_files_of_other_kinds_are_errors(tmp_path):
    np.save(tmp_path / "a.npy", MAP.scores)
    with pytest.raises(AnnotationError, match="is not a presence map: File is not a zip file"):
        read_presence_map(tmp_path / "a.npy")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("scores", "labels", "token_seconds", "duration", "metadata"):
            archive.writestr(f"{name}.npy", "not an array")
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    with pytest.raises(AnnotationError, match="is not a presence map"):
        read_presence_map(tmp_path / "b.npz")
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_presence_map(tmp_path / "missing.npz")
