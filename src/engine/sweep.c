/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.c - one turn: collect, then the belt: build (pins slots), read (buffers, SSD), verify, write; flush, clean.
 */
#include "sweep.h"

#include <assert.h>
#include <string.h>

#include "fingerprint.h"

/* Look-ups in one critical section. */
#define SLICE 16u
/* A part of a block: its widened or merged content, and aligned copies of its fragments. */
#define PART_FRAMES (1 + LC_SECTORS_PER_BLOCK / 2)

/* --- begin and end --- */

int lc_sweep_init(struct lc_sweep *sw, struct lc_core *core, struct lc_log *log,
		  struct lc_volume **volumes)
{
	/* 12 bytes for each of these: 3/4 of a byte per block of the cache. */
	u32 blocks = core->ring.nr * core->ring.segment_blocks, max = blocks / 16;
	u32 run_blocks = blocks / 64;
	int err;

	if (run_blocks < LC_RUN_BLOCKS_MIN)
		run_blocks = LC_RUN_BLOCKS_MIN;
	if (run_blocks > LC_RUN_BLOCKS_MAX)
		run_blocks = LC_RUN_BLOCKS_MAX;
	if (max < LC_RUN_BLOCKS_MIN * 2)
		max = LC_RUN_BLOCKS_MIN * 2;
	*sw = (struct lc_sweep){
		.core = core,
		.log = log,
		.volumes = volumes,
		.run_blocks = run_blocks,
		.nr_frames = run_blocks * (LC_FRAMES_MAX / LC_RUN_BLOCKS_MAX),
		.max_written = max,
	};
	assert(sw->nr_frames >= LC_FRAMES_MIN && sw->nr_frames <= LC_FRAMES_MAX);
	sw->backing = lc_alloc((LC_VOLUMES_MAX + 1) * sizeof *sw->backing);
	sw->runs = lc_alloc(LC_NR_RUNS * sizeof *sw->runs);
	sw->memory = lc_alloc((size_t)sw->nr_frames * LC_BLOCK);
	sw->pieces = lc_alloc(sw->nr_frames * sizeof *sw->pieces);
	sw->ios = lc_alloc(sw->nr_frames * sizeof *sw->ios);
	sw->written = lc_alloc(sw->max_written * sizeof *sw->written);
	err = lc_places_init(&sw->places, max);
	if (err || !sw->backing || !sw->runs || !sw->memory || !sw->pieces || !sw->ios ||
	    !sw->written) {
		lc_sweep_destroy(sw);
		return -ENOMEM;
	}
	return 0;
}

void lc_sweep_destroy(struct lc_sweep *sw)
{
	if (!sw->core)
		return;
	lc_free(sw->backing, (LC_VOLUMES_MAX + 1) * sizeof *sw->backing);
	lc_free(sw->runs, LC_NR_RUNS * sizeof *sw->runs);
	lc_free(sw->memory, (size_t)sw->nr_frames * LC_BLOCK);
	lc_free(sw->pieces, sw->nr_frames * sizeof *sw->pieces);
	lc_free(sw->ios, sw->nr_frames * sizeof *sw->ios);
	lc_free(sw->written, sw->max_written * sizeof *sw->written);
	lc_places_destroy(&sw->places);
	*sw = (struct lc_sweep){0};
}

u64 lc_sweep_bytes(const struct lc_sweep *sw)
{
	return sw->places.max * sizeof *sw->places.list + sw->max_written * sizeof *sw->written +
	       LC_NR_RUNS * sizeof *sw->runs +
	       sw->nr_frames * (LC_BLOCK + sizeof *sw->pieces + sizeof *sw->ios);
}

int lc_sweep_open(struct lc_sweep *sw, struct lc_error *err)
{
	struct lc_area area = {sw->memory, (size_t)sw->nr_frames * LC_BLOCK};
	int ret = lc_queue_open(sw->core->ssd, LC_SWEEP_DEPTH * 2, &area, 1, &sw->ssd, err);

	for (u32 id = 1; id <= LC_VOLUMES_MAX && !ret; id++)
		if (sw->volumes[id])
			ret = lc_queue_open(sw->volumes[id]->backing, LC_SWEEP_DEPTH, &area, 1,
					    &sw->backing[id], err);
	if (ret)
		lc_sweep_close(sw);
	return ret;
}

void lc_sweep_close(struct lc_sweep *sw)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		if (sw->backing[id])
			lc_queue_close(sw->backing[id]);
		sw->backing[id] = NULL;
	}
	if (sw->ssd)
		lc_queue_close(sw->ssd);
	sw->ssd = NULL;
}

