/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cache.c - a cache as its user sees it: refusals (I12), life with real threads, memory.
 */
#include "mem_store.h"

#include "logcache/logcache.h"

#define MIB (1u << 20)

static struct mem_store ssd, disk, other;
static struct lc_settings settings;
static struct lc_error error;
static struct lc_cache *cache;

static int format(u32 segment_bytes)
{
	return lc_cache_format(&ssd.store,
			       &(struct lc_format_options){.segment_bytes = segment_bytes}, &error);
}

/* An SSD of 4 MiB with small segments; disks of 1 MiB of noise. Write-back only when asked for. */
static int setup(void **state)
{
	u64 seed = 9;

	(void)state;
	mem_open(&ssd, "/dev/fast", 4 * MIB);
	mem_open(&disk, "/dev/slow", MIB);
	mem_open(&other, "/dev/other", MIB);
	rnd_fill(&seed, disk.data, MIB);
	rnd_fill(&seed, other.data, MIB);
	lc_settings_init(&settings);
	settings.nr_buffers = 8;
	settings.writeback = false;
	settings.idle_ms = 0;
	settings.flush_interval_ms = 20;
	settings.retry_ms = 10;
	settings.stall_timeout_ms = 500;
	memset(&error, 0, sizeof error);
	mem_log_text[0] = 0;
	cache = NULL;
	return format(32768);
}

static int close_cache(void)
{
	struct lc_cache *c = cache;

	cache = NULL;
	return lc_cache_close(c);
}

static int teardown(void **state)
{
	(void)state;
	if (cache)		     /* the test has failed */
		(void)close_cache(); /* whatever it says now */
	lc_store_close(&ssd.store);
	lc_store_close(&disk.store);
	lc_store_close(&other.store);
	return 0;
}

static int open_with(const char *name, struct mem_store *backing)
{
	struct lc_volume_spec spec = {name, &backing->store};

	return lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error);
}

static struct lc_volume *must_open(struct mem_store *backing)
{
	if (open_with("", backing) || lc_cache_start(cache, &error))
		fail_msg("%s", error.text);
	return lc_cache_volume(cache, 0);
}

static void must_close(void)
{
	assert_int_equal(close_cache(), 0);
}

/* Whoever opens like this is refused, with these words, before anything was written anywhere. */
static void assert_refused(const char *name, struct mem_store *backing, int want, const char *words)
{
	mem_forget(&ssd);
	mem_forget(backing);
	assert_int_equal(open_with(name, backing), want);
	assert_says(&error, words);
	assert_int_equal(ssd.writes, 0);
	assert_int_equal(backing->writes, 0);
}

static void put(u64 offset_bytes, u32 len_bytes, u8 with)
{
	static u8 buf[16384];

	assert_true(len_bytes <= sizeof buf);
	memset(buf, with, len_bytes);
	assert_int_equal(lc_write(lc_cache_volume(cache, 0), buf, len_bytes, offset_bytes, 0), 0);
}

static void assert_reads(u64 offset_bytes, u32 len_bytes, u8 want)
{
	static u8 buf[16384];

	assert_true(len_bytes <= sizeof buf);
	assert_int_equal(lc_read(lc_cache_volume(cache, 0), buf, len_bytes, offset_bytes), 0);
	for (u32 i = 0; i < len_bytes; i++)
		if (buf[i] != want)
			fail_msg("byte %llu: %02x, not %02x", (unsigned long long)offset_bytes + i,
				 buf[i], want);
}

static struct lc_stats stats(void)
{
	struct lc_stats s;

	lc_cache_stats(cache, &s);
	return s;
}

/* Blocks that clients read from the cache. */
static u64 read_hits(void)
{
	struct lc_stats s = stats();

	return lc_stats_blocks(&s, LC_KIND_HIT, LC_KIND_WRITE);
}

/* A closed cache that holds one dirty block, number 100, for the default volume on `disk`. */
static void make_dirty(void)
{
	must_open(&disk);
	put(100 * LC_BLOCK, LC_BLOCK, 0x77);
	must_close();
}

static void make_clean(void)
{
	must_open(&disk);
	put(100 * LC_BLOCK, LC_BLOCK, 0x77);
	assert_int_equal(lc_cache_drain(cache), 0);
	must_close();
}

/* --- the smallest --- */

