/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_races.c - what the others may do while a thread is at what it does without the mutex: a copy of a block (I6), the
 * checksums of a record.
 *
 * Both are calls out of a room of the engine, so the linker can have them come through here (tests/meson.build), where a thread stops
 * in their middle until the test lets it go on. Nothing depends on who is faster.
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

/* The next copy or checksum of a block that begins with this byte stops in its middle. */
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
u32 __real_lc_crc32c(const void *p, size_t n);
void __wrap_lc_copy(void *dst, const void *src, size_t n);
u32 __wrap_lc_crc32c(const void *p, size_t n);

void __wrap_lc_copy(void *dst, const void *src, size_t n)
{
	size_t half = n / 2;

	__real_lc_copy(dst, src, half);
	pass(*(const u8 *)src);
	__real_lc_copy((u8 *)dst + half, (const u8 *)src + half, n - half);
}

u32 __wrap_lc_crc32c(const void *p, size_t n)
{
	pass(*(const u8 *)p);
	return __real_lc_crc32c(p, n);
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

/* The log thread has seen all that there is, and found nothing to do. */
static bool log_thread_rests(void)
{
	bool rests;

	lc_mutex_lock(&cache->core.lock);
	rests = cache->log.sleeping;
	lc_mutex_unlock(&cache->core.lock);
	return rests;
}

/*
 * A client that flushes is at the checksums of its record when the next record, which the log thread writes, fills up the segment. The
 * summary of the segment has the checksums of both, so it has to wait for the first ones.
 */
static void a_summary_has_the_checksums_of_all_its_records(void **state)
{
	(void)state;
	put(0, 5, 1, 0x11);
	stop_at(0x11);
	start(&one, flush_it, 0);
	must_stop();
	put(0, 100, 4, 0x33); /* block 2 of the segment is a header, the last one the summary */
	assert_int_equal(stats().seq, 2);
	must_become(log_thread_rests());
	go_on();
	must_end(&one);
	must_close(); /* so that it is known to be durable, and the summary counts */
	must_open();
	assert_reads(0, 5, 1, 0x11);
	assert_reads(0, 100, 4, 0x33);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_block_is_not_seen_before_its_copy_ends),
		T(a_read_waits_for_an_overwrite_in_place),
		T(what_is_being_read_is_not_overwritten_in_place),
		T(a_record_waits_for_the_copies_into_it),
		T(a_summary_has_the_checksums_of_all_its_records),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
