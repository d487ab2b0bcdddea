# SPDX-License-Identifier: BSD-3-Clause
"""Real power cuts, with what disks lose then: file systems over the kernel's nbd, and below the SSD and the backing
disks the recorder of tests/outside.

One machine works on disks whose files lie on the recorder. Then, for many moments of the recording, images are made of
what a power cut at that moment may leave, of the SSD and of each disk independently, and a second machine
starts on them: recovery, journal replay, fsck, every file that had been made durable before that moment.
"""

import os
import sys

import harness
import vm
from harness import HERE, M, Skip, case, pick

OUTSIDE = os.path.join(HERE, "../outside")
FILE_SYSTEMS = ("ext4", "xfs")
SIZES = {"ssd": 24 * M, "disk": 320 * M, "disk-2": 320 * M}


def record(env, recorder):
    """Work on recorded disks. Returns the entries, and (when, record) of the guest."""
    disks = [vm.Disk(name, recorder.path(name), recorded=True) for name in SIZES]
    machine = env.boot("power.sh", "format", env.path("nothing"), "0", "dirty-low=0",
                       "writeback-batch=1M", disks=disks)
    for fs in FILE_SYSTEMS:
        machine.wait_record(f"{fs} ready.*", 900)
    env.work_for(machine, 30)
    machine.kill()
    env.check_kernel(machine)
    machine.release()
    return recorder.stop(), list(zip(machine.record_times_ns, machine.records))


def write_records(folder, records, cut):
    """What may have begun, and what was durable before the cut."""
    os.mkdir(folder)
    for fs in FILE_SYSTEMS:
        with open(os.path.join(folder, fs), "w", encoding="ascii") as f:
            for when, line in records:
                tag, kind = line.split()[:2]
                if tag == fs and (kind.isupper() or when <= cut):
                    f.write(line + "\n")


@case(long=True)
def crash_points(env):
    """ext4 and xfs after power cuts at many moments, with unflushed writes lost and torn."""
    sys.path.append(OUTSIDE)
    import recording

    program = os.path.join(harness.BUILD, "tests/outside/logcache-recorder")
    if not os.path.exists(program):
        raise Skip("the recorder was not built: it needs libfuse3")
    files = {}
    for name, size in SIZES.items():
        files[name] = env.path(f"{name}.recorded")
        with open(files[name], "wb") as f:
            f.truncate(size)
    recorder = recording.Recorder(program, env.folder, files, 20000, env.rng.getrandbits(63))
    try:
        entries, records = record(env, recorder)
    finally:
        recorder.stop()
    ready = max(when for when, line in records if "ready" in line)
    last = records[-1][0]
    assert sum(when > ready for when, _ in records) > 100, "nearly nothing was done"

    models = [recording.Disk(bytes(size), entries, number)
              for number, size in enumerate(SIZES.values())]
    disks = [env.disk(name, size) for name, size in SIZES.items()]
    machine = env.boot("replay.sh", disks=disks)
    nr = pick(4, 60)
    for number, cut in enumerate(sorted(env.rng.randint(ready, last) for _ in range(nr))):
        machine.wait_record("next", 600)
        for disk, model in zip(disks, models):
            with open(disk.path, "r+b") as f:
                f.write(model.power_cut(cut, env.rng))
        folder = env.path(f"records{number}")
        write_records(folder, records, cut)
        machine.tell(folder)
    machine.wait_record("next", 600)
    machine.tell("end")
    env.finish(machine)
