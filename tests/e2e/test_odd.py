# SPDX-License-Identifier: BSD-3-Clause
"""Stores that are not what one expects: large logical blocks, holes, sizes that are no multiple of anything,
file systems without room."""

import os
import time

import nbd

from devices import loop_device, tmpfs
from harness import K, M, case, pick
from model import Volume
from test_crash import some_writes
from test_io import one_request, read_all
from test_refuse import blank_cache, refused


def requests_kill_requests_drain(env, backing_content, size, seconds=None, **files):
    """Random requests, a kill, a restart, a drain; BACKING_CONTENT is the file under the backing store."""
    server = env.serve(dirty_low=0, **files)
    files.pop("cache_size", None)
    h = server.connect()
    assert h.get_size() == size
    model = bytearray(read_all(h, size))
    end = time.monotonic() + (seconds or pick(0.2, 1))
    while time.monotonic() < end:
        one_request(h, env.rng, model, 256 * K)
    h.flush()
    server.kill()
    server = env.serve(on_exit="drain", **files)
    h = server.connect()
    assert read_all(h, size) == model
    for _ in range(20):
        one_request(h, env.rng, model, 256 * K)
    h.shutdown()
    server.stop()
    with open(backing_content, "rb") as f:
        assert f.read(size) == model


@case()
def backing_store_with_4k_blocks(env):
    path = env.make_file("content", 12 * M, env.rng.randbytes(12 * M))
    requests_kill_requests_drain(env, path, 12 * M, cache=env.path("cache"), cache_size=6 * M,
                                 segment_size="64K", backing=loop_device(env, path, 4096))


@case(quick=False)
def cache_with_4k_blocks(env):
    path = env.make_file("content", 12 * M, env.rng.randbytes(12 * M))
    cache = loop_device(env, env.make_file("cache", 6 * M), 4096)
    requests_kill_requests_drain(env, path, 12 * M, cache=cache, segment_size="64K", backing=path)


@case()
def mixed_logical_blocks(env):
    """512, 1024 and 4096 bytes side by side on one log."""
    sizes = {"a": 512, "b": 1024, "c": 4096}
    volumes, models = [], {}
    for name, block in sizes.items():
        content = env.rng.randbytes(6 * M)
        path = env.make_file(f"content-{name}", 6 * M, content)
        volumes.append((name, loop_device(env, path, block)))
        models[name] = bytearray(content)
    cache = loop_device(env, env.make_file("cache", 8 * M), 512)
    server = env.serve(cache=cache, volumes=volumes, segment_size="32K", dirty_low=0)
    handles = {name: server.connect(name) for name in sizes}
    for _ in range(pick(200, 1500)):
        name = env.rng.choice("abc")
        one_request(handles[name], env.rng, models[name], 128 * K)
    handles["a"].flush()
    server.kill()
    server = env.serve(cache=cache, volumes=volumes, on_exit="drain")
    for name, model in models.items():
        h = server.connect(name)
        assert read_all(h, 6 * M) == model, name
        h.shutdown()
    server.stop()
    for name, model in models.items():
        with open(env.path(f"content-{name}"), "rb") as f:
            assert f.read() == model, name


@case(quick=False)
def odd_sizes(env):
    """The file never grows, and its last bytes are as good as the others."""
    for size in (6 * M + 1, 4 * M + 511, 5 * M + 4095, 3 * M + 512, 700):
        path = env.make_file(f"b{size}", size, env.rng.randbytes(size))
        cache = env.path(f"cache{size}")
        requests_kill_requests_drain(env, path, size, seconds=pick(0.2, 0.6), cache=cache,
                                     cache_size=5 * M, segment_size="32K", backing=path)
        assert os.path.getsize(path) == size


@case(quick=False)
def odd_cache_size(env):
    """A cache device of any size: the rest behind the last segment is not used."""
    path = env.make_file("backing", 8 * M)
    cache = env.make_file("cache", 6 * M + 12345)
    requests_kill_requests_drain(env, path, 8 * M, cache=cache, segment_size="64K", backing=path)
    assert os.path.getsize(cache) == 6 * M + 12345


