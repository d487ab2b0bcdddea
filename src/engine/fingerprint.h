/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fingerprint.h - is this the backing store that the cache knows, with what the cache left on it?
 *
 * The fingerprint of a store is its size and the crcs of LC_NR_SAMPLES blocks spread over it, the first and
 * the last among them. Write-back takes the samples that it touched anew after the flush of each turn, and they are durable before
 * the tail moves, so whatever differs and is not explained by an entry above the tail was written by somebody else. bind.c says
 * what explains what.
 *
 * Pure functions and synchronous reads of the backing store; no locks.
 */
#ifndef LC_FINGERPRINT_H
#define LC_FINGERPRINT_H

#include "format.h"

static inline u64 lc_blocks_of(u64 size_bytes)
{
	return (size_bytes + LC_BLOCK - 1) / LC_BLOCK;
}

/* The block of sample I in a store of a size. */
u64 lc_sample_block(u64 size_bytes, unsigned i);

/* Which samples (bit i: sample i) lie in the blocks [block, block + nr). */
u64 lc_samples_in(u64 size_bytes, u64 block, u32 nr);

/*
 * Read the samples in WHICH of a store as it was when it had SIZE_BYTES, into SAMPLES (indexed by sample).
 * SCRATCH is one block, and has the last one then. 0 or -errno.
 */
int lc_samples_read(struct lc_store *s, u64 size_bytes, u64 which, void *scratch,
		    u32 samples[LC_NR_SAMPLES]);

#endif
