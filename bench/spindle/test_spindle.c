/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_spindle.c - the model of a disk: times that a data sheet gives, rates that such drives are known for, the
 * order of requests, the write cache.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../common/shuffle.h"
#include "model.h"

#define GIB (1ull << 30)
#define SIZE (64 * GIB)
#define MS 1000000ull

static struct platter platter;
static struct disk disk;

static void assert_near(double value, double low, double high)
{
	if (value < low || value > high)
		fail_msg("%g is not between %g and %g", value, low, high);
}

static int new_platter(void **state)
{
	struct platter_sheet sheet = platter_7200rpm(SIZE);

	(void)state;
	return platter_init(&platter, &sheet);
}

static void new_disk(bool write_cache)
{
	struct disk_options o = disk_7200rpm(SIZE, write_cache);

	assert_int_equal(disk_init(&disk, &o), 0);
}

static int end_disk(void **state)
{
	(void)state;
	disk_destroy(&disk);
	return 0;
}

/* --- the platter --- */

static void the_arm_keeps_the_data_sheet(void **state)
{
	u64 last = platter.nr_tracks - 1;
	double sum = 0;
	u64 nr = 0;

	(void)state;
	assert_int_equal(platter_seek_ns(&platter, 5, 5), 0);
	assert_int_equal(platter_seek_ns(&platter, 5, 6), 800000);
	assert_int_equal(platter_seek_ns(&platter, 6, 5), 800000);
	assert_near((double)platter_seek_ns(&platter, 0, last), 15.999e6, 16.001e6);
	/* a grid of pairs */
	for (u64 from = 0; from <= last; from += 97) {
		for (u64 to = 0; to <= last; to += 89, nr++)
			sum += (double)platter_seek_ns(&platter, from, to);
	}
	assert_near(sum / (double)nr, 8.45e6, 8.55e6);
}

static void a_longer_way_takes_longer(void **state)
{
	(void)state;
	for (u64 to = 1; to + 1 < platter.nr_tracks; to++)
		assert_true(platter_seek_ns(&platter, 0, to) <= platter_seek_ns(&platter, 0, to + 1));
}

static void impossible_sheets_are_refused(void **state)
{
	struct platter_sheet s = platter_7200rpm(SIZE);
	struct platter p;

	(void)state;
	s.average_seek_ns = 12 * MS; /* the root itself has less */
	assert_int_equal(platter_init(&p, &s), -EINVAL);
	s = platter_7200rpm(4096);
	assert_int_equal(platter_init(&p, &s), -EINVAL);
	s = platter_7200rpm(SIZE);
	s.full_stroke_ns = s.next_track_ns;
	assert_int_equal(platter_init(&p, &s), -EINVAL);
}

static void a_sector_that_just_passed_costs_a_revolution(void **state)
{
	u64 revolution = platter.sheet.revolution_ns;
	u64 offset = 100 * platter.track_bytes + 409600;
	struct platter_access a;
	u64 passes;

	(void)state;
	platter_position(&platter, 0, 100, offset, &a);
	assert_int_equal(a.seek_ns, 0);
	passes = a.rotation_ns;
	assert_in_range(passes, 1, revolution - 1);
	platter_position(&platter, passes, 100, offset, &a);
	assert_int_equal(a.rotation_ns, 0);
	platter_position(&platter, passes + 1, 100, offset, &a);
	assert_int_equal(a.rotation_ns, revolution - 1);
	/* and each revolution again */
	platter_position(&platter, passes + 1000 * revolution, 100, offset, &a);
	assert_int_equal(a.rotation_ns, 0);
}

/* What is read in pieces, without a pause, takes as long as in one: no rounding makes a head miss its sector. */
static void pieces_take_as_long_as_the_whole(void **state)
{
	static const u64 pieces[] = {512, 4096, 12288, 999936, 1 << 20, 5 << 20};
	u64 length = 41 * platter.track_bytes + 512;
	struct platter_access whole, a;

	(void)state;
	platter_transfer(&platter, 0, length, &whole);
	assert_near((double)length / (double)whole.transfer_ns, 0.179, 0.181); /* GB/s */
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		u64 now = 0, track = 0;

		for (u64 at = 0; at < length;) {
			u64 n = pieces[i] < length - at ? pieces[i] : length - at;

			platter_position(&platter, now, track, at, &a);
			assert_int_equal(a.rotation_ns, 0);
			platter_transfer(&platter, at, n, &a);
			now += a.seek_ns + a.transfer_ns;
			track = a.end_track;
			at += n;
		}
		assert_int_equal(now, whole.transfer_ns);
		assert_int_equal(track, whole.end_track);
	}
}

/* --- playing requests --- */

