# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit and the server tell about themselves."""

import errno
import os
import re
import subprocess
import time

import nbd

import harness
from harness import K, M, case
from test_refuse import KEYS
from test_queue import filtered


def nbdkit(*args):
    done = subprocess.run(["nbdkit", harness.MODULE, *args], stdin=subprocess.DEVNULL,
                          capture_output=True, check=True, text=True)
    return done.stdout


@case()
def dump_plugin(env):
    for args in ((), (f"cache={env.path('absent')}", "backing=x")):
        fields = dict(line.split("=", 1) for line in nbdkit("--dump-plugin", *args).splitlines())
        assert fields["name"] == "logcache"
        assert fields["thread_model"] == "parallel"
        assert fields["magic_config_key"] == "backing"
        assert re.fullmatch(r"\d+\.\d+\.\d+", fields["logcache_version"])
        assert int(fields["logcache_format_version"]) >= 1
        assert 12 <= float(fields["logcache_memory_bytes_per_block"]) <= 18
        assert int(fields["logcache_cache_min_bytes"]) >= 4 * M
        assert int(fields["logcache_volumes_max"]) == 255
        assert int(fields["logcache_volume_name_max_bytes"]) == 63
        assert fields["logcache_io_uring"] in ("yes", "no")
        assert fields["logcache_libaio"] in ("yes", "no")


@case()
def dump_plugin_in_a_container(_env):
    """What a seccomp filter forbids is not there."""
    for denied, other in (("io_uring", "libaio"), ("libaio", "io_uring")):
        done = subprocess.run([*filtered(denied), "nbdkit", harness.MODULE, "--dump-plugin"],
                              stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True)
        assert f"logcache_{denied}=no\n" in done.stdout, done.stdout
        assert f"logcache_{other}=yes\n" in done.stdout, done.stdout


@case()
def help_text(_env):
    text = nbdkit("--help")
    for key in KEYS:
        assert re.search(f"^{key}=", text, re.MULTILINE), f"--help does not know {key}"
    parameters = text[text.index("\nbacking="):]
    assert max(len(line) for line in parameters.splitlines()) <= 80


@case()
def start_lines(env):
    """One line says what the cache is and costs: memory as promised. One for each volume follows."""
    backing = env.make_file("backing", 32 * M)
    server = env.serve(cache=env.path("cache"), cache_size=16 * M, backing=backing)
    line = server.wait_log("cache .*epoch .*").group(0)
    for wanted in (env.path("cache"), "segments", "dirty", "head", "tail", "RAM"):
        assert wanted in line, f"{wanted} is missing: {line}"
    assert float(re.search(r"([\d.]+) bytes per cached block", line).group(1)) <= 18
    assert re.search(r"opened in \d+\.\d\d s;", line)
    server.wait_log(f"serving {backing} .32M. as the default export\n")
    server.stop()


@case()
def path_alone_is_the_backing_store(env):
    backing = env.make_file("my=disk", 8 * M, b"m" * 4096)
    for bare in (backing, "./my=disk"):
        done = subprocess.run(["nbdkit", "-U", "-", harness.MODULE, bare,
                               f"cache={env.path('cache')}", "cache-size=8M",
                               "--run", 'nbdcopy "$uri" - | head -c 3'],
                              cwd=env.folder, stdin=subprocess.DEVNULL, capture_output=True,
                              check=False)
        assert done.stdout == b"mmm", done


@case()
def export_properties(env):
    server = env.serve(cache=env.path("cache"), cache_size=16 * M,
                       backing=env.make_file("backing", 32 * M))
    h = server.connect()
    assert h.get_size() == 32 * M
    assert h.can_multi_conn() and h.can_flush() and h.can_fua() and h.can_zero()
    assert not h.is_read_only() and h.can_trim() and h.can_fast_zero()
    assert not h.can_cache() and h.can_meta_context("base:allocation")

    sizes = [h.get_block_size(kind) for kind in
             (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)]
    assert sizes == [1, 4 * K, 64 * M]
    h.shutdown()
    server.stop()


