# SPDX-License-Identifier: BSD-3-Clause
"""Reads, writes, zeroing and flushes of all sizes against a model, through a cache that is much
smaller than the volume, so that the log laps many times."""

import time

import nbd

from harness import K, M, case, finish, pick


def random_size(rng, limit, largest):
    """Sizes from bytes to megabytes, every order of magnitude equally often; half are aligned."""
    size = min(int(2 ** rng.uniform(9, largest.bit_length() - 1)), limit, largest)
    if rng.random() < 0.5:
        size = max(512, size // 512 * 512)
    if rng.random() < 0.4:
        size = max(4096, size // 4096 * 4096)
    return min(size, limit)


def random_offset(rng, volume, size):
    """Half of all requests meet in a part of the volume, so that they hit each other."""
    room = volume - size
    if rng.random() < 0.5:
        room = min(room, volume // 16)
    align = rng.choice((1, 512, 4096, 4096))
    return rng.randint(0, room) // align * align


def random_content(rng, size):
    if rng.random() < 0.1:
        return bytes([rng.randrange(256)]) * size
    return rng.randbytes(size)


def one_request(h, rng, model, largest):
    volume = len(model)
    size = random_size(rng, volume, largest)
    offset = random_offset(rng, volume, size)
    kind = rng.random()
    fua = nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0
    if kind < 0.5:
        buf = random_content(rng, size)
        h.pwrite(buf, offset, fua)
        model[offset:offset + size] = buf
    elif kind < 0.9:
        buf = h.pread(size, offset)
        assert buf == model[offset:offset + size], f"read of {size} at {offset} is wrong"
    elif kind < 0.95:
        if rng.random() < 0.3: # far more than could be written
            offset = random_offset(rng, volume, size // 16)
            size = rng.randint(1, volume - offset)
        zero_or_trim(h, rng, model, size, offset, fua)
    else:
        h.flush()


def zero_or_trim(h, rng, model, size, offset, fua):
    end = offset + size
    if rng.random() < 0.7 or not h.can_trim():
        h.zero(size, offset, fua | rng.choice((0, 0, nbd.CMD_FLAG_NO_HOLE)))
        model[offset:end] = bytes(size)
        return
    h.trim(size, offset, fua)
    found = read_all(h, end, start=offset)
    # Each sector reads as zeros or as before; parts of sectors at the ends, too.
    at = offset
    while at < end:
        part = min(at // 512 * 512 + 512, end) - at
        now = found[at - offset:at - offset + part]
        assert now in (bytes(part), model[at:at + part]), f"a trim made {at} something else"
        at += part
    model[offset:end] = found


def read_all(h, end, chunk=32 * M, start=0):
    return b"".join(h.pread(min(chunk, end - at), at) for at in range(start, end, chunk))


def random_requests(env, volume, cache, seconds, largest=4 * M, **parameters):
    """Random requests for so long; then everything is read, by this server and by the next."""
    content = env.rng.randbytes(volume)
    backing = env.make_file("backing", volume, content)
    model = bytearray(content)
    files = {"cache": env.path("cache"), "backing": backing}

    server = env.serve(**files, cache_size=cache, **parameters)
    h = server.connect()
    assert h.get_size() == volume
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one_request(h, env.rng, model, largest)
    assert read_all(h, volume) == model, "the whole volume"
    h.shutdown()
    server.stop()

    server = env.serve(**files)
    h = server.connect()
    assert read_all(h, volume) == model, "the whole volume after a clean restart"
    h.shutdown()
    server.stop()


@case()
def random_small_segments(env):
    random_requests(env, volume=pick(12, 24) * M, cache=3 * M, seconds=pick(0.6, 7), largest=1 * M,
                    segment_size="8K")


@case()
def random_default_segments(env):
    random_requests(env, volume=pick(32, 80) * M, cache=pick(8, 12) * M, seconds=pick(0.6, 7))


@case(quick=False)
def random_medium_segments(env):
    random_requests(env, volume=64 * M, cache=8 * M, seconds=6, segment_size="64K")


@case(quick=False)
def random_without_writeback_thread(env):
    """writeback=off: only want of space makes it write back."""
    random_requests(env, volume=64 * M, cache=8 * M, seconds=5, segment_size="128K",
                    writeback="off")


@case(quick=False)
def random_eager_writeback(env):
    """dirty-low=0 writes everything back at once, flush-interval=5 seals small records."""
    random_requests(env, volume=64 * M, cache=8 * M, seconds=5, segment_size="256K",
                    dirty_low=0, flush_interval=5)


@case()
def odd_volume_size(env):
    """A volume whose size is a multiple of nothing: its last bytes are as good as all others, and
    the backing file does not grow."""
    volume = 5 * M + 1234
    random_requests(env, volume=volume, cache=2 * M, seconds=pick(0.5, 4), largest=256 * K,
                    segment_size="16K", on_exit="drain")
    with open(env.path("backing"), "rb") as f:
        f.seek(0, 2)
        assert f.tell() == volume, "the backing file grew"


@case()
def largest_requests(env):
    """Requests of 64 MiB, the most that nbdkit lets through, at aligned and odd offsets, through a
    cache that is much smaller."""
    volume = pick(130, 200) * M
    backing = env.make_file("backing", volume)
    model = bytearray(volume)
    server = env.serve(cache=env.path("cache"), cache_size=16 * M, backing=backing)
    h = server.connect()
    for offset in pick((65 * M + 777,), (0, 64 * M + 512, 100 * M + 777, 136 * M, 12345)):
        buf = env.rng.randbytes(64 * M)
        h.pwrite(buf, offset)
        model[offset:offset + 64 * M] = buf
        assert h.pread(64 * M, offset) == buf
    h.zero(64 * M, 33 * M)
    model[33 * M:97 * M] = bytes(64 * M)
    h.flush()
    assert read_all(h, volume, 64 * M) == model
    h.shutdown()
    server.stop()


@case()
def many_in_flight(env):
    """Up to 64 requests in flight on four connections. Writes never overlap other requests, so
    that every read has one right answer."""
    volume, cache = 64 * M, 8 * M
    rng = env.rng
    backing = env.make_file("backing", volume)
    model = bytearray(volume)
    server = env.serve(cache=env.path("cache"), cache_size=cache, backing=backing,
                       segment_size="128K")
    handles = [server.connect() for _ in range(4)]
    end = time.monotonic() + pick(0.6, 6)
    while time.monotonic() < end:
        busy = []  # ranges of this round
        reads, cookies = [], {h: [] for h in handles}
        for _ in range(64):
            size = random_size(rng, volume, 128 * K)
            offset = random_offset(rng, volume, size)
            if any(offset < e and s < offset + size for s, e in busy):
                continue
            busy.append((offset, offset + size))
            h = rng.choice(handles)
            kind = rng.random()
            if kind < 0.5:
                buf = rng.randbytes(size)
                model[offset:offset + size] = buf
                cookies[h].append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(buf)), offset))
            elif kind < 0.95:
                buf = nbd.Buffer(size)
                reads.append((buf, offset, size))
                cookies[h].append(h.aio_pread(buf, offset))
            else:
                cookies[h].append(h.aio_flush())
        for h in handles:
            finish(h, cookies[h])
        for buf, offset, size in reads:
            assert buf.to_bytearray() == model[offset:offset + size], f"read at {offset}"
    assert read_all(handles[0], volume) == model
    for h in handles:
        h.shutdown()
    server.stop()


@case()
def scattered_reads(env):
    """Written at random, read in order, many requests at a time: the blocks of each lie all over the log. With
    either kind of ring."""
    volume = 8 * M
    for io in ("io_uring", "libaio"):
        backing = env.make_file(f"backing-{io}", volume)
        options = {"cache": env.path(f"cache-{io}"), "cache_size": 24 * M, "backing": backing, "io": io,
                   "writeback": "off"}
        server = env.serve(**options)
        h = server.connect()
        model = bytearray(volume)
        places = list(range(0, volume, 4 * K))
        env.rng.shuffle(places)
        for offset in places[len(places) // 8:]:  # the others are missing
            model[offset:offset + 4 * K] = env.rng.randbytes(4 * K)
            h.pwrite(model[offset:offset + 4 * K], offset)
        h.shutdown()
        server.stop()
        server = env.serve(**options)  # nothing is in RAM
        handles = [server.connect() for _ in range(3)]
        for _ in range(pick(3, 20)):
            reads = []
            for h in handles:
                for _ in range(16):
                    size = random_size(env.rng, volume, 1 * M)
                    buf, offset = nbd.Buffer(size), random_offset(env.rng, volume, size)
                    reads.append((h, h.aio_pread(buf, offset), buf, offset, size))
            for h, cookie, buf, offset, size in reads:
                while not h.aio_command_completed(cookie):
                    h.poll(-1)
                assert buf.to_bytearray() == model[offset:offset + size], f"{size} bytes at {offset}, {io}"
        for h in handles:
            h.shutdown()
        server.stop()


@case()
def reads_across_connections(env):
    """What one connection wrote, another reads at once, before any flush."""
    backing = env.make_file("backing", 16 * M)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, backing=backing,
                       segment_size="64K")
    a, b = server.connect(), server.connect()
    for i in range(pick(200, 2000)):
        offset = env.rng.randrange(16 * M - 8 * K)
        buf = bytes([i % 256]) * env.rng.randint(1, 8 * K)
        a.pwrite(buf, offset)
        assert b.pread(len(buf), offset) == buf
        a, b = b, a
    a.shutdown()
    b.shutdown()
    server.stop()
