# SPDX-License-Identifier: BSD-3-Clause
"""Backing stores behind NBD servers that are broken, or mean harm (hostile.py): what they say is an error or the truth to our
clients, nothing waits for ever, and what was acknowledged is not lost."""

import os
import re
import sys
import time

import nbd

from harness import HERE, K, M, case, finish
from remote import Remote


class Hostile(Remote):
    def __init__(self, env, name="hostile", **keys):
        self._now = env.path(f"{name}.d/now")
        os.mkdir(env.path(f"{name}.d"))
        arguments = [f"{key}={value}" for key, value in keys.items()]
        super().__init__(env, lambda where: [sys.executable, os.path.join(HERE, "hostile.py"), where,
                                             env.path(f"{name}.d"), *arguments], name)

    def goes(self, wrong):
        """That is what it does from now on; None: it does right."""
        if wrong:
            with open(self._now + ".new", "w", encoding="ascii") as f:
                f.write(wrong)
            os.rename(self._now + ".new", self._now)
        elif os.path.exists(self._now):
            os.unlink(self._now)

    def told(self):
        """What it has noted."""
        with open(self._now + ".log", encoding="ascii") as f:
            return f.read().splitlines()


def attempt(request, timeout_s=20):
    """Its result, or the error's number; never late."""
    began = time.monotonic()
    try:
        return request()
    except nbd.Error as e:
        assert e.errnum, e
        return e.errnum
    finally:
        took = time.monotonic() - began
        assert took < timeout_s, f"it took {took} s"


def until_it_works(request):
    end = time.monotonic() + 20
    while isinstance(attempt(request), int):
        assert time.monotonic() < end, "it does not recover"
        time.sleep(0.05)


SIZE = 16 * M
# What reads may be answered with: what that is to our clients.
TRUTH, ERROR, TRUTH_OR_ZEROS = range(3)
READS = {
    "pieces": TRUTH, "write_errors": TRUTH, "answers_twice": TRUTH,
    "errors": ERROR, "errors_unknown": ERROR, "errors_not_supported": ERROR, "errors_shutdown": ERROR, "no_answer": ERROR,
    "close": ERROR, "unknown_cookie": ERROR, "garbage": ERROR, "nothing": ERROR, "half": ERROR, "beyond": ERROR,
    "cut_short": ERROR, "endless": ERROR,
    # libnbd counts bytes, and does not see that some came twice and others not at all.
    "first_half_twice": TRUTH_OR_ZEROS,
}


def fill(remote, content):
    """Not through logcache."""
    h = remote.connect()
    for at in range(0, len(content), 4 * M):
        h.pwrite(content[at:at + 4 * M], at)
    h.shutdown()


