/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_volumes.c - several volumes on one cache: those that are left out and come back, that are
 * swapped, that are too many, and whose disks fail while the others work.
 */
#include "cache_life.h"

#include "meta.h"

#define BLOCKS 512u /* of a disk */

/* A cache of three volumes. */
static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 3, BLOCKS * LC_BLOCK);
	return ret;
}

/* 255 small ones. */
static int setup_many(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, LC_VOLUMES_MAX, 16 * LC_BLOCK);
	return ret;
}

/* The cache is to be opened with the first NR volumes. */
static void serve_first(unsigned nr)
{
	nr_specs = nr;
}

/* ... or with one alone, under its own name. */
static struct lc_volume_spec all_specs[DISKS_MAX];

static void serve_only(unsigned i)
{
	if (nr_specs > 1)
		memcpy(all_specs, specs, sizeof specs);
	specs[0] = all_specs[i];
	nr_specs = 1;
}

static void serve_all(void)
{
	memcpy(specs, all_specs, sizeof specs);
	nr_specs = nr_disks;
}

static void assert_refused(int want, const char *words)
{
	mem_forget(&ssd);
	for (unsigned i = 0; i < nr_disks; i++)
		mem_forget(&disks[i]);
	assert_int_equal(open_cache(), want);
	assert_says(&error, words);
	assert_int_equal(ssd.writes, 0);
	for (unsigned i = 0; i < nr_disks; i++)
		assert_int_equal(disks[i].nr_trace, 0);
}

/* Block BLOCK is no sample of a fingerprint: whoever changes it is not noticed. */
static void change_unnoticed(unsigned i, u64 block, u8 with)
{
	for (unsigned k = 0; k < LC_NR_SAMPLES; k++)
		assert_true((u64)(BLOCKS - 1) * k / (LC_NR_SAMPLES - 1) != block);
	memset(mem_block(&disks[i], block), with, LC_BLOCK);
}

/* Of the volume that has ID a block is lost; there need not be one. */
static void lose(u8 id, u64 block)
{
	struct lc_meta meta;
	struct lc_mutex lock;
	int page;

	lc_mutex_init(&lock);
	assert_int_equal(lc_meta_load(&meta, &ssd.store, &error), 0);
	page = lc_bad_add(&meta.bad, id, block, LC_MASK_FULL, 0);
	assert_true(page >= 0);
	assert_int_equal(lc_meta_write(&meta, &lock, LC_PAGE_BAD + page,
				       (struct lc_flusher){lc_meta_flush_store, NULL, &ssd.store}),
			 0);
	lc_meta_destroy(&meta);
	lc_mutex_destroy(&lock);
}

/* --- together --- */

static void volumes_do_not_see_each_other(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < 3; i++)
		put(i, 100, 50, 0x10 + i);
	put(0, BLOCKS - 5, 5, 0x20);
	zero(0, 110, 20);
	zero(1, 120, 20);
	zero(1, BLOCKS - 20, 20); /* up to the border */
	assert_int_equal(stats().pending_zero_blocks, 60);
	for (u32 turn = 0; turn < 2; turn++) {
		assert_reads(0, 110, 20, 0);
		assert_reads(0, 130, 20, 0x10);
		assert_reads(0, BLOCKS - 5, 5, 0x20);
		assert_reads(1, 100, 20, 0x11);
		assert_reads(1, 120, 20, 0);
		assert_reads(1, BLOCKS - 20, 20, 0);
		assert_reads(2, 0, 100, noise(2));
		assert_reads(2, 100, 50, 0x12);
		must_drain();
	}
	must_close();
	assert_on_disk(0, 110, 20, 0);
	assert_on_disk(1, BLOCKS - 20, 20, 0);
	assert_on_disk(2, 100, 50, 0x12);
}

/* One log, so one flush. */
static void a_flush_of_one_volume_covers_the_others(void **state)
{
	(void)state;
	settings.flush_interval_ms = 0;
	must_open();
	put(0, 10, 1, 0x10);
	put(2, 10, 1, 0x12);
	zero(2, 50, 50);
	assert_int_equal(lc_flush(volume(1)), 0);
	crash();
	must_open();
	assert_reads(0, 10, 1, 0x10);
	assert_reads(2, 10, 1, 0x12);
	assert_reads(2, 50, 50, 0);
	must_close();
}

/* --- left out --- */