/* --- stores that fail, and work again --- */

void lc_sweep_works(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	bool failed;

	lc_mutex_lock(&c->lock);
	failed = c->stalled_since_ns && !sw->nr_failing;
	if (failed)
		c->stalled_since_ns = 0;
	lc_mutex_unlock(&c->lock);
	if (failed)
		lc_log(LC_LOG_INFO, "%s: write-back works again", c->ssd->name);
}

static void backing_works(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	bool failed;

	lc_mutex_lock(&c->lock);
	c->stats.backing_flushes++;
	failed = v->failing;
	v->failing = false;
	v->failures = 0;
	sw->nr_failing -= failed;
	if (failed && !sw->nr_failing)
		c->stalled_since_ns = 0;
	lc_mutex_unlock(&c->lock);
	if (failed)
		lc_log(LC_LOG_INFO, "%s: write-back works again", v->backing->name);
}

void lc_sweep_backing_failed(struct lc_sweep *sw, int err)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	u64 now_ns = lc_now_ns();
	bool first;

	if (sw->backing_error) /* the turn has failed, once */
		return;
	sw->backing_error = err;
	lc_mutex_lock(&c->lock);
	c->stats.backing_errors++;
	first = !v->failing;
	v->failing = true;
	sw->nr_failing += first;
	v->retry_ns = now_ns + ((u64)c->settings.retry_ms << v->failures) * LC_NS_PER_MS;
	if (1u << v->failures < LC_RETRY_GROWTH)
		v->failures++;
	if (!c->stalled_since_ns)
		c->stalled_since_ns = now_ns;
	c->stall_error = err;
	lc_mutex_unlock(&c->lock);
	if (first)
		lc_log(LC_LOG_ERROR,
		       "%s: write-back fails: %s; what is dirty stays in the cache, and it is tried "
		       "again every %u to %u ms",
		       v->backing->name, strerror(-err), c->settings.retry_ms,
		       c->settings.retry_ms * LC_RETRY_GROWTH);
}

void lc_sweep_forgive(struct lc_sweep *sw)
{
	const struct lc_ring *ring = &sw->core->ring;

	lc_mutex_lock(&sw->core->lock);
	for (u32 id = 1; id <= LC_VOLUMES_MAX && sw->nr_failing; id++) {
		struct lc_volume *v = sw->volumes[id];

		if (!v || !v->failing || ring->dirty_of[id] || ring->zeros.blocks_of[id])
			continue;
		v->failing = false;
		sw->nr_failing--;
	}
	lc_mutex_unlock(&sw->core->lock);
}

bool lc_sweep_stopped(struct lc_sweep *sw)
{
	bool stop;

	lc_mutex_lock(&sw->core->lock);
	stop = sw->stop;
	lc_mutex_unlock(&sw->core->lock);
	return stop;
}

bool lc_sweep_flush(struct lc_sweep *sw)
{
	int err = LC_MUTANT(no_backing_flush) ? 0 : lc_store_flush(sw->v->backing);

	if (err)
		lc_sweep_backing_failed(sw, err);
	else
		backing_works(sw);
	return !err;
}

void lc_sweep_give_way(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	u64 again_ns;

	lc_mutex_lock(&c->lock);
	while (!sw->stop && lc_pace_give_way(c, sw->log, &sw->v->reads, &again_ns))
		lc_cond_wait(&sw->log->progress, &c->lock, again_ns);
	lc_mutex_unlock(&c->lock);
}

/* --- the belt --- */

static struct lc_run *run_of(const struct lc_sweep *sw, u64 nr)
{
	return &sw->runs[nr % LC_NR_RUNS];
}

static u8 *frame_data(const struct lc_sweep *sw, u32 frame)
{
	return sw->memory + (size_t)frame * LC_BLOCK;
}

/* Runs that are done leave the belt in order. */
static void leave_belt(struct lc_sweep *sw)
{
	while (sw->oldest < sw->next_write && !run_of(sw, sw->oldest)->nr_ios)
		sw->oldest++;
}

/*
 * The next free frames: where they begin, and how many lie in a row there, at most MAX. A run does not go round the end of
 * the memory: if fewer than MAX are left there, it begins at the front.
 */
