/* SPDX-License-Identifier: BSD-3-Clause */
/* content.c - see content.h. */
#include <stdio.h>
#include <string.h>

#include "content.h"
#include "rt_sim.h"

#define WORDS (LC_SECTOR / 8)
#define SECTOR_MAGIC 0x6c6f676361636865ull /* "logcache" */

static u64 seed_now;
static u64 table[WORDS];

static u64 mix(u64 a, u64 b)
{
	u64 z = (a ^ (b * 0x9e3779b97f4a7c15ull)) * 0xbf58476d1ce4e5b9ull;

	return z ^ (z >> 29);
}

void content_begin(u64 seed)
{
	u32 i;

	seed_now = seed;
	for (i = 0; i < WORDS; i++)
		table[i] = mix(i + 1, 0x5eed);
}

void content_fill(u8 *buf, unsigned volume, u32 sector, u32 version)
{
	u64 w[WORDS], h;
	u32 i;

	w[0] = SECTOR_MAGIC;
	w[1] = (u64)volume << 32 | sector;
	w[2] = version;
	w[3] = seed_now;
	h = mix(mix(mix(w[1], w[2]), w[3]), 1);
	for (i = 4; i < WORDS; i++)
		w[i] = h ^ table[i];
	memcpy(buf, w, sizeof(w));
}

static u32 broken(const char *where, unsigned volume, u32 sector, const u64 *w, const char *why)
{
	if (!where)
		return CONTENT_BROKEN;
	fprintf(stderr,
		"\noracle: sector %u of volume %u (block %u.%u), %s: %s\n"
		"  words: %016llx %016llx %016llx %016llx %016llx .. %016llx\n",
		sector, volume, sector / 8, sector % 8, where, why, (unsigned long long)w[0],
		(unsigned long long)w[1], (unsigned long long)w[2], (unsigned long long)w[3],
		(unsigned long long)w[4], (unsigned long long)w[WORDS - 1]);
	if (w[0] == SECTOR_MAGIC)
		fprintf(stderr,
			"  it begins as version %llu of sector %u of volume %u, seed %llx (ours "
			"%llx)\n",
			(unsigned long long)w[2], (u32)w[1], (u32)(w[1] >> 32),
			(unsigned long long)w[3], (unsigned long long)seed_now);
	sim_fail("content: %s", why);
}

u32 content_parse(const u8 *buf, unsigned volume, u32 sector, u32 nr_versions, const char *where)
{
	u64 w[WORDS], h, bad = 0;
	u32 i;

	memcpy(w, buf, sizeof(w));
	if (!w[0]) {
		for (i = 0; i < WORDS; i++)
			bad |= w[i];
		return bad ? broken(where, volume, sector, w, "zeros, but not all of it") :
			     CONTENT_ZEROS;
	}
	if (w[0] != SECTOR_MAGIC)
		return broken(where, volume, sector, w,
			      "not the beginning of a sector that was written");
	h = mix(mix(mix(w[1], w[2]), w[3]), 1);
	for (i = 4; i < WORDS; i++)
		bad |= w[i] ^ h ^ table[i];
	if (bad)
		return broken(where, volume, sector, w, "a torn sector: a mixture of versions");
	if (w[1] != ((u64)volume << 32 | sector))
		return broken(where, volume, sector, w, "the content of another sector");
	if (w[3] != seed_now || w[2] >= nr_versions)
		return broken(where, volume, sector, w, "content of another history");
	return (u32)w[2];
}
