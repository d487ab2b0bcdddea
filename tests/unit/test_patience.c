/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_patience.c - requests that wait too long for their client, and write-back that gives way to
 * readers.
 */
#include "cache_life.h"

#include <pthread.h>
#include <stdatomic.h>

static struct mem_store *const disk = &disks[0];

/* --- the client is gone --- */

static atomic_bool gone;
static atomic_uint asked;

static bool abandoned(void)
{
	atomic_fetch_add(&asked, 1);
	return atomic_load(&gone);
}

static int setup(void **state)
{
	int ret = life_setup(state);

	atomic_store(&gone, false);
	atomic_store(&asked, 0);
	settings.abandoned = abandoned;
	settings.client_timeout_ms = 100;
	settings.stall_timeout_ms = 60000; /* nobody gives up for that */
	return ret;
}

/* A small cache whose disk hangs; the log is as full as it gets without waiting. */
static void make_full(void)
{
	make(lc_cache_min_bytes(8192) + 4 * 8192, 8192, 1, 4 * MIB);
	must_open();
	disk->write_error = disk->zero_error = -EIO;
	for (u32 i = 0; i < 6; i++)
		put(0, i, 1, 0x11);
}

static u8 block_22[LC_BLOCK];

static int write_whole(void)
{
	return lc_write(volume(0), block_22, LC_BLOCK, 100 * LC_BLOCK, 0);
}

static int write_part(void)
{
	return lc_write(volume(0), block_22, 100, 200 * LC_BLOCK + 7, 0);
}

static int zero_range(void)
{
	return lc_zero(volume(0), 50 * LC_BLOCK, 300 * LC_BLOCK, 0);
}

/* Requests in threads of their own. */
#define NR_REQUESTS 3u

static struct request {
	int (*const fn)(void);
	pthread_t thread;
	int result;
	atomic_bool done;
} requests[NR_REQUESTS] = {{.fn = write_whole}, {.fn = write_part}, {.fn = zero_range}};

static struct request *const whole = &requests[0], *const zeros = &requests[2];

static void *request_thread(void *arg)
{
	struct request *r = arg;

	r->result = r->fn();
	atomic_store(&r->done, true);
	return NULL;
}

static void begin(struct request *r)
{
	atomic_store(&r->done, false);
	assert_int_equal(pthread_create(&r->thread, NULL, request_thread, r), 0);
}

static bool is_done(struct request *r)
{
	return atomic_load(&r->done);
}

/* It ends, and says what it has to. */
static void must_end(struct request *r, int want)
{
	must_become(is_done(r));
	assert_int_equal(pthread_join(r->thread, NULL), 0);
	assert_int_equal(r->result, want);
}

static void heal(void)
{
	disk->write_error = disk->zero_error = 0;
}

static void a_request_whose_client_is_gone_is_given_up(void **state)
{
	u64 before = now_ms();

	(void)state;
	memset(block_22, 0x22, sizeof block_22);
	make_full();
	atomic_store(&gone, true);
	for (u32 i = 0; i < NR_REQUESTS; i++)
		begin(&requests[i]);
	for (u32 i = 0; i < NR_REQUESTS; i++)
		must_end(&requests[i], -ESHUTDOWN);
	assert_in_range(now_ms() - before, 95, 3000);
	assert_true(atomic_load(&asked) >= NR_REQUESTS);
	/* they did not happen */
	for (u32 i = 1; i <= 3; i++)
		assert_reads(0, 100 * i, 1, noise(0));
	/* whoever sends them again, when there is space, gets through: nothing was left behind */
	atomic_store(&gone, false);
	heal();
	for (u32 i = 0; i < NR_REQUESTS; i++)
		assert_int_equal(requests[i].fn(), 0);
	must_drain();
	must_close();
	assert_on_disk(0, 100, 1, 0x22);
	assert_on_disk(0, 300, 50, 0);
}

static void a_request_whose_client_is_there_goes_on_waiting(void **state)
{
	(void)state;
	memset(block_22, 0x22, sizeof block_22);
	make_full();
	for (u32 i = 0; i < NR_REQUESTS; i++)
		begin(&requests[i]);
	must_become(atomic_load(&asked) >= NR_REQUESTS);
	for (u32 i = 0; i < NR_REQUESTS; i++)
		assert_false(is_done(&requests[i]));
	heal();
	for (u32 i = 0; i < NR_REQUESTS; i++)
		must_end(&requests[i], 0);
	assert_reads(0, 100, 1, 0x22);
	assert_reads_bytes(0, 200 * LC_BLOCK + 7, 100, 0x22);
	assert_reads(0, 300, 50, 0);
	must_close();
}

