/* SPDX-License-Identifier: BSD-3-Clause */
#include "bad.h"

int lc_bad_init(struct lc_bad *b)
{
	*b = (struct lc_bad){0};
	b->entries = lc_alloc(LC_BAD_MAX * sizeof *b->entries);
	return b->entries ? 0 : -ENOMEM;
}

void lc_bad_destroy(struct lc_bad *b)
{
	lc_free(b->entries, LC_BAD_MAX * sizeof *b->entries);
	*b = (struct lc_bad){0};
}

/* The entry of a block, or NULL. */
static struct lc_bad_entry *find(const struct lc_bad *b, u8 volume, u64 block)
{
	u64 place = lc_key_place(lc_key(volume, block, 0, 0));

	for (u32 i = 0; b->nr && i < b->used; i++)
		if (b->entries[i].key && lc_key_place(b->entries[i].key) == place)
			return &b->entries[i];
	return NULL;
}

static struct lc_bad_entry *new_entry(struct lc_bad *b)
{
	u32 i = 0;

	while (i < b->used && b->entries[i].key)
		i++;
	if (i == LC_BAD_MAX)
		return NULL;
	if (i == b->used)
		b->used++;
	b->nr++;
	return &b->entries[i];
}

static int touch(struct lc_bad *b, const struct lc_bad_entry *e)
{
	int page = (int)((e - b->entries) / LC_BAD_PER_PAGE);

	b->changed[page] = true;
	return page;
}

int lc_bad_add(struct lc_bad *b, u8 volume, u64 block, u8 mask, u64 seq)
{
	struct lc_bad_entry *e = find(b, volume, block);

	if (!e)
		e = new_entry(b);
	if (!e)
		return -ENOSPC;
	/* What was lost later stays so: the copies in between are older than it. */
	if (!e->key || seq > e->seq || LC_MUTANT(older_loss_wins))
		e->seq = seq;
	e->key |= lc_key(volume, block, mask, LC_ENTRY_DATA);
	return touch(b, e);
}

void lc_bad_clear(struct lc_bad *b, u8 volume, u64 block, u8 mask)
{
	struct lc_bad_entry *e = find(b, volume, block);
	u8 left;

	if (!e || !(lc_key_mask(e->key) & mask))
		return;
	left = lc_key_mask(e->key) & ~mask;
	touch(b, e);
	e->key = left ? lc_key(volume, block, left, LC_ENTRY_DATA) : 0;
	if (!left)
		b->nr--;
}

void lc_bad_clear_range(struct lc_bad *b, u8 volume, u64 block, u64 nr, u64 seq)
{
	u64 first = lc_place(volume, block);

	for (u32 i = 0; b->nr && i < b->used; i++) {
		struct lc_bad_entry *e = &b->entries[i];
		u64 place = lc_key_place(e->key);

		if (!e->key || place < first || place >= first + nr || e->seq > seq)
			continue;
		touch(b, e);
		e->key = 0;
		b->nr--;
	}
}

u8 lc_bad_mask(const struct lc_bad *b, u8 volume, u64 block)
{
	const struct lc_bad_entry *e = find(b, volume, block);

	return e ? lc_key_mask(e->key) : 0;
}

bool lc_bad_any(const struct lc_bad *b, u8 volume)
{
	for (u32 i = 0; b->nr && i < b->used; i++)
		if (b->entries[i].key && lc_key_volume(b->entries[i].key) == volume)
			return true;
	return false;
}

bool lc_bad_voids(const struct lc_bad *b, u8 volume, u64 block, u64 seq)
{
	const struct lc_bad_entry *e = find(b, volume, block);

	return e && seq <= e->seq;
}

u64 lc_bad_newest(const struct lc_bad *b)
{
	u64 seq = 0;

	for (u32 i = 0; b->nr && i < b->used; i++)
		if (b->entries[i].key && b->entries[i].seq > seq)
			seq = b->entries[i].seq;
	return seq;
}
