"""A kilobyte of zlib that becomes a gigabyte.

Source: CWE-409. Expected: MEMORY.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = """
import zlib

def process(text):
    packer, packed = zlib.compressobj(9), b""
    for _ in range(16):
        packed += packer.compress(bytes(1 << 16))
    packed += packer.flush()
    for _ in range(12):
        found = zlib.decompress(packed) * 128
        packed = zlib.compress(found[: 1 << 22])
    return str(len(found))
"""
ATTACK = once(Guest(python=_SOURCE), expect=fails("MEMORY", "FUEL"))
