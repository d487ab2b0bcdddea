#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Run a command without some of what the kernel offers, as in a container: filtered.py WHAT... -- COMMAND

    io_uring    io_uring_setup fails with EPERM
    libaio      io_setup fails with EPERM
    o_direct    opening a file with O_DIRECT fails with EINVAL, as on a file system that has none
    fallocate   fails with EOPNOTSUPP, as on a file system that can neither punch nor zero
    memlock     8 MiB of locked memory and no capability to exceed them: what a user other than root has

Seccomp filters are programs for the kernel's packet filter: each rule loads words of the system call and
falls through to the next rule unless all match.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

LOAD, JUMP_EQUAL, JUMP_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
AT_NUMBER, AT_ARGUMENTS = 0, 16
EPERM, EINVAL, EOPNOTSUPP = 1, 22, 95
F_SETFL = 4
PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 24, 22, 38
SECCOMP_MODE_FILTER = 2
CAP_IPC_LOCK = 14

NUMBERS = {
    "x86_64": {"open": 2, "fcntl": 72, "io_setup": 206, "openat": 257, "fallocate": 285,
               "io_uring_setup": 425},
    "aarch64": {"fcntl": 25, "io_setup": 0, "openat": 56, "fallocate": 47,
                "io_uring_setup": 425},
}.get(platform.machine())


def rule(call, error, bits_of=None, value_of=None):
    """The instructions: CALL fails with ERROR if argument I has one of BITS and argument J is VALUE."""
    if call not in NUMBERS:
        return []
    tests = [(AT_NUMBER, JUMP_EQUAL, NUMBERS[call])]
    for what, jump in ((value_of, JUMP_EQUAL), (bits_of, JUMP_BITS)):
        if what:
            tests.append((AT_ARGUMENTS + 8 * what[0], jump, what[1]))
    out = []
    for i, (at, jump, value) in enumerate(tests):
        left = 2 * (len(tests) - i - 1) + 1  # to the end of this rule
        out += [(LOAD, 0, 0, at), (jump, 0, left, value)]
    return out + [(RETURN, 0, 0, FAIL | error)]


RULES = {
    "io_uring": rule("io_uring_setup", EPERM) if NUMBERS else [],
    "libaio": rule("io_setup", EPERM) if NUMBERS else [],
    "fallocate": rule("fallocate", EOPNOTSUPP) if NUMBERS else [],
    "o_direct": (rule("open", EINVAL, (1, os.O_DIRECT))
                 + rule("openat", EINVAL, (2, os.O_DIRECT))
                 + rule("fcntl", EINVAL, (2, os.O_DIRECT), (1, F_SETFL))) if NUMBERS else [],
}

LIBC = ctypes.CDLL(None, use_errno=True)


def prctl(*args):
    if LIBC.prctl(*[ctypes.c_ulong(a) for a in args], *[ctypes.c_ulong(0)] * (5 - len(args))) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {args[0]}")


def install(program):
    code = b"".join(struct.pack("<HBBI", *i) for i in program + [(RETURN, 0, 0, ALLOW)])
    buf = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buf))
    header = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


def main():
    split = sys.argv.index("--")
    what, command = sys.argv[1:split], sys.argv[split + 1:]
    if "memlock" in what:
        what.remove("memlock")
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
        if os.geteuid() == 0:
            prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK)
    program = [i for name in what for i in RULES[name]]
    if program:
        install(program)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
