# SPDX-License-Identifier: BSD-3-Clause
"""Backing stores behind NBD servers that are broken, or mean harm (hostile.py): what they say is an error or the truth to our
clients, nothing waits for ever, and what was acknowledged is not lost."""

import os
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
        while time.monotonic() < end:
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
