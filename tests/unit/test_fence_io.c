/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests through the fence (fence.h) over a link that does what the test says: which errors come when, how often it is connected
 * anew, in which pieces requests arrive. Times are real, and short.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "fake_link.h"

/* --- patience --- */

static void test_errors_when_the_server_stays_away(void **state)
{
	u64 t;

	(void)state;
	open_with(0, 600);
	t = lc_now_ns();
	break_it(&fake, false);
	assert_int_equal(read_block(), -ENOTCONN);
	assert_true(ms_since(t) >= 500); /* it had begun to count when the connection broke */
	t = lc_now_ns();
	assert_int_equal(write_block(), -ENOTCONN);
	assert_int_equal(flush(), -ENOTCONN);
	assert_true(ms_since(t) < 400); /* nobody waits twice */
	set(&fake, OBEY, OBEY, true);
	while (read_block())
		;
	assert_int_equal(write_block(), 0);
}

static void test_lost_write_fails_after_the_fence_not_before(void **state)
{
	struct call c;
	u64 t;
	int rc;

	(void)state;
	open_with(400, 100);
	lc_store_trust(store);
	set(&fake, HOLD, OBEY, true);
	t = lc_now_ns();
	start(&c, write_block);
	wait_held(&fake);
	break_it(&fake, false);
	assert_int_equal(read_block(), -ENOTCONN);
	rc = join(&c);
	assert_true(rc == -ENOTCONN ||
		    rc == -ETIMEDOUT); /* on a busy machine it had waited too long before */
	assert_true(c.ended_ns - t >= 400 * LC_NS_PER_MS);
}

static void test_server_is_back_before_the_fence_ends(void **state)
{
	struct call c;

	(void)state;
	open_with(1000, 200);
	lc_store_trust(store);
	set(&fake, HOLD, OBEY, true);
	start(&c, write_block);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, false);
	assert_int_equal(read_block(), -ENOTCONN); /* no patience left */
	set(&fake, OBEY, OBEY, true);
	if (join(&c) != -ETIMEDOUT) /* on a busy machine it had waited too long before */
		assert_int_equal(c.result, 0);
}

static void test_server_that_does_not_answer(void **state)
{
	u64 t;

	(void)state;
	open_with(0, 400);
	set(&fake, OBEY, HOLD, true);
	t = lc_now_ns();
	assert_int_equal(read_block(), -ETIMEDOUT);
	assert_true(ms_since(t) >= 400);
	set(&fake, HOLD, OBEY, true);
	assert_int_equal(write_block(), -ETIMEDOUT);
	set(&fake, OBEY, OBEY, true);
	assert_int_equal(write_block(), 0);
	assert_int_equal(fake.nr_connects, 3);
}

static void test_request_that_breaks_every_connection(void **state)
{
	struct call c;

	(void)state;
	open_with(0, 10000);
	set(&fake, OBEY, HOLD, true);
	start(&c, read_block);
	for (int i = 0; i < 3; i++) {
		wait_held(&fake);
		break_it(&fake, true);
		wait_connects(&fake, (u32)i + 2);
	}
	assert_int_equal(join(&c), -ENOTCONN);
}

static void test_pauses_between_attempts_grow(void **state)
{
	u64 t = lc_now_ns();

	(void)state;
	open_with(0, 10000);
	break_it(&fake, false);
	while (ms_since(t) < 400)
		usleep(1000);
	/* 0, 2, 4, 8, 16, 32, 64, 100, 100 ms: the opening, and nine more at most. */
	assert_in_range(fake.nr_connects, 4, 11);
	set(&fake, OBEY, OBEY, true);
	assert_int_equal(read_block(), 0);
	/* Connections that break at once are not made again at once. */
	t = lc_now_ns();
	fake.nr_connects = 0;
	while (ms_since(t) < 400) {
		break_it(&fake, true);
		usleep(1000);
	}
	assert_in_range(fake.nr_connects, 1, 6);
}

/* What breaks while it is being made is noticed at once, and not by the first write that is sent, and lost, on it. */
static void test_connection_that_breaks_at_birth(void **state)
{
	u64 t = lc_now_ns();
	u32 nr = 0;

	(void)state;
	open_with(0, 10000);
	fake.stillborn = true;
	break_it(&fake, true);
	while (nr < 3 && ms_since(t) < 5000) {
		usleep(1000);
		lc_mutex_lock(&fake.lock);
		nr = fake.nr_connects;
		lc_mutex_unlock(&fake.lock);
	}
	assert_int_equal(nr, 3);
	assert_int_equal(write_block(), 0);
}

