/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fence (fence.h) over a link that does what the test says: what waits for what when a connection breaks, which errors
 * come when, and that nothing is written that could be overtaken. Times are real, and short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fence.h"

#define FENCE_MS 500u
#define SIZE (64u * LC_BLOCK + 700)

/* What the fake server does with the next requests. */
enum mood {
	OBEY,
	HOLD, /* no answer */
};

struct fake {
	struct lc_link link;
	struct lc_mutex lock;
	struct lc_cond change;
	enum mood changes, others;
	bool here, broken, connected;
	bool stillborn; /* the next connection breaks before anybody knows of it */
	struct lc_link_io *held;
	struct lc_link_info info;
	u8 data[SIZE + LC_BLOCK];
	u32 nr_connects, nr_reads, nr_writes, nr_zeros, nr_flushes, largest;
	u32 obey;  /* so many changes all the same */
	int error; /* of everything but reads */
};

static struct fake *fake_of(struct lc_link *l)
{
	return (struct fake *)l;
}

static void done(struct fake *k, struct lc_link_io *io, int result)
{
	io->result = result;
	io->next = NULL;
	lc_fence_done(k->link.fence, io);
}

static int execute(struct fake *k, struct lc_link_io *io)
{
	if (io->len_bytes > k->largest)
		k->largest = (u32)io->len_bytes;
	switch (io->op) {
	case LC_LINK_READ:
		k->nr_reads++;
		memcpy(io->buf, k->data + io->offset_bytes, io->len_bytes);
		return 0;
	case LC_LINK_WRITE:
		k->nr_writes++;
		memcpy(k->data + io->offset_bytes, io->buf, io->len_bytes);
		return k->error;
	case LC_LINK_ZERO:
		k->nr_zeros++;
		memset(k->data + io->offset_bytes, 0, io->len_bytes);
		return k->error;
	case LC_LINK_FLUSH:
		k->nr_flushes++;
		return k->error;
	case LC_LINK_EXTENT:
		io->extent = (struct lc_extent){.len_bytes = 1, .hole = true};
		return 0;
	}
	return -EINVAL;
}

static int fake_connect(struct lc_link *l, u32 timeout_ms, struct lc_link_info *info,
			struct lc_error *err)
{
	struct fake *k = fake_of(l);
	bool stillborn;
	int rc = 0;

	(void)timeout_ms;
	lc_mutex_lock(&k->lock);
	k->nr_connects++;
	if (!k->here)
		rc = lc_fail(err, -ECONNREFUSED, "nobody is there");
	k->connected = !rc;
	stillborn = !rc && k->stillborn;
	k->stillborn = false;
	k->broken = stillborn;
	*info = k->info;
	lc_cond_broadcast(&k->change);
	lc_mutex_unlock(&k->lock);
	if (stillborn)
		lc_fence_lost(l->fence, "stillborn");
	return rc;
}

static void fake_cancel(struct lc_link *l)
{
	(void)l;
}

static void fake_submit(struct lc_link *l, struct lc_link_io *io)
{
	struct fake *k = fake_of(l);
	int result = -ENOTCONN;

	lc_mutex_lock(&k->lock);
	if (k->connected && !k->broken) {
		bool change = io->op == LC_LINK_WRITE || io->op == LC_LINK_ZERO;

		bool obey = change && k->obey && k->obey--;

		if (!obey && (change ? k->changes : k->others) == HOLD) {
			io->next = k->held;
			k->held = io;
			lc_cond_broadcast(&k->change);
			lc_mutex_unlock(&k->lock);
			return;
		}
		result = execute(k, io);
	}
	lc_mutex_unlock(&k->lock);
	done(k, io, result);
}

static void give_back(struct fake *k, int result)
{
	struct lc_link_io *io, *next;

	lc_mutex_lock(&k->lock);
	io = k->held;
	k->held = NULL;
	lc_mutex_unlock(&k->lock);
	for (; io; io = next) {
		next = io->next;
		done(k, io, result);
	}
}

static void fake_cut(struct lc_link *l)
{
	struct fake *k = fake_of(l);

	lc_mutex_lock(&k->lock);
	k->connected = false;
	lc_mutex_unlock(&k->lock);
	give_back(k, -ENOTCONN);
}

