/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cache_format.c - making a cache, and recognizing one.
 */
#include "mem_store.h"

#include "logcache/logcache.h"

#define MIB (1u << 20)

static struct mem_store ssd;
static struct lc_error error;

static int format(u32 segment_bytes)
{
	return lc_cache_format(&ssd.store,
			       &(struct lc_format_options){.segment_bytes = segment_bytes}, &error);
}

static int setup(void **state)
{
	(void)state;
	mem_open(&ssd, "/dev/fast", 4 * MIB);
	return format(32768);
}

static int teardown(void **state)
{
	(void)state;
	lc_store_close(&ssd.store);
	return 0;
}

static void impossible_formats_are_refused(void **state)
{
	static const u32 sizes[] = {0, 4096, 8191, 12288, 2 * MIB, 1u << 31};
	struct lc_format_options o = {.segment_bytes = 8192};
	char label[LC_LABEL_BYTES + 1];

	(void)state;
	mem_forget(&ssd);
	for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(format(sizes[i]), -EINVAL);
		assert_says(&error, "power of two from 8192 to 1048576");
	}
	memset(label, 'l', sizeof label);
	label[LC_LABEL_BYTES] = 0;
	o.label = label;
	assert_int_equal(lc_cache_format(&ssd.store, &o, &error), -EINVAL);
	assert_int_equal(ssd.writes, 0);
	label[LC_LABEL_BYTES - 1] = 0;
	assert_int_equal(lc_cache_format(&ssd.store, &o, &error), 0);
}

static void too_small_a_device_is_told_how_small_is_possible(void **state)
{
	static const u32 sizes[] = {8192, 65536, MIB};
	u64 smallest = lc_cache_min_bytes(8192);
	char words[64];

	(void)state;
	for (u32 i = 0; i < 3; i++) {
		u64 min = lc_cache_min_bytes(sizes[i]);

		ssd.store.size_bytes = min - 1;
		mem_forget(&ssd);
		assert_int_equal(format(sizes[i]), -ENOSPC);
		assert_int_equal(ssd.writes, 0);
		snprintf(words, sizeof words, "at least %llu", (unsigned long long)min);
		assert_says(&error, words);
		snprintf(words, sizeof words, "at least %llu", (unsigned long long)smallest);
		assert_says(&error, words);
	}
}

static void probe_knows_a_cache_even_if_it_is_damaged(void **state)
{
	(void)state;
	assert_int_equal(lc_cache_probe(&ssd.store, &error), 1);
	mem_block(&ssd, 0)[99] ^= 1;
	mem_block(&ssd, 1)[99] ^= 1;
	assert_int_equal(lc_cache_probe(&ssd.store, &error), 1);
	memset(mem_block(&ssd, 0), 0, LC_BLOCK);
	assert_int_equal(lc_cache_probe(&ssd.store, &error), 1);
	memset(mem_block(&ssd, 1), 0, LC_BLOCK);
	assert_int_equal(lc_cache_probe(&ssd.store, &error), 0);
	ssd.read_error = -EIO;
	assert_int_equal(lc_cache_probe(&ssd.store, &error), -EIO);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(impossible_formats_are_refused),
		T(too_small_a_device_is_told_how_small_is_possible),
		T(probe_knows_a_cache_even_if_it_is_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
