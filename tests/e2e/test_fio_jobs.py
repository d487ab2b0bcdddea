# SPDX-License-Identifier: BSD-3-Clause
"""The job files that users run, unchanged, in both ways that fio-jobs/README.md tells: over NBD, and on a
block device (a loop device here)."""

import glob
import json
import os
import shutil
import subprocess

from devices import loop_device
from harness import M, Skip, case, pick

JOBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../fio-jobs")
SIZE = 16 * M


def run(env, *options):
    return subprocess.run(["fio", *options], check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          cwd=env.folder)


def need(engine):
    if not shutil.which("fio"):
        raise Skip("fio is not installed")
    if subprocess.run(["fio", f"--enghelp={engine}"], check=False, capture_output=True).returncode:
        raise Skip(f"fio was built without its engine {engine}")


def jobs():
    found = sorted(glob.glob(os.path.join(JOBS, "*.fio")))
    assert len(found) >= 6, f"where are the jobs? {found}"
    return found


def results(env, target, job):
    """What fio reports of each section of a job file."""
    # It ends when it has written everything once; or half of it would be missing when it verifies.
    limit = () if job.endswith("verify.fio") else ("--runtime=" + pick("300ms", "1s"),)
    done = run(env, "--output-format=json", *target, *limit, job)
    assert done.returncode == 0, f"{job}: {done.stdout}"
    # Warnings of libnbd may come first.
    return {section["jobname"]: section for section in json.loads(done.stdout[done.stdout.index("{"):])["jobs"]}


def check(job, sections):
    name = os.path.basename(job).removesuffix(".fio")
    wrote = sum(section["write"]["total_ios"] for section in sections.values())
    read = sum(section["read"]["total_ios"] for section in sections.values())
    synced = sum(section["sync"]["total_ios"] for section in sections.values())

    assert all(section["error"] == 0 for section in sections.values()), sections
    assert bool(wrote) == (name != "randread"), f"{name}: {wrote} writes"
    assert bool(read) == (name in ("randread", "mixed", "verify")), f"{name}: {read} reads"
    if name == "verify":
        blocks = SIZE // 4096
        assert sections["write"]["write"]["total_ios"] == blocks, sections
        assert sections["verify"]["read"]["total_ios"] == blocks, sections
    if name == "mixed":
        assert 0.6 < read / (read + wrote) < 0.8, f"{read} reads, {wrote} writes"
    if name == "fsync":
        # The last write of each of the four may have had no time for its flush.
        assert wrote - 4 <= synced <= wrote, f"{wrote} writes, {synced} flushes"


@case()
def over_nbd(env):
    need("nbd")
    server = env.serve(cache=env.path("cache"), cache_size=24 * M, stats_interval=1,
                       backing=env.make_file("backing", 2 * SIZE))
    for job in jobs():
        check(job, results(env, ("--ioengine=nbd", f"--uri={server.uri}", f"--size={SIZE}"), job))
    server.stop()
    assert server.wait_log(r"statistics: .*flushes ([1-9]\d*)"), "no flush came"


@case()
def on_a_block_device(env):
    need("libaio")
    device = loop_device(env, env.make_file("disk", 2 * SIZE))
    for job in jobs():
        check(job, results(env, ("--ioengine=libaio", f"--filename={device}", f"--size={SIZE}"), job))


@case()
def nothing_without_a_target(env):
    """Who forgets the target shall not measure a file that fio makes where it happens to be."""
    need("nbd")
    for job in jobs():
        done = run(env, "--runtime=1", f"--size={SIZE}", job)
        assert done.returncode != 0, f"{job}: {done.stdout}"
    assert os.listdir(env.folder) == [], os.listdir(env.folder)
