/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_reads.c - what a client's read asks of the stores: few reads, all of one store at once, and what it does when
 * some of them fail.
 *
 * The stores do several reads in the reverse order of the list, and count.
 */
#include "mem_store.h"

#include "logcache/logcache.h"

#define MIB (1u << 20)
#define BLOCKS 32u /* a chunk */

static struct mem_store ssd, disk;
static struct lc_settings settings;
static struct lc_error error;
static struct lc_cache *cache;
static struct lc_volume *volume;
static u8 model[BLOCKS * LC_BLOCK], buf[BLOCKS * LC_BLOCK];

struct asked {
	u32 calls, reads;
};
static struct asked of_ssd, of_disk;

static void read_many(struct lc_store *s, struct lc_io *ios, u32 nr)
{
	struct asked *a = mem_of(s) == &ssd ? &of_ssd : &of_disk;

	assert_true(nr >= 2);
	a->calls++;
	a->reads += nr;
	while (nr--)
		ios[nr].result = s->ops->read(s, ios[nr].buf, ios[nr].len_bytes,
					      ios[nr].offset_bytes);
}

static void open_cache(void)
{
	struct lc_volume_spec spec = {"", &disk.store};

	if (lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error) ||
	    lc_cache_start(cache, &error))
		fail_msg("%s", error.text);
	volume = lc_cache_volume(cache, 0);
}

/* Closed and opened again: nothing is in RAM buffers. */
static void restart(void)
{
	struct lc_cache *c = cache;

	cache = NULL;
	assert_int_equal(lc_cache_close(c), 0);
	open_cache();
	memset(&of_ssd, 0, sizeof of_ssd);
	memset(&of_disk, 0, sizeof of_disk);
	mem_forget(&ssd);
	mem_forget(&disk);
}

static int setup(void **state)
{
	static struct lc_store_ops ops;
	u64 seed = 5;

	(void)state;
	mem_open(&ssd, "/dev/fast", 4 * MIB);
	mem_open(&disk, "/dev/slow", MIB);
	ops = *ssd.store.ops;
	ops.read_many = read_many;
	ssd.store.ops = disk.store.ops = &ops;
	rnd_fill(&seed, disk.data, MIB);
	memcpy(model, disk.data, sizeof model);
	lc_settings_init(&settings);
	settings.nr_buffers = 8;
	settings.writeback = false;
	settings.idle_ms = 0;
	settings.retry_ms = 10;
	if (lc_cache_format(&ssd.store, &(struct lc_format_options){.segment_bytes = 32768}, &error))
		return -1;
	open_cache();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (cache)
		(void)lc_cache_close(cache); /* what it says does not matter after a failure */
	cache = NULL;
	lc_store_close(&ssd.store);
	lc_store_close(&disk.store);
	return 0;
}

static void write_block(u32 block)
{
	u64 seed = 100 + block;

	rnd_fill(&seed, model + block * LC_BLOCK, LC_BLOCK);
	assert_int_equal(lc_write(volume, model + block * LC_BLOCK, LC_BLOCK, block * LC_BLOCK, 0),
			 0);
}

/* Each block's neighbours in the volume are nowhere near it in the log. */
static void write_scattered(void)
{
	for (u32 i = 0; i < BLOCKS; i++)
		write_block(i * 11 % BLOCKS);
}

static void assert_reads_all(void)
{
	memset(buf, 0xee, sizeof buf);
	assert_int_equal(lc_read(volume, buf, sizeof buf, 0), 0);
	assert_memory_equal(buf, model, sizeof buf);
}

/* Where the SSD has this block of the volume. */
static u64 place_of(u32 block)
{
	for (u64 at = 0; at < 4 * MIB / LC_BLOCK; at++)
		if (!memcmp(mem_block(&ssd, at), model + block * LC_BLOCK, LC_BLOCK))
			return at;
	fail_msg("block %u is not on the SSD", block);
	return 0;
}

static void scattered_blocks_are_read_at_once(void **state)
{
	(void)state;
	write_scattered();
	restart();
	assert_reads_all();
	assert_int_equal(of_ssd.calls, 1);
	assert_int_equal(of_ssd.reads, BLOCKS);
	assert_int_equal(ssd.reads, BLOCKS);
	assert_int_equal(disk.reads, 0);
}

static void blocks_that_lie_side_by_side_are_one_read(void **state)
{
	(void)state;
	for (u32 i = 0; i < BLOCKS; i++)
		write_block(i);
	restart();
	assert_reads_all();
	assert_int_equal(of_ssd.calls, 1);
	/* A segment of 32 KiB has room for six or seven. */
	assert_in_range(of_ssd.reads, 2, 6);
}

static void one_block_is_a_plain_read(void **state)
{
	(void)state;
	write_scattered();
	restart();
	assert_int_equal(lc_read(volume, buf, LC_BLOCK, 7 * LC_BLOCK), 0);
	assert_memory_equal(buf, model + 7 * LC_BLOCK, LC_BLOCK);
	assert_int_equal(of_ssd.calls, 0);
	assert_int_equal(ssd.reads, 1);
}