static void a_volume_with_dirty_blocks_may_not_be_left_out(void **state)
{
	(void)state;
	must_open();
	put(2, 10, 3, 0x12);
	must_close();
	serve_first(2);
	assert_refused(-EBUSY, "volume v2");
	assert_says(&error, "3 blocks");
	assert_says(&error, "nothing was changed");
	serve_first(3);
	must_open();
	assert_reads(2, 10, 3, 0x12);
	must_drain();
	must_close();
	serve_first(2);
	must_open();
	must_close();
}

static void a_volume_with_pending_zeros_may_not_be_left_out(void **state)
{
	(void)state;
	must_open();
	zero(2, 10, 30);
	must_close();
	serve_first(2);
	assert_refused(-EBUSY, "volume v2");
	assert_says(&error, "30 blocks");
	serve_first(3);
	must_open();
	must_drain();
	must_close();
	serve_first(2);
	must_open();
	must_close();
}

static void a_volume_that_was_left_out_has_lost_its_clean_blocks(void **state)
{
	(void)state;
	must_open();
	put(0, 100, 5, 0x10);
	put(2, 100, 5, 0x12);
	must_drain();
	assert_int_equal(stats().cached_blocks, 10);
	must_close();
	serve_first(2);
	must_open();
	assert_int_equal(stats().cached_blocks, 5);
	assert_reads(0, 100, 5, 0x10);
	must_close();
	/* meanwhile somebody else writes to it, where no fingerprint looks */
	change_unnoticed(2, 102, 0x99);
	serve_first(3);
	must_open();
	assert_reads(2, 100, 2, 0x12);
	assert_reads(2, 102, 1, 0x99);
	assert_reads(0, 100, 5, 0x10);
	must_close();
	/* and they stay lost */
	must_open();
	assert_reads(2, 102, 1, 0x99);
	put(2, 103, 1, 0x13);
	flush();
	crash();
	must_open();
	assert_reads(2, 102, 1, 0x99);
	assert_reads(2, 103, 1, 0x13);
	must_close();
}

/* An opening without it that did not even start counts; so does one that crashed at once. */
static void an_opening_without_it_is_enough(void **state)
{
	(void)state;
	for (u32 how = 0; how < 2; how++) {
		must_open();
		put(2, 100, 5, 0x12 + how);
		must_drain();
		must_close();
		serve_first(2);
		assert_int_equal(open_cache(), 0);
		if (how)
			crash();
		else
			must_close();
		change_unnoticed(2, 102, 0x99);
		serve_first(3);
		must_open();
		assert_reads(2, 102, 1, 0x99);
		assert_reads(2, 103, 1, 0x12 + how);
		must_close();
	}
}

static void what_it_wrote_before_does_not_come_back(void **state)
{
	(void)state;
	must_open();
	put(2, 100, 5, 0x12);
	zero(2, 120, 20);
	must_drain();
	must_close();
	serve_first(1);
	must_open();
	put(0, 0, 14, 0x10); /* the log goes on */
	must_close();
	change_unnoticed(2, 101, 0x99);
	change_unnoticed(2, 125, 0x98);
	serve_first(3);
	must_open();
	put(2, 103, 1, 0x13); /* newer than from_seq */
	must_close();
	must_open();
	assert_int_equal(stats().pending_zero_blocks, 0);
	assert_reads(2, 101, 1, 0x99);
	assert_reads(2, 125, 1, 0x98);
	assert_reads(2, 103, 1, 0x13);
	must_drain();
	must_close();
	assert_on_disk(2, 101, 1, 0x99);
	assert_on_disk(2, 125, 1, 0x98);
}

/* --- the wrong disks --- */

static void swapped_disks_are_named(void **state)
{
	struct lc_store *first = specs[0].backing;

	(void)state;
	must_open();
	put(0, 101, 1, 0x10);
	put(1, 101, 1, 0x11);
	must_close();
	specs[0].backing = specs[1].backing;
	specs[1].backing = first;
	assert_refused(-EBUSY, "swapped");
	assert_says(&error, "/dev/slow1");
	assert_says(&error, "volume (default)");
	assert_says(&error, "that of volume v1");
	specs[1].backing = specs[0].backing;
	specs[0].backing = first;
	must_open();
	assert_reads(0, 101, 1, 0x10);
	must_close();
}

static void a_foreign_disk_is_not_called_swapped(void **state)
{
	(void)state;
	must_open();
	put(0, 101, 1, 0x10);
	must_close();
	memset(disks[0].data, 0x77, BLOCKS * LC_BLOCK);
	assert_refused(-EBUSY, "somebody wrote");
	assert_null(strstr(error.text, "swapped"));
}

