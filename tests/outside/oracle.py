# SPDX-License-Identifier: BSD-3-Clause
"""What a volume may hold after a power cut, from what its clients saw.

Each write has a number, and each of its sectors says its own number and that of the write. Clients note when
they submitted a request and when they knew that it was done; both clocks err on the safe side. For a
power cut at a time T:

  durable    a write acknowledged before a flush was submitted that was acknowledged before T, or with FUA and
             acknowledged before T, is there, or something newer (I2)
  prefix     let b be the latest write of which a sector is there: each write acknowledged before b was
             submitted is there, or something newer (I9)

"Newer" means: not acknowledged before the other was submitted. What was in flight together may
survive in any combination.
"""

import struct

SECTOR = 512
BEFORE = -1      # the time of what was there at the beginning
NEVER = 1 << 63  # the time of what did not happen


def sectors_of(first, count, number):
    """The content of a write: no two writes have a sector in common."""
    return b"".join(struct.pack("<QQ", sector, number) * 32
                    for sector in range(first, first + count))


def numbers_in(content):
    """Which write each sector is of; 0 for zeros. Raises for a sector that nobody wrote."""
    numbers = []
    for sector in range(len(content) // SECTOR):
        have = content[sector * SECTOR:(sector + 1) * SECTOR]
        where, number = struct.unpack_from("<QQ", have)
        if have != have[:16] * 32 or where != (sector if number else 0):
            raise Wrong(f"sector {sector} holds what nobody wrote: {have[:48].hex()}...")
        numbers.append(number)
    return numbers


class Wrong(Exception):
    """The volume holds what it may not hold."""


class Write:
    """number 0: zeros."""

    def __init__(self, number, first, count, fua, submitted):
        self.number = number
        self.first = first
        self.count = count
        self.fua = fua
        self.submitted = submitted
        self.acked = NEVER

    def __str__(self):
        acked = "never" if self.acked == NEVER else self.acked
        return (f"write {self.number} of sectors {self.first}+{self.count}"
                f"{' with FUA' if self.fua else ''}, submitted {self.submitted}, acked {acked}")


class History:
    """What clients did between two starts of the server. BASE: what they read at the beginning."""

    def __init__(self, base):
        self.base = base
        self.writes = []
        self.flushes = []  # (submitted, acked)

    def write(self, number, first, count, fua, now):
        w = Write(number, first, count, fua, now)
        self.writes.append(w)
        return w

    def check(self, numbers, cut):
        """NUMBERS were found after a power cut at the time CUT. Raises Wrong."""
        versions = [None] * len(numbers)  # per sector: the writes that it may be of
        for w in self.writes:
            if w.submitted > cut:
                break
            for sector in range(w.first, w.first + w.count):
                if w.number == numbers[sector]:
                    versions[sector] = (versions[sector] or []) + [w]
        must = max((s for s, acked in self.flushes if acked <= cut), default=BEFORE)
        flushed = must
        acked_of = []  # per sector: when the version that is there was known to be there
        for sector, number in enumerate(numbers):
            found = versions[sector]
            if number == self.base[sector]:
                # Or one of later writes of zeros.
                acked_of.append(max((w.acked for w in found), default=BEFORE) if found else BEFORE)
            elif found:
                acked_of.append(max(w.acked for w in found))
                must = max(must, min(w.submitted for w in found))
            else:
                raise Wrong(f"sector {sector} is of write {number}, which was not submitted yet")
        for w in self.writes:
            if w.submitted > cut:
                break
            if not (w.acked < must or (w.fua and w.acked <= cut)):
                continue
            for sector in range(w.first, w.first + w.count):
                if acked_of[sector] < w.submitted:
                    rule = "durable" if w.acked < flushed or w.fua else "prefix"
                    raise Wrong(f"{rule}: sector {sector} is of write {numbers[sector]}, acked "
                                f"{acked_of[sector]}, but must have {w} (cut at {cut}, flushed "
                                f"{flushed}, newest trace {must})")
