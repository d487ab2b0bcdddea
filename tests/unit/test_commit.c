/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_commit.c - group commit: what durability costs, alone and in company.
 *
 * The SSD is memory whose flushes take long, so that it is certain who comes while a round is under way.
 */
#include "cache_life.h"

#define NR_FLUSHERS 16u
#define FLUSH_MS 60u

/* FLUSH_INTERVAL_MS 0: nothing becomes durable by itself. */
static void serve(u32 flush_interval_ms)
{
	make(16 * MIB, 1 * MIB, 1, 8 * MIB);
	settings.writeback = false;
	settings.flush_interval_ms = flush_interval_ms;
	must_open();
}

static u64 count(const u64 *counter)
{
	u64 n;

	lc_mutex_lock(&ssd.lock);
	n = *counter;
	lc_mutex_unlock(&ssd.lock);
	return n;
}

static void alone_a_flush_costs_one_write_and_one_flush(void **state)
{
	u64 writes, flushes, bytes;

	(void)state;
	serve(0);
	writes = count(&ssd.writes);
	flushes = count(&ssd.flushes);
	bytes = stats().log_bytes;
	for (u32 i = 0; i < 10; i++) {
		put(0, i, 1, 0x40 + i);
		flush();
	}
	assert_int_equal(count(&ssd.writes) - writes, 10);
	assert_int_equal(count(&ssd.flushes) - flushes, 10);
	assert_int_equal(stats().log_bytes - bytes, 10ull * 2 * LC_BLOCK); /* header and block */
	must_close();
}

/* --- in company --- */

static struct flusher {
	struct lc_thread thread;
	u32 block;
	int result;
} flushers[NR_FLUSHERS];

static void write_and_flush(void *arg)
{
	struct flusher *f = arg;
	u8 buf[LC_BLOCK];

	memset(buf, 0x80 + f->block, sizeof buf);
	f->result = lc_write(volume(0), buf, sizeof buf, (u64)f->block * LC_BLOCK, 0);
	if (!f->result)
		f->result = lc_flush(volume(0));
}

static void start(u32 i)
{
	flushers[i] = (struct flusher){.block = i, .result = 1};
	assert_int_equal(lc_thread_start(&flushers[i].thread, "flusher", write_and_flush,
					 &flushers[i]),
			 0);
}

/* The first leads a round; the others come while it flushes. */
static void start_all(void)
{
	ssd.flush_ms = FLUSH_MS;
	start(0);
	sleep_ms(FLUSH_MS / 3);
	for (u32 i = 1; i < NR_FLUSHERS; i++)
		start(i);
}

static void join_all(void)
{
	for (u32 i = 0; i < NR_FLUSHERS; i++)
		lc_thread_join(&flushers[i].thread);
	ssd.flush_ms = 0;
}

/* Who comes while a round is under way shares one record and one flush with all others who do. */
static void who_gathers_shares_a_record_and_a_flush(void **state)
{
	u64 flushes, records;

	(void)state;
	serve(0);
	flushes = count(&ssd.flushes);
	records = stats().records;
	start_all();
	join_all();
	for (u32 i = 0; i < NR_FLUSHERS; i++)
		assert_int_equal(flushers[i].result, 0);
	/* Two rounds; on a busy machine a straggler may need another. */
	assert_in_range(count(&ssd.flushes) - flushes, 2, 4);
	assert_in_range(stats().records - records, 2, 4);
	crash();
	must_open();
	for (u32 i = 0; i < NR_FLUSHERS; i++)
		assert_reads(0, i, 1, 0x80 + i);
	must_close();
}

/* A failure is everybody's who waits, not only that of the one who led. */
static void all_hear_of_a_failure(void **state)
{
	(void)state;
	serve(0);
	settings.retry_ms = 1;
	start_all();
	lc_mutex_lock(&ssd.lock);
	ssd.flush_error = -EIO;
	lc_mutex_unlock(&ssd.lock);
	join_all();
	for (u32 i = 0; i < NR_FLUSHERS; i++)
		assert_int_equal(flushers[i].result, -EIO);
	lc_mutex_lock(&ssd.lock);
	ssd.flush_error = 0;
	lc_mutex_unlock(&ssd.lock);
	while (lc_flush(volume(0)))
		sleep_ms(5); /* until it was written again */
	crash();
	must_open();
	for (u32 i = 0; i < NR_FLUSHERS; i++)
		assert_reads(0, i, 1, 0x80 + i);
	must_close();
}

/* I10: nothing is known of a write that failed, and a flush that succeeds after it says nothing of it either. */
static void what_failed_to_be_written_is_written_again(void **state)
{
	(void)state;
	serve(0);
	settings.retry_ms = 1;
	put(0, 0, 1, 0x80);
	ssd.write_error = -EIO;
	assert_int_equal(lc_flush(volume(0)), -EIO);
	lc_mutex_lock(&ssd.lock);
	ssd.write_error = 0;
	lc_mutex_unlock(&ssd.lock);
	while (lc_flush(volume(0)))
		sleep_ms(5);
	crash();
	must_open();
	assert_reads(0, 0, 1, 0x80);
	must_close();
}

/* --- who has to wake the log thread --- */

/*
 * A record that was opened while a flush is under way gets no older than any other, although the log thread,
 * when it looked last, had nothing to wait for but the end of that flush.
 */
static void a_record_of_meanwhile_does_not_get_old(void **state)
{
	u64 begun, flushes;

	(void)state;
	serve(FLUSH_MS / 4);
	begun = count(&ssd.flushes_begun);
	flushes = count(&ssd.flushes);
	ssd.flush_ms = FLUSH_MS;
	start(0);
	must_become(count(&ssd.flushes_begun) > begun);
	put(0, 1, 1, 0x81);
	lc_thread_join(&flushers[0].thread);
	assert_int_equal(flushers[0].result, 0);
	must_become(count(&ssd.flushes) - flushes >= 2);
	must_close();
}

static struct flusher closer;

static void close_it(void *arg)
{
	((struct flusher *)arg)->result = close_cache();
}

/* A flush that fails while the cache is closed is tried again. */
static void closing_outlives_a_failure(void **state)
{
	(void)state;
	serve(0);
	settings.retry_ms = 1;
	put(0, 0, 1, 0x80);
	ssd.flush_error = -EIO;
	assert_int_equal(lc_thread_start(&closer.thread, "closer", close_it, &closer), 0);
	sleep_ms(100);
	lc_mutex_lock(&ssd.lock);
	ssd.flush_error = 0;
	lc_mutex_unlock(&ssd.lock);
	lc_thread_join(&closer.thread);
	assert_int_equal(closer.result, 0);
	must_open();
	assert_reads(0, 0, 1, 0x80);
	must_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(alone_a_flush_costs_one_write_and_one_flush,
						life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(a_record_of_meanwhile_does_not_get_old, life_setup,
						life_teardown),
		cmocka_unit_test_setup_teardown(closing_outlives_a_failure, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(who_gathers_shares_a_record_and_a_flush, life_setup,
						life_teardown),
		cmocka_unit_test_setup_teardown(all_hear_of_a_failure, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(what_failed_to_be_written_is_written_again,
						life_setup, life_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
