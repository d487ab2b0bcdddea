/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.c - zero; collect, build runs, read, write, flush, clean: one turn of the pipeline at a time.
 *
 * A run goes   build (pins its slots) -> read (buffers, SSD) -> verify -> write -> free.   As many runs as are
 * free are built and read together; their writes go out together; then at least one write is awaited, so that
 * the slow store always has a queue of ascending writes in front of it.
 */
#include "sweep.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fingerprint.h"

/* Look-ups in one critical section. */
#define SLICE 16u
/* How long the share of time that clients' reads take is measured, and how often it is looked at again. */
#define MEASURE_NS (100 * LC_NS_PER_MS)
/* Zeroed at a time: a store that is quick about it, and one that writes. */
#define ZERO_STEP_BYTES (256ull << 20)
#define SLOW_ZERO_STEP_BYTES (16ull << 20)

/* --- begin and end --- */

/* The buffers of all runs. */
static size_t runs_bytes(const struct lc_sweep *sw)
{
	return (size_t)LC_NR_RUNS * sw->run_blocks * LC_BLOCK;
}

int lc_sweep_init(struct lc_sweep *sw, struct lc_core *core, struct lc_log *log,
		  struct lc_volume **volumes)
{
	/* 12 bytes for each of these: 3/4 of a byte per block of the cache. */
	u32 blocks = core->ring.nr * core->ring.segment_blocks, max = blocks / 16;
	u32 run_blocks = blocks / 64;

	*sw = (struct lc_sweep){
		.core = core,
		.log = log,
		.volumes = volumes,
		.max = max < LC_RUN_BLOCKS_MIN * 2 ? LC_RUN_BLOCKS_MIN * 2 : max,
	};
	if (run_blocks < LC_RUN_BLOCKS_MIN)
		run_blocks = LC_RUN_BLOCKS_MIN;
	sw->run_blocks = run_blocks > LC_RUN_BLOCKS_MAX ? LC_RUN_BLOCKS_MAX : run_blocks;
	sw->backing = lc_alloc((LC_VOLUMES_MAX + 1) * sizeof *sw->backing);
	sw->runs = lc_alloc(LC_NR_RUNS * sizeof *sw->runs);
	sw->memory = lc_alloc(runs_bytes(sw));
	sw->places = lc_alloc(sw->max * sizeof *sw->places);
	sw->written = lc_alloc(sw->max * sizeof *sw->written);
	if (!sw->backing || !sw->runs || !sw->memory || !sw->places || !sw->written) {
		lc_sweep_destroy(sw);
		return -ENOMEM;
	}
	for (u32 i = 0; i < LC_NR_RUNS; i++) {
		sw->runs[i].buf = sw->memory + (size_t)i * sw->run_blocks * LC_BLOCK;
		sw->runs[i].next = sw->free_runs;
		sw->free_runs = &sw->runs[i];
	}
	return 0;
}

void lc_sweep_destroy(struct lc_sweep *sw)
{
	if (!sw->core)
		return;
	lc_free(sw->backing, (LC_VOLUMES_MAX + 1) * sizeof *sw->backing);
	lc_free(sw->runs, LC_NR_RUNS * sizeof *sw->runs);
	lc_free(sw->memory, runs_bytes(sw));
	lc_free(sw->places, sw->max * sizeof *sw->places);
	lc_free(sw->written, sw->max * sizeof *sw->written);
	*sw = (struct lc_sweep){0};
}

u64 lc_sweep_bytes(const struct lc_sweep *sw)
{
	return (u64)sw->max * (sizeof *sw->places + sizeof *sw->written) +
	       LC_NR_RUNS * sizeof *sw->runs + runs_bytes(sw);
}

