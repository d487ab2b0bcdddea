# SPDX-License-Identifier: BSD-3-Clause
"""io_uring or libaio, whichever the system allows; and users who may not lock much memory."""

import os
import pwd
import re

import nbd

from devices import need_root
from filtered import NUMBERS
from harness import HERE, K, M, Skip, case, pick
from test_crash import rounds_of_kills
from test_io import one_request, read_all
from test_refuse import backing_file, blank_cache


def filtered(*what):
    """A launcher that takes something away; see filtered.py."""
    if not NUMBERS and what != ("memlock",):
        raise Skip("seccomp filters for this processor have not been written yet")
    return (os.path.join(HERE, "filtered.py"), *what, "--")


def some_requests(server, env, volume, nr=60):
    h = server.connect()
    model = bytearray(read_all(h, volume))
    for _ in range(nr):
        one_request(h, env.rng, model, 512 * K)
    h.flush()
    assert read_all(h, volume) == model
    h.shutdown()
    return model


@case()
def libaio_kills(env):
    rounds_of_kills(env, 8 * M, 3 * M, pick(0.3, 6), 128 * K, segment_size="64K", io="libaio",
                    launcher=filtered("io_uring"), dirty_low=0)


@case()
def io_uring_kills(env):
    rounds_of_kills(env, 8 * M, 3 * M, pick(0.3, 4), 128 * K, segment_size="64K", io="io_uring",
                    launcher=filtered("libaio"), dirty_low=0)


@case()
def auto_falls_back_to_libaio(env):
    cache, backing = env.path("cache"), env.make_file("backing", 16 * M)
    server = env.serve(launcher=filtered("io_uring"), cache=cache, cache_size=8 * M,
                       backing=backing, dirty_low=0)
    some_requests(server, env, 16 * M)
    server.stop()
    lines = [line for line in server.log().splitlines() if "libaio" in line]
    assert lines and "io_uring" in lines[0], server.log()
    assert len(lines) <= 3, f"said too often: {lines}"


@case()
def auto_prefers_io_uring(env):
    """Where libaio is forbidden nothing misses it."""
    server = env.serve(launcher=filtered("libaio"), cache=env.path("cache"), cache_size=8 * M,
                       backing=env.make_file("backing", 16 * M), dirty_low=0)
    some_requests(server, env, 16 * M)
    server.stop()
    assert "libaio" not in server.log(), server.log()


@case()
def what_is_forbidden_is_refused(env):
    """Somebody who asks for one kind gets that one or a reason, before anything is written."""
    cache, backing = blank_cache(env), backing_file(env)
    for denied, io in (("io_uring", "io_uring"), ("libaio", "libaio")):
        text = env.refused(f"cache={cache}", f"backing={backing}", f"io={io}",
                           launcher=filtered(denied))
        assert io in text and re.search("not permitted|not allowed|denied", text), text
        assert "io=" in text or "seccomp" in text, f"no remedy: {text}"
    text = env.refused(f"cache={cache}", f"backing={backing}",
                       launcher=filtered("io_uring", "libaio"))
    assert "io_uring" in text and "libaio" in text, text
    with open(cache, "rb") as f:
        assert not any(f.read()), "a refused start wrote to the cache"


@case()
def little_locked_memory(env):
    """64 buffers of 1 MiB, but 8 MiB may be locked."""
    server = env.serve(launcher=filtered("memlock"), cache=env.path("cache"), cache_size=24 * M,
                       backing=env.make_file("backing", 32 * M), dirty_low=0)
    some_requests(server, env, 32 * M)
    server.stop()


@case()
def another_user(env):
    """nbdkit -u: all was opened as root, and nothing needs root later: write-back, a drain, recovery at the
    next start. The files are nobody's business but root's."""
    need_root()
    try:
        pwd.getpwnam("nobody")
    except KeyError:
        raise Skip("there is no user nobody") from None
    os.chmod(env.folder, 0o777)
    stores = env.path("root-only")
    os.mkdir(stores, 0o700)
    backing = env.make_file("root-only/backing", 32 * M)
    os.chmod(backing, 0o600)
    files = {"cache": os.path.join(stores, "cache"), "backing": backing}
    model = None
    for on_exit in ("keep", "drain"):
        server = env.serve(("-u", "nobody"), cache_size=16 * M, on_exit=on_exit, dirty_low=0,
                           **files)
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as f:
            assert "Uid:\t65534\t65534" in f.read()
        h = server.connect()
        if model is not None:
            assert read_all(h, 32 * M) == model
        h.shutdown()
        model = some_requests(server, env, 32 * M)
        if on_exit == "keep":
            server.kill()
        else:
            server.stop()
    with open(backing, "rb") as f:
        assert f.read() == model
    assert os.stat(files["cache"]).st_uid == 0


@case()
def no_o_direct(env):
    """A file system without O_DIRECT: it is said, and works, also across a kill."""
    files = {"cache": env.path("cache"), "backing": env.make_file("backing", 16 * M)}
    server = env.serve(launcher=filtered("o_direct"), cache_size=8 * M, dirty_low=0, **files)
    for path in files.values():
        assert re.search(f"{path}.*O_DIRECT", server.log()), server.log()
    model = some_requests(server, env, 16 * M)
    h = server.connect()
    h.pwrite(b"x" * 5000, 1 * M + 1, nbd.CMD_FLAG_FUA)
    model[1 * M + 1:1 * M + 5001] = b"x" * 5000
    server.kill()
    server = env.serve(launcher=filtered("o_direct"), on_exit="drain", **files)
    h = server.connect()
    assert read_all(h, 16 * M) == model
    h.shutdown()
    server.stop()
    with open(files["backing"], "rb") as f:
        assert f.read() == model
