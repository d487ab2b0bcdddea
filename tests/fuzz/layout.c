/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.c - see layout.h. */
#include "layout.h"

#include <string.h>

static const u32 magics[] = {
	[KIND_PAGE] = 0x6770636cu,
	[KIND_RECORD] = 0x6372636cu,
	[KIND_SUMMARY] = 0x6d73636cu,
};

static const struct field magic_field = {0, 4}, crc_field = {8, 4}, number_field = {12, 4};

/* What all have: the version and the first half of the uuid. */
static const struct field common_fields[] = {{4, 4}, {16, 8}};

static const struct field record_fields[] = {{32, 8}, {40, 8}, {48, 8}, {56, 8},
					     {64, 8}, {72, 4}, {76, 4}};
static const struct field summary_fields[] = {{32, 8}, {40, 8},	 {48, 8},  {56, 8},  {64, 4},
					      {68, 4}, {128, 2}, {130, 2}, {132, 2}, {134, 2}};
static const struct field page_fields[] = {{12, 4}, {32, 8}};
static const struct field superblock_fields[] = {{64, 8},  {72, 8},  {80, 8},  {88, 8},	 {96, 4},
						 {100, 4}, {104, 4}, {108, 4}, {112, 8}, {120, 8},
						 {128, 8}, {136, 8}, {144, 8}, {192, 8}, {255, 1}};
static const struct field volume_fields[] = {{0, 4},  {8, 8},	{16, 8},  {32, 8},
					     {64, 8}, {127, 1}, {128, 4}, {132, 4}};
/* The whole key, its volume, block, mask and type, and the crc behind it. */
static const struct field entry_fields[] = {{0, 8}, {7, 1}, {2, 5}, {1, 1}, {0, 1}, {8, 4}};

#define NR(a) ((unsigned)(sizeof(a) / sizeof *(a)))

u64 layout_random(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

u64 layout_get(const u8 *block, struct field f)
{
	u64 v = 0;

	for (unsigned i = 0; i < f.bytes; i++)
		v |= (u64)block[f.at + i] << 8 * i;
	return v;
}

void layout_put(u8 *block, struct field f, u64 value)
{
	for (unsigned i = 0; i < f.bytes; i++)
		block[f.at + i] = value >> 8 * i;
}

enum kind layout_kind(const u8 *block)
{
	u32 magic = layout_get(block, magic_field);

	for (unsigned i = KIND_PAGE; i <= KIND_SUMMARY; i++)
		if (magics[i] == magic)
			return i;
	return KIND_OTHER;
}

void layout_set_kind(u8 *block, enum kind kind)
{
	layout_put(block, magic_field, magics[kind]);
	layout_put(block, common_fields[0], LC_FORMAT_VERSION);
}

/* Entry number / fields of it, among MAX entries from AT on that are STEP bytes apart. */
static struct field entry_field(unsigned number, u32 at, u32 step, u32 max)
{
	u32 nr = NR(entry_fields);
	struct field f = entry_fields[number % nr];

	f.at += at + number / nr % max * step;
	return f;
}

static struct field page_field(const u8 *block, unsigned number)
{
	u32 page = layout_get(block, number_field);
	struct field f;

	if (number < NR(page_fields))
		return page_fields[number];
	number -= NR(page_fields);
	if (page == LC_PAGE_SUPERBLOCK)
		return superblock_fields[number % NR(superblock_fields)];
	if (page < LC_PAGE_BAD) {
		f = volume_fields[number % NR(volume_fields)];
		f.at += 64 + number / NR(volume_fields) % LC_VOLUMES_PER_PAGE * 512;
		return f;
	}
	if (number == 0)
		return (struct field){64, 8};
	return entry_field(number - 1, 72, 16, LC_BAD_PER_PAGE);
}

struct field layout_field(const u8 *block, unsigned number)
{
	/* The last numbers, so that the fields that matter have the small ones. */
	if (number >= 254)
		return common_fields[number % NR(common_fields)];
	switch (layout_kind(block)) {
	case KIND_PAGE:
		return page_field(block, number);
	case KIND_SUMMARY:
		if (number < NR(summary_fields))
			return summary_fields[number];
		return entry_field(number - NR(summary_fields), 640, 12, LC_SUMMARY_ENTRIES_MAX);
	case KIND_RECORD:
	case KIND_OTHER:
		break;
	}
	if (number < NR(record_fields))
		return record_fields[number];
	return entry_field(number - NR(record_fields), 256, 12, LC_ENTRIES_MAX);
}

void layout_reseal(u8 *block)
{
	if (layout_kind(block) == KIND_OTHER)
		return;
	layout_put(block, crc_field, 0);
	layout_put(block, crc_field, lc_crc32c(block, LC_BLOCK));
}

u64 layout_value(u64 r, u64 now)
{
	static const u64 hard[] = {0,
				   1,
				   2,
				   3,
				   4,
				   7,
				   8,
				   15,
				   16,
				   63,
				   64,
				   255,
				   256,
				   257,
				   319,
				   320,
				   321,
				   251,
				   252,
				   0x7fffffff,
				   0x80000000,
				   0xffff,
				   0x10000,
				   0x10001,
				   0xffffffff,
				   0x100000000ull,
				   LC_BLOCK_NR_MAX,
				   LC_BLOCK_NR_MAX - 8,
				   1ull << 52,
				   1ull << 56,
				   INT64_MAX,
				   1ull << 63,
				   UINT64_MAX - 1,
				   UINT64_MAX};

	switch (r >> 56 & 3) {
	case 0:
		return hard[(r >> 8) % NR(hard)];
	case 1:
		return now + (r >> 8) % 16 - 8;
	case 2:
		return now ^ 1ull << (r >> 8) % 64;
	}
	return (r >> 8) % 64;
}

void layout_mutate(u8 *block, u64 r)
{
	struct field f = layout_field(block,
				      layout_random(&r) % 64 + (layout_random(&r) % 16 ? 0 : 192));

	layout_put(block, f, layout_value(layout_random(&r), layout_get(block, f)));
}