/* It asks again: the client may go while the request waits. */
static void a_client_may_go_later(void **state)
{
	(void)state;
	make_full();
	begin(whole);
	must_become(atomic_load(&asked) > 0);
	sleep_ms(50);
	assert_false(is_done(whole));
	atomic_store(&gone, true);
	must_end(whole, -ESHUTDOWN); /* it looks each second */
	heal();
	must_close();
}

/* A patient client is never asked, however long the request takes. */
static void nobody_is_asked_before_the_time(void **state)
{
	(void)state;
	settings.client_timeout_ms = 60000;
	atomic_store(&gone, true);
	make_full();
	begin(whole);
	sleep_ms(130);
	assert_false(is_done(whole));
	heal();
	must_end(whole, 0);
	assert_int_equal(atomic_load(&asked), 0);
	must_close();
}

/* A write waits for zeros that were there before it, and they wait for space: it is asked, too. */
static void who_waits_behind_another_request_is_asked_too(void **state)
{
	(void)state;
	make_full();
	begin(zeros);
	sleep_ms(50);
	atomic_store(&gone, true);
	assert_int_equal(lc_write(volume(0), block_22, LC_BLOCK, 310 * LC_BLOCK, 0), -ESHUTDOWN);
	must_end(zeros, -ESHUTDOWN);
	heal();
	must_close();
}

static u64 long_ago(void)
{
	return lc_now_ns() - 2 * LC_NS_PER_S;
}

static int trim_range(void)
{
	return lc_trim(volume(0), 50 * LC_BLOCK, 300 * LC_BLOCK, 0);
}

/*
 * It lay unread in its socket, because all threads of its connection were busy, until its client had given it up. That was not
 * counted: it was executed at once, over what the client had written since. What changes nothing need not ask.
 */
static void a_request_may_be_late_before_it_begins(void **state)
{
	static int (*const changes[])(void) = {write_whole, write_part, zero_range, trim_range};

	(void)state;
	settings.waits_since = long_ago;
	memset(block_22, 0x22, sizeof block_22);
	make(8 * MIB, 32768, 1, 4 * MIB);
	must_open();
	for (u32 i = 0; i < sizeof changes / sizeof *changes; i++)
		assert_int_equal(changes[i](), 0);
	put(0, 100, 250, 0x11);
	atomic_store(&gone, true);
	for (u32 i = 0; i < sizeof changes / sizeof *changes; i++)
		assert_int_equal(changes[i](), -ESHUTDOWN);
	assert_reads(0, 100, 250, 0x11);
	flush();
	must_close();
}

/* It waited for a part of the time before it began, and for the rest of it afterwards. */
static void what_it_waited_before_it_began_counts(void **state)
{
	u64 before_ms;

	(void)state;
	settings.client_timeout_ms = 2500;
	settings.waits_since = long_ago;
	atomic_store(&gone, true);
	make_full();
	before_ms = now_ms();
	begin(whole);
	sleep_ms(300);
	assert_false(is_done(whole));
	must_end(whole, -ESHUTDOWN); /* long before the time that it itself has waited */
	assert_in_range(now_ms() - before_ms, 450, 2000);
	heal();
	must_close();
}

/* --- readers first --- */

static atomic_bool reading;
static atomic_uint read_ms; /* what a read of the disk takes */

static int slow_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	u32 ms = atomic_load(&read_ms);

	if (ms)
		sleep_ms(ms);
	return mem_read(s, buf, len_bytes, offset_bytes);
}

static void make_slow(void)
{
	static struct lc_store_ops ops;

	ops = *disk->store.ops;
	ops.read = slow_read;
	disk->store.ops = &ops;
}

/* Reads what is not cached, without a pause. */
static void *reader(void *arg)
{
	u8 *buf = malloc(LC_BLOCK);

	(void)arg;
	while (atomic_load(&reading))
		assert_int_equal(lc_read(volume(0), buf, LC_BLOCK, 900 * LC_BLOCK), 0);
	free(buf);
	return NULL;
}

/* Is what was dirty written back within so many ms? */
static bool written_back_within(u32 ms)
{
	u64 end = now_ms() + ms;

	while (now_ms() < end && stats().tail_id < 4)
		sleep_ms(5);
	return stats().tail_id >= 4;
}

