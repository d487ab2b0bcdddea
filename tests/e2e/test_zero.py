# SPDX-License-Identifier: BSD-3-Clause
"""Zero, trim and extents: what they cost, what they give back, and what they tell."""

import errno
import json
import os
import shutil
import subprocess
import time

import nbd

from harness import K, M, Skip, case, pick
from test_io import one_request, read_all, zero_or_trim
from test_queue import filtered

G = 1 << 30
HOLE = nbd.STATE_HOLE | nbd.STATE_ZERO


def allocated(path):
    return os.stat(path).st_blocks * 512


def extents(h, size, start=0, flags=0):
    """[(offset, length, is a hole)], neighbours joined."""
    found = []

    def add(_context, _offset, entries, _error):
        for length, kind in zip(entries[::2], entries[1::2]):
            assert kind in (0, HOLE), kind
            got.append((length, kind == HOLE))
        return 0

    at = start
    while at < size:
        got = []
        h.block_status(min(size - at, 4 * G - 64 * K), at, add, flags)
        assert got and (len(got) == 1 or not flags & nbd.CMD_FLAG_REQ_ONE)
        for length, hole in got:
            if found and found[-1][2] == hole:
                found[-1] = (found[-1][0], found[-1][1] + length, hole)
            else:
                found.append((at, length, hole))
            at += length
    assert at == size
    return found


def is_zero(path, offset, length):
    zeros = bytes(16 * M)
    with open(path, "rb") as f:
        f.seek(offset)
        while length:
            buf = f.read(min(length, 16 * M))
            assert buf
            if buf != zeros[:len(buf)]:
                return False
            length -= len(buf)
    return True


@case(quick=False)
def one_gigabyte(env):
    """One request for a gigabyte, through a cache of 16 MiB: an answer at once, zeros at once, and still
    after a kill; the backing store is zeroed before long."""
    size = 3 * G
    backing = env.make_file("backing", size)
    marks = [env.rng.randrange(0, size - 64 * K) for _ in range(64)]
    with open(backing, "r+b") as f:
        for at in marks:
            f.seek(at)
            f.write(env.rng.randbytes(64 * K))
    files = {"cache": env.path("cache"), "backing": backing}
    server = env.serve(cache_size=16 * M, writeback="off", **files)
    h = server.connect()
    h.pwrite(b"x" * 8 * M, 1 * G)
    start = time.monotonic()
    h.zero(G, 512 * M + 1, nbd.CMD_FLAG_FUA)
    h.zero(G, 512 * M + 1 + G, nbd.CMD_FLAG_NO_HOLE)
    h.zero(512 * M + 1, 0)
    h.flush()
    took = time.monotonic() - start
    assert took < 5, f"three zero requests took {took:.1f} s"
    for at in [1 * G] + marks:
        end = min(at + 64 * K, 512 * M + 1 + 2 * G)
        assert at >= end or not any(h.pread(end - at, at))
    server.kill()
    server = env.serve(on_exit="drain", **files)
    h = server.connect()
    for at in [1 * G] + marks:
        end = min(at + 64 * K, 512 * M + 1 + 2 * G)
        assert at >= end or not any(h.pread(end - at, at))
    h.shutdown()
    server.stop()
    assert is_zero(backing, 0, 512 * M + 1 + 2 * G)


def stored(env, size=64 * M):
    """A backing store that is full of data."""
    backing = env.make_file("backing", size, env.rng.randbytes(size))
    os.sync()
    if allocated(backing) < size:
        raise Skip("this file system stores less than what was written")
    return backing


def change_and_drain(env, backing, change):
    server = env.serve(cache=env.path("cache"), cache_size=16 * M, backing=backing, on_exit="drain",
                       writeback="off")
    h = server.connect()
    change(h)
    h.shutdown()
    server.stop()
    os.unlink(env.path("cache"))


@case()
def space_is_given_back(env):
    """Zero and trim punch the backing file; NO_HOLE keeps its space."""
    backing = stored(env)
    before = allocated(backing)
    change_and_drain(env, backing, lambda h: h.zero(16 * M, 4 * M, nbd.CMD_FLAG_NO_HOLE))
    assert is_zero(backing, 4 * M, 16 * M)
    assert allocated(backing) >= before - 64 * K, "NO_HOLE lost space"
    change_and_drain(env, backing, lambda h: h.zero(16 * M, 20 * M))
    assert is_zero(backing, 20 * M, 16 * M)
    assert allocated(backing) <= before - 16 * M + 64 * K, "zero kept space"
    change_and_drain(env, backing, lambda h: h.trim(16 * M, 40 * M))
    assert is_zero(backing, 40 * M, 16 * M)
    assert allocated(backing) <= before - 32 * M + 64 * K, "trim kept space"
    assert os.path.getsize(backing) == 64 * M


