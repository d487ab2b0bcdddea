# SPDX-License-Identifier: BSD-3-Clause
"""Servers for backing stores: nbdkit and qemu-nbd, which can be killed, stopped, and started again under the same
address; and a network between them and logcache that can be cut."""

import os
import select
import shlex
import signal
import socket
import subprocess
import threading
import time

import nbd

from devices import wait_until


class Remote:
    """An NBD server at a Unix socket, or at a TCP port of this host."""

    def __init__(self, env, command, name="remote", port=None):
        """COMMAND gets the path of the socket, or the number of the port, and returns a command line."""
        self.socket = env.path(f"{name}.sock")
        self.port = port
        self.log_path = env.path(f"{name}.log")
        self._command = command
        self.process = None
        env.at_end(self.kill)
        self.start()

    @property
    def uri(self):
        return f"nbd://127.0.0.1:{self.port}" if self.port else f"nbd+unix:///?socket={self.socket}"

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self._command(self.port or self.socket), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, "the remote server does not come up"
            time.sleep(0.01)

    def _answers(self):
        s = socket.socket(socket.AF_INET if self.port else socket.AF_UNIX)
        try:
            s.connect(("127.0.0.1", self.port) if self.port else self.socket)
            return True
        except OSError:
            return False
        finally:
            s.close()

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def freeze(self):
        """All its threads are stopped when this returns; the signal alone leaves them time for one more answer."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = f"/proc/{self.process.pid}/task"

        def stopped(task):
            with open(f"{tasks}/{task}/stat", encoding="utf-8") as f:
                return f.read().rpartition(")")[2].split()[0] == "T"

        wait_until(lambda: all(stopped(t) for t in os.listdir(tasks)), "the server does not stop")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def restart(self, command=None, away_s=0.0):
        self.kill()
        self._command = command or self._command
        time.sleep(away_s)
        self.start()

    def restart_later(self, after_s, away_s):
        """By another process: libnbd lets no thread of ours run while it waits for an answer. Returns a function: is it
        there again?"""
        old, command = self.process, shlex.join(self._command(self.socket))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f"sleep {after_s}; kill -9 {old.pid}; sleep {away_s}; rm -f {self.socket}; exec {command}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return lambda: old.poll() is not None and self._answers()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def connect(self):
        h = nbd.NBD()
        h.connect_uri(self.uri)
        return h


def nbdkit(*args):
    # Not --exit-with-parent: that means the thread that starts it.
    return lambda where: ["nbdkit", "-f",
                          *(("-i", "127.0.0.1", "-p", str(where)) if isinstance(where, int) else ("-U", where)),
                          *args]


def qemu_nbd(image, fmt):
    # As many connections as come, and again when all have gone.
    return lambda path: ["qemu-nbd", "--persistent", "--shared=0", "--format", fmt,
                         "--socket", path, image]


class Network:
    """A Unix socket that leads to another one, until it is cut: then logcache sees its connections
    closed, and the server does not, so whatever it has got it goes on with."""

    def __init__(self, env, target, name="network"):
        self.socket = env.path(f"{name}.sock")
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen(16)
        self._pairs = []
        self._lock = threading.Lock()
        self._closed = False
        self.nr = 0  # connections so far
        env.at_end(self.close)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            with self._lock:
                self._pairs.append((client, server))
                self.nr += 1
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client, server):
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 1)
                for s in ready:
                    data = s.recv(1 << 18)
                    if not data:
                        raise OSError("closed")
                    (server if s is client else client).sendall(data)
        except (OSError, ValueError):
            client.close()
        # The other end stays open: the server is not told.

    def cut(self):
        with self._lock:
            for client, _ in self._pairs:
                try:
                    client.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it was cut before

    def close(self):
        self._listener.close()
        self.cut()
        with self._lock:
            for _, server in self._pairs:
                server.close()