static pthread_t make_busy(void)
{
	pthread_t thread;

	make(4 * MIB, 32768, 1, 4 * MIB);
	make_slow();
	settings.abandoned = NULL;
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.batch_bytes = 32768; /* a segment at a time */
	settings.idle_ms = 20;
	must_open();
	atomic_store(&read_ms, 10);
	atomic_store(&reading, true);
	assert_int_equal(pthread_create(&thread, NULL, reader, NULL), 0);
	/* how busy the disk is is seen by comparing with the sweep before */
	put(0, 50, 7, 0x10);
	flush();
	must_become(stats().tail_id == 1);
	sleep_ms(120);
	put(0, 100, 21, 0x11); /* three segments */
	flush();
	return thread;
}

static void end_busy(pthread_t thread)
{
	atomic_store(&reading, false);
	atomic_store(&read_ms, 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must_drain();
	must_close();
	assert_on_disk(0, 100, 21, 0x11);
}

static void write_back_gives_way_to_readers(void **state)
{
	pthread_t thread;

	(void)state;
	thread = make_busy();
	assert_false(written_back_within(200));
	assert_true(stats().reads > 5);
	/* they stop: it goes on */
	atomic_store(&reading, false);
	assert_true(written_back_within(2000));
	end_busy(thread);
}

static void write_back_does_not_give_way_at_100_percent(void **state)
{
	pthread_t thread;

	(void)state;
	settings.writeback_threshold_percent = 100;
	thread = make_busy();
	assert_true(written_back_within(2000));
	end_busy(thread);
}

/* Reads that the cache answers keep no disk busy. */
static void reads_from_the_cache_do_not_count(void **state)
{
	pthread_t thread;

	(void)state;
	thread = make_busy();
	assert_false(written_back_within(200));
	put(0, 900, 1, 0x33); /* from now on */
	assert_true(written_back_within(2000));
	end_busy(thread);
}

static void much_dirty_data_does_not_give_way(void **state)
{
	pthread_t thread;

	(void)state;
	settings.dirty_high_percent = 10; /* of 96 segments */
	thread = make_busy();
	assert_false(written_back_within(150));
	put(0, 200, 70, 0x22); /* more than ten segments are dirty now */
	flush();
	assert_true(written_back_within(2000));
	end_busy(thread);
	assert_on_disk(0, 200, 7, 0x22);
}

static void a_drain_does_not_give_way(void **state)
{
	pthread_t thread;
	u64 before;

	(void)state;
	thread = make_busy();
	assert_false(written_back_within(150));
	before = now_ms();
	must_drain();
	assert_true(now_ms() - before < 1500);
	assert_true(atomic_load(&reading));
	end_busy(thread);
}

static void closing_does_not_wait_for_the_sweep(void **state)
{
	pthread_t thread;

	(void)state;
	thread = make_busy();
	put(0, 300, 1, 0x44);
	sleep_ms(120);
	atomic_store(&reading, false);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must_close(); /* in the middle of a sweep, maybe */
	must_open();
	assert_reads(0, 100, 21, 0x11);
	assert_reads(0, 300, 1, 0x44);
	must_close();
}

static void *drain(void *arg)
{
	(void)arg;
	must_drain();
	return NULL;
}

/*
 * What waits for a disk was copied out of the log's buffers when it was taken up: held by a disk that hangs they would have
 * made writers hang, too, in a log with all the room of the world.
 */
static void a_hanging_disk_does_not_hold_buffers(void **state)
{
	pthread_t thread;

	(void)state;
	settings.nr_buffers = 12;
	make(16 * MIB, 32768, 1, 4 * MIB);
	must_open();
	/* As much as the buffers hold, each block on its own; all of them have some of what is not yet at the disk. */
	for (u32 i = 0; i < 84; i++)
		put(0, 100 + 2 * (i % 7 * 12 + i / 7), 1, 0x11);
	flush();
	lc_mutex_lock(&disk->lock);
	assert_int_equal(pthread_create(&thread, NULL, drain, NULL), 0);
	sleep_ms(50);
	for (u32 i = 0; i < 70; i++)
		put(0, 400 + i, 1, 0x22); /* does not hang */
	lc_mutex_unlock(&disk->lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must_drain();
	must_close();
	assert_on_disk(0, 100, 1, 0x11);
	assert_on_disk(0, 266, 1, 0x11);
	assert_on_disk(0, 469, 1, 0x22);
}

/* A store that says that it zeroes quickly, and does not: 256 MiB take 60 ms. It remembers nothing. */
static int lame_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	(void)s;
	(void)offset_bytes;
	(void)punch;
	sleep_ms(len_bytes * 60 >> 28);
	return 0;
}

/*
 * A disk that zeroes by itself, but no faster than it writes (WRITE SAME), or a server that fills in for one: believed to be quick, it got
 * all that clients had zeroed or trimmed to do in one turn, during which nobody else's blocks were written back, and the tail stood
 * still: for hours, if that was a disk of some TiB. Writers waited, and heard nothing, as nothing failed.
 */
static void a_store_that_only_claims_to_zero_quickly_holds_up_nobody(void **state)
{
	static struct lc_store_ops ops;
	const u64 large = 16ull << 30;
	u64 slowest_ms = 0;

	(void)state;
	settings.abandoned = NULL;
	settings.client_timeout_ms = 60000;
	make(MIB + 32 * 32768, 32768, 2, 4 * MIB);
	mem_close(&disk->store);
	mem_open(disk, "/dev/slow0", large); /* sparse */
	ops = *disk->store.ops;
	ops.zero = lame_zero;
	disk->store.ops = &ops;
	settings.writeback = true;
	must_open();
	for (u64 at = 0; at < large; at += 256 * MIB)
		assert_int_equal(lc_trim(volume(0), 256 * MIB, at, 0), 0);
	for (u32 i = 0; i < 300; i++) {
		u64 began_ms = now_ms(), ms;

		put(1, i * 7 % 200, 7, 0x33);
		ms = now_ms() - began_ms;
		slowest_ms = ms > slowest_ms ? ms : slowest_ms;
	}
	assert_in_range(slowest_ms, 0, 1700); /* not the 3800 that all of it takes */
	must_drain();
	must_close();
}

/* It is away, and works again later. */
static atomic_bool away;

static int away_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	(void)s;
	(void)len_bytes;
	(void)offset_bytes;
	(void)punch;
	return atomic_load(&away) ? -EIO : 0;
}