/* Without dirty data there is nothing to lose: each volume is what its disk is. */
static void swapped_disks_without_dirty_data_are_as_they_are(void **state)
{
	struct lc_store *first = specs[0].backing;

	(void)state;
	must_open();
	put(0, 101, 1, 0x10);
	put(1, 101, 1, 0x11);
	must_drain();
	must_close();
	specs[0].backing = specs[1].backing;
	specs[1].backing = first;
	must_open();
	assert_int_equal(stats().cached_blocks, 0);
	assert_reads(0, 101, 1, 0x11);
	assert_reads(1, 101, 1, 0x10);
	assert_reads(1, 102, 1, noise(0));
	must_close();
}

static void the_order_of_the_specs_does_not_matter(void **state)
{
	struct lc_volume_spec first = specs[0];

	(void)state;
	must_open();
	put(0, 101, 1, 0x10);
	put(2, 101, 1, 0x12);
	must_close();
	specs[0] = specs[2];
	specs[2] = first;
	must_open();
	assert_reads(0, 101, 1, 0x12);
	assert_reads(2, 101, 1, 0x10);
	must_drain();
	must_close();
	assert_on_disk(0, 101, 1, 0x10);
	assert_on_disk(2, 101, 1, 0x12);
}

/* --- many --- */

static void there_may_be_255(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		put(i, 3, 1, i);
	must_close();
	must_open();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		assert_reads(i, 3, 1, i);
	assert_int_equal(stats().dirty_blocks, LC_VOLUMES_MAX);
	must_drain();
	must_close();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		assert_on_disk(i, 3, 1, i);
	/* and no more */
	mem_open(&disks[LC_VOLUMES_MAX], "/dev/one-more", 16 * LC_BLOCK);
	nr_disks++;
	specs[LC_VOLUMES_MAX] = (struct lc_volume_spec){"more", &disks[LC_VOLUMES_MAX].store};
	nr_specs++;
	assert_refused(-EINVAL, "256 volumes");
}

/* Another disk under a new name, in the place of spec NUMBER. */
static void serve_new_as(unsigned number)
{
	mem_open(&disks[LC_VOLUMES_MAX], "/dev/one-more", 16 * LC_BLOCK);
	memset(disks[LC_VOLUMES_MAX].data, 0xee, 16 * LC_BLOCK);
	nr_disks++;
	specs[number] = (struct lc_volume_spec){"more", &disks[LC_VOLUMES_MAX].store};
}

static void the_256th_name_takes_the_place_of_one_that_is_left_out(void **state)
{
	const struct lc_volume_spec old = specs[77];

	(void)state;
	must_open();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		put(i, 3, 2, i);
	zero(77, 0, 16);
	must_drain();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		if (i != 77)
			put(i, 5, 1, i); /* those cannot be left out */
	must_close();
	serve_new_as(77);
	must_open();
	assert_non_null(strstr(mem_log_text, "volume v77 is forgotten"));
	assert_non_null(strstr(mem_log_text, "more"));
	assert_reads(77, 0, 16, 0xee); /* nothing of what was there under this number */
	put(77, 4, 1, 0x55);
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		if (i != 77)
			assert_reads(i, 5, 1, i);
	flush();
	crash();
	must_open();
	assert_reads(77, 0, 4, 0xee);
	assert_reads(77, 4, 1, 0x55);
	must_drain();
	must_close();
	assert_on_disk(LC_VOLUMES_MAX, 0, 4, 0xee);
	assert_on_disk(LC_VOLUMES_MAX, 4, 1, 0x55);
	/* the forgotten one comes back as a new one, in the place of "more" */
	memset(mem_block(&disks[77], 3), 0x99, LC_BLOCK);
	specs[77] = old;
	must_open();
	assert_non_null(strstr(mem_log_text, "volume more is forgotten"));
	assert_reads(77, 3, 1, 0x99);
	must_close();
}

