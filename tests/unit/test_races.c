/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_races.c - what the others may do while a thread is at what it does without the mutex: the copy of a block (I6).
 *
 * That is a call out of the engine, so the linker can have it come through here (tests/meson.build), where a thread stops
 * in its middle until the test lets it go on. Nothing depends on who is faster.
 */
#include "cache_life.h"

#include "cache.h"

/* --- threads that are stopped --- */

static struct {
	struct lc_mutex lock;
	struct lc_cond change;
	u8 at; /* the first byte of the block at which the next thread stops; 0: none does */
	bool stopped, go;
} gate;

/* The next copy of a block that begins with this byte stops in its middle. */
static void stop_at(u8 byte)
{
	lc_mutex_lock(&gate.lock);
	gate.at = byte;
	gate.stopped = gate.go = false;
	lc_mutex_unlock(&gate.lock);
}

static void must_stop(void)
{
	u64 deadline_ns = lc_now_ns() + 5 * LC_NS_PER_S;
	bool stopped;

	lc_mutex_lock(&gate.lock);
	while (!gate.stopped && !lc_cond_wait(&gate.change, &gate.lock, deadline_ns))
		;
	stopped = gate.stopped;
	lc_mutex_unlock(&gate.lock);
	assert_true(stopped);
}

static void go_on(void)
{
	lc_mutex_lock(&gate.lock);
	gate.at = 0;
	gate.go = true;
	lc_cond_broadcast(&gate.change);
	lc_mutex_unlock(&gate.lock);
}

