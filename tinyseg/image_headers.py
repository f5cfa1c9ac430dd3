"""What an image file says of itself before it is decoded: its size, and whether its end is there.

A few kilobytes can claim a picture of gigabytes, and older OpenCV fills the missing part of a cut JPEG with grey.
"""

from __future__ import annotations

import struct

PNG = b"\x89PNG\r\n\x1a\n"
# JPEG markers that carry no length, and those that carry the frame's size (ITU-T T.81, table B.1).
BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9


def stated_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a PNG, JPEG or BMP header states; None for other kinds and for headers that state none."""
    if data.startswith(PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    return _jpeg(data)[0] if data.startswith(b"\xff\xd8") else None


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG lacks its end, as after a broken download; other kinds are left to their decoders."""
    if not data.startswith(b"\xff\xd8"):
        return False
    scan = _jpeg(data)[1]
    return scan is None or data.find(bytes((0xFF, END_OF_IMAGE)), scan) < 0


def _jpeg(data: bytes) -> tuple[tuple[int, int] | None, int | None]:
    """Size and offset of the first scan of a JPEG, each None if the segments end before it."""
    size, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in BARE_MARKERS:  # 0xFF: padding
            at += 1 if marker == 0xFF else 2
            continue
        if marker == START_OF_SCAN:
            return size, at
        if marker in FRAME_MARKERS and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            size = (width, height)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return size, None
