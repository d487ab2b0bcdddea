# SPDX-License-Identifier: BSD-3-Clause
"""Making requests: nbd-load against a target, fio where it is the yardstick, and the simulated disk."""

import json
import subprocess


def nbd_load(machine, target, op, **options):
    """Run nbd-load. Returns what it says about the requests: per_second, mean_us, p999_us, max_us, ... of `op`;
    flush: the same about flushes; cpu_us: of the server for each request; seconds.

    Options are those of nbd-load: depth=16, flush_every=1, distinct=True.
    """
    command = [machine.program("load/nbd-load"), f"--op={op}"]
    for key, value in options.items():
        key = key.replace("_", "-")
        if value is True:
            command.append(f"--{key}")
        elif value is not None:
            command.append(f"--{key}={value}")
    before = target.cpu_seconds()
    done = subprocess.run([*command, target.where], stdout=subprocess.PIPE, check=True)
    after = target.cpu_seconds()
    answer = json.loads(done.stdout)
    result = answer[op]
    result["flush"] = answer["flush"]
    result["seconds"] = answer["seconds"]
    result["client_cpu_us"] = answer["client_cpu_s"] * 1e6 / result["count"]
    if before is not None:
        result["cpu_us"] = (after - before) * 1e6 / result["count"]
    return result


def fio(machine, *options, seconds):
    """Run fio with one job; returns requests per second, of reads and writes."""
    done = subprocess.run(["fio", "--output-format=json", "--name=bench", "--bs=4k", "--time_based",
                           f"--runtime={seconds}", "--norandommap", "--randrepeat=0", "--thread",
                           "--allow_file_create=0", *options],
                          stdout=subprocess.PIPE, check=True, cwd=machine.memory_folder)
    # libnbd's warnings may come first
    job = json.loads(done.stdout[done.stdout.index(b"{"):])["jobs"][0]
    cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    return {"per_second": job["read"]["iops"] + job["write"]["iops"],
            "client_cpu_us": cpu_s * 1e6 / (job["read"]["total_ios"] + job["write"]["total_ios"])}


def fio_nbd(machine, target, *options, seconds):
    return fio(machine, "--ioengine=nbd", f"--uri={target.where}", *options, seconds=seconds)


def fio_direct(machine, path, *options, seconds):
    return fio(machine, "--ioengine=io_uring", "--direct=1", f"--filename={path}", *options,
               seconds=seconds)


def simulated(machine, *arguments):
    """What the model of the disk needs for it, as blocks per second of the disk."""
    done = subprocess.run([machine.program("spindle/spindle-sim"), *map(str, arguments)],
                          stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[0])
