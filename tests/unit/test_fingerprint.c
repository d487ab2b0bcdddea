/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fingerprint.c - which blocks are the samples of a store, and what their crcs cover.
 */
#include "mem_store.h"

#include <stdalign.h>

#include "fingerprint.h"

static alignas(LC_BLOCK) u8 scratch[LC_BLOCK];

static const u64 sizes[] = {
	1,
	511,
	4095,
	4096,
	4097,
	4096 * 3 + 17,
	4096 * 63,
	4096 * 64,
	4096 * 64 + 1,
	4096 * 65,
	1ull << 30,
	(10ull << 40) + 512,
	LC_BLOCK_NR_MAX *LC_BLOCK,
};

#define NR_SIZES (sizeof sizes / sizeof *sizes)

static void blocks_are_counted_with_the_last_short_one(void **state)
{
	(void)state;
	assert_true(lc_blocks_of(1) == 1);
	assert_true(lc_blocks_of(4096) == 1);
	assert_true(lc_blocks_of(4097) == 2);
	assert_true(lc_blocks_of(LC_BLOCK_NR_MAX * LC_BLOCK) == LC_BLOCK_NR_MAX);
}

static void first_and_last_block_are_samples(void **state)
{
	(void)state;
	for (u32 i = 0; i < NR_SIZES; i++) {
		assert_true(lc_sample_block(sizes[i], 0) == 0);
		assert_true(lc_sample_block(sizes[i], LC_NR_SAMPLES - 1) ==
			    lc_blocks_of(sizes[i]) - 1);
	}
}

static void samples_are_spread_evenly_and_inside(void **state)
{
	(void)state;
	for (u32 i = 0; i < NR_SIZES; i++) {
		u64 blocks = lc_blocks_of(sizes[i]), step = blocks / (LC_NR_SAMPLES - 1);

		for (unsigned k = 1; k < LC_NR_SAMPLES; k++) {
			u64 a = lc_sample_block(sizes[i], k - 1), b = lc_sample_block(sizes[i], k);

			assert_true(b >= a && b < blocks);
			assert_true(b - a <= step + 1);
		}
	}
	/* a store of at most 64 blocks is fingerprinted as a whole */
	for (unsigned k = 0; k < LC_NR_SAMPLES; k++)
		assert_true(lc_sample_block(64 * LC_BLOCK, k) == k);
}

static void samples_in_a_range_are_those_whose_block_is_in_it(void **state)
{
	u64 seed = 5;

	(void)state;
	for (u32 i = 0; i < NR_SIZES; i++) {
		u64 blocks = lc_blocks_of(sizes[i]);

		assert_true(lc_samples_in(sizes[i], blocks, UINT32_MAX) == 0);
		if (blocks <= UINT32_MAX)
			assert_true(lc_samples_in(sizes[i], 0, blocks) == ~0ull);
		for (u32 round = 0; round < 500; round++) {
			u64 block = rnd_below(&seed, blocks), which = 0;
			u32 nr = rnd_below(&seed, 1u << rnd_below(&seed, 32));

			if (round & 1) /* right at a sample */
				block = lc_sample_block(sizes[i], round / 2 % LC_NR_SAMPLES);
			for (unsigned k = 0; k < LC_NR_SAMPLES; k++) {
				u64 at = lc_sample_block(sizes[i], k);

				if (at >= block && at - block < nr)
					which |= 1ull << k;
			}
			assert_true(lc_samples_in(sizes[i], block, nr) == which);
		}
	}
	/* in a store of one block all samples are that block */
	assert_true(lc_samples_in(17, 0, 1) == ~0ull);
	assert_true(lc_samples_in(17, 1, 1) == 0);
	assert_true(lc_samples_in(1 << 20, 3, 0) == 0);
}

/* --- reading --- */

static void open_filled(struct mem_store *m, u64 size_bytes)
{
	u64 seed = 6;

	mem_open(m, "disk", size_bytes);
	rnd_fill(&seed, m->data, size_bytes);
}

