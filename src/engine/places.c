/* SPDX-License-Identifier: BSD-3-Clause */
#include "places.h"

/* Places have 48 bits (format.h). */
#define TOP_BIT 47
/* So few are sorted by insertion. */
#define FEW 16u

int lc_places_init(struct lc_places *p, u32 max)
{
	*p = (struct lc_places){.list = lc_alloc(max * sizeof *p->list), .max = max};
	return p->list ? 0 : -ENOMEM;
}

void lc_places_destroy(struct lc_places *p)
{
	lc_free(p->list, p->max * sizeof *p->list);
	*p = (struct lc_places){0};
}

static void insertion_sort(u64 *list, u32 nr)
{
	for (u32 i = 1; i < nr; i++) {
		u64 place = list[i];
		u32 at = i;

		for (; at && list[at - 1] > place; at--)
			list[at] = list[at - 1];
		list[at] = place;
	}
}

/*
 * Radix exchange, from the top bit down: in place, without recursion deeper than the bits of a place, and never
 * slower than so many passes. (The C library's qsort may allocate as much as it sorts.)
 */
static void sort(u64 *list, u32 nr, int bit)
{
	for (; nr > FEW && bit >= 0; bit--) {
		u32 zeros = 0, end = nr;

		while (zeros < end)
			if (list[zeros] >> bit & 1) {
				u64 place = list[zeros];

				list[zeros] = list[--end];
				list[end] = place;
			} else {
				zeros++;
			}
		sort(list, zeros, bit - 1);
		list += zeros;
		nr -= zeros;
	}
	if (nr <= FEW)
		insertion_sort(list, nr);
}

void lc_places_collect(struct lc_places *p, struct lc_core *c, u8 volume, u64 after, u64 upto,
		       u32 wanted)
{
	struct lc_ring *ring = &c->ring;
	u64 limit = UINT64_MAX;
	u32 unseen; /* dirty blocks of the volume; none is added up to UPTO, where all is durable */
	/* What is kept when the list is full leaves room for what may lie below it. */
	u32 keep = wanted < p->max / 2 ? wanted : p->max / 2;

	p->nr = 0;
	lc_mutex_lock(&c->lock);
	unseen = ring->dirty_of[volume];
	lc_mutex_unlock(&c->lock);
	/* Only our thread moves the tail. */
	for (u64 id = ring->tail_id + 1; id <= upto && unseen; id++) {
		const struct lc_segment *seg = lc_ring_segment(ring, id);
		u32 first = lc_ring_first_slot(ring, id), at = 0;

		while (at < ring->segment_blocks) {
			lc_mutex_lock(&c->lock);
			if (!seg->dirty)
				at = ring->segment_blocks;
			for (; at < ring->segment_blocks && p->nr < p->max; at++) {
				u64 key = lc_index_slot(&ring->index, first + at)->key;
				u64 place = lc_key_place(key);

				if (!(key & LC_SLOT_DIRTY) || lc_key_volume(key) != volume)
					continue;
				unseen--;
				if (place > after && place < limit)
					p->list[p->nr++] = place;
			}
			lc_mutex_unlock(&c->lock);
			if (p->nr < p->max)
				continue;
			sort(p->list, p->nr, TOP_BIT);
			p->nr = keep;
			limit = p->list[keep - 1];
		}
	}
	sort(p->list, p->nr, TOP_BIT);
	if (p->nr > wanted)
		p->nr = wanted;
}
