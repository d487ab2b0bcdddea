/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * histogram.h - how long things take: counts in buckets that grow with the value.
 *
 * Four buckets in each power of two nanoseconds, so a quantile is exact to within a quarter of itself, for any
 * time. No locks: whoever shares one says how.
 */
#ifndef LOGCACHE_HISTOGRAM_H
#define LOGCACHE_HISTOGRAM_H

#include "logcache/types.h"

#define LC_HISTOGRAM_BUCKETS 252u

struct lc_histogram {
	u64 count, sum_ns, max_ns;
	u64 buckets[LC_HISTOGRAM_BUCKETS];
};

/* The bucket of a time: 0 .. 3 for themselves; then two bits behind the highest one. */
static inline u32 lc_histogram_bucket(u64 ns)
{
	u32 high = ns < 4 ? 0 : 63 - __builtin_clzll(ns);

	return ns < 4 ? (u32)ns : (high - 1) * 4 + (u32)(ns >> (high - 2) & 3);
}

/* The shortest time that is not in bucket I any more, but longer. */
static inline u64 lc_histogram_bound_ns(u32 i)
{
	u32 next = i + 1;

	if (next < 4)
		return next;
	return next >= LC_HISTOGRAM_BUCKETS ? UINT64_MAX : (4ull + next % 4) << (next / 4 - 1);
}

static inline void lc_histogram_add(struct lc_histogram *h, u64 ns)
{
	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	h->buckets[lc_histogram_bucket(ns)]++;
}

static inline void lc_histogram_merge(struct lc_histogram *to, const struct lc_histogram *from)
{
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
	for (u32 i = 0; i < LC_HISTOGRAM_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

/* What NOW has more than BEFORE: the same histogram, earlier. Its maximum is that of all time. */
static inline void lc_histogram_since(struct lc_histogram *now, const struct lc_histogram *before)
{
	now->count -= before->count;
	now->sum_ns -= before->sum_ns;
	for (u32 i = 0; i < LC_HISTOGRAM_BUCKETS; i++)
		now->buckets[i] -= before->buckets[i];
}

/* A time that PER_MILLE of all were not longer than; 0 if nothing was counted. */
static inline u64 lc_histogram_quantile_ns(const struct lc_histogram *h, u32 per_mille)
{
	u64 wanted = (h->count * per_mille + 999) / 1000, seen = 0;

	for (u32 i = 0; i < LC_HISTOGRAM_BUCKETS && wanted; i++) {
		seen += h->buckets[i];
		if (seen >= wanted) {
			u64 bound = lc_histogram_bound_ns(i);

			return bound < h->max_ns ? bound : h->max_ns;
		}
	}
	return 0;
}

#endif