static void the_smallest_cache_works(void **state)
{
	static const u32 sizes[] = {8192, 65536, MIB};

	(void)state;
	settings.nr_buffers = 2;
	for (u32 i = 0; i < 3; i++) {
		lc_store_close(&ssd.store);
		mem_open(&ssd, "/dev/fast", lc_cache_min_bytes(sizes[i]));
		assert_int_equal(format(sizes[i]), 0);
		must_open(&disk);
		for (u32 k = 0; k < 200; k++)
			put(k * 37 % 256 * LC_BLOCK, LC_BLOCK, k * 37 % 256 + i);
		assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
		for (u32 k = 0; k < 200; k++)
			assert_reads(k * 37 % 256 * LC_BLOCK, LC_BLOCK, k * 37 % 256 + i);
		must_close();
		must_open(&disk);
		for (u32 k = 0; k < 200; k++)
			assert_reads(k * 37 % 256 * LC_BLOCK, LC_BLOCK, k * 37 % 256 + i);
		assert_int_equal(lc_cache_drain(cache), 0);
		must_close();
		for (u32 k = 0; k < 200; k++)
			assert_int_equal(mem_block(&disk, k * 37 % 256)[k], (u8)(k * 37 % 256 + i));
	}
}

/* --- refusals --- */

static void another_backing_store_under_dirty_data_is_refused(void **state)
{
	(void)state;
	make_dirty();
	assert_refused("", &other, -EBUSY, "/dev/other");
	assert_says(&error, "not the backing store");
	must_open(&disk);
	assert_reads(100 * LC_BLOCK, LC_BLOCK, 0x77);
	must_close();
}

static void a_backing_store_written_to_by_others_under_dirty_data_is_refused(void **state)
{
	(void)state;
	make_dirty();
	disk.data[5] ^= 1; /* block 0 is a sample */
	assert_refused("", &disk, -EBUSY, "somebody wrote");
	disk.data[5] ^= 1;
	/* a sample that the log will overwrite anyway is no reason */
	must_open(&disk);
	put(0, LC_BLOCK, 1);
	must_close();
	disk.data[5] ^= 1;
	must_open(&disk);
	must_close();
}

static void a_shrunk_backing_store_is_refused(void **state)
{
	(void)state;
	make_dirty();
	disk.store.size_bytes = MIB - 1;
	assert_refused("", &disk, -EBUSY, "1048575");
	assert_says(&error, "1048576");
	assert_says(&error, "not written back");
}

static void a_volume_with_dirty_data_may_not_be_missing(void **state)
{
	struct lc_volume_spec both[] = {{"", &disk.store}, {"b", &other.store}};

	(void)state;
	make_dirty();
	assert_refused("b", &other, -EBUSY, "(default)");
	assert_says(&error, "1 blocks");
	/* both together are fine; then each alone is not */
	assert_int_equal(lc_cache_open(&ssd.store, both, 2, &settings, &cache, &error), 0);
	assert_true(lc_volume_size_bytes(lc_cache_volume(cache, 1)) == MIB);
	must_close();
	/* written back, it may be missing */
	must_open(&disk);
	assert_int_equal(lc_cache_drain(cache), 0);
	must_close();
	assert_int_equal(open_with("b", &other), 0);
	must_close();
}

static void a_changed_backing_store_without_dirty_data_drops_clean_blocks(void **state)
{
	(void)state;
	make_clean();
	memset(mem_block(&disk, 0), 0x11, LC_BLOCK);
	memset(mem_block(&disk, 100), 0x12, LC_BLOCK);
	must_open(&disk);
	assert_int_equal(stats().cached_blocks, 0);
	assert_non_null(strstr(mem_log_text, "/dev/slow"));
	assert_non_null(strstr(mem_log_text, "dropped"));
	assert_reads(100 * LC_BLOCK, LC_BLOCK, 0x12);
	must_close();
	/* they stay dropped, and the new fingerprint is known */
	mem_log_text[0] = 0;
	must_open(&disk);
	assert_int_equal(stats().cached_blocks, 0);
	assert_null(strstr(mem_log_text, "dropped"));
	must_close();
}

static void a_grown_backing_store_is_fine(void **state)
{
	(void)state;
	make_dirty();
	disk.store.size_bytes = MIB + 8192;
	must_open(&disk);
	assert_true(lc_volume_size_bytes(lc_cache_volume(cache, 0)) == MIB + 8192);
	assert_reads(100 * LC_BLOCK, LC_BLOCK, 0x77);
	assert_reads(MIB, 8192, 0);
	put(MIB + 4096, 4096, 0x55);
	must_close();
	must_open(&disk);
	assert_reads(MIB + 4096, 4096, 0x55);
	assert_int_equal(lc_cache_drain(cache), 0);
	must_close();
	assert_int_equal(disk.data[MIB + 8191], 0x55);
	disk.store.size_bytes = MIB; /* and now it would have shrunk */
	assert_refused("", &disk, -EBUSY, "1056768");
}