#define REQUESTS_MAX 20000
static struct disk_request requests[REQUESTS_MAX];

static struct disk_request *request(unsigned i, enum disk_op op, u64 offset_bytes, u64 len_bytes)
{
	requests[i] = (struct disk_request){.op = op,
					    .offset_bytes = offset_bytes,
					    .len_bytes = len_bytes};
	return &requests[i];
}

/* Let time go on until the next completion. */
static struct disk_request *next_done(void)
{
	struct disk_request *r;

	do {
		assert_true(disk_next_ns(&disk) != DISK_NEVER);
		r = disk_advance(&disk, disk_next_ns(&disk));
	} while (!r);
	assert_null(r->next);
	return r;
}

/* NR random requests of 4 KiB, DEPTH in flight; how many a second. */
static double random_rate(enum disk_op op, unsigned nr, unsigned depth)
{
	struct shuffle s = shuffle_init(SIZE / LC_BLOCK, 7);
	unsigned submitted = 0;

	for (; submitted < depth; submitted++)
		disk_submit(&disk,
			    request(submitted, op, shuffle_at(&s, submitted) * LC_BLOCK, LC_BLOCK),
			    0);
	for (unsigned done = 0; done < nr; done++) {
		next_done();
		if (submitted < nr) {
			disk_submit(&disk,
				    request(submitted, op, shuffle_at(&s, submitted) * LC_BLOCK,
					    LC_BLOCK),
				    disk.now_ns);
			submitted++;
		}
	}
	return nr * 1e9 / (double)disk.now_ns;
}

static void one_at_a_time_75_to_80_a_second(void **state)
{
	(void)state;
	new_disk(false);
	assert_near(random_rate(DISK_READ, 2000, 1), 75, 80);
	assert_int_equal(disk.stats.reads, 2000);
	assert_int_equal(disk.stats.read_bytes, 2000 * 4096);
	assert_int_equal(disk.stats.accesses, 2000);
	assert_int_equal(disk.stats.depth_sum, 2000);
	assert_int_equal(disk.stats.busy_ns,
			 disk.now_ns); /* never idle: what is counted is all there is */
	assert_int_equal(disk.stats.seek_ns + disk.stats.rotation_ns + disk.stats.transfer_ns +
				 2000 * disk.options.overhead_ns,
			 disk.now_ns);
}

static void deep_150_to_200_a_second(void **state)
{
	(void)state;
	new_disk(false);
	assert_near(random_rate(DISK_READ, 4000, 32), 150, 200);
}

/* A host that has more in flight gains nothing: the disk sees 32. */
static void the_33rd_waits_outside(void **state)
{
	double deep, deeper;

	(void)state;
	new_disk(false);
	deep = random_rate(DISK_READ, 2000, 32);
	disk_destroy(&disk);
	new_disk(false);
	deeper = random_rate(DISK_READ, 2000, 500);
	assert_int_equal(disk.stats.depth_max, 32);
	assert_near(deeper / deep, 0.97, 1.03);
}

static void the_nearest_goes_first(void **state)
{
	u64 near = 3 * platter.track_bytes, far = 30000 * platter.track_bytes;

	(void)state;
	new_disk(false);
	disk_submit(&disk, request(0, DISK_READ, far, 4096), 0);
	disk_submit(&disk, request(1, DISK_READ, near, 4096), 0);
	assert_ptr_equal(next_done(), &requests[1]);
	assert_ptr_equal(next_done(), &requests[0]);
}

/* In whatever order they come: who is right behind the other costs its transfer alone. */
static void neighbours_are_one_access(void **state)
{
	struct platter_access a;
	u64 first_ns;

	(void)state;
	new_disk(false);
	for (unsigned i = 0; i < 16; i++)
		disk_submit(&disk,
			    request(i, DISK_WRITE, 50 * platter.track_bytes + (15 - i) * 4096ull,
				    4096),
			    0);
	assert_ptr_equal(next_done(), &requests[15]);
	first_ns = disk.now_ns;
	for (unsigned i = 15; i-- > 0;)
		assert_ptr_equal(next_done(), &requests[i]);
	platter_transfer(&platter, 50 * platter.track_bytes + 4096, 15 * 4096, &a);
	assert_int_equal(disk.now_ns - first_ns, a.transfer_ns);
	assert_int_equal(disk.stats.coalesced, 15);
}