static void no_name_gives_way_that_has_dirty_or_lost_data(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		if (i % 10 == 1) /* not so many that they have to be written back */
			zero(i, 0, 16);
		else
			put(i, 3, 1, i);
	must_close();
	memcpy(all_specs, specs, sizeof specs);
	serve_new_as(0);
	nr_specs = 1;
	assert_refused(-EBUSY, "serve that volume, too");
	assert_null(strstr(mem_log_text, "dropped")); /* nobody is told of what does not happen */
	/* nothing happened to anybody */
	memcpy(specs, all_specs, sizeof specs);
	nr_specs = LC_VOLUMES_MAX;
	must_open();
	for (unsigned i = 0; i < LC_VOLUMES_MAX; i++)
		assert_reads(i, 3, 1, i % 10 == 1 ? 0 : i);
	must_drain();
	must_close();
	/* nor one that has lost blocks: nobody else remembers which */
	for (unsigned id = 1; id <= LC_VOLUMES_MAX; id++)
		lose(id, 3);
	specs[0] = (struct lc_volume_spec){"more", &disks[LC_VOLUMES_MAX].store};
	nr_specs = 1;
	assert_refused(-ENOSPC, "255 volumes");
	assert_says(&error, "more");
	assert_says(&error, "logcachectl forget");
}

/* One after the other is served alone: each time all the others are left out. */
static void volumes_take_turns(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		serve_only(i % 3);
		must_open();
		assert_int_equal(stats().cached_blocks, 0);
		put(0, 3, 2, i);
		must_drain();
		must_close();
		assert_on_disk(i % 3, 3, 2, i);
	}
	serve_all();
	must_open();
	for (unsigned i = 0; i < 3; i++)
		assert_reads(i, 3, 2, i == 0 ? 18 : i == 1 ? 19 : 17);
	must_close();
}

/* --- disks that fail --- */

static void the_others_are_written_back(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < 3; i++) {
		put(i, 100, 3, 0x10 + i);
		zero(i, 200, 20);
	}
	for (unsigned bad = 0; bad < 3; bad++) {
		disks[bad].write_error = -ENXIO;
		mem_log_text[0] = 0;
		assert_int_equal(lc_cache_drain(cache), -ENXIO);
		disks[bad].write_error = 0;
		if (bad == 0) {
			assert_int_equal(stats().dirty_blocks, 3);
			assert_int_equal(stats().pending_zero_blocks, 0); /* that went well */
			assert_int_equal(stats().tail_id, 0);
			for (unsigned i = 1; i < 3; i++) {
				assert_on_disk(i, 100, 3, 0x10 + i);
				assert_on_disk(i, 200, 20, 0);
			}
			assert_on_disk(0, 100, 3, noise(0));
		}
		must_drain();
		assert_int_equal(stats().dirty_blocks, 0);
		assert_int_equal(stats().tail_id, stats().head_id);
		for (unsigned i = 0; i < 3; i++)
			assert_on_disk(i, 100, 3, 0x10 + i + bad);
		for (unsigned i = 0; i < 3; i++)
			put(i, 100, 3, 0x11 + i + bad);
	}
	must_close();
}

static void a_disk_that_cannot_zero_or_write_does_not_hold_the_others(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < 3; i++) {
		zero(i, 200, 20);
		put(i, 205, 1, 0x10 + i);
	}
	disks[1].zero_error = disks[1].write_error = -EIO;
	assert_int_equal(lc_cache_drain(cache), -EIO);
	assert_int_equal(stats().pending_zero_blocks, 20);
	assert_int_equal(stats().dirty_blocks, 1);
	for (unsigned i = 0; i < 3; i += 2) {
		assert_on_disk(i, 200, 5, 0);
		assert_on_disk(i, 205, 1, 0x10 + i);
	}
	assert_on_disk(1, 200, 20, noise(1));
	assert_reads(1, 200, 5, 0);
	assert_reads(1, 205, 1, 0x11);
	disks[1].zero_error = disks[1].write_error = 0;
	must_drain();
	assert_on_disk(1, 200, 5, 0);
	assert_on_disk(1, 205, 1, 0x11);
	must_close();
}

static void two_disks_fail(void **state)
{
	(void)state;
	must_open();
	for (unsigned i = 0; i < 3; i++)
		put(i, 100, 3, 0x10 + i);
	disks[0].flush_error = -EIO;
	disks[2].write_error = -ENXIO;
	assert_true(lc_cache_drain(cache) < 0);
	assert_int_equal(stats().dirty_blocks, 6);
	assert_on_disk(1, 100, 3, 0x11);
	/* one works again: the service does, when both do */
	disks[2].write_error = 0;
	assert_int_equal(lc_cache_drain(cache), -EIO);
	assert_int_equal(stats().dirty_blocks, 3);
	assert_on_disk(2, 100, 3, 0x12);
	assert_int_equal(stats().tail_id, 0);
	disks[0].flush_error = 0;
	must_become(stats().dirty_blocks == 0); /* by itself */
	must_become(stats().tail_id == stats().head_id);
	must_become(strstr(mem_log_text, "works again"));
	must_close();
}

