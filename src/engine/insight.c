/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * insight.c - what a cache says of itself.
 */
#include <stdio.h>
#include <string.h>

#include "cache.h"
#include "path.h"

/* What only a cache has. [lock] */
static void cache_stats(const struct lc_cache *c, struct lc_stats *out)
{
	const struct lc_core *core = &c->core;
	const struct lc_ring *ring = &core->ring;

	out->head_id = ring->head_id;
	out->tail_id = ring->tail_id;
	out->durable_id = c->log.durable_id;
	out->seq = lc_log_newest_seq(&c->log);
	out->durable_seq = c->log.durable_seq;
	out->epoch = core->meta.sb.epoch;
	out->nr_segments = ring->nr;
	out->segment_bytes = ring->segment_blocks * LC_BLOCK;
	out->was_clean = c->recovery.was_clean;
	out->recovered_records = c->recovery.dirty_records;
	out->opening_ns = c->recovery.opening_ns;
	out->free_segments = ring->nr_free;
	out->dirty_segments = ring->head_id - ring->tail_id;
	out->clean_segments = out->nr_segments - out->free_segments - out->dirty_segments;
	out->open_segments = ring->head_id &&
			     lc_ring_segment(ring, ring->head_id)->state == LC_SEGMENT_OPEN;
	out->dirty_blocks = ring->dirty_blocks;
	out->pending_zero_blocks = ring->zeros.blocks;
	out->cached_blocks = ring->index.nr_entries;
	out->capacity_blocks = (u64)ring->nr * (ring->segment_blocks - 1);
	out->waiting_writers = c->log.space_waiters;
	out->pace_delay_ns = core->pace.delay_ns;
	out->writeback_rate_blocks = lc_pace_rate(core);
	out->failing_volumes = c->writeback.sweep.nr_failing;
	out->log_failed = c->log.failed;
	out->bad_blocks = core->meta.bad.nr;
	out->memory_bytes = lc_index_bytes(&ring->index) + ring->nr * sizeof *ring->segments +
			    lc_zeros_bytes(&ring->zeros) + lc_sweep_bytes(&c->writeback.sweep) +
			    (u64)core->settings.nr_buffers * ring->segment_blocks * LC_BLOCK;
}

static u64 backing_errors(const struct lc_cache *c)
{
	u64 nr = 0;

	for (unsigned i = 0; i < c->nr_volumes; i++)
		nr += lc_store_errors(c->volumes[i].backing);
	return nr;
}

void lc_cache_stats(struct lc_cache *c, struct lc_stats *out)
{
	u64 errors = backing_errors(c); /* there may be 255 of them: not under the mutex */

	lc_mutex_lock(&c->core.lock);
	*out = c->core.stats;
	out->state = c->state;
	out->held_ns = c->held_ns;
	out->backing_errors = errors;
	if (c->core.ssd)
		out->ssd_errors += lc_store_errors(c->core.ssd);
	if (c->volumes[0].log) /* they all have one, or none has */
		cache_stats(c, out);
	lc_mutex_unlock(&c->core.lock);
}

/* [lock] */
static void say_who_failed(const struct lc_cache *c, int rc, struct lc_error *why)
{
	const struct lc_volume *failing = NULL;
	char more[48] = "";
	u32 nr = 0;

	/* While the SSD fails nobody asks the backing stores; one that failed before may still count as failing. */
	for (unsigned i = 0; i < c->nr_volumes && !c->writeback.failures && !c->log.failed; i++) {
		if (!c->volumes[i].failing)
			continue;
		failing = failing ? failing : &c->volumes[i];
		nr++;
	}
	if (nr > 1)
		snprintf(more, sizeof more, "; %u other volume%s fail%s, too", nr - 1,
			 nr > 2 ? "s" : "", nr > 2 ? "" : "s");
	if (failing)
		lc_fail(why, rc, "volume %s, %s: %s%s", lc_volume_shown(failing->name),
			failing->backing->name, strerror(-rc), more);
	else if (rc == -ETIMEDOUT)
		lc_fail(why, rc, "clients write faster than that goes");
	else if (c->core.ssd)
		lc_fail(why, rc, "cache %s: %s", c->core.ssd->name, strerror(-rc));
	else
		lc_fail(why, rc, "%s", strerror(-rc));
}

