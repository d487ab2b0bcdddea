# SPDX-License-Identifier: BSD-3-Clause
"""What all end-to-end cases share: starting, killing and stopping a server, and its files.

Files live in the folder that the runner made for the case. Servers are children of this process
and end with it (--exit-with-parent), also when it is killed.
"""

import collections
import hashlib
import os
import re
import signal
import subprocess
import time
import urllib.parse

import nbd

HERE = os.path.dirname(os.path.abspath(__file__))

# The runner sets these.
MODULE = None  # path of logcache.so
QUICK = False
ENVIRONMENT = None  # of nbdkit; None: our own

K = 1 << 10
M = 1 << 20

Case = collections.namedtuple("Case", "name function quick")
CASES = []


def case(quick=True):
    """Register a case as test_FILE's FILE.FUNCTION. quick: it is part of --quick."""

    def register(function):
        name = f"{function.__module__.removeprefix('test_')}.{function.__name__}"
        CASES.append(Case(name, function, quick))
        return function

    return register


class Skip(Exception):
    """The case cannot run here; the text says why."""


def pick(quick, full):
    """A size or duration: the first with --quick."""
    return quick if QUICK else full


class Refused(Exception):
    """The server did not start. The text is what it said."""


class Server:
    """One nbdkit process."""

    START_TIMEOUT_S = 60

    def __init__(self, folder, index, parameters, options=(), launcher=()):
        self.socket = os.path.join(folder, f"nbd{index}.sock")
        self.log_path = os.path.join(folder, f"nbd{index}.log")
        self._pidfile = os.path.join(folder, f"nbd{index}.pid")
        self._log = open(self.log_path, "w+b")
        self.process = subprocess.Popen(
            [*launcher, "nbdkit", "-f", "--exit-with-parent", "-U", self.socket, "-P", self._pidfile,
             *options, MODULE, *parameters],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=ENVIRONMENT)

    def wait_ready(self):
        end = time.monotonic() + self.START_TIMEOUT_S
        while not (os.path.exists(self._pidfile) and os.path.getsize(self._pidfile)):
            if self.process.poll() is not None:
                raise Refused(self.log())
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"the server was not ready after {self.START_TIMEOUT_S} s")
            time.sleep(0.005)
        return self

    def connect(self, export=""):
        h = nbd.NBD()
        # The server has to do right also by clients that ignore its size hints.
        h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_ALIGN)
        h.set_export_name(export)
        h.add_meta_context("base:allocation")
        h.connect_unix(self.socket)
        return h

    def uri_of(self, export):
        return f"nbd+unix:///{urllib.parse.quote(export, safe='')}?socket={self.socket}"

    @property
    def uri(self):
        return self.uri_of("")

    def kill(self):
        """kill -9: what was in its memory is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s=120):
        """A clean shutdown. Connections must have been closed before."""
        self.terminate()
        self.wait_stopped(timeout_s)

    def wait_stopped(self, timeout_s=120):
        if ENVIRONMENT:
            # With a preloaded sanitizer, libraries of nbdkit hang in their destructors.
            self.wait_log("cache .* closed|backing stores closed|could not (close cache|flush)", timeout_s)
            self.kill()
            return
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert code == 0, f"the server exited with {code}"

    def log(self):
        self._log.flush()
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, timeout_s=30):
        """The match of PATTERN in the log, as soon as there is one."""
        end = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.log())
            if match:
                return match
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, f"no line in the log matches {pattern}"
            time.sleep(0.02)

    def release(self):
        if self.process.poll() is None:
            self.kill()
        self._log.close()


def arguments(volumes=(), **parameters):
    """The command line. Underscores in keys stand for dashes; volumes are pairs (name, backing), "" is
    the default export and comes first."""
    args = [f"{key.replace('_', '-')}={value}" for key, value in parameters.items()]
    for name, backing in volumes:
        args += [f"volume={name}"] if name else []
        args += [f"backing={backing}"]
    return args


class Env:
    """A case's folder, random numbers, and servers."""

    def __init__(self, folder, rng):
        self.folder = folder
        self.rng = rng
        self.servers = []
        self._cleanups = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def make_file(self, name, size_bytes, content=None):
        """A file of zeros, or CONTENT and zeros behind it."""
        with open(self.path(name), "wb") as f:
            if content:
                f.write(content)
            f.truncate(size_bytes)
        return self.path(name)

    def at_end(self, function):
        """To be called when the servers have ended; the last one first."""
        self._cleanups.append(function)

    def launch(self, options=(), launcher=(), **parameters):
        """A server that may not be ready yet. PARAMETERS: see arguments(); launcher: put before the
        command."""
        server = Server(self.folder, len(self.servers), arguments(**parameters), options, launcher)
        self.servers.append(server)
        return server

    def serve(self, options=(), launcher=(), **parameters):
        """A server that is ready; raises Refused otherwise."""
        return self.launch(options, launcher, **parameters).wait_ready()

    def refused(self, *args, launcher=()):
        """Run a server that must refuse to start, and return what it said."""
        done = subprocess.run([*launcher, "nbdkit", "-f", "-U", "-", MODULE, *args, "--run", "true"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False, text=True,
                              errors="replace", env=ENVIRONMENT)
        assert done.returncode != 0, f"it started: {done.stdout}"
        assert done.returncode == 1, f"it did not refuse, it crashed ({done.returncode}): " \
                                     f"{done.stdout}"
        return done.stdout

    def stop_all(self):
        for server in self.servers:
            server.release()
        while self._cleanups:
            self._cleanups.pop()()

    def show_logs(self, out):
        for server in self.servers[-3:]:
            with open(server.log_path, encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()
            print(f"--- {os.path.basename(server.log_path)}, last lines", file=out)
            print("\n".join(lines[-20:]), file=out)


def file_hash(path):
    """Content and size of a file; None if there is none."""
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def finish(aio_handle, pending):
    """Wait for the commands in PENDING (cookies)."""
    pending = set(pending)
    while pending:
        for cookie in list(pending):
            if aio_handle.aio_command_completed(cookie):
                pending.discard(cookie)
        if pending:
            aio_handle.poll(1000)