static void fake_close(struct lc_link *l)
{
	assert_false(fake_of(l)->connected);
}

/* The connection breaks; HERE: the server can be reached again at once. */
static void break_it(struct fake *k, bool here)
{
	lc_mutex_lock(&k->lock);
	k->broken = true;
	k->here = here;
	lc_mutex_unlock(&k->lock);
	lc_fence_lost(k->link.fence, "the test says so");
}

static void set(struct fake *k, enum mood changes, enum mood others, bool here)
{
	lc_mutex_lock(&k->lock);
	k->changes = changes;
	k->others = others;
	k->here = here;
	lc_mutex_unlock(&k->lock);
}

/* So many requests at least are held. */
static void wait_many_held(struct fake *k, u32 nr)
{
	lc_mutex_lock(&k->lock);
	for (;;) {
		u32 held = 0;

		for (const struct lc_link_io *io = k->held; io; io = io->next)
			held++;
		if (held >= nr)
			break;
		lc_cond_wait(&k->change, &k->lock, LC_FOREVER);
	}
	lc_mutex_unlock(&k->lock);
}

static void wait_held(struct fake *k)
{
	wait_many_held(k, 1);
}

/* The fence has connected so often by now. */
static void wait_connects(struct fake *k, u32 nr)
{
	lc_mutex_lock(&k->lock);
	while (k->nr_connects < nr)
		lc_cond_wait(&k->change, &k->lock, LC_FOREVER);
	lc_mutex_unlock(&k->lock);
}

static struct fake fake;
static struct lc_store *store;
static u8 *buf;

static void open_with(u32 fence_ms, u32 patience_ms)
{
	static const struct lc_link_ops ops = {
		.connect = fake_connect,
		.cancel = fake_cancel,
		.submit = fake_submit,
		.cut = fake_cut,
		.close = fake_close,
	};
	struct lc_fence_options o = {.fence_ms = fence_ms, .patience_ms = patience_ms, .retry_ms = 2};

	fake = (struct fake){.link.ops = &ops, .here = true};
	fake.info = (struct lc_link_info){
		.size_bytes = SIZE,
		.block_bytes = LC_SECTOR,
		.max_bytes = 4 * LC_BLOCK,
		.zero_max_bytes = 8 * LC_BLOCK,
		.zero = true,
		.extent = true,
		.can_zero = true,
	};
	lc_mutex_init(&fake.lock);
	lc_cond_init(&fake.change);
	assert_int_equal(lc_fence_open(&fake.link, "fake", &o, &store, NULL), 0);
}

static int begin(void **state)
{
	(void)state;
	buf = lc_alloc(SIZE + LC_BLOCK);
	return buf ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	if (store)
		lc_store_close(store);
	store = NULL;
	lc_free(buf, SIZE + LC_BLOCK);
	return 0;
}

static u64 ms_since(u64 t)
{
	return (lc_now_ns() - t) / LC_NS_PER_MS;
}

/* A call in another thread. */
struct call {
	struct lc_thread thread;
	int (*fn)(void);
	int result;
	u64 ended_ns;
};

static void call_main(void *arg)
{
	struct call *c = arg;

	c->result = c->fn();
	c->ended_ns = lc_now_ns();
}

static void start(struct call *c, int (*fn)(void))
{
	c->fn = fn;
	assert_int_equal(lc_thread_start(&c->thread, "call", call_main, c), 0);
}

static int join(struct call *c)
{
	lc_thread_join(&c->thread);
	return c->result;
}

static int write_block(void)
{
	return lc_store_write(store, buf, LC_BLOCK, 0);
}

static int read_block(void)
{
	return lc_store_read(store, buf + 16 * LC_BLOCK, LC_BLOCK, LC_BLOCK);
}

static int flush(void)
{
	return lc_store_flush(store);
}

/* --- the fence --- */

static void test_first_write_waits_reads_do_not(void **state)
{
	u64 t = lc_now_ns();

	(void)state;
	open_with(FENCE_MS, 10000);
	assert_int_equal(read_block(), 0);
	assert_int_equal(flush(), 0);
	assert_true(ms_since(t) < FENCE_MS);
	assert_false(lc_store_settled(store));
	assert_int_equal(write_block(), 0);
	assert_true(ms_since(t) >= FENCE_MS);
	assert_true(lc_store_settled(store));
}

