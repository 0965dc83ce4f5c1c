"""Where a file says that it ends: sizes and marks of its container, compared with what is there.

A cut copy that still plays is found by them to the byte, where times only tell to a quarter of a
second. Containers without such a size (MPEG-TS, FLV, live recordings) are not judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
# Boxes that hold pictures or say where they are; a cut in padding or tags costs nothing.
_PICTURE_BOXES = frozenset({b"mdat", b"moov", b"moof"})
# Writers of AVI disagree on whether padding counts.
_RIFF_SLACK = 16
_GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B


def ends_early(path: Path) -> bool:
    """Return True if a file is shorter than its container says.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
        size = file.seek(0, 2)
        for matches, cut in _KINDS:
            if matches(head):
                file.seek(0)
                return cut(file, size)
    return False


def _gif_cut(file: BinaryIO, _size: int) -> bool:
    """Return True if a GIF has no trailer. Source: GIF89a specification, 17 to 27."""
    flags = file.read(13)[10:11]
    _skip_colours(file, flags)
    while block := file.read(1):
        if block[0] == _GIF_TRAILER:
            return False
        if block[0] == _GIF_IMAGE:
            _skip_colours(file, file.read(9)[8:9])
            file.read(1)  # size of the codes
        elif block[0] == _GIF_EXTENSION:
            file.read(1)  # its label
        elif block[0] != 0:  # no block: what follows is not what a decoder reads either
            return True
        else:
            continue
        while length := file.read(1):
            if not length[0]:
                break
            file.seek(length[0], 1)
    return True


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)


def _matroska_cut(file: BinaryIO, size: int) -> bool:
    """Return True if the segment ends after the file. Source: RFC 8794, 4 to 6; RFC 9559, 5.1."""
    while file.tell() < size:
        name, length = _vint(file, keep_marker=True), _vint(file)
        if name is None or length is None:
            return False
        if name == _SEGMENT:
            return file.tell() + length > size
        if name != _EBML:
            return False
        file.seek(length, 1)
    return False


def _vint(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """Read a number of variable length; None for an unknown size, or none."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    value = first[0] if keep_marker else first[0] ^ (0x80 >> more)
    whole = int.from_bytes(bytes([value]) + rest, "big")
    unknown = not keep_marker and whole == (1 << 7 * (more + 1)) - 1
    return None if unknown or len(rest) < more else whole


def _mp4_cut(file: BinaryIO, size: int) -> bool:
    """Return True if a box of the top level ends after the file. Source: ISO/IEC 14496-12, 4.2."""
    begin = 0
    while begin + 8 <= size:
        file.seek(begin)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return False
        if begin + length > size:
            return kind in _PICTURE_BOXES
        begin += length
    return False


def _avi_cut(file: BinaryIO, size: int) -> bool:
    """Return True if a RIFF chunk ends after the file; a recording that was not closed has 0."""
    header = file.read(8)
    length = int.from_bytes(header[4:8], "little")
    return length < 0xFFFFFFFF and 8 + length > size + _RIFF_SLACK


def _asf_cut(file: BinaryIO, size: int) -> bool:
    """Return True if the header or data object ends after the file; live ones have size 0."""
    begin = 0
    for name in (_ASF_HEADER, _ASF_DATA):
        file.seek(begin)
        head = file.read(24)
        if head[:16] != name:
            return False
        begin += int.from_bytes(head[16:24], "little")
        if begin > size:
            return True
    return False


def _ogg_cut(file: BinaryIO, size: int) -> bool:
    """Return True if a stream lacks the page that ends it. Source: RFC 3533, 6."""
    ended: dict[bytes, bool] = {}
    while (page := file.read(27))[:4] == b"OggS" and len(page) == 27:
        ended[page[14:18]] = bool(page[5] & 4)
        file.seek(sum(file.read(page[26])), 1)
    return not all(ended.values()) or file.tell() > size


def _png_cut(file: BinaryIO, _size: int) -> bool:
    """Return True if an animated PNG has no last chunk. Source: PNG specification, 5.3."""
    file.read(8)
    while len(head := file.read(8)) == 8:
        if head[4:] == b"IEND":
            return False
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return True


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], bool]], ...] = (
    (lambda head: head[:4] == b"GIF8", _gif_cut),
    (lambda head: head[:4] == _EBML.to_bytes(4, "big"), _matroska_cut),
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _mp4_cut),
    (lambda head: head[:12] == _ASF_HEADER[:12], _asf_cut),
    (lambda head: head[:4] == b"OggS", _ogg_cut),
    (lambda head: head[:8] == b"\x89PNG\r\n\x1a\n", _png_cut),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", _avi_cut),
)
