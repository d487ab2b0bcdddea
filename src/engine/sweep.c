/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.c - a turn as a whole; backing stores that fail, and work again. sweep_build.c and sweep_write.c are the two ends of
 * the belt.
 */
#include "sweep.h"

#include <assert.h>
#include <string.h>

#include "fingerprint.h"

/* Look-ups in one critical section. */
#define SLICE 16u

/* --- begin and end --- */

int lc_sweep_init(struct lc_sweep *sw, struct lc_core *core, struct lc_log *log,
		  struct lc_volume **volumes)
{
	/* 12 bytes for each of these: half a byte per block of the cache. */
	u32 blocks = core->ring.nr * core->ring.segment_blocks, max = blocks / 24;
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
		       "%s: write-back fails: %s; what is dirty stays in the cache (a server tries again "
		       "every %u to %u ms)",
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

/*
 * Take the samples of the fingerprint anew that were written to: while the store works, and before anything turns clean.
 * The belt is empty: its memory is free.
 */
static int take_samples(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	struct lc_volume_entry *entry = &c->meta.volumes[v->id];
	u32 samples[LC_NR_SAMPLES];
	u64 which;
	int err;

	lc_mutex_lock(&c->lock);
	which = v->touched;
	lc_mutex_unlock(&c->lock);
	if (!which)
		return 0;
	err = lc_samples_read(v->backing, v->size_bytes, which, sw->memory, samples);
	if (err)
		return err;
	lc_mutex_lock(&c->lock);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		if (which & 1ull << i)
			entry->samples[i] = samples[i];
	v->touched &= ~which;
	entry->unsure &= ~which;
	v->sampled = true;
	lc_mutex_unlock(&c->lock);
	return 0;
}

/*
 * The turn has failed, and what it wrote is unsure until it is written again: if it was a flush that failed, not even one that
 * succeeds later says that what can be read there now is durable. So the tail never has to wait for a store that has nothing
 * to do any more, nor a turn for a block that cannot be read before another turn has written it.
 */
static void doubt_samples(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	struct lc_volume_entry *entry = &c->meta.volumes[v->id];

	lc_mutex_lock(&c->lock);
	if (v->touched & ~entry->unsure && !LC_MUTANT(all_samples_are_sure)) {
		entry->unsure |= v->touched;
		v->sampled = true;
	}
	v->touched = 0;
	lc_mutex_unlock(&c->lock);
}

bool lc_sweep_flush(struct lc_sweep *sw)
{
	int err = LC_MUTANT(no_backing_flush) ? 0 : lc_store_flush(sw->v->backing);

	assert(sw->oldest == sw->next_build);
	if (!err)
		err = take_samples(sw);
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
		more = more && lc_sweep_build(sw, &at);
		lc_sweep_reap_ssd(sw, 0);
		lc_sweep_write(sw);
		/* The SSD is the faster one: a backing store that could have more waits for it, not we for both. */
		if (lc_sweep_next_is_read(sw) && sw->writing < sw->depth)
			lc_sweep_reap_ssd(sw, LC_FOREVER);
		else if (sw->writing)
			lc_sweep_reap_backing(sw);
	}
	assert(!sw->reading && !sw->writing);
}

/*
 * A round meets twice what is in sight at its beginning if writers are as fast as write-back, and something more while
 * that grows: an end that came earlier would be felt.
 */
#define ROUND_WORKS 4u

static void begin_round(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;

	lc_mutex_lock(&c->lock);
	sw->v->round_blocks = ROUND_WORKS * lc_pace_work_blocks(c, sw->v->id);
	lc_mutex_unlock(&c->lock);
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
		if (from == bottom)
			begin_round(sw);
		run_belt(sw);
	}
	if (LC_MUTANT(clean_before_flush))
		clean_written(sw);
	if (!sw->error && !sw->backing_error && sw->nr_written && lc_sweep_flush(sw)) {
		clean_written(sw);
		*written = sw->nr_written;
	}
	if (sw->error || sw->backing_error) {
		v->swept = from; /* once more */
		doubt_samples(sw);
	} else if (sw->nr_written >= v->round_blocks) {
		v->swept = bottom;
	} else {
		v->round_blocks -= sw->nr_written;
	}
	lc_mutex_lock(&c->lock);
	c->stats.rounds += from == bottom && sw->nr_written;
	c->stats.writeback_ns += lc_now_ns() - began_ns;
	lc_mutex_unlock(&c->lock);
	return sw->error ? sw->error : sw->backing_error;
}
