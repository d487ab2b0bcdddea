# SPDX-License-Identifier: BSD-3-Clause
"""What a volume may hold after a crash.

A Volume is told of every request, and knows for each sector the contents that may be found after
the server was killed: the newest one that a flush or FUA guaranteed, and everything written since.
On top of that the prefix rule (I9): requests are told in groups; the requests of one group were in
flight together, and every group was acknowledged before the next began. Then there must be one
group such that all groups before it survived as a whole and none after it left a trace.
"""

SECTOR = 512


class Volume:
    def __init__(self, size_bytes, content=None):
        self.data = bytearray(content) if content is not None else bytearray(size_bytes)
        self.size_bytes = size_bytes
        assert len(self.data) == size_bytes
        # sector -> [(group, content), ...], oldest first; absent: only the present content
        self.versions = {}
        self.group = 0

    def _range(self, sector):
        return sector * SECTOR, min((sector + 1) * SECTOR, self.size_bytes)

    def next_group(self):
        """All requests so far have been acknowledged."""
        self.group += 1

    def write(self, offset, buf):
        """Submitted. Requests of one group must not overlap."""
        first, last = offset // SECTOR, (offset + len(buf) - 1) // SECTOR
        for sector in range(first, last + 1):
            if sector not in self.versions:
                start, end = self._range(sector)
                self.versions[sector] = [(-1, bytes(self.data[start:end]))]
        self.data[offset:offset + len(buf)] = buf
        for sector in range(first, last + 1):
            start, end = self._range(sector)
            self.versions[sector].append((self.group, bytes(self.data[start:end])))

    def flushed(self):
        """A flush was acknowledged, of everything told so far."""
        self.versions.clear()

    def fua_done(self, offset, length):
        """A write with FUA was acknowledged."""
        for sector in range(offset // SECTOR, (offset + length - 1) // SECTOR + 1):
            versions = self.versions.get(sector)
            if versions:
                # Nothing older may come back; newer ones do not exist yet.
                self.versions[sector] = [versions[-1]]

    def crashed(self, found):
        """The server was killed and started again, and FOUND read. Raises if that may not be."""
        assert len(found) == self.size_bytes
        starts, ends = {}, {}  # group -> how many sectors begin or end to allow a cut there
        expected = bytearray(self.data)
        for sector, versions in self.versions.items():
            start, end = self._range(sector)
            have = found[start:end]
            expected[start:end] = have
            self._cuts(sector, versions, have, starts, ends)
        if expected != found:
            wrong = next(i for i in range(self.size_bytes) if expected[i] != found[i])
            raise AssertionError(f"byte {wrong} (sector {wrong // SECTOR}) is not what a flush "
                                 f"guaranteed")
        self._check_prefix(starts, ends)
        self.data = bytearray(found)
        self.versions.clear()

    def _cuts(self, sector, versions, have, starts, ends):
        """Count in which cuts this sector may look like HAVE: the group of that version (which
        survived, maybe not as a whole) to the group of the next (of which this is missing)."""
        spans = []
        for i, (group, content) in enumerate(versions):
            if content != have:
                continue
            last = versions[i + 1][0] if i + 1 < len(versions) else self.group
            if spans and group <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], last)
            else:
                spans.append([group, last])
        if not spans:
            raise AssertionError(f"sector {sector} holds none of its {len(versions)} versions")
        for first, last in spans:
            starts[first] = starts.get(first, 0) + 1
            ends[last] = ends.get(last, 0) + 1

    def _check_prefix(self, starts, ends):
        allowing = 0
        for group in range(-1, self.group + 1):
            allowing += starts.get(group, 0)
            if allowing == len(self.versions):
                return
            allowing -= ends.get(group, 0)
        raise AssertionError("what survived is not a prefix of what was written")