@case()
def whole_disk(env):
    """What blkdiscard does: trim everything, in the largest requests there are."""
    size = 5 * G
    backing = env.make_file("backing", size, env.rng.randbytes(64 * M))

    def discard(h):
        h.pwrite(env.rng.randbytes(4 * M), 2 * G)
        for at in range(0, size, 4 * G - 64 * K):
            h.trim(min(4 * G - 64 * K, size - at), at)
        assert [hole for _, _, hole in extents(h, size)] == [True]

    change_and_drain(env, backing, discard)
    assert allocated(backing) < 1 * M
    assert is_zero(backing, 2 * G, 4 * M)


@case()
def fast_zero(env):
    """It is fast on a file; on a store that cannot punch or zero by itself the client hears so, at once, and
    an ordinary zero works all the same."""
    server = env.serve(cache=env.path("cache"), cache_size=8 * M,
                       backing=env.make_file("backing", 64 * M, b"f" * 64 * M))
    h = server.connect()
    assert h.can_fast_zero()
    h.zero(48 * M, 1 * M, nbd.CMD_FLAG_FAST_ZERO)
    assert not any(h.pread(48 * M, 1 * M))
    h.shutdown()
    server.stop()

    server = env.serve(launcher=filtered("fallocate"), cache=env.path("cache2"),
                       cache_size=8 * M, backing=env.make_file("slow", 16 * M))
    h = server.connect()
    assert not h.can_trim()
    refuses_fast_zero(h)
    h.zero(14 * M, 1 * M)
    assert read_all(h, 16 * M) == b"s" * M + bytes(14 * M) + b"s" * M
    assert "error:" not in server.log(), server.log()
    h.shutdown()
    server.stop()


def refuses_fast_zero(h):
    size = h.get_size()
    for at in range(0, size, 16 * M):
        h.pwrite(b"s" * 16 * M, at)
    h.set_strict_mode(0)
    try:
        h.zero(size, 0, nbd.CMD_FLAG_FAST_ZERO)
        raise AssertionError("fast, without fallocate?")
    except nbd.Error as e:
        assert e.errnum == errno.ENOTSUP, e
    assert read_all(h, size) == b"s" * size


@case(quick=False)
def fast_zero_without_a_cache(env):
    """The same on an uncached volume, and an ordinary zero is larger than a write may be."""
    server = env.serve(launcher=filtered("fallocate"), backing=env.make_file("slow", 96 * M))
    h = server.connect()
    assert not h.can_trim()
    refuses_fast_zero(h)
    h.zero(96 * M - 1, 0)
    assert read_all(h, 96 * M) == bytes(96 * M - 1) + b"s"
    h.zero(96 * M, 0, nbd.CMD_FLAG_NO_HOLE)
    assert read_all(h, 96 * M) == bytes(96 * M)
    h.shutdown()
    server.stop()


def island_file(env):
    """16 MiB of hole with data at 1 MiB (64 KiB) and at 8 MiB (1 MiB)."""
    backing = env.make_file("backing", 16 * M)
    with open(backing, "r+b") as f:
        for at, n in ((1 * M, 64 * K), (8 * M, 1 * M)):
            f.seek(at)
            f.write(env.rng.randbytes(n))
    return backing


@case()
def extents_of_the_cache_and_the_store(env):
    for cached in (True, False):
        cache = {"cache": env.path("cache"), "cache_size": 8 * M, "writeback": "off"}
        server = env.serve(backing=island_file(env), **(cache if cached else {}))
        h = server.connect()
        holes = [(0, 1 * M, True), (1 * M, 64 * K, False), (1 * M + 64 * K, 7 * M - 64 * K, True),
                 (8 * M, 1 * M, False), (9 * M, 7 * M, True)]
        assert extents(h, 16 * M) == holes, extents(h, 16 * M)
        assert extents(h, 16 * M, flags=nbd.CMD_FLAG_REQ_ONE) == holes
        assert extents(h, 8 * M + 4 * K, start=4 * K + 1)[0] == (4 * K + 1, 1 * M - 4 * K - 1, True)
        if cached:
            # Written, and nowhere but in the cache: no hole any more.
            h.pwrite(b"c" * 4 * K, 4 * M)
            h.pwrite(b"c", 5 * M)
            # Zeroed, and the data still on the backing store: a hole.
            h.zero(1 * M, 8 * M)
            assert extents(h, 16 * M) == [
                (0, 1 * M, True), (1 * M, 64 * K, False),
                (1 * M + 64 * K, 3 * M - 64 * K, True), (4 * M, 4 * K, False),
                (4 * M + 4 * K, 1 * M - 4 * K, True), (5 * M, 4 * K, False),
                (5 * M + 4 * K, 11 * M - 4 * K, True)], extents(h, 16 * M)
            os.unlink(env.path("cache"))
        h.shutdown()
        server.stop()


