/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_random.c - requests of any alignment and length at random, and the cache opened again in between, against an array of bytes;
 * volumes that are smaller than a sector, odd, larger than their cache.
 *
 * The requests are the same in each run.
 */
#include "cache_life.h"

static struct mem_store *const disk = &disks[0];

static int setup(void **state)
{
	int ret = life_setup(state);
	u64 seed = 9;

	make(4 * MIB, 32768, 1, 1024 * LC_BLOCK);
	rnd_fill(&seed, disk->data, MIB);
	return ret;
}

/* --- reads and writes --- */

/* Reads and writes of any alignment, flushes, drains and restarts, against an array of bytes. */
static void random_io_agrees_with_an_array(u64 size_bytes, u32 rounds)
{
	u8 *model = malloc(size_bytes), *buf = malloc(size_bytes);
	u64 seed = size_bytes;

	disk->store.size_bytes = size_bytes;
	memcpy(model, disk->data, size_bytes);
	must_open();
	for (u32 i = 0; i < rounds; i++) {
		u64 max = rnd_below(&seed, 4) ? 9000 : size_bytes;
		u64 offset = rnd_below(&seed, size_bytes), len;

		if (rnd_below(&seed, 3) == 0)
			offset -= offset % LC_SECTOR;
		len = 1 + rnd_below(&seed, max);
		if (rnd_below(&seed, 3) == 0)
			len = (len + LC_SECTOR - 1) / LC_SECTOR * LC_SECTOR;
		if (len > size_bytes - offset)
			len = size_bytes - offset; /* often: up to the odd end */
		switch (rnd_below(&seed, 16)) {
		case 0:
			flush();
			break;
		case 1:
			if (rnd_below(&seed, 4))
				break;
			if (rnd_below(&seed, 2))
				must_drain();
			must_close();
			must_open();
			break;
		case 2 ... 8:
			rnd_fill(&seed, buf, len);
			memcpy(model + offset, buf, len);
			assert_int_equal(lc_write(volume(0), buf, len, offset, i % 9 ? 0 : LC_FUA),
					 0);
			break;
		default:
			assert_int_equal(lc_read(volume(0), buf, len, offset), 0);
			assert_memory_equal(buf, model + offset, len);
		}
	}
	assert_int_equal(lc_read(volume(0), buf, size_bytes, 0), 0);
	assert_memory_equal(buf, model, size_bytes);
	must_drain();
	assert_int_equal(stats().dirty_blocks, 0);
	must_close();
	assert_memory_equal(disk->data, model, size_bytes);
	free(model);
	free(buf);
}

static void an_odd_sized_volume_of_four_blocks(void **state)
{
	(void)state;
	random_io_agrees_with_an_array(4096 * 3 + 17, 3000);
}

static void a_volume_smaller_than_a_sector(void **state)
{
	(void)state;
	random_io_agrees_with_an_array(3, 300);
}

static void an_odd_sized_volume_larger_than_its_cache(void **state)
{
	(void)state;
	ssd.store.size_bytes = MIB + 512 * 1024; /* 512 KiB of log */
	assert_int_equal(lc_cache_format(&ssd.store,
					 &(struct lc_format_options){.segment_bytes = 16384}, &error),
			 0);
	random_io_agrees_with_an_array(MIB - 511, 1500);
}

/* --- with zeros, trims and crashes --- */

/* Reads, writes, zeros and trims of any alignment, crashes and restarts, against an array of bytes. */
static void random_zeros_agree_with_an_array(u64 size, u32 rounds)
{
	u8 *model = malloc(size), *buf = malloc(size);
	u64 seed = size;

	disk->store.size_bytes = size;
	memcpy(model, disk->data, size);
	must_open();
	for (u32 i = 0; i < rounds; i++) {
		u64 most = rnd_below(&seed, 4) ? 30 * LC_BLOCK : size;
		u64 offset = rnd_below(&seed, size), len = 1 + rnd_below(&seed, most);
		u64 unit = rnd_below(&seed, 3) ? LC_BLOCK : rnd_below(&seed, 2) ? LC_SECTOR : 1;
		unsigned flags = rnd_below(&seed, 8) ? 0 : LC_FUA;
		u64 first, end;

		offset -= offset % unit;
		len = (len + unit - 1) / unit * unit;
		if (len > size - offset)
			len = size - offset;
		first = (offset + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
		end = (offset + len) / LC_BLOCK * LC_BLOCK;
		switch (rnd_below(&seed, 24)) {
		case 0:
			flush();
			break;
		case 1:
			must_drain();
			break;
		case 2:
			if (rnd_below(&seed, 2)) {
				flush();
				crash();
			} else {
				must_close();
			}
			must_open();
			break;
		case 3 ... 8:
			memset(model + offset, 0, len);
			if (rnd_below(&seed, 3) == 0)
				flags |= LC_MAY_TRIM;
			assert_int_equal(lc_zero(volume(0), len, offset, flags), 0);
			break;
		case 9 ... 10:
			if (first < end)
				memset(model + first, 0, end - first);
			assert_int_equal(lc_trim(volume(0), len, offset, flags), 0);
			break;
		case 11 ... 16:
			rnd_fill(&seed, buf, len);
			memcpy(model + offset, buf, len);
			assert_int_equal(lc_write(volume(0), buf, len, offset, flags), 0);
			break;
		default:
			assert_int_equal(lc_read(volume(0), buf, len, offset), 0);
			assert_memory_equal(buf, model + offset, len);
		}
	}
	assert_int_equal(lc_read(volume(0), buf, size, 0), 0);
	assert_memory_equal(buf, model, size);
	must_drain();
	must_close();
	assert_memory_equal(disk->data, model, size);
	free(model);
	free(buf);
}

static void random_requests_on_a_small_odd_volume(void **state)
{
	(void)state;
	random_zeros_agree_with_an_array(40 * LC_BLOCK + 17, 1500);
}

static void random_requests_on_a_volume_larger_than_the_cache(void **state)
{
	(void)state;
	settings.writeback = true;
	settings.nr_buffers = 3;
	random_zeros_agree_with_an_array(1000 * LC_BLOCK - 511, 500);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_odd_sized_volume_of_four_blocks),
		T(a_volume_smaller_than_a_sector),
		T(an_odd_sized_volume_larger_than_its_cache),
		T(random_requests_on_a_small_odd_volume),
		T(random_requests_on_a_volume_larger_than_the_cache),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
