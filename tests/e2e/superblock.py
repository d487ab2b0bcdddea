# SPDX-License-Identifier: BSD-3-Clause
"""Just enough of docs/format.md to spoil a cache on purpose."""

import struct

BLOCK = 4096
# Both copies of metadata page 0.
SUPERBLOCK_OFFSETS = (0, BLOCK)
AT_VERSION, AT_CRC, AT_INCOMPAT, AT_EPOCH = 4, 8, 80, 112


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def patch(path, at, field, value):
    """Set a field (of struct format FIELD) in both superblocks and make their crcs right again."""
    with open(path, "r+b") as f:
        for offset in SUPERBLOCK_OFFSETS:
            f.seek(offset)
            block = bytearray(f.read(BLOCK))
            (stored,) = struct.unpack_from("<I", block, AT_CRC)
            struct.pack_into("<I", block, AT_CRC, 0)
            assert stored == crc32c(block), "this is not the format that docs/format.md describes"
            struct.pack_into("<" + field, block, at, value)
            struct.pack_into("<I", block, AT_CRC, crc32c(block))
            f.seek(offset)
            f.write(block)


def spoil(path, offset):
    """Turn over one byte, without a new crc."""
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0xFF]))