/*
 * A cached sector that was cut short by the end of the store has zeros where something was appended. Dirty, it
 * has to be written back first; clean, it must be forgotten, at the next openings, too.
 */
static void a_grown_backing_store_shows_what_was_appended(void **state)
{
	u64 end = 50 * LC_BLOCK + 17;

	(void)state;
	assert_int_equal(format(32768), 0);
	disk.store.size_bytes = end;
	must_open(&disk);
	put(end - 1000, 1000, 0x77);
	must_close();

	disk.store.size_bytes = end + 8192;
	memset(disk.data + end, 0x99, 8192);
	assert_refused("", &disk, -EBUSY, "on-exit=drain");

	disk.store.size_bytes = end;
	must_open(&disk);
	assert_int_equal(lc_cache_drain(cache), 0);
	must_close();

	disk.store.size_bytes = end + 8192;
	for (u32 opening = 0; opening < 3; opening++) {
		must_open(&disk);
		assert_reads(end - 1000, 1000, 0x77);
		assert_reads(end, 8192, 0x99);
		assert_int_equal(lc_cache_drain(cache), 0);
		must_close();
	}
	for (u32 i = 0; i < 8192; i++)
		assert_int_equal(disk.data[end + i], 0x99);
}

static void unknown_incompatible_features_are_refused(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		raw_put(mem_block(&ssd, i), 80, 8, 4);
		raw_reseal(mem_block(&ssd, i));
	}
	assert_refused("", &disk, -EMEDIUMTYPE, "newer logcache");
}

static void a_blank_device_is_no_cache(void **state)
{
	(void)state;
	memset(ssd.data, 0, 4 * MIB);
	assert_refused("", &disk, -EMEDIUMTYPE, "/dev/fast");
	ssd.store.size_bytes = 4096;
	assert_refused("", &disk, -EMEDIUMTYPE, "too small");
}

static void bad_arguments_are_refused(void **state)
{
	struct lc_volume_spec twice[] = {{"a", &disk.store}, {"a", &other.store}};
	char name[LC_NAME_BYTES + 1];

	(void)state;
	settings.nr_buffers = 1;
	assert_refused("", &disk, -EINVAL, "buffers");
	settings.nr_buffers = 65; /* recovery would not look that far for what was durable */
	assert_refused("", &disk, -EINVAL, "buffers");
	settings.nr_buffers = 8;
	settings.dirty_low_percent = 101;
	assert_refused("", &disk, -EINVAL, "dirty-low");
	settings.dirty_low_percent = 10;
	memset(name, 'n', sizeof name);
	name[LC_NAME_BYTES] = 0;
	assert_refused(name, &disk, -EINVAL, "longer than 63");
	assert_int_equal(lc_cache_open(&ssd.store, twice, 2, &settings, &cache, &error), -EINVAL);
	assert_says(&error, "twice");
	assert_int_equal(lc_cache_open(&ssd.store, twice, 0, &settings, &cache, &error), -EINVAL);
	disk.store.size_bytes = 0;
	assert_refused("", &disk, -EINVAL, "empty");
}

static void opening_fails_with_the_store_that_fails(void **state)
{
	(void)state;
	make_dirty();
	ssd.flush_error = -EIO;
	assert_refused("", &disk, -EIO, "/dev/fast");
	mem_revive(&ssd);
	mem_break_reads(&disk, 0);
	assert_refused("", &disk, -EIO, "/dev/slow");
	mem_revive(&disk);
	ssd.write_error = -EROFS;
	assert_refused("", &disk, -EROFS, "cannot write");
	mem_revive(&ssd);
	must_open(&disk);
	assert_reads(100 * LC_BLOCK, LC_BLOCK, 0x77);
	must_close();
}

/* I1: both superblock copies with the new epoch, before anything else; no record. */
static void opening_writes_the_superblock_first(void **state)
{
	(void)state;
	mem_forget(&ssd);
	mem_forget(&disk);
	assert_int_equal(open_with("new", &disk), 0);
	assert_int_equal(stats().epoch, 2);
	assert_int_equal(ssd.nr_trace, 9); /* flush; superblock: 4; volume page: 4 */
	assert_int_equal(ssd.trace[0].op, LC_IO_FLUSH);
	assert_true(ssd.trace[1].offset_bytes + ssd.trace[3].offset_bytes == LC_BLOCK);
	assert_int_equal(ssd.trace[2].op, LC_IO_FLUSH);
	assert_int_equal(ssd.trace[4].op, LC_IO_FLUSH);
	assert_int_equal(ssd.trace[5].offset_bytes / LC_BLOCK / 2, LC_PAGE_VOLUMES);
	assert_int_equal(disk.writes, 0);
	must_close(); /* it was never started */
}