static void samples_are_crcs_of_their_blocks(void **state)
{
	u32 samples[LC_NR_SAMPLES];
	struct mem_store m;

	(void)state;
	open_filled(&m, 200 * LC_BLOCK);
	assert_int_equal(lc_samples_read(&m.store, 200 * LC_BLOCK, ~0ull, scratch, samples), 0);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		assert_int_equal(samples[i],
				 lc_crc32c(mem_block(&m, lc_sample_block(200 * LC_BLOCK, i)),
					   LC_BLOCK));
	assert_int_equal(m.writes, 0);
	lc_store_close(&m.store);
}

static void only_the_wanted_samples_are_read(void **state)
{
	u32 samples[LC_NR_SAMPLES];
	struct mem_store m;

	(void)state;
	open_filled(&m, 200 * LC_BLOCK);
	memset(samples, 0x55, sizeof samples);
	mem_break_reads(&m, lc_sample_block(200 * LC_BLOCK, 9));
	assert_int_equal(lc_samples_read(&m.store, 200 * LC_BLOCK, 1ull << 63 | 1ull << 8, scratch,
					 samples),
			 0);
	assert_int_equal(m.reads, 2);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		assert_int_equal(samples[i] == 0x55555555, i != 63 && i != 8);
	assert_int_equal(lc_samples_read(&m.store, 200 * LC_BLOCK, 1ull << 9, scratch, samples),
			 -EIO);
	lc_store_close(&m.store);
}

static void a_short_last_block_counts_as_padded_with_zeros(void **state)
{
	u32 samples[LC_NR_SAMPLES];
	u64 size_bytes = 4096 * 3 + 17;
	struct mem_store m;
	u8 padded[LC_BLOCK] = {0};

	(void)state;
	open_filled(&m, size_bytes);
	memcpy(padded, mem_block(&m, 3), 17);
	assert_int_equal(lc_samples_read(&m.store, size_bytes, ~0ull, scratch, samples), 0);
	assert_int_equal(samples[63], lc_crc32c(padded, LC_BLOCK));
	lc_store_close(&m.store);
}

static void a_grown_store_has_the_same_old_fingerprint(void **state)
{
	static const u64 olds[] = {17, 4096 * 3, 4096 * 3 + 17, 4096 * 70 + 4095};
	u64 seed = 7;

	(void)state;
	for (u32 i = 0; i < sizeof olds / sizeof *olds; i++) {
		u32 before[LC_NR_SAMPLES], after[LC_NR_SAMPLES];
		struct mem_store m;

		open_filled(&m, olds[i]);
		assert_int_equal(lc_samples_read(&m.store, olds[i], ~0ull, scratch, before), 0);
		m.store.size_bytes = olds[i] + 4096 * 5;
		rnd_fill(&seed, m.data + olds[i], 4096 * 5);
		assert_int_equal(lc_samples_read(&m.store, olds[i], ~0ull, scratch, after), 0);
		assert_memory_equal(before, after, sizeof after);
		/* but not the same new one */
		assert_int_equal(lc_samples_read(&m.store, m.store.size_bytes, ~0ull, scratch, after),
				 0);
		assert_memory_not_equal(before, after, sizeof after);
		lc_store_close(&m.store);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_counted_with_the_last_short_one),
		cmocka_unit_test(first_and_last_block_are_samples),
		cmocka_unit_test(samples_are_spread_evenly_and_inside),
		cmocka_unit_test(samples_in_a_range_are_those_whose_block_is_in_it),
		cmocka_unit_test(samples_are_crcs_of_their_blocks),
		cmocka_unit_test(only_the_wanted_samples_are_read),
		cmocka_unit_test(a_short_last_block_counts_as_padded_with_zeros),
		cmocka_unit_test(a_grown_store_has_the_same_old_fingerprint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
