# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 at random moments, and a start after it: what was flushed is there, what was not is old
or new sector by sector, and what survived is a prefix of what was written."""

import time

import nbd

from harness import K, M, case, pick
from model import Volume
from test_io import random_size, read_all


def some_writes(h, rng, volume, nr, largest):
    """NR requests one after the other, each its own group."""
    for _ in range(nr):
        kind = rng.random()
        size = random_size(rng, volume.size_bytes, largest)
        # Mostly within a quarter, so that versions pile up on the same sectors.
        room = volume.size_bytes - size
        offset = rng.randint(0, room if rng.random() < 0.2 else min(room, volume.size_bytes // 4))
        if rng.random() < 0.7:
            offset = offset // 4096 * 4096
        if kind < 0.08:
            h.flush()
            volume.flushed()
        elif kind < 0.16:
            buf = rng.randbytes(size)
            volume.write(offset, buf)
            h.pwrite(buf, offset, nbd.CMD_FLAG_FUA)
            volume.fua_done(offset, size)
        elif kind < 0.24:
            zero_or_trim(h, rng, volume, size, offset)
        else:
            buf = rng.randbytes(size)
            volume.write(offset, buf)
            h.pwrite(buf, offset)
        volume.next_group()


def zero_or_trim(h, rng, volume, size, offset):
    if rng.random() < 0.3: # more than anybody would write
        offset = rng.randrange(volume.size_bytes)
        size = rng.randint(1, volume.size_bytes - offset)
    if rng.random() < 0.6:
        fua = rng.random() < 0.2
        volume.write(offset, bytes(size))
        h.zero(size, offset, rng.choice((0, nbd.CMD_FLAG_NO_HOLE)) |
               (nbd.CMD_FLAG_FUA if fua else 0))
        if fua:
            volume.fua_done(offset, size)
        return
    h.trim(size, offset)
    # Zeros or what was there, now and after a crash.
    volume.write(offset, bytes(size))
    volume.write(offset, read_all(h, offset + size, start=offset))


def writes_in_flight(h, rng, volume, largest):
    """Up to 16 requests that nobody waits for; none overlaps another (in whole sectors: a write of
    part of a sector writes the rest of it, too)."""
    taken = set()
    buffers = []  # must live as long as the requests
    for _ in range(rng.randint(0, 16)):
        size = random_size(rng, volume.size_bytes, largest)
        offset = rng.randint(0, volume.size_bytes - size)
        sectors = set(range(offset // 512, (offset + size - 1) // 512 + 1))
        if sectors & taken:
            continue
        taken |= sectors
        buf = rng.randbytes(size)
        volume.write(offset, buf)
        buffers.append(nbd.Buffer.from_bytearray(bytearray(buf)))
        h.aio_pwrite(buffers[-1], offset)
    # Let some of them get on their way.
    end = time.monotonic() + rng.choice((0, 0.001, 0.01))
    while h.aio_in_flight() and time.monotonic() < end:
        h.poll(1)
    return buffers


def rounds_of_kills(env, volume_bytes, cache, seconds, largest, **parameters):
    """Write, kill, start again (killing some of the starts, too), compare, go on."""
    rng = env.rng
    backing = env.make_file("backing", volume_bytes)
    volume = Volume(volume_bytes)
    files = {"cache": env.path("cache"), "backing": backing, **parameters}
    server = env.serve(cache_size=cache, **files)
    end = time.monotonic() + seconds
    rounds = 0
    while rounds < 3 or time.monotonic() < end:
        h = server.connect()
        some_writes(h, rng, volume, rng.randint(0, 60), largest)
        buffers = writes_in_flight(h, rng, volume, largest)
        server.kill()
        del h, buffers
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            interrupted = env.launch(**files)
            time.sleep(rng.uniform(0, 0.06))
            interrupted.kill()
        server = env.serve(**files)
        h = server.connect()
        volume.crashed(read_all(h, volume_bytes))
        if rng.random() < 0.15: # a clean restart in between
            h.shutdown()
            server.stop()
            server = env.serve(**files)
            h = server.connect()
            volume.crashed(read_all(h, volume_bytes))
        h.shutdown()
        rounds += 1
    server.stop()


@case()
def random_kills_small_segments(env):
    rounds_of_kills(env, 8 * M, 2 * M, pick(1, 11), 128 * K, segment_size="8K")


@case()
def random_kills_default_segments(env):
    rounds_of_kills(env, 24 * M, 10 * M, pick(1, 14), 1 * M)


@case(quick=False)
def random_kills_eager_writeback(env):
    rounds_of_kills(env, 16 * M, 4 * M, 11, 512 * K, segment_size="32K", dirty_low=0,
                    flush_interval=10)


@case(quick=False)
def random_kills_without_flush_interval(env):
    rounds_of_kills(env, 16 * M, 6 * M, 8, 512 * K, segment_size="64K", flush_interval=0,
                    writeback="off")


@case()
def two_connections_flush_for_each_other(env):
    """I2: A's acknowledged writes are durable once B's flush is."""
    backing = env.make_file("backing", 16 * M)
    files = {"cache": env.path("cache"), "backing": backing}
    parameters = {"flush_interval": 0, "segment_size": "64K"}
    server = env.serve(cache_size=8 * M, **files, **parameters)
    volume = Volume(16 * M)
    for _ in range(pick(5, 40)):
        a, b = server.connect(), server.connect()
        for _ in range(env.rng.randint(1, 20)):
            offset = env.rng.randrange(0, 16 * M - 64 * K, 512)
            buf = env.rng.randbytes(env.rng.choice((512, 4 * K, 5000, 64 * K)))
            a.pwrite(buf, offset)
            volume.write(offset, buf)
            volume.next_group()
            a, b = (b, a) if env.rng.random() < 0.3 else (a, b)
        b.flush()
        volume.flushed()
        server.kill()
        server = env.serve(**files, **parameters)
        h = server.connect()
        volume.crashed(read_all(h, 16 * M))
        h.shutdown()
    server.stop()


@case()
def fua_alone_is_durable(env):
    """A write with FUA survives without any flush, and so do writes acknowledged before (I9)."""
    backing = env.make_file("backing", 8 * M)
    files = {"cache": env.path("cache"), "backing": backing, "flush_interval": 0}
    server = env.serve(cache_size=8 * M, **files)
    for i in range(pick(5, 30)):
        h = server.connect()
        before, last = bytes([i + 1]) * 12 * K, bytes([i + 101]) * 512
        h.pwrite(before, 1 * M)
        h.pwrite(last, 3 * M + 512, nbd.CMD_FLAG_FUA)
        server.kill()
        server = env.serve(**files)
        h = server.connect()
        assert h.pread(512, 3 * M + 512) == last
        assert h.pread(12 * K, 1 * M) == before
        h.shutdown()
    server.stop()


@case()
def flush_interval_makes_durable(env):
    """Without any flush by the client, a write is durable soon after flush-interval."""
    backing = env.make_file("backing", 8 * M)
    files = {"cache": env.path("cache"), "backing": backing, "flush_interval": 50}
    server = env.serve(cache_size=8 * M, **files)
    h = server.connect()
    h.pwrite(b"x" * 4096, 64 * K)
    time.sleep(1)
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert h.pread(4096, 64 * K) == b"x" * 4096
    h.shutdown()
    server.stop()


@case(quick=False)
def kill_while_draining(env):
    """on-exit=drain is interrupted by kill -9; the next start has everything all the same."""
    volume = 48 * M
    backing = env.make_file("backing", volume)
    files = {"cache": env.path("cache"), "backing": backing, "on_exit": "drain",
             "writeback": "off"}
    model = bytearray(volume)
    server = env.serve(cache_size=24 * M, **files)
    for _ in range(8):
        h = server.connect()
        for _ in range(1500):
            offset = env.rng.randrange(0, volume, 4096)
            buf = env.rng.randbytes(4096)
            h.pwrite(buf, offset)
            model[offset:offset + 4096] = buf
        h.flush()
        h.shutdown()
        server.terminate()
        time.sleep(env.rng.uniform(0, 0.15))
        server.kill()
        server = env.serve(**files)
        h = server.connect()
        assert read_all(h, volume) == model
        h.shutdown()
    server.stop()
    with open(backing, "rb") as f:
        assert f.read() == model
