# SPDX-License-Identifier: BSD-3-Clause
"""docs/operations.md: all its commands, as they stand there. And those of the systemd units."""

import os
import re

import harness
from harness import HERE, M, Skip, case


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


def unit_path(unit):
    """Where it is built."""
    path = os.path.join(harness.BUILD, "systemd", unit)
    if not os.path.exists(path):
        raise Skip(f"{path} is not built")
    return path


def unit_settings(unit, key):
    """For the instance "main"; a key may be there several times."""
    with open(unit_path(unit), encoding="utf-8") as f:
        text = f.read()
    return [value.replace("%i", "main").replace("%t", "/run")
            for value in re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)]


@case(long=True)
def units_as_written(env):
    """ExecStart and ExecStop of logcache@ and logcache-nbd@, in the order of the units."""
    folder = env.path("units")
    os.mkdir(folder)
    helper = os.path.abspath(os.path.join(HERE, "../../systemd/logcache-nbd"))
    for name, unit, keys in (("server", "logcache@.service", ("ExecStart",)),
                             ("devices", "logcache-nbd@.service", ("ExecStart", "ExecStop"))):
        with open(os.path.join(folder, f"{name}.Environment"), "w", encoding="utf-8") as f:
            f.writelines(f"{word}\n" for line in unit_settings(unit, "Environment") for word in line.split())
        for key in keys:
            line, = unit_settings(unit, key)
            with open(os.path.join(folder, f"{name}.{key}"), "w", encoding="utf-8") as f:
                # It is not installed
                f.write(re.sub(r"^\S*/logcache-nbd ", f"{helper} ", line) + "\n")
    disk = "/dev/disk/by-id/virtio-"
    with open(os.path.join(folder, "main.conf"), "w", encoding="utf-8") as f:
        f.write(f'PLUGIN={os.path.join(harness.BUILD, "logcache.so")}\n'
                f'PARAMETERS="cache={disk}ssd volume=a backing={disk}disk volume=b backing={disk}disk-2 on-exit=drain"\n'
                'NBD="/dev/nbd0=a /dev/nbd1=b"\n')
    disks = [env.disk("ssd", 64 * M), env.disk("disk", 320 * M), env.disk("disk-2", 320 * M)]
    env.run("units.sh", folder, disks=disks)


@case(long=True)
def units_under_systemd(env):
    """Both units under systemd, with a mount above: started, stopped, and below a writer the server dies."""
    unit_path("logcache-nbd@.service")
    if not os.path.exists("/lib/systemd/systemd"):
        raise Skip("systemd is not installed")
    env.run("systemd.sh", disks=[env.disk("ssd", 64 * M), env.disk("disk", 320 * M)])