static void test_server_comes_back_as_another(void **state)
{
	(void)state;
	open_with(0, 150);
	fake.info.size_bytes = SIZE - LC_SECTOR;
	break_it(&fake, true);
	assert_int_equal(read_block(), -ENOTCONN);
	fake.info.size_bytes = SIZE;
	fake.info.block_bytes = LC_BLOCK;
	assert_int_equal(read_block(), -ENOTCONN);
	fake.info.block_bytes = LC_SECTOR;
	fake.info.size_bytes = SIZE + 10 * LC_BLOCK;
	while (read_block())
		;
	assert_int_equal(store->size_bytes, SIZE);
}

/* --- requests --- */

static void test_pieces_and_the_end(void **state)
{
	u8 *data = buf;

	(void)state;
	open_with(0, 10000);
	for (u32 i = 0; i < SIZE; i++)
		data[i] = (u8)(i * 31 + i / 256);
	memset(data + SIZE, 0xff, LC_BLOCK - SIZE % LC_BLOCK);
	assert_int_equal(lc_store_write(store, data, 65 * LC_BLOCK, 0), 0);
	assert_int_equal(fake.largest, 4 * LC_BLOCK);
	assert_memory_equal(fake.data, data, SIZE);
	assert_int_equal(fake.data[SIZE], 0); /* behind the end nothing is written ... */
	memset(data, 0xee, SIZE + LC_BLOCK);
	assert_int_equal(lc_store_read(store, data, 9 * LC_BLOCK, 56 * LC_BLOCK), 0);
	assert_memory_equal(data, fake.data + 56 * LC_BLOCK, SIZE - 56 * LC_BLOCK);
	for (u32 i = SIZE - 56 * LC_BLOCK; i < 9 * LC_BLOCK; i++)
		assert_int_equal(data[i], 0); /* ... and zeros are read */
	assert_int_equal(lc_store_zero(store, SIZE, 0, true), 0);
	assert_int_equal(fake.nr_zeros, 9);
	for (u32 i = 0; i < SIZE; i++)
		assert_int_equal(fake.data[i], 0);
}

