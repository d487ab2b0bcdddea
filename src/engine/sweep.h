/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.h - one sorted sweep over the dirty blocks of a batch of segments. writeback.h tells how; only
 * the write-back thread calls this.
 */
#ifndef LC_SWEEP_H
#define LC_SWEEP_H

#include "writeback.h"

/* Open and close the thread's queues. -errno. */
int lc_sweep_open(struct lc_writeback *w);
void lc_sweep_close(struct lc_writeback *w);

/*
 * Write back all that is dirty in the segments tail + 1 .. UPTO, which are durable. When it returns 0 it is on
 * the backing stores and flushed, and clean. Otherwise what was not covered by a good flush is as dirty as
 * before.
 */
int lc_sweep(struct lc_writeback *w, u64 upto);

#endif
