# SPDX-License-Identifier: BSD-3-Clause
"""Stores that fail while they serve, and come back: what was acknowledged is there, what cannot be promised is an
error, nobody has to restart anything, and the log does not drown in messages."""

import time

import nbd

from control import Control, refused
from devices import FailingStore
from harness import K, M, case
from test_io import read_all

CHUNK = 256 * K


def write_until_error(h, rng, model, chunks, timeout_s=60):
    """Random chunks at random places but the first until one fails; the error and how long that write took."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        at = rng.randrange(1, chunks) * CHUNK
        buf = rng.randbytes(CHUNK)
        start = time.monotonic()
        try:
            h.pwrite(buf, at)
        except nbd.Error as e:
            return e, time.monotonic() - start, at
        model[at:at + CHUNK] = buf
    raise AssertionError("no write failed")


def write_until_it_works(h, model, timeout_s=30):
    end = time.monotonic() + timeout_s
    while True:
        try:
            h.pwrite(b"back" * K, 0)
            h.flush()
            model[:4 * K] = b"back" * K
            return
        except nbd.Error:
            assert time.monotonic() < end, "service did not resume"
            time.sleep(0.1)


def lines(server, text):
    return [line for line in server.log().splitlines() if text in line]


def matches_except(found, model, unknown):
    """Equal, but for chunks whose write failed."""
    found = bytearray(found)
    for at in unknown:
        found[at:at + CHUNK] = model[at:at + CHUNK]
    return found == model


@case(quick=False)
def backing_store(env):
    """Writes go on into the cache until it is full, then they fail after stall-timeout; reads of what is
    cached work throughout."""
    size = 32 * M
    store = FailingStore(env, "slow", size)
    files = {"cache": env.path("cache"), "backing": store.path, "dirty_low": 0, "stall_timeout": 1}
    server = env.serve(cache_size=12 * M, **files)
    h = server.connect()
    model = bytearray(size)
    h.pwrite(b"1" * 4 * K, 4 * K)
    model[4 * K:8 * K] = b"1" * 4 * K
    store.fail()
    # Much fits before space runs out.
    for i in range(20):
        buf = env.rng.randbytes(CHUNK)
        h.pwrite(buf, 16 * M + i * CHUNK)
        model[16 * M + i * CHUNK:16 * M + (i + 1) * CHUNK] = buf
    h.flush()
    error, took, at = write_until_error(h, env.rng, model, size // CHUNK)
    assert error.errno == "EIO", error
    assert 0.5 < took < 10, f"the failing write took {took:.1f} s"
    assert h.pread(4 * K, 4 * K) == b"1" * 4 * K
    h.flush()
    said = [line for line in lines(server, store.path) if "error: write of" not in line
            and "serving" not in line]
    assert 1 <= len(said) <= 5, said
    store.heal()
    write_until_it_works(h, model)
    assert matches_except(read_all(h, size), model, [at])
    model[at:at + CHUNK] = h.pread(CHUNK, at)
    h.shutdown()
    server.stop()
    server = env.serve(on_exit="drain", **files)
    h = server.connect()
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()
    with open(store.content, "rb") as f:
        assert f.read() == model


@case(quick=False)
def backing_store_of_one_volume(env):
    """The other volume goes on as long as there is space."""
    store = FailingStore(env, "slow", 16 * M)
    good = env.make_file("good", 64 * M)
    files = {"cache": env.path("cache"), "volumes": [("bad", store.path), ("good", good)],
             "dirty_low": 0, "stall_timeout": 1}
    server = env.serve(cache_size=12 * M, **files)
    bad, h = server.connect("bad"), server.connect("good")
    store.fail()
    bad.pwrite(b"b" * 64 * K, 0)
    written = b""
    for i in range(16):
        buf = env.rng.randbytes(CHUNK)
        h.pwrite(buf, i * CHUNK)
        written += buf
    h.flush()
    assert h.pread(4 * M, 0) == written
    store.heal()
    bad.shutdown()
    h.shutdown()
    server.stop()
    server = env.serve(on_exit="drain", **files)
    h = server.connect("bad")
    assert h.pread(64 * K, 0) == b"b" * 64 * K
    h.shutdown()
    server.stop()
    with open(store.content, "rb") as f:
        assert f.read(64 * K) == b"b" * 64 * K
    with open(good, "rb") as f:
        assert f.read(4 * M) == written


@case()
def drain_that_fails(env):
    """on-exit=drain while the backing store fails: an error at exit, and the data stays in the cache."""
    store = FailingStore(env, "slow", 8 * M)
    files = {"cache": env.path("cache"), "backing": store.path, "on_exit": "drain"}
    server = env.serve(cache_size=8 * M, writeback="off", **files)
    h = server.connect()
    h.pwrite(b"d" * 1 * M, 1 * M)
    h.shutdown()
    store.fail()
    server.stop()
    assert f"could not write everything back: volume (default), {store.path}: Input/output error;" in server.log(), \
        server.log()
    store.heal()
    server = env.serve(**files)
    h = server.connect()
    assert h.pread(1 * M, 1 * M) == b"d" * M
    h.shutdown()
    server.stop()
    with open(store.content, "rb") as f:
        f.seek(1 * M)
        assert f.read(1 * M) == b"d" * M


def failing_ssd(env, **parameters):
    ssd = FailingStore(env, "ssd", 12 * M, **parameters)
    size = 32 * M
    files = {"cache": ssd.path, "backing": env.make_file("backing", size), "stall_timeout": 1,
             "writeback": "off", "segment_size": "256K"}
    return ssd, size, files


def fails(request):
    try:
        request()
    except nbd.Error as e:
        assert e.errno == "EIO", e
        return True
    return False


@case()
def ssd(env):
    """A flush fails, and so do all later ones until everything is really durable; then service resumes, and
    a kill loses nothing."""
    store, size, files = failing_ssd(env)
    server = env.serve(control=env.path("ctl"), **files)
    control = Control(env.path("ctl"))
    h = server.connect()
    model = bytearray(size)
    for i in range(8):
        buf = env.rng.randbytes(CHUNK)
        h.pwrite(buf, i * CHUNK)
        model[i * CHUNK:(i + 1) * CHUNK] = buf
    h.flush()
    store.fail()
    h.pwrite(b"e" * 4 * K, 20 * M)
    model[20 * M:20 * M + 4 * K] = b"e" * 4 * K
    assert fails(h.flush), "a flush succeeded on an SSD that fails"
    assert fails(h.flush), "the flush after it succeeded"
    assert h.pread(4 * K, 20 * M) == b"e" * 4 * K
    refused(500, control.ask, "POST", "/v1/flush", says=f"cache {store.path} cannot be flushed: Input/output")
    job = control.wait(control.start("drain"))
    assert job["state"] == "failed" and f"cache {store.path}: Input/output error" in job["error"], job
    store.heal()
    write_until_it_works(h, model)
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()
    for s in env.servers:
        assert len(lines(s, store.path)) <= 12, s.log()


@case()
def ssd_at_the_end(env):
    """The log cannot be closed: it is said what is waited for and how long, and then that it was in vain."""
    store, _, files = failing_ssd(env)
    server = env.serve(**files)
    h = server.connect()
    h.pwrite(b"f" * 4 * K, 0)
    h.flush()
    store.fail()
    h.pwrite(b"l" * 4 * K, 1 * M)
    h.shutdown()
    server.stop()
    waits = server.log().find(f"{store.path}: the end of the log cannot be written: Input/output error; trying again "
                              "for up to 1 s (stall-timeout)")
    assert 0 < waits < server.log().find("could not close cache"), server.log()
    store.heal()
    server = env.serve(**files)
    h = server.connect()
    assert h.pread(4 * K, 0) == b"f" * 4 * K, "what was flushed is lost"
    h.shutdown()
    server.stop()


@case(quick=False)
def ssd_flushes_alone(env):
    """Writes succeed and the flush does not: nothing was promised, so nothing may be."""
    store, size, files = failing_ssd(env, flushes_only=True)
    server = env.serve(**files)
    h = server.connect()
    model = bytearray(size)
    h.pwrite(b"a" * 64 * K, 0)
    h.flush()
    model[:64 * K] = b"a" * 64 * K
    store.fail()
    h.pwrite(b"b" * 64 * K, 1 * M)
    model[1 * M:1 * M + 64 * K] = b"b" * 64 * K
    assert fails(h.flush)
    assert fails(lambda: h.pwrite(b"c" * 4 * K, 2 * M, nbd.CMD_FLAG_FUA))
    model[2 * M:2 * M + 4 * K] = b"c" * 4 * K  # written, though not durable
    store.heal()
    write_until_it_works(h, model)
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()


@case(quick=False)
def ssd_until_memory_is_full(env):
    """Writes are taken into memory while the SSD fails; when that is full they fail, too, after
    stall-timeout."""
    store, size, files = failing_ssd(env)
    server = env.serve(**files)
    h = server.connect()
    model = bytearray(size)
    store.fail()
    error, took, at = write_until_error(h, env.rng, model, size // CHUNK)
    assert error.errno == "EIO", error
    assert took < 10, f"the failing write took {took:.1f} s"
    store.heal()
    write_until_it_works(h, model)
    assert matches_except(read_all(h, size), model, [at])
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert matches_except(read_all(h, size), model, [at])
    h.shutdown()
    server.stop()


@case()
def many_failures_are_summed_up(env):
    """A thousand failing requests are a few lines."""
    store = FailingStore(env, "slow", 8 * M)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, backing=store.path)
    h = server.connect()
    store.fail()
    for i in range(1000):
        assert fails(lambda: h.pread(4 * K, i * 4 * K))
    store.heal()
    assert h.pread(4 * K, 0) == bytes(4 * K)
    h.shutdown()
    server.stop()
    told = len(lines(server, "error: read of 4096 bytes"))
    summed = sum(int(line.split("error: ")[1].split()[0])
                 for line in lines(server, "more read requests failed"))
    assert told + summed == 1000 and told <= 60, f"{told} lines, {summed} summed up"


@case(quick=False)
def client_that_is_gone(env):
    """A write waits for space, and its client gives up: closes the connection and sends the write again on
    another one, as the kernel's client does. The first one must not come late and overwrite what was written
    since."""
    size = 16 * M
    store = FailingStore(env, "slow", size)
    files = {"cache": env.path("cache"), "backing": store.path, "segment_size": "256K"}
    server = env.serve(cache_size=5 * M, stall_timeout=600, client_timeout=1, **files)
    h = server.connect()
    store.fail()
    buffers = [nbd.Buffer.from_bytearray(bytearray(b"1" * CHUNK)) for _ in range(size // CHUNK)]
    cookies = [h.aio_pwrite(buf, i * CHUNK) for i, buf in enumerate(buffers)]
    end = time.monotonic() + 2
    while time.monotonic() < end:
        h.poll(100)
    waiting = [i for i, cookie in enumerate(cookies) if not h.aio_command_completed(cookie)]
    assert waiting, "all writes found space"
    del h # with the connection
    server.wait_log("write of .* failed: its client went away", timeout_s=20)
    h = server.connect()
    store.heal()
    model = bytearray()
    for i in range(size // CHUNK):
        h.pwrite(b"2" * CHUNK, i * CHUNK)
        model += b"2" * CHUNK
    h.flush()
    time.sleep(1)
    assert read_all(h, size) == model
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()