void lc_cache_drain_error(struct lc_cache *c, int rc, struct lc_error *why)
{
	lc_mutex_lock(&c->core.lock);
	if (rc == -ECANCELED)
		lc_fail(why, rc, "interrupted");
	else
		say_who_failed(c, rc, why);
	lc_mutex_unlock(&c->core.lock);
}

void lc_cache_latencies(struct lc_cache *c, struct lc_latencies *out)
{
	lc_mutex_lock(&c->core.lock);
	*out = c->core.latencies;
	lc_mutex_unlock(&c->core.lock);
}

void lc_cache_reset_stats(struct lc_cache *c)
{
	lc_mutex_lock(&c->core.lock);
	c->core.stats = (struct lc_stats){0};
	c->core.latencies = (struct lc_latencies){0};
	if (c->core.ssd)
		lc_store_reset_errors(c->core.ssd);
	for (unsigned i = 0; i < c->nr_volumes; i++)
		lc_store_reset_errors(c->volumes[i].backing);
	lc_mutex_unlock(&c->core.lock);
}

void lc_volume_stats(struct lc_volume *v, struct lc_volume_stats *out)
{
	const struct lc_ring *ring = &v->core->ring;

	lc_mutex_lock(&v->core->lock);
	*out = (struct lc_volume_stats){
		.size_bytes = v->size_bytes,
		.failing = v->failing,
		.backing_errors = lc_store_errors(v->backing),
	};
	if (v->log) {
		out->cached_blocks = ring->live_of[v->id];
		out->dirty_blocks = ring->dirty_of[v->id];
		out->pending_zero_blocks = ring->zeros.blocks_of[v->id];
	}
	lc_mutex_unlock(&v->core->lock);
}

const char *lc_volume_name(const struct lc_volume *v)
{
	return v->name;
}

const char *lc_volume_backing_name(const struct lc_volume *v)
{
	return v->backing->name;
}

/* [lock] */
static enum lc_place_state state_of(const struct lc_ring *ring, u32 place)
{
	const struct lc_segment *seg = &ring->segments[place];

	if (seg->state == LC_SEGMENT_FREE)
		return LC_PLACE_FREE;
	if (seg->id == ring->head_id)
		return LC_PLACE_HEAD;
	return seg->id > ring->tail_id ? LC_PLACE_DIRTY : LC_PLACE_CLEAN;
}

/* Places looked at in one critical section. */
#define MAP_SLICE 64u

u32 lc_cache_map(struct lc_cache *c, u8 *cells, u32 nr)
{
	const struct lc_ring *ring = &c->core.ring;
	bool cached;
	u32 filled;

	lc_mutex_lock(&c->core.lock);
	cached = lc_path_read(&c->volumes[0]); /* the ring stays while we look at it */
	filled = !cached ? 0 : nr < ring->nr ? nr : ring->nr;
	for (u32 i = 0; i < filled; i++) {
		u32 from = (u64)ring->nr * i / filled, to = (u64)ring->nr * (i + 1) / filled;

		cells[i] = LC_PLACE_FREE;
		for (u32 place = from; place < to; place++) {
			enum lc_place_state s = state_of(ring, place);

			if (s > cells[i])
				cells[i] = s;
			if (place % MAP_SLICE == MAP_SLICE - 1) { /* there may be millions */
				lc_mutex_unlock(&c->core.lock);
				lc_mutex_lock(&c->core.lock);
			}
		}
	}
	if (cached)
		lc_path_read_done(&c->volumes[0]);
	lc_mutex_unlock(&c->core.lock);
	return filled;
}

double lc_memory_per_block(u32 segment_bytes)
{
	double blocks = (double)segment_bytes / LC_BLOCK;

	/* The slot table, the hash at its load of 0.8, sweeps, pending zeros, a share of the segment table. */
	return sizeof(struct lc_slot) + 4 * 1.25 + 0.5 + 0.03125 + sizeof(struct lc_segment) / blocks;
}