/* --- life --- */

static void a_restart_is_warm(void **state)
{
	(void)state;
	must_open(&disk);
	for (u32 i = 0; i < 100; i++)
		put(i * LC_BLOCK, LC_BLOCK, i);
	assert_int_equal(lc_cache_drain(cache), 0);
	for (u32 i = 100; i < 150; i++)
		put(i * LC_BLOCK, LC_BLOCK, i);
	must_close();
	must_open(&disk);
	assert_int_equal(stats().cached_blocks, 150);
	disk.read_error = -EIO; /* nobody needs it */
	for (u32 i = 0; i < 150; i++)
		assert_reads(i * LC_BLOCK, LC_BLOCK, i);
	assert_int_equal(read_hits(), 150);
	must_close();
}

/* 96 segments, of which 30 are in use: waiting for one of 8 buffers is no want of segments. */
static void writeback_that_is_off_does_not_run_while_there_are_segments(void **state)
{
	(void)state;
	must_open(&disk);
	for (u32 i = 0; i < 200; i++)
		put(i * LC_BLOCK, LC_BLOCK, i);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	assert_int_equal(stats().dirty_blocks, 200);
	assert_int_equal(stats().sweeps, 0);
	must_close();
}

static void a_flush_with_nothing_to_do_costs_no_io(void **state)
{
	(void)state;
	settings.flush_interval_ms = 0;
	must_open(&disk);
	put(0, LC_BLOCK, 1);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	mem_forget(&ssd);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	assert_int_equal(ssd.writes + ssd.flushes + ssd.reads, 0);
	assert_true(stats().durable_seq == stats().seq);
	must_close();
}

static void what_was_flushed_survives_a_dead_ssd(void **state)
{
	u8 block[LC_BLOCK];

	(void)state;
	memset(block, 0x44, sizeof block);
	must_open(&disk);
	put(0, LC_BLOCK, 0x33);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	assert_int_equal(lc_write(lc_cache_volume(cache, 0), block, LC_BLOCK, LC_BLOCK, LC_FUA), 0);
	ssd.dead = true;
	put(2 * LC_BLOCK, LC_BLOCK, 0x55);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), -EIO);
	assert_true(close_cache() < 0);
	mem_revive(&ssd);
	must_open(&disk);
	assert_reads(0, LC_BLOCK, 0x33);
	assert_reads(LC_BLOCK, LC_BLOCK, 0x44);
	must_close();
}

/* --- memory --- */

static u64 memory_of(u64 ssd_bytes, u64 *blocks)
{
	u64 bytes;

	lc_store_close(&ssd.store);
	mem_open(&ssd, "/dev/fast", ssd_bytes);
	assert_int_equal(format(MIB), 0);
	assert_int_equal(open_with("", &disk), 0);
	*blocks = stats().capacity_blocks;
	bytes = stats().memory_bytes - (u64)settings.nr_buffers * MIB;
	must_close();
	return bytes;
}

static void a_block_costs_at_most_18_bytes(void **state)
{
	u64 small, large, small_blocks, large_blocks;

	(void)state;
	assert_true(lc_memory_per_block(MIB) <= 18);
	small = memory_of(1ull << 30, &small_blocks);
	large = memory_of(9ull << 30, &large_blocks);
	/* the slope is the price of a block, and what is left is a small fixed part */
	assert_true((large - small) <= 18 * (large_blocks - small_blocks));
	assert_true((large - small) * 1.02 >=
		    lc_memory_per_block(MIB) * (large_blocks - small_blocks));
	assert_true(small - small_blocks * 18 <= 8 * MIB || small <= small_blocks * 18);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_smallest_cache_works),
		T(another_backing_store_under_dirty_data_is_refused),
		T(a_backing_store_written_to_by_others_under_dirty_data_is_refused),
		T(a_shrunk_backing_store_is_refused),
		T(a_volume_with_dirty_data_may_not_be_missing),
		T(a_changed_backing_store_without_dirty_data_drops_clean_blocks),
		T(a_grown_backing_store_is_fine),
		T(a_grown_backing_store_shows_what_was_appended),
		T(unknown_incompatible_features_are_refused),
		T(a_blank_device_is_no_cache),
		T(bad_arguments_are_refused),
		T(opening_fails_with_the_store_that_fails),
		T(opening_writes_the_superblock_first),
		T(a_restart_is_warm),
		T(writeback_that_is_off_does_not_run_while_there_are_segments),
		T(a_flush_with_nothing_to_do_costs_no_io),
		T(what_was_flushed_survives_a_dead_ssd),
		T(a_block_costs_at_most_18_bytes),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