static void what_is_missing_is_read_at_once(void **state)
{
	(void)state;
	for (u32 i = 0; i < BLOCKS; i += 4)
		write_block(i);
	restart();
	assert_reads_all();
	assert_int_equal(of_disk.calls, 1);
	assert_int_equal(of_disk.reads, BLOCKS / 4); /* of three blocks each */
	assert_int_equal(of_ssd.calls, 1);
}

/* A block that needs both stores: its sectors come together in the client's buffer, not in ours. */
static void halves_of_blocks_come_from_both(void **state)
{
	(void)state;
	for (u32 i = 0; i < BLOCKS; i += 2) {
		u32 at = i * 7 % BLOCKS * LC_BLOCK + LC_SECTOR;

		memset(model + at, (int)i + 1, 3 * LC_SECTOR);
		assert_int_equal(lc_write(volume, model + at, 3 * LC_SECTOR, at, 0), 0);
	}
	restart();
	assert_reads_all();
	/* A range that begins and ends in the middle of such blocks. */
	memset(buf, 0xee, sizeof buf);
	assert_int_equal(lc_read(volume, buf, 20 * LC_BLOCK, 2 * LC_BLOCK + 700), 0);
	assert_memory_equal(buf, model + 2 * LC_BLOCK + 700, 20 * LC_BLOCK);
}

/* Of a clean block there is another copy; its neighbours are not affected, whether read with it or apart. */
static void a_clean_block_that_fails_comes_from_the_backing_store(void **state)
{
	bool scattered = *state;
	u64 bad, rotten;

	if (scattered)
		write_scattered();
	else
		for (u32 i = 0; i < BLOCKS; i++)
			write_block(i);
	assert_int_equal(lc_cache_drain(cache), 0);
	restart();
	bad = place_of(9);
	rotten = place_of(20);
	mem_break_reads(&ssd, bad);
	mem_block(&ssd, rotten)[1234] ^= 1;
	assert_reads_all();
	assert_in_range(disk.reads, 1, 2);
	/* Both were dropped, no others. */
	mem_forget(&disk);
	assert_reads_all();
	assert_in_range(disk.reads, 1, 2);
	mem_revive(&ssd);
}

static void a_dirty_block_that_fails_is_an_error(void **state)
{
	(void)state;
	write_scattered();
	restart();
	mem_break_reads(&ssd, place_of(9));
	assert_int_equal(lc_read(volume, buf, sizeof buf, 0), -EIO);
	assert_int_equal(lc_read(volume, buf, 9 * LC_BLOCK, 0), 0);
	assert_memory_equal(buf, model, 9 * LC_BLOCK);
	assert_int_equal(lc_read(volume, buf, 22 * LC_BLOCK, 10 * LC_BLOCK), 0);
	assert_memory_equal(buf, model + 10 * LC_BLOCK, 22 * LC_BLOCK);
	mem_revive(&ssd);
	assert_reads_all();
}

/* I10: the crc finds what the SSD does not; the backing store, which could be read, has what was there before. */
static void a_dirty_block_that_is_rotten_is_an_error(void **state)
{
	struct lc_stats st;
	u64 rotten;

	(void)state;
	write_scattered();
	restart();
	rotten = place_of(9);
	for (u32 sector = 0; sector < LC_SECTORS_PER_BLOCK; sector++) {
		u8 *byte = mem_block(&ssd, rotten) + sector * LC_SECTOR + 71 * sector;

		*byte ^= 1;
		assert_int_equal(lc_read(volume, buf, sizeof buf, 0), -EIO);
		assert_int_equal(lc_read(volume, buf, LC_BLOCK, 9 * LC_BLOCK), -EIO);
		/* A part of it, and what a part would be merged with. */
		assert_int_equal(lc_read(volume, buf, 1, 10 * LC_BLOCK - 1), -EIO);
		assert_int_equal(lc_write(volume, buf, LC_SECTOR, 9 * LC_BLOCK, 0), -EIO);
		*byte ^= 1;
	}
	lc_cache_stats(cache, &st);
	assert_int_equal(st.crc_errors, 4 * LC_SECTORS_PER_BLOCK);
	assert_int_equal(disk.reads, 4 * LC_SECTORS_PER_BLOCK); /* it might have had the same */
	assert_reads_all();
}

static void a_missing_block_that_fails_is_an_error(void **state)
{
	(void)state;
	for (u32 i = 0; i < BLOCKS; i += 4)
		write_block(i);
	restart();
	mem_break_reads(&disk, 30);
	assert_int_equal(lc_read(volume, buf, sizeof buf, 0), -EIO);
	mem_revive(&disk);
	assert_reads_all();
}

int main(void)
{
	static bool yes = true;
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(scattered_blocks_are_read_at_once),
		T(blocks_that_lie_side_by_side_are_one_read),
		T(one_block_is_a_plain_read),
		T(what_is_missing_is_read_at_once),
		T(halves_of_blocks_come_from_both),
		T(a_clean_block_that_fails_comes_from_the_backing_store),
		{"the same, scattered", a_clean_block_that_fails_comes_from_the_backing_store,
		 setup, teardown, &yes},
		T(a_dirty_block_that_fails_is_an_error),
		T(a_dirty_block_that_is_rotten_is_an_error),
		T(a_missing_block_that_fails_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
