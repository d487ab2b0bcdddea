/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_pace.c - what a writer pays as the log fills, and how far write-back looks.
 */
#include "mem_store.h"

#include <string.h>

#include "log.h"

#define ZONE 256u
#define BLOCKS 64u
#define NR 1600u /* segments; the reserve of the writers is the last 320 */

static struct lc_core core;

static int setup(void **state)
{
	(void)state;
	memset(&core, 0, sizeof core);
	lc_mutex_init(&core.lock);
	lc_pace_init(&core.pace);
	lc_settings_init(&core.settings);
	return lc_ring_init(&core.ring, ZONE, BLOCKS, NR);
}

static int teardown(void **state)
{
	(void)state;
	lc_ring_destroy(&core.ring);
	lc_pace_destroy(&core.pace);
	lc_mutex_destroy(&core.lock);
	return 0;
}

/* So many whole segments are left to the head (I4 keeps two); it has just taken its own last block. */
static void leave_room(u32 segments)
{
	core.ring.tail_id = NR;
	core.ring.head_id = 2 * NR - 2 - segments;
}

static u32 last_slot(void)
{
	return lc_ring_first_slot(&core.ring, core.ring.head_id) + BLOCKS - 1;
}

/* Write-back did 1000 blocks a second for eight seconds. */
static void know_the_rate(void)
{
	u64 now_ns = 5 * LC_NS_PER_S;

	lc_pace_start(&core, now_ns);
	for (u32 i = 0; i < 80; i++)
		lc_pace_progress(&core, 100, now_ns += 100 * LC_NS_PER_MS);
	assert_int_equal(lc_pace_rate(&core), 1000);
}

/* What one writer pays for NR blocks if nobody else is there. */
static u64 price_ns(u32 nr)
{
	u64 before_ns = lc_now_ns(), until_ns;

	core.pace.next_ns = 0;
	until_ns = lc_pace_charge(&core, last_slot() + 1 - nr, nr);
	return until_ns ? until_ns - before_ns : 0;
}

static void nobody_pays_while_there_is_room(void **state)
{
	(void)state;
	know_the_rate();
	leave_room(320);
	assert_false(lc_pace_pressed(&core));
	assert_int_equal(price_ns(1), 0);
	leave_room(319);
	assert_true(lc_pace_pressed(&core));
	assert_true(price_ns(1) > 0);
}

static bool about(u64 ns, u64 expected_ns)
{
	/* Not a part too little; too much is what the clock goes on by, however long this machine keeps us waiting. */
	return ns >= expected_ns && ns < expected_ns + expected_ns / 20 + 50 * LC_NS_PER_MS;
}

static void a_block_costs_what_write_back_needs_for_it_at_half_the_reserve(void **state)
{
	(void)state;
	know_the_rate();
	leave_room(160);
	assert_true(about(price_ns(1), LC_NS_PER_S / 1000));
	assert_true(about(price_ns(32), 32 * LC_NS_PER_MS));
	leave_room(240); /* u = 3/4 */
	assert_true(about(price_ns(30), 22 * LC_NS_PER_MS));
	leave_room(80); /* u = 1/4 */
	assert_true(about(price_ns(30), 39 * LC_NS_PER_MS));
	leave_room(40); /* u = 1/8 */
	assert_true(about(price_ns(30), 97 * LC_NS_PER_MS));
}

static void writers_pay_one_after_the_other_but_never_for_too_long(void **state)
{
	u64 first_ns, second_ns, now_ns;

	(void)state;
	know_the_rate();
	leave_room(160);
	first_ns = lc_pace_charge(&core, last_slot() - 99, 100);
	second_ns = lc_pace_charge(&core, last_slot() - 99, 100);
	assert_true(second_ns >= first_ns + 99 * LC_NS_PER_MS);
	for (u32 i = 0; i < 100; i++)
		first_ns = lc_pace_charge(&core, last_slot() - 99, 100);
	now_ns = lc_now_ns();
	assert_true(first_ns <= now_ns + LC_PACE_MAX_NS);
	leave_room(0);
	assert_true(lc_pace_charge(&core, last_slot(), 1) <= lc_now_ns() + LC_PACE_MAX_NS);
}

/* Who pays is let go when the tail has moved far enough. */
static void room_ends_the_waiting(void **state)
{
	(void)state;
	know_the_rate();
	leave_room(10);
	assert_true(lc_pace_owes(&core, lc_pace_charge(&core, last_slot(), 1)));
	assert_true(core.pace.delay_ns > 0);
	core.ring.tail_id += 400;
	lc_pace_room(&core);
	assert_int_equal(core.pace.delay_ns, 0);
	assert_false(lc_pace_owes(&core, LC_FOREVER));
}

