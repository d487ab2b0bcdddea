/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_salvage.c - what a damaged header still says.
 *
 * A header names the blocks of its record, with the checksum of each one's data. So an entry can be checked by itself: if the
 * data has that checksum it is an entry of this record, whatever else of the header is damaged. That is enough to
 * say which blocks are lost; they shall answer with errors, instead of with something older.
 *
 * It is not enough to believe the numbers beside that checksum, and to serve the data as what they name: for that the header's
 * own checksum has to agree. What is damaged besides entries is known from elsewhere: where it lies, the record before
 * it. If the checksum agrees with that in its place, this is what the header was, and nothing is lost.
 */
#include "repair_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So many durable seqs are tried for a header. A flush is seldom later than that. */
#define DURABLE_TRIES 64u

/* Has the data of entry I the checksum that the entry says? */
static bool agrees(struct repair *r, u32 position, u32 i)
{
	u32 k = position + 1 + i;
	const u8 *data = k < segment_blocks(r) ? lc_inspect_block(r->in, k) : NULL;

	return data && lc_crc32c(data, LC_BLOCK) == r->entries[i].crc;
}

/* --- a whole header --- */

/* With NR entries, SEQ, EPOCH and FIRST, is there a durable seq with which the checksum in BLOCK agrees? */
static bool prove(const struct repair *r, const void *block, u32 nr, u64 seq, u64 epoch, u64 first,
		  struct lc_record_info *info)
{
	u64 said = info->durable_seq;

	if (seq >= LC_COUNT_MAX || nr < 1 || info->position + 1 + nr > segment_blocks(r))
		return false;
	for (u32 i = 0; i < nr; i++)
		if (!r->entries[i].key)
			return false;
	info->nr_entries = nr;
	info->seq = seq;
	info->epoch = epoch;
	info->first = first;
	for (u64 i = 0; i <= DURABLE_TRIES && i <= seq; i++) {
		info->durable_seq = i ? seq - i : said;
		if (lc_record_proved(block, info, r->entries))
			return true;
	}
	return false;
}

/*
 * In terabytes of data, some block will have by chance what looks like a checksum that agrees. So something else has
 * to agree, too: where it says to be, or the data of one of its entries.
 */
static bool fits_here(struct repair *r, const struct lc_record_info *said,
		      const struct lc_record_info *is)
{
	if (said->segment_id == is->segment_id && said->seq == is->seq)
		return true;
	for (u32 i = 0; i < is->nr_entries; i++)
		if (lc_key_type(r->entries[i].key) == LC_ENTRY_DATA && agrees(r, is->position, i))
			return true;
	return false;
}

bool repair_restore(struct repair *r, u64 id, u32 position, const struct found *before,
		    struct lc_record_info *info)
{
	const u8 *block = lc_inspect_block(r->in, position);
	struct lc_record_info said;
	u32 nr = 0;

	if (!block)
		return false;
	lc_record_guess(block, &said, r->entries);
	if (!r->entries[0].key)
		return false;
	while (nr < LC_ENTRIES_MAX && r->entries[nr].key)
		nr++;
	for (unsigned i = 0; i < 4; i++) {
		u32 entries = i & 1 ? nr : said.nr_entries;

		*info = said;
		memcpy(info->uuid, r->in->core.meta.uuid, LC_UUID_BYTES);
		info->segment_id = id;
		info->position = position;
		if (entries > nr || (i > 1 && !before))
			continue;
		/* A segment belongs to one epoch. */
		if ((i > 1 ? prove(r, block, entries, before->seq + 1, before->epoch, before->first,
				   info) :
			     prove(r, block, entries, said.seq, said.epoch, said.first, info)) &&
		    fits_here(r, &said, info))
			return true;
	}
	return false;
}

/* --- the blocks that are named --- */

static int add(struct repair *r, struct named n)
{
	if (r->nr_named == r->max_named) {
		size_t max = r->max_named ? r->max_named * 2 : 256;
		struct named *named = lc_alloc(max * sizeof *named);

		if (!named)
			return repair_no_memory(r);
		if (r->nr_named)
			memcpy(named, r->named, r->nr_named * sizeof *named);
		lc_free(r->named, r->max_named * sizeof *named);
		r->named = named;
		r->max_named = max;
	}
	r->named[r->nr_named++] = n;
	return 0;
}

/* Can the entry, of a record up to LAST, be about a block that there is? Older ones were an earlier volume's of that id. */
static bool plausible(const struct repair *r, const struct lc_slot *s, u64 last)
{
	const struct lc_volume_entry *v = &r->in->core.meta.volumes[lc_key_volume(s->key)];

	return lc_key_type(s->key) == LC_ENTRY_DATA && v->id && last >= v->from_seq &&
	       lc_key_block(s->key) < (v->size_bytes + LC_BLOCK - 1) / LC_BLOCK;
}

/*
 * Does a damaged header say that an opening cut it off? Its epoch may be what is damaged, and looks like an earlier one then:
 * where that began has to agree.
 */
static bool was_cut_off(const struct repair *r, const struct lc_record_info *info)
{
	const struct lc_inspect *in = r->in;

	for (u32 i = 0; i < in->nr_births; i++)
		if (in->births[i].epoch == info->epoch && in->births[i].first == info->first)
			return lc_inspect_void(in, info->epoch, info->seq);
	return false;
}