/* While one disk fails and there is room, clients of all volumes go on; the log says which disk it is. */
static void service_goes_on_while_one_disk_fails(void **state)
{
	(void)state;
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.stall_timeout_ms = 50;
	disks[1].write_error = -EIO;
	must_open();
	put(1, 100, 7, 0x11); /* a whole segment */
	flush();
	must_become(stats().backing_errors > 0);
	must_become(strstr(mem_log_text, "/dev/slow1"));
	sleep_ms(100);
	for (unsigned i = 0; i < 50; i++) {
		put(0, i, 1, i);
		put(1, 200 + i, 1, i);
	}
	flush();
	/* nobody waits for room: what is in the oldest segments is written, that of the other disk */
	must_become(disks[0].writes > 0);
	disks[1].write_error = 0;
	must_drain();
	for (unsigned i = 0; i < 50; i++) {
		assert_on_disk(0, i, 1, i);
		assert_on_disk(1, 200 + i, 1, i);
	}
	must_close();
}

/* When the log is full, all wait for the disk that fails, and get its error. */
static void the_log_is_full_for_all(void **state)
{
	u32 nr = 0;
	int err;

	(void)state;
	settings.writeback = true;
	settings.stall_timeout_ms = 50;
	disks[1].write_error = -ENXIO;
	must_open();
	put(1, 100, 1, 0x11);
	while (!(err = try_put(0, nr % BLOCKS * LC_BLOCK, LC_BLOCK, nr)))
		nr++;
	assert_int_equal(err, -ENXIO);
	assert_true(nr > 500);
	assert_reads(1, 100, 1, 0x11);
	disks[1].write_error = 0;
	must_become(!try_put(0, 0, LC_BLOCK, 0x77));
	must_drain();
	must_close();
}

/* A crash while its predecessor was forgotten had left that one's lost blocks: they answered with errors here. */
static void a_new_volume_has_lost_nothing(void **state)
{
	(void)state;
	lose(1, 7);
	for (unsigned life = 0; life < 2; life++) {
		must_open();
		assert_reads(0, 7, 1, noise(0));
		must_close();
	}
	lose(1, 7);
	must_open();
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 7 * LC_BLOCK), -EIO);
	must_close();
}

/* Nor when its own first opening is cut off, at whatever write: the table knew it, and the list had not been changed yet. */
static void not_even_if_its_opening_is_cut_off(void **state)
{
	bool opened = false;

	(void)state;
	for (u64 write = 1; !opened; write++) {
		assert_int_equal(lc_cache_format(&ssd.store,
						 &(struct lc_format_options){.segment_bytes = 32768},
						 &error),
				 0);
		lose(1, 7);
		mem_forget(&ssd);
		ssd.dies_at_write = write;
		opened = !open_cache();
		mem_revive(&ssd);
		if (opened)
			assert_int_equal(lc_cache_start(cache, &error), 0);
		else
			must_open();
		assert_reads(0, 7, 1, noise(0));
		must_close();
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)
#define MANY(name) cmocka_unit_test_setup_teardown(name, setup_many, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(volumes_do_not_see_each_other),
		T(a_flush_of_one_volume_covers_the_others),
		T(a_volume_with_dirty_blocks_may_not_be_left_out),
		T(a_volume_with_pending_zeros_may_not_be_left_out),
		T(a_volume_that_was_left_out_has_lost_its_clean_blocks),
		T(an_opening_without_it_is_enough),
		T(what_it_wrote_before_does_not_come_back),
		T(swapped_disks_are_named),
		T(a_foreign_disk_is_not_called_swapped),
		T(swapped_disks_without_dirty_data_are_as_they_are),
		T(the_order_of_the_specs_does_not_matter),
		MANY(there_may_be_255),
		MANY(the_256th_name_takes_the_place_of_one_that_is_left_out),
		MANY(no_name_gives_way_that_has_dirty_or_lost_data),
		T(volumes_take_turns),
		T(the_others_are_written_back),
		T(a_disk_that_cannot_zero_or_write_does_not_hold_the_others),
		T(two_disks_fail),
		T(service_goes_on_while_one_disk_fails),
		T(the_log_is_full_for_all),
		T(a_new_volume_has_lost_nothing),
		T(not_even_if_its_opening_is_cut_off),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
