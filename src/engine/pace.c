/* SPDX-License-Identifier: BSD-3-Clause */
#include "pace.h"

#include <math.h>

#include "log.h"

/* The share of the ring in which writers are slowed, and the work of a round in a burst. */
#define RESERVE_SHARE 5u
#define BURST_SHARE 8u
/* In a cache that is more than half full, what is younger than this share of the ring may be overwritten before it is worth a write. */
#define YOUNG_SHARE 8u
/* By what share of itself the work grows or shrinks after a turn; and what "lately" is. */
#define WORK_STEP_SHARE 16u
#define TURNS_LATELY 16u
/* A turn writes a share of what write-back looks at, but not so little that the flush at its end counts. */
#define TURN_SHARE 4u
#define TURN_BLOCKS_MIN 2048u
/* The rate is that of the present stretch and the one before it, each so long. */
#define STRETCH_NS (4 * LC_NS_PER_S)
/* Below this share of the reserve a block costs ever more. */
#define SCARCE 0.25
/* What a disk does at least, if nothing is known yet. */
#define RATE_MIN 64u
/* How long the share of time that clients' reads take is measured, and how often it is looked at again. */
#define MEASURE_NS (100 * LC_NS_PER_MS)
/* Clients' reads that take a smaller share of the time do not shorten the queue. */
#define BUSY_PERCENT 5u
/* Segments looked at in one critical section. */
#define SLICE 512u

void lc_pace_init(struct lc_pace *p)
{
	*p = (struct lc_pace){0};
	lc_cond_init(&p->paid);
	lc_pace_reset(p);
}

void lc_pace_destroy(struct lc_pace *p)
{
	lc_cond_destroy(&p->paid);
}

void lc_pace_reset(struct lc_pace *p)
{
	p->next_ns = p->delay_ns = 0;
	p->stretch_ns = p->stretch_blocks = p->before_ns = p->before_blocks = 0;
	p->work_blocks = UINT64_MAX;
	p->written_lately = p->freed_lately = 0;
	p->pressed = false;
}

/* --- writers --- */

static u64 ring_blocks(const struct lc_ring *r)
{
	return (u64)r->nr * r->segment_blocks;
}

/* Blocks that still fit behind the head segment before the tail has to move (I4). */
static u64 room_blocks(const struct lc_ring *r)
{
	u64 end_id = r->tail_id + r->nr - 2;

	return end_id > r->head_id ? (end_id - r->head_id) * r->segment_blocks : 0;
}

bool lc_pace_pressed(const struct lc_core *c)
{
	return room_blocks(&c->ring) * RESERVE_SHARE < ring_blocks(&c->ring);
}

/* What a block costs: pace.h. */
static u64 price_ns(u64 room, u64 reserve, u64 rate)
{
	double u = (double)room / reserve, price = sqrt(sqrt((1 - u) / u));

	if (u < SCARCE)
		price *= SCARCE / u;
	price *= (double)LC_NS_PER_S / rate;
	return price < LC_PACE_MAX_NS ? price : LC_PACE_MAX_NS;
}

u64 lc_pace_charge(struct lc_core *c, u32 slot, u32 nr)
{
	struct lc_pace *p = &c->pace;
	u64 reserve = ring_blocks(&c->ring) / RESERVE_SHARE;
	u64 room = room_blocks(&c->ring) + c->ring.segment_blocks -
		   lc_ring_position(&c->ring, slot) - nr; /* the rest of the head */
	u64 rate, now_ns, max_ns;

	if (room >= reserve) {
		p->delay_ns = p->next_ns = 0;
		return 0;
	}
	now_ns = lc_now_ns();
	max_ns = now_ns + LC_PACE_MAX_NS;
	rate = lc_pace_rate(c);
	if (rate < RATE_MIN)
		rate = RATE_MIN;
	if (p->next_ns < now_ns)
		p->next_ns = now_ns;
	/* Without any room the writer is held up elsewhere: by the log itself. */
	p->next_ns = room ? p->next_ns + nr * price_ns(room, reserve, rate) : max_ns;
	if (p->next_ns > max_ns)
		p->next_ns = max_ns;
	p->delay_ns = p->next_ns - now_ns;
	return p->next_ns;
}

bool lc_pace_owes(const struct lc_core *c, u64 until_ns)
{
	return until_ns > lc_now_ns() && lc_pace_pressed(c);
}

void lc_pace_room(struct lc_core *c)
{
	if (lc_pace_pressed(c))
		return;
	c->pace.delay_ns = c->pace.next_ns = 0;
	lc_cond_broadcast(&c->pace.paid);
}

/* --- write-back --- */

void lc_pace_start(struct lc_core *c, u64 now_ns)
{
	c->pace.seen_ns = now_ns;
}

void lc_pace_progress(struct lc_core *c, u32 nr, u64 now_ns)
{
	struct lc_pace *p = &c->pace;

	p->stretch_ns += now_ns - p->seen_ns;
	p->stretch_blocks += nr;
	p->seen_ns = now_ns;
	if (p->stretch_ns >= STRETCH_NS) {
		p->before_ns = p->stretch_ns;
		p->before_blocks = p->stretch_blocks;
		p->stretch_ns = p->stretch_blocks = 0;
	}
}

