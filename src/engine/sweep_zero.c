/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep_zero.c - pending ranges to the backing stores: whatever a store cannot zero by itself is written.
 */
#include <string.h>

#include "fingerprint.h"
#include "sweep.h"

/* Zeroed at a time: a store that is quick about it, and one that writes. */
#define ZERO_STEP_BYTES (256ull << 20)
#define SLOW_ZERO_STEP_BYTES (16ull << 20)
#define ZEROS_BYTES_MAX (1u << 20)

/* Write zeros, where the store has nothing better. The belt is empty: its memory is free. */
static int write_zeros(struct lc_sweep *sw, u64 len_bytes, u64 offset_bytes)
{
	u32 max = sw->nr_frames * LC_BLOCK < ZEROS_BYTES_MAX ? sw->nr_frames * LC_BLOCK :
							       ZEROS_BYTES_MAX;

	memset(sw->memory, 0, max);
	while (len_bytes) {
		u32 step = len_bytes < max ? len_bytes : max;
		/* Behind the end of the store it is dropped. */
		u32 whole = (step + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
		int err = lc_store_write(sw->v->backing, sw->memory, whole, offset_bytes);

		if (err)
			return err;
		offset_bytes += step;
		len_bytes -= step;
	}
	return 0;
}

/* A step of so many bytes took so long: how fast the store is decides how much may be pending. Small ones say little. */
static void note_rate(struct lc_sweep *sw, u64 step_bytes, u64 took_ns)
{
	if (step_bytes < SLOW_ZERO_STEP_BYTES)
		return;
	lc_mutex_lock(&sw->core->lock);
	sw->v->zero_rate = step_bytes / LC_BLOCK * LC_NS_PER_S / (took_ns + 1);
	lc_mutex_unlock(&sw->core->lock);
}

/* Zero one range, in steps. A short block at the end of the volume is never part of one. */
static int zero_range(struct lc_sweep *sw, const struct lc_zero *e)
{
	struct lc_store *s = sw->v->backing;
	u64 at = lc_place_block(e->place) * LC_BLOCK, end = at + (u64)e->nr * LC_BLOCK;
	bool punch = e->trim && s->can_punch;
	u64 step = punch || s->can_zero ? ZERO_STEP_BYTES : SLOW_ZERO_STEP_BYTES, began_ns;
	int err = 0;

	if (end > sw->v->size_bytes)
		end = sw->v->size_bytes;
	for (; at < end && !err; at += step) {
		if (lc_sweep_stopped(sw))
			return -ECANCELED;
		lc_sweep_give_way(sw);
		if (step > end - at)
			step = end - at;
		began_ns = lc_now_ns();
		if (lc_store_zero(s, step, at, punch))
			err = write_zeros(sw, step, at);
		if (!err)
			note_rate(sw, step, lc_now_ns() - began_ns);
	}
	return err;
}

void lc_sweep_zero(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
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
		err = zero_range(sw, &e);
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
		lc_sweep_backing_failed(sw, err);
	if (LC_MUTANT(zero_without_flush))
		err = 0;
	else if (!err && !lc_sweep_flush(sw))
		err = -EIO;
	lc_mutex_lock(&c->lock);
	lc_zeros_flushed(&c->ring, v->id, !err);
	lc_log_space(sw->log);
	lc_mutex_unlock(&c->lock);
}