@case()
def holes_read_as_zeros(env):
    """Random requests; whatever is called a hole must read as zeros, whatever write-back does meanwhile."""
    size = 24 * M
    server = env.serve(cache=env.path("cache"), cache_size=6 * M, segment_size="64K", dirty_low=0,
                       backing=env.make_file("backing", size, env.rng.randbytes(size // 2)))
    h = server.connect()
    model = bytearray(read_all(h, size))
    end = time.monotonic() + pick(0.3, 4)
    while time.monotonic() < end:
        for _ in range(env.rng.randint(1, 15)):
            if env.rng.random() < 0.3:
                offset = env.rng.randrange(size)
                zero_or_trim(h, env.rng, model, env.rng.randint(1, size - offset), offset, 0)
            else:
                one_request(h, env.rng, model, 256 * K)
        for at, length, hole in extents(h, size):
            assert not hole or not any(model[at:at + length]), f"data in a hole at {at}"
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()


def same(path, h, size):
    with open(path, "rb") as f:
        return f.read() == read_all(h, size)


@case()
def nbdcopy_skips_holes(env):
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, writeback="off",
                       backing=island_file(env))
    h = server.connect()
    h.pwrite(b"c" * 64 * K, 4 * M)
    h.zero(512 * K, 8 * M)
    copy = env.path("copy")
    subprocess.run(["nbdcopy", server.uri, copy], check=True, timeout=60)
    assert same(copy, h, 16 * M)
    assert allocated(copy) <= 1 * M, f"the copy takes {allocated(copy)} bytes"
    h.shutdown()
    server.stop()


@case()
def qemu_img_skips_holes(env):
    if not shutil.which("qemu-img"):
        raise Skip("qemu-img is not installed")
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, writeback="off",
                       backing=island_file(env))
    h = server.connect()
    h.pwrite(b"c" * 64 * K, 4 * M)
    done = subprocess.run(["qemu-img", "map", "--output=json", "-f", "raw", server.uri],
                          capture_output=True, check=True, timeout=60)
    found = [(e["start"], e["length"]) for e in json.loads(done.stdout) if e["data"]]
    assert found == [(1 * M, 64 * K), (4 * M, 64 * K), (8 * M, 1 * M)], found
    copy = env.path("copy")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, copy], check=True,
                   timeout=60)
    assert same(copy, h, 16 * M)
    assert allocated(copy) <= 2 * M, f"the copy takes {allocated(copy)} bytes"
    h.shutdown()
    server.stop()


@case(quick=False)
def zeros_in_flight(env):
    """Zeros, trims and writes next to each other on several connections, up to 32 at a time; none overlaps
    another, so every byte has one right content."""
    size, rng = 64 * M, env.rng
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, segment_size="128K", dirty_low=0,
                       backing=env.make_file("backing", size))
    handles = [server.connect() for _ in range(4)]
    model = bytearray(size)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        cuts = sorted({0, size, *(rng.randrange(size) // rng.choice((1, 512, 4096)) *
                                  rng.choice((1, 512, 4096)) % size for _ in range(32))})
        cookies, buffers = [], []
        for start, stop in zip(cuts, cuts[1:]):
            h = rng.choice(handles)
            kind = rng.random()
            if kind < 0.3:
                cookies.append((h, h.aio_zero(stop - start, start)))
                model[start:stop] = bytes(stop - start)
            elif kind < 0.9:
                stop = min(stop, start + 64 * K)
                buf = rng.randbytes(stop - start)
                buffers.append(nbd.Buffer.from_bytearray(bytearray(buf)))
                cookies.append((h, h.aio_pwrite(buffers[-1], start)))
                model[start:stop] = buf
        while cookies:
            cookies = [(h, c) for h, c in cookies if not h.aio_command_completed(c)]
            if cookies:
                cookies[0][0].poll(1000)
    assert read_all(handles[0], size) == model
    for h in handles:
        h.shutdown()
    server.stop()


@case(quick=False)
def kill_while_zeroing(env):
    """The backing store is being zeroed when the server is killed; also in the middle of the next start."""
    size = 128 * M
    backing = env.make_file("backing", size, env.rng.randbytes(32 * M) * 4)
    with open(backing, "rb") as f:
        model = bytearray(f.read())
    files = {"cache": env.path("cache"), "backing": backing, "on_exit": "drain"}
    server = env.serve(cache_size=16 * M, **files)
    for _ in range(8):
        h = server.connect()
        for _ in range(20):
            offset = env.rng.randrange(size)
            length = min(env.rng.randint(1, 32 * M), size - offset)
            h.zero(length, offset, env.rng.choice((0, nbd.CMD_FLAG_NO_HOLE)))
            model[offset:offset + length] = bytes(length)
            offset = env.rng.randrange(0, size - 64 * K)
            buf = env.rng.randbytes(64 * K)
            h.pwrite(buf, offset)
            model[offset:offset + 64 * K] = buf
        h.flush()
        h.shutdown()
        server.terminate()
        time.sleep(env.rng.uniform(0, 0.1))
        server.kill()
        interrupted = env.launch(**files)
        time.sleep(env.rng.uniform(0, 0.06))
        interrupted.kill()
        server = env.serve(**files)
        h = server.connect()
        assert read_all(h, size) == model
        h.shutdown()
    server.stop()
    with open(backing, "rb") as f:
        assert f.read() == model
