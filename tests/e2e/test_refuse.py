# SPDX-License-Identifier: BSD-3-Clause
"""Starts that must be refused (I12): each says which path, why, and what to do, ends with an error,
and changes no byte anywhere."""

import os
import re
import subprocess

from devices import loop_device, need_root, run
from harness import M, Skip, case, file_hash, pick
from superblock import AT_INCOMPAT, AT_VERSION, patch, spoil


def refused(env, *args, says):
    """Start with ARGS; the message must match all of SAYS; no file in the folder may change."""

    def state():
        return {name: file_hash(env.path(name)) for name in os.listdir(env.folder)
                if not name.startswith("nbd") and os.path.isfile(env.path(name))}

    before = state()
    text = env.refused(*args)
    assert state() == before, f"a refused start changed files: {text}"
    errors = [line for line in text.splitlines() if "error:" in line]
    assert errors, f"no error message: {text}"
    for pattern in says:
        assert re.search(pattern, text), f"the message does not match {pattern!r}: {text}"
    return text


def blank_cache(env, size=8 * M):
    return env.make_file("cache", size)


def backing_file(env, size=8 * M):
    return env.make_file("backing", size, env.rng.randbytes(1 * M))


def dirty_cache(env):
    """A cache with dirty data for a backing store, cleanly shut down."""
    cache, backing = blank_cache(env), backing_file(env)
    server = env.serve(cache=cache, backing=backing, writeback="off")
    h = server.connect()
    h.pwrite(b"d" * 4096, 1 * M)
    h.pwrite(b"d" * 4096, 7 * M)
    h.shutdown()
    server.stop()
    return cache, backing


PERCENT = (("0x10", "101", "", "-1", "x", "50%", "1.5", "1K"), "per cent from 0 to 100")
SECONDS = (("1K", "86401", "", "-1", "0x10", "4294967296", "1s"), "seconds from 0 to 86400")
# Every key but backing and volume; bad values, and what the message says.
KEYS = {
    "backing": ((), ""),
    "volume": ((), ""),
    "cache": (("",), "path"),
    "cache-size": (("0x100000", "1234567", "", "x", "-1", "0", "1Q", "99999999999G"), "size"),
    "format": (("", "yes", "AUTO"), "auto, no or force"),
    "segment-size": (("", "4K", "2M", "12K", "x", "-8K"), "power of two from 8K to 1M"),
    "io": (("", "uring", "aio", "AUTO"), "auto, io_uring or libaio"),
    "writeback": (("", "maybe", "ON"), "on or off"),
    "writeback-threshold": PERCENT,
    "writeback-batch": (("", "0", "512K", "17T", "-1M", "Auto"), "auto, or a size from 1M to 16T"),
    "dirty-low": PERCENT,
    "dirty-high": PERCENT,
    "flush-interval": (("", "-1", "3600001", "1s"), "milliseconds from 0 to 3600000"),
    "flush-deadline": (("", "-1", "10001", "1s"), "milliseconds from 0 to 10000"),
    "superblock-interval": SECONDS,
    "on-exit": (("", "flush"), "drain or keep"),
    "stall-timeout": SECONDS,
    "client-timeout": (("", "0", "-1", "86401", "1s"), "seconds from 1 to 86400"),
    "stats-interval": SECONDS,
    "control": (("",), "path of a Unix socket"),
    "metrics": (("", "x", "0", "65536"), "PORT"),
}
# Those that mean nothing without a cache, each with a value that is fine.
OF_THE_CACHE = {
    "cache-size": "8M", "format": "auto", "segment-size": "1M", "io": "auto", "writeback": "on",
    "writeback-threshold": "70", "writeback-batch": "auto", "dirty-low": "10", "dirty-high": "80",
    "flush-interval": "1000", "flush-deadline": "0", "superblock-interval": "0", "on-exit": "keep",
    "stall-timeout": "30",
}


@case()
def bad_parameters(env):
    cache, backing = blank_cache(env), backing_file(env)
    for key, (values, wanted) in KEYS.items():
        files = [f"backing={backing}"] + ([f"cache={cache}"] if key != "cache" else [])
        for value in values[:pick(2, None)]:
            text = refused(env, *files, f"{key}={value}", says=(re.escape(f"{key}={value}:"), wanted))
            # Once nbdkit's own "dirty-low: empty string where we expected a number" came before it.
            assert text.count("error:") == 1, text


