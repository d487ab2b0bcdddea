/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake_link.h - a link (fence.h) that does what a test says, for the tests of the fence: a server that obeys or does not answer,
 * connections that break, and a store over it.
 *
 * Each program includes it once; everything is static.
 */
#ifndef LOGCACHE_TEST_FAKE_LINK_H
#define LOGCACHE_TEST_FAKE_LINK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fence.h"

#define UNUSED __attribute__((unused))
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
static UNUSED void break_it(struct fake *k, bool here)
{
	lc_mutex_lock(&k->lock);
	k->broken = true;
	k->here = here;
	lc_mutex_unlock(&k->lock);
	lc_fence_lost(k->link.fence, "the test says so");
}

static UNUSED void set(struct fake *k, enum mood changes, enum mood others, bool here)
{
	lc_mutex_lock(&k->lock);
	k->changes = changes;
	k->others = others;
	k->here = here;
	lc_mutex_unlock(&k->lock);
}

/* So many requests at least are held. */
static UNUSED void wait_many_held(struct fake *k, u32 nr)
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

static UNUSED void wait_held(struct fake *k)
{
	wait_many_held(k, 1);
}

/* The fence has connected so often by now. */
static UNUSED void wait_connects(struct fake *k, u32 nr)
{
	lc_mutex_lock(&k->lock);
	while (k->nr_connects < nr)
		lc_cond_wait(&k->change, &k->lock, LC_FOREVER);
	lc_mutex_unlock(&k->lock);
}

static struct fake fake;
static struct lc_store *store;
static u8 *buf;

static UNUSED void open_with(u32 fence_ms, u32 patience_ms)
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

static UNUSED int begin(void **state)
{
	(void)state;
	buf = lc_alloc(SIZE + LC_BLOCK);
	return buf ? 0 : -1;
}

static UNUSED int end(void **state)
{
	(void)state;
	if (store)
		lc_store_close(store);
	store = NULL;
	lc_free(buf, SIZE + LC_BLOCK);
	return 0;
}

static UNUSED u64 ms_since(u64 t)
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

static UNUSED void call_main(void *arg)
{
	struct call *c = arg;

	c->result = c->fn();
	c->ended_ns = lc_now_ns();
}

static UNUSED void start(struct call *c, int (*fn)(void))
{
	c->fn = fn;
	assert_int_equal(lc_thread_start(&c->thread, "call", call_main, c), 0);
}

static UNUSED int join(struct call *c)
{
	lc_thread_join(&c->thread);
	return c->result;
}

static UNUSED int write_block(void)
{
	return lc_store_write(store, buf, LC_BLOCK, 0);
}

static UNUSED int read_block(void)
{
	return lc_store_read(store, buf + 16 * LC_BLOCK, LC_BLOCK, LC_BLOCK);
}

static UNUSED int flush(void)
{
	return lc_store_flush(store);
}

#define FENCE_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

#endif
