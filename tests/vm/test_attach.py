# SPDX-License-Identifier: BSD-3-Clause
"""logcache as users meet it: block devices below, /dev/nbdX above, a file system on it."""

import os

from harness import HERE, M, case


def allocated(disk):
    return os.stat(disk.path).st_blocks * 512


@case()
def filesystems(env):
    """ext4 and xfs: mkfs with discard, fio with verification, files, fstrim, fsck; then the disks alone."""
    ssd = env.disk("ssd", 96 * M)
    disks = [env.disk("disk", 320 * M), env.disk("disk-2", 320 * M)]
    env.run("attach.sh", os.path.join(HERE, "../../src"), disks=[ssd, *disks])
    for disk in disks:
        # 80 MiB were written, removed and trimmed: the disk below was told. (The log of xfs takes 64.)
        assert allocated(disk) < 100 * M, f"{disk.name} takes {allocated(disk) // M} MiB"


@case(long=True)
def small_blocks(env):
    """ext4 with blocks of 1024 bytes and xfs with sectors of 512: nbd-client -b 512."""
    disks = [env.disk("ssd", 96 * M), env.disk("disk", 320 * M), env.disk("disk-2", 320 * M)]
    env.run("small_blocks.sh", disks=disks)