u64 lc_pace_rate(const struct lc_core *c)
{
	const struct lc_pace *p = &c->pace;
	u64 ms = (p->stretch_ns + p->before_ns) / LC_NS_PER_MS;

	return ms ? (p->stretch_blocks + p->before_blocks) * 1000 / ms : 0;
}

u64 lc_pace_limit(struct lc_core *c, u64 durable_id)
{
	struct lc_ring *ring = &c->ring;
	u64 id = ring->tail_id, batch = c->settings.batch_bytes / LC_BLOCK / ring->segment_blocks;
	u64 work = 0, young = ring->nr / YOUNG_SHARE;

	if (c->settings.batch_bytes) {
		id += batch ? batch : 1;
		return id < durable_id ? id : durable_id;
	}
	if (c->pace.work_blocks == UINT64_MAX)
		return durable_id;
	if (durable_id + young > ring->head_id)
		durable_id = ring->head_id - young;
	if (durable_id <= id)
		return id + 1;
	do {
		work += lc_ring_segment(ring, ++id)->dirty;
		if (id % SLICE == 0) {
			lc_mutex_unlock(&c->lock);
			lc_mutex_lock(&c->lock);
		}
	} while (id < durable_id && work < c->pace.work_blocks);
	return id;
}

u64 lc_pace_work_blocks(const struct lc_core *c, u8 volume)
{
	u64 dirty = c->ring.dirty_of[volume];

	return dirty < c->pace.work_blocks ? dirty : c->pace.work_blocks;
}

u32 lc_pace_turn_blocks(const struct lc_core *c)
{
	u64 work = c->pace.work_blocks;

	if (c->settings.batch_bytes || work == UINT64_MAX)
		return UINT32_MAX; /* nobody waits for the tail */
	if (work > c->ring.dirty_blocks)
		work = c->ring.dirty_blocks;
	return work / TURN_SHARE > TURN_BLOCKS_MIN ? work / TURN_SHARE : TURN_BLOCKS_MIN;
}

void lc_pace_turned(struct lc_core *c, u64 written_blocks, u64 tail_segments)
{
	struct lc_pace *p = &c->pace;
	bool pressed = lc_pace_pressed(c), began = pressed && !p->pressed;
	u64 least = ring_blocks(&c->ring) / BURST_SHARE;

	/* The flush is part of the work: for a disk with a cache of its own nearly all of it. */
	lc_pace_progress(c, 0, lc_now_ns());
	p->pressed = pressed;
	p->written_lately += written_blocks - p->written_lately / TURNS_LATELY;
	p->freed_lately += tail_segments * c->ring.segment_blocks - p->freed_lately / TURNS_LATELY;
	if (!pressed && room_blocks(&c->ring) * 2 >= ring_blocks(&c->ring)) {
		p->work_blocks = UINT64_MAX;
		return;
	}
	if (p->work_blocks > c->ring.dirty_blocks)
		p->work_blocks = c->ring.dirty_blocks;
	if (p->freed_lately * 2 >= p->written_lately)
		p->work_blocks += p->work_blocks / WORK_STEP_SHARE;
	else if (began)
		p->work_blocks = least;
	else if (pressed)
		p->work_blocks -= p->work_blocks / WORK_STEP_SHARE;
	if (p->work_blocks < least)
		p->work_blocks = least;
}

/* --- giving way --- */

/* How many per cent of the time were clients reading lately? */
static u32 busy_percent(struct lc_busy *b)
{
	u64 now_ns = lc_now_ns(), elapsed_ns = now_ns - b->measured_ns;
	u64 total_ns = b->total_ns + (b->nr ? now_ns - b->since_ns : 0);

	if (elapsed_ns >= MEASURE_NS) {
		b->percent = (total_ns - b->measured_total_ns) * 100 / elapsed_ns;
		b->measured_ns = now_ns;
		b->measured_total_ns = total_ns;
	}
	return b->percent;
}

bool lc_pace_hurry(const struct lc_core *c, const struct lc_log *log)
{
	const struct lc_ring *ring = &c->ring;

	return c->pace.hurries || log->space_waiters || lc_pace_pressed(c) ||
	       (ring->head_id - ring->tail_id) * 100 > (u64)c->settings.dirty_high_percent * ring->nr;
}

bool lc_pace_give_way(const struct lc_core *c, const struct lc_log *log, struct lc_busy *reads,
		      u64 *again_ns)
{
	if (busy_percent(reads) <= c->settings.writeback_threshold_percent || lc_pace_hurry(c, log))
		return false;
	*again_ns = reads->measured_ns + MEASURE_NS;
	return true;
}

u32 lc_pace_depth(const struct lc_core *c, const struct lc_log *log, struct lc_busy *reads, u32 full)
{
	if (busy_percent(reads) < BUSY_PERCENT)
		return full;
	return lc_pace_hurry(c, log) ? full / 2 : full / 8;
}
