/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_repair.c - which blocks a repair calls lost, when several headers are damaged. (What it does with real caches,
 * tests/e2e/test_ctl_offline.py tries.)
 */
#define BLOCKS 16u
#include "log_image.h"

#include "repair.h"

static void say(void *arg, enum lc_repair_line what, const char *text)
{
	(void)arg;
	(void)what;
	(void)text;
}

static void repair(void)
{
	struct lc_inspect *in;

	assert_int_equal(recover(), -EUCLEAN);
	assert_int_equal(lc_inspect_open(&ssd.store, &in, &error), 0);
	if (lc_repair_plan(in, say, NULL, NULL, &error) != 1 || lc_repair_apply(in, &error))
		fail_msg("%s", error.text);
	lc_inspect_close(in);
	if (recover())
		fail_msg("%s", error.text);
}

/* The checksum of the header at a position is damaged: what it names is still known. */
static void spoil(u64 id, u32 position)
{
	at(id, position)[8] ^= 1;
}

/* A record of some sectors of one block. */
static void add_part(u64 block, u8 mask)
{
	add(1, block);
	image.entries[image.summary.nr_entries - 1].key = lc_key(1, block, mask, LC_ENTRY_DATA);
	image.next.seq--;
	image.next.position -= 2;
	image.summary.nr_entries--;
	image.summary.nr_records--;
	append(1);
}

static u8 lost(u64 block)
{
	return lc_bad_mask(&core.meta.bad, 1, block);
}

/*
 * Records 2 and 4 are damaged, and both had the block; so had record 3, between them, which is older than what was lost with
 * record 4. Its sectors were served, because the loss of record 2 was written down last.
 */
static void a_copy_between_two_losses_does_not_count(void **state)
{
	(void)state;
	begin(1);
	add(1, 5);
	add(1, 5);
	add_part(5, 0x0f);
	add_part(5, 0x0f);
	add(1, 9);
	set_superblock(0, 1, 5);
	assert_recovers(5, 1);
	spoil(1, 2);
	spoil(1, 6);
	repair();
	assert_int_equal(found.cut_seq, 5);
	assert_at(5, 0, 0);
	assert_int_equal(lost(5), LC_MASK_FULL);
	assert_at(9, 1, 9);
}

/* The volume was forgotten, and another one has its id since record 4: record 2 held nothing of this one. */
static void blocks_of_the_volume_that_had_the_id_before_are_not_lost(void **state)
{
	(void)state;
	for (u64 from = 1; from <= 4; from++) {
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
		meta.volumes[1].from_seq = from;
		write_page(LC_PAGE_VOLUMES);
		begin(1);
		for (u64 block = 1; block <= 5; block++)
			add(1, block);
		set_superblock(0, 1, 5);
		spoil(1, 2);
		repair();
		assert_int_equal(lost(2), from <= 2 ? LC_MASK_FULL : 0);
		/* At the end of the log, too; there the new records will have the seqs of the lost ones. */
		spoil(1, 8);
		repair();
		assert_int_equal(found.cut_seq, 4);
		assert_int_equal(lost(5), LC_MASK_FULL);
	}
}

/*
 * Record 3 was torn in a crash, and another record 3 written to the next segment by the next opening; of which nothing is left but that
 * the one after it came two epochs later. The torn one must not count again; it used to contradict the rest.
 */
static void what_a_lost_opening_had_cut_off_stays_so(void **state)
{
	(void)state;
	begin(1);
	add(1, 5);
	add(1, 6);
	add(1, 7);
	rot(1, 5);
	new_epoch(2);
	begin(2);
	add(1, 8);
	new_epoch(3);
	begin(3);
	add(1, 9);
	set_superblock(0, 1, 4);
	assert_recovers(4, 3);
	memset(at(2, 0), 0x5a, LC_BLOCK);
	repair();
	assert_int_equal(found.cut_seq, 4);
	assert_at(5, 1, 1);
	assert_at(6, 1, 3);
	assert_at(7, 0, 0);
	assert_at(9, 3, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IMAGE_TEST(a_copy_between_two_losses_does_not_count),
		IMAGE_TEST(blocks_of_the_volume_that_had_the_id_before_are_not_lost),
		IMAGE_TEST(what_a_lost_opening_had_cut_off_stays_so),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
