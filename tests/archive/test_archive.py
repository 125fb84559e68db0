"""Archives of embeddings: what is stored, what is found, and that a stopped run goes on."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording
from hypothesis import given
from hypothesis import strategies as st
from rule_made import by_rule

from htsat_sed.annotations import read_events
from htsat_sed.archive.nearest import (
    Prepared,
    Query,
    clusters,
    components,
    open_prepared,
    prepare,
    search,
)
from htsat_sed.archive.store import Archive, Embedded, Kind
from htsat_sed.cli.search import parse_query
from htsat_sed.detection.detector import Detector
from htsat_sed.detection.pooling import Pooling
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

RATE = 32_000
TINY = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
KIND = Kind(model="0" * 16, checkpoints=("home",), window=2.5, hop=2.5, dimensions=4)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, by_rule(HTSAT(TINY, ("Dog", "Cat")), seed=3))
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "night").mkdir(parents=True)
    soundfile.write(folder / "street.wav", recording(12.0, RATE, 1), RATE)
    soundfile.write(folder / "night" / "owl.flac", recording(3.0, RATE, 2), RATE)
    return folder


def embedded(name: str, vectors: list[list[float]], stamp: tuple[int, int] = (1, 1)) -> Embedded:
    starts = [2.5 * i for i in range(len(vectors))]
    ends = [start + 2.5 for start in starts]
    return Embedded(name, f"/r/{name}", stamp, starts, ends, np.array(vectors, np.float16).reshape(-1, 4))


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_pooling_is_the_mean_of_whole_stretches(tokens: int, window: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, window))
    rows = np.random.default_rng(tokens).standard_normal((tokens, 3)).astype(np.float32)
    pooling = Pooling(0.5, window=0.5 * window, hop=0.5 * hop)
    cut = data.draw(st.integers(0, tokens))
    pooling.add(rows[:cut])
    pooling.add(rows[cut:])
    found = pooling.finish(0.5 * tokens - 0.1)
    starts = [0] if tokens <= window else sorted({*range(0, tokens - window + 1, hop), tokens - window})
    assert found.starts.tolist() == [0.5 * start for start in starts]
    assert found.ends.tolist() == [min(0.5 * (s + min(window, tokens)), 0.5 * tokens - 0.1) for s in starts]
    np.testing.assert_allclose(found.vectors, [rows[s : s + window].mean(axis=0) for s in starts], atol=1e-5)


def test_a_stretch_of_a_recording_is_rounded_outwards_to_tokens() -> None:
    pooling = Pooling(0.5, window=np.inf, hop=np.inf, start=1.2, end=2.1)
    pooling.add(np.arange(10, dtype=np.float32)[:, None])
    found = pooling.finish(5.0)
    assert (found.starts.tolist(), found.ends.tolist()) == ([1.0], [2.5])
    assert found.vectors.tolist() == [[3.0]]  # tokens 2, 3 and 4


def test_embeddings_of_whole_windows_are_the_models(checkpoint: Path) -> None:
    detector = Detector(checkpoint)
    samples = recording(20.0, RATE, 4)
    wanted, _ = detector.embeddings(samples, sample_rate=RATE)
    from htsat_sed.audio import InMemory

    ((_, found),) = detector.all_embeddings([InMemory(samples, RATE)])
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)


def test_parts_keep_what_they_get_and_the_last_one_counts(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    assert Archive(folder).kind is None
    Archive(folder).add(KIND, [embedded("a.wav", [[1, 0, 0, 0], [0, 1, 0, 0]]), embedded("b.wav", [])])
    Archive(folder).add(KIND, [embedded("c\udcff.wav", [[0, 0, 1, 0]])])
    Archive(folder).add(KIND, [embedded("a.wav", [[0, 0, 0, 1]], stamp=(2, 5))])
    archive = Archive(folder)
    index = archive.index()
    assert [index.filenames[i] for i in index.recording] == ["c\udcff.wav", "a.wav"]
    assert np.concatenate(list(archive.vectors())).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert index.starts.tolist() == [0.0, 0.0]
    assert index.durations.tolist() == [2.5, 2.5]
    assert archive.stamps == {"/r/a.wav": (2, 5), "/r/c\udcff.wav": (1, 1)}


def test_an_archive_refuses_what_it_cannot_compare(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    Archive(folder).add(KIND, [embedded("a.wav", [[1, 0, 0, 0]])])
    other = Kind(model="1" * 16, checkpoints=("home",), window=2.5, hop=2.5, dimensions=4)
    with pytest.raises(UsageError):
        Archive(folder).add(other, [])
    (folder / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(AnnotationError, match=r"part-00001\.parquet"):
        Archive(folder)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-mother.txt").write_text("dear")
    with pytest.raises(AnnotationError):
        Archive(tmp_path / "letters")


@pytest.mark.parametrize(
    "change", ["long texts", "huge page", "empty cells", "other type", "dimensions", "no text"]
)
def test_an_archive_refuses_parts_that_it_did_not_write(tmp_path: Path, change: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "archive"
    folder.mkdir()
    Archive(folder).add(KIND, [embedded("a.wav", [[1, 0, 0, 0], [0, 1, 0, 0]])])
    path = folder / "part-00000.parquet"
    table = pq.read_table(path)
    reason = "not part of an archive"
    if change == "long texts":  # 100 MB in a few kB
        long = pa.array([f"{i}" + 50_000_000 * "a" for i in range(2)])
        pq.write_table(table.set_column(1, "path", long), path, compression="zstd", use_dictionary=False)
        reason = r"would decompress to \d+ bytes or more"
    elif (
        change == "huge page"
    ):  # the size that the page of `start` states, see tests/annotations/test_parquet.py
        pq.write_table(table, path, compression="zstd", use_dictionary=False)
        data, start = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0).column(4).data_page_offset
        assert data[start : start + 3] == b"\x15\x00\x15"
        end = start + 3 + (1 if data[start + 3] < 128 else 2)
        path.write_bytes(data[: start + 3] + b"\xfe\xff\xff\xff\x0f" + data[end:])
        reason = "states a page of 2147483647 bytes"
    elif change == "empty cells":
        pq.write_table(table.set_column(0, "filename", pa.array(["a.wav", None])), path)
        reason = "has empty cells"
    elif change == "other type":
        pq.write_table(table.set_column(4, "start", pa.array(["0", "2.5"])), path)
    elif change == "dimensions":
        (key,) = table.schema.metadata
        text = table.schema.metadata[key].replace(b'"dimensions": 4', b'"dimensions": "4"')
        pq.write_table(table.replace_schema_metadata({key: text}), path)
    else:
        broken = pa.StringArray.from_buffers(
            2, pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes()), pa.py_buffer(b"a\xff")
        )
        pq.write_table(table.set_column(0, "filename", broken), path)
        reason = "cannot be read: .*UTF"
    with pytest.raises(
        AnnotationError, match=rf"part-00000\.parquet: {reason}|part-00000\.parquet: is {reason}"
    ):
        Archive(folder).index()


def test_search_finds_the_nearest_as_numpy_does(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    rng = np.random.default_rng(5)
    raw = rng.standard_normal((3000, 4)).astype(np.float16)
    raw[7] = 0.0  # silence
    Archive(folder).add(KIND, [embedded(f"{i}.wav", raw[3 * i : 3 * i + 3].tolist()) for i in range(1000)])
    archive = Archive(folder)
    prepared, index = open_prepared(archive), archive.index()
    mean, turn = components(raw.astype(np.float32))
    plain = prepare(raw.astype(np.float32), mean, turn)
    query = Query(raw[300].astype(np.float32), "/r/100.wav", 0.0, 2.5)
    wanted = np.argsort(-(plain @ plain[300]), kind="stable")
    wanted = wanted[wanted != 300][:9]
    hits = search(prepared, index, [query], count=9)
    rows = [3 * hit.recording + round(hit.start / 2.5) for hit in hits]
    np.testing.assert_allclose((plain @ plain[300])[rows], (plain @ plain[300])[wanted], atol=2e-3)
    assert np.isclose([hit.score for hit in hits], (plain @ plain[300])[rows], atol=2e-3).all()
    one = search(prepared, index, [query], count=900, per_recording=1)
    assert len({hit.recording for hit in one}) == len(one) == 900
    unlike = search(prepared, index, [query], [query], count=3)
    assert [hit.recording for hit in unlike] == [hit.recording for hit in hits[:3]]
    assert not prepared.vectors[7].any()


def test_more_stretches_than_are_compared_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch", reason="the extra search is not installed")
    folder = tmp_path / "archive"
    folder.mkdir()
    raw = np.random.default_rng(6).standard_normal((2000, 4)).astype(np.float16)
    Archive(folder).add(KIND, [embedded("long.wav", raw.tolist())])
    exact = open_prepared(Archive(folder))
    monkeypatch.setattr("htsat_sed.archive.nearest.EXACT", 1000)
    said: list[str] = []
    for _ in range(2):
        quick = open_prepared(Archive(folder), said.append)
        query = exact.vectors[11].astype(np.float32)
        assert quick.best(query, 1)[0].tolist() == [11]
        both = set(quick.best(query, 20)[0]) & set(exact.best(query, 20)[0])
        assert len(both) >= 18
    assert len(said) == 1  # the index is made once


def test_prepared_vectors_follow_the_parts(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    Archive(folder).add(KIND, [embedded("a.wav", [[1, 0, 0, 0], [0, 1, 0, 0]])])
    assert len(open_prepared(Archive(folder)).vectors) == 2
    Archive(folder).add(KIND, [embedded("b.wav", [[0, 1, 1, 0]])])
    assert len(open_prepared(Archive(folder)).vectors) == 3


def test_clusters_part_what_is_apart() -> None:
    rng = np.random.default_rng(1)
    centres = np.eye(4, dtype=np.float32)[:3]
    of = np.array([0] * 30 + [1] * 20 + [2] * 10)
    vectors = centres[of] + 0.05 * rng.standard_normal((60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.concatenate([vectors, np.zeros((2, 4), np.float32)]).astype(np.float16)
    groups, closeness = clusters(vectors, 3)
    assert groups.tolist() == [*of, -1, -1]  # the largest first; silence in none
    assert closeness[:60].min() > 0.9


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("night.flac@12.5-15", ("night.flac", 12.5, 15.0)),
        ("night@1-2.flac", ("night@1-2.flac", 0.0, np.inf)),
        ("night.flac", ("night.flac", 0.0, np.inf)),
    ],
)
def test_queries(text: str, wanted: tuple[str, float, float]) -> None:
    assert parse_query(text) == wanted


@pytest.mark.parametrize("text", ["q.wav@2-", "q.wav@3-2", "q.wav@2", "q.wav@0:02-0:03"])
def test_a_query_with_a_broken_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"q\.wav@") as refused:
        parse_query(text)
    assert "START-END" in str(refused.value)


def test_from_recordings_to_a_table(run: Run, recordings: Path, checkpoint: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (recordings / "broken.wav").write_bytes(b"RIFF")
    command = ("embed", recordings, "-o", archive, "-c", checkpoint)
    code, _, err = run(*command)
    assert code == 1
    assert "broken.wav" in err
    (recordings / "broken.wav").unlink()
    before = sorted(path.name for path in archive.glob("part-*"))
    assert run(*command)[0] == 0
    assert sorted(path.name for path in archive.glob("part-*")) == before == ["part-00000.parquet"]
    code, out, _ = run("search", archive, "--like", f"{recordings / 'street.wav'}@2.5-5")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {(row["filename"], row["onset"]) for row in rows} == {
        ("street.wav", onset) for onset in ("0.000", "5.000", "7.500", "9.688")
    } | {("night/owl.flac", "0.000"), ("night/owl.flac", "0.625")}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    code, _, _ = run("search", archive, "--cluster", 2, "-o", tmp_path / "groups.tsv")
    assert code == 0
    assert sum(map(len, read_events(tmp_path / "groups.tsv").values())) == 7


def test_search_keeps_labels_that_were_edited(
    run: Run, recordings: Path, checkpoint: Path, tmp_path: Path
) -> None:
    archive, tracks = tmp_path / "archive", tmp_path / "tracks"
    assert run("embed", recordings, "-o", archive, "-c", checkpoint)[0] == 0
    command = (
        "search",
        archive,
        "--like",
        f"{recordings / 'street.wav'}@2.5-5",
        "-f",
        "audacity",
        "-o",
        tracks,
    )
    assert run(*command)[0] == 0
    written = sorted(tracks.rglob("*.txt"))
    assert len(written) == 2
    code, _, err = run(*command, "-n", 1)
    assert code == 0
    assert "also holds 1 file that this search did not write" in " ".join(err.split())
    for path in written:
        path.write_text("1.0\t2.0\tmine\n")
    code, _, err = run(*command)
    assert code == 2
    assert "--overwrite" in err
    assert all(path.read_text() == "1.0\t2.0\tmine\n" for path in written)
    assert run(*command, "--overwrite")[0] == 0
    assert all("mine" not in path.read_text() for path in written)


def test_a_changed_recording_is_embedded_anew(
    run: Run, recordings: Path, checkpoint: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    command = ("embed", recordings, "-o", archive, "-c", checkpoint, "--window", 5)
    assert run(*command)[0] == 0
    soundfile.write(recordings / "night" / "owl.flac", recording(8.0, RATE, 9), RATE)
    assert run(*command)[0] == 0
    index = Archive(archive).index()
    of_owl = index.starts[index.recording == index.filenames.index("night/owl.flac")]
    assert of_owl.tolist() == [0.0, 3.125]
    code, _, err = run("embed", recordings, "-o", archive, "-c", checkpoint, "--window", 10)
    assert code == 2
    assert "window" in err


def test_a_stopped_run_goes_on(
    run: Run, recordings: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    command = ("embed", recordings, "-o", archive, "-c", checkpoint)

    def stopped(*_: object) -> None:
        raise HtsatSedError(archive, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "add", stopped)
        code, _, err = run(*command)
    assert code == 1
    assert "2 of 2 recordings are done; the same command resumes" in err
    assert (archive / "htsat-sed.journal").exists()
    code, _, err = run(*command)
    assert code == 0
    assert "2 of 2 recordings are done already" in err
    assert sorted(Archive(archive).index().filenames) == ["night/owl.flac", "street.wav"]
    assert not (archive / "htsat-sed.journal").exists()


def test_search_refuses_another_model(run: Run, recordings: Path, checkpoint: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    assert run("embed", recordings, "-o", archive, "-c", checkpoint)[0] == 0
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, by_rule(HTSAT(TINY, ("Dog", "Cat")), seed=4))
    code, out, err = run("search", archive, "-c", other, "--like", recordings / "street.wav")
    assert (code, out) == (2, "")
    assert "another model" in err
    assert run("search", archive, "--like", f"{recordings / 'street.wav'}@20-30")[0] == 1


def test_prepared_scores_are_inner_products() -> None:
    vectors = np.random.default_rng(2).standard_normal((2500, 4)).astype(np.float16)
    prepared = Prepared(vectors, np.zeros(4, np.float32), np.eye(4, dtype=np.float32))
    query = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    np.testing.assert_allclose(prepared.scores(query), vectors.astype(np.float32) @ query, atol=1e-4)