static void pass(u8 byte)
{
	lc_mutex_lock(&gate.lock);
	if (gate.at == byte) {
		gate.at = 0;
		gate.stopped = true;
		lc_cond_broadcast(&gate.change);
		while (!gate.go)
			lc_cond_wait(&gate.change, &gate.lock, LC_FOREVER);
	}
	lc_mutex_unlock(&gate.lock);
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
void __real_lc_copy(void *dst, const void *src, size_t n);
void __wrap_lc_copy(void *dst, const void *src, size_t n);

void __wrap_lc_copy(void *dst, const void *src, size_t n)
{
	size_t half = n / 2;

	__real_lc_copy(dst, src, half);
	pass(*(const u8 *)src);
	__real_lc_copy((u8 *)dst + half, (const u8 *)src + half, n - half);
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* --- clients beside the test: of block 5 --- */

static struct client {
	struct lc_thread thread;
	bool started;
	bool done; /* guarded by the gate's lock */
	int result;
	u8 buf[LC_BLOCK];
} one, other;

static void end(struct client *c, int result)
{
	lc_mutex_lock(&gate.lock);
	c->result = result;
	c->done = true;
	lc_mutex_unlock(&gate.lock);
}

static bool is_done(const struct client *c)
{
	bool is;

	lc_mutex_lock(&gate.lock);
	is = c->done;
	lc_mutex_unlock(&gate.lock);
	return is;
}

static void write_it(void *arg)
{
	struct client *c = arg;

	end(c, lc_write(volume(0), c->buf, LC_BLOCK, 5 * LC_BLOCK, 0));
}

static void read_it(void *arg)
{
	struct client *c = arg;

	end(c, lc_read(volume(0), c->buf, LC_BLOCK, 5 * LC_BLOCK));
}

static void flush_it(void *arg)
{
	end(arg, lc_flush(volume(0)));
}

/* It does this, in a thread of its own, with a buffer full of this byte. */
static void start(struct client *c, void (*fn)(void *), u8 byte)
{
	assert_false(c->started);
	c->done = false;
	memset(c->buf, byte, sizeof c->buf);
	assert_int_equal(lc_thread_start(&c->thread, "client", fn, c), 0);
	c->started = true;
}

static void join(struct client *c)
{
	if (c->started)
		lc_thread_join(&c->thread);
	c->started = false;
}

static void must_end(struct client *c)
{
	join(c);
	assert_int_equal(c->result, 0);
}

static int setup(void **state)
{
	int ret = life_setup(state);

	lc_mutex_init(&gate.lock);
	lc_cond_init(&gate.change);
	settings.flush_interval_ms = 0; /* nobody seals a record but who is told to */
	make(4 * MIB, 32768, 1, MIB);
	must_open();
	return ret;
}

static int teardown(void **state)
{
	int ret;

	go_on(); /* whoever is left if the test has failed */
	join(&one);
	join(&other);
	ret = life_teardown(state);
	lc_cond_destroy(&gate.change);
	lc_mutex_destroy(&gate.lock);
	return ret;
}

/* --- copies (I6) --- */

static void a_block_is_not_seen_before_its_copy_ends(void **state)
{
	(void)state;
	stop_at(0x22);
	start(&one, write_it, 0x22);
	must_stop();
	assert_reads(0, 5, 1, noise(0));
	go_on();
	must_end(&one);
	assert_reads(0, 5, 1, 0x22);
	must_close();
}

static bool somebody_waits_for_a_copy(void)
{
	bool waits;

	lc_mutex_lock(&cache->core.lock);
	waits = cache->log.published_waiters;
	lc_mutex_unlock(&cache->core.lock);
	return waits;
}

/* Half of the one and half of the other would be neither. */
static void a_read_waits_for_an_overwrite_in_place(void **state)
{
	(void)state;
	put(0, 5, 1, 0x11);
	stop_at(0x22);
	start(&one, write_it, 0x22);
	must_stop();
	start(&other, read_it, 0);
	must_become(somebody_waits_for_a_copy() || is_done(&other));
	assert_false(is_done(&other));
	go_on();
	must_end(&one);
	must_end(&other);
	assert_bytes(other.buf, LC_BLOCK, 0x22, 0, "the read");
	assert_int_equal(stats().dirty_blocks, 1); /* it was so: in place */
	must_close();
}

static void what_is_being_read_is_not_overwritten_in_place(void **state)
{
	(void)state;
	put(0, 5, 1, 0x11);
	stop_at(0x11);
	start(&one, read_it, 0);
	must_stop();
	put(0, 5, 1, 0x22);
	go_on();
	must_end(&one);
	assert_bytes(one.buf, LC_BLOCK, 0x11, 0, "the read");
	assert_reads(0, 5, 1, 0x22);
	must_close();
}

static void zero_it(void *arg)
{
	end(arg, lc_zero(volume(0), 16 * LC_BLOCK, 0, 0));
}

static bool somebody_waits_for_a_range(void)
{
	bool waits;

	lc_mutex_lock(&cache->core.lock);
	waits = volume(0)->ranges.waiters;
	lc_mutex_unlock(&cache->core.lock);
	return waits;
}

/* The writer has its place in the log before the zeros, and would enter the index after them. */
static void zeros_wait_for_the_writers_in_their_range(void **state)
{
	(void)state;
	stop_at(0x22);
	start(&one, write_it, 0x22);
	must_stop();
	start(&other, zero_it, 0);
	must_become(somebody_waits_for_a_range() || is_done(&other));
	assert_false(is_done(&other));
	go_on();
	must_end(&one);
	must_end(&other);
	assert_reads(0, 0, 16, 0);
	must_close();
}

/* --- records --- */

static bool leader_waits(void)
{
	bool waits;

	lc_mutex_lock(&cache->core.lock);
	waits = cache->log.leader_waits;
	lc_mutex_unlock(&cache->core.lock);
	return waits;
}

/* A record has the checksums of what is in it: of a block that changes afterwards it would be wrong. */
static void a_record_waits_for_the_copies_into_it(void **state)
{
	(void)state;
	put(0, 6, 1, 0x11);
	stop_at(0x22);
	start(&one, write_it, 0x22);
	must_stop();
	start(&other, flush_it, 0);
	must_become(leader_waits() || is_done(&other));
	assert_false(is_done(&other));
	go_on();
	must_end(&one);
	must_end(&other);
	assert_int_equal(stats().records, 1); /* it was so: one record for both */
	crash();
	must_open();
	assert_reads(0, 5, 1, 0x22);
	assert_reads(0, 6, 1, 0x11);
	must_close();
}

/* What a client flushes is its last write of the block, although the slot is the same. */
static void an_overwrite_in_place_has_its_own_checksum(void **state)
{
	(void)state;
	put(0, 5, 1, 0x11);
	put(0, 5, 1, 0x22);
	put(0, 6, 1, 0x33);
	assert_int_equal(try_put(0, 6 * LC_BLOCK + LC_SECTOR + 1, 7, 0x44), 0); /* a part of it */
	assert_int_equal(stats().dirty_blocks, 2);
	assert_int_equal(lc_flush(volume(0)), 0);
	assert_int_equal(stats().log_bytes, 3 * LC_BLOCK); /* it was so: in place */
	crash();
	must_open();
	assert_reads(0, 5, 1, 0x22);
	assert_reads_bytes(0, 6 * LC_BLOCK + LC_SECTOR + 1, 7, 0x44);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_block_is_not_seen_before_its_copy_ends),
		T(a_read_waits_for_an_overwrite_in_place),
		T(what_is_being_read_is_not_overwritten_in_place),
		T(zeros_wait_for_the_writers_in_their_range),
		T(a_record_waits_for_the_copies_into_it),
		T(an_overwrite_in_place_has_its_own_checksum),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
