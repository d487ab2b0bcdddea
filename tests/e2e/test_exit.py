# SPDX-License-Identifier: BSD-3-Clause
"""Clean shutdowns: what they leave behind, and what the next start makes of it."""

import errno
import os
import time

import nbd

from control import Control
from harness import K, M, Refused, case, file_hash, pick
from remote import Remote, nbdkit
from test_ctl import ctl
from test_io import one_request, random_content, read_all


@case()
def drain_makes_the_backing_store_whole(env):
    """After on-exit=drain the backing file alone equals the model; the cache may then serve
    another one."""
    volume = 64 * M
    content = env.rng.randbytes(volume)
    backing = env.make_file("backing", volume, content)
    model = bytearray(content)
    server = env.serve(cache=env.path("cache"), cache_size=16 * M, backing=backing,
                       on_exit="drain", writeback="off")
    h = server.connect()
    for _ in range(pick(200, 3000)):
        one_request(h, env.rng, model, 256 * K)
    h.shutdown()
    server.stop()
    with open(backing, "rb") as f:
        assert f.read() == model, "the backing file is not the volume"

    other = env.make_file("other", volume, env.rng.randbytes(1 * M))
    server = env.serve(cache=env.path("cache"), backing=other)
    h = server.connect()
    with open(other, "rb") as f:
        assert read_all(h, volume) == f.read(), "clean blocks of another backing store"
    h.shutdown()
    server.stop()


@case()
def drain_with_a_connection_open(env):
    """SIGTERM while a client is idle: nbdkit waits for it, then everything is written back."""
    backing = env.make_file("backing", 8 * M)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, backing=backing,
                       on_exit="drain", writeback="off")
    h = server.connect()
    h.pwrite(b"d" * 4096, 1 * M)
    server.terminate()
    try:
        h.shutdown()
    except nbd.Error:
        pass  # the server was first
    server.wait_stopped()
    assert f"everything is written back to {backing}" in server.log(), server.log()
    with open(backing, "rb") as f:
        f.seek(1 * M)
        assert f.read(4096) == b"d" * 4096


def all_asleep(server):
    """None of its threads runs, or is about to: all of a connection's are there, and wait for requests."""
    folder = f"/proc/{server.process.pid}/task"
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/stat", encoding="ascii") as f:
            if f.read().rpartition(")")[2].split()[0] != "S":
                return False
    return True


@case()
def requests_after_sigterm(env):
    """A server that was asked to end lives as long as it has a client, answers every request with an error, and then ends in
    good order: what was flushed before is there."""
    files = {"cache": env.path("cache"), "backing": env.make_file("backing", 8 * M), "writeback": "off"}
    server = env.serve(cache_size=8 * M, control=env.path("ctl"), **files)
    control = Control(env.path("ctl"))
    h = server.connect()
    h.pwrite(b"f" * 4096, 0)
    h.flush()
    assert control.status()["server"]["phase"] == "serving"
    # A thread of nbdkit's that is on its way to the next request when it is asked to end does not begin to wait for it. On a busy
    # machine that can be all of them, and the connection ends.
    while not all_asleep(server):
        time.sleep(0.1)
    server.terminate()
    server.wait_log("asked to end: waiting for 1 connection to be closed")
    assert control.status()["server"]["phase"] == "waiting"
    assert "waits for its clients" in ctl(control, "status")
    assert server.process.poll() is None, "it ended below its client"
    for request in (lambda: h.pread(4096, 0), lambda: h.pwrite(b"n" * 4096, 0), h.flush):
        try:
            request()
        except nbd.Error:
            continue
        raise AssertionError("a request was served")
    try:
        h.shutdown()
    except nbd.Error:
        pass  # the server was first
    del h
    server.wait_stopped()
    server = env.serve(**files)
    h = server.connect()
    assert h.pread(4096, 0) == b"f" * 4096
    h.shutdown()
    server.stop()
    assert "after a clean shutdown" in server.log(), server.log()


def sigterm_while_writes_wait(env, thaw, **timeouts):
    """The log is full, and its disk hangs; writes wait, and the server is asked to end. Returns what became of each
    request: 0 or the error's number; what was acknowledged is there after the next start."""
    remote = Remote(env, nbdkit("memory", "64M"))
    files = {"cache": env.path("cache"), "backing": remote.uri, "backing_fence": 0}
    server = env.serve(cache_size=8 * M, dirty_low=0, **timeouts, **files)
    h = server.connect()
    h.pwrite(b"f" * M, 63 * M)
    h.flush()
    remote.freeze()
    cookies = {i: h.aio_pwrite(bytes([i + 1]) * M, i * M) for i in range(16)}
    results = {}

    def look():
        for i, cookie in cookies.items():
            try:
                if i not in results and h.aio_command_completed(cookie):
                    results[i] = 0
            except nbd.Error as e:
                results[i] = e.errnum

    began = time.monotonic()
    while time.monotonic() < began + 2:
        h.poll(100)
        look()
    assert 0 < len(results) < 16 and not any(results.values()), results
    server.terminate()
    if thaw:
        time.sleep(0.5)
        remote.thaw()
    began = time.monotonic()
    while len(results) < 16:
        assert time.monotonic() < began + 20, results
        try:
            h.poll(100)
        except nbd.Error:
            pass  # the server has closed the connection behind the last answer
        look()
    del h
    server.wait_stopped(30)
    remote.thaw()
    server = env.serve(**files)
    h = server.connect()
    for i, error in results.items():
        if not error:
            assert h.pread(M, i * M) == bytes([i + 1]) * M, "a write that was acknowledged is lost"
    assert h.pread(M, 63 * M) == b"f" * M
    h.shutdown()
    server.stop()
    return results


