/* SPDX-License-Identifier: BSD-3-Clause */
#include "zeros.h"

#include <assert.h>
#include <string.h>

#include "segment.h"

/* 32 bytes for each: 1/32 byte per cached block, where that is not too little to be of use. */
#define ENTRIES_MIN 64u
#define ENTRIES_MAX 16384u

int lc_zeros_init(struct lc_zeros *z, u32 cache_blocks)
{
	u32 max = cache_blocks / 1024;

	*z = (struct lc_zeros){.max = max < ENTRIES_MIN ? ENTRIES_MIN : max};
	if (z->max > ENTRIES_MAX)
		z->max = ENTRIES_MAX;
	z->list = lc_alloc(2 * z->max * sizeof *z->list);
	return z->list ? 0 : -ENOMEM;
}

void lc_zeros_destroy(struct lc_zeros *z)
{
	lc_free(z->list, 2 * z->max * sizeof *z->list);
	*z = (struct lc_zeros){0};
}

u64 lc_zeros_bytes(const struct lc_zeros *z)
{
	return 2 * z->max * sizeof *z->list;
}

static u64 end_of(const struct lc_zero *e)
{
	return e->place + e->nr;
}

/* The index of the first range that ends behind PLACE. */
static u32 first_behind(const struct lc_zeros *z, u64 place)
{
	u32 low = 0, high = z->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (end_of(&z->list[mid]) > place)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

const struct lc_zero *lc_zeros_at(const struct lc_zeros *z, u64 place)
{
	u32 i = first_behind(z, place);

	return i < z->nr ? &z->list[i] : NULL;
}

/* Range E enters the list (SIGN = 1), leaves it (-1). */
static void count(struct lc_ring *r, const struct lc_zero *e, int sign)
{
	lc_ring_segment_of(r, e->slot)->zeros += sign;
	r->zeros.blocks += (int64_t)e->nr * sign;
	r->zeros.blocks_of[lc_place_volume(e->place)] += (int64_t)e->nr * sign;
}

void lc_zeros_claim(struct lc_ring *r, u32 slot)
{
	assert(r->zeros.entries < r->zeros.max);
	r->zeros.entries++;
	lc_ring_segment_of(r, slot)->zero_entries++;
}

/*
 * Does NEW go on right where the range before it ends, from the same segment? Then they become one. (A volume's last
 * block and the first one of the next are never neighbours: no volume is that large.)
 */
static bool joins(const struct lc_ring *r, const struct lc_zero *e, const struct lc_zero *new)
{
	return end_of(e) == new->place && e->trim == new->trim && !e->done &&
	       e->nr <= UINT32_MAX - new->nr &&lc_ring_segment_of(r, e->slot) ==
		       lc_ring_segment_of(r, new->slot);
}

void lc_zeros_add(struct lc_ring *r, u32 slot)
{
	struct lc_zeros *z = &r->zeros;
	const struct lc_slot *s = lc_index_slot(&r->index, slot);
	struct lc_zero new = {
		.place = lc_key_place(s->key),
		.nr = s->crc,
		.slot = slot,
		.trim = lc_key_type(s->key) == LC_ENTRY_TRIM,
	};
	struct lc_zero parts[3]; /* what stands there afterwards: rests of older ones around the new one */
	u32 nr = 0, from = first_behind(z, new.place), to = from;

	/* The ranges [from, to) overlap the new one. */
	while (to < z->nr && z->list[to].place < end_of(&new))
		count(r, &z->list[to++], -1);
	if (from < to && z->list[from].place < new.place) {
		parts[nr] = z->list[from];
		parts[nr].nr = new.place - parts[nr].place;
		nr++;
	}
	if (!nr && from > 0 && joins(r, &z->list[from - 1], &new)) {
		const struct lc_zero *before = &z->list[--from];

		count(r, before, -1);
		new.place = before->place;
		new.nr += before->nr;
	}
	parts[nr++] = new;
	if (from < to && end_of(&z->list[to - 1]) > end_of(&new)) {
		parts[nr] = z->list[to - 1];
		parts[nr].place = end_of(&new);
		parts[nr].nr = end_of(&z->list[to - 1]) - parts[nr].place;
		nr++;
	}
	assert(z->nr - (to - from) + nr <= 2 * z->max);
	memmove(&z->list[from + nr], &z->list[to], (z->nr - to) * sizeof *z->list);
	memcpy(&z->list[from], parts, nr * sizeof *parts);
	z->nr = z->nr - (to - from) + nr;
	for (u32 i = 0; i < nr; i++)
		count(r, &parts[i], 1);
}

bool lc_zeros_next(const struct lc_ring *r, u8 volume, u64 place, u64 upto, struct lc_zero *out)
{
	const struct lc_zeros *z = &r->zeros;

	for (u32 i = first_behind(z, place); i < z->nr; i++) {
		if (lc_place_volume(z->list[i].place) != volume)
			return false;
		*out = z->list[i];
		if (!out->done && lc_ring_segment_of(r, out->slot)->id <= upto)
			return true;
	}
	return false;
}

void lc_zeros_done(struct lc_ring *r, const struct lc_zero *what)
{
	struct lc_zeros *z = &r->zeros;

	/* What is left of it: newer ones may have cut pieces out of it meanwhile. */
	for (u32 i = first_behind(z, what->place); i < z->nr && z->list[i].place < end_of(what); i++)
		if (z->list[i].slot == what->slot && z->list[i].place >= what->place &&
		    end_of(&z->list[i]) <= end_of(what))
			z->list[i].done = true;
}

void lc_zeros_flushed(struct lc_ring *r, u8 volume, bool ok)
{
	struct lc_zeros *z = &r->zeros;
	u32 kept = 0;

	for (u32 i = 0; i < z->nr; i++) {
		struct lc_zero e = z->list[i];
		bool ours = e.done && lc_place_volume(e.place) == volume;

		if (ours && ok) {
			count(r, &e, -1);
			continue;
		}
		if (ours)
			e.done = false;
		z->list[kept++] = e;
	}
	z->nr = kept;
}