@case()
def low_above_high(env):
    cache, backing = blank_cache(env), backing_file(env)
    for args in (("dirty-low=60", "dirty-high=50"), ("dirty-low=81",), ("dirty-high=9",)):
        refused(env, f"cache={cache}", f"backing={backing}", *args,
                says=("dirty-low=.* is above dirty-high=.*: give",))


@case()
def extreme_parameters(env):
    """The ends of all ranges work."""
    backing = backing_file(env)
    low = {"segment_size": "8K", "writeback": "off", "writeback_threshold": 0,
           "writeback_batch": "1M", "dirty_low": 0, "dirty_high": 0, "flush_interval": 0,
           "flush_deadline": 0, "superblock_interval": 0, "stall_timeout": 0, "client_timeout": 1,
           "stats_interval": 0}
    high = {"segment_size": "1M", "writeback": "on", "writeback_threshold": 100,
            "writeback_batch": "16T", "dirty_low": 100, "dirty_high": 100,
            "flush_interval": 3600000, "flush_deadline": 10, "superblock_interval": 86400,
            "stall_timeout": 86400, "client_timeout": 86400, "stats_interval": 86400}
    for i, parameters in enumerate((low, high)):
        server = env.serve(cache=env.path(f"cache{i}"), cache_size="8M", backing=backing,
                           on_exit="drain", **parameters)
        h = server.connect()
        for k in range(12):
            h.pwrite(bytes([k + 1]) * M, k % 8 * M)
        h.flush()
        assert h.pread(M, 3 * M) == b"\x0c" * M
        h.shutdown()
        server.stop()


@case()
def parameters_of_a_cache_without_one(env):
    backing = backing_file(env)
    for key, value in OF_THE_CACHE.items():
        refused(env, f"backing={backing}", f"{key}={value}",
                says=(f"{key}= means nothing without a cache", "give cache=PATH"))


@case()
def unknown_parameter(env):
    cache, backing = blank_cache(env), backing_file(env)
    for key in ("colour", "volumes", "dirty_high", "controls", "Cache"):
        refused(env, f"cache={cache}", f"backing={backing}", f"{key}=1",
                says=(f"unknown parameter '{key}'", "--help logcache"))


@case()
def parameter_twice(env):
    cache, backing = blank_cache(env), backing_file(env)
    for key, value in {"cache": cache, "client-timeout": "30", "stats-interval": "1",
                       **OF_THE_CACHE}.items():
        refused(env, f"backing={backing}", f"{key}={value}", f"{key}={value}",
                says=(re.escape(f"{key}={value}: {key}= was given already"),))


@case()
def required_parameters(env):
    cache = blank_cache(env)
    refused(env, f"cache={cache}", says=("backing=PATH is required",))
    refused(env, says=("backing=PATH is required",))
    refused(env, f"cache={cache}", "volume=a", says=("volume=a has no backing store",))


@case()
def uri(env):
    cache, backing = blank_cache(env), backing_file(env)
    # What a backing store may be is in test_remote.py.
    refused(env, f"cache={cache}", "backing=https://host/disk", says=("backing= of the default export: .*nbd://",))
    refused(env, f"cache={cache}", "volume=a", f"backing={backing}", "volume=b", "backing=nbd://me:secret@host/disk",
            says=("backing= of volume 'b': .*password",))
    refused(env, "cache=nbd://localhost", f"backing={backing}", says=("cache=:", "path", "backing="))


@case()
def missing_file(env):
    cache, backing = blank_cache(env), backing_file(env)
    absent = env.path("absent")
    refused(env, f"cache={cache}", f"backing={absent}", says=(absent, "does not exist", "check"))
    refused(env, f"cache={absent}", f"backing={backing}",
            says=(absent, "does not exist", "cache-size="))
    refused(env, f"cache={absent}", f"backing={backing}", "cache-size=8M", "format=no",
            says=(absent, "format=no"))
    # The backing store is looked at before a cache file is made.
    refused(env, f"cache={absent}", f"backing={absent}2", "cache-size=8M",
            says=(absent + "2", "does not exist"))
    refused(env, f"cache={absent}/cache", f"backing={backing}", "cache-size=8M",
            says=(absent + "/cache",))
    refused(env, f"cache={cache}", f"backing={backing}", f"control={absent}/socket",
            says=(f"control={absent}/socket", "No such file", "a folder that exists"))


@case()
def neither_file_nor_device(env):
    cache, backing = blank_cache(env), backing_file(env)
    refused(env, f"cache={env.folder}", f"backing={backing}", says=(env.folder, "directory"))
    refused(env, f"cache={cache}", f"backing={env.folder}", says=(env.folder, "directory"))
    refused(env, f"cache={cache}", "backing=/dev/zero", says=("/dev/zero", "character device"))