@case(quick=False)
def writes_that_wait_at_sigterm_are_executed(env):
    """They are under way, and get their answer, when there is space."""
    results = sigterm_while_writes_wait(env, thaw=True)
    assert not any(results.values()), results


@case(quick=False)
def writes_that_wait_at_sigterm_do_not_hold_it_up(env):
    """Those that have waited for longer than their client does are given up, and it hears of that; and so does who reads the log."""
    results = sigterm_while_writes_wait(env, thaw=False, client_timeout=1, backing_timeout=5)
    assert set(results.values()) == {0, errno.ESHUTDOWN}, results
    assert "or the server is to end" in env.servers[0].log(), env.servers[0].log()


@case(quick=False)
def drain_is_watched_and_ended(env):
    """The log and the status tell how far the draining at the end is; who does not want to wait for it says so."""
    remote = Remote(env, nbdkit("memory", "8M"))
    files = {"cache": env.path("cache"), "backing": remote.uri, "backing_fence": 0}
    server = env.serve(cache_size=8 * M, writeback="off", on_exit="drain", control=env.path("ctl"), **files)
    control = Control(env.path("ctl"))
    h = server.connect()
    h.pwrite(b"d" * M, 1 * M)
    h.shutdown()
    remote.freeze()
    server.terminate()
    server.wait_log(r"writing everything back: 1M of 1M left after 1\d s")
    assert control.status()["server"]["phase"] == "draining"
    assert "writes everything back before" in ctl(control, "status")
    control.change(on_exit="keep")
    server.wait_log("on-exit was set to keep: the rest stays in")
    remote.thaw()
    server.wait_stopped()
    server = env.serve(**files)
    assert "records found after a clean shutdown" in server.log(), server.log()
    h = server.connect()
    assert h.pread(M, 1 * M) == b"d" * M
    h.shutdown()
    server.stop()


@case()
def keep_leaves_the_cache_dirty(env):
    """on-exit=keep with write-back off touches no byte of the backing store."""
    backing = env.make_file("backing", 8 * M, env.rng.randbytes(8 * M))
    before = file_hash(backing)
    files = {"cache": env.path("cache"), "backing": backing, "writeback": "off"}
    server = env.serve(cache_size=8 * M, **files)
    h = server.connect()
    h.pwrite(b"k" * 4096, 0)
    h.pwrite(b"k" * 100, 5 * M + 7)
    h.shutdown()
    server.stop()
    assert file_hash(backing) == before
    server = env.serve(**files)
    h = server.connect()
    assert h.pread(4096, 0) == b"k" * 4096
    assert h.pread(100, 5 * M + 7) == b"k" * 100
    h.shutdown()
    server.stop()


def restart_is_warm(env, stop, on_exit):
    backing = env.make_file("backing", 32 * M)
    files = {"cache": env.path("cache"), "backing": backing, "on_exit": on_exit}
    server = env.serve(cache_size=16 * M, **files)
    h = server.connect()
    model = {}
    for _ in range(1000):
        offset = env.rng.randrange(0, 32 * M, 4096)
        model[offset] = random_content(env.rng, 4096)
        h.pwrite(model[offset], offset)
    h.flush()
    h.shutdown()
    stop(server)

    server = env.serve(**files, stats_interval=1)
    h = server.connect()
    for offset, buf in model.items():
        assert h.pread(4096, offset) == buf
    h.shutdown()
    server.stop()
    last = [line for line in server.log().splitlines() if "client reads" in line][-1]
    assert f"client reads {len(model)} " in last and "100.0% of the blocks cached" in last, last


@case()
def clean_restart_is_warm(env):
    """Also blocks that are on the backing store already are found in the cache again."""
    restart_is_warm(env, lambda server: server.stop(), "drain")


@case()
def restart_after_a_kill_is_warm(env):
    restart_is_warm(env, lambda server: server.kill(), "keep")


@case()
def backing_store_may_grow(env):
    """A larger backing store makes a larger export, also under dirty data."""
    backing = env.make_file("backing", 8 * M)
    files = {"cache": env.path("cache"), "backing": backing, "writeback": "off"}
    server = env.serve(cache_size=8 * M, **files)
    h = server.connect()
    h.pwrite(b"g" * 4096, 8 * M - 4096)
    h.shutdown()
    server.stop()
    with open(backing, "r+b") as f:
        f.truncate(12 * M)
    try:
        server = env.serve(**files)
    except Refused as e:
        raise AssertionError(f"refused: {e}") from None
    h = server.connect()
    assert h.get_size() == 12 * M
    assert h.pread(4096, 8 * M - 4096) == b"g" * 4096
    h.pwrite(b"h" * 4096, 12 * M - 4096)
    assert h.pread(4096, 12 * M - 4096) == b"h" * 4096
    h.shutdown()
    server.stop()
