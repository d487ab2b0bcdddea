# SPDX-License-Identifier: BSD-3-Clause
"""Several volumes on one cache: each is an export and an identity of its own; they share one log, and so
one moment to which a crash may throw them back."""

import os
import re
import resource

import nbd

from harness import K, M, arguments, case, pick
from model import Volume
from test_io import one_request, random_size, read_all
from test_refuse import refused


def exports_of(server):
    """[(name, description), ...] as a client is told."""
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(server.socket)
    found = []
    h.opt_list(lambda name, description: found.append((name, description)))
    h.opt_abort()
    return found


def refuses(server, export):
    """Connecting must fail; what the server says about it."""
    before = len(server.log())
    try:
        server.connect(export)
    except nbd.Error:
        return server.log()[before:]
    raise AssertionError(f"export '{export}' was served")


def volumes_of(env, *names, size=8 * M):
    return [(name, env.make_file(f"backing-{name or 'default'}", size)) for name in names]


@case()
def exports(env):
    volumes = volumes_of(env, "", "photos", "mail ü 日本", size=9 * M)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, volumes=volumes)
    found = exports_of(server)
    assert [name for name, _ in found] == [name for name, _ in volumes]
    for (_, description), (_, path) in zip(found, volumes):
        assert description == f"{os.path.basename(path)} (9M), cached", description
    for name, path in volumes:
        h = server.connect(name)
        assert h.get_size() == 9 * M
        h.shutdown()
        server.wait_log(f"serving {re.escape(path)} .* as " +
                        (f"volume '{name}'" if name else "the default export"))
    said = refuses(server, "music")
    for word in ("no export 'music'", "''", "'photos'", "'mail ü 日本'"):
        assert word in said, said
    server.stop()


@case()
def the_only_volume_is_the_default(env):
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, volumes=volumes_of(env, "only"))
    h = server.connect("")
    h.pwrite(b"o" * 4096, 0)
    h.shutdown()
    h = server.connect("only")
    assert h.pread(4096, 0) == b"o" * 4096
    h.shutdown()
    server.stop()


@case()
def one_of_several_is_not_the_default(env):
    """A client that forgot the name must not write to whatever came first."""
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, volumes=volumes_of(env, "a", "b"))
    said = refuses(server, "")
    for word in ("no default export", "'a', 'b'"):
        assert word in said, said
    server.stop()


@case()
def bad_volumes(env):
    cache = env.make_file("cache", 8 * M)
    (_, a), (_, b) = volumes_of(env, "a", "b")
    absent = env.path("absent")
    for args, says in (
            ((f"backing={a}", f"backing={b}"), ("default export has backing=", a, b, "volume=NAME")),
            (("volume=a", f"backing={a}", f"backing={b}"), ("volume 'a' has backing=", a, b)),
            (("volume=a", f"backing={a}", "volume=a", f"backing={b}"), ("volume=a: ", "already")),
            (("volume=a", "volume=b", f"backing={b}"), ("volume=a has no backing store",)),
            (("volume=a", f"backing={a}", "volume=b"), ("volume=b has no backing store",)),
            (("volume=", f"backing={a}"), ("volume=: a name is missing", "default export")),
            (("volume=" + "x" * 64, f"backing={a}"), ("at most 63 bytes",)),
            (("volume=" + "ü" * 32, f"backing={a}"), ("at most 63 bytes",)),
            (("volume=a\nb", f"backing={a}"), ("control characters",)),
            (("volume=a\x7f", f"backing={a}"), ("control characters",)),
            (("volume=a\u0085", f"backing={a}"), ("control characters",)),
            ((b"volume=\xff", f"backing={a}"), ("must be UTF-8",)),
            ((b"volume=\xc0\xaf", f"backing={a}"), ("must be UTF-8",)),
            ((b"volume=\xed\xa0\x80", f"backing={a}"), ("must be UTF-8",)),
            ((f"backing={a}", "volume=b", f"backing={a}"),
             (re.escape(a), "default export", "volume 'b'", "same file")),
            ((f"backing={a}", "volume=b", f"backing={absent}"), (absent, "does not exist")),
            ((f"backing={a}", "volume=b", f"backing={cache}"), (cache, "same file", "the log")),
            ([f"{key}={value}" for i in range(256) for key, value in
              (("volume", f"v{i}"), ("backing", f"{a}{i}"))], ("one volume too many", "255")),
    ):
        refused(env, f"cache={cache}", *args, says=says)
    os.symlink(a, env.path("link"))
    refused(env, f"cache={cache}", f"backing={a}", "volume=b", f"backing={env.path('link')}",
            says=("same file, device or server",))
    # The longest name works.
    env.serve(cache=cache, volumes=[("ü" * 31 + "x", a)]).stop()