/* A stream of requests near the head does not keep it for ever. */
static void nothing_starves(void **state)
{
	struct disk_request *far = request(0, DISK_READ, 40000 * platter.track_bytes, 4096);
	u64 limit = 32 * (16 * MS + 8333333) + 16 * MS + 8333333 * 2;
	u64 at = 0;
	unsigned nr = 1;

	(void)state;
	new_disk(false);
	for (; nr < 8; nr++, at += 8192)
		disk_submit(&disk, request(nr, DISK_READ, at, 4096), 0);
	disk_submit(&disk, far, 0);
	while (next_done() != far) {
		assert_in_range(disk.now_ns, 0, limit);
		assert_true(nr < REQUESTS_MAX);
		disk_submit(&disk, request(nr++, DISK_READ, at, 4096), disk.now_ns);
		at += 8192;
	}
	assert_true(nr > 1000); /* it was passed over */
	assert_int_equal(disk.stats.aged, 1);
}

/*
 * Who looks late finds what a punctual one would have found: the head does not wait for the caller. And a request that came
 * too late for a choice was not part of it.
 */
static void lateness_is_not_the_disks_time(void **state)
{
	u64 done_ns[16];
	struct disk_request *r;

	(void)state;
	for (unsigned late = 0; late < 2; late++) {
		new_disk(false);
		for (unsigned i = 0; i < 16; i++)
			disk_submit(&disk,
				    request(i, DISK_READ, shuffle_mix(i) % 1000000 * LC_BLOCK,
					    LC_BLOCK),
				    0);
		if (!late) {
			for (unsigned i = 0; i < 16; i++)
				next_done();
			for (unsigned i = 0; i < 16; i++)
				done_ns[i] = requests[i].done_ns;
			disk_destroy(&disk);
		}
	}
	/* all is over, and the scheduler has not looked once */
	disk_submit(&disk, request(16, DISK_READ, 0, 4096), 1000 * MS);
	r = disk_advance(&disk, 1000 * MS);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(requests[i].done_ns, done_ns[i]);
		assert_non_null(r);
		r = r->next;
	}
	assert_null(r);
	assert_ptr_equal(next_done(), &requests[16]);
	assert_true(requests[16].done_ns > 1000 * MS);
}

/* --- the write cache --- */

static void without_a_cache_a_write_is_on_the_platter(void **state)
{
	(void)state;
	new_disk(false);
	disk_submit(&disk, request(0, DISK_WRITE, 30000 * platter.track_bytes, 4096), 0);
	next_done();
	assert_true(disk.now_ns > 8 * MS);
	disk_submit(&disk, request(1, DISK_FLUSH, 0, 0), disk.now_ns);
	assert_true(disk_next_ns(&disk) - disk.now_ns < MS); /* nothing to do */
}

static void a_flush_drains_the_cache(void **state)
{
	(void)state;
	new_disk(true);
	for (unsigned i = 0; i < 20; i++) {
		disk_submit(&disk, request(i, DISK_WRITE, (1 + i) * 1000 * platter.track_bytes, 4096),
			    disk.now_ns);
		assert_ptr_equal(next_done(), &requests[i]);
	}
	assert_true(disk.now_ns < MS);
	disk_submit(&disk, request(20, DISK_FLUSH, 0, 0), disk.now_ns);
	assert_ptr_equal(next_done(), &requests[20]);
	assert_int_equal(disk.stats.accesses, 20);
	assert_true(disk.now_ns > 20 * MS);
	assert_int_equal(disk.cache.bytes, 0);
	assert_int_equal(disk_next_ns(&disk), DISK_NEVER);
}

static void a_flush_waits_for_what_is_being_written(void **state)
{
	(void)state;
	new_disk(true);
	disk_submit(&disk, request(0, DISK_WRITE, 20000 * platter.track_bytes, 4096), 0);
	next_done();
	assert_non_null(disk.destage); /* the arm moves already */
	assert_null(disk.cache.oldest);
	disk_submit(&disk, request(1, DISK_FLUSH, 0, 0), disk.now_ns);
	next_done();
	assert_true(disk.now_ns > 5 * MS);
	assert_null(disk.destage);
}

/* A flush waits for what was there when it came, not for what keeps coming. */
static void a_flush_ends_while_writers_go_on(void **state)
{
	struct disk_request *flush = request(0, DISK_FLUSH, 0, 0);
	unsigned nr = 1;

	(void)state;
	new_disk(true);
	for (; nr <= 100; nr++) {
		disk_submit(&disk, request(nr, DISK_WRITE, nr * 100ull * platter.track_bytes, 4096),
			    disk.now_ns);
		next_done();
	}
	disk_submit(&disk, flush, disk.now_ns);
	do {
		/* Right where the head is: shortest positioning time alone would never come back. */
		u64 at = disk.track * platter.track_bytes + nr % 400 * 4096;

		assert_true(nr < REQUESTS_MAX);
		disk_submit(&disk, request(nr++, DISK_WRITE, at, 4096), disk.now_ns);
	} while (next_done() != flush);
	assert_true(nr > 200);
	assert_in_range(disk.stats.accesses, 100, 102);
}

