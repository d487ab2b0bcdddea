# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: a server that speaks NBD, or the path of a file or block device.

A target has `where`, which nbd-load understands, and cpu_seconds(), the CPU time that its server has used
(None if there is no server of ours: what a kernel target costs is not in any process).
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")


RUNNING = []  # every server that was not stopped yet


def stop_all():
    """At the end, also after something went wrong half-way."""
    for server in list(RUNNING):
        server.stop()


class Path:
    """A file or block device, opened with O_DIRECT by the load generator itself; or the URI of somebody else's
    server."""

    dirties_page_cache = False

    def __init__(self, path):
        self.where = path

    def cpu_seconds(self):
        return None

    def stop(self):
        pass


class Server:
    """A process that serves a Unix socket."""

    dirties_page_cache = False

    def __init__(self, machine, name, command):
        self.log = machine.memory_path(f"{name}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        RUNNING.append(self)

    def wait_until(self, ready):
        while not ready():
            if self.process.poll() is not None:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    sys.exit(f"a server did not start:\n{' '.join(self.process.args)}\n{log.read()}")
            time.sleep(0.01)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS:"))

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"a server did not end, and was killed: {' '.join(self.process.args)}", file=sys.stderr)
        if self in RUNNING:
            RUNNING.remove(self)


class Nbdkit(Server):
    def __init__(self, machine, name, *arguments, threads=None):
        self.socket = machine.memory_path(f"{name}.sock")
        pid = self.socket + ".pid"
        command = ["nbdkit", "-f", "--exit-with-parent", "-U", self.socket, "-P", pid]
        if threads:
            command += ["-t", str(threads)]
        began = time.monotonic()
        super().__init__(machine, name, [*command, *arguments])
        self.wait_until(lambda: os.path.exists(pid) and os.path.getsize(pid))
        self.start_seconds = time.monotonic() - began
        self.where = f"nbd+unix:///?socket={self.socket}"


class NbdkitFile(Nbdkit):
    """nbdkit's file plugin: writes go to the page cache."""

    dirties_page_cache = True

    def __init__(self, machine, path, *parameters):
        super().__init__(machine, "file", "file", path, *parameters)


class Plain(Nbdkit):
    """The system calls of a cache in nbdkit, and nothing else: what nbdkit leaves of the SSD's rate (plain/)."""

    def __init__(self, machine, path):
        super().__init__(machine, "plain", machine.program("plain/plain.so"), f"file={path}")


class QemuNbd(Server):
    """The SSD itself over NBD, without a cache of the host."""

    def __init__(self, machine, path):
        self.socket = machine.memory_path("qemu-nbd.sock")
        self.where = f"nbd+unix:///?socket={self.socket}"
        super().__init__(machine, "qemu-nbd",
                         ["qemu-nbd", "--cache=none", "--aio=io_uring", "-f", "raw", "-t", "-e", "16",
                          "-k", self.socket, path])
        self.wait_until(lambda: os.path.exists(self.socket))


class Spindle(Nbdkit):
    """The slow disk. Its clock runs `speed` times as fast as ours."""

    def __init__(self, machine, speed, size, write_cache=False):
        self.stats_path = machine.memory_path("spindle.stats")
        self.file = machine.sparse_file("disk", size)
        self.speed = speed
        # threads: more than the 32 that it has in its queue
        super().__init__(machine, "spindle", machine.program("spindle/spindle.so"), f"file={self.file}",
                         f"speed={speed}", f"write-cache={'on' if write_cache else 'off'}",
                         f"stats={self.stats_path}", threads=64)

    def stop(self):
        super().stop()
        if os.path.exists(self.file):
            os.unlink(self.file)

    def stats(self):
        """What the disk did, after it was stopped."""
        with open(self.stats_path, encoding="utf-8") as f:
            return {key: float(value) for key, value in (line.split(":") for line in f)}


class ControlConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class Logcache(Nbdkit):
    """It is asked through its control socket (docs/control.md)."""

    def __init__(self, machine, cache, backing, *parameters, threads=None, name="logcache"):
        self.control = machine.memory_path(f"{name}.ctl")
        super().__init__(machine, name, machine.module, f"cache={cache}", f"backing={backing}",
                         f"control={self.control}", *parameters, threads=threads)

    def request(self, method, path, body=None):
        connection = ControlConnection(self.control)
        connection.request(method, path, body=None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status >= 300:
            sys.exit(f"{method} {path}: {answer}")
        return answer

    def status(self):
        return self.request("GET", "/v1/status")

    def drain(self):
        """Write everything back; returns how long that took."""
        job = self.request("POST", "/v1/drain", {})
        while job["state"] == "running":
            time.sleep(0.02)
            job = self.request("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "done":
            sys.exit(f"the drain failed: {job}")
        return job["seconds"]


def given(text):
    """--target NAME=PATH or NAME=URI"""
    name, _, where = text.partition("=")
    if not name or not where:
        sys.exit(f"--target {text}: it must be NAME=PATH or NAME=URI")
    return name, Path(where)
