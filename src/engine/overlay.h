/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay.h - a store as it would be with some of its blocks changed.
 *
 * Reads see the changed blocks, everything else comes from the store below; nothing is written there until
 * lc_overlay_apply. So a repair can be planned, and a recovery can be tried on its result, before the first
 * write to the device. What is changed is held in RAM: some blocks, not a device full of them.
 *
 * One thread at a time; only its queues, which read, have threads of their own, and while one is open nothing may be
 * changed.
 */
#ifndef LC_OVERLAY_H
#define LC_OVERLAY_H

#include "logcache/store.h"

struct lc_overlay_block;

struct lc_overlay {
	struct lc_store store; /* what to read */
	struct lc_store *below;
	struct lc_overlay_block *blocks; /* [nr], sorted by block number */
	u32 nr, max;
};

void lc_overlay_init(struct lc_overlay *o, struct lc_store *below);
void lc_overlay_destroy(struct lc_overlay *o);

/* Writing to the store does the same. -ENOMEM. */
int lc_overlay_put(struct lc_overlay *o, u64 block, const void *data);

/* Write the changed blocks in [first, end) to the store below, and flush it if there are any. */
int lc_overlay_apply(struct lc_overlay *o, u64 first, u64 end);

#endif