int repair_name(struct repair *r, u64 id, u32 from, u32 to, u64 a, u64 b, u64 upto, u64 *nr)
{
	int err = 0;

	lc_inspect_load(r->in, place_of(r, id), true);
	for (u32 k = from; k < to; k++) {
		const u8 *block = lc_inspect_block(r->in, k);
		struct lc_record_info info;
		u32 nr_data = 0;

		if (!block)
			continue;
		/* A whole one that counts was found (repair_find.c): this is of the last lap, or void. */
		if (lc_inspect_record(r->in, k, &info, r->entries))
			continue;
		lc_record_guess(block, &info, r->entries);
		/* So is a damaged one that names another segment and other records, or what an opening cut off. */
		if ((info.segment_id != id && (info.seq < a || info.seq > b)) ||
		    was_cut_off(r, &info))
			continue;
		for (u32 i = 0; i < LC_ENTRIES_MAX && k + 1 + i < to && !err; i++) {
			if (!r->entries[i].key || !plausible(r, &r->entries[i], b) ||
			    !agrees(r, k, i))
				continue;
			err = add(r, (struct named){
					     .key = r->entries[i].key,
					     .slot = lc_ring_first_slot(&r->in->core.ring, id) + k +
						     1 + i,
					     .id = id,
					     .upto = upto,
				     });
			nr_data = i + 1;
			++*nr;
		}
		if (err)
			return err;
		k += nr_data; /* not what the header says: that may be damaged, too */
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

/* The sectors of N that nothing newer holds. */
static u8 still_lost(const struct repair *r, const struct named *n)
{
	const struct lc_ring *ring = &r->in->core.ring;
	u8 volume = lc_key_volume(n->key), mask = lc_key_mask(n->key);
	u32 slot = lc_index_find(&ring->index, volume, lc_key_block(n->key));
	const struct lc_zero *zero = lc_zeros_at(&ring->zeros, lc_key_place(n->key));
	u64 id = slot ? lc_ring_segment_of(ring, slot)->id : 0;

	if (slot && (id > n->id || (id == n->id && slot > n->slot)))
		mask &= ~lc_key_mask(lc_index_slot(&ring->index, slot)->key);
	if (zero && zero->place <= lc_key_place(n->key)) {
		id = lc_ring_segment_of(ring, zero->slot)->id;
		if (id > n->id || (id == n->id && zero->slot > n->slot))
			mask = 0;
	}
	return mask;
}

/* Blocks NR from the one of KEY on, of which all lose the same sectors. */
static void tell_range(struct repair *r, u64 key, u64 nr)
{
	const char *volume = lc_inspect_volume(r->in, lc_key_volume(key));
	u64 block = lc_key_block(key);
	char sectors[32] = "";

	if (lc_key_mask(key) != LC_MASK_FULL)
		snprintf(sectors, sizeof sectors, ", sectors 0x%02x", lc_key_mask(key));
	if (nr == 1)
		repair_tell(r, LC_REPAIR_LOSES, "volume %s, block %llu%s", volume, (ull)block,
			    sectors);
	else
		repair_tell(r, LC_REPAIR_LOSES, "volume %s, blocks %llu to %llu%s", volume,
			    (ull)block, (ull)(block + nr - 1), sectors);
}

int repair_lose_named(struct repair *r)
{
	char text[LC_COUNT_BYTES];
	struct lc_bad *bad = &r->in->core.meta.bad;
	u64 first = 0, nr = 0, lost = 0, untold = 0;

	if (!r->nr_named)
		return 0;
	qsort(r->named, r->nr_named, sizeof *r->named, by_key);
	for (size_t i = 0; i < r->nr_named; i++) {
		const struct named *n = &r->named[i];
		u8 volume = lc_key_volume(n->key), mask = still_lost(r, n);
		u64 block = lc_key_block(n->key), key = lc_key(volume, block, mask, LC_ENTRY_DATA);

		if (!mask)
			continue;
		if (lc_bad_add(bad, volume, block, mask, n->upto) < 0) {
			untold++;
			continue;
		}
		lost++;
		if (nr && key == first + (nr << 16)) {
			nr++;
			continue;
		}
		if (nr)
			tell_range(r, first, nr);
		first = key;
		nr = 1;
	}
	if (nr)
		tell_range(r, first, nr);
	if (lost)
		repair_tell(r, LC_REPAIR_DOES,
			    "list of lost blocks: gets %s that damaged headers name: read errors until overwritten; "
			    "newer records hold the other %llu",
			    lc_count_text(text, lost, "block"), (ull)(r->nr_named - lost - untold));
	else
		repair_tell(r, LC_REPAIR_DOES,
			    "list of lost blocks: newer records hold the %s that damaged headers name",
			    lc_count_text(text, r->nr_named - untold, "block"));
	if (untold)
		repair_tell(r, LC_REPAIR_LOSES,
			    "%s for which there is no room on the list of lost blocks: what is read there is what "
			    "was before",
			    lc_count_text(text, untold, "more block"));
	return repair_write_lists(r);
}
