# SPDX-License-Identifier: BSD-3-Clause
"""Backing disks that grow, below two volumes as /dev/nbd0 and /dev/nbd1."""

from harness import M, case


@case(long=True)
def two_volumes(env):
    """Two disks grow between two starts, with dirty data on the SSD; then ext4 and xfs do."""
    disks = [env.disk("ssd", 64 * M), env.disk("disk", 320 * M), env.disk("disk-2", 320 * M)]
    machine = env.boot("grow.sh", disks=disks)
    machine.wait_record("grow", 600)
    for disk in disks[1:]:
        machine.monitor("block_resize", **{"node-name": disk.name, "size": 480 * M})
    machine.tell("grown")
    env.finish(machine)
