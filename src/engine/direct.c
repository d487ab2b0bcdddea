/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * direct.c - a volume without a log: requests go straight to the backing store.
 *
 * The store wants whole logical blocks at aligned addresses; clients send what they like. Everything passes
 * through scratch memory in chunks, and where a write begins or ends inside a logical block, that
 * block is read first. Writes that overlap take turns (range.h): a store promises no order for them.
 */
#include <string.h>

#include "volume.h"

#define CHUNK_BYTES (LC_CHUNK_BLOCKS * LC_BLOCK)
/* Zeroed in one call: what a slow store can do in about a second. */
#define ZERO_STEP_BYTES (64ull << 20)

/* What one chunk of a request touches of the store: [from, to) in whole logical blocks. */
struct window {
	u64 at, end; /* the client's bytes */
	u64 from, to;
};

/* The next window of a request whose bytes [at, end) are left. */
static struct window next_window(const struct lc_volume *v, u64 at, u64 end)
{
	u32 unit = v->backing->block_bytes;
	struct window w = {.at = at, .from = at / unit * unit};

	w.end = end < w.from + CHUNK_BYTES ? end : w.from + CHUNK_BYTES;
	w.to = (w.end + unit - 1) / unit * unit;
	return w;
}

int lc_direct_read(struct lc_volume *v, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_core *c = v->core;
	u64 end = offset_bytes + len_bytes;
	u8 *scratch = lc_scratch_get(c);
	int err = scratch ? 0 : -ENOMEM;

	lc_mutex_lock(&c->lock);
	c->stats.reads++;
	c->stats.read_bytes += len_bytes;
	lc_mutex_unlock(&c->lock);
	for (u64 at = offset_bytes; at < end && !err;) {
		struct window w = next_window(v, at, end);

		err = lc_store_read(v->backing, scratch, w.to - w.from, w.from);
		if (!err)
			lc_copy((u8 *)buf + (at - offset_bytes), scratch + (at - w.from), w.end - at);
		at = w.end;
	}
	lc_scratch_put(c, scratch);
	return err;
}

/* Read what a window has besides the client's bytes: its first and last logical block, if they are partial. */
static int read_edges(struct lc_volume *v, const struct window *w, u8 *scratch)
{
	u32 unit = v->backing->block_bytes;
	int err = 0;

	if (w->at > w->from)
		err = lc_store_read(v->backing, scratch, unit, w->from);
	/* Behind the end of the store there is nothing to preserve. */
	if (!err && w->end < w->to && w->end < v->size_bytes &&
	    (w->at == w->from || w->to - w->from > unit))
		err = lc_store_read(v->backing, scratch + (w->to - unit - w->from), unit,
				    w->to - unit);
	return err;
}

/* FROM is NULL for zeros. */
static int write_window(struct lc_volume *v, const struct window *w, const u8 *from, u8 *scratch)
{
	struct lc_core *c = v->core;
	bool whole = w->at == w->from && (w->end == w->to || w->end == v->size_bytes);
	struct lc_range range = {.block = w->from / LC_BLOCK, .exclusive = true};
	int err = 0;

	range.nr = (w->to + LC_BLOCK - 1) / LC_BLOCK - range.block;
	lc_mutex_lock(&c->lock);
	lc_range_enter_alone(&v->ranges, &range);
	c->stats.write_bytes += w->end - w->at;
	lc_mutex_unlock(&c->lock);

	if (!whole)
		err = read_edges(v, w, scratch);
	if (!err) {
		if (from)
			lc_copy(scratch + (w->at - w->from), from, w->end - w->at);
		else
			memset(scratch + (w->at - w->from), 0, w->end - w->at);
		if (w->end < w->to && w->end == v->size_bytes)
			memset(scratch + (w->end - w->from), 0, w->to - w->end);
		err = lc_store_write(v->backing, scratch, w->to - w->from, w->from);
	}

	lc_mutex_lock(&c->lock);
	lc_range_leave(&v->ranges, &range);
	lc_mutex_unlock(&c->lock);
	return err;
}

static int write_bytes(struct lc_volume *v, const void *buf, u64 len_bytes, u64 offset_bytes)
{
	u64 end = offset_bytes + len_bytes;
	u8 *scratch = lc_scratch_get(v->core);
	int err = scratch ? 0 : -ENOMEM;

	for (u64 at = offset_bytes; at < end && !err;) {
		struct window w = next_window(v, at, end);

		err = write_window(v, &w, buf ? (const u8 *)buf + (at - offset_bytes) : NULL,
				   scratch);
		at = w.end;
	}
	lc_scratch_put(v->core, scratch);
	return err;
}

static int finish(struct lc_volume *v, int err, unsigned flags)
{
	return !err && flags & LC_FUA ? lc_direct_flush(v) : err;
}

int lc_direct_write(struct lc_volume *v, const void *buf, u32 len_bytes, u64 offset_bytes,
		    unsigned flags)
{
	struct lc_core *c = v->core;

	lc_mutex_lock(&c->lock);
	c->stats.writes++;
	lc_mutex_unlock(&c->lock);
	return finish(v, write_bytes(v, buf, len_bytes, offset_bytes), flags);
}

/* Let the store zero whole blocks itself. */
static int zero_blocks(struct lc_volume *v, u64 block, u32 nr, bool punch)
{
	struct lc_core *c = v->core;
	struct lc_range range = {.block = block, .nr = nr, .exclusive = true};
	u64 offset_bytes = block * LC_BLOCK, len_bytes = (u64)nr * LC_BLOCK;
	int err;

	lc_mutex_lock(&c->lock);
	lc_range_enter_first(&v->ranges, &range);
	lc_mutex_unlock(&c->lock);
	err = lc_store_zero(v->backing, len_bytes, offset_bytes, punch);
	lc_mutex_lock(&c->lock);
	lc_range_leave(&v->ranges, &range);
	lc_mutex_unlock(&c->lock);
	return err;
}

int lc_direct_zero(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags)
{
	u64 end_bytes = offset_bytes + len_bytes, at = offset_bytes, first, end;
	bool punch = flags & LC_MAY_TRIM;
	int err = 0;

	lc_whole_blocks(len_bytes, offset_bytes, &first, &end);
	if (first < end) {
		err = write_bytes(v, NULL, first * LC_BLOCK - at, at);
		at = first * LC_BLOCK;
	}
	while (first < end && !err) {
		u32 nr = ZERO_STEP_BYTES / LC_BLOCK;

		if (nr > end - first)
			nr = end - first;
		/* Whatever it failed for: what can be written is not lost yet. */
		if (zero_blocks(v, first, nr, punch))
			break;
		first += nr;
		at = first * LC_BLOCK;
	}
	if (!err)
		err = write_bytes(v, NULL, end_bytes - at, at);
	return finish(v, err, flags);
}

int lc_direct_trim(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags)
{
	u64 first, end;
	int err = 0;

	lc_whole_blocks(len_bytes, offset_bytes, &first, &end);
	while (first < end && !err) {
		u32 nr = ZERO_STEP_BYTES / LC_BLOCK;

		if (nr > end - first)
			nr = end - first;
		err = zero_blocks(v, first, nr, true);
		first += nr;
	}
	return finish(v, err, flags);
}

int lc_direct_flush(struct lc_volume *v)
{
	return lc_store_flush(v->backing);
}
