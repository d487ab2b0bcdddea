/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fence (fence.h) over a link that does what the test says: what waits for what when a connection breaks, what flushes say then,
 * and that nothing is written that could be overtaken. Times are real, and short.
 */
#include "fake_link.h"

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

/* --- the life of the store --- */

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
	const struct CMUnitTest tests[] = {
		FENCE_TEST(test_first_write_waits_reads_do_not),
		FENCE_TEST(test_trust_spares_the_first_fence),
		FENCE_TEST(test_trust_spares_no_other_fence),
		FENCE_TEST(test_lost_write_is_issued_again_after_the_fence),
		FENCE_TEST(test_no_fence_if_nothing_was_in_flight),
		FENCE_TEST(test_flush_fails_once_for_writes_of_an_older_connection),
		FENCE_TEST(test_flush_in_flight_fails_if_it_covers_something),
		FENCE_TEST(test_all_flushes_in_flight_fail),
		FENCE_TEST(test_pieces_of_an_older_connection_are_in_doubt),
		FENCE_TEST(test_error_of_the_server_is_passed_on),
		FENCE_TEST(test_pause_and_resume),
		FENCE_TEST(test_open_says_why_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