@case()
def forbidden_to_root(env):
    """Who is root already is not told to become root."""
    need_root()
    cache, backing = blank_cache(env), backing_file(env)
    run("chattr", "+i", backing)
    try:
        text = env.refused(f"cache={cache}", f"backing={backing}")
    finally:
        run("chattr", "-i", backing)
    assert "immutable" in text and "as root" not in text, text


@case()
def empty_backing_store(env):
    cache, empty = blank_cache(env), env.make_file("empty", 0)
    refused(env, f"cache={cache}", f"backing={empty}", says=(empty, "empty|no data|size"))


@case()
def file_system_on_the_cache(env):
    if not any(os.access(os.path.join(d, "mkfs.ext4"), os.X_OK) for d in ("/sbin", "/usr/sbin")):
        raise Skip("mkfs.ext4 is not installed (e2fsprogs)")
    cache, backing = blank_cache(env, 16 * M), backing_file(env)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "photos", cache], check=True,
                   env={"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"})
    refused(env, f"cache={cache}", f"backing={backing}",
            says=(cache, "ext4", "photos", "format=force", "correct the path"))


@case()
def data_on_the_cache(env):
    """One byte somewhere that is not zero, and that no signature explains."""
    cache, backing = blank_cache(env, 20 * M), backing_file(env)
    for offset in (0, 4095, env.rng.randrange(20 * M), 20 * M - 1):
        blank_cache(env, 20 * M)
        spoil(cache, offset)
        text = refused(env, f"cache={cache}", f"backing={backing}",
                       says=(cache, "not blank", "format=force"))
        # The file is sparse, but it is not ours to say what should be done about that
        assert "remove the file" not in text, text


@case()
def format_no(env):
    cache, backing = blank_cache(env), backing_file(env)
    refused(env, f"cache={cache}", f"backing={backing}", "format=no",
            says=(cache, "blank", "format=no"))


@case()
def wrong_backing_store_and_blank_cache(env):
    """The cache is not formatted when the start fails for another reason."""
    cache = blank_cache(env)
    refused(env, f"cache={cache}", f"backing={env.path('absent')}", says=("absent",))
    refused(env, f"cache={cache}", f"backing={env.path('absent')}", "format=force",
            says=("absent",))


@case()
def same_file_twice(env):
    cache = blank_cache(env)
    os.symlink(cache, env.path("symlink"))
    os.link(cache, env.path("hardlink"))
    for other in (cache, env.path("symlink"), env.path("hardlink")):
        refused(env, f"cache={cache}", f"backing={other}", says=(re.escape(other), "same file"))


@case()
def in_use(env):
    """Another server has the cache, or the backing store, or both."""
    cache, backing = blank_cache(env), backing_file(env)
    other_cache = env.make_file("other-cache", 8 * M)
    other_backing = env.make_file("other-backing", 8 * M)
    server = env.serve(cache=cache, backing=backing)
    h = server.connect()
    for args, path in (((cache, other_backing), cache), ((other_cache, backing), backing),
                       ((backing, cache), cache), ((cache, backing), backing)):
        # No comparison of files here: the first server may be writing.
        text = env.refused(f"cache={args[0]}", f"backing={args[1]}")
        assert path in text and re.search("in use|used by|locked", text), text
    assert file_hash(other_cache) == file_hash(env.make_file("zeros", 8 * M))
    h.pwrite(b"x" * 4096, 0)
    h.flush()
    h.shutdown()
    server.stop()


@case()
def other_size(env):
    cache, backing = blank_cache(env), backing_file(env)
    refused(env, f"cache={cache}", f"backing={backing}", "cache-size=16M",
            says=(cache, "8M", "16M", "leave out cache-size=, or remove the file"))


@case()
def other_size_of_a_device(env):
    backing, device = backing_file(env), loop_device(env, blank_cache(env))
    text = refused(env, f"cache={device}", f"backing={backing}", "cache-size=16M",
                   says=(device, "8M", "16M", "leave out cache-size="))
    assert "remove" not in text, text