static void a_full_cache_waits_for_the_platter(void **state)
{
	unsigned room = (64 << 20) / 4096;

	(void)state;
	new_disk(true);
	for (unsigned i = 0; i < room + 2; i++) {
		disk_submit(&disk, request(i, DISK_WRITE, i * 200ull * 4096, 4096), disk.now_ns);
		disk_advance(&disk, disk.now_ns);
	}
	/* The first one is being written already; of the other two one has no room until that is over. */
	assert_in_range(disk.stats.cached_writes, room, room + 1);
	assert_int_equal(disk.nr_want_room, room + 2 - disk.stats.cached_writes);
	while (disk.nr_want_room)
		disk_advance(&disk, disk_next_ns(&disk));
	assert_true(disk.now_ns > 0);
	assert_true(disk.stats.accesses >= 1);
}

/* Writes that wait for room have places in the queue: they keep others out. */
static void waiting_for_room_takes_a_place(void **state)
{
	(void)state;
	new_disk(true);
	for (unsigned i = 0; i < 100; i++)
		disk_submit(&disk, request(i, DISK_WRITE, i << 21, 2 << 20), 0);
	disk_submit(&disk, request(100, DISK_READ, 1 << 20, 4096), 0);
	assert_int_equal(disk.stats.cached_writes, 32);
	assert_int_equal(disk.nr_want_room, 32);
	assert_int_equal(disk.nr_queued, 0);
	assert_non_null(disk.outside.first);
}

static void fua_is_on_the_platter(void **state)
{
	struct disk_request *r = request(0, DISK_WRITE, 20000 * platter.track_bytes, 4096);

	(void)state;
	new_disk(true);
	r->fua = true;
	disk_submit(&disk, r, 0);
	next_done();
	assert_true(disk.now_ns > 5 * MS);
	assert_int_equal(disk.stats.accesses, 1);
}

static void the_cache_answers_and_is_overwritten(void **state)
{
	u64 far = 20000 * platter.track_bytes;

	(void)state;
	new_disk(true);
	/* Something else, for the head to be busy with. */
	disk_submit(&disk, request(0, DISK_WRITE, 10 * far / 10, 4096), 0);
	next_done();
	for (unsigned i = 1; i < 4; i++) {
		disk_submit(&disk, request(i, DISK_WRITE, far + (1 << 20), 8192), disk.now_ns);
		next_done();
	}
	disk_submit(&disk, request(4, DISK_READ, far + (1 << 20), 4096), disk.now_ns);
	next_done();
	assert_true(disk.now_ns < MS);
	assert_int_equal(disk.stats.cache_read_hits, 1);
	disk_submit(&disk, request(5, DISK_FLUSH, 0, 0), disk.now_ns);
	next_done();
	assert_int_equal(disk.stats.accesses, 2);
	assert_int_equal(disk.stats.writes, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_arm_keeps_the_data_sheet),
		cmocka_unit_test(a_longer_way_takes_longer),
		cmocka_unit_test(impossible_sheets_are_refused),
		cmocka_unit_test(a_sector_that_just_passed_costs_a_revolution),
		cmocka_unit_test(pieces_take_as_long_as_the_whole),
		cmocka_unit_test_teardown(one_at_a_time_75_to_80_a_second, end_disk),
		cmocka_unit_test_teardown(deep_150_to_200_a_second, end_disk),
		cmocka_unit_test_teardown(the_33rd_waits_outside, end_disk),
		cmocka_unit_test_teardown(the_nearest_goes_first, end_disk),
		cmocka_unit_test_teardown(neighbours_are_one_access, end_disk),
		cmocka_unit_test_teardown(nothing_starves, end_disk),
		cmocka_unit_test_teardown(lateness_is_not_the_disks_time, end_disk),
		cmocka_unit_test_teardown(without_a_cache_a_write_is_on_the_platter, end_disk),
		cmocka_unit_test_teardown(a_flush_drains_the_cache, end_disk),
		cmocka_unit_test_teardown(a_flush_waits_for_what_is_being_written, end_disk),
		cmocka_unit_test_teardown(a_flush_ends_while_writers_go_on, end_disk),
		cmocka_unit_test_teardown(a_full_cache_waits_for_the_platter, end_disk),
		cmocka_unit_test_teardown(waiting_for_room_takes_a_place, end_disk),
		cmocka_unit_test_teardown(fua_is_on_the_platter, end_disk),
		cmocka_unit_test_teardown(the_cache_answers_and_is_overwritten, end_disk),
	};

	return cmocka_run_group_tests_name("spindle", tests, new_platter, NULL);
}
