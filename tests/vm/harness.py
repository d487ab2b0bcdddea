# SPDX-License-Identifier: BSD-3-Clause
"""What the cases share: their list, their folder, disks and machines."""

import collections
import os

import vm

HERE = os.path.dirname(os.path.abspath(__file__))

# The runner sets these.
BUILD = None
LONG = False
KERNEL = None

M = 1 << 20

Case = collections.namedtuple("Case", "name function long")
CASES = []


def case(long=False):
    """Register a case as test_FILE's FILE.FUNCTION. long: it is part of --long alone."""

    def register(function):
        name = f"{function.__module__.removeprefix('test_')}.{function.__name__}"
        CASES.append(Case(name, function, long))
        return function

    return register


class Skip(Exception):
    """The case cannot run here; the text says why."""


def pick(short, long):
    """A number: the second with --long."""
    return long if LONG else short


class Env:
    """A case's folder, random numbers, and machines."""

    def __init__(self, folder, rng):
        self.folder = folder
        self.rng = rng
        self.machines = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def disk(self, name, size_bytes, options=""):
        """A blank disk, NAME in the guest; it outlives machines."""
        with open(self.path(f"{name}.img"), "xb") as f:
            f.truncate(size_bytes)
        return vm.Disk(name, self.path(f"{name}.img"), options)

    def boot(self, script, *arguments, disks, **more):
        """Boot a machine that runs guest/SCRIPT. (LC_MUTANT=... with a --build of scripts/mutants: to see it fail.)"""
        folder = self.path(f"machine{len(self.machines)}")
        os.mkdir(folder)
        environment = {"LOGCACHE": os.path.join(BUILD, "logcache.so"),
                       "LOGCACHECTL": os.path.join(BUILD, "logcachectl"),
                       "WITNESS": os.path.join(BUILD, "tests/vm/logcache-witness"),
                       **{k: v for k, v in os.environ.items() if k == "LC_MUTANT"}}
        machine = vm.Machine(folder, ["bash", os.path.join(HERE, "guest", script), *arguments], disks,
                             environment=environment, kernel=KERNEL, **more)
        self.machines.append(machine)
        return machine

    def run(self, script, *arguments, disks, timeout_s=900, **more):
        """Boot, and wait for a good end."""
        machine = self.boot(script, *arguments, disks=disks, **more)
        self.finish(machine, timeout_s)
        return machine

    def finish(self, machine, timeout_s=900):
        status = machine.wait(timeout_s)
        failed = [r for r in machine.records if r.startswith("failed")]
        assert status == 0, f"the guest's script ended with {status} {' '.join(failed)}"
        assert not failed, f"in the background: {failed}"
        self.check_kernel(machine)

    @staticmethod
    def check_kernel(machine):
        trouble = machine.kernel_trouble()
        assert not trouble, f"the kernel says: {trouble}"

    @staticmethod
    def work_for(machine, seconds):
        """Let the guest go on for so long; it may not end."""
        try:
            failed = machine.wait_record("failed .*", seconds)
        except TimeoutError:
            return
        raise AssertionError(f"the guest's script {failed.group(0)}")

    def release(self):
        for machine in self.machines:
            machine.release()

    def show_console(self, out):
        for machine in self.machines[-1:]:
            print("--- console, last lines", file=out)
            print("\n".join(machine.console().replace("\r", "").splitlines()[-60:]), file=out)