@case()
def too_small(env):
    """The message says how small is possible, and that size indeed works."""
    backing = backing_file(env)
    for segment in ("1M", "8K"):
        cache = blank_cache(env, 1 * M)
        text = env.refused(f"cache={cache}", f"backing={backing}", f"segment-size={segment}")
        assert cache in text and "too small" in text, text
        least = re.search(r"the least is (\d+[KMG]?) ", text).group(1)
        refused(env, f"cache={cache}", f"backing={backing}", f"segment-size={segment}",
                says=("too small",))
        fresh = env.path(f"fresh-{segment}")
        refused(env, f"cache={fresh}", f"backing={backing}", f"segment-size={segment}",
                "cache-size=64K",
                says=(f"cache-size=64K: too small: the least is {least} with segment-size={segment};",))
        server = env.serve(cache=fresh, backing=backing, cache_size=least, segment_size=segment)
        h = server.connect()
        h.pwrite(b"s" * 4096, 0)
        h.shutdown()
        server.stop()


@case()
def other_backing_store_under_dirty_data(env):
    cache, backing = dirty_cache(env)
    other = env.make_file("other", 8 * M, env.rng.randbytes(8 * M))
    refused(env, f"cache={cache}", f"backing={other}",
            says=(other, "not written back", "right backing store", "logcachectl forget"))
    # What was refused did no harm.
    server = env.serve(cache=cache, backing=backing)
    h = server.connect()
    assert h.pread(4096, 7 * M) == b"d" * 4096
    h.shutdown()
    server.stop()


@case()
def shrunk_backing_store(env):
    cache, backing = dirty_cache(env)
    os.truncate(backing, 6 * M)
    refused(env, f"cache={cache}", f"backing={backing}", says=(backing, "restore its size", "logcachectl forget"))


@case()
def changed_backing_store_under_dirty_data(env):
    """Somebody wrote to the backing store alone, where the fingerprint looks."""
    cache, backing = dirty_cache(env)
    spoil(backing, 0)
    refused(env, f"cache={cache}", f"backing={backing}", says=(backing, "not written back"))


@case()
def unknown_version(env):
    cache, backing = dirty_cache(env)
    patch(cache, AT_VERSION, "I", 99)
    for fmt in ("auto", "no"):
        refused(env, f"cache={cache}", f"backing={backing}", f"format={fmt}",
                says=(cache, "version 99"))


@case()
def unknown_incompatible_feature(env):
    cache, backing = dirty_cache(env)
    patch(cache, AT_INCOMPAT, "Q", 1 << 40)
    refused(env, f"cache={cache}", f"backing={backing}", says=(cache, "feature"))


@case()
def both_superblocks_broken(env):
    """Still recognised as a logcache, so it is never taken for blank or foreign."""
    cache, backing = dirty_cache(env)
    spoil(cache, 200)
    spoil(cache, 4096 + 200)
    refused(env, f"cache={cache}", f"backing={backing}", says=(cache, "superblock|damaged|corrupt", "format=force"))


@case()
def damaged_log(env):
    """A header that was durable is gone: what can be done is said."""
    cache, backing = dirty_cache(env)
    # Segments begin behind a zone of 1 MiB
    spoil(cache, 1 * M)
    refused(env, f"cache={cache}", f"backing={backing}",
            says=(cache, "record 1 .* damaged or missing", "logcachectl check", "logcachectl repair"))


@case()
def one_superblock_broken_is_fine(env):
    cache, backing = dirty_cache(env)
    spoil(cache, 200)
    server = env.serve(cache=cache, backing=backing)
    h = server.connect()
    assert h.pread(4096, 1 * M) == b"d" * 4096
    h.shutdown()
    server.stop()


@case()
def truncated_cache(env):
    cache, backing = dirty_cache(env)
    os.truncate(cache, 5 * M)
    refused(env, f"cache={cache}", f"backing={backing}", says=(cache,))


@case()
def force_formats_anything(env):
    """format=force does what it says, and says so."""
    cache, backing = dirty_cache(env)
    other = env.make_file("other", 8 * M, env.rng.randbytes(1 * M))
    server = env.serve(cache=cache, backing=other, format="force")
    assert re.search("warning: .*logcache on .* is destroyed", server.log()), server.log()
    h = server.connect()
    with open(other, "rb") as f:
        assert h.pread(8 * M, 0) == f.read()
    h.shutdown()
    server.stop()

    spoil(cache, 0)
    spoil(cache, 4096)
    server = env.serve(cache=cache, backing=other, format="force")
    assert "is destroyed" in server.log(), server.log()
    server.stop()


@case()
def unknown_export(env):
    cache, backing = blank_cache(env), backing_file(env)
    server = env.serve(cache=cache, backing=backing)
    done = subprocess.run(["nbdinfo", "--size", f"nbd+unix:///other?socket={server.socket}"],
                          capture_output=True, check=False)
    assert done.returncode != 0
    server.stop()
