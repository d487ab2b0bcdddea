/* SPDX-License-Identifier: BSD-3-Clause */
/* damage.c - what decays on the SSD between two lives. */
#include "format.h"
#include "history.h"
#include "oracle_bytes.h"

/*
 * One of the two copies of a metadata page decays. Whatever depends on an update has waited for both copies (I3), so
 * the other one, even if a crash left it one generation behind, is as good: nothing may be lost.
 * If a crash has damaged one already there is none to spare. Mostly it is the newer one, and the superblock.
 */
void damage_metadata(struct history *h)
{
	u32 page = sim_one_in(4), copy = sim_below(2), i;
	struct lc_page_info info[2];

	for (i = 0; i < 2; i++)
		if (lc_page_verify(h->ssd->sim.now + (2 * page + i) * LC_BLOCK, page, &info[i]) !=
		    LC_PAGE_OK)
			return;
	if (info[0].generation != info[1].generation)
		copy = info[1].generation > info[0].generation;
	store_sim_rot(&h->ssd->sim, (2 * page + copy) * LC_BLOCK + sim_below(256),
		      sim_between(1, 256));
	h->covered[COVER_METADATA] = true;
	h->metadata_damaged = true; /* once: the other copy may stay the only one for long */
}

/*
 * Between lives something in the log decays. The cache may then refuse to open, or answer with EIO,
 * but never with stale data (I10, I11). Only after a crash it may take the damage for a torn tail,
 * and lose what no one had recorded as durable.
 */
void damage(struct history *h)
{
	u64 zone = lc_cache_min_bytes(h->ssd->segment_bytes) -
		   LC_SEGMENTS_MIN * h->ssd->segment_bytes;
	u64 place = zone + sim_rand() % (h->ssd->sim.store.size_bytes - zone - LC_BLOCK);

	if (sim_one_in(2))
		store_sim_rot(&h->ssd->sim, place, sim_log_between(1, LC_BLOCK));
	else
		store_sim_bad_range(&h->ssd->sim, place, sim_log_between(1, LC_BLOCK));
	h->damaged = h->covered[COVER_DAMAGE] = true;
	if (h->before_valid)
		return;
	oracle_allow_loss();
	bytes_allow_loss();
}
