# SPDX-License-Identifier: BSD-3-Clause
"""NBD servers as backing stores: what can be one, what is refused, and what happens when a server dies, hangs, changes,
or goes on with what it had got from a connection that is lost."""

import errno
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import nbd

import harness
from harness import K, M, Skip, case, pick
from remote import Network, Remote, nbdkit, qemu_nbd
from test_ctl_offline import ctl
from test_io import read_all
from test_metrics import free_port


def write_somewhere(h, rng, data, nr, largest=128 * K):
    """Requests of any size at any place, to the server and to DATA."""
    for _ in range(nr):
        size = rng.randint(1, largest)
        offset = rng.randrange(len(data) - size)
        if rng.random() < 0.5:
            offset, size = offset // 4096 * 4096, max(size // 4096 * 4096, 4096)
        buf = rng.randbytes(size)
        h.pwrite(buf, offset)
        data[offset:offset + size] = buf


def everything(remote):
    h = remote.connect()
    size = h.get_size()
    data = b"".join(h.pread(min(32 * K, size - at), at) for at in range(0, size, 32 * K))
    h.shutdown()
    return data


def life(env, remote, size, **parameters):
    """Writes, zeros and trims through a cache, everything written back; the server has it all."""
    parameters = {"cache_size": 16 * M, "backing_fence": 0, **parameters}
    server = env.serve(cache=env.path("ssd"), backing=remote.uri, on_exit="drain", **parameters)
    h = server.connect()
    data = bytearray(read_all(h, size))
    for _ in range(6):
        write_somewhere(h, env.rng, data, 20)
        h.flush()
        at = env.rng.randrange(size // 2) // 4096 * 4096
        h.zero(1 * M, at)
        data[at:at + 1 * M] = bytes(1 * M)
    assert read_all(h, size) == data
    h.shutdown()
    server.stop()
    assert everything(remote) == data
    os.unlink(env.path("ssd"))


# --- what can be a backing store ---


@case()
def servers(env):
    size = 8 * M
    life(env, Remote(env, nbdkit("memory", str(size)), "memory"), size)
    disk = env.make_file("disk", size)
    life(env, Remote(env, nbdkit("file", disk), "file"), size)
    # One connection, requests of 4 KiB to 64 KiB, aligned, and nothing else.
    life(env, Remote(env, nbdkit("--filter=blocksize-policy", "--filter=multi-conn", "memory", str(size),
                                 "blocksize-minimum=4096", "blocksize-preferred=4096",
                                 "blocksize-maximum=65536", "blocksize-error-policy=error",
                                 "multi-conn-mode=disable"), "policy"), size)
    # Neither zero nor extents nor trim.
    life(env, Remote(env, nbdkit("--filter=nozero", "--filter=noextents", "memory", str(size)),
                     "plain"), size)
    # An end that is no multiple of anything.
    life(env, Remote(env, nbdkit("memory", str(size + 777)), "odd"), size + 777)


@case()
def qemu(env):
    if not shutil.which("qemu-nbd"):
        raise Skip("qemu-nbd is not installed")
    size = 8 * M
    raw = env.make_file("raw", size)
    life(env, Remote(env, qemu_nbd(raw, "raw"), "raw"), size)
    qcow = env.path("qcow")
    os.system(f"qemu-img create -q -f qcow2 {qcow} {size}")
    life(env, Remote(env, qemu_nbd(qcow, "qcow2"), "qcow"), size)


@case()
def tls(env):
    """Keys in a file; over TCP, where whoever has none is not let in."""
    keys = env.path("keys")
    with open(keys, "w", encoding="ascii") as f:
        f.write("alice:" + "0123456789abcdef" * 4 + "\n")
    remote = Remote(env, nbdkit("--tls=require", f"--tls-psk={keys}", "memory", "8M"))
    text = env.refused(f"backing={remote.uri}")
    assert "TLS" in text, text
    server = env.serve(
        backing=f"nbds+unix://alice@/?socket={remote.socket}&tls-psk-file={keys}", backing_fence=0)
    h = server.connect()
    data = bytearray(8 * M)
    write_somewhere(h, env.rng, data, 50)
    h.flush()
    assert read_all(h, 8 * M) == data
    h.shutdown()
    server.stop()


@case()
def connections(env):
    """Several, where the server says that a flush on one of them covers all."""
    for mode, nr in (("emulate", 4), ("disable", 1)):
        remote = Remote(env, nbdkit("--filter=multi-conn", "memory", "8M", f"multi-conn-mode={mode}"), mode)
        network = Network(env, remote.socket, f"network-{mode}")
        server = env.serve(backing=network.uri, backing_fence=0)
        server.connect().shutdown()
        # Those of the decision to start, and those after the fork.
        end = time.monotonic() + 10
        while network.nr < 2 * nr and time.monotonic() < end:
            time.sleep(0.01)
        assert network.nr == 2 * nr, f"{network.nr} connections with multi-conn-mode={mode}"
        server.stop()


@case()
def background(env):
    """nbdkit forks between the decision to start and serving; over TCP."""
    remote = Remote(env, nbdkit("file", env.make_file("disk", 8 * M)), port=free_port())
    front, pidfile = env.path("front.sock"), env.path("front.pid")
    subprocess.run(["nbdkit", "-U", front, "-P", pidfile, harness.MODULE, f"backing={remote.uri}",
                    "backing-fence=0"], check=True, timeout=60, stdin=subprocess.DEVNULL,
                   env=harness.ENVIRONMENT)
    end = time.monotonic() + 20
    while not (os.path.exists(pidfile) and os.path.getsize(pidfile)):
        assert time.monotonic() < end
        time.sleep(0.01)
    with open(pidfile, encoding="ascii") as f:
        pid = int(f.read())
    try:
        h = nbd.NBD()
        h.connect_unix(front)
        data = bytearray(8 * M)
        write_somewhere(h, env.rng, data, 50)
        h.flush()
        remote.restart()
        write_somewhere(h, env.rng, data, 50)
        h.flush()
        assert read_all(h, 8 * M) == data
        h.shutdown()
    finally:
        os.kill(pid, signal.SIGKILL)
    assert everything(remote) == data


@case()
def holes(env):
    size = 8 * M
    disk = env.make_file("disk", size, b"x" * (64 * K))
    server = env.serve(backing=Remote(env, nbdkit("file", disk)).uri, backing_fence=0)
    h = server.connect()
    found = []
    h.block_status(size, 0, lambda _, offset, entries, __: found.extend(entries))
    assert found[0:2] == [64 * K, 0], found
    assert found[2:4] == [size - 64 * K, nbd.STATE_HOLE | nbd.STATE_ZERO], found
    assert h.can_trim()
    h.pwrite(b"y" * M, 4 * M)
    h.flush()
    before = os.stat(disk).st_blocks
    h.trim(M, 4 * M)
    h.flush()
    assert os.stat(disk).st_blocks <= before - M // 512 + 16, "trim gave nothing back"
    assert h.pread(M, 4 * M) == bytes(M)
    h.shutdown()
    server.stop()


@case()
def growth(env):
    disk = env.make_file("disk", 8 * M)
    remote = Remote(env, nbdkit("file", disk))
    parameters = {"cache": env.path("ssd"), "cache_size": 16 * M, "backing_fence": 0}
    server = env.serve(backing=remote.uri, **parameters)
    h = server.connect()
    data = bytearray(8 * M)
    write_somewhere(h, env.rng, data, 50)
    remote.kill()
    os.truncate(disk, 12 * M)
    remote.start()
    write_somewhere(h, env.rng, data, 50)
    assert h.get_size() == 8 * M  # not while it is served
    h.shutdown()
    server.stop()
    server = env.serve(backing=remote.uri, on_exit="drain", **parameters)
    h = server.connect()
    assert h.get_size() == 12 * M
    assert read_all(h, 8 * M) == data
    h.shutdown()
    server.stop()
    assert everything(remote) == data + bytes(4 * M)


@case()
def drain_offline(env):
    """logcachectl takes a URI, too."""
    remote = Remote(env, nbdkit("memory", "8M"))
    data = bytearray(8 * M)
    for _ in range(2):  # the first time the volume is new to the cache, and the drain would be fenced
        server = env.serve(cache=env.path("ssd"), cache_size=8 * M, backing=remote.uri, writeback="off",
                           backing_fence=0)
        h = server.connect()
        write_somewhere(h, env.rng, data, 20)
        h.shutdown()
        server.stop()
    ctl("drain", "--offline", f"cache={env.path('ssd')}", f"backing={remote.uri}")
    assert everything(remote) == data


# --- what is refused ---


@case()
def refusals(env):
    def refused(uri, *args, says):
        text = env.refused(f"backing={uri}", *args)
        for pattern in says:
            assert re.search(pattern, text), f"the message does not match {pattern!r}: {text}"
        return text

    def server(name, *args):
        return Remote(env, nbdkit(*args), name).uri

    absent = f"nbd+unix:///?socket={env.path('absent')}"
    refused(absent, says=(re.escape(absent), "cannot connect", "No such file", "URI"))
    uri = server("ro", "-r", "memory", "8M")
    refused(uri, says=(re.escape(uri), "read-only", "start the server without"))
    refused(server("empty", "null", "0"), says=("empty",))
    refused(server("large", "--filter=blocksize-policy", "memory", "8M", "blocksize-minimum=65536",
                   "blocksize-preferred=65536"), says=("65536", "4096", "blocksize"))
    noflush = server("noflush", "--filter=protect", "eval", "get_size=echo 8M", "protect=0-0",
                     "pread=head -c $3 /dev/zero",
                     "can_write=exit 0", "pwrite=cat >/dev/null")
    refused(noflush, says=("flush", "backing-without-flush=accept"))
    env.serve(backing=noflush, backing_without_flush="accept").stop()
    text = refused("nbd://alice:secret@host/", says=("password",))
    assert "secret" not in text, text
    refused("nbd+unix:///?socket=relative", says=("slash",))
    refused("ftp://host/", says=("nbd://",))
    # Twice the same.
    uri = server("once", "memory", "8M")
    text = env.refused(f"backing={uri}", "volume=two", f"backing={uri}")
    assert "same" in text, text
    # Parameters that mean nothing.
    disk = env.make_file("disk", 8 * M)
    for parameter in ("backing-fence=1", "backing-timeout=1", "backing-without-flush=accept"):
        text = env.refused(f"backing={disk}", parameter)
        assert "means nothing" in text, text


# --- servers that die, hang and change ---


@case()
def restarts(env):
    """The server is killed and started again under load. Nothing is lost: neither from the clients' view nor on its disk."""
    size = 32 * M
    disk = env.make_file("disk", size)
    remote = Remote(env, nbdkit("file", disk))
    server = env.serve(cache=env.path("ssd"), cache_size=16 * M, backing=remote.uri, on_exit="drain",
                       dirty_low=0, backing_fence=1)
    h = server.connect()
    data = bytearray(size)
    for _ in range(pick(2, 4)):
        restarted = remote.restart_later(env.rng.random(), env.rng.random())
        while not restarted():
            write_somewhere(h, env.rng, data, 10)
            at = env.rng.randrange(size - 256 * K)
            assert h.pread(256 * K, at) == data[at:at + 256 * K]
            if env.rng.random() < 0.2:
                h.flush()
    assert read_all(h, size) == data
    h.shutdown()
    # A drain that met the loss of a connection says so; the next one succeeds.
    server.stop()
    if "could not write everything back" in server.log():
        env.serve(cache=env.path("ssd"), backing=remote.uri, on_exit="drain", backing_fence=1).stop()
    assert everything(remote) == data


@case(quick=False)
def killed_both(env):
    """Logcache is killed while it writes back, and so is the server. The next start has everything that was flushed."""
    size = 16 * M
    disk = env.make_file("disk", size)
    remote = Remote(env, nbdkit("file", disk))
    data = bytearray(size)
    for i in range(pick(2, 3)):
        server = env.serve(cache=env.path("ssd"), cache_size=8 * M, backing=remote.uri, dirty_low=0,
                           backing_fence=1)
        h = server.connect()
        assert read_all(h, size) == data
        for _ in range(3):
            write_somewhere(h, env.rng, data, 30)
            h.flush()
            time.sleep(env.rng.random() * 0.5)
        server.kill()
        if i % 2:
            remote.restart()
    server = env.serve(cache=env.path("ssd"), backing=remote.uri, on_exit="drain", backing_fence=1)
    h = server.connect()
    assert read_all(h, size) == data
    h.shutdown()
    server.stop()
    assert everything(remote) == data


@case(quick=False)
def hangs(env):
    """A server that does not answer: reads fail after backing-timeout, writes go to the SSD; all goes on when it does."""
    remote = Remote(env, nbdkit("memory", "16M"))
    server = env.serve(cache=env.path("ssd"), cache_size=16 * M, backing=remote.uri, dirty_low=0,
                       backing_fence=0, backing_timeout=1)
    h = server.connect()
    h.pwrite(b"a" * M, 0)
    h.flush()
    remote.freeze()
    h.pwrite(b"b" * M, M)
    h.flush()
    began = time.monotonic()
    try:
        h.pread(4096, 12 * M)
        raise AssertionError("a read from a server that hangs succeeded")
    except nbd.Error as e:
        assert e.errnum, e
    assert 0.9 < time.monotonic() - began < 6
    assert h.pread(M, M) == b"b" * M
    server.wait_log("no answer for 1 s")
    remote.thaw()
    server.wait_log("connected again")
    end = time.monotonic() + 20
    while True:
        try:
            assert h.pread(4096, 12 * M) == bytes(4096)
            break
        except nbd.Error:
            assert time.monotonic() < end
            time.sleep(0.1)
    # Shutting down does not take for ever either.
    remote.freeze()
    h.pwrite(b"c" * M, 2 * M)
    h.shutdown()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10
    remote.thaw()
    server = env.serve(cache=env.path("ssd"), backing=remote.uri, backing_fence=0, on_exit="drain")
    server.stop()
    assert everything(remote)[:3 * M] == b"a" * M + b"b" * M + b"c" * M


def slow_server(env, size):
    """A server whose writes take effect late, whatever becomes of the connection, while the file `slow` exists."""
    disk = env.make_file("disk", size)
    slow = env.path("slow")
    return Remote(env, nbdkit(
        "eval", "thread_model=echo parallel", f"get_size=echo {size}", "can_write=exit 0",
        "can_flush=exit 0", "flush=exit 0", "can_multi_conn=exit 3",
        f"pread=dd if={disk} iflag=skip_bytes,count_bytes,fullblock skip=$4 count=$3 bs=64K status=none",
        f'pwrite=f=$(mktemp -p {env.folder}); cat >$f; [ -e {slow} ] && sleep 1.5; '
        f"dd if=$f of={disk} oflag=seek_bytes seek=$4 bs=1M conv=notrunc status=none; rm $f")), slow


def late_write(env, fence_s):
    """A write that was in flight when the connection broke lands after a newer one was to be written. Returns what is there
    in the end."""
    remote, slow = slow_server(env, 8 * M)
    network = Network(env, remote.socket)
    server = env.serve(cache=env.path("ssd"), cache_size=8 * M, backing=network.uri, dirty_low=0,
                       on_exit="drain", backing_fence=fence_s)
    h = server.connect()
    time.sleep(fence_s)  # that of the start
    with open(slow, "w", encoding="ascii"):
        pass
    h.pwrite(b"old!" * 1024, 0)
    h.flush()
    # It is being written back: the server has got it.
    end = time.monotonic() + 20
    while not any(name.startswith("tmp.") for name in os.listdir(env.folder)):
        assert time.monotonic() < end, "nothing is written back"
        time.sleep(0.01)
        h.pwrite(b"old!" * 1024, 0)
        h.flush()
    time.sleep(0.1)
    os.unlink(slow)
    network.cut()
    h.pwrite(b"new!" * 1024, 0)
    h.flush()
    h.shutdown()
    server.stop()
    if "could not write everything back" in server.log():
        env.serve(cache=env.path("ssd"), backing=network.uri, on_exit="drain",
                  backing_fence=fence_s).stop()
    end = time.monotonic() + 20
    while any(name.startswith("tmp.") for name in os.listdir(env.folder)):
        assert time.monotonic() < end
        time.sleep(0.05)
    return everything(remote)[:4]


@case(quick=False)
def late_write_is_fenced(env):
    found = late_write(env, 2)
    assert found == b"new!", f"{found} is on the disk: an older write came after a newer one"


@case(quick=False)
def late_write_without_a_fence(env):
    """What the fence is there for: this shows that the case above could fail."""
    found = late_write(env, 0)
    assert found == b"old!", f"{found} is on the disk: the case proves nothing"


@case(quick=False)
def fence_of_a_start(env):
    """After a crash the first write-back waits, after a clean shutdown it does not."""
    fence_s = 3
    remote = Remote(env, nbdkit("memory", "8M"))
    parameters = {"cache": env.path("ssd"), "backing": remote.uri, "backing_fence": fence_s, "writeback": "off"}

    def drains():
        """How long that takes, with the start: the fence begins somewhere in it."""
        began = time.monotonic()
        env.serve(on_exit="drain", **parameters).stop()
        return time.monotonic() - began

    def drains_after(kill):
        server = env.serve(cache_size=8 * M, **parameters)
        h = server.connect()
        h.pwrite(env.rng.randbytes(M), 0)
        h.flush()
        h.shutdown()
        time.sleep(fence_s + 0.1)  # its own fence
        if kill:
            server.kill()
        else:
            server.stop()
        return drains()

    drains_after(False)  # the volume is new to the cache
    assert drains_after(True) >= fence_s
    assert drains_after(False) < fence_s
    # Closed while its own fence had not passed: the next start must not trust it.
    env.serve(**parameters).kill()
    server = env.serve(**parameters)
    h = server.connect()
    h.pwrite(env.rng.randbytes(M), 0)
    h.shutdown()
    server.stop()
    assert drains() >= fence_s


@case()
def comes_back_changed(env):
    """Smaller, or read-only: it is not used, with a message, until it is as before."""
    disk = env.make_file("disk", 8 * M)
    remote = Remote(env, nbdkit("file", disk))
    server = env.serve(backing=remote.uri, backing_fence=0, backing_timeout=1)
    h = server.connect()
    h.pwrite(b"x" * 4096, 0)
    h.flush()
    remote.kill()
    os.truncate(disk, 4 * M)
    remote.start()
    server.wait_log("has shrunk from 8388608 to 4194304 bytes")
    time.sleep(1.1)
    for request in (lambda: h.pwrite(b"y" * 4096, 0), lambda: h.pread(4096, 0)):
        try:
            request()
            raise AssertionError("a server that has shrunk is used")
        except nbd.Error:
            pass
    remote.kill()
    os.truncate(disk, 8 * M)
    remote.restart(nbdkit("-r", "file", disk))
    server.wait_log("is away: it is read-only")
    remote.restart(nbdkit("file", disk))
    server.wait_log("connected again")
    assert h.pread(4096, 0) == b"x" * 4096
    h.pwrite(b"z" * 4096, 0)
    h.flush()
    h.shutdown()
    server.stop()


@case()
def flush_hears_of_a_restart(env):
    """Without a cache: what was written before the server restarted may be lost with it, and the flush says so, once."""
    remote = Remote(env, nbdkit("file", env.make_file("disk", 8 * M)))
    server = env.serve(backing=remote.uri, backing_fence=0)
    h = server.connect()
    h.pwrite(b"x" * 4096, 0)
    remote.restart()
    h.pread(4096, 0)
    try:
        h.flush()
        raise AssertionError("the flush succeeded")
    except nbd.Error as e:
        assert e.errnum, e
    h.pwrite(b"x" * 4096, 0)
    h.flush()
    remote.restart()
    h.flush()
    h.shutdown()
    server.stop()


class RawClient:
    """A client that can do what libnbd does not: give up a connection with requests in it that nobody has read yet."""

    WRITE, READ = 1, 0

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self._get(18)
        # NBD_OPT_GO for the default export, until NBD_REP_ACK
        self.socket.sendall(struct.pack(">IQIIIH", 3, 0x49484156454F5054, 7, 6, 0, 0))
        kind = None
        while kind != 1:
            _, _, kind, length = struct.unpack(">QIII", self._get(20))
            assert kind < 1 << 31, kind
            self._get(length)

    def _get(self, nr):
        data = b""
        while len(data) < nr:
            more = self.socket.recv(nr - len(data))
            assert more, "the server has closed the connection"
            data += more
        return data

    def send(self, kind, offset, nr, data=b""):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 0, offset, nr) + data)

    def answer(self, nr=0, want=0):
        magic, error, _ = struct.unpack(">IIQ", self._get(16))
        assert (magic, error) == (0x67446698, want), error
        return self._get(nr)

    def give_up(self):
        """As with a connection over TCP: the server can hear of it, and what it still sends is taken."""
        self.socket.shutdown(socket.SHUT_WR)


@case()
def a_write_that_nobody_had_read(env):
    """All threads of a connection wait for a read of a server that hangs, and a write lies behind that in the socket. The
    client gives up, as the kernel's does: sends the write again on another connection, and then something newer.
    What lies in the socket must not be executed when the server goes on."""
    remote = Remote(env, nbdkit("memory", "16M"))
    server = env.serve(("--threads", "1"), cache=env.path("ssd"), cache_size=16 * M, client_timeout=1,
                       backing=remote.uri, backing_fence=0)
    first, second = RawClient(server.socket), RawClient(server.socket)
    remote.freeze()
    first.send(RawClient.READ, 1 * M, 4096)
    time.sleep(0.2)
    first.send(RawClient.WRITE, 20480, 4096, b"1" * 4096)
    time.sleep(1.2)
    first.give_up()
    for data in (b"1", b"2"):
        second.send(RawClient.WRITE, 20480, 4096, data * 4096)
        second.answer()
    remote.thaw()
    first.answer(4096)
    first.answer(want=errno.ESHUTDOWN)
    second.send(RawClient.READ, 20480, 4096)
    assert second.answer(4096) == b"2" * 4096
    assert "client went away" in server.log(), server.log()
    second.give_up()
    server.stop()