static u32 free_frames(const struct lc_sweep *sw, u32 max, u32 *frame)
{
	const struct lc_run *first = run_of(sw, sw->oldest), *last;
	u32 end;

	*frame = 0;
	if (sw->oldest == sw->next_build)
		return max < sw->nr_frames ? max : sw->nr_frames;
	if (sw->next_build - sw->oldest == LC_NR_RUNS)
		return 0;
	last = run_of(sw, sw->next_build - 1);
	end = last->frame + last->nr_frames;
	if (end > first->frame && sw->nr_frames - end >= max)
		*frame = end;
	else if (end > first->frame)
		return first->frame < max ? first->frame : max;
	else
		*frame = end;
	end = *frame < first->frame ? first->frame : sw->nr_frames;
	return end - *frame < max ? end - *frame : max;
}

/* --- read --- */

/* Take what the SSD has read; wait for it until DEADLINE_NS. */
static void reap_ssd(struct lc_sweep *sw, u64 deadline_ns)
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

/* Gather a run's data: copies from buffers now, reads of the SSD into the queue. */
static void read_run(struct lc_sweep *sw, struct lc_run *r)
{
	for (u32 i = r->frame, end = i + r->nr, nr; i < end; i += nr) {
		struct lc_piece *p = &sw->pieces[i];

		nr = 1;
		if (p->pin == LC_PIN_BUFFER) {
			lc_copy(frame_data(sw, i), p->data, LC_BLOCK);
			continue;
		}
		while (i + nr < end && p[nr].pin == LC_PIN_SSD && p[nr].slot == p->slot + nr)
			nr++;
		sw->ios[i] = (struct lc_io){
			.op = LC_IO_READ,
			.buf = frame_data(sw, i),
			.len_bytes = nr * LC_BLOCK,
			.offset_bytes = lc_slot_offset_bytes(p->slot),
			.owner = r,
		};
		lc_queue_submit(sw->ssd, &sw->ios[i]);
		r->nr_ios++;
		sw->reading++;
	}
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
	r->block = lc_place_block(first);
	v->swept = at - 1;
	for (u32 i = 0; i < r->nr; i++)
		sw->written[sw->nr_written++] = sw->pieces[r->frame + i].slot;
	return true;
}