int lc_sweep_open(struct lc_sweep *sw, struct lc_error *err)
{
	struct lc_area area = {sw->memory, runs_bytes(sw)};
	int ret = lc_queue_open(sw->core->ssd, LC_NR_RUNS * 4, &area, 1, &sw->ssd, err);

	for (u32 id = 1; id <= LC_VOLUMES_MAX && !ret; id++)
		if (sw->volumes[id])
			ret = lc_queue_open(sw->volumes[id]->backing, LC_NR_RUNS, &area, 1,
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

/* --- collect --- */

static int compare_places(const void *a, const void *b)
{
	const u64 *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/*
 * The smallest places above `covered` among the dirty blocks of the segments tail + 1 .. UPTO, sorted: all of them,
 * or as many as fit. When the buffer is full its upper half is given up, and with it everything
 * that lies higher: the next range finds it.
 */
static void collect(struct lc_sweep *sw, u64 upto)
{
	struct lc_core *c = sw->core;
	struct lc_ring *ring = &c->ring;
	u64 limit = UINT64_MAX;

	sw->nr_places = 0;
	for (u64 id = ring->tail_id + 1; id <= upto; id++) {
		u32 first = lc_ring_first_slot(ring, id);
		bool full = false;

		lc_mutex_lock(&c->lock);
		for (u32 i = 0; i < ring->segment_blocks && !full; i++) {
			u64 key = lc_index_slot(&ring->index, first + i)->key;
			u64 place = lc_key_place(key);

			if (!(key & LC_SLOT_DIRTY) || place <= sw->covered || place > limit)
				continue;
			sw->places[sw->nr_places++] = place;
			full = sw->nr_places == sw->max;
		}
		lc_mutex_unlock(&c->lock);
		if (full) {
			qsort(sw->places, sw->nr_places, sizeof *sw->places, compare_places);
			sw->nr_places /= 2;
			limit = sw->places[sw->nr_places - 1];
			id--; /* the rest of this segment, and some of it again */
		}
	}
	qsort(sw->places, sw->nr_places, sizeof *sw->places, compare_places);
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
	struct lc_piece *p = &r->pieces[r->nr++];

	*p = (struct lc_piece){.slot = slot, .crc = s->crc, .mask = lc_key_mask(s->key)};
	p->pin = lc_log_pin(sw->log, slot, &p->data);
	assert(p->pin != LC_PIN_BUSY); /* durable: its record was sealed long ago */
}

/*
 * A run that begins at PLACE or a little below it, where dirty neighbours reach down, and goes on as long
 * as blocks are adjacent and writable. A block that has only some of its sectors is a run of its own.
 * Returns false if PLACE need not be written any more.
 */
static bool build_run(struct lc_sweep *sw, u64 place, struct lc_run *r)
{
	struct lc_core *c = sw->core;
	u64 first = place, at;
	u32 slot, room = sw->max - sw->nr_written;

	if (room > sw->run_blocks)
		room = sw->run_blocks;
	r->nr = r->nr_ios = 0;
	r->error = 0;
	lc_mutex_lock(&c->lock);
	if (!writable(sw, place)) {
		c->stats.superseded_blocks++;
		lc_mutex_unlock(&c->lock);
		return false;
	}
	while (place - first + 1 < room / 2 && place - first < SLICE && first - 1 > sw->covered &&
	       lc_place_volume(first - 1) == lc_place_volume(place) && writable_whole(sw, first) &&
	       writable_whole(sw, first - 1))
		first--;
	for (at = first; r->nr < room && (slot = writable(sw, at)); at++) {
		if (lc_place_volume(at) != lc_place_volume(place))
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
	r->v = sw->volumes[lc_place_volume(place)];
	r->block = lc_place_block(first);
	sw->covered = at - 1;
	for (u32 i = 0; i < r->nr; i++)
		sw->written[sw->nr_written++] = r->pieces[i].slot;
	return true;
}

/* --- read --- */

static void reap_ssd(struct lc_sweep *sw, u32 *reading)
{
	struct lc_io *done = lc_queue_wait(sw->ssd, LC_FOREVER);

	while (done) {
		struct lc_io *io = done;
		struct lc_run *r = io->owner;

		done = io->next;
		--*reading;
		if (!io->result)
			continue;
		for (u32 i = 0; i < io->len_bytes / LC_BLOCK; i++)
			r->pieces[((u8 *)io->buf - r->buf) / LC_BLOCK + i].bad = true;
	}
}

/* Gather a run's data: copies from buffers now, reads of the SSD into the queue. Returns how many. */
static u32 read_run(struct lc_sweep *sw, struct lc_run *r)
{
	u32 nr_ios = 0;

	for (u32 i = 0, nr; i < r->nr; i += nr) {
		struct lc_piece *p = &r->pieces[i];

		nr = 1;
		if (p->pin == LC_PIN_BUFFER) {
			lc_copy(r->buf + (size_t)i * LC_BLOCK, p->data, LC_BLOCK);
			continue;
		}
		while (i + nr < r->nr && p[nr].pin == LC_PIN_SSD && p[nr].slot == p->slot + nr)
			nr++;
		r->ios[nr_ios] = (struct lc_io){
			.op = LC_IO_READ,
			.buf = r->buf + (size_t)i * LC_BLOCK,
			.len_bytes = nr * LC_BLOCK,
			.offset_bytes = lc_slot_offset_bytes(p->slot),
			.owner = r,
		};
		lc_queue_submit(sw->ssd, &r->ios[nr_ios++]);
	}
	return nr_ios;
}

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
	p->wrong = !err && lc_crc32c(block, LC_BLOCK) != p->crc;
	p->bad = err || p->wrong;
	if (!p->bad)
		return 0;
	return err && !medium_error(err) ? err : 1;
}

/*
 * I10: a dirty block that cannot be read is lost, unless it was overwritten meanwhile. It stays in the index, and
 * answers EIO by itself, until the list that says so is durable: no crash may let the backing store's
 * old data come through.
 */
static int lose_piece(struct lc_sweep *sw, const struct lc_run *r, u32 i)
{
	struct lc_core *c = sw->core;
	const struct lc_piece *p = &r->pieces[i];
	const struct lc_slot *s = lc_index_slot(&c->ring.index, p->slot);
	bool lost;
	int page = 0, err;

	lc_mutex_lock(&c->lock);
	c->stats.crc_errors += p->wrong;
	lost = s->key & LC_SLOT_DIRTY;
	if (lost)
		page = lc_bad_add(&c->meta.bad, r->v->id, r->block + i, p->mask,
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
		       c->ssd->name, (unsigned long long)(r->block + i), r->v->backing->name);
	return 0;
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

static void backing_works(struct lc_sweep *sw, struct lc_volume *v)
{
	struct lc_core *c = sw->core;
	bool failed;

	lc_mutex_lock(&c->lock);
	c->stats.backing_flushes++;
	failed = v->failing;
	v->failing = false;
	sw->nr_failing -= failed;
	if (failed && !sw->nr_failing)
		c->stalled_since_ns = 0;
	lc_mutex_unlock(&c->lock);
	if (failed)
		lc_log(LC_LOG_INFO, "%s: write-back works again", v->backing->name);
}

static void backing_failed(struct lc_sweep *sw, struct lc_volume *v, int err)
{
	struct lc_core *c = sw->core;
	bool first;

	lc_mutex_lock(&c->lock);
	first = !v->failing;
	v->failing = true;
	sw->nr_failing += first;
	if (!c->stalled_since_ns)
		c->stalled_since_ns = lc_now_ns();
	c->stall_error = err;
	lc_mutex_unlock(&c->lock);
	if (first)
		lc_log(LC_LOG_ERROR,
		       "%s: write-back fails: %s; what is dirty stays in the cache, and it is tried "
		       "again every %u to %u ms",
		       v->backing->name, strerror(-err), c->settings.retry_ms,
		       c->settings.retry_ms * LC_RETRY_GROWTH);
	sw->backing_error = err;
	sw->failed[v->id] = true;
}

static bool stopped(struct lc_sweep *sw)
{
	bool stop;

	lc_mutex_lock(&sw->core->lock);
	stop = sw->stop;
	lc_mutex_unlock(&sw->core->lock);
	return stop;
}

/* Flush a volume's backing store. */
static bool flush_backing(struct lc_sweep *sw, struct lc_volume *v)
{
	int err = LC_MUTANT(no_backing_flush) ? 0 : lc_store_flush(v->backing);

	if (err)
		backing_failed(sw, v, err);
	else
		backing_works(sw, v);
	return !err;
}

/* --- giving way --- */

/* How many per cent of the time were clients reading from the volume's backing store lately? [lock] */
static u32 busy_percent(struct lc_volume *v)
{
	struct lc_busy *b = &v->reads;
	u64 now_ns = lc_now_ns(), elapsed_ns = now_ns - b->measured_ns;
	u64 total_ns = b->total_ns + (b->nr ? now_ns - b->since_ns : 0);

	if (elapsed_ns >= MEASURE_NS) {
		b->percent = (total_ns - b->measured_total_ns) * 100 / elapsed_ns;
		b->measured_ns = now_ns;
		b->measured_total_ns = total_ns;
	}
	return b->percent;
}

/* Is there a reason to write back whatever clients read meanwhile? [lock] */
static bool in_a_hurry(const struct lc_sweep *sw)
{
	const struct lc_core *c = sw->core;
	const struct lc_ring *ring = &c->ring;

	return sw->stop || sw->hurries || sw->log->space_waiters ||
	       (ring->head_id - ring->tail_id) * 100 > (u64)c->settings.dirty_high_percent * ring->nr;
}

/* Wait while clients' reads keep the backing store busy. */
static void give_way(struct lc_sweep *sw, struct lc_volume *v)
{
	struct lc_core *c = sw->core;

	lc_mutex_lock(&c->lock);
	while (busy_percent(v) > c->settings.writeback_threshold_percent && !in_a_hurry(sw))
		lc_cond_wait(&sw->log->progress, &c->lock, v->reads.measured_ns + MEASURE_NS);
	lc_mutex_unlock(&c->lock);
}

/* --- zero --- */

/* Write zeros, where the store has nothing better. */
static int write_zeros(struct lc_sweep *sw, struct lc_store *s, u64 len_bytes, u64 offset_bytes)
{
	u32 max = runs_bytes(sw) < 1u << 20 ? runs_bytes(sw) : 1u << 20;

	memset(sw->memory, 0, max);
	while (len_bytes) {
		u32 step = len_bytes < max ? len_bytes : max;
		/* Behind the end of the store it is dropped. */
		u32 whole = (step + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
		int err = lc_store_write(s, sw->memory, whole, offset_bytes);

		if (err)
			return err;
		offset_bytes += step;
		len_bytes -= step;
	}
	return 0;
}

/* Zero one range on its backing store, in steps. Whatever the store cannot do itself is written. */
static int zero_range(struct lc_sweep *sw, struct lc_volume *v, const struct lc_zero *e)
{
	struct lc_store *s = v->backing;
	u64 at = lc_place_block(e->place) * LC_BLOCK, end = at + (u64)e->nr * LC_BLOCK;
	int err = 0;

	if (end > v->size_bytes)
		end = v->size_bytes;
	while (at < end && !err) {
		bool punch = e->trim && s->can_punch;
		u64 step = punch || s->can_zero ? ZERO_STEP_BYTES : SLOW_ZERO_STEP_BYTES;

		if (stopped(sw))
			return -ECANCELED;
		give_way(sw, v);
		if (step > end - at)
			step = end - at;
		if (lc_store_zero(s, step, at, punch))
			err = write_zeros(sw, s, step, at);
		at += step;
	}
	return err;
}

/* The durable pending ranges of a volume; only after the backing flush they are pending no more. */
static void zero_volume(struct lc_sweep *sw, struct lc_volume *v)
{
	struct lc_core *c = sw->core;
	struct lc_zero e = {.place = lc_place(v->id, 0)};
	bool any = false;
	int err = 0;

	for (;;) {
		bool found;

		lc_mutex_lock(&c->lock);
		found = lc_zeros_next(&c->ring, v->id, e.place + e.nr,
				      LC_MUTANT(zero_undurable) ? UINT64_MAX : sw->log->durable_id,
				      &e);
		if (found)
			v->touched |= lc_samples_in(v->size_bytes, lc_place_block(e.place), e.nr);
		lc_mutex_unlock(&c->lock);
		if (!found)
			break;
		any = true;
		err = zero_range(sw, v, &e);
		if (err)
			break;
		lc_mutex_lock(&c->lock);
		lc_zeros_done(&c->ring, &e);
		c->stats.zeroed_blocks += e.nr;
		lc_mutex_unlock(&c->lock);
	}
	if (!any)
		return;
	if (err == -ECANCELED)
		sw->error = err;
	else if (err)
		backing_failed(sw, v, err);
	if (LC_MUTANT(zero_without_flush))
		err = 0;
	else if (!err && !flush_backing(sw, v))
		err = -EIO;
	lc_mutex_lock(&c->lock);
	lc_zeros_flushed(&c->ring, v->id, !err);
	lc_log_space(sw->log);
	lc_mutex_unlock(&c->lock);
}

/* --- write --- */

static void submit_write(struct lc_sweep *sw, struct lc_run *r, u32 from_bytes, u32 to_bytes)
{
	struct lc_io *io = &r->ios[r->nr_ios++];

	*io = (struct lc_io){
		.op = LC_IO_WRITE,
		.buf = r->buf,
		.len_bytes = to_bytes - from_bytes,
		.offset_bytes = r->block * LC_BLOCK + from_bytes,
		.owner = r,
	};
	/* Part of a block: a buffer for I/O is aligned to blocks. */
	if (from_bytes % LC_BLOCK) {
		io->buf = r->buf + (size_t)r->nr_ios * LC_BLOCK;
		memcpy(io->buf, r->buf + from_bytes, to_bytes - from_bytes);
	} else {
		io->buf = r->buf + from_bytes;
	}
	lc_queue_submit(sw->backing[r->v->id], io);
}

/*
 * A block of which only some sectors are ours: write those, or, where the store's logical block is larger
 * than a sector, widen it with what the store has.
 */
static int write_part(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_store *backing = r->v->backing;
	u8 mask = r->pieces[0].mask;
	u8 *old = r->buf + LC_BLOCK;

	if (backing->block_bytes > LC_SECTOR) {
		int err = lc_store_read(backing, old, LC_BLOCK, r->block * LC_BLOCK);

		if (err)
			return err;
		for (u32 i = 0; i < LC_SECTORS_PER_BLOCK; i++)
			if (!(mask & 1u << i))
				memcpy(r->buf + i * LC_SECTOR, old + i * LC_SECTOR, LC_SECTOR);
		submit_write(sw, r, 0, LC_BLOCK);
		return 0;
	}
	while (mask) {
		u32 first = __builtin_ctz(mask);
		u32 nr = __builtin_ctz(~(u32)(mask >> first));

		mask &= ~(((1u << nr) - 1) << first);
		submit_write(sw, r, first * LC_SECTOR, (first + nr) * LC_SECTOR);
	}
	return 0;
}

static void release_run(struct lc_sweep *sw, struct lc_run *r)
{
	r->next = sw->free_runs;
	sw->free_runs = r;
}

/* The data of a run is there: let go of the log, and write. */
static void write_run(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_core *c = sw->core;
	u64 samples = lc_samples_in(r->v->size_bytes, r->block, r->nr);
	u32 from = 0;
	int err = 0;

	for (u32 i = 0; i < r->nr; i++) {
		err = verify_piece(sw, &r->pieces[i], r->buf + (size_t)i * LC_BLOCK);
		if (err > 0)
			err = lose_piece(sw, r, i);
		if (err)
			sw->error = err;
	}
	err = 0;
	lc_mutex_lock(&c->lock);
	for (u32 i = 0; i < r->nr; i++) {
		const struct lc_piece *p = &r->pieces[i];

		/* It can be read after all: it was listed, but that could not be made durable. */
		if (!p->bad && lc_index_slot(&c->ring.index, p->slot)->key & LC_SLOT_DIRTY)
			lc_bad_clear(&c->meta.bad, r->v->id, r->block + i, p->mask);
		lc_log_unpin(sw->log, p->slot, p->pin);
	}
	r->v->touched |= samples;
	c->stats.writeback_blocks += r->nr;
	lc_log_unlock(sw->log);

	if (r->pieces[0].mask != LC_MASK_FULL) {
		if (!r->pieces[0].bad)
			err = write_part(sw, r);
	} else {
		for (u32 i = 0; i <= r->nr; i++)
			if (i == r->nr || r->pieces[i].bad) {
				if (i > from)
					submit_write(sw, r, from * LC_BLOCK, i * LC_BLOCK);
				from = i + 1;
			}
	}
	if (err)
		backing_failed(sw, r->v, err);
	r->submitted_ns = lc_now_ns();
	lc_mutex_lock(&c->lock);
	c->stats.writeback_ios += r->nr_ios;
	lc_mutex_unlock(&c->lock);
	if (!r->nr_ios)
		release_run(sw, r);
}

/* Wait for at least one write of a volume to complete. */
static u32 reap_backing(struct lc_sweep *sw, struct lc_volume *v)
{
	struct lc_io *done = lc_queue_wait(sw->backing[v->id], LC_FOREVER);
	u64 now_ns = lc_now_ns();
	u32 nr = 0;

	while (done) {
		struct lc_io *io = done;
		struct lc_run *r = io->owner;

		done = io->next;
		if (io->result)
			r->error = io->result;
		if (--r->nr_ios)
			continue;
		if (r->error)
			backing_failed(sw, v, r->error);
		lc_mutex_lock(&sw->core->lock);
		lc_histogram_add(&sw->core->latencies.backing_write, now_ns - r->submitted_ns);
		lc_mutex_unlock(&sw->core->lock);
		release_run(sw, r);
		nr++;
	}
	return nr;
}

/* --- a range, a sweep --- */

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

/* Build and begin to read runs of V from *AT on, while there is room. Returns the list. */
static struct lc_run *build_runs(struct lc_sweep *sw, struct lc_volume *v, u32 *at, bool *more,
				 u32 *reading)
{
	struct lc_run *ready = NULL, **last = &ready;

	while (*more && sw->free_runs) {
		struct lc_run *r = sw->free_runs;
		u64 place = *at < sw->nr_places ? sw->places[*at] : 0;

		*more = !sw->error && !sw->failed[v->id] && *at < sw->nr_places &&
			sw->volumes[lc_place_volume(place)] == v && sw->nr_written < sw->max;
		if (*more && stopped(sw)) {
			sw->error = -ECANCELED;
			*more = false;
		}
		if (!*more)
			break;
		++*at;
		if (place <= sw->covered)
			continue;
		if (!build_run(sw, place, r)) {
			sw->covered = place;
			continue;
		}
		sw->free_runs = r->next;
		*reading += read_run(sw, r);
		*last = r;
		r->next = NULL;
		last = &r->next;
	}
	return ready;
}

/*
 * Write the runs of the places from *AT on that belong to one volume, as far as `written` has room; flush that
 * volume; turn them clean.
 */
static void write_range(struct lc_sweep *sw, u32 *at)
{
	struct lc_volume *v = sw->volumes[lc_place_volume(sw->places[*at])];
	u32 in_flight = 0;
	bool more = true;

	sw->nr_written = 0;
	while (more || in_flight) {
		u32 reading = 0;
		struct lc_run *ready;

		give_way(sw, v);
		ready = build_runs(sw, v, at, &more, &reading);
		while (reading)
			reap_ssd(sw, &reading);
		while (ready) {
			struct lc_run *r = ready;

			ready = r->next;
			write_run(sw, r);
			in_flight += r->nr_ios > 0;
		}
		lc_queue_start(sw->backing[v->id]);
		if (in_flight)
			in_flight -= reap_backing(sw, v);
	}
	if (LC_MUTANT(clean_before_flush))
		clean_written(sw);
	if (!sw->error && !sw->failed[v->id] && sw->nr_written && flush_backing(sw, v))
		clean_written(sw);
}

/* A store that has failed, and from which nothing is wanted any more, does not hold up anybody. */
static void forgive(struct lc_sweep *sw)
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

int lc_sweep_run(struct lc_sweep *sw, u64 upto)
{
	u64 began_ns = lc_now_ns();

	sw->covered = 0; /* below volume 1, block 0 */
	sw->error = sw->backing_error = 0;
	memset(sw->failed, 0, sizeof sw->failed);
	lc_mutex_lock(&sw->core->lock);
	sw->core->stats.sweeps++;
	lc_mutex_unlock(&sw->core->lock);
	for (u32 id = 1; id <= LC_VOLUMES_MAX && !sw->error; id++)
		if (sw->volumes[id])
			zero_volume(sw, sw->volumes[id]);
	do {
		collect(sw, upto);
		for (u32 at = 0; at < sw->nr_places && !sw->error;) {
			u8 id = lc_place_volume(sw->places[at]);

			if (!sw->failed[id])
				write_range(sw, &at);
			else if (sw->places[at++] > sw->covered)
				sw->covered = lc_place(id, LC_BLOCK_NR_MAX); /* nothing more of it */
		}
	} while (sw->nr_places && !sw->error);
	forgive(sw);
	lc_mutex_lock(&sw->core->lock);
	sw->core->stats.writeback_ns += lc_now_ns() - began_ns;
	lc_mutex_unlock(&sw->core->lock);
	return sw->error ? sw->error : sw->backing_error;
}
