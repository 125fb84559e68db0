"""Parquet of other programs, and ours as they read it."""

import contextlib
import io

import pytest
from labels_made import EVENTS, TRYING_EVENTS, as_read, write

from htsat_sed.annotations import read_events, write_events
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


def test_pandas_reads_our_parquet(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a\udcff.wav": EVENTS[:1], "silence.wav": []}, "parquet")
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert list(table) == ["filename", "onset", "offset", "event_label", "score"]
    assert table.iloc[0].tolist() == ["a\\udcff.wav", 0.3125, 1.25, "Speech", 0.9312]
    assert table.iloc[1].isna().tolist() == [False, True, True, True, True]


def test_trying_events_through_pandas(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a": TRYING_EVENTS, "silence": []}, "parquet")
    pd.read_parquet(tmp_path / "e.parquet").to_parquet(tmp_path / "again.parquet")
    assert read_events(tmp_path / "again.parquet") == {"a": as_read(TRYING_EVENTS), "silence": []}


def test_parquet_by_pandas(tmp_path):
    import pandas as pd

    rows = {"event_label": ["Dog"], "onset": [1], "offset": [2.5], "filename": ["a.wav"], "more": [7]}
    pd.DataFrame(rows).to_parquet(tmp_path / "e.parquet")
    assert read_events(tmp_path / "e.parquet") == {"a.wav": [Event(1.0, 2.5, "Dog")]}
    pd.DataFrame(rows | {"onset": [None]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(AnnotationError, match="line 1: wanted seconds of 0 or more and a label"):
        read_events(tmp_path / "e.parquet")
    pd.DataFrame(rows | {"score": ["x"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(AnnotationError, match="line 1: score is not a number: 'x'"):
        read_events(tmp_path / "e.parquet")
    pd.DataFrame({"filename": ["a.wav"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(
        AnnotationError, match="lacks the columns onset, offset, event_label; it has filename"
    ):
        read_events(tmp_path / "e.parquet")


def test_a_broken_parquet_file_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_events(write(tmp_path / "e.parquet", b"PAR1 and no more"))


def test_a_small_file_with_many_rows_or_long_texts_is_refused(tmp_path):
    """Each takes a few kB on the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(name, rows):
        columns = {"filename": [name], "onset": [0.0], "offset": [1.0], "event_label": ["Dog"]}
        return pa.table({key: pa.array(cells * rows) for key, cells in columns.items()})

    path = tmp_path / "e.parquet"
    pq.write_table(table("a.wav", 2_000_000), path, row_group_size=2_000_000)
    with pytest.raises(
        AnnotationError, match="states 2000000 rows, more than a file of its size can contain"
    ):
        read_events(path)
    pq.write_table(table("a" * 1_000_000, 3), path, compression="zstd")
    with pytest.raises(AnnotationError, match="has a filename of 1000000 bytes, wanted at most 10000"):
        read_events(path)
    pq.write_table(table("a.wav", 3).set_column(1, "onset", [[[0.0]] * 3]), path)
    with pytest.raises(AnnotationError, match=r"lacks the columns onset; it has .*onset\.list"):
        read_events(path)
    pq.write_table(table("a.wav", 400_000), path, compression="zstd", use_dictionary=False)
    assert read_events(path) == {"a.wav": [Event(0.0, 1.0, "Dog")]}


def test_a_page_that_states_gigabytes_is_refused(tmp_path):
    """pyarrow would take the memory before it unpacks the page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "e.parquet"
    columns = {"filename": ["a.wav"], "onset": [0.0], "offset": [1.0], "event_label": ["Dog"]}
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    data = path.read_bytes()
    start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    head = data[start : start + 4]  # type 0, then the unpacked size as field 2 of 2 bytes
    assert head[:3] == b"\x15\x00\x15"
    length = 1 if head[3] < 128 else 2
    # 2^31 - 1 takes five bytes as a variable-length integer, zigzag; the bytes in excess come out of the data.
    huge = b"\xfe\xff\xff\xff\x0f"
    path.write_bytes(data[: start + 3] + huge + data[start + 3 + length :])
    with pytest.raises(AnnotationError, match="states a page of 2147483647 bytes"):
        read_events(path)
    from htsat_sed.annotations.parquet_pages import page_sizes

    with path.open("rb") as file:
        assert next(page_sizes(file, start, len(data))) == 2147483647


def test_page_sizes_are_those_of_the_columns(tmp_path):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from htsat_sed.annotations.parquet_pages import column_chunks, page_sizes

    @given(
        rows=st.integers(1, 3000),
        compression=st.sampled_from(["none", "snappy", "zstd", "gzip"]),
        dictionary=st.booleans(),
        version=st.sampled_from(["1.0", "2.0"]),
        page=st.sampled_from([100, 1 << 20]),
        group=st.sampled_from([700, 1 << 20]),
        chosen=st.sets(st.integers(0, 1)).map(sorted),
    )
    @settings(max_examples=15, deadline=None)
    def law(rows, compression, dictionary, version, page, group, chosen):
        path = tmp_path / "e.parquet"
        values = np.random.default_rng(rows).normal(size=rows)
        texts = [f"recording {value:.1f}" for value in values]
        pq.write_table(
            pa.table({"a": values, "b": texts}), path, compression=compression, use_dictionary=dictionary,
            data_page_version=version, data_page_size=page, row_group_size=group, write_page_index=True,
        )  # fmt: skip
        metadata = pq.ParquetFile(path).metadata
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        columns = [group.column(i) for group in groups for i in chosen]
        with path.open("rb") as file:
            for column, (start, end) in zip(columns, column_chunks(file, chosen), strict=True):
                first = (
                    column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                )
                assert (start, end) == (first, first + column.total_compressed_size)
                sizes = list(page_sizes(file, start, end))
                # The column's size has the heads as well, some 20 to 200 bytes each.
                assert 0 <= column.total_uncompressed_size - sum(sizes) <= 300 * len(sizes)

    law()


def test_a_footer_that_is_damaged_anywhere_is_read_or_refused(tmp_path):
    """Each byte of a footer in turn; pyarrow's own view of its columns ends the process for some of them."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from htsat_sed.annotations.parquet_pages import column_chunks
    from htsat_sed.errors import UsageError

    path = tmp_path / "e.parquet"
    write_events(path, {"a.wav": EVENTS}, "parquet")
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")

    @given(place=st.integers(1, footer + 8), byte=st.integers(0, 255))
    @settings(max_examples=300, deadline=None)
    def law(place, byte):
        file = io.BytesIO(data[: len(data) - place] + bytes([byte]) + data[len(data) - place + 1 :])
        try:
            chunks = column_chunks(file, range(5))
        except UsageError:
            return
        assert all(0 <= start <= end <= len(data) for start, end in chunks)

    law()


def test_a_footer_that_two_readers_would_take_for_different_ones_is_refused():
    """Thrift cuts numbers to the bits of their type and merges a field that comes twice."""
    from htsat_sed.annotations.parquet_pages import column_chunks
    from htsat_sed.errors import UsageError

    def chunks(fields):
        column = bytes([0x3C, *fields, 0, 0])  # field 3, a structure
        group = bytes([0x19, 0x1C, *column, 0])  # field 1, a list of one structure
        footer = bytes([0x49, 0x1C, *group, 0])  # field 4, the same
        return column_chunks(
            io.BytesIO(bytes(100) + footer + len(footer).to_bytes(4, "little") + b"PAR1"), {0}
        )

    size, data_page, dictionary_page = (0x76, 40), (0x26, 80), (0x26, 10)  # zigzag: 20 bytes, 40, 5
    assert chunks([*size, *data_page]) == [(40, 60)]
    assert chunks([*size, *data_page, *dictionary_page]) == [(5, 25)]
    for wrong, words in {
        (*size, 0x06, 14, 40, *data_page): "a field twice",
        (0x15, 0x80, 0x80, 0x80, 0x80, 0x20, 0x66, 40, *data_page): "a number of over 32 bits",
        (0x76, 0xFE, 0x01, *data_page): "places pages outside the file",
        (0x76, 39, *data_page): "places pages outside the file",
        (*size,): "places pages outside the file",
        (0x19, 0xF5, 0xFF, 0xFF, 0x03, *size): "is cut off",
        (0x1B, *size): "cannot be parsed",
        (*[0x19, 0x19] * 3, *[0x19] * 20): "cannot be parsed",
    }.items():
        with pytest.raises(UsageError, match=words):
            chunks(wrong)


def test_clock_times_of_a_damaged_file_are_read_or_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from htsat_sed.annotations.recorded import read_recorded

    path = tmp_path / "e.parquet"
    columns = {"filename": ["a.wav"], "begin": ["2026-01-02T03:04:05"], "recording_duration": [10.0]}
    pq.write_table(pa.table(columns), path)
    assert read_recorded(path)["a.wav"].duration == 10.0
    data = path.read_bytes()

    @given(place=st.integers(4, len(data) - 1), byte=st.integers(0, 255))
    @settings(max_examples=100, deadline=None)
    def law(place, byte):
        path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
        with contextlib.suppress(AnnotationError):  # nothing else may come out
            read_recorded(path)

    law()
    pq.write_table(pa.table(columns | {"filename": pa.array([None], pa.string())}), path)
    with pytest.raises(AnnotationError, match="line 1: no filename"):
        read_recorded(path)


@pytest.mark.parametrize("column", ["filename", "begin", "clock"])
def test_what_is_known_of_recordings_has_texts_of_some_length_too(tmp_path, column):
    """A text that many rows share takes some bytes in the file, and gigabytes where each row gets its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from htsat_sed.annotations.recorded import read_recorded

    cells = {"filename": "a.wav", "onset": 0.0, "begin": "2026-05-12T04:30:00", "clock": "name"}
    table = pa.table({name: [value] * 50_000 for name, value in cells.items()})
    pq.write_table(table, tmp_path / "e.parquet")
    assert read_recorded(tmp_path / "e.parquet")["a.wav"].start.iso(0.0) == "2026-05-12T04:30:00.000"
    long = table.set_column(table.column_names.index(column), column, pa.array(["a" * 100_000] * 50_000))
    pq.write_table(long, tmp_path / "e.parquet", compression="zstd")
    with pytest.raises(AnnotationError, match=rf"has a {column} of 100000 bytes, wanted at most 10000"):
        read_recorded(tmp_path / "e.parquet")
