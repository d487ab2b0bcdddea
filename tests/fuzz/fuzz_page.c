/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_page.c - libFuzzer target: one metadata page.
 *
 * The input is a byte and the beginning of a block, the rest of which is zeros. Bits of the byte:
 * 1 the crc is made right; 2 magic and version too; the rest chooses the page number that is
 * expected.
 *
 * Decoders read nothing behind the block (AddressSanitizer watches), and what they accept is
 * within the limits that their callers rely on, and survives being encoded and decoded again.
 */
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t n);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t n, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(u8 *data, size_t n, size_t max);

static void check_superblock(const u8 *block)
{
	struct lc_superblock sb, again;
	u8 *copy;

	memset(&sb, 0, sizeof sb);
	memset(&again, 0, sizeof again);
	if (!lc_superblock_decode(block, &sb))
		return;
	fuzz_check(sb.segment_blocks >= 2 && sb.segment_blocks <= 256 &&
			   !(sb.segment_blocks & (sb.segment_blocks - 1)),
		   "segments of %u blocks", sb.segment_blocks);
	fuzz_check(sb.nr_segments >= LC_SEGMENTS_MIN && sb.zone_blocks >= 2 * LC_NR_PAGES &&
			   sb.device_blocks <= UINT32_MAX &&
			   sb.zone_blocks + (u64)sb.nr_segments * sb.segment_blocks <=
				   sb.device_blocks,
		   "the geometry is larger than the device");
	fuzz_check(memchr(sb.label, 0, LC_LABEL_BYTES), "the label has no end");
	copy = calloc(1, LC_BLOCK);
	lc_superblock_encode(copy, &sb);
	fuzz_check(lc_superblock_decode(copy, &again) && !memcmp(&sb, &again, sizeof sb),
		   "a superblock does not survive encoding");
	free(copy);
}

static void check_volumes(const u8 *block)
{
	struct lc_volume_entry v, again;
	u8 *copy = calloc(1, LC_BLOCK);

	for (unsigned i = 0; i < LC_VOLUMES_PER_PAGE; i++) {
		memset(&v, 0, sizeof v);
		memset(&again, 0, sizeof again);
		if (!lc_volume_decode(block, i, &v))
			continue;
		fuzz_check(memchr(v.name, 0, LC_NAME_BYTES), "a name has no end");
		fuzz_check(!v.id || (v.size_bytes && v.size_bytes <= LC_BLOCK_NR_MAX * LC_BLOCK),
			   "a volume of %llu bytes", (unsigned long long)v.size_bytes);
		lc_volume_encode(copy, i, &v);
		fuzz_check(lc_volume_decode(copy, i, &again) && !memcmp(&v, &again, sizeof v),
			   "a volume does not survive encoding");
	}
	free(copy);
}

static void check_bad(const u8 *block)
{
	struct lc_bad_entry *list = calloc(LC_BAD_PER_PAGE, sizeof *list),
			    *again = calloc(LC_BAD_PER_PAGE, sizeof *again);
	int nr = lc_bad_decode(block, list);
	u8 *copy = calloc(1, LC_BLOCK);

	fuzz_check(nr >= -1 && nr <= (int)LC_BAD_PER_PAGE, "%d lost blocks on a page", nr);
	for (int i = 0; i < nr; i++)
		fuzz_check(lc_key_mask(list[i].key) && lc_key_type(list[i].key) == LC_ENTRY_DATA,
			   "a lost block without sectors");
	if (nr >= 0) {
		lc_bad_encode(copy, list, nr);
		fuzz_check(lc_bad_decode(copy, again) == nr, "a list does not survive encoding");
		for (int i = 0; i < nr; i++)
			fuzz_check(list[i].key == again[i].key && list[i].seq == again[i].seq,
				   "nor does entry %d", i);
	}
	free(copy);
	free(again);
	free(list);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t n)
{
	struct lc_page_info info;
	enum lc_page_state state;
	u8 *block;
	u32 page;

	if (!n)
		return 0;
	block = calloc(1, LC_BLOCK);
	memcpy(block, data + 1, n - 1 < LC_BLOCK ? n - 1 : LC_BLOCK);
	if (data[0] & 2)
		layout_set_kind(block, KIND_PAGE);
	if (data[0] & 1)
		layout_reseal(block);
	page = (data[0] >> 2) % LC_NR_PAGES;
	(void)lc_page_recognize(block); /* any answer will do */
	state = lc_page_verify(block, page, &info);
	fuzz_check(state != LC_PAGE_OK || (info.page == page && info.version == LC_FORMAT_VERSION &&
					   lc_page_recognize(block)),
		   "a page is taken for another");
	/* Whether or not it was verified: decoders trust nothing. */
	check_superblock(block);
	check_volumes(block);
	check_bad(block);
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
	layout_set_kind(block, KIND_PAGE);
	layout_mutate(block, layout_random(&r));
	memcpy(data + 1, block, n - 1 < LC_BLOCK ? n - 1 : LC_BLOCK);
	return n;
}