@case()
def independent_data(env):
    """Random requests to three volumes of different sizes; nothing of one shows in another, also after
    a restart, and all are whole on their backing stores after a drain."""
    sizes = {"": 9 * M + 512, "b": 6 * M, "c": 12 * M + 4096 + 100}
    models, volumes = {}, []
    for name, size in sizes.items():
        content = env.rng.randbytes(size)
        models[name] = bytearray(content)
        volumes.append((name, env.make_file(f"backing{name}", size, content)))
    files = {"cache": env.path("cache"), "volumes": volumes}
    server = env.serve(cache_size=8 * M, segment_size="64K", **files)
    handles = {name: server.connect(name) for name in sizes}
    for _ in range(pick(300, 3000)):
        name = env.rng.choice(list(sizes))
        one_request(handles[name], env.rng, models[name], 256 * K)
    for name, h in handles.items():
        h.shutdown()
    server.stop()
    # The order on the command line means nothing, apart from that of the default export.
    files["volumes"] = [volumes[0], volumes[2], volumes[1]]
    server = env.serve(**files, on_exit="drain")
    for name, model in models.items():
        h = server.connect(name)
        assert read_all(h, len(model)) == model, f"volume '{name}'"
        h.shutdown()
    server.stop()
    for name, path in volumes:
        with open(path, "rb") as f:
            assert f.read() == models[name], f"backing store of '{name}'"


