# SPDX-License-Identifier: BSD-3-Clause
"""The machine dies in the middle of work, again and again: what file systems made durable is there afterwards.

Killing qemu is a crash of the guest at any instruction. It does not lose what the disks had in their caches (vm.py
says why): test_replay.py has those crashes.
"""

import os

from harness import M, case, pick

FILE_SYSTEMS = ("ext4", "xfs")
# Lives whose files stay, and are checked again after each later cut.
LIVES_KEPT = 3


def write_records(folder, life, records):
    """What a killed machine said, one file for each file system."""
    for fs in FILE_SYSTEMS:
        with open(os.path.join(folder, f"{fs}.{life}"), "w", encoding="ascii") as f:
            f.writelines(r + "\n" for r in records if r.startswith(fs + " "))
        old = os.path.join(folder, f"{fs}.{life - LIVES_KEPT}")
        if os.path.exists(old):
            os.unlink(old)


def random_parameters(rng):
    return [f"dirty-low={rng.choice((0, 0, 10, 50))}",
            f"flush-interval={rng.choice((0, 20, 1000))}",
            f"writeback-batch={rng.choice(('auto', '1M'))}"]


def cpus_of(life):
    """One and two in turn: with one, emulated, all goes faster; with two, threads meet."""
    return 1 + life % 2


@case()
def cuts(env):
    """Power cuts under load on ext4 and xfs at once, recovery, journal replay, fsck, every durable file."""
    # Small: the log comes round
    disks = [env.disk("ssd", 40 * M), env.disk("disk", 320 * M), env.disk("disk-2", 320 * M)]
    records = env.path("records")
    os.mkdir(records)
    rounds = pick(5, 100)
    nr_records = 0
    for life in range(rounds):
        machine = env.boot("power.sh", "go on" if life else "format", records, str(life),
                           *random_parameters(env.rng), disks=disks, cpus=cpus_of(life))
        for fs in FILE_SYSTEMS:
            machine.wait_record(f"{fs} ready.*", 900)
        # Records go on coming meanwhile
        env.work_for(machine, env.rng.uniform(1, 4))
        machine.kill()
        env.check_kernel(machine)
        write_records(records, life, machine.records)
        nr_records += len(machine.records)
        machine.release()
    assert nr_records > 20 * rounds, f"{nr_records} records show that nearly nothing was done"
    env.run("power.sh", "end", records, "end", "on-exit=drain", disks=disks, cpus=cpus_of(rounds))
