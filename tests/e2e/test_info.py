# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit and the server tell about themselves."""

import os
import re
import subprocess
import time

import nbd

import harness
from harness import K, M, case


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
        assert re.fullmatch(r"\d+\.\d+\.\d+", fields["logcache_version"])
        assert int(fields["logcache_format_version"]) >= 1
        assert 12 <= float(fields["logcache_memory_bytes_per_block"]) <= 18
        assert int(fields["logcache_cache_min_bytes"]) >= 4 * M


@case()
def help_text(_env):
    text = nbdkit("--help")
    for key in ("cache=", "cache-size=", "backing=", "format=", "segment-size=", "writeback=",
                "dirty-low=", "flush-interval=", "on-exit=", "stats-interval="):
        assert re.search(f"^{key}", text, re.MULTILINE), f"--help does not know {key}"
    parameters = text[text.index("\ncache="):]
    assert max(len(line) for line in parameters.splitlines()) <= 80


@case()
def start_line(env):
    """One line says what is served, and what it costs: memory as promised."""
    server = env.serve(cache=env.path("cache"), cache_size=16 * M,
                       backing=env.make_file("backing", 32 * M))
    line = server.wait_log("serving .*").group(0)
    for wanted in (env.path("cache"), env.path("backing"), "segments", "dirty", "head", "tail",
                   "RAM"):
        assert wanted in line, f"{wanted} is missing: {line}"
    assert float(re.search(r"([\d.]+) bytes per cached block", line).group(1)) <= 18
    server.stop()


@case()
def export_properties(env):
    server = env.serve(cache=env.path("cache"), cache_size=16 * M,
                       backing=env.make_file("backing", 32 * M))
    h = server.connect()
    assert h.get_size() == 32 * M
    assert h.can_multi_conn() and h.can_flush() and h.can_fua() and h.can_zero()
    assert not h.is_read_only() and not h.can_trim()

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
    try:
        h.pwrite(b"w" * 4096, 0)
        raise AssertionError("a read-only export was written to")
    except nbd.Error:
        pass
    h.shutdown()
    server.stop()


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
    h.flush()
    server.wait_log(r"statistics: .*client writes 10 \(40K", timeout_s=5)
    h.shutdown()
    server.stop()
