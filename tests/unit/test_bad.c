/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_bad.c - the list of lost blocks (I10).
 */
#include "mem_store.h"

#include "bad.h"

static struct lc_bad bad;

static int setup(void **state)
{
	(void)state;
	return lc_bad_init(&bad);
}

static int teardown(void **state)
{
	(void)state;
	lc_bad_destroy(&bad);
	return 0;
}

static void nothing_is_lost_at_first(void **state)
{
	(void)state;
	assert_int_equal(lc_bad_mask(&bad, 1, 0), 0);
	lc_bad_clear(&bad, 1, 0, LC_MASK_FULL);
	assert_int_equal(bad.nr, 0);
	for (u32 i = 0; i < LC_NR_BAD_PAGES; i++)
		assert_false(bad.changed[i]);
}

static void lost_sectors_add_up(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&bad, 1, 42, 0x0f, 9) >= 0);
	assert_true(lc_bad_add(&bad, 1, 42, 0x18, 9) >= 0);
	assert_int_equal(lc_bad_mask(&bad, 1, 42), 0x1f);
	assert_int_equal(bad.nr, 1);
	assert_int_equal(lc_bad_mask(&bad, 2, 42), 0);
	assert_int_equal(lc_bad_mask(&bad, 1, 43), 0);
}

static void overwritten_sectors_are_found_again(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&bad, 1, 42, 0xff, 9) >= 0);
	lc_bad_clear(&bad, 2, 42, 0xff); /* another volume's */
	lc_bad_clear(&bad, 1, 42, 0x0f);
	assert_int_equal(lc_bad_mask(&bad, 1, 42), 0xf0);
	assert_int_equal(bad.nr, 1);
	lc_bad_clear(&bad, 1, 42, 0xf0);
	assert_int_equal(lc_bad_mask(&bad, 1, 42), 0);
	assert_int_equal(bad.nr, 0);
}

static void block_zero_of_a_volume_can_be_lost(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&bad, 1, 5, 1, 9) >= 0);
	assert_true(lc_bad_add(&bad, 1, 0, 2, 9) >= 0);
	lc_bad_clear(&bad, 1, 5, 1); /* leaves a hole, which is no entry */
	assert_int_equal(lc_bad_mask(&bad, 1, 0), 2);
	assert_int_equal(lc_bad_mask(&bad, 0, 0), 0);
}

static void entries_never_move_and_holes_are_used_again(void **state)
{
	u64 third;

	(void)state;
	for (u64 i = 0; i < 5; i++)
		assert_true(lc_bad_add(&bad, 1, i, 1, 9) >= 0);
	third = bad.entries[2].key;
	lc_bad_clear(&bad, 1, 1, 1);
	assert_true(bad.entries[2].key == third);
	assert_int_equal(bad.used, 5);
	assert_true(lc_bad_add(&bad, 1, 99, 4, 9) >= 0);
	assert_int_equal(bad.used, 5);
	assert_int_equal(bad.nr, 5);
	assert_true(bad.entries[1].key == lc_key(1, 99, 4, LC_ENTRY_DATA));
	assert_int_equal(lc_bad_mask(&bad, 1, 1), 0);
}

static void only_the_page_of_an_entry_changes(void **state)
{
	(void)state;
	for (u64 i = 0; i <= LC_BAD_PER_PAGE; i++)
		assert_true(lc_bad_add(&bad, 1, i, 1, 9) >= 0);
	assert_true(bad.changed[0] && bad.changed[1] && !bad.changed[2]);
	bad.changed[0] = bad.changed[1] = false;
	lc_bad_clear(&bad, 1, LC_BAD_PER_PAGE, 1);
	assert_true(!bad.changed[0] && bad.changed[1]);
	lc_bad_clear(&bad, 1, LC_BAD_PER_PAGE - 1, 1);
	assert_true(bad.changed[0]);
	/* what is not on the list changes nothing */
	bad.changed[0] = bad.changed[1] = false;
	lc_bad_clear(&bad, 1, 1ull << 39, 0xff);
	assert_false(bad.changed[0] || bad.changed[1]);
}

static void copies_up_to_the_lost_one_are_void(void **state)
{
	(void)state;
	assert_int_equal(lc_bad_add(&bad, 1, 42, 0x0f, 7), 0);
	assert_true(lc_bad_voids(&bad, 1, 42, 6));
	assert_true(lc_bad_voids(&bad, 1, 42, 7));
	assert_false(lc_bad_voids(&bad, 1, 42, 8));
	assert_false(lc_bad_voids(&bad, 1, 41, 7));
	assert_false(lc_bad_voids(&bad, 2, 42, 7));
	lc_bad_clear(&bad, 1, 42, 0x03);
	assert_true(lc_bad_voids(&bad, 1, 42, 7));
	lc_bad_clear(&bad, 1, 42, 0x0c);
	assert_false(lc_bad_voids(&bad, 1, 42, 7));
}

