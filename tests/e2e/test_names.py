# SPDX-License-Identifier: BSD-3-Clause
"""Backing stores whose servers are given by a name, and a name server that does not answer."""

import os
import subprocess
import sys
import time

import nbd

from harness import M, Skip, case
from remote import Remote, nbdkit
from test_metrics import free_port

# What glibc waits for an answer here, in all: it asks twice. By default it does so for 20 s.
TIMEOUT_S = 2
RESOLVER_S = 2 * TIMEOUT_S
PATIENCE_S = 1
ADDRESS = "127.0.0.77"

# Every name is 127.0.0.1; while argv[1] exists nobody gets an answer.
NAME_SERVER = f"""
import os, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{ADDRESS}", 53))
print("ready", flush=True)
while True:
    query, peer = s.recvfrom(512)
    if os.path.exists(sys.argv[1]):
        continue
    end = query.index(b"\\0", 12) + 5
    is_a = query[end - 4:end - 2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4\\x7f\\0\\0\\1" if is_a else b""
    s.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0) + query[12:end] + answer, peer)
"""


@case(quick=False)
def a_name_server_that_does_not_answer(env):
    """Who waits for this store waits longer, by what the resolver takes; nobody else does."""
    if os.geteuid():
        raise Skip("needs root, for a resolv.conf of its own")
    silent = env.path("silent")
    names = subprocess.Popen([sys.executable, "-c", NAME_SERVER, silent], stdout=subprocess.PIPE)
    env.at_end(names.wait)
    env.at_end(names.kill)
    assert names.stdout.readline() == b"ready\n"
    with open(env.path("resolv.conf"), "w", encoding="ascii") as f:
        f.write(f"nameserver {ADDRESS}\nsearch .\noptions timeout:{TIMEOUT_S} attempts:1\n")
    private = ("unshare", "--mount", "sh", "-c",
               f"mount --bind {env.path('resolv.conf')} /etc/resolv.conf && exec \"$@\"", "sh")
    if subprocess.run([*private, "true"], check=False).returncode:
        raise Skip("no file system of its own")
    remote = Remote(env, nbdkit("memory", "16M"), port=free_port())
    server = env.serve(launcher=private, cache=env.path("ssd"), cache_size=16 * M, backing_fence=0, backing_timeout=PATIENCE_S,
                       volumes=[("", env.make_file("disk", 16 * M)), ("far", f"nbd://store.example:{remote.port}")])
    h, far = server.connect(), server.connect("far")
    far.pwrite(b"x" * 4096, 0)
    far.flush()
    with open(silent, "w", encoding="ascii"):
        pass
    remote.restart()
    server.wait_log("connection is lost")
    time.sleep(0.5)
    began = time.monotonic()
    try:
        far.pread(4096, 8 * M)
        raise AssertionError("it was read from a server whose name is not known")
    except nbd.Error as e:
        assert e.errnum, e
    assert time.monotonic() - began < PATIENCE_S + RESOLVER_S + 1
    for i in range(20):
        began = time.monotonic()
        h.pread(4096, i * 64 * 1024)
        h.pwrite(b"y" * 4096, i * 4096)
        far.pwrite(b"z" * 4096, i * 4096)
        far.flush()
        assert time.monotonic() - began < 1
        time.sleep(0.1)
    server.wait_log("is away: .*store.example")
    os.unlink(silent)
    server.wait_log("connected again")
    assert far.pread(4096, 8 * M) == bytes(4096)
    # To end takes no longer, either.
    with open(silent, "w", encoding="ascii"):
        pass
    remote.restart()
    server.wait_log("connection is lost(.|\n)*connection is lost")
    time.sleep(1)
    h.shutdown()
    far.shutdown()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < PATIENCE_S + RESOLVER_S + 1
