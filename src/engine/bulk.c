/* SPDX-License-Identifier: BSD-3-Clause */
#include "bulk.h"

/* 2^16 buckets are 256 KiB: a fraction of a core's L2 cache. */
#define STRETCH_LOG2_MIN 16u
#define BINS_MAX 1024u
/* As many entries as a stretch has cache lines: more in a bin would save little. */
#define BIN_SIZE_MAX 4096u
#define BIN_SIZE_MIN 16u
/* Buckets on their way into the CPU's cache at a time. */
#define AHEAD 16u

int lc_bulk_init(struct lc_bulk *b, struct lc_ring *ring)
{
	const struct lc_index *ix = &ring->index;
	u32 size;

	*b = (struct lc_bulk){.ring = ring, .stretch_log2 = STRETCH_LOG2_MIN};
	while ((ix->nr_buckets - 1) >> b->stretch_log2 >= BINS_MAX)
		b->stretch_log2++;
	b->nr_bins = (u32)((ix->nr_buckets - 1) >> b->stretch_log2) + 1;
	size = ix->nr_slots / sizeof *b->entries / b->nr_bins;
	b->bin_size = size < BIN_SIZE_MIN ? BIN_SIZE_MIN :
		      size > BIN_SIZE_MAX ? BIN_SIZE_MAX :
					    size;
	b->entries = lc_alloc((size_t)b->nr_bins * b->bin_size * sizeof *b->entries);
	b->fill = lc_alloc(b->nr_bins * sizeof *b->fill);
	if (b->entries && b->fill)
		return 0;
	lc_bulk_destroy(b);
	return -ENOMEM;
}

void lc_bulk_destroy(struct lc_bulk *b)
{
	lc_free(b->entries, (size_t)b->nr_bins * b->bin_size * sizeof *b->entries);
	lc_free(b->fill, b->nr_bins * sizeof *b->fill);
	*b = (struct lc_bulk){0};
}

/* Everything that is in BIN gets into the index. */
static void empty(struct lc_bulk *b, u32 bin)
{
	const struct lc_index *ix = &b->ring->index;
	const struct lc_bulk_entry *e = &b->entries[(size_t)bin * b->bin_size],
				   *end = e + b->fill[bin];
	u64 first = (u64)bin << b->stretch_log2;
	u32 old;

	for (; e < end; e++) {
		u32 slot = e->content & ix->slot_mask, tag = e->content & ~ix->slot_mask;

		if (end - e > (ptrdiff_t)AHEAD)
			lc_index_fetch(ix, first + e[AHEAD].home);
		lc_block_settle(b->ring, lc_index_seek(ix, first + e->home, tag, slot), slot, &old);
	}
	b->fill[bin] = 0;
}

void lc_bulk_add(struct lc_bulk *b, u32 slot)
{
	const struct lc_index *ix = &b->ring->index;
	u64 hash = lc_index_hash(lc_index_place(ix, slot)), home = lc_index_home(ix, hash);
	u32 bin = (u32)(home >> b->stretch_log2);

	lc_block_claim(b->ring, slot);
	b->entries[(size_t)bin * b->bin_size + b->fill[bin]++] = (struct lc_bulk_entry){
		.home = (u32)(home - ((u64)bin << b->stretch_log2)),
		.content = lc_index_tag(ix, hash) | slot,
	};
	if (b->fill[bin] == b->bin_size)
		empty(b, bin);
}

void lc_bulk_finish(struct lc_bulk *b)
{
	for (u32 bin = 0; bin < b->nr_bins; bin++)
		empty(b, bin);
}