@case(quick=False)
def reads(env):
    """The truth or an error, never anything from our memory; and when the server does right again, all is well."""
    remote = Hostile(env)
    content = env.rng.randbytes(SIZE // 2) + bytes(SIZE // 2)
    fill(remote, content)
    for wrong, means in READS.items():
        # A new one each time: what breaks connections again and again is connected to ever more rarely.
        server = env.serve(backing=remote.uri, backing_fence=0, backing_timeout=1)
        h = server.connect()
        assert h.pread(256 * K, 4 * M) == content[4 * M:4 * M + 256 * K]
        at, nr = env.rng.choice(((1 * M, 64 * K), (SIZE // 2 - 128 * K, 256 * K)))
        remote.goes(wrong)
        found = attempt(lambda at=at, nr=nr: h.pread(nr, at))
        remote.goes(None)
        if means == ERROR:
            assert isinstance(found, int), f"{wrong}: it succeeded"
        else:
            right = content[at:at + nr]
            assert found == right or means == TRUTH_OR_ZEROS and all(f in (0, r) for f, r in zip(found, right)), \
                f"{wrong}: {found if isinstance(found, int) else 'other data'}"
        until_it_works(lambda: h.pread(4096, 2 * M))
        assert h.pread(4 * M, 0) == content[:4 * M]
        h.shutdown()
        server.stop(20)


@case()
def holes_that_are_none(env):
    """What makes no sense in a block status is data."""
    remote = Hostile(env)
    server = env.serve(backing=remote.uri, backing_fence=0)
    h = server.connect()
    found = []
    remote.goes("wrong_extents")
    h.block_status(4 * M, 0, lambda _, offset, entries, __: found.extend(entries))
    assert found == [4 * M, 0], found
    h.shutdown()
    server.stop(20)


@case(quick=False)
def changes(env):
    """A store that takes nothing: clients write on, to the log; when it does right again, everything is written back."""
    for wrong in ("write_errors", "no_flush", "errors_shutdown", "garbage"):
        remote = Hostile(env, wrong)
        ssd = env.path(f"ssd-{wrong}")
        server = env.serve(cache=ssd, cache_size=16 * M, backing=remote.uri, backing_fence=0, backing_timeout=1,
                           dirty_low=0, on_exit="drain")
        h = server.connect()
        data = bytearray(SIZE)
        remote.goes(wrong)
        end = time.monotonic() + 1.5
        for _ in range(800):  # of two blocks each, with the header: the log must not run full
            if time.monotonic() >= end:
                break
            at = env.rng.randrange(SIZE // 4096) * 4096
            data[at:at + 4096] = env.rng.randbytes(4096)
            h.pwrite(data[at:at + 4096], at)
            h.flush()
            assert h.pread(4096, at) == data[at:at + 4096]
        server.wait_log("write-back fails|is lost")
        remote.goes(None)
        h.shutdown()
        server.stop(60)
        if "could not write everything back" in server.log():
            env.serve(cache=ssd, backing=remote.uri, on_exit="drain", backing_fence=0).stop(60)
        h = remote.connect()
        found = b"".join(h.pread(4 * M, at) for at in range(0, SIZE, 4 * M))
        h.shutdown()
        assert found == data, f"{wrong}: something that was acknowledged is lost"
        remote.kill()


@case()
def fast_zeros_refused_late(env):
    """It said that it could, and refuses when several are under way: each is asked for again, not as fast; none is sent as data."""
    remote = Hostile(env, flags=1 | 4 | 32 | 64 | 256 | 2048)
    fill(remote, b"x" * SIZE)
    server = env.serve(backing=remote.uri, backing_fence=0)
    remote.goes("no_fast_zeros")
    h = server.connect()
    cookies = [h.aio_zero(1 * M, at * M) for at in range(4)]
    finish(h, cookies)
    assert h.pread(4 * M, 0) == bytes(4 * M)
    assert h.pread(1 * M, 4 * M) == b"x" * M
    told = [line for line in remote.told() if not line.startswith("other")]
    assert told == [f"zero {M}"] * 4, told
    h.shutdown()
    server.stop(20)


@case(quick=False)
def handshakes(env):
    """A server that does not go on, or is none, keeps nobody waiting: at a start, and when we are to end meanwhile."""
    started = []
    for wrong in ("no_greeting", "no_option", "not_nbd"):
        remote = Hostile(env, wrong)
        remote.goes(wrong)
        started.append((wrong, env.launch(backing=remote.uri)))
    end = time.monotonic() + 20
    for wrong, server in started:
        assert server.process.wait(end - time.monotonic()) == 1
        assert ("cannot connect" if wrong == "not_nbd" else "the server does not answer") in server.log(), server.log()
    remote = Hostile(env, "later")
    server = env.serve(backing=remote.uri, backing_fence=0, backing_timeout=2)
    remote.goes("no_greeting")
    remote.restart()
    server.wait_log("is away: .*the server does not answer")
    server.stop(6)  # its last flush has waited for backing-timeout


@case()
def sizes(env):
    """Of the store, and of what may be in a request."""
    for name, keys, says in (
            ("negative", {"size": 1 << 63}, "no size that can be used|cannot connect"),
            ("most", {"size": (1 << 63) - 1}, "a volume may have"),
            ("many", {"size": 1 << 60}, "a volume may have"),
            ("odd", {"size": 10000, "minimum": 4096}, "not a multiple of the 4096 bytes")):
        text = env.refused(f"backing={Hostile(env, name, **keys).uri}", f"cache={env.path('ssd')}", "cache-size=8M")
        assert re.search(says, text), f"{name}: {text}"
    # The last two make no sense, and say nothing to libnbd.
    for name, keys in (("small", {"minimum": 512, "preferred": 512, "maximum": 1024}), ("large", {"maximum": (1 << 32) - 1}),
                       ("end", {"size": SIZE - 1}), ("plain", {"structured": 0}),
                       ("little", {"maximum": 100}), ("three", {"minimum": 3, "maximum": 5000})):
        remote = Hostile(env, name, **keys)
        size = int(keys.get("size", SIZE))
        server = env.serve(backing=remote.uri, backing_fence=0)
        h = server.connect()
        data = env.rng.randbytes(64 * K)
        h.pwrite(data, size - len(data))
        h.pwrite(b"one", 4099)
        h.zero(100 * K, 8 * M)
        h.flush()
        assert h.pread(len(data), size - len(data)) == data and h.pread(5, 4098) == b"\0one\0"
        h.shutdown()
        server.stop(20)


@case()
def fewer_connections_than_it_says(env):
    """It says that several are of use, and leaves all but two of them waiting, as qemu-nbd --shared=2 does."""
    remote = Hostile(env, connections=2)
    began = time.monotonic()
    server = env.serve(backing=remote.uri, backing_fence=0)
    h = server.connect()
    h.pwrite(b"x" * 4096, 0)
    h.flush()
    took = time.monotonic() - began
    h.shutdown()
    server.stop(20)
    assert took < 8, f"it took {took} s"
