# SPDX-License-Identifier: BSD-3-Clause
"""The side-by-side benchmark: scripts/bench is its command line.

    machine     where things are: programs, the SSD, memory for the slow disk; what this machine is
    targets     what is measured: servers and paths
    load        making requests: nbd-load, fio, the simulated disk
    workloads   what is done to the targets, and what is expected of the result
    running     rounds in which the targets take turns
    report      the table, the HTML page, the plots

Next to them the programs in C: load/, spindle/, image/, plain/.
"""