/* Each sector of the last block, which the store has 700 bytes of. */
static void test_sectors_at_the_end(void **state)
{
	u64 last = SIZE - SIZE % LC_BLOCK;

	(void)state;
	open_with(0, 10000);
	memset(fake.data, 0x55, sizeof fake.data);
	for (u32 nr = 1; nr <= 7; nr++) { /* from the second one on, of which there are 188 bytes */
		memset(buf, 0xee, LC_BLOCK);
		assert_int_equal(lc_store_read(store, buf, nr * LC_SECTOR, last + LC_SECTOR), 0);
		for (u32 i = 0; i < LC_BLOCK; i++)
			assert_int_equal(buf[i], i < 188 ? 0x55 : i < nr * LC_SECTOR ? 0 : 0xee);
	}
	assert_int_equal(fake.largest, 188);
	/* What would begin behind the end is a bug of the caller: there would be nothing to read, and no place to write. */
	for (u32 sector = 2; sector < 8; sector++) {
		pid_t child = fork();
		int status;

		if (!child) {
			(void)!freopen("/dev/null", "w", stderr); /* what assert says */
			_exit(!!lc_store_write(store, buf, LC_SECTOR, last + sector * LC_SECTOR));
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

static int write_eight(void)
{
	return lc_store_write(store, buf, 8 * LC_BLOCK, 0);
}

static void test_server_takes_less_than_before(void **state)
{
	struct call c;

	(void)state;
	open_with(0, 10000);
	set(&fake, HOLD, OBEY, true);
	start(&c, write_eight);
	wait_held(&fake);
	fake.info.max_bytes = LC_BLOCK;
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	assert_int_equal(join(&c), 0);
	assert_int_equal(fake.nr_writes, 8);
	assert_int_equal(fake.largest, LC_BLOCK);
}

static void test_what_the_server_cannot(void **state)
{
	struct lc_extent e;

	(void)state;
	open_with(0, 10000);
	assert_int_equal(lc_store_extent(store, 5000, 100, &e), 0);
	assert_true(e.hole && e.len_bytes == 1);
	fake.info.zero = fake.info.extent = false;
	break_it(&fake, true);
	assert_int_equal(read_block(), 0);
	assert_int_equal(lc_store_zero(store, LC_BLOCK, 0, false), -EOPNOTSUPP);
	assert_int_equal(lc_store_extent(store, 5000, 100, &e), 0);
	assert_true(!e.hole && e.len_bytes == 5000);
}

static void test_queue(void **state)
{
	struct lc_queue *q;
	struct lc_io ios[10];
	u32 reaped = 0;

	(void)state;
	open_with(0, 10000);
	assert_int_equal(lc_queue_open(store, 3, NULL, 0, &q, NULL), 0);
	for (u32 i = 0; i < 10; i++) {
		memset(buf + i * LC_BLOCK, (int)i + 1, LC_BLOCK);
		ios[i] = (struct lc_io){
			.op = i == 9 ? LC_IO_FLUSH : LC_IO_WRITE,
			.buf = buf + i * LC_BLOCK,
			.len_bytes = LC_BLOCK,
			.offset_bytes = (u64)i * LC_BLOCK,
			.result = 1,
		};
		lc_queue_submit(q, &ios[i]);
	}
	assert_int_equal(fake.nr_writes, 0); /* staged */
	while (reaped < 10)
		for (struct lc_io *io = lc_queue_wait(q, LC_FOREVER); io; io = io->next) {
			assert_int_equal(io->result, 0);
			reaped++;
		}
	assert_int_equal(fake.nr_writes, 9);
	assert_int_equal(fake.nr_flushes, 1);
	assert_int_equal(fake.data[8 * LC_BLOCK], 9);
	assert_null(lc_queue_wait(q, lc_now_ns() + LC_NS_PER_MS));
	lc_queue_kick(q);
	assert_null(lc_queue_wait(q, LC_FOREVER)); /* a kick from before counts */

	/* An error of one I/O is its own; a broken connection is nobody's. */
	set(&fake, HOLD, OBEY, true);
	for (u32 i = 0; i < 4; i++)
		lc_queue_submit(q, &ios[i]);
	lc_queue_start(q);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	for (reaped = 0; reaped < 4;)
		for (struct lc_io *io = lc_queue_wait(q, LC_FOREVER); io; io = io->next) {
			assert_int_equal(io->result, 0);
			reaped++;
		}
	lc_queue_close(q);
}

/* --- several reads at once --- */

enum { MANY = 40 };

static struct lc_io many[MANY];

static int read_many(void)
{
	for (u32 i = 0; i < MANY; i++)
		many[i] = (struct lc_io){
			.op = LC_IO_READ,
			.buf = buf + i * LC_BLOCK,
			.len_bytes = LC_BLOCK,
			.offset_bytes = (u64)(MANY - 1 - i) * LC_BLOCK,
			.result = 1,
		};
	lc_store_read_many(store, many, MANY);
	return 0;
}

static u32 count_held(struct fake *k)
{
	u32 nr = 0;

	lc_mutex_lock(&k->lock);
	for (const struct lc_link_io *io = k->held; io; io = io->next)
		nr++;
	lc_mutex_unlock(&k->lock);
	return nr;
}

static void assert_many(void)
{
	for (u32 i = 0; i < MANY; i++) {
		assert_int_equal(many[i].result, 0);
		assert_int_equal(buf[i * LC_BLOCK], MANY - i);
		assert_int_equal(buf[(i + 1) * LC_BLOCK - 1], MANY - i);
	}
}

/* They are on the link together; if the connection breaks they are issued again, each of them. */
static void test_several_reads(void **state)
{
	struct call c;

	(void)state;
	open_with(0, 10000);
	for (u32 i = 0; i < MANY; i++)
		memset(fake.data + i * LC_BLOCK, (int)i + 1, LC_BLOCK);
	read_many();
	assert_many();

	memset(buf, 0, MANY * LC_BLOCK);
	set(&fake, OBEY, HOLD, true);
	start(&c, read_many);
	while (count_held(&fake) < 32)
		usleep(1000);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	assert_int_equal(join(&c), 0);
	assert_many();
	assert_int_equal(fake.nr_reads, 2 * MANY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FENCE_TEST(test_errors_when_the_server_stays_away),
		FENCE_TEST(test_lost_write_fails_after_the_fence_not_before),
		FENCE_TEST(test_server_is_back_before_the_fence_ends),
		FENCE_TEST(test_server_that_does_not_answer),
		FENCE_TEST(test_request_that_breaks_every_connection),
		FENCE_TEST(test_pauses_between_attempts_grow),
		FENCE_TEST(test_connection_that_breaks_at_birth),
		FENCE_TEST(test_server_comes_back_as_another),
		FENCE_TEST(test_pieces_and_the_end),
		FENCE_TEST(test_sectors_at_the_end),
		FENCE_TEST(test_server_takes_less_than_before),
		FENCE_TEST(test_what_the_server_cannot),
		FENCE_TEST(test_queue),
		FENCE_TEST(test_several_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
