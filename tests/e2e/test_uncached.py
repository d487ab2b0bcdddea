# SPDX-License-Identifier: BSD-3-Clause
"""Without cache=: the volumes straight from their backing stores."""

import time

import nbd

from devices import FailingStore, loop_device
from harness import K, M, case, pick
from test_io import one_request, read_all
from test_volumes import exports_of


def content_of(path):
    with open(path, "rb") as f:
        return f.read()


def random_requests(env, backing, size, seconds):
    """All alignments; what the server says and what the file holds must be the model, always."""
    model = bytearray(content_of(backing)[:size])
    server = env.serve(backing=backing)
    h = server.connect()
    assert h.get_size() == size
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one_request(h, env.rng, model, 512 * K)
    h.flush()
    assert read_all(h, size) == model
    h.shutdown()
    server.stop()
    assert content_of(backing)[:size] == model


@case()
def random_alignments(env):
    for size in (16 * M, 5 * M + 512, 3 * M + 4097, 511):
        random_requests(env, env.make_file(f"b{size}", size, env.rng.randbytes(size)), size,
                        pick(0.1, 1.2))


@case()
def large_logical_blocks(env):
    """A disk with blocks of 4096 bytes serves requests of one byte, too."""
    path = env.make_file("backing", 8 * M, env.rng.randbytes(8 * M))
    random_requests(env, loop_device(env, path, 4096), 8 * M, pick(0.2, 2))


@case()
def flush_and_fua_reach_the_file(env):
    backing = env.make_file("backing", 8 * M)
    server = env.serve(backing=backing)
    h = server.connect()
    h.pwrite(b"f" * 5000, 4000)
    h.flush()
    assert content_of(backing)[4000:9000] == b"f" * 5000
    h.pwrite(b"u" * 512, 1 * M, nbd.CMD_FLAG_FUA)
    h.zero(1 * K, 4000, nbd.CMD_FLAG_FUA)
    # Nothing is left to be done: a kill loses nothing.
    server.kill()
    found = content_of(backing)
    assert found[1 * M:1 * M + 512] == b"u" * 512
    assert found[4000:9000] == bytes(1 * K) + b"f" * (5000 - 1 * K)


@case()
def several_volumes(env):
    volumes = [(name, env.make_file(f"backing-{name}", 4 * M, env.rng.randbytes(4 * M)))
               for name in ("a", "b", "c")]
    models = {name: bytearray(content_of(path)) for name, path in volumes}
    server = env.serve(volumes=volumes, stats_interval=86400)
    assert [d for _, d in exports_of(server)] == [f"backing-{n} (4M), not cached" for n in "abc"]
    handles = {name: server.connect(name) for name in models}
    for _ in range(pick(200, 1000)):
        name = env.rng.choice("abc")
        one_request(handles[name], env.rng, models[name], 64 * K)
    for h in handles.values():
        h.flush()
        h.shutdown()
    server.stop()
    for name, path in volumes:
        assert content_of(path) == models[name], name
        assert f"serving {path} (4M) as volume '{name}', without a cache" in server.log()
    assert "statistics: client reads" in server.log() and "segments" not in server.log()


@case()
def same_stores_with_and_without(env):
    """A volume may be served without its cache after a drain; the cache notices."""
    backing = env.make_file("backing", 8 * M)
    files = {"cache": env.path("cache"), "backing": backing}
    server = env.serve(cache_size=8 * M, on_exit="drain", **files)
    h = server.connect()
    h.pwrite(b"1" * 1 * M, 0)
    h.shutdown()
    server.stop()
    server = env.serve(backing=backing)
    h = server.connect()
    assert h.pread(1 * M, 0) == b"1" * M
    h.pwrite(b"2" * 1 * M, 0)
    h.shutdown()
    server.stop()
    server = env.serve(**files)
    server.wait_log("changed without the cache")
    h = server.connect()
    assert h.pread(1 * M, 0) == b"2" * M
    h.shutdown()
    server.stop()


@case()
def errors_are_the_clients(env):
    """A backing store that fails fails the request, and only as long as it lasts; the log stays short."""
    store = FailingStore(env, "store", 8 * M)
    server = env.serve(backing=store.path)
    h = server.connect()
    h.pwrite(b"a" * 64 * K, 0)
    store.fail()
    failures = 0
    for _ in range(50):
        for request in (lambda: h.pread(4 * K, 0), lambda: h.pwrite(b"b" * 4 * K, 1 * M)):
            try:
                request()
            except nbd.Error as e:
                assert e.errno == "EIO", e
                failures += 1
    assert failures == 100
    store.heal()
    assert h.pread(64 * K, 0) == b"a" * 64 * K
    h.pwrite(b"c" * 4 * K, 1 * M)
    h.flush()
    h.shutdown()
    server.stop()
    for kind in ("read", "write"):
        said = server.log().count(f"error: {kind} of 4096 bytes")
        assert 1 <= said <= 15, f"{said} lines about {kind}s"
        assert f"more {kind} requests failed" in server.log()
    assert content_of(store.content)[1 * M:1 * M + 4 * K] == b"c" * 4 * K


@case()
def a_lying_file_system(env):
    """nbdfuse says that it has zeroed a range, and has zeroed a part of it: nobody may rely on that."""
    store = FailingStore(env, "liar", 2 * M)
    with open(store.content, "r+b") as f:
        f.write(bytes([0x5A]) * (2 * M))
    server = env.serve(backing=store.path)
    h = server.connect()
    h.zero(M, 64 * K)
    h.zero(256 * K, M + 128 * K, nbd.CMD_FLAG_NO_HOLE)
    assert not h.can_trim()
    found = bytes(h.pread(2 * M, 0))
    assert found[64 * K:M + 64 * K] == bytes(M), "zero with a hole"
    assert found[M + 128 * K:M + 384 * K] == bytes(256 * K), "zero without a hole"
    assert found[:64 * K] == bytes([0x5A]) * (64 * K)
    h.shutdown()
    server.stop()
