# SPDX-License-Identifier: BSD-3-Clause
"""fio's own verification (crc32c in every block) across a kill and a restart, with the job file that
users run."""

import os
import shutil
import subprocess

from harness import M, Skip, case, pick

JOB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../fio-jobs/verify.fio")


def fio(server, size, *options):
    done = subprocess.run(
        ["fio", "--ioengine=nbd", f"--uri={server.uri}", f"--size={size}", *options,
         "--output-format=terse", JOB],
        check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=300, cwd=os.path.dirname(server.socket))
    assert done.returncode == 0, f"fio: {done.stdout}"


@case()
def verify_across_a_kill(env):
    """Every block is written once in random order and flushed at the end; then the server is killed;
    then every block must verify."""
    if not shutil.which("fio"):
        raise Skip("fio is not installed")
    size = pick(24, 256) * M
    files = {"cache": env.path("cache"), "backing": env.make_file("backing", size)}
    server = env.serve(cache_size=size // 4, **files)
    fio(server, size, "--section=write")
    server.kill()
    server = env.serve(**files)
    fio(server, size, "--section=verify")
    server.stop()
