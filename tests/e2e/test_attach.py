# SPDX-License-Identifier: BSD-3-Clause
"""A cache is given to a server that runs, and taken away again; clients notice nothing."""

import json
import os
import shutil
import subprocess
import threading
import time

import nbd

from control import Control, Load, content_of, refused, serve
from devices import FailingStore, wait_until
from harness import K, M, Skip, case, file_hash, pick
from test_io import one_request, read_all

# Attaching holds nobody for longer than this. The server measures it; once in a while the machine itself takes the time.
HELD_MAX_MS = 100
# What clients see besides: disks and processors that others keep busy.
STALL_MAX_S = 2


class Bystander:
    """Somebody who writes and flushes a file of his own on the same disk: how long that takes without any server."""

    def __init__(self, env):
        self._path = env.make_file("bystander", 4 * K)
        self._ends = threading.Event()
        self._slowest_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        fd = os.open(self._path, os.O_RDWR)
        while not self._ends.wait(0.01):
            start = time.monotonic()
            os.pwrite(fd, os.urandom(4 * K), 0)
            os.fdatasync(fd)
            self._slowest_s = max(self._slowest_s, time.monotonic() - start)
        os.close(fd)

    def bound_s(self):
        """The end: what a client may have to wait here. A request can come to wait for more than one such flush."""
        self._ends.set()
        self._thread.join()
        return STALL_MAX_S + 2 * self._slowest_s


def cache_file(env, name, size=16 * M):
    return env.make_file(name, size)


@case()
def in_a_loop_under_load(env):
    """Clients write and verify all the time, while two caches take turns; now and then somebody drains."""
    server, control, backing = serve(env, size=24 * M, cache_size=None, dirty_low=50)
    caches = [cache_file(env, "cache-a", 8 * M), cache_file(env, "cache-b", 12 * M)]
    load = Load(env, server, backing)
    bystander = Bystander(env)
    end = time.monotonic() + pick(3, 8)
    rounds = 0
    while time.monotonic() < end or rounds < pick(3, 6):
        body = {"segment_size": 65536} if rounds < 2 else {}
        control.do("attach", path=caches[rounds % 2], **body)
        assert control.status()["state"] == "attached"
        time.sleep(env.rng.random() * 0.3)
        if env.rng.random() < 0.3:
            control.do("drain")
        control.do("detach")
        assert control.status()["state"] == "none"
        time.sleep(env.rng.random() * 0.1)
        load.check()
        rounds += 1
    content, requests, slowest = load.stop()
    assert requests > 100, requests
    bound = bystander.bound_s()
    assert slowest < bound, f"a request took {slowest:.2f} s, more than {bound:.2f}"
    h = server.connect()
    h.flush()
    h.shutdown()
    assert content_of(backing) == content, "the backing file is not the volume"
    server.stop()