/* Segments 1 .. 1000 hold 40 dirty blocks each. */
static void make_dirty(void)
{
	for (u64 id = 1; id <= 1000; id++) {
		lc_ring_segment(&core.ring, id)->id = id;
		lc_ring_segment(&core.ring, id)->dirty = 40;
	}
	core.ring.dirty_blocks = 40000;
	core.ring.head_id = 1001;
}

static u64 limit(void)
{
	u64 id;

	lc_mutex_lock(&core.lock);
	id = lc_pace_limit(&core, 1000);
	lc_mutex_unlock(&core.lock);
	return id;
}

static void write_back_looks_as_far_as_its_work_goes(void **state)
{
	(void)state;
	make_dirty();
	assert_int_equal(limit(), 1000);
	core.pace.work_blocks = 39000; /* the youngest eighth of the ring, 200 segments, is left out */
	assert_int_equal(limit(), 801);
	core.pace.work_blocks = 4000;
	assert_int_equal(limit(), 100);
	core.pace.work_blocks = 4001;
	assert_int_equal(limit(), 101);
	core.pace.work_blocks = 0; /* one segment at least, or nothing would ever happen */
	assert_int_equal(limit(), 1);
	core.settings.batch_bytes = 7 * BLOCKS * LC_BLOCK;
	assert_int_equal(limit(), 7);
	core.settings.batch_bytes = 1;
	assert_int_equal(limit(), 1);
}

/* A burst has filled the log: a short round first. Then longer ones, as long as the tail follows. */
static void rounds_grow_while_the_tail_follows(void **state)
{
	u64 least = (u64)NR * BLOCKS / 16, work;

	(void)state;
	core.ring.dirty_blocks = (u64)NR * BLOCKS * 7 / 8;
	leave_room(100);
	assert_true(core.pace.work_blocks == UINT64_MAX);
	lc_pace_turned(&core, 1000, 0);
	assert_int_equal(core.pace.work_blocks, least);
	for (u32 i = 0; i < 8; i++)
		lc_pace_turned(&core, 1000, 0);
	assert_int_equal(core.pace.work_blocks, least); /* not less */
	for (u32 i = 0; i < 20; i++)
		lc_pace_turned(&core, 1000, 1000 / BLOCKS);
	work = core.pace.work_blocks;
	assert_true(work > 2 * least);
	for (u32 i = 0; i < 200; i++)
		lc_pace_turned(&core, 1000, 1000 / BLOCKS);
	assert_true(core.pace.work_blocks >= core.ring.dirty_blocks);
	/* It does not follow any more. */
	for (u32 i = 0; i < 60; i++)
		lc_pace_turned(&core, 1000, 0);
	assert_true(core.pace.work_blocks < work);
}

/* A tail that has followed all along, in small steps, is no burst when the reserve is reached. */
static void what_flows_goes_on_flowing(void **state)
{
	(void)state;
	core.ring.dirty_blocks = (u64)NR * BLOCKS / 2;
	leave_room(400);
	for (u32 i = 0; i < 40; i++)
		lc_pace_turned(&core, 1000, i % 2 ? 2000 / BLOCKS : 0);
	leave_room(150);
	lc_pace_turned(&core, 1000, 0);
	assert_true(core.pace.work_blocks >= core.ring.dirty_blocks);
}

static void with_half_the_ring_free_all_is_looked_at(void **state)
{
	(void)state;
	core.ring.dirty_blocks = (u64)NR * BLOCKS * 7 / 8;
	leave_room(100);
	lc_pace_turned(&core, 1000, 0);
	leave_room(NR / 2);
	lc_pace_turned(&core, 1000, 0);
	assert_true(core.pace.work_blocks == UINT64_MAX);
	assert_int_equal(lc_pace_turn_blocks(&core), UINT32_MAX);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nobody_pays_while_there_is_room),
		T(a_block_costs_what_write_back_needs_for_it_at_half_the_reserve),
		T(writers_pay_one_after_the_other_but_never_for_too_long),
		T(room_ends_the_waiting),
		T(write_back_looks_as_far_as_its_work_goes),
		T(rounds_grow_while_the_tail_follows),
		T(what_flows_goes_on_flowing),
		T(with_half_the_ring_free_all_is_looked_at),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
