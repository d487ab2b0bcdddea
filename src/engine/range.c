/* SPDX-License-Identifier: BSD-3-Clause */
#include "range.h"

#include <assert.h>

#include "mutant.h"

void lc_ranges_init(struct lc_ranges *rs, struct lc_mutex *lock)
{
	*rs = (struct lc_ranges){.lock = lock};
	lc_cond_init(&rs->left);
}

void lc_ranges_destroy(struct lc_ranges *rs)
{
	assert(!rs->newest);
	lc_cond_destroy(&rs->left);
}

u32 lc_ranges_free(const struct lc_ranges *rs, u64 block, u32 nr)
{
	u64 first = block + nr;

	if (!rs->nr_exclusive || LC_MUTANT(whole_ignores_part))
		return nr;
	for (const struct lc_range *r = rs->newest; r; r = r->next) {
		u64 at = r->block > block ? r->block : block;

		if (r->exclusive && at < r->block + r->nr && at < first)
			first = at;
	}
	return first - block;
}

void lc_ranges_wait(struct lc_ranges *rs)
{
	rs->waiters++;
	lc_cond_wait(&rs->left, rs->lock, LC_FOREVER);
	rs->waiters--;
}

void lc_range_enter(struct lc_ranges *rs, struct lc_range *r)
{
	r->next = rs->newest;
	rs->newest = r;
	rs->nr_exclusive += r->exclusive;
}

/* Does R overlap OTHER or one that came before it? */
static bool overlaps(const struct lc_range *r, const struct lc_range *other)
{
	for (; other; other = other->next)
		if (other->block < r->block + r->nr && r->block < other->block + other->nr)
			return true;
	return false;
}

bool lc_range_try_alone(struct lc_ranges *rs, struct lc_range *r)
{
	assert(r->exclusive);
	if (overlaps(r, rs->newest) && !LC_MUTANT(part_ignores_pending))
		return false;
	lc_range_enter(rs, r);
	return true;
}

void lc_range_enter_alone(struct lc_ranges *rs, struct lc_range *r)
{
	while (!lc_range_try_alone(rs, r))
		lc_ranges_wait(rs);
}

void lc_range_enter_first(struct lc_ranges *rs, struct lc_range *r)
{
	assert(r->exclusive);
	lc_range_enter(rs, r);
	while (overlaps(r, r->next) && !LC_MUTANT(zero_ignores_writers))
		lc_ranges_wait(rs);
}

void lc_range_leave(struct lc_ranges *rs, struct lc_range *r)
{
	struct lc_range **at = &rs->newest;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	rs->nr_exclusive -= r->exclusive;
	if (rs->waiters)
		lc_cond_broadcast(&rs->left);
}
