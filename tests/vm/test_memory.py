# SPDX-License-Identifier: BSD-3-Clause
"""The server and its /dev/nbd0 on one host that is short of memory."""

from harness import M, case


@case(long=True)
def one_host(env):
    """512 MiB of memory, and minutes of writing three times as much through the page cache: it goes on."""
    disks = [env.disk("ssd", 512 * M), env.disk("disk", 2048 * M)]
    env.run("memory.sh", "1500", disks=disks, memory_mib=512, timeout_s=3600)