static void test_trust_spares_the_first_fence(void **state)
{
	struct call c;
	u64 t = lc_now_ns();

	(void)state;
	open_with(5000, 10000);
	start(&c, write_block); /* maybe it waits already */
	lc_store_trust(store);
	assert_int_equal(join(&c), 0);
	assert_true(ms_since(t) < 4000);
	assert_true(lc_store_settled(store));
}

static void test_trust_spares_no_other_fence(void **state)
{
	struct call c;
	u64 t;

	(void)state;
	open_with(FENCE_MS, 10000);
	assert_int_equal(write_block(), 0);
	set(&fake, HOLD, OBEY, true);
	start(&c, write_block);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	t = lc_now_ns();
	break_it(&fake, true);
	wait_connects(&fake, 2);
	lc_store_trust(store);
	assert_int_equal(join(&c), 0);
	assert_true(ms_since(t) >= FENCE_MS);
}

static void test_lost_write_is_issued_again_after_the_fence(void **state)
{
	struct call c;
	u64 t;

	(void)state;
	open_with(FENCE_MS, 10000);
	lc_store_trust(store);
	memset(buf, 7, LC_BLOCK);
	set(&fake, HOLD, OBEY, true);
	start(&c, write_block);
	wait_held(&fake);
	assert_false(lc_store_settled(store));
	set(&fake, OBEY, OBEY, true);
	t = lc_now_ns();
	break_it(&fake, true);
	assert_int_equal(read_block(), 0); /* as soon as there is a connection */
	assert_true(ms_since(t) < FENCE_MS);
	assert_int_equal(fake.nr_writes, 0);
	assert_false(lc_store_settled(store));
	/* Neither it nor any other. */
	assert_int_equal(lc_store_zero(store, LC_BLOCK, 8 * LC_BLOCK, false), 0);
	assert_true(ms_since(t) >= FENCE_MS);
	assert_int_equal(join(&c), 0);
	assert_true(c.ended_ns - t >= FENCE_MS * LC_NS_PER_MS);
	assert_int_equal(fake.nr_writes, 1);
	assert_int_equal(fake.data[17], 7);
	assert_true(lc_store_settled(store));
}

static void test_no_fence_if_nothing_was_in_flight(void **state)
{
	u64 t = lc_now_ns();

	(void)state;
	open_with(5000, 10000);
	lc_store_trust(store);
	assert_int_equal(write_block(), 0);
	assert_int_equal(flush(), 0);
	break_it(&fake, true);
	assert_int_equal(write_block(), 0);
	assert_true(ms_since(t) < 4000);
}

/* --- flushes --- */

static void test_flush_fails_once_for_writes_of_an_older_connection(void **state)
{
	(void)state;
	open_with(0, 10000);
	assert_int_equal(write_block(), 0);
	break_it(&fake, true);
	assert_int_equal(read_block(), 0); /* connected again */
	assert_int_equal(write_block(), 0);
	assert_int_equal(flush(), -EIO);
	assert_int_equal(flush(), 0);
	break_it(&fake, true);
	assert_int_equal(flush(), 0); /* nothing was written since */
	assert_int_equal(write_block(), 0);
	assert_int_equal(flush(), 0);
}

static void test_flush_in_flight_fails_if_it_covers_something(void **state)
{
	struct call c;

	(void)state;
	open_with(0, 10000);
	assert_int_equal(write_block(), 0);
	set(&fake, OBEY, HOLD, true);
	start(&c, flush);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	assert_int_equal(join(&c), -EIO);
	assert_int_equal(flush(), 0);

	set(&fake, OBEY, HOLD, true);
	start(&c, flush);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	assert_int_equal(join(&c), 0); /* issued again */
}

static int zero_three_pieces(void)
{
	return lc_store_zero(store, 20 * LC_BLOCK, 0, false);
}

