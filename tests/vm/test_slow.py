# SPDX-License-Identifier: BSD-3-Clause
"""Disks and SSDs that stall, fail and come back below a file system."""

from harness import M, case


@case(long=True)
def stalls_and_errors(env):
    """The disk and the SSD stall for a minute, fail for a while, fail for good: as the manual page says."""
    disks = [env.disk("ssd", 64 * M), env.disk("disk", 320 * M)]
    env.run("slow.sh", "60", disks=disks, timeout_s=3000)
