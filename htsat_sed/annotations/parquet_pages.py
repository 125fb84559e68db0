"""Sizes of the pages of a Parquet file, as the head of each page states them.

pyarrow takes memory for a page of the stated size before it unpacks the page, and does not report the size.

Source: Apache Parquet, parquet.thrift (PageHeader); Apache Thrift, compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from htsat_sed.errors import UsageError

_LONGEST_HEAD = 1 << 20  # bytes; it holds the least and the greatest value of a page
_DEEPEST = 8  # structures within each other
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCTURE = (1, 2), 3, (4, 5, 6), 7, 8, 12
_UNPACKED_SIZE, _PACKED_SIZE = 2, 3  # fields of a PageHeader


def page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Unpacked size of each page, bytes.

    Args:
        file: open for reading.
        start: where the head of the first page begins.
        end: where the last page ends.

    Raises:
        UsageError: the head of a page cannot be understood.
    """
    position = start
    while position < end:
        file.seek(position)
        head = _Head(file.read(min(_LONGEST_HEAD, end - position)))
        fields = head.structure()
        unpacked, packed = fields.get(_UNPACKED_SIZE, -1), fields.get(_PACKED_SIZE, -1)
        if unpacked < 0 or packed < 0:
            raise UsageError(f"the head of its page at byte {position} states no size")
        yield unpacked
        position += head.position + packed


class _Head:
    """Bytes in Thrift's compact protocol, as far as heads of pages use it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def structure(self, depth: int = 0) -> dict[int, int]:
        """Read a structure; its integers, by field number.

        Raises:
            UsageError: it is cut off, or holds what the head of a page does not.
        """
        fields: dict[int, int] = {}
        number = 0
        while byte := self._byte():
            step, kind = byte >> 4, byte & 15
            number = number + step if step else self._integer()
            if kind in _INTEGERS:
                fields[number] = self._integer()
            elif kind == _STRUCTURE and depth < _DEEPEST:
                self.structure(depth + 1)
            elif kind in (_BYTE, _DOUBLE):
                self.position += 1 if kind == _BYTE else 8
            elif kind == _BINARY:
                length = self._varint()
                self.position += length
            elif kind not in _BOOLEANS:
                raise UsageError("the head of one of its pages cannot be understood")
        return fields

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise UsageError("the head of one of its pages is cut off")
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
                raise UsageError("the head of one of its pages has a number of over 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
