# SPDX-License-Identifier: BSD-3-Clause
"""The server dies, or is replaced, while a file system on /dev/nbdX works."""

from harness import M, case, pick


@case()
def death_and_upgrade(env):
    """Without a gateway an error, and nothing durable lost; with one nobody notices: kill -9, SIGTERM, under fio."""
    disks = [env.disk("ssd", 64 * M), env.disk("disk", 320 * M)]
    env.run("server.sh", str(pick(2, 6)), disks=disks)