class Joined:
    """Volumes as parts of one model, because a crash may take no later write of one while it loses an
    earlier one of another (I9)."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.bases = {}
        at = 0
        for name, size in sizes.items():
            self.bases[name] = at
            at += size
        self.volume = Volume(at)

    def connect(self, server):
        return {name: server.connect(name) for name in self.sizes}

    def check(self, handles):
        self.volume.crashed(b"".join(read_all(handles[name], size)
                                     for name, size in self.sizes.items()))


@case()
def one_log_for_all(env):
    """Kills at random moments: a flush of one volume covers all, and what survives of all together is a
    prefix."""
    rng = env.rng
    joined = Joined({"": 3 * M, "b": 4 * M, "c": 2 * M})
    model = joined.volume
    files = {"cache": env.path("cache"), "segment_size": "32K", "volumes": [
        (name, env.make_file(f"backing{name}", size)) for name, size in joined.sizes.items()]}
    server = env.serve(cache_size=4 * M, **files)
    for _ in range(pick(4, 30)):
        handles = joined.connect(server)
        for _ in range(rng.randint(0, 80)):
            name = rng.choice(list(joined.sizes))
            h, base = handles[name], joined.bases[name]
            if rng.random() < 0.1:
                h.flush()
                model.flushed()
                continue
            size = random_size(rng, joined.sizes[name], 128 * K)
            offset = rng.randint(0, joined.sizes[name] - size)
            buf = rng.randbytes(size)
            fua = rng.random() < 0.1
            model.write(base + offset, buf)
            h.pwrite(buf, offset, nbd.CMD_FLAG_FUA if fua else 0)
            if fua:
                model.fua_done(base + offset, size)
            model.next_group()
        server.kill()
        server = env.serve(**files)
        joined.check(joined.connect(server))
    server.kill()


def dirty_pair(env):
    """Two volumes, "b" with dirty data, "a" without."""
    volumes = volumes_of(env, "a", "b")
    for _, path in volumes:  # otherwise they look alike
        with open(path, "r+b") as f:
            f.write(env.rng.randbytes(8 * M))
    cache = env.path("cache")
    server = env.serve(cache=cache, cache_size=8 * M, volumes=volumes, writeback="off")
    h = server.connect("b")
    h.pwrite(b"d" * 64 * K, 1 * M)
    h.shutdown()
    server.stop()
    return cache, volumes


@case()
def left_out(env):
    """A volume may be left out when nothing of it is dirty, and come back later."""
    cache, (a, b) = dirty_pair(env)
    refused(env, f"cache={cache}", *arguments([a]), says=(cache, "b", "not written back"))
    for kill in (False, True):
        server = env.serve(cache=cache, volumes=[b], writeback="off")
        h = server.connect("b")
        assert h.pread(64 * K, 1 * M) == b"d" * 64 * K
        h.shutdown()
        if kill:
            server.kill()
        else:
            server.stop()
    server = env.serve(cache=cache, volumes=[a, b], on_exit="drain")
    h = server.connect("a")
    with open(a[1], "rb") as f:
        assert read_all(h, 8 * M) == f.read()
    h.shutdown()
    server.stop()
    server = env.serve(cache=cache, volumes=[a])
    server.stop()


@case()
def added_later(env):
    cache, (a, b) = dirty_pair(env)
    c = ("c", env.make_file("backing-c", 4 * M, env.rng.randbytes(4 * M)))
    server = env.serve(cache=cache, volumes=[c, b, a], writeback="off")
    h = server.connect("c")
    with open(c[1], "rb") as f:
        assert read_all(h, 4 * M) == f.read()
    h.pwrite(b"c" * 4096, 1 * M)
    h.flush()
    server.kill()
    server = env.serve(cache=cache, volumes=[a, b, c])
    for name, byte in (("b", b"d"), ("c", b"c")):
        h = server.connect(name)
        assert h.pread(4096, 1 * M) == byte * 4096
        h.shutdown()
    server.stop()


@case()
def swapped_and_foreign_backing_stores(env):
    cache, (a, b) = dirty_pair(env)
    refused(env, f"cache={cache}", *arguments([("a", b[1]), ("b", a[1])]),
            says=(a[1], "not written back", "volume b"))
    foreign = env.make_file("foreign", 8 * M, env.rng.randbytes(8 * M))
    refused(env, f"cache={cache}", *arguments([a, ("b", foreign)]),
            says=(foreign, "not written back", "volume b"))
    # The volume without dirty data only loses what is cached.
    server = env.serve(cache=cache, volumes=[("a", foreign), b])
    h = server.connect("a")
    with open(foreign, "rb") as f:
        assert read_all(h, 8 * M) == f.read()
    h.shutdown()
    server.stop()


@case()
def renamed(env):
    """A volume is known by its name: under another one its dirty data is missed."""
    cache, (a, b) = dirty_pair(env)
    refused(env, f"cache={cache}", *arguments([a, ("other", b[1])]),
            says=("not written back", "b"))


@case()
def as_many_as_there_can_be(env):
    """255 volumes, also with the few open files that systemd and shells allow by default."""
    names = [f"v{i}" for i in range(255)]
    volumes = [(name, env.make_file(f"b-{name}", 1 * M)) for name in names]
    files = {"cache": env.path("cache"), "volumes": volumes}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        server = env.serve(cache_size=8 * M, **files, dirty_low=0)
        assert len(exports_of(server)) == 255
        some = env.rng.sample(names, pick(5, 255))
        for name in some:
            h = server.connect(name)
            h.pwrite(name.encode() * 512, 4096)
            h.shutdown()
        server.stop()
        server = env.serve(**files, on_exit="drain")
        for name in some:
            h = server.connect(name)
            assert h.pread(512 * len(name), 4096) == name.encode() * 512
            h.shutdown()
        server.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for name in some:
        with open(env.path(f"b-{name}"), "rb") as f:
            f.seek(4096)
            assert f.read(512 * len(name)) == name.encode() * 512
    said = refuses(env.serve(**files), "v255")
    assert "and" in said and "more" in said, said