@case()
def read_only(env):
    """nbdkit -r: reads work, writes don't."""

    backing = env.make_file("backing", 8 * M, b"r" * 4096)
    server = env.serve(("-r",), cache=env.path("cache"), cache_size=8 * M, backing=backing)
    h = server.connect()
    assert h.is_read_only()
    assert h.pread(4096, 0) == b"r" * 4096
    # What the server has to refuse even if the client does not.
    h.set_strict_mode(0)
    for request in (lambda: h.pwrite(b"w" * 4096, 0), lambda: h.zero(4096, 0),
                    lambda: h.trim(4096, 0)):
        try:
            request()
        except nbd.Error as e:
            assert e.errnum == errno.EPERM, e
        else:
            raise AssertionError("a read-only export was changed")
    assert h.pread(4096, 0) == b"r" * 4096
    h.shutdown()
    server.stop()


@case()
def read_only_after_a_crash(env):
    """-r is about clients: the log is recovered, and written back, all the same."""
    backing = env.make_file("backing", 8 * M, b"r" * 4096)
    files = {"cache": env.path("cache"), "backing": backing}
    server = env.serve(cache_size=8 * M, writeback="off", **files)
    h = server.connect()
    h.pwrite(b"w" * 4096, 0, nbd.CMD_FLAG_FUA)
    server.kill()
    server = env.serve(("-r",), on_exit="drain", **files)
    h = server.connect()
    assert h.pread(4096, 0) == b"w" * 4096
    h.shutdown()
    server.stop()
    with open(backing, "rb") as f:
        assert f.read(4096) == b"w" * 4096
    server = env.serve(("-r",), **files)
    h = server.connect()
    assert h.pread(4096, 0) == b"w" * 4096
    h.shutdown()
    server.stop()


@case()
def debug_flags(env):
    server = env.serve(("-v", "-D", "logcache.requests=1", "-D", "logcache.engine=1"),
                       cache=env.path("cache"), cache_size=8 * M,
                       volumes=[("a", env.make_file("backing", 8 * M))])
    h = server.connect("a")
    h.pwrite(b"x" * 4096, 512, nbd.CMD_FLAG_FUA)
    h.pread(100, 0)
    h.zero(1 * M, 0)
    h.flush()
    h.block_status(8 * M, 0, lambda *_: 0)
    for line in (r"write of 4096 bytes at offset 512 of volume 'a', fua: done, \d+ us",
                 r"read of 100 bytes at offset 0 of volume 'a': done, \d+ us",
                 r"zero of 1048576 bytes at offset 0 of volume 'a', may trim: done",
                 r"flush of volume 'a': done, \d+ us",
                 r"block status of 8388608 bytes at offset 0 of volume 'a': done"):
        server.wait_log(line)
    h.shutdown()
    server.stop()
    assert "warning: -D" not in server.log() and "was not used" not in server.log()


@case()
def relative_paths_and_background(env):
    """In the background nbdkit's folder is /: relative paths were resolved before. The log goes
    on (to syslog, which nobody checks here) and the server stops on SIGTERM."""
    env.make_file("backing", 8 * M)
    sock, pidfile = env.path("sock"), env.path("pid")
    subprocess.run(["nbdkit", "-U", sock, "-P", pidfile, harness.MODULE, "cache=cache",
                    "cache-size=8M", "backing=backing", "on-exit=drain", "stats-interval=1"],
                   cwd=env.folder, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The process in the background writes it, maybe after the one in the foreground has ended.
    while not (os.path.exists(pidfile) and os.path.getsize(pidfile)):
        time.sleep(0.01)
    with open(pidfile, encoding="ascii") as f:
        pid = int(f.read())
    try:

        h = nbd.NBD()
        h.connect_unix(sock)
        h.pwrite(b"b" * 4096, 0)
        h.shutdown()
    finally:
        os.kill(pid, 15)
        # Not our child: wait until it is gone.
        for _ in range(1000):
            if not os.path.exists(f"/proc/{pid}"):
                break

            time.sleep(0.01)
        else:
            os.kill(pid, 9)
            raise AssertionError("the server did not stop on SIGTERM")
    with open(env.path("backing"), "rb") as f:
        assert f.read(4096) == b"b" * 4096


@case()
def statistics(env):
    """stats-interval logs a line when something changed, and none when nothing did."""
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, flush_interval=0,
                       backing=env.make_file("backing", 8 * M), stats_interval=1)
    h = server.connect()
    for i in range(10):
        h.pwrite(b"s" * 4096, i * 4096)
    h.zero(8 * M, 0)
    h.trim(4 * M, 0)
    h.flush()
    server.wait_log(r"statistics: .*client writes 10 \(40K, .*zeros 1 \(8M\); trims 1 \(4M\); ",
                    timeout_s=5)
    h.shutdown()
    server.stop()