/* Build runs from places[*at] on, and begin to read them, while there is room. False: no more of this turn. */
static bool build_runs(struct lc_sweep *sw, u32 *at)
{
	while (*at < sw->places.nr && !sw->error && !sw->backing_error &&
	       sw->nr_written < sw->max_written) {
		u64 place = sw->places.list[*at];
		struct lc_run *r = run_of(sw, sw->next_build);
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

/* --- verify --- */

/* Does the SSD itself say that it has lost the data? All else (no memory, a lost link) may pass. */
static bool medium_error(int err)
{
	return err == -EIO || err == -ENODATA || err == -EILSEQ || err == -EBADMSG;
}

/*
 * Is the content of a block what was written? If not, the SSD is asked once more: the read may have failed for a
 * neighbour's sake, or the copy in the buffer may be the bad one. 0 yes, 1 no and the block is lost, -errno if it
 * is too early to say.
 */
static int verify_piece(struct lc_sweep *sw, struct lc_piece *p, u8 *block)
{
	int err;

	if (!p->bad && lc_crc32c(block, LC_BLOCK) == p->crc)
		return 0;
	err = lc_store_read(sw->core->ssd, block, LC_BLOCK, lc_slot_offset_bytes(p->slot));
	p->bad = err || lc_crc32c(block, LC_BLOCK) != p->crc;
	if (!p->bad)
		return 0;
	return err && !medium_error(err) ? err : 1;
}

/*
 * I10: a dirty block that cannot be read is lost, unless it was overwritten meanwhile. It stays in the index, and
 * answers EIO by itself, until the list that says so is durable: no crash may let the backing store's
 * old data come through.
 */
static int lose_piece(struct lc_sweep *sw, const struct lc_piece *p, u64 block)
{
	struct lc_core *c = sw->core;
	const struct lc_slot *s = lc_index_slot(&c->ring.index, p->slot);
	bool lost;
	int page = 0, err;

	lc_mutex_lock(&c->lock);
	c->stats.crc_errors++;
	lost = s->key & LC_SLOT_DIRTY;
	if (lost)
		page = lc_bad_add(&c->meta.bad, sw->v->id, block, p->mask,
				  lc_ring_segment_of(&c->ring, p->slot)->last_seq);
	lc_mutex_unlock(&c->lock);
	if (!lost || page < 0)
		return page;
	err = lc_meta_write(&c->meta, &c->lock, LC_PAGE_BAD + page, lc_log_flusher(sw->log));
	if (err)
		return err;
	lc_mutex_lock(&c->lock);
	lost = s->key & LC_SLOT_DIRTY;
	if (lost) {
		lc_block_drop(&c->ring, p->slot);
		c->stats.lost_blocks++;
	}
	lc_mutex_unlock(&c->lock);
	if (lost)
		lc_log(LC_LOG_ERROR,
		       "%s: block %llu of %s cannot be read back and is lost: it answers with an "
		       "input/output error until it is overwritten",
		       c->ssd->name, (unsigned long long)block, sw->v->backing->name);
	return 0;
}

/* --- write --- */

/* Bytes [from, to) of the run, which lie in or are copied to frame AT, whose I/O is free. */
static void submit_write(struct lc_sweep *sw, struct lc_run *r, u32 at, u32 from_bytes, u32 to_bytes)
{
	struct lc_io *io = &sw->ios[at];

	*io = (struct lc_io){
		.op = LC_IO_WRITE,
		.buf = frame_data(sw, at),
		.len_bytes = to_bytes - from_bytes,
		.offset_bytes = r->block * LC_BLOCK + from_bytes,
		.owner = r,
	};
	r->nr_ios++;
	lc_queue_submit(sw->backing[sw->v->id], io);
}

/*
 * A block of which only some sectors are ours: write those, or, where the store's logical block is larger
 * than a sector, widen it with what the store has.
 */
static int write_part(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_store *backing = sw->v->backing;
	u8 mask = sw->pieces[r->frame].mask;
	u8 *data = frame_data(sw, r->frame), *old = frame_data(sw, r->frame + 1);

	if (backing->block_bytes > LC_SECTOR) {
		int err = lc_store_read(backing, old, LC_BLOCK, r->block * LC_BLOCK);

		if (err)
			return err;
		for (u32 i = 0; i < LC_SECTORS_PER_BLOCK; i++)
			if (!(mask & 1u << i))
				memcpy(data + i * LC_SECTOR, old + i * LC_SECTOR, LC_SECTOR);
		submit_write(sw, r, r->frame, 0, LC_BLOCK);
		return 0;
	}
	for (u32 at = r->frame + 1; mask; at++) { /* a buffer for I/O is aligned to blocks */
		u32 first = __builtin_ctz(mask), nr = __builtin_ctz(~(u32)(mask >> first));

		mask &= ~(((1u << nr) - 1) << first);
		memcpy(frame_data(sw, at), data + first * LC_SECTOR, nr * LC_SECTOR);
		submit_write(sw, r, at, first * LC_SECTOR, (first + nr) * LC_SECTOR);
	}
	return 0;
}

/* Whole blocks: one write, unless some are lost. */
static void write_whole(struct lc_sweep *sw, struct lc_run *r)
{
	u32 from = 0;

	for (u32 i = 0; i <= r->nr; i++) {
		if (i < r->nr && !sw->pieces[r->frame + i].bad)
			continue;
		if (i > from)
			submit_write(sw, r, r->frame + from, from * LC_BLOCK, i * LC_BLOCK);
		from = i + 1;
	}
}

/* The data of a run is there: verify it, let go of the log, and write. */
static void write_run(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	struct lc_piece *pieces = &sw->pieces[r->frame];
	u64 samples = lc_samples_in(v->size_bytes, r->block, r->nr);
	int err;

	for (u32 i = 0; i < r->nr; i++) {
		err = verify_piece(sw, &pieces[i], frame_data(sw, r->frame + i));
		if (err > 0)
			err = lose_piece(sw, &pieces[i], r->block + i);
		if (err)
			sw->error = err;
	}
	lc_mutex_lock(&c->lock);
	for (u32 i = 0; i < r->nr; i++) {
		const struct lc_piece *p = &pieces[i];

		/* It can be read after all: it was listed, but that could not be made durable. */
		if (!p->bad && lc_index_slot(&c->ring.index, p->slot)->key & LC_SLOT_DIRTY)
			lc_bad_clear(&c->meta.bad, v->id, r->block + i, p->mask);
		lc_log_unpin(sw->log, p->slot, p->pin);
	}
	v->touched |= samples;
	c->stats.writeback_blocks += r->nr;
	lc_log_unlock(sw->log);

	r->submitted_ns = lc_now_ns();
	if (pieces[0].mask == LC_MASK_FULL) {
		write_whole(sw, r);
	} else if (!pieces[0].bad) {
		err = write_part(sw, r);
		if (err)
			lc_sweep_backing_failed(sw, err);
	}
	lc_mutex_lock(&c->lock);
	c->stats.writeback_ios += r->nr_ios;
	lc_mutex_unlock(&c->lock);
	sw->writing += r->nr_ios > 0;
}

/* Wait for at least one write to complete. */
static void reap_backing(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_io *done = lc_queue_wait(sw->backing[sw->v->id], LC_FOREVER);
	u64 now_ns = lc_now_ns();

	while (done) {
		struct lc_io *io = done;
		struct lc_run *r = io->owner;

		done = io->next;
		if (io->result)
			r->error = io->result;
		if (--r->nr_ios)
			continue;
		sw->writing--;
		if (r->error)
			lc_sweep_backing_failed(sw, r->error);
		lc_mutex_lock(&c->lock);
		lc_histogram_add(&c->latencies.backing_write, now_ns - r->submitted_ns);
		lc_pace_progress(c, r->error ? 0 : r->nr, now_ns);
		lc_mutex_unlock(&c->lock);
	}
	leave_belt(sw);
}

/* Is the next run to be written still being read? */
static bool next_is_read(const struct lc_sweep *sw)
{
	return sw->next_write < sw->next_build && run_of(sw, sw->next_write)->nr_ios;
}

/* Write what is at hand, as many at a time as the backing store may have now. */
static void write_runs(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;

	lc_mutex_lock(&c->lock);
	sw->depth = lc_pace_depth(c, sw->log, &sw->v->reads, LC_SWEEP_DEPTH);
	lc_mutex_unlock(&c->lock);
	while (sw->writing < sw->depth && sw->next_write < sw->next_build && !next_is_read(sw))
		write_run(sw, run_of(sw, sw->next_write++));
	lc_queue_start(sw->backing[sw->v->id]);
	leave_belt(sw);
}

/* --- a turn --- */

/* Only now, after the backing flush, the blocks are clean (I3). */
static void clean_written(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;

	for (u32 i = 0; i < sw->nr_written; i += SLICE) {
		lc_mutex_lock(&c->lock);
		for (u32 k = i; k < sw->nr_written && k < i + SLICE; k++)
			lc_block_clean(&c->ring, sw->written[k]);
		lc_mutex_unlock(&c->lock);
	}
}

/* Everything that was collected goes over the belt. */
static void run_belt(struct lc_sweep *sw)
{
	bool more = true;
	u32 at = 0;

	while (more || sw->oldest < sw->next_build) {
		lc_sweep_give_way(sw);
		more = more && build_runs(sw, &at);
		reap_ssd(sw, 0);
		write_runs(sw);
		/* The SSD is the faster one: a backing store that could have more waits for it, not we for both. */
		if (next_is_read(sw) && sw->writing < sw->depth)
			reap_ssd(sw, LC_FOREVER);
		else if (sw->writing)
			reap_backing(sw);
	}
	assert(!sw->reading && !sw->writing);
}

int lc_sweep_turn(struct lc_sweep *sw, struct lc_volume *v, u64 upto, u64 *written)
{
	struct lc_core *c = sw->core;
	u64 began_ns = lc_now_ns(), bottom = lc_place(v->id, 0) - 1, from;
	u32 wanted;

	*written = 0;
	sw->v = v;
	sw->error = sw->backing_error = 0;
	sw->nr_written = 0;
	lc_mutex_lock(&c->lock);
	c->stats.sweeps++;
	lc_pace_start(c, began_ns);
	wanted = lc_pace_turn_blocks(c);
	lc_mutex_unlock(&c->lock);
	if (v->swept < bottom)
		v->swept = bottom;
	from = v->swept;

	lc_sweep_zero(sw);
	if (!sw->error && !sw->backing_error) {
		lc_places_collect(&sw->places, c, v->id, from, upto, wanted);
		if (!sw->places.nr && from > bottom) { /* a new round */
			v->swept = from = bottom;
			lc_places_collect(&sw->places, c, v->id, from, upto, wanted);
		}
		run_belt(sw);
	}
	if (LC_MUTANT(clean_before_flush))
		clean_written(sw);
	if (!sw->error && !sw->backing_error && sw->nr_written && lc_sweep_flush(sw)) {
		clean_written(sw);
		*written = sw->nr_written;
	}
	if (sw->error || sw->backing_error)
		v->swept = from; /* once more */
	lc_mutex_lock(&c->lock);
	c->stats.rounds += from == bottom && sw->nr_written;
	c->stats.writeback_ns += lc_now_ns() - began_ns;
	lc_mutex_unlock(&c->lock);
	return sw->error ? sw->error : sw->backing_error;
}
