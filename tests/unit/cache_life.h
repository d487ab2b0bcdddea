/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_life.h - a cache with real threads on stores in memory: opened, used, closed, crashed.
 *
 * make() creates the stores, on which every disk is full of its own byte; must_open() opens and starts the
 * cache with the volumes in `specs`. crash() is what a power cut leaves if the disks had written everything
 * that they were given: the content of all stores at one moment, from which the next must_open() has
 * to go on. (What may get lost between two flushes is the simulation's affair.) snapshot() takes that moment
 * somewhere inside the engine's work.
 *
 * Each program includes it once; everything is static.
 */
#ifndef LOGCACHE_TEST_CACHE_LIFE_H
#define LOGCACHE_TEST_CACHE_LIFE_H

#include "mem_store.h"

#include <time.h>

#include "logcache/logcache.h"

#define MIB (1u << 20)
#define DISKS_MAX 257u
#define NO_SSD ((u64)0)

static struct mem_store ssd, disks[DISKS_MAX];
static unsigned nr_disks;
static bool with_ssd;
static struct lc_volume_spec specs[DISKS_MAX];
static unsigned nr_specs;
static struct lc_settings settings;
static struct lc_error error;
static struct lc_cache *cache;

/* --- stores --- */

/* What a disk is full of at first. */
static UNUSED u8 noise(unsigned disk)
{
	return 0xd0 + disk % 32;
}

/* Stores and an empty cache. The volumes are called "", "v1", "v2" ... */
static UNUSED void make(u64 ssd_bytes, u32 segment_bytes, unsigned nr, u64 disk_bytes)
{
	struct lc_format_options o = {.segment_bytes = segment_bytes};
	static char names[DISKS_MAX][2][32];

	assert_true(nr <= DISKS_MAX);
	with_ssd = ssd_bytes;
	if (with_ssd) {
		mem_open(&ssd, "/dev/fast", ssd_bytes);
		assert_int_equal(lc_cache_format(&ssd.store, &o, &error), 0);
	}
	for (nr_disks = 0; nr_disks < nr; nr_disks++) {
		unsigned i = nr_disks;

		snprintf(names[i][0], sizeof names[i][0], "/dev/slow%u", i);
		if (i)
			snprintf(names[i][1], sizeof names[i][1], "v%u", i);
		mem_open(&disks[i], names[i][0], disk_bytes);
		memset(disks[i].data, noise(i), disk_bytes);
		specs[i] = (struct lc_volume_spec){names[i][1], &disks[i].store};
	}
	nr_specs = nr;
}

/* Nothing happens by itself but the flush of an old record. */
static UNUSED int life_setup(void **state)
{
	(void)state;
	lc_settings_init(&settings);
	settings.nr_buffers = 8;
	settings.writeback = false;
	settings.idle_ms = 0;
	settings.flush_interval_ms = 20;
	settings.retry_ms = 10;
	settings.stall_timeout_ms = 300;
	memset(&error, 0, sizeof error);
	mem_log_text[0] = 0;
	cache = NULL;
	with_ssd = false;
	nr_disks = 0;
	return 0;
}

/* --- life --- */

static UNUSED int close_cache(void)
{
	struct lc_cache *c = cache;

	cache = NULL;
	return lc_cache_close(c);
}

static UNUSED int life_teardown(void **state)
{
	(void)state;
	if (with_ssd)
		mem_revive(&ssd);
	for (unsigned i = 0; i < nr_disks; i++)
		mem_revive(&disks[i]);
	if (cache)		     /* the test has failed */
		(void)close_cache(); /* whatever it says now */
	if (with_ssd)
		lc_store_close(&ssd.store);
	for (unsigned i = 0; i < nr_disks; i++)
		mem_close(&disks[i].store);
	return 0;
}

static UNUSED int open_cache(void)
{
	return lc_cache_open(with_ssd ? &ssd.store : NULL, specs, nr_specs, &settings, &cache,
			     &error);
}

static UNUSED void must_open(void)
{
	if (open_cache() || lc_cache_start(cache, &error))
		fail_msg("%s", error.text);
}

static UNUSED void must_close(void)
{
	assert_int_equal(close_cache(), 0);
}

static UNUSED void must_drain(void)
{
	assert_int_equal(lc_cache_drain(cache), 0);
}

static UNUSED struct lc_stats stats(void)
{
	struct lc_stats s;

	lc_cache_stats(cache, &s);
	return s;
}

static UNUSED void sleep_ms(u32 ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static UNUSED u64 now_ms(void)
{
	return lc_now_ns() / LC_NS_PER_MS;
}

/* Wait until CONDITION holds, for at most five seconds. */
#define must_become(condition)                                              \
	do {                                                                \
		u64 end_ms_ = now_ms() + 5000;                              \
		while (!(condition) && now_ms() < end_ms_)                  \
			sleep_ms(2);                                        \
		if (!(condition))                                           \
			fail_msg("does not happen in 5 s: %s", #condition); \
	} while (0)

/* --- crashes --- */

static struct {
	u8 *ssd, *disks[DISKS_MAX];
} image;

static UNUSED u8 *copy_of(const struct mem_store *m)
{
	u8 *p = mem_map(m->map_bytes);

	/* A block that nobody has written takes no memory, in the copy neither. */
	for (u64 at = 0; at < m->store.size_bytes; at += LC_BLOCK)
		if (m->data[at] || memcmp(m->data + at, m->data + at + 1, LC_BLOCK - 1))
			memcpy(p + at, m->data + at, LC_BLOCK);
	return p;
}

static UNUSED bool have_snapshot(void)
{
	return image.ssd;
}

/* This is the moment. From any thread that is not doing I/O just now. */
static UNUSED void snapshot(void)
{
	assert_false(have_snapshot());
	lc_mutex_lock(&ssd.lock);
	for (unsigned i = 0; i < nr_disks; i++)
		lc_mutex_lock(&disks[i].lock);
	image.ssd = copy_of(&ssd);
	for (unsigned i = 0; i < nr_disks; i++)
		image.disks[i] = copy_of(&disks[i]);
	for (unsigned i = 0; i < nr_disks; i++)
		lc_mutex_unlock(&disks[i].lock);
	lc_mutex_unlock(&ssd.lock);
}

static UNUSED void restore(struct mem_store *m, u8 **from)
{
	mem_revive(m);
	munmap(m->data, m->map_bytes);
	m->data = *from;
	*from = NULL;
}

/* The power was cut at the moment of the snapshot, or, if there is none, is now. */
static UNUSED void crash(void)
{
	if (!have_snapshot())
		snapshot();
	(void)close_cache(); /* what it still does is undone */
	restore(&ssd, &image.ssd);
	for (unsigned i = 0; i < nr_disks; i++)
		restore(&disks[i], &image.disks[i]);
}

/* --- clients --- */

static UNUSED struct lc_volume *volume(unsigned i)
{
	return lc_cache_volume(cache, i);
}

static u8 client_buf[MIB];

static UNUSED int try_put(unsigned v, u64 offset_bytes, u32 len_bytes, u8 with)
{
	assert_true(len_bytes <= sizeof client_buf);
	memset(client_buf, with, len_bytes);
	return lc_write(volume(v), client_buf, len_bytes, offset_bytes, 0);
}

static UNUSED void put(unsigned v, u64 block, u32 nr, u8 with)
{
	assert_int_equal(try_put(v, block * LC_BLOCK, nr * LC_BLOCK, with), 0);
}

static UNUSED void zero(unsigned v, u64 block, u64 nr)
{
	assert_int_equal(lc_zero(volume(v), nr * LC_BLOCK, block * LC_BLOCK, 0), 0);
}

static UNUSED void flush(void)
{
	assert_int_equal(lc_flush(volume(0)), 0);
}

static UNUSED void assert_bytes(const u8 *p, u64 n, u8 want, u64 offset_bytes, const char *where)
{
	for (u64 i = 0; i < n; i++)
		if (p[i] != want)
			fail_msg("%s, byte %llu (block %llu): %02x, not %02x", where,
				 (unsigned long long)(offset_bytes + i),
				 (unsigned long long)((offset_bytes + i) / LC_BLOCK), p[i], want);
}

static UNUSED void assert_reads_bytes(unsigned v, u64 offset_bytes, u32 len_bytes, u8 want)
{
	assert_true(len_bytes <= sizeof client_buf);
	memset(client_buf, ~want, len_bytes);
	assert_int_equal(lc_read(volume(v), client_buf, len_bytes, offset_bytes), 0);
	assert_bytes(client_buf, len_bytes, want, offset_bytes, "a read");
}

static UNUSED void assert_reads(unsigned v, u64 block, u32 nr, u8 want)
{
	assert_reads_bytes(v, block * LC_BLOCK, nr * LC_BLOCK, want);
}

/* What the disk has by itself. */
static UNUSED void assert_on_disk(unsigned i, u64 block, u32 nr, u8 want)
{
	assert_bytes(mem_block(&disks[i], block), (u64)nr * LC_BLOCK, want, block * LC_BLOCK,
		     disks[i].store.name);
}

/* The N-th thing that the first disk remembers. */
static UNUSED void assert_disk_did(u32 n, enum lc_io_op op, u64 block, u64 nr)
{
	const struct mem_trace *t = &disks[0].trace[n];

	if (n >= disks[0].nr_trace)
		fail_msg("the disk did only %u things", disks[0].nr_trace);
	if (t->op != op || t->offset_bytes != block * LC_BLOCK || t->len_bytes != nr * LC_BLOCK)
		fail_msg("thing %u: operation %d on %llu+%llu bytes, not %d on blocks %llu+%llu", n,
			 (int)t->op, (unsigned long long)t->offset_bytes,
			 (unsigned long long)t->len_bytes, (int)op, (unsigned long long)block,
			 (unsigned long long)nr);
}

#define LIFE_TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)

#endif
