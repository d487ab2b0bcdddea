/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep_build.c - the front of the belt: from the places of a turn to runs that are being read.
 */
#include "sweep.h"

#include <assert.h>

/* Look-ups in one critical section. */
#define SLICE 16u
/* A part of a block: its widened or merged content, and aligned copies of its fragments. */
#define PART_FRAMES (1 + LC_SECTORS_PER_BLOCK / 2)

/* --- frames --- */

/*
 * The next free frames: where they begin, and how many lie in a row there, at most MAX. A run does not go round the end of
 * the memory: if fewer than MAX are left there, it begins at the front.
 */
static u32 free_frames(const struct lc_sweep *sw, u32 max, u32 *frame)
{
	u32 begin, end; /* of what is taken; round the end of the memory if END <= BEGIN, all of it if they are equal */
	const struct lc_run *last;
	u32 room;

	*frame = 0;
	if (sw->oldest == sw->next_build)
		return max; /* the belt is empty */
	if (sw->next_build - sw->oldest == LC_NR_RUNS)
		return 0;
	last = lc_sweep_run(sw, sw->next_build - 1);
	begin = lc_sweep_run(sw, sw->oldest)->frame;
	end = last->frame + last->nr_frames;
	if (end > begin && sw->nr_frames - end < max)
		end = 0;
	*frame = end;
	room = (end > begin ? sw->nr_frames : begin) - end;
	return room < max ? room : max;
}

/* --- read --- */

void lc_sweep_reap_ssd(struct lc_sweep *sw, u64 deadline_ns)
{
	struct lc_io *done = lc_queue_wait(sw->ssd, deadline_ns);

	while (done) {
		struct lc_io *io = done;
		struct lc_run *r = io->owner;

		done = io->next;
		sw->reading--;
		r->nr_ios--;
		for (u32 i = 0; io->result && i < io->len_bytes / LC_BLOCK; i++)
			sw->pieces[((u8 *)io->buf - sw->memory) / LC_BLOCK + i].bad = true;
	}
}

/*
 * Gather a run's data: copies from buffers now, reads of the SSD into the queue. A buffer is let go of at once: a run may be on
 * the belt for as long as a slow disk likes, and writers need the buffers.
 */
static void read_run(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_core *c = sw->core;
	u32 end = r->frame + r->nr, copied = 0;

	for (u32 i = r->frame, nr; i < end; i += nr) {
		struct lc_piece *p = &sw->pieces[i];

		nr = 1;
		if (p->pin == LC_PIN_BUFFER) {
			lc_copy(lc_sweep_frame(sw, i), p->data, LC_BLOCK);
			copied++;
			continue;
		}
		while (i + nr < end && p[nr].pin == LC_PIN_SSD && p[nr].slot == p->slot + nr)
			nr++;
		sw->ios[i] = (struct lc_io){
			.op = LC_IO_READ,
			.buf = lc_sweep_frame(sw, i),
			.len_bytes = nr * LC_BLOCK,
			.offset_bytes = lc_slot_offset_bytes(p->slot),
			.owner = r,
		};
		lc_queue_submit(sw->ssd, &sw->ios[i]);
		r->nr_ios++;
		sw->reading++;
	}
	if (!copied)
		return;
	lc_mutex_lock(&c->lock);
	for (u32 i = r->frame; i < end; i++)
		if (sw->pieces[i].pin == LC_PIN_BUFFER)
			lc_log_unpin(sw->log, sw->pieces[i].slot, LC_PIN_BUFFER);
	lc_log_unlock(sw->log);
}

/* --- build --- */

/* The slot of a place if it may be written back now: dirty and durable, not in a pending range (I8). [lock] */
static u32 writable(struct lc_sweep *sw, u64 place)
{
	struct lc_ring *ring = &sw->core->ring;
	u32 slot = lc_index_find(&ring->index, lc_place_volume(place), lc_place_block(place));

	if (!slot || !(lc_index_slot(&ring->index, slot)->key & LC_SLOT_DIRTY) ||
	    (lc_ring_segment_of(ring, slot)->id > sw->log->durable_id &&
	     !LC_MUTANT(write_back_undurable)))
		return 0;
	if (lc_zeros_cover(&ring->zeros, place) && !LC_MUTANT(write_back_into_zeros))
		return 0;
	return slot;
}

