# SPDX-License-Identifier: BSD-3-Clause
"""logcachectl on caches that nobody serves: clean, dirty, torn and corrupt ones, made by the real server
and spoilt at offsets from docs/format.md."""

import json
import os
import re
import shutil
import struct
import subprocess

import nbd

import harness
from devices import end_process, need_root, take_down, wait_until
from harness import K, M, Refused, Skip, case, file_hash, pick
from superblock import AT_EPOCH, BLOCK, SUPERBLOCK_OFFSETS, crc32c, patch, spoil

# In the record header (docs/format.md).
RECORD_MAGIC = b"lcrc"
AT_SEGMENT, AT_SEQ, AT_RECORD_EPOCH, AT_NR_ENTRIES = 32, 40, 48, 76


def ctl(*args, status=0, says=()):
    """Run logcachectl; its exit status must be STATUS, and what it says match all of SAYS."""
    program = os.path.join(os.path.dirname(harness.MODULE), "logcachectl")
    done = subprocess.run([program, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, check=False, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == status, f"{args}: exit status {done.returncode}: {text}"
    for pattern in says:
        assert re.search(pattern, text), f"{args}: does not match {pattern!r}: {text}"
    return done.stdout


def check_harmless(cache):
    """Nothing is corrupt, and no data is lost but what is known to be."""
    program = os.path.join(os.path.dirname(harness.MODULE), "logcachectl")
    done = subprocess.run([program, "check", "--quiet", cache], stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, text=True)
    findings = [line for line in done.stdout.splitlines() if re.match("(lost|corrupt):", line)]
    assert done.returncode in (0, 1) and all("lost earlier" in line for line in findings), done.stdout


def unchanged(path, *args, **kwargs):
    """The same, and the file stays as it is; with commands that only look, also its time of modification."""

    def state():
        looks = args[0] in ("check", "dump") or (args[0] == "repair" and "--yes" not in args)
        return file_hash(path), os.stat(path).st_mtime_ns if looks else 0

    before = state()
    out = ctl(*args, **kwargs)
    assert state() == before, f"{args} changed {path}"
    return out


def dump(cache, status=0):
    return json.loads(unchanged(cache, "dump", "--json", "--records", cache, status=status))


class Image:
    """A cache with the requests that made it, one record each, and what every block should hold."""

    def __init__(self, env, segment="64K", size=4 * M, names=("",)):
        self.env = env
        self.cache = env.make_file("cache", size)
        self.names = names
        self.size = 4 * M
        self.backing = {n: env.make_file(f"backing{i}", self.size, env.rng.randbytes(self.size))
                        for i, n in enumerate(names)}
        self.old = {n: open(p, "rb").read() for n, p in self.backing.items()}
        self.new = {n: bytearray(d) for n, d in self.old.items()}
        self.segment = segment
        self.server = None
        self.handles = {}

    @property
    def stores(self):
        return {"cache": self.cache, "volumes": list(self.backing.items())}

    def serve(self, **parameters):
        parameters = {"writeback": "off", "flush_interval": 0, **parameters}
        self.server = self.env.serve(segment_size=self.segment, **self.stores, **parameters)
        self.handles = {n: self.server.connect(n) for n in self.names}

    def write(self, block, nr=1, name=""):
        """One record: the flush seals it."""
        data = self.env.rng.randbytes(nr * BLOCK)
        self.handles[name].pwrite(data, block * BLOCK)
        self.new[name][block * BLOCK:(block + nr) * BLOCK] = data
        self.handles[name].flush()

    def stop(self):
        for h in self.handles.values():
            h.shutdown()
        self.server.stop()

    def kill(self):
        self.server.kill()

    def verify(self, **parameters):
        """Everything is as it was written."""
        self.serve(**parameters)
        for n, h in self.handles.items():
            assert h.pread(self.size, 0) == self.new[n], f"volume '{n}' differs"
        self.stop()

    def records(self, status=0):
        """(segment, record, offset of its header) of what is above the tail, oldest first."""
        d = dump(self.cache, status)
        sb = d["superblock"]
        found = []
        for place in d["places"]:
            for r in place.get("records", ()):
                at = (sb["zone_blocks"] + place["place"] * sb["segment_blocks"] + r["position"]) * BLOCK
                if place["id"] > sb["tail_id"] and not r["void"]:
                    found.append((place, r, at))
        return sorted(found, key=lambda f: f[1]["seq"])

    def arguments(self):
        return [f"cache={self.cache}"] + [a for n, p in self.backing.items()
                                          for a in ([f"volume={n}"] if n else []) + [f"backing={p}"]]

    def refused(self, pattern):
        text = self.env.refused(*self.arguments())
        assert re.search(pattern, text), text


def dirty_image(env, writes=40, **kwargs):
    image = Image(env, **kwargs)
    image.serve()
    for i in range(writes):
        image.write(env.rng.randrange(1000), env.rng.randrange(1, 4), image.names[i % len(image.names)])
    return image


def read_or_error(h, block):
    try:
        return h.pread(BLOCK, block * BLOCK)
    except nbd.Error as e:
        assert e.errno == "EIO", e
        return None


@case()
def usage(env):
    ctl("--help", says=("format CACHE", "repair CACHE", "exit status"))
    ctl("--version", says=(r"logcachectl \d",))
    cache = env.make_file("cache", 8 * M)
    for args in ((), ("mend", cache), ("check",), ("check", "--fast", cache), ("check", cache, cache),
                 ("dump",), ("format",), ("format", "--segment-size=3K", cache),
                 ("format", "--size=5", cache), ("format", "--label=" + "x" * 64, cache),
                 ("drain", f"cache={cache}", "backing=x"), ("drain", "--offline", f"cache={cache}"),
                 ("drain", "--offline", "backing=x"), ("drain", "--offline", "backing=x", "size=3"),
                 ("drain", "--offline", f"cache={cache}", "volume=a"),
                 ("forget", cache), ("repair", cache, "now")):
        ctl(*args, status=2)
    assert file_hash(cache) == file_hash(env.make_file("zeros", 8 * M))


@case()
def not_a_cache(env):
    for path in (env.make_file("zeros", 8 * M), env.make_file("data", 8 * M, env.rng.randbytes(M)),
                 env.make_file("small", 100), env.path("absent"), env.folder):
        for args in (("check", path), ("dump", path), ("repair", path), ("repair", "--yes", path),
                     ("forget", path, "a")):
            ctl(*args, status=1, says=(re.escape(path),))


@case()
def format_decisions(env):
    """Blank: yes. Anything else: only with --force."""
    cache = env.make_file("cache", 8 * M)
    ctl("format", cache, "--segment-size=64K", "--label=the fast one", says=("formatted",))
    d = dump(cache)
    assert d["superblock"]["label"] == "the fast one"
    assert d["superblock"]["segment_blocks"] == 16
    unchanged(cache, "format", cache, status=1, says=("logcache already", "--force"))
    ctl("format", cache, "--force")
    assert dump(cache)["superblock"]["segment_blocks"] == 256

    data = env.make_file("data", 8 * M, b"x")
    unchanged(data, "format", data, status=1, says=("not blank", "byte 0", "--force"))
    ctl("format", data, "--force")
    ctl("check", data, says=("no problems",))

    small = env.make_file("small", 1 * M)
    unchanged(small, "format", small, status=1, says=("too small", "at least"))
    fresh = env.path("fresh")
    ctl("format", fresh, status=1, says=("does not exist", "--size"))
    ctl("format", fresh, "--size=1M", status=1, says=("too small",))
    assert not os.path.exists(fresh)
    ctl("format", fresh, "--size=8M", says=("formatted: 8M",))
    assert os.path.getsize(fresh) == 8 * M
    unchanged(fresh, "format", fresh, "--size=9M", "--force", status=1, says=("exists with a size",))
    server = env.serve(cache=fresh, backing=env.make_file("backing", 8 * M))
    assert "warning" not in server.log(), server.log()
    server.stop()


@case()
def in_use(env):
    image = dirty_image(env, 2)
    for args in (("format", "--force", image.cache), ("check", image.cache), ("dump", image.cache),
                 ("repair", image.cache), ("repair", "--yes", image.cache), ("forget", image.cache, ""),
                 ("drain", "--offline", *image.arguments())):
        ctl(*args, status=1, says=("in use",))
    image.stop()
    ctl("check", image.cache)


@case()
def clean_and_dirty(env):
    """A cache that is as it should be has no problems, after a shutdown and after a crash."""
    image = dirty_image(env, names=("", "vm1"))
    image.handles["vm1"].zero(1 * M, 2 * M, nbd.CMD_FLAG_NO_HOLE)
    image.new["vm1"][2 * M:3 * M] = bytes(1 * M)
    image.handles["vm1"].flush()
    image.stop()
    unchanged(image.cache, "check", image.cache, says=(
        "records", r"note: volume \(default\): \d+ blocks not written back", r"note: volume vm1: \d{3} blocks not written",
        r"no problems; \d+ blocks not written back yet"))
    out = unchanged(image.cache, "dump", image.cache)
    assert "vm1" in out and "in good order" in out, out
    d = dump(image.cache)
    assert [v["name"] for v in d["volumes"]] == ["", "vm1"]
    assert d["log"]["dirty_blocks"] > 0 and d["log"]["pending_zero_blocks"] == 256
    assert d["superblock"]["clean"] and not d["lost_blocks"]
    types = [e["type"] for p in d["places"] for r in p["records"] for e in r["entries"]]
    assert types.count("zero") == 1 and set(types) == {"data", "zero"}, types
    assert "zero volume 2 (vm1)" in unchanged(image.cache, "dump", "--records", image.cache)

    image.serve()
    image.write(5, 3)
    image.kill()
    unchanged(image.cache, "check", image.cache, says=("note: .*not closed in good order", "no problems"))
    assert unchanged(image.cache, "check", "--quiet", image.cache) == ""
    assert not dump(image.cache)["superblock"]["clean"]
    unchanged(image.cache, "repair", image.cache, says=("nothing to repair",))
    image.verify()


@case()
def dump_agrees_with_the_format(env):
    """What dump says of records is what docs/format.md says is there, crcs of the data included."""
    image = dirty_image(env, 10, segment="8K")
    image.stop()
    with open(image.cache, "rb") as f:
        records = image.records()
        assert len(records) >= 10
        for _, record, at in records:
            f.seek(at)
            header = f.read(BLOCK)
            assert header[:4] == RECORD_MAGIC
            assert int.from_bytes(header[AT_SEQ:AT_SEQ + 8], "little") == record["seq"]
            for i, entry in enumerate(record["entries"]):
                f.seek(at + (1 + i) * BLOCK)
                assert crc32c(f.read(BLOCK)) == entry["crc"]


@case()
def torn_tail(env):
    """The last record before a crash is torn: that is no problem, the log merely ends before it."""
    image = dirty_image(env)
    image.kill()
    *_, (_, before, _), (_, last, at) = image.records()
    spoil(image.cache, at + BLOCK)
    unchanged(image.cache, "check", image.cache,
              says=("no problems", f"ends at record {before['seq']}"))
    unchanged(image.cache, "repair", image.cache, says=("nothing to repair",))
    places = {r["seq"]: p["state"] for p, r, _ in image.records()}
    assert last["seq"] in places
    image.serve()
    image.stop()


@case()
def damaged_blocks(env):
    """Each damaged copy of a block is named, with what it means."""
    image = Image(env)
    image.serve()
    image.write(7)
    image.write(8)
    image.write(7)
    image.write(9)
    image.stop()
    offsets = [at + BLOCK for _, _, at in image.records()]
    spoil(image.cache, offsets[0])
    unchanged(image.cache, "check", image.cache, status=1,
              says=(r"harmless: segment 1, block \d+: wrong checksum: an old copy of .*block 7",
                    "1 problem: 1 harmless"))
    wipe(image.cache, offsets[1])
    unchanged(image.cache, "check", image.cache, status=1,
              says=(r"lost: segment 1, block \d+: wrong checksum: volume \(default\), block 8 "
                    r"\(sectors 0xff\) is lost", "2 problems: 1 harmless, 1 of lost data"))
    # A block whose data is lost needs no repair: it answers with errors, also once that is on record.
    unchanged(image.cache, "repair", image.cache, says=("nothing to repair",))
    assert ctl("drain", "--offline", *image.arguments(), status=1, says=("1 block cannot be read .* and is lost",)) == ""
    # Nor does a server's drain claim that all is well
    image.serve(control=env.path("ctl"), on_exit="drain")
    socket = ("-s", env.path("ctl"))
    ctl("drain", "--wait", *socket, status=1, says=("drain done after", "1 block cannot be read .* and is lost"))
    ctl("status", *socket, says=("drain done, but for 1 lost block\n",))
    assert re.search("drain done: .*; but it has 1 lost block,", image.server.log())
    image.stop()
    assert re.search("could not write everything back: .* has 1 lost block,", image.server.log())
    unchanged(image.cache, "check", image.cache, status=1,
              says=(r"lost: volume \(default\), block 8 .*lost earlier",))
    assert [e["block"] for e in dump(image.cache)["lost_blocks"]] == [8]
    image.serve()
    assert read_or_error(image.handles[""], 8) is None
    assert read_or_error(image.handles[""], 7) == image.new[""][7 * BLOCK:8 * BLOCK]
    image.write(8)
    image.stop()
    # Block 9 is clean by now: the backing store has it.
    spoil(image.cache, offsets[3])
    unchanged(image.cache, "check", image.cache, status=1,
              says=("harmless: .*block 9 is clean, the backing store has it", "0 of lost data"))
    image.verify()


@case()
def damaged_metadata(env):
    image = dirty_image(env)
    image.stop()
    whole = open(image.cache, "rb").read()

    def spoilt(*offsets):
        with open(image.cache, "wb") as f:
            f.write(whole)
        for offset in offsets:
            spoil(image.cache, offset)

    spoilt(200)
    unchanged(image.cache, "check", image.cache, status=1,
              says=("harmless: superblock: copy 1 .*damaged", "1 problem:"))
    assert "superblock, page 0, copy 1: damaged" in ctl("dump", image.cache)

    spoilt(*(o + 200 for o in SUPERBLOCK_OFFSETS))
    unchanged(image.cache, "check", image.cache, status=1, says=("corrupt: superblock: both copies",))
    unchanged(image.cache, "dump", "--records", image.cache, status=1, says=("copy 2: damaged",))
    assert "error" in dump(image.cache, status=1)
    for args in ((), ("--yes",)):
        unchanged(image.cache, "repair", *args, image.cache, status=1, says=("cannot be repaired",))

    # The volume table: nobody knows any more whose dirty data that is.
    spoilt(2 * BLOCK + 100, 3 * BLOCK + 100)
    image.refused("page 1")
    unchanged(image.cache, "check", image.cache, status=1, says=("corrupt: volume table, page 1",))
    assert dump(image.cache, status=1)["pages"][1]["lost"]
    unchanged(image.cache, "repair", "--yes", image.cache, status=1,
              says=("cannot be repaired", "nobody can say whose"))

    # A page of lost blocks: it was most likely empty, but that has to be said.
    spoilt(38 * 2 * BLOCK + 100, (38 * 2 + 1) * BLOCK + 100)
    image.refused("page 38")
    unchanged(image.cache, "repair", image.cache, status=1,
              says=("repair: metadata page 38", "lost: it had up to 251", "give --yes"))
    ctl("repair", "--yes", image.cache, says=("repaired",))
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    image.verify()

    # Once nothing is dirty the table is no loss.
    ctl("drain", "--offline", *image.arguments())
    spoil(image.cache, 2 * BLOCK + 100)
    spoil(image.cache, 3 * BLOCK + 100)
    ctl("repair", "--yes", image.cache, says=("volumes 1 to 7",))
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    image.verify()


@case()
def headers_and_summaries(env):
    """Where a summary has what a header said, that is missed by nobody, or is written again."""
    image = dirty_image(env, 60)
    image.stop()
    records = image.records()
    full = next(p for p, _, _ in records if p["summary"] and p["nr_records"] > 2)
    offsets = [at for p, _, at in records if p is full]
    whole = open(image.cache, "rb").read()
    wipe(image.cache, offsets[1])
    unchanged(image.cache, "check", image.cache, status=1,
              says=(rf"harmless: segment {full['id']}: the header of record", "1 problem:"))
    unchanged(image.cache, "repair", image.cache, says=("nothing to repair",))

    wipe(image.cache, offsets[0])
    unchanged(image.cache, "check", image.cache, status=1, says=("corrupt: .*damaged or missing",))
    image.refused("corrupt")
    unchanged(image.cache, "repair", image.cache, status=1, says=("summary: nothing of it is lost",))
    ctl("repair", "--yes", image.cache, says=("repaired: it can be served again$",))
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    image.verify()

    with open(image.cache, "wb") as f:
        f.write(whole)
    summary = offsets[0] // (64 * K) * 64 * K + 15 * BLOCK
    spoil(image.cache, summary + 100)
    unchanged(image.cache, "check", image.cache, status=1,
              says=("harmless: .*summary is damaged or missing",))
    image.verify()


# In a header; the last one is the volume of its first entry.
AT_CRC, AT_RESERVED, AT_VOLUME = 8, 100, 256 + 7


def wipe(path, offset, nr=1):
    """Blocks of zeros."""
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(bytes(nr * BLOCK))


def image_with_a_gap(env):
    """Six records, of which the fourth has blocks 1020 and 1021, and the last one 1020 again; where its header is."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    before = bytes(image.new[""])
    image.write(1020, 2)
    image.write(100, 2)
    image.write(1020)
    image.stop()
    return image, image.records()[3][2], before[1021 * BLOCK:1022 * BLOCK]


@case()
def repair_restores_a_header(env):
    """What is damaged is known from elsewhere, and the header's own checksum proves it: nothing is lost."""
    image, gone, _ = image_with_a_gap(env)
    # magic, version, uuid, segment, seq, epoch, first, durable seq, position, number of entries, and what is unused
    for at in pick((1, 65, AT_RESERVED), (1, 5, 20, 33, 41, 49, 57, 65, 73, 77, AT_RESERVED)):
        spoil(image.cache, gone + at)
        image.refused("damaged or missing")
        unchanged(image.cache, "repair", image.cache, status=1,
                  says=("header of record 4 is damaged, but what it said is known", "nothing of it is lost"))
        ctl("repair", "--yes", image.cache, says=("repaired: it can be served again$",))
        unchanged(image.cache, "check", image.cache, says=("no problems",))
    image.verify()


@case()
def repair_lost_header(env):
    """The header of a record in the middle is gone: the newer records come back, and nothing else changes."""
    image, gone, before = image_with_a_gap(env)
    wipe(image.cache, gone)
    image.refused("damaged or missing")
    unchanged(image.cache, "check", image.cache, status=1, says=("corrupt", "logcachectl repair"))
    unchanged(image.cache, "repair", image.cache, status=1,
              says=("repair: .*fillers take the place of records 4 to 4",
                    "lost: .*at most 2 blocks; what is left of their headers names 0", "give --yes"))
    image.refused("damaged or missing")
    ctl("repair", "--yes", image.cache, says=("repaired", "check what is on its volumes"))
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    # Of the lost record, block 1020 was written again later; 1021 is as before.
    image.new[""][1021 * BLOCK:1022 * BLOCK] = before
    image.verify()
    ctl("drain", "--offline", *image.arguments())
    with open(image.backing[""], "rb") as f:
        assert f.read() == image.new[""]


@case()
def repair_names_blocks(env):
    """What is left of a header says which blocks are lost: those answer with errors, unless they were written again."""
    image, gone, before = image_with_a_gap(env)
    with open(image.cache, "rb") as f:
        whole = f.read()
    # The volume of an entry is damaged: it names no block that there is. The others are known still.
    for damaged, named, held, lost in (((AT_CRC,), 2, 1, True), ((AT_CRC, AT_VOLUME), 1, 0, True),
                                       ((AT_CRC, AT_VOLUME + 12), 1, 1, False)):
        with open(image.cache, "wb") as f:
            f.write(whole)
        for at in damaged:
            spoil(image.cache, gone + at)
        says = (f"at most 2 blocks; what is left of their headers names {named}",
                rf"list of lost blocks: gets 1 block that .* newer records hold the other {held}" if lost else
                f"list of lost blocks: newer records hold the {held} block")
        unchanged(image.cache, "repair", image.cache, status=1,
                  says=says + (("lost: volume .*, block 1021\n",) if lost else ()))
        ctl("repair", "--yes", image.cache, says=says + ("repaired", "check what is on its volumes"))
        unchanged(image.cache, "check", image.cache, status=1 if lost else 0, says=() if lost else ("no problems",))
        image.serve()
        h = image.handles[""]
        assert read_or_error(h, 1021) == (None if lost else before)
        assert h.pread(BLOCK, 1020 * BLOCK) == image.new[""][1020 * BLOCK:1021 * BLOCK]
        if lost:
            # A part of it, and then all, is written: that is there, and stays.
            h.pwrite(b"n" * 512, 1021 * BLOCK)
            assert read_or_error(h, 1021) is None and h.pread(512, 1021 * BLOCK) == b"n" * 512
            h.pwrite(b"m" * BLOCK, 1021 * BLOCK)
            h.flush()
            image.kill()
            image.serve()
            assert read_or_error(image.handles[""], 1021) == b"m" * BLOCK
        image.stop()


@case()
def repair_names_blocks_whatever_is_damaged(env):
    """A bit of the epoch is damaged, so that it looks like one that an opening cut off; it says when its epoch began."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    image.stop()
    image.serve()
    image.write(1020, 2)
    image.write(100)
    image.stop()
    _, first, at = image.records()[3]
    assert first["position"] == 0 and first["epoch"] == 3
    with open(image.cache, "r+b") as f:
        f.seek(at + AT_RECORD_EPOCH)
        f.write(b"\x01")
    image.refused("damaged or missing")
    ctl("repair", "--yes", image.cache,
        says=("what is left of their headers names 2", "lost: volume .*, blocks 1020 to 1021\n"))
    image.serve()
    for block in (1020, 1021):
        assert read_or_error(image.handles[""], block) is None, f"block {block} is an old version"
    assert image.handles[""].pread(BLOCK, 100 * BLOCK) == image.new[""][100 * BLOCK:101 * BLOCK]
    image.stop()


@case()
def repair_names_blocks_behind_a_wrong_length(env):
    """Two headers are damaged. The first one says that it has more blocks than there are up to the second, and beyond."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    image.write(1010, 2)
    image.write(1020)
    image.write(100)
    image.stop()
    records = image.records()
    for _, _, at in records[3:5]:
        spoil(image.cache, at + AT_CRC)
    with open(image.cache, "r+b") as f:
        f.seek(records[3][2] + AT_NR_ENTRIES)
        f.write(struct.pack("<I", 3))
    ctl("repair", "--yes", image.cache,
        says=("what is left of their headers names 3", "lost: volume .*, blocks 1010 to 1011\n",
              "lost: volume .*, block 1020\n"))
    image.serve()
    for block in (1010, 1011, 1020):
        assert read_or_error(image.handles[""], block) is None, f"block {block} is an old version"
    image.stop()


@case()
def repair_cuts_the_end(env):
    """The last record was durable, and is gone: the log is cut there, for good."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    image.write(1020, 2)
    before = bytes(image.new[""])
    image.write(1021)
    image.stop()
    with open(image.cache, "rb") as f:
        whole = f.read()
    last = image.records()[-1][2]
    wipe(image.cache, last)
    image.refused("damaged or missing")
    ctl("repair", image.cache, status=1,
        says=("log is cut after record 4", "lost: records 5 to 5, .* names 0 blocks"))
    ctl("repair", "--yes", image.cache)
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    # Even if that header should come back, its record is void.
    with open(image.cache, "r+b") as f:
        f.seek(last)
        f.write(whole[last:last + BLOCK])
    image.new[""] = bytearray(before)
    image.verify()
    image.serve()
    image.write(30, 2)
    image.kill()
    image.verify()

    # With a header that still says what it was about, nobody gets the older version of that.
    with open(image.cache, "wb") as f:
        f.write(whole)
    spoil(image.cache, last + AT_CRC)
    ctl("repair", "--yes", image.cache,
        says=("log is cut after record 4", "lost: records 5 to 5, .* names 1 block;", "lost: volume .*, block 1021\n"))
    image.serve()
    assert read_or_error(image.handles[""], 1021) is None
    image.write(1021)
    image.kill()
    image.serve()
    assert read_or_error(image.handles[""], 1021) == image.new[""][1021 * BLOCK:1022 * BLOCK]
    image.stop()


@case()
def repair_leaves_void_records_alone(env):
    """An opening cut a torn record off. Its header is whole, and has the seq of the one that is lost now."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    before = bytes(image.new[""])
    image.write(1020, 2)
    image.kill()
    _, torn, at_torn = image.records()[-1]
    spoil(image.cache, at_torn + BLOCK)
    image.serve()
    image.write(50)
    image.stop()
    _, last, at = image.records()[-1]
    assert last["seq"] == torn["seq"]
    wipe(image.cache, at)
    image.refused("damaged or missing")
    with open(image.cache, "rb") as f:
        whole = f.read()
    image.new[""] = bytearray(before)
    for torn_header in (False, True):
        with open(image.cache, "wb") as f:
            f.write(whole)
        if torn_header:
            spoil(image.cache, at_torn + AT_CRC)
        ctl("repair", "--yes", image.cache, says=("what is left of their headers names 0 blocks",))
        unchanged(image.cache, "check", image.cache, says=("no problems",))
        image.verify()


def put_record(image, behind, epoch, position):
    """A whole record in the segment after the one of a record BEHIND; it is 20 records newer, and lies."""
    place, last, at = behind
    with open(image.cache, "r+b") as f:
        f.seek(at)
        header = bytearray(f.read(BLOCK))
        struct.pack_into("<QQQQQI", header, AT_SEGMENT, place["id"] + 1, last["seq"] + 20, epoch, 1,
                         last["seq"] + 19, position)
        struct.pack_into("<I", header, AT_CRC, 0)
        struct.pack_into("<I", header, AT_CRC, crc32c(header))
        f.seek(at + (256 - last["position"] + position) * BLOCK)
        f.write(header)


@case()
def repair_takes_no_advice_from_an_unknown_epoch(env):
    """A whole record of an epoch that never was, ahead of the log: it makes nothing void, and nothing durable."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    before = bytes(image.new[""])
    image.write(1020, 2)
    image.stop()
    last = image.records()[-1]
    put_record(image, last, last[1]["epoch"] + 100, 2)
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    wipe(image.cache, last[2])
    image.refused("damaged or missing, though records up to 4 were durable")
    ctl("repair", "--yes", image.cache, says=("log is cut after record 3", "lost: records 4 to 4, .* names 0 blocks"))
    unchanged(image.cache, "check", image.cache, says=("no problems",))
    image.new[""] = bytearray(before)
    image.verify()


@case()
def repair_of_nonsense(env):
    """Records of more epochs lie in one place than an honest cache has in all of them."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    image.stop()
    last = image.records()[-1]
    patch(image.cache, AT_EPOCH, "Q", 1000)  # with the same first seq: all records are void
    for i in range(40):
        put_record(image, last, 100 + i, 4 * i)
    unchanged(image.cache, "repair", image.cache, status=1, says=("log is cut after record 0", "give --yes"))


class History:
    """What each block of an image was over time."""

    def __init__(self, image):
        self.image = image
        self.versions = {}  # block -> what it was, the newest last
        self.cut_off = {}  # block -> what was torn in a crash, though it may have been read before

    def write(self, block, nr):
        self.image.write(block, nr)
        old, new = self.image.old[""], self.image.new[""]
        for b in range(block, block + nr):
            self.versions.setdefault(b, [old[b * BLOCK:(b + 1) * BLOCK]]).append(
                bytes(new[b * BLOCK:(b + 1) * BLOCK]))

    def tear(self):
        """After a crash: the last record is torn, if nobody says that it was durable."""
        sb, records = dump(self.image.cache)["superblock"], self.image.records()
        if not records or sb["durable_seq"] >= records[-1][1]["seq"]:
            return
        spoil(self.image.cache, records[-1][2] + BLOCK)
        for e in records[-1][1]["entries"]:
            b = e["block"]
            self.cut_off.setdefault(b, []).append(self.versions[b].pop())
            self.image.new[""][b * BLOCK:(b + 1) * BLOCK] = self.versions[b][-1]

    def check(self, exact):
        """exact(BLOCK): it must be the newest version, and not just any."""
        for b, known in self.versions.items():
            have = read_or_error(self.image.handles[""], b)
            if have is None and not exact(b):
                continue
            assert have == known[-1] or not exact(b), f"block {b} is not its newest version"
            assert have in known + self.cut_off.get(b, []), f"block {b} is none of its versions"


SEGMENTS = {"8K": 8 * K, "16K": 16 * K, "64K": 64 * K}


def damage(image, rng, records):
    """Spoil some headers, or whole segments with their summaries. Returns the seqs of those that are lost."""
    lost = set()
    for _ in range(rng.randrange(1, 6)):
        place, record, at = rng.choice(records)
        if rng.randrange(3) == 0:
            with open(image.cache, "r+b") as f:
                f.seek(at - record["position"] * BLOCK)
                f.write(rng.randbytes(SEGMENTS[image.segment]))
            lost |= {r["seq"] for p, r, _ in records if p["id"] == place["id"]}
        elif record["seq"] not in lost:
            # It is gone; it still names its blocks; or all of it is known.
            kind = rng.randrange(3)
            if kind == 0:
                wipe(image.cache, at)
            else:
                spoil(image.cache, at + (AT_CRC if kind == 1 else AT_RESERVED))
            if kind < 2:
                lost.add(record["seq"])
    return lost


@case()
def repair_at_random(env):
    """
    Some headers, or whole segments, are gone; the log may have gone round, and been cut, before. Whatever was
    written by records that are left reads as it was written; no block has anything but one of its versions.
    """
    for _ in range(pick(2, 20)):
        image = Image(env, size=2 * M, segment=env.rng.choice(list(SEGMENTS)))
        history = History(image)

        def write_some(nr):
            for _ in range(nr):
                history.write(env.rng.randrange(40), 1 if image.segment == "8K" else env.rng.randrange(1, 3))

        if env.rng.randrange(2):
            for _ in range(3):
                image.serve(on_exit="drain", writeback="on", dirty_low=1)
                write_some(60)
                image.stop()
        for _ in range(env.rng.randrange(1, 5)):
            image.serve()
            write_some(env.rng.randrange(1, 15))
            if env.rng.randrange(2):
                image.stop()
            else:
                image.kill()
                if env.rng.randrange(2):
                    history.tear()
        image.serve()
        write_some(1)
        image.stop()
        records = image.records()
        seqs = [r["seq"] for _, r, _ in records]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        newest = {e["block"]: r["seq"] for _, r, _ in records for e in r["entries"]}
        lost = damage(image, env.rng, records)
        uncertain, known = (), False
        try:
            image.serve()
            image.stop()
        except Refused:
            unchanged(image.cache, "repair", image.cache, status=1, says=("give --yes",))
            said = ctl("repair", "--yes", image.cache, says=("repaired",))
            if "they count again now" in said:
                uncertain = history.cut_off
            known = "lost: volume" in said
        if not uncertain:
            check_harmless(image.cache)
        image.serve()
        # pylint: disable=cell-var-from-loop
        history.check(lambda b: newest.get(b) not in lost and b not in uncertain)
        write_some(2)
        image.stop()
        if not uncertain and not known:
            ctl("drain", "--offline", *image.arguments(), says=("backing stores have everything",))


class BadSectors:
    """A file with the content of another one, some of whose blocks cannot be read until they are written:
    nbdfuse on an nbdkit."""

    def __init__(self, env, content, offsets):
        need_root()
        if not os.path.exists("/dev/fuse") or not shutil.which("nbdfuse"):
            raise Skip("no /dev/fuse, or no nbdfuse")
        bad, socket, ready = env.path("bad"), env.path("sock"), env.path("ready")
        self.path = env.make_file("device", 0)
        with open(bad, "w", encoding="utf-8") as f:
            f.writelines(f"{o}\n" for o in offsets)
        hit = f"for o in $(cat {bad}); do if [ $(($4 + $3)) -gt $o ] && [ $4 -lt $(($o + {BLOCK})) ]; then"
        dd = "iflag=count_bytes,skip_bytes,fullblock status=none"
        server = subprocess.Popen(
            ["nbdkit", "-f", "--exit-with-parent", "-U", socket, "eval", f"get_size=stat -c %s {content}",
             f"pread={hit} echo EIO bad sector >&2; exit 1; fi; done; "
             f"dd if={content} bs=1M skip=$4 count=$3 {dd}",
             f"pwrite={hit} sed -i /^$o$/d {bad}; fi; done; "
             f"dd of={content} bs=1M seek=$4 oflag=seek_bytes iflag=fullblock conv=notrunc status=none",
             "can_write=exit 0", "can_flush=exit 0", "flush=exit 0",
             "thread_model=echo serialize_all_requests"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        env.at_end(lambda: end_process(server))
        wait_until(lambda: os.path.exists(socket), "no server of the bad sectors")
        fuse = subprocess.Popen(["nbdfuse", "-P", ready, self.path, f"nbd+unix:///?socket={socket}"],
                                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        env.at_end(lambda: fuse.wait(30))
        wait_until(lambda: os.path.exists(ready) or fuse.poll() is not None, "no nbdfuse")
        if fuse.poll() is not None:
            raise Skip("nbdfuse does not work here")
        env.at_end(lambda: take_down("umount", self.path))


@case()
def repair_unreadable(env):
    """What cannot be read is written again: a copy of a page, a header in the middle, and behind the end."""
    image = dirty_image(env, 3, segment="1M", size=8 * M)
    before = bytes(image.new[""])
    image.write(1020, 2)
    image.write(100, 2)
    image.stop()
    _, last, at = image.records()[-1]
    behind = at + (1 + len(last["entries"])) * BLOCK
    device = BadSectors(env, image.cache, [BLOCK, image.records()[3][2], behind])
    cache, image.cache = image.cache, device.path
    ctl("check", device.path, status=1,
        says=("corrupt: superblock: copy 2 .* cannot be read",
              r"corrupt: .*segment 1 \(block \d+\) cannot be read"))
    ctl("dump", device.path, status=1, says=("copy 2: unreadable", "cannot be followed"))
    ctl("repair", device.path, status=1,
        says=("page 0: copy 2 cannot be read, and is written again",
              "fillers take the place of records 4 to 4",
              "cannot be read and is overwritten", "lost: if a record began there", "give --yes"))
    assert len(open(env.path("bad"), encoding="utf-8").read().split()) == 3
    ctl("repair", "--yes", device.path, says=("repaired",))
    assert not open(env.path("bad"), encoding="utf-8").read()
    image.new[""][1020 * BLOCK:1022 * BLOCK] = before[1020 * BLOCK:1022 * BLOCK]
    image.cache = cache
    ctl("check", cache, says=("no problems",))
    image.verify()


@case()
def drain_offline(env):
    """After a crash the backing stores get everything, without a server."""
    image = dirty_image(env, 60, names=("", "a", "b"))
    image.handles["a"].zero(64 * K, 128 * K)
    image.new["a"][128 * K:192 * K] = bytes(64 * K)
    image.handles["a"].flush()
    image.kill()
    args = image.arguments()
    # Nothing is written unless everything is there.
    unchanged(image.cache, "drain", "--offline", *args[:-2], status=1, says=("volume b", "not written back"))
    unchanged(image.cache, "drain", "--offline", *args[:-1], f"backing={image.cache}", status=1,
              says=("same file",))
    other = env.make_file("other", 4 * M, env.rng.randbytes(M))
    unchanged(image.cache, "drain", "--offline", *args[:-1], f"backing={other}", status=1,
              says=("not the backing store", other))
    blank = env.make_file("blank", 8 * M)
    unchanged(blank, "drain", "--offline", f"cache={blank}", *args[1:], status=1, says=("not a logcache",))

    ctl("drain", "--offline", *args, says=(r"\d+ blocks written back",))
    for name, path in image.backing.items():
        with open(path, "rb") as f:
            assert f.read() == image.new[name], f"the backing store of '{name}' differs"
    d = dump(image.cache)
    assert d["log"]["dirty_blocks"] == 0 and d["superblock"]["clean"]
    ctl("check", image.cache, says=("no problems\n",))
    ctl("drain", "--offline", "--quiet", *args)
    image.verify()


@case()
def drain_that_fails(env):
    """The backing store takes nothing: the rest stays in the cache, and the next attempt has it."""
    image = dirty_image(env)
    image.stop()
    limit = 64 * K // 1024
    program = os.path.join(os.path.dirname(harness.MODULE), "logcachectl")
    # A file size limit makes writes fail behind 64K, in the files of backing store and cache alike; above it
    # the cache's superblock, at the beginning, can still be written.
    done = subprocess.run(["bash", "-c", f"trap '' XFSZ; ulimit -f {limit}; exec \"$@\"", "bash",
                           program, "drain", "--offline", *image.arguments()], check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120)
    assert done.returncode == 1, done.stdout
    assert re.search("could not write everything back: .* stay in", done.stdout), done.stdout
    ctl("drain", "--offline", *image.arguments())
    with open(image.backing[""], "rb") as f:
        assert f.read() == image.new[""]


@case()
def forget_a_volume(env):
    image = dirty_image(env, names=("", "a", "b"))
    image.stop()
    unchanged(image.cache, "forget", image.cache, "c", status=1, says=("no volume c",))
    text = ("volume a has [1-9][0-9]* blocks not written back", "--yes-lose-data", "nothing was changed")
    assert "forgotten" not in ctl("forget", image.cache, "a", status=1, says=text)
    ctl("forget", image.cache, "a", "--yes-lose-data", says=("volume 'a' is forgotten", "not written back"))
    assert [v["name"] for v in dump(image.cache)["volumes"]] == ["", "b"]
    ctl("check", image.cache, says=("no problems",))
    # The name can be used again, for the backing store as it is; the others have everything.
    image.new["a"] = bytearray(image.old["a"])
    image.verify()
    ctl("drain", "--offline", *image.arguments())
    ctl("forget", image.cache, "", says=("default export is forgotten$",))
    ctl("check", image.cache, says=("no problems",))
    image.verify()


@case()
def forget_lost_blocks(env):
    """A volume that gets the id of a forgotten one does not inherit its errors."""
    image = Image(env, names=("a", "b"))
    image.serve()
    image.write(3, name="a")
    image.write(4, name="b")
    image.stop()
    spoil(image.cache, image.records()[0][2] + BLOCK)
    ctl("drain", "--offline", *image.arguments(), status=1, says=("is lost",))
    ctl("forget", image.cache, "a", status=1,
        says=("a has 0 blocks not written back .*, and 1 lost block already: nothing was changed",))
    lost_page = slice(38 * 2 * BLOCK, 39 * 2 * BLOCK)
    with open(image.cache, "rb") as f:
        page = f.read()[lost_page]
    ctl("forget", image.cache, "a", "--yes-lose-data", says=("given up with it: 0 blocks not written back, and 1 lost block\n",))
    check_harmless(image.cache)

    # A crash in between: the volume is gone, and its lost block is still listed.
    with open(image.cache, "r+b") as f:
        f.seek(lost_page.start)
        f.write(page)
    unchanged(image.cache, "check", image.cache, status=1,
              says=("harmless: .*block 3 of volume 1, .*not know",))
    unchanged(image.cache, "repair", image.cache, status=1,
              says=("list of lost blocks: 1 block of a volume that was forgotten",))
    ctl("repair", "--yes", image.cache)
    assert not dump(image.cache)["lost_blocks"]
    image.new["a"] = bytearray(image.old["a"])
    image.verify()


@case()
def forget_on_a_damaged_cache(env):
    image = dirty_image(env, 5, segment="1M", size=8 * M)
    image.stop()
    spoil(image.cache, image.records()[1][2])
    unchanged(image.cache, "dump", image.cache, status=1, says=("cannot be followed",))
    before = file_hash(image.cache)
    ctl("forget", image.cache, "", "--yes-lose-data", status=1, says=("repair",))
    assert file_hash(image.cache) == before
