"""Sizes of the pages of a Parquet file, as its footer and the head of each page state them.

pyarrow takes memory for a page of the stated size before it unpacks the page, and does not report the size.
Its own view of a column in the footer (`row_group(i).column(j)`) ends the process for some damaged footers.

Source: Apache Parquet, parquet.thrift (FileMetaData, PageHeader); Apache Thrift, compact protocol. Numbers
that Thrift would cut to fewer bits, and fields that come twice, are refused: Thrift reads them otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from htsat_sed.errors import UsageError

_USUAL_HEAD, _LONGEST_HEAD = 1 << 12, 1 << 20  # bytes; it holds the least and the greatest value of a page
_LONGEST_FOOTER = 16 << 20  # bytes; a group of rows takes about 1 kB
_DEEPEST = 16  # structures and lists within each other
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCTURE = (*range(1, 11), 12)
_BITS = {_I16: 16, _I32: 32, _I64: 64}
# Fields, by number and type
_GROUPS, _COLUMNS, _METADATA = (4, _LIST), (1, _LIST), (3, _STRUCTURE)
_CHUNK_SIZE, _DATA_PAGE, _DICTIONARY_PAGE = (7, _I64), (9, _I64), (11, _I64)
_UNPACKED_SIZE, _PACKED_SIZE = (2, _I32), (3, _I32)


def column_chunks(file: BinaryIO, columns: Collection[int]) -> list[tuple[int, int]]:
    """Where the pages of each group of rows begin and end, for some columns.

    Args:
        file: open for reading.
        columns: their numbers in the schema, from 0.

    Raises:
        UsageError: the footer cannot be parsed, or places pages outside the file.
    """
    end = file.seek(0, 2)
    file.seek(max(0, end - 8))
    last = file.read(8)
    length = int.from_bytes(last[:4], "little")
    if last[4:] != b"PAR1" or length > min(end - 8, _LONGEST_FOOTER):
        raise UsageError("does not end like a Parquet file with a footer of at most 16 MB")
    file.seek(end - 8 - length)
    footer = _Compact(file.read(length), "its footer").structure()
    chunks = []
    for group in _structures(footer.get(_GROUPS, [])):
        for number, column in enumerate(_structures(group.get(_COLUMNS, []))):
            if number not in columns:
                continue
            fields = column.get(_METADATA, {})
            start, size = fields.get(_DATA_PAGE, -1), fields.get(_CHUNK_SIZE, -1)
            if (dictionary := fields.get(_DICTIONARY_PAGE, 0)) > 0:
                start = min(start, dictionary)
            if start < 0 or size < 0 or start + size > end:
                raise UsageError("its footer places pages outside the file")
            chunks.append((start, start + size))
    return chunks


def page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Unpacked size of each page, bytes.

    Args:
        file: open for reading.
        start: where the head of the first page begins.
        end: where the last page ends.

    Raises:
        UsageError: the head of a page cannot be parsed.
    """
    position = start
    while position < end:
        head, fields = _head(file, position, end)
        unpacked, packed = fields.get(_UNPACKED_SIZE, -1), fields.get(_PACKED_SIZE, -1)
        if unpacked < 0 or packed < 0:
            raise UsageError(f"its page header at byte {position} states no size")
        yield unpacked
        position += head.position + packed


def _head(file: BinaryIO, position: int, end: int) -> tuple[_Compact, dict[tuple[int, int], Any]]:
    """The head of a page, and its fields; a usual one without reading the page, too."""
    for longest in (_USUAL_HEAD, _LONGEST_HEAD):
        file.seek(position)
        head = _Compact(file.read(min(longest, end - position)), "one of its page headers")
        try:
            return head, head.structure()
        except UsageError:
            if longest == _LONGEST_HEAD or end - position <= longest:
                raise
    raise AssertionError


def _structures(values: list[Any]) -> Iterator[dict[tuple[int, int], Any]]:
    """The values of a list, which must be structures."""
    for value in values:
        if not isinstance(value, dict):
            raise UsageError("its footer cannot be parsed")
        yield value


class _Compact:
    """Bytes in Thrift's compact protocol, as far as Parquet uses it.

    Args:
        data: the bytes.
        what: what they are, for messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what = data, what
        self.position = 0

    def structure(self, depth: int = 0) -> dict[tuple[int, int], Any]:
        """Read a structure; its integers, bytes, lists and structures, by field number and type.

        Raises:
            UsageError: it is cut off, or holds what Parquet does not.
        """
        fields: dict[tuple[int, int], Any] = {}
        number = 0
        while byte := self._byte():
            step, kind = byte >> 4, byte & 15
            number = number + step if step else self._integer(16)
            if (number, kind) in fields:
                raise UsageError(f"{self._what} has a field twice")
            fields[number, kind] = None if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _BITS:
            return self._integer(_BITS[kind])
        if kind == _STRUCTURE and depth < _DEEPEST:
            return self.structure(depth)
        if kind in (_LIST, _SET) and depth < _DEEPEST:
            byte = self._byte()
            length = self._varint() if byte >> 4 == 15 else byte >> 4
            if length > len(self._data) - self.position:
                raise UsageError(f"{self._what} is cut off")
            return [self._value(byte & 15, depth + 1) for _ in range(length)]
        if kind not in (_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY):
            raise UsageError(f"{self._what} cannot be parsed")
        length = self._varint() if kind == _BINARY else 8 if kind == _DOUBLE else 1
        self.position += length
        return self._data[self.position - length : self.position]

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise UsageError(f"{self._what} is cut off")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise UsageError(f"{self._what} has a number of over 64 bits")

    def _integer(self, bits: int) -> int:
        value = self._varint()
        if value >> bits:
            raise UsageError(f"{self._what} has a number of over {bits} bits")
        return (value >> 1) ^ -(value & 1)