/* The same for a block of which we have all sectors: only those join in a run. [lock] */
static bool writable_whole(struct lc_sweep *sw, u64 place)
{
	u32 slot = writable(sw, place);

	return slot && lc_key_mask(lc_index_slot(&sw->core->ring.index, slot)->key) == LC_MASK_FULL;
}

static void add_piece(struct lc_sweep *sw, struct lc_run *r, u32 slot)
{
	const struct lc_slot *s = lc_index_slot(&sw->core->ring.index, slot);
	struct lc_piece *p = &sw->pieces[r->frame + r->nr++];

	*p = (struct lc_piece){.slot = slot, .crc = s->crc, .mask = lc_key_mask(s->key)};
	p->pin = lc_log_pin(sw->log, slot, &p->data);
	assert(p->pin != LC_PIN_BUSY); /* durable: its record was sealed long ago */
}

/*
 * A run that begins at PLACE or a little below it, where dirty neighbours reach down, and goes on as long
 * as blocks are adjacent and writable, in at most ROOM frames. A block that has only some of its sectors is a run of its
 * own. Returns false if PLACE need not be written any more.
 */
static bool build_run(struct lc_sweep *sw, u64 place, struct lc_run *r, u32 room)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	u64 first = place, at;
	u32 slot;

	if (room > sw->max_written - sw->nr_written)
		room = sw->max_written - sw->nr_written;
	r->nr = r->nr_ios = 0;
	r->error = 0;
	lc_mutex_lock(&c->lock);
	if (!writable(sw, place)) {
		c->stats.superseded_blocks++;
		lc_mutex_unlock(&c->lock);
		return false;
	}
	while (place - first + 1 < room / 2 && place - first < SLICE && first - 1 > v->swept &&
	       lc_place_volume(first - 1) == v->id && writable_whole(sw, first) &&
	       writable_whole(sw, first - 1))
		first--;
	for (at = first; r->nr < room && (slot = writable(sw, at)); at++) {
		if (lc_place_volume(at) != v->id)
			break;
		if (lc_key_mask(lc_index_slot(&c->ring.index, slot)->key) != LC_MASK_FULL) {
			if (!r->nr) {
				add_piece(sw, r, slot);
				at++;
			}
			break;
		}
		add_piece(sw, r, slot);
		if (r->nr % SLICE == 0) {
			lc_mutex_unlock(&c->lock);
			lc_mutex_lock(&c->lock);
		}
	}
	lc_mutex_unlock(&c->lock);
	if (!r->nr)
		return false; /* superseded while we built the run */
	r->nr_frames = r->nr;
	if (sw->pieces[r->frame].mask != LC_MASK_FULL)
		r->nr_frames = PART_FRAMES;
	assert(r->frame + r->nr_frames <= sw->nr_frames);
	r->block = lc_place_block(first);
	v->swept = at - 1;
	for (u32 i = 0; i < r->nr; i++)
		sw->written[sw->nr_written++] = sw->pieces[r->frame + i].slot;
	return true;
}

bool lc_sweep_build(struct lc_sweep *sw, u32 *at)
{
	while (*at < sw->places.nr && !sw->error && !sw->backing_error &&
	       sw->nr_written < sw->max_written) {
		u64 place = sw->places.list[*at];
		struct lc_run *r = lc_sweep_run(sw, sw->next_build);
		u32 frame, room = free_frames(sw, sw->run_blocks, &frame);

		if (room < PART_FRAMES)
			return true;
		if (lc_sweep_stopped(sw)) {
			sw->error = -ECANCELED;
			break;
		}
		++*at;
		if (place <= sw->v->swept)
			continue;
		r->frame = frame;
		if (!build_run(sw, place, r, room)) {
			sw->v->swept = place;
			continue;
		}
		sw->next_build++;
		read_run(sw, r);
	}
	return false;
}
