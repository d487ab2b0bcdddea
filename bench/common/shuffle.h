/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shuffle.h - a random order of the numbers 0 .. nr-1 without a table: shuffle_at(s, i) is the i-th of them.
 *
 * Each number comes once, so n steps of a workload are n different blocks; and the load generator and the
 * simulator of the disk mean the same blocks by the same seed.
 *
 * A Feistel network of four rounds is a bijection of the numbers below a power of 4; a result that is too large goes in again
 * until it is not, which is a bijection of 0 .. nr-1 (cycle walking).
 */
#ifndef BENCH_SHUFFLE_H
#define BENCH_SHUFFLE_H

#include "logcache/types.h"

struct shuffle {
	u64 nr;
	u64 seed;
	unsigned half_bits;
};

static inline struct shuffle shuffle_init(u64 nr, u64 seed)
{
	struct shuffle s = {.nr = nr, .seed = seed, .half_bits = 1};

	while (s.half_bits < 32 && 1ull << 2 * s.half_bits < nr)
		s.half_bits++;
	return s;
}

/* The finalizer of splitmix64. */
static inline u64 shuffle_mix(u64 x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* I < s->nr */
static inline u64 shuffle_at(const struct shuffle *s, u64 i)
{
	u64 mask = (1ull << s->half_bits) - 1;

	do {
		u64 left = i >> s->half_bits, right = i & mask;

		for (u64 round = 0; round < 4; round++) {
			u64 f = shuffle_mix(right ^ shuffle_mix(s->seed + round)) & mask;
			u64 next = left ^ f;

			left = right;
			right = next;
		}
		i = left << s->half_bits | right;
	} while (i >= s->nr);
	return i;
}

#endif
