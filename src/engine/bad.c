/* SPDX-License-Identifier: BSD-3-Clause */
#include "bad.h"

int lc_bad_init(struct lc_bad *b)
{
	*b = (struct lc_bad){0};
	b->keys = lc_alloc(LC_BAD_MAX * sizeof *b->keys);
	return b->keys ? 0 : -ENOMEM;
}

void lc_bad_destroy(struct lc_bad *b)
{
	lc_free(b->keys, LC_BAD_MAX * sizeof *b->keys);
	*b = (struct lc_bad){0};
}

/* The entry of a block, or `used` if it has none. */
static u32 find(const struct lc_bad *b, u8 volume, u64 block)
{
	u64 place = lc_key_place(lc_key(volume, block, 0, 0));
	u32 i = 0;

	while (i < b->used && (!b->keys[i] || lc_key_place(b->keys[i]) != place))
		i++;
	return i;
}

int lc_bad_add(struct lc_bad *b, u8 volume, u64 block, u8 mask)
{
	u32 i = find(b, volume, block);
	u64 key = lc_key(volume, block, mask, LC_ENTRY_DATA);

	if (i == b->used) {
		for (i = 0; i < b->used && b->keys[i];)
			i++;
		if (i == LC_BAD_MAX)
			return -ENOSPC;
		if (i == b->used)
			b->used++;
		b->nr++;
	}
	b->keys[i] |= key;
	b->changed[i / LC_BAD_PER_PAGE] = true;
	return 0;
}

void lc_bad_clear(struct lc_bad *b, u8 volume, u64 block, u8 mask)
{
	u32 i;
	u8 left;

	if (!b->nr)
		return;
	i = find(b, volume, block);
	if (i == b->used)
		return;
	left = lc_key_mask(b->keys[i]) & ~mask;
	b->changed[i / LC_BAD_PER_PAGE] = true;
	b->keys[i] = left ? lc_key(volume, block, left, LC_ENTRY_DATA) : 0;
	if (!left)
		b->nr--;
}

u8 lc_bad_mask(const struct lc_bad *b, u8 volume, u64 block)
{
	u32 i;

	if (!b->nr)
		return 0;
	i = find(b, volume, block);
	return i == b->used ? 0 : lc_key_mask(b->keys[i]);
}
