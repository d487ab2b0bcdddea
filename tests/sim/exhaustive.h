/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exhaustive.h - every small workload, every moment for a crash, every state it can leave.
 *
 * For each shape of tiny.h and each workload, the schedule being fixed, the power is cut right before each write that
 * is submitted and each flush that succeeds (nothing else changes which states are possible), and at the end. Of the
 * writes that no flush has covered, on the SSD and on the backing store, each is lost, or there, or only its
 * first half, or only its second half, in all combinations. Each state is recovered and judged; some of these
 * recoveries are cut off in turn at each of their moments, and what they leave is recovered again.
 *
 * States that were met before with the same history are not run twice. Where a moment has too many combinations only
 * some are run; how often that happened is printed.
 */
#ifndef LOGCACHE_SIM_EXHAUSTIVE_H
#define LOGCACHE_SIM_EXHAUSTIVE_H

#include "logcache/types.h"

/*
 * All workloads of up to NR_OPS letters. ONE: NULL, or what the report of a failure gave: run that case
 * alone. Returns if nothing failed.
 */
void exhaustive_run(u32 nr_ops, const char *one);
/* For the report of a failure: the case at hand, on stderr. False if none is. */
bool exhaustive_report(const char *program);

#endif
