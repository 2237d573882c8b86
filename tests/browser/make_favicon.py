"""Draws favicon.png: a loop that closes on a point. Run it again after changing the picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIZE, FINE = 64, 4  # drawn 4 x finer and averaged, for smooth edges


def picture() -> np.ndarray:
    """RGBA uint8[SIZE, SIZE, 4]."""
    n = SIZE * FINE
    y, x = (np.mgrid[0:n, 0:n] + 0.5) / n * 2 - 1
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    ring = (abs(r - 0.66) < 0.13) & ~((angle > -0.95) & (angle < -0.1))
    dot = np.hypot(x - 0.55, y + 0.42) < 0.2
    out = np.zeros((n, n, 4))
    out[ring] = (0x00, 0x72, 0xB2, 255)
    out[dot] = (0x00, 0x9E, 0x73, 255)
    return out.reshape(SIZE, FINE, SIZE, FINE, 4).mean(axis=(1, 3)).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """The image as PNG bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in image)
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "selftune" / "static" / "favicon.png"
    target.write_bytes(png(picture()))