@case()
def sparse_backing_store(env):
    """Holes are filled only where something was written."""
    path = env.make_file("backing", 1 << 30)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, backing=path, on_exit="drain")
    h = server.connect()
    for i in range(64):
        h.pwrite(b"s" * 64 * K, i * 16 * M)
    h.shutdown()
    server.stop()
    assert os.stat(path).st_blocks * 512 <= 16 * M
    with open(path, "rb") as f:
        for i in range(64):
            f.seek(i * 16 * M)
            assert f.read(65 * K) == b"s" * 64 * K + bytes(1 * K)


@case(quick=False)
def cache_on_tmpfs(env):
    folder = tmpfs(env, "ram", 32 * M)
    path = env.make_file("backing", 12 * M, env.rng.randbytes(12 * M))
    requests_kill_requests_drain(env, path, 12 * M, cache=os.path.join(folder, "cache"),
                                 cache_size=6 * M, segment_size="64K", backing=path)


@case()
def no_room_for_a_new_cache(env):
    """cache-size= on a file system without so much space: refused with what is missing, and nothing stays."""
    folder = tmpfs(env, "small", 16 * M)
    cache = os.path.join(folder, "cache")
    backing = env.make_file("backing", 8 * M)
    refused(env, f"cache={cache}", "cache-size=32M", f"backing={backing}",
            says=(cache, "space|room|free", "smaller|free|cache-size="))
    assert os.listdir(folder) == []
    # It works with less.
    env.serve(cache=cache, cache_size=8 * M, backing=backing).stop()


@case(quick=False)
def sparse_cache_without_room(env):
    """A sparse cache file on a file system that fills up: a warning at the start; then writes fail and say so, no
    acknowledged flush is lost, and when there is room again service resumes."""
    folder = tmpfs(env, "small", 24 * M)
    cache, filler = os.path.join(folder, "cache"), os.path.join(folder, "filler")
    with open(cache, "wb") as f:
        f.truncate(64 * M)
    size = 64 * M
    files = {"cache": cache, "backing": env.make_file("backing", size), "segment_size": "256K",
             "writeback": "off", "stall_timeout": 1, "flush_interval": 50}
    server = env.serve(**files)
    server.wait_log("warning: .*sparse")
    with open(filler, "wb") as f:
        f.write(bytes(8 * M))
    h = server.connect()
    model = Volume(size)
    failed = False
    for i in range(size // (256 * K)):
        buf = env.rng.randbytes(256 * K)
        try:
            model.write(i * 256 * K, buf)
            h.pwrite(buf, i * 256 * K)
            model.next_group()
            if i % 8 == 7:
                h.flush()
                model.flushed()
        except nbd.Error as e:
            assert e.errno in ("ENOSPC", "EIO"), e
            failed = True
            break
    assert failed, "the file system should have been full"
    # What failed may have happened or not; what was acknowledged is there.
    acknowledged = i * 256 * K
    assert read_all(h, acknowledged) == model.data[:acknowledged]
    os.unlink(filler)
    end = time.monotonic() + 20
    while True:
        try:
            h.pwrite(b"again" * 1000, 0)
            h.flush()
            break
        except nbd.Error:
            assert time.monotonic() < end, "service did not resume"
            time.sleep(0.2)
    model.data[:5000] = b"again" * 1000
    assert read_all(h, acknowledged) == model.data[:acknowledged]
    server.kill()
    server = env.serve(**files)
    h = server.connect()
    assert read_all(h, acknowledged) == model.data[:acknowledged]
    server.kill()


@case()
def small_segments_on_4k_blocks(env):
    """Kills, with the smallest segments on a device with the largest blocks."""
    backing = env.make_file("content", 4 * M)
    files = {"cache": loop_device(env, blank_cache(env, 2 * M), 4096), "segment_size": "8K",
             "backing": loop_device(env, backing, 4096)}
    volume = Volume(4 * M)
    server = env.serve(**files)
    for _ in range(pick(3, 15)):
        h = server.connect()
        some_writes(h, env.rng, volume, env.rng.randint(1, 60), 64 * K)
        server.kill()
        server = env.serve(**files)
        volume.crashed(read_all(server.connect(), 4 * M))
    server.kill()
