# SPDX-License-Identifier: BSD-3-Clause
"""docs/operations.md: all its commands, as they stand there."""

import os
import re

from harness import HERE, M, case


def recipes(path):
    """(name, commands) of each block of shell commands; the name is that of the heading and a number."""
    found, heading, block, number = [], "", None, 0
    with open(path, encoding="utf-8") as f:
        for line in f:
            if block is not None:
                if line.startswith("```"):
                    number += 1
                    found.append((f"{heading}_{number}", "".join(block)))
                    block = None
                else:
                    block.append(line)
            elif line.startswith("```sh"):
                block = []
            elif line.startswith("## "):
                heading = re.sub(r"\W+", "_", line[3:].strip().lower())
                number = 0
    return found


@case(long=True)
def recipes_as_written(env):
    """Each recipe works, and the data is there after each."""
    folder = env.path("recipes")
    os.mkdir(folder)
    blocks = recipes(os.path.join(HERE, "../../docs/operations.md"))
    assert len(blocks) > 10
    for number, (name, commands) in enumerate(blocks):
        with open(os.path.join(folder, f"{number:02}-{name}"), "w", encoding="utf-8") as f:
            f.write(commands)
    disks = [env.disk("ssd", 64 * M), env.disk("new-ssd", 80 * M), env.disk("disk", 320 * M)]
    env.run("operations.sh", folder, disks=disks)
