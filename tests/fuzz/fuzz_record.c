/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_record.c - libFuzzer target: one record header or summary.
 *
 * The input is a byte and the beginning of a block, the rest of which is zeros. Bits of the byte:
 * 1 the crc is made right; 2 magic and version too (4: those of a summary).
 *
 * What the decoders accept is within the limits that recovery relies on, and survives being
 * encoded and decoded again. Their output arrays have the size that format.h says, exactly.
 */
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t n);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t n, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(u8 *data, size_t n, size_t max);

static bool data_ok(u64 key)
{
	return lc_key_type(key) == LC_ENTRY_DATA && lc_key_mask(key);
}

static bool zero_ok(const struct lc_slot *s)
{
	u8 type = lc_key_type(s->key);

	return (type == LC_ENTRY_ZERO || type == LC_ENTRY_TRIM) &&
	       lc_key_mask(s->key) == LC_MASK_FULL && s->crc >= 1 && s->crc <= LC_ZERO_BLOCKS_MAX &&
	       lc_key_block(s->key) + s->crc - 1 < LC_BLOCK_NR_MAX;
}

static void check_entries(const struct lc_slot *a, const struct lc_slot *b, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		fuzz_check((data_ok(a[i].key) || zero_ok(&a[i])) && lc_key_volume(a[i].key) &&
				   !(a[i].key & LC_KEY_FLAGS),
			   "entry %u has a key that nobody could have written", i);
		fuzz_check(a[i].key == b[i].key && a[i].crc == b[i].crc,
			   "entry %u does not survive", i);
	}
}

static void check_record(const u8 *block)
{
	struct lc_slot *entries = calloc(LC_ENTRIES_MAX, sizeof *entries);
	struct lc_slot *again = calloc(LC_ENTRIES_MAX, sizeof *again);
	struct lc_record_info r, r2;
	u8 *copy = calloc(1, LC_BLOCK);

	memset(&r, 0, sizeof r);
	memset(&r2, 0, sizeof r2);
	if (lc_record_decode(block, &r, entries)) {
		fuzz_check(r.nr_entries >= 1 && r.nr_entries <= LC_ENTRIES_MAX && r.segment_id &&
				   r.first && r.first <= r.seq && r.durable_seq < r.seq,
			   "a record that nobody could have written");
		lc_record_encode(copy, &r, entries);
		fuzz_check(lc_record_decode(copy, &r2, again) && !memcmp(&r, &r2, sizeof r),
			   "a record does not survive encoding");
		check_entries(entries, again, r.nr_entries);
	}
	free(copy);
	free(again);
	free(entries);
}

static void check_summary(const u8 *block)
{
	struct lc_slot *entries = calloc(LC_SUMMARY_ENTRIES_MAX, sizeof *entries);
	struct lc_slot *again = calloc(LC_SUMMARY_ENTRIES_MAX, sizeof *again);
	struct lc_summary_info s, s2;
	u8 *copy = calloc(1, LC_BLOCK);
	u32 sum = 0;

	memset(&s, 0, sizeof s);
	memset(&s2, 0, sizeof s2);
	if (lc_summary_decode(block, &s, entries)) {
		fuzz_check(s.nr_records >= 2 && s.nr_records <= LC_SUMMARY_RECORDS_MAX &&
				   s.nr_entries <= LC_SUMMARY_ENTRIES_MAX && s.segment_id &&
				   s.first_seq && s.last_seq - s.first_seq == s.nr_records - 1 &&
				   s.last_seq > s.first_seq,
			   "a summary that nobody could have written");
		for (u32 i = 0; i < s.nr_records; i++)
			sum += s.nr_blocks[i];
		fuzz_check(sum == s.nr_entries, "records of %u blocks with %u entries", sum,
			   s.nr_entries);
		lc_summary_encode(copy, &s, entries);
		fuzz_check(lc_summary_decode(copy, &s2, again) && !memcmp(&s, &s2, sizeof s),
			   "a summary does not survive encoding");
		check_entries(entries, again, s.nr_entries);
	}
	free(copy);
	free(again);
	free(entries);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t n)
{
	u8 *block;

	if (!n)
		return 0;
	block = calloc(1, LC_BLOCK);
	memcpy(block, data + 1, n - 1 < LC_BLOCK ? n - 1 : LC_BLOCK);
	if (data[0] & 2)
		layout_set_kind(block, data[0] & 4 ? KIND_SUMMARY : KIND_RECORD);
	if (data[0] & 1)
		layout_reseal(block);
	check_record(block);
	check_summary(block);
	free(block);
	return 0;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t n, size_t max, unsigned seed)
{
	static u8 block[LC_BLOCK];
	u64 r = seed;

	if (n < 64 || layout_random(&r) % 2)
		return LLVMFuzzerMutate(data, n, max);
	memset(block, 0, sizeof block);
	memcpy(block, data + 1, n - 1 < LC_BLOCK ? n - 1 : LC_BLOCK);
	layout_set_kind(block, data[0] & 4 ? KIND_SUMMARY : KIND_RECORD);
	layout_mutate(block, layout_random(&r));
	memcpy(data + 1, block, n - 1 < LC_BLOCK ? n - 1 : LC_BLOCK);
	return n;
}