/*
 * A repair comes upon lost copies of a block in the order of their sectors, not of the log. What it found last made copies
 * count that lay between the two losses: older data than what was lost, without an error. Found by reading the code.
 */
static void a_loss_that_is_found_out_later_but_is_older_takes_nothing_back(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&bad, 1, 42, 0x0f, 20) >= 0);
	assert_true(lc_bad_add(&bad, 1, 42, 0xf0, 10) >= 0);
	assert_int_equal(lc_bad_mask(&bad, 1, 42), 0xff);
	assert_true(lc_bad_voids(&bad, 1, 42, 20));
	assert_false(lc_bad_voids(&bad, 1, 42, 21));
	/* Whose entry it was before does not matter. */
	lc_bad_clear(&bad, 1, 42, 0xff);
	assert_true(lc_bad_add(&bad, 1, 43, 0xff, 5) >= 0);
	assert_int_equal(bad.used, 1);
	assert_false(lc_bad_voids(&bad, 1, 43, 6));
}

static void the_newest_lost_copy_is_known(void **state)
{
	(void)state;
	assert_int_equal(lc_bad_newest(&bad), 0);
	assert_true(lc_bad_add(&bad, 1, 7, 0xff, 30) >= 0);
	assert_true(lc_bad_add(&bad, 1, 8, 0xff, 20) >= 0);
	assert_int_equal(lc_bad_newest(&bad), 30);
	lc_bad_clear(&bad, 1, 7, 0xff);
	assert_int_equal(lc_bad_newest(&bad), 20);
	lc_bad_clear(&bad, 1, 8, 0xff);
	assert_int_equal(lc_bad_newest(&bad), 0);
}

static void a_full_list_says_so(void **state)
{
	(void)state;
	for (u64 i = 0; i < LC_BAD_MAX; i++)
		assert_true(lc_bad_add(&bad, 255, i, 0x80, 9) >= 0);
	assert_int_equal(lc_bad_add(&bad, 255, LC_BAD_MAX, 1, 9), -ENOSPC);
	assert_int_equal(lc_bad_mask(&bad, 255, LC_BAD_MAX), 0);
	assert_int_equal(bad.nr, LC_BAD_MAX);
	/* a block that is on it already still fits, and so does another in the place of one */
	assert_true(lc_bad_add(&bad, 255, 7, 1, 9) >= 0);
	assert_int_equal(lc_bad_mask(&bad, 255, 7), 0x81);
	lc_bad_clear(&bad, 255, 4000, 0xff);
	assert_true(lc_bad_add(&bad, 255, LC_BAD_MAX, 1, 9) >= 0);
	assert_int_equal(lc_bad_mask(&bad, 255, LC_BAD_MAX), 1);
	assert_int_equal(lc_bad_add(&bad, 255, LC_BAD_MAX + 1, 1, 9), -ENOSPC);
}

static void random_changes_agree_with_a_model(void **state)
{
	u8 model[2][40] = {{0}};
	u64 seed = 4;

	(void)state;
	for (u32 i = 0; i < 20000; i++) {
		u32 v = rnd_below(&seed, 2), block = rnd_below(&seed, 40), nr = 0;
		u8 mask = rnd(&seed);

		if (!mask)
			continue;
		if (rnd(&seed) & 1) {
			assert_true(lc_bad_add(&bad, v + 1, block, mask, 9) >= 0);
			model[v][block] |= mask;
		} else {
			lc_bad_clear(&bad, v + 1, block, mask);
			model[v][block] &= ~mask;
		}
		for (u32 k = 0; k < 80; k++) {
			assert_int_equal(lc_bad_mask(&bad, k / 40 + 1, k % 40),
					 model[k / 40][k % 40]);
			nr += !!model[k / 40][k % 40];
		}
		assert_int_equal(bad.nr, nr);
		assert_true(bad.used <= 80);
	}
}

#define BAD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BAD_TEST(nothing_is_lost_at_first),
		BAD_TEST(lost_sectors_add_up),
		BAD_TEST(overwritten_sectors_are_found_again),
		BAD_TEST(block_zero_of_a_volume_can_be_lost),
		BAD_TEST(entries_never_move_and_holes_are_used_again),
		BAD_TEST(only_the_page_of_an_entry_changes),
		BAD_TEST(copies_up_to_the_lost_one_are_void),
		BAD_TEST(a_loss_that_is_found_out_later_but_is_older_takes_nothing_back),
		BAD_TEST(the_newest_lost_copy_is_known),
		BAD_TEST(a_full_list_says_so),
		BAD_TEST(random_changes_agree_with_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
