# SPDX-License-Identifier: BSD-3-Clause
"""Stores other than plain files: loop devices with blocks of any size, small file systems, and stores that
fail on demand. All are taken down when the case ends; what the machine does not allow skips the case."""

import os
import shutil
import subprocess
import time

from harness import Skip

SBIN = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin"}


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root")


def run(*args):
    """The output of a command, or its complaint as a reason to skip."""
    try:
        done = subprocess.run(args, capture_output=True, check=False, text=True, env=SBIN)
    except FileNotFoundError:
        raise Skip(f"{args[0]} is not installed") from None
    if done.returncode != 0:
        raise Skip(f"{args[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def take_down(*args, timeout_s=20):
    """Run a command until it succeeds: io_uring lets go of its files a moment after its process ended."""
    end = time.monotonic() + timeout_s
    while True:
        done = subprocess.run(args, capture_output=True, check=False, text=True, env=SBIN)
        if done.returncode == 0:
            return
        assert time.monotonic() < end, done.stderr
        time.sleep(0.05)


def loop_device(env, path, block_bytes=512):
    """A block device over the file PATH."""
    need_root()
    device = run("losetup", "--find", "--show", "-b", str(block_bytes), path)
    env.at_end(lambda: take_down("losetup", "-d", device))
    return device


def mount(env, name, *args):
    """A folder of the case with a file system in it."""
    need_root()
    folder = env.path(name)
    os.mkdir(folder)
    run("mount", *args, folder)
    env.at_end(lambda: take_down("umount", folder))
    return folder


def tmpfs(env, name, size_bytes):
    return mount(env, name, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs")


def wait_until(condition, what, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} after {timeout_s} s"
        time.sleep(0.01)


def end_process(process):
    process.terminate()
    process.wait(30)


class FailingStore:
    """A file whose content is another file, and that answers EIO to everything as long as somebody
    wishes it: nbdfuse on an nbdkit with an injector of errors. PATH is the store, CONTENT the file."""

    def __init__(self, env, name, size_bytes, flushes_only=False):
        need_root()
        if not os.path.exists("/dev/fuse"):
            raise Skip("no /dev/fuse")
        if not shutil.which("nbdfuse"):
            raise Skip("nbdfuse is not installed")
        folder = env.path(name + ".d")
        os.mkdir(folder)
        self.content = os.path.join(folder, "content")
        self.path = os.path.join(folder, name)
        self._inject = os.path.join(folder, "inject")
        self._stuck = os.path.join(folder, "stuck")
        for path, size in ((self.content, size_bytes), (self.path, 0)):
            with open(path, "wb") as f:
                f.truncate(size)
        socket, ready = os.path.join(folder, "sock"), os.path.join(folder, "ready")
        if flushes_only:
            plugin = self._plugin_whose_flushes_fail()
        else:
            plugin = ("--filter=error", "file", self.content, "error=EIO", "error-rate=100%",
                      f"error-file={self._inject}")
        with open(os.path.join(folder, "log"), "wb") as log:
            server = subprocess.Popen(
                ["nbdkit", "-f", "--exit-with-parent", "-U", socket, *plugin],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            env.at_end(lambda: end_process(server))
            wait_until(lambda: os.path.exists(socket), "no server of the failing store")
            fuse = subprocess.Popen(
                ["nbdfuse", "-P", ready, self.path, f"nbd+unix:///?socket={socket}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        env.at_end(lambda: fuse.wait(30))
        wait_until(lambda: os.path.exists(ready) or fuse.poll() is not None, "no nbdfuse")
        if fuse.poll() is not None:
            raise Skip("nbdfuse does not work here")
        env.at_end(lambda: take_down("umount", self.path))

    def _plugin_whose_flushes_fail(self):
        # A shell for each request: slow, but it can do what no filter does.
        dd = "iflag=count_bytes,skip_bytes status=none"
        out = "oflag=seek_bytes iflag=fullblock conv=notrunc status=none"
        return ("eval", f"get_size=stat -c %s {self.content}",
                f"pread=dd if={self.content} bs=1M skip=$4 count=$3 {dd}",
                f"pwrite=dd of={self.content} bs=1M seek=$4 {out}",
                "can_write=exit 0", "can_flush=exit 0",
                f"flush=while [ -e {self._stuck} ]; do sleep 0.05; done; "
                f"if [ -e {self._inject} ]; then echo EIO injected >&2; exit 1; fi")

    def hang(self):
        """Flushes neither fail nor end before go_on(). Only with flushes_only."""
        with open(self._stuck, "wb"):
            pass

    def go_on(self):
        os.unlink(self._stuck)

    def fail(self):
        with open(self._inject, "wb"):
            pass

    def heal(self):
        os.unlink(self._inject)