/*
 * To wait for a store that fails gets nobody ahead: each request to zero or trim (fstrim, which the file system's
 * writers wait for) waited for half of its client's patience, as soon as a GiB was pending, and went on all the same.
 */
static void an_outage_does_not_hold_up_who_zeroes(void **state)
{
	static struct lc_store_ops ops;
	const u64 large = 16ull << 30, step = 1ull << 30;
	u64 began_ms;

	(void)state;
	settings.abandoned = NULL;
	settings.client_timeout_ms = 2000;
	make(MIB + 32 * 32768, 32768, 1, 4 * MIB);
	mem_close(&disk->store);
	mem_open(disk, "/dev/slow0", large); /* sparse */
	ops = *disk->store.ops;
	ops.zero = away_zero;
	disk->store.ops = &ops;
	settings.writeback = true;
	must_open();
	atomic_store(&away, true);
	disk->write_error = -EIO;
	began_ms = now_ms();
	for (u64 at = 0; at < large; at += step)
		assert_int_equal(lc_trim(volume(0), step, at, 0), 0);
	assert_in_range(now_ms() - began_ms, 0, 4000); /* not the 14000 of as many requests that wait */
	assert_int_equal(stats().pending_zero_blocks, large / LC_BLOCK);
	atomic_store(&away, false);
	disk->write_error = 0;
	must_drain();
	assert_int_equal(stats().pending_zero_blocks, 0);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_request_whose_client_is_gone_is_given_up),
		T(a_request_whose_client_is_there_goes_on_waiting),
		T(a_client_may_go_later),
		T(nobody_is_asked_before_the_time),
		T(who_waits_behind_another_request_is_asked_too),
		T(a_request_may_be_late_before_it_begins),
		T(what_it_waited_before_it_began_counts),
		T(write_back_gives_way_to_readers),
		T(write_back_does_not_give_way_at_100_percent),
		T(reads_from_the_cache_do_not_count),
		T(much_dirty_data_does_not_give_way),
		T(a_drain_does_not_give_way),
		T(closing_does_not_wait_for_the_sweep),
		T(a_hanging_disk_does_not_hold_buffers),
		T(a_store_that_only_claims_to_zero_quickly_holds_up_nobody),
		T(an_outage_does_not_hold_up_who_zeroes),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