/* Whoever has asked when the connection breaks has to know, not only the first of them. */
static void test_all_flushes_in_flight_fail(void **state)
{
	struct call c[2];

	(void)state;
	open_with(0, 10000);
	assert_int_equal(write_block(), 0);
	set(&fake, OBEY, HOLD, true);
	for (u32 i = 0; i < 2; i++)
		start(&c[i], flush);
	wait_many_held(&fake, 2);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	for (u32 i = 0; i < 2; i++)
		assert_int_equal(join(&c[i]), -EIO);
	assert_int_equal(flush(), 0);
}

static void test_pieces_of_an_older_connection_are_in_doubt(void **state)
{
	struct call c;

	(void)state;
	open_with(0, 10000);
	set(&fake, HOLD, OBEY, true);
	fake.obey = 2;
	start(&c, zero_three_pieces);
	wait_held(&fake);
	set(&fake, OBEY, OBEY, true);
	break_it(&fake, true);
	assert_int_equal(join(&c), 0); /* the third came on the second connection */
	assert_int_equal(fake.nr_zeros, 3);
	assert_int_equal(flush(), -EIO);
	assert_int_equal(flush(), 0);
}

static void test_error_of_the_server_is_passed_on(void **state)
{
	(void)state;
	open_with(0, 10000);
	fake.error = -ENOSPC;
	assert_int_equal(write_block(), -ENOSPC);
	assert_int_equal(flush(), -ENOSPC);
	fake.error = 0;
	assert_int_equal(flush(), 0);
	assert_int_equal(fake.nr_connects, 1);
}

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

static void test_pause_and_resume(void **state)
{
	u64 t = lc_now_ns();

	(void)state;
	open_with(FENCE_MS, 10000);
	assert_int_equal(read_block(), 0);
	lc_fence_pause(store);
	assert_false(fake.connected);
	assert_int_equal(lc_fence_resume(store, NULL), 0);
	assert_int_equal(read_block(), 0);
	assert_int_equal(write_block(), 0);
	assert_true(ms_since(t) >= FENCE_MS); /* the fence of the opening */
	assert_int_equal(fake.nr_connects, 2);

	/* Resuming does not need the server. */
	assert_int_equal(flush(), 0);
	lc_fence_pause(store);
	set(&fake, OBEY, OBEY, false);
	assert_int_equal(lc_fence_resume(store, NULL), 0);
	lc_fence_pause(store);
	set(&fake, OBEY, OBEY, true);
	assert_int_equal(lc_fence_resume(store, NULL), 0);
	assert_int_equal(write_block(), 0);
}

static void test_open_says_why_not(void **state)
{
	static const struct lc_link_ops ops = {
		.connect = fake_connect,
		.cancel = fake_cancel,
		.cut = fake_cut,
		.close = fake_close,
	};
	struct lc_fence_options o = {.fence_ms = 1, .patience_ms = 1, .retry_ms = 1};
	struct lc_error err = {""};

	(void)state;
	fake = (struct fake){.link.ops = &ops};
	lc_mutex_init(&fake.lock);
	assert_int_equal(lc_fence_open(&fake.link, "fake", &o, &store, &err), -ECONNREFUSED);
	assert_string_equal(err.text, "'fake': nobody is there");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		T(test_first_write_waits_reads_do_not),
		T(test_trust_spares_the_first_fence),
		T(test_trust_spares_no_other_fence),
		T(test_lost_write_is_issued_again_after_the_fence),
		T(test_no_fence_if_nothing_was_in_flight),
		T(test_flush_fails_once_for_writes_of_an_older_connection),
		T(test_flush_in_flight_fails_if_it_covers_something),
		T(test_all_flushes_in_flight_fail),
		T(test_pieces_of_an_older_connection_are_in_doubt),
		T(test_error_of_the_server_is_passed_on),
		T(test_errors_when_the_server_stays_away),
		T(test_lost_write_fails_after_the_fence_not_before),
		T(test_server_is_back_before_the_fence_ends),
		T(test_server_that_does_not_answer),
		T(test_request_that_breaks_every_connection),
		T(test_pauses_between_attempts_grow),
		T(test_connection_that_breaks_at_birth),
		T(test_server_comes_back_as_another),
		T(test_pieces_and_the_end),
		T(test_server_takes_less_than_before),
		T(test_what_the_server_cannot),
		T(test_queue),
		T(test_several_reads),
		T(test_pause_and_resume),
		T(test_open_says_why_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