def start_fio(server, export, seconds):
    """Two jobs that write, read, flush, and read back what they wrote all the time."""
    if not shutil.which("fio"):
        raise Skip("fio is not installed")
    folder = os.path.dirname(server.socket)
    return subprocess.Popen(
        ["fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri_of(export)}", "--rw=randrw", "--bs=4k",
         "--iodepth=4", "--numjobs=2", "--size=24M", "--offset_increment=32M", "--fsync=64", "--verify=crc32c",
         "--verify_backlog=256", "--verify_fatal=1", "--time_based", f"--runtime={seconds}", "--group_reporting",
         "--output-format=json", f"--output={folder}/fio.json"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder)


def fio_result(server, fio):
    """(requests, the longest latency of one in s)"""
    assert fio.wait(30) == 0, "fio: errors, or data that is not what was written"
    with open(os.path.join(os.path.dirname(server.socket), "fio.json"), encoding="utf-8") as f:
        job, = json.load(f)["jobs"]
    assert job["error"] == 0, job
    kinds = [job["read"], job["write"]]
    assert all(kind["total_ios"] > 100 for kind in kinds), kinds
    return sum(kind["total_ios"] for kind in kinds), max(kind["clat_ns"]["max"] for kind in kinds) / 1e9


@case()
def nobody_is_held_for_long(env):
    """
    Two caches take turns for a minute before two volumes. fio verifies one of them, and a client with a model the other.
    How long writers are held is measured by the server; how long requests take, by fio.
    """
    volume = env.make_file("volume", 64 * M)
    server, control, backing = serve(env, size=8 * M, cache_size=None, dirty_low=50, volumes=[("fio", volume)])
    caches = [cache_file(env, "cache-a", 24 * M), cache_file(env, "cache-b", 48 * M)]
    load = Load(env, server, backing, nr=1)
    fio = start_fio(server, "fio", pick(3, 60))
    bystander = Bystander(env)
    held, held_by_detach = [], 0
    while fio.poll() is None:
        job = control.do("attach", path=caches[len(held) % 2])
        held.append(job["held_ms"])
        time.sleep(env.rng.random() * 0.3)
        held_by_detach = max(held_by_detach, control.do("detach")["held_ms"])
        time.sleep(env.rng.random() * 0.1)
        load.check()
    bound = bystander.bound_s()
    _, slowest = fio_result(server, fio)
    content, _, slowest_of_load = load.stop()
    server.stop()
    assert content_of(backing) == content, "the backing file is not the volume"
    held.sort()
    assert len(held) >= pick(2, 20), held
    assert held[(len(held) - 1) * 19 // 20] <= HELD_MAX_MS, f"writers were held for so many ms: {held}"
    assert held_by_detach < bound * 1000, f"detaching held writers for {held_by_detach} ms, more than {bound:.2f} s"
    assert max(slowest, slowest_of_load) < bound, \
        f"a request took {slowest:.2f} s, {slowest_of_load:.2f} s, more than {bound:.2f}"


@case()
def killed_after_attaching(env):
    """What a client flushed is there after a kill, whether it went straight or into the cache."""
    for flushed in (True, False):
        server, control, backing = serve(env, cache_size=None, writeback="off")
        h = server.connect()
        h.pwrite(b"1" * 64 * K, 0)
        h.pwrite(b"2" * 64 * K, 1 * M)
        control.do("attach", path=cache_file(env, f"cache{flushed}"))
        h.pwrite(b"3" * 64 * K, 1 * M)
        h.pwrite(b"4" * 64 * K, 2 * M)
        if flushed:
            h.flush()
        else:
            control.ask("POST", "/v1/flush")
        server.kill()
        server, control, backing = serve(env, cache_size=None, cache=env.path(f"cache{flushed}"))
        h = server.connect()
        assert h.pread(64 * K, 0) == b"1" * 64 * K
        assert h.pread(64 * K, 1 * M) == b"3" * 64 * K
        assert h.pread(64 * K, 2 * M) == b"4" * 64 * K
        h.shutdown()
        server.stop()
        os.unlink(backing)


@case()
def detached_serves_on(env):
    """Everything is on the backing store, and what comes then goes there."""
    server, control, backing = serve(env, writeback="off")
    h = server.connect()
    model = bytearray(content_of(backing))
    for _ in range(100):
        one_request(h, env.rng, model, 128 * K)
    job = control.do("detach")
    assert job["cache"] == env.path("cache")
    assert content_of(backing) == model
    st = control.status()
    assert st["state"] == "none" and st["cache"] is None
    before = file_hash(env.path("cache"))
    for _ in range(100):
        one_request(h, env.rng, model, 128 * K)
    h.flush()
    assert read_all(h, len(model)) == model
    assert content_of(backing) == model and file_hash(env.path("cache")) == before
    h.shutdown()
    server.stop()
    assert "backing stores closed" in server.log()
    # Nor does the old cache bring old data back.
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"))
    h = server.connect()
    assert read_all(h, len(model)) == model
    h.shutdown()
    server.stop()


@case()
def what_cannot_be_attached(env):
    """The job fails and says why; nothing was changed, and the next attempt works."""
    server, control, backing = serve(env, cache_size=None)
    other = serve_elsewhere(env)
    foreign = env.make_file("foreign", 16 * M, b"not blank")
    fine = cache_file(env, "fine")
    before = [file_hash(path) for path in (foreign, fine)]

    def attempt(says, **body):
        job = control.wait(control.start("attach", **body))
        assert job["state"] == "failed", job
        for word in says:
            assert word in job["error"], f"'{word}' is not in: {job['error']}"
        assert control.status()["state"] == "none"

    attempt(("/absent", "No such file"), path="/absent")
    attempt(("same file",), path=backing)
    attempt((foreign, "not blank"), path=foreign)
    attempt((fine, "format=no"), path=fine, format="no")
    attempt((other, "in use"), path=other)
    attempt((env.folder,), path=env.folder)
    attempt(("too small",), path=env.make_file("small", 64 * K))
    assert [file_hash(path) for path in (foreign, fine)] == before
    control.do("attach", path=foreign, format="force", segment_size=65536)
    assert control.status()["cache"]["segment_bytes"] == 65536
    control.do("detach")
    control.do("attach", path=fine)
    refused(409, lambda: control.start("attach", path=foreign), says="detach it first")
    server.stop()


def serve_elsewhere(env):
    """The path of a cache that another server uses."""
    env.serve(cache=env.path("other"), cache_size=8 * M, backing=env.make_file("other-b", 8 * M))
    return env.path("other")


@case()
def dirty_elsewhere(env):
    """A cache with dirty data is not given away: it belongs to what it was written for."""
    server, control, backing = serve(env, writeback="off")
    h = server.connect()
    h.pwrite(b"d" * 64 * K, 0)
    h.shutdown()
    server.stop()
    server, control, _ = serve(env, cache_size=None)
    job = control.wait(control.start("attach", path=env.path("cache")))
    assert job["state"] == "failed" and env.path("cache") in job["error"], job
    server.stop()
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"), on_exit="drain")
    server.stop()
    assert content_of(backing)[:64 * K] == b"d" * 64 * K


@case()
def settings_without_a_cache(env):
    """With a control interface they may be given at the start, and count for what is attached."""
    server, control, _ = serve(env, cache_size=None, dirty_low=42, writeback="off")
    control.do("attach", path=cache_file(env, "cache-a"))
    now = control.settings()
    assert now["dirty-low"] == 42 and now["writeback"] is False, now
    server.stop()


def slow_and_dirty(env):
    """A server whose drain takes a while, with something to drain: (server, control, store)."""
    store = FailingStore(env, "store", 8 * M, flushes_only=True)
    server = env.serve(backing=store.path, cache=env.path("cache"), cache_size=8 * M, writeback="off",
                       control=env.path("ctl"))
    h = server.connect()
    for i in range(400):
        h.pwrite(b"%04d" % i * K, i * 5 * 4096)
    h.shutdown()
    return server, Control(env.path("ctl")), store


def is_drained(path):
    content = content_of(path)
    return all(content[i * 5 * 4096:i * 5 * 4096 + 4096] == b"%04d" % i * K for i in range(400))


@case()
def one_job_at_a_time(env):
    """While one runs, others are refused, and everybody else is served."""
    server, control, store = slow_and_dirty(env)
    job = control.start("detach")
    for what in ("drain", "detach"):
        refused(409, control.start, what, says="job 1 .detach. is running")
    refused(409, lambda: control.start("attach", path="/x"), says="is running")
    wait_until(lambda: control.status()["state"] == "detaching", "detaching does not begin")
    h = server.connect()
    assert h.pread(4, 4096 * 5) == b"0001"
    h.shutdown()
    before = control.get("/v1/jobs/1")
    assert before["blocks_left"] <= before["blocks"] == 400 and before["segments_left"] <= before["segments"], before
    assert control.ask("POST", "/v1/flush") == {"done": True}
    # Segments, of which it used to tell alone, are all there until nearly the end
    seen = set()
    while job["state"] == "running":
        seen.add(job["blocks_left"])
        job = control.get("/v1/jobs/1")
    assert len([left for left in seen if 0 < left < 400]) >= 2, seen
    assert job["state"] == "done" and job["segments_left"] == job["blocks_left"] == 0, job
    assert is_drained(store.content)
    server.stop()


@case()
def shutdown_during_a_job(env):
    """It is interrupted, and nothing is lost; but on-exit=drain waits for it."""
    for on_exit in ("keep", "drain"):
        os.makedirs(env.path(on_exit))
        inner = type(env)(env.path(on_exit), env.rng)
        try:
            server, control, store = slow_and_dirty(inner)
            control.change(on_exit=on_exit)
            control.start("drain")
            start = time.monotonic()
            server.stop()
            assert is_drained(store.content) == (on_exit == "drain")
            if on_exit == "keep":
                assert "is interrupted" in server.log() and time.monotonic() - start < 30
                server = inner.serve(backing=store.path, cache=inner.path("cache"), on_exit="drain")
                server.stop()
                assert is_drained(store.content)
        finally:
            inner.stop_all()


@case()
def attach_when_a_flush_fails(env):
    """
    No cache is put in front of writes of which nothing is known; each client hears of that, once. When the store works again
    a cache can be.
    """
    store = FailingStore(env, "store", 8 * M, flushes_only=True)
    server = env.serve(backing=store.path, control=env.path("ctl"))
    control = Control(env.path("ctl"))
    h, other = server.connect(), server.connect()
    h.pwrite(b"1" * 4096, 0)
    store.fail()
    job = control.wait(control.start("attach", path=cache_file(env, "cache-a", 8 * M)))
    assert job["state"] == "failed" and store.path in job["error"], job
    assert control.status()["state"] == "none"
    assert h.pread(4096, 0) == b"1" * 4096
    store.heal()
    other.pwrite(b"2" * 4096, 4096, nbd.CMD_FLAG_FUA)
    for client in (other, h):
        try:
            client.flush()
            assert False, "a client does not hear that a flush has failed"
        except nbd.Error as e:
            assert e.errno == "EIO", e
        client.flush()
    control.do("attach", path=env.path("cache-a"))
    assert h.pread(8192, 0) == b"1" * 4096 + b"2" * 4096
    control.do("detach")
    h.shutdown()
    other.shutdown()
    server.stop()
    assert content_of(store.content)[:8192] == b"1" * 4096 + b"2" * 4096
