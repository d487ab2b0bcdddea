/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * direct.c - a volume without a log: steps that go straight to the backing store.
 *
 * The store wants whole logical blocks at aligned addresses; clients send what they like. Everything passes
 * through scratch memory in windows, and where a write begins or ends inside a logical block, that
 * block is read first. Writes that overlap take turns (range.h): a store promises no order for them.
 */
#include <string.h>

#include "fingerprint.h"
#include "path.h"

/* A write keeps the last block of its scratch memory for edges. */
#define READ_BYTES (LC_CHUNK_BLOCKS * LC_BLOCK)
#define WRITE_BYTES (READ_BYTES - LC_BLOCK)
/* Zeroed in one call: what a slow store can do in about a second; and while writers may be held for it soon. */
#define ZERO_STEP_BYTES (64ull << 20)
#define ZERO_STEP_SHORT_BLOCKS 256u

/* What one step touches of the store: [from, to) in whole logical blocks. */
struct window {
	u64 at, end; /* the client's bytes */
	u64 from, to;
};

static struct window first_window(const struct lc_volume *v, u64 len_bytes, u64 offset_bytes,
				  u32 max_bytes)
{
	u32 unit = v->backing->block_bytes;
	struct window w = {.at = offset_bytes, .from = offset_bytes / unit * unit};

	w.end = offset_bytes + len_bytes;
	if (w.end > w.from + max_bytes)
		w.end = w.from + max_bytes;
	w.to = (w.end + unit - 1) / unit * unit;
	return w;
}

int64_t lc_direct_read(struct lc_volume *v, void *buf, u64 len_bytes, u64 offset_bytes)
{
	struct window w = first_window(v, len_bytes, offset_bytes, READ_BYTES);
	u8 *scratch = lc_scratch_get(v->core);
	int err;

	if (!scratch)
		return -ENOMEM;
	err = lc_store_read(v->backing, scratch, w.to - w.from, w.from);
	if (!err)
		lc_copy(buf, scratch + (w.at - w.from), w.end - w.at);
	lc_scratch_put(v->core, scratch);
	return err ? err : (int64_t)(w.end - w.at);
}

/* Read what a window has besides the client's bytes: its first and last logical block, if they are partial. */
static int read_edges(struct lc_volume *v, const struct window *w, u8 *scratch)
{
	u32 unit = v->backing->block_bytes;
	bool head = w->at > w->from;
	/* Behind the end of the store there is nothing to preserve. */
	bool tail = w->end < w->to && w->end < v->size_bytes;
	u8 *edge = scratch + WRITE_BYTES;
	int err = 0;

	if (head)
		err = lc_store_read(v->backing, scratch, unit, w->from);
	if (err || !tail || (head && w->to - w->from == unit))
		return err;
	err = lc_store_read(v->backing, edge, unit, w->to - unit);
	memcpy(scratch + (w->to - unit - w->from), edge, unit);
	return err;
}

static int write_window(struct lc_volume *v, const struct window *w, const u8 *from, u8 *scratch)
{
	int err = read_edges(v, w, scratch);

	if (err)
		return err;
	if (from)
		lc_copy(scratch + (w->at - w->from), from, w->end - w->at);
	else
		memset(scratch + (w->at - w->from), 0, w->end - w->at);
	if (w->end == v->size_bytes)
		memset(scratch + (w->end - w->from), 0, w->to - w->end);
	return lc_store_write(v->backing, scratch, w->to - w->from, w->from);
}

/*
 * A change of blocks begins; while a cache is being attached, perhaps of fewer than were asked for. 1; 0: the volume has a
 * log by now; or -ESHUTDOWN: its client is gone. [lock; released meanwhile]
 */
static int enter(struct lc_volume *v, struct lc_request *rq, struct lc_range *range)
{
	struct lc_core *c = v->core;
	int err = lc_core_still_wanted(c, rq->since_ns);

	/* Whoever is counted waits for nothing but the disk. */
	while (!err && !v->log) {
		if (v->sampling && range->nr > ZERO_STEP_SHORT_BLOCKS)
			range->nr = ZERO_STEP_SHORT_BLOCKS;
		if (c->hold) {
			c->path_waiters++;
			lc_cond_wait(&c->path, &c->lock, LC_FOREVER);
			c->path_waiters--;
		} else if (lc_range_try_alone(&v->ranges, range)) {
			break;
		} else {
			lc_ranges_wait(&v->ranges);
		}
		err = lc_core_still_wanted(c, rq->since_ns);
	}
	if (err || v->log)
		return err;
	v->direct_writes++;
	if (!rq->direct)
		rq->failures = v->flush_failures;
	rq->direct = true;
	c->client_ops++;
	return 1;
}

static void leave(struct lc_volume *v, struct lc_range *range)
{
	lc_mutex_lock(&v->core->lock);
	/* At the end: a sample that was taken while this was under way is not to be trusted. */
	if (v->sampling) {
		v->touched |= lc_samples_in(v->size_bytes, range->block, range->nr);
		v->written = !LC_MUTANT(attach_forgets_writes);
	}
	lc_range_leave(&v->ranges, range);
	v->direct_writes--;
	lc_path_done(v);
	lc_mutex_unlock(&v->core->lock);
}

int64_t lc_direct_write(struct lc_volume *v, struct lc_request *rq, const void *buf, u64 len_bytes,
			u64 offset_bytes)
{
	struct lc_core *c = v->core;
	struct window w = first_window(v, len_bytes, offset_bytes, WRITE_BYTES);
	struct lc_range range = {.block = w.from / LC_BLOCK, .exclusive = true};
	u8 *scratch = lc_scratch_get(c);
	int err;

	if (!scratch)
		return -ENOMEM;
	range.nr = (w.to + LC_BLOCK - 1) / LC_BLOCK - range.block;
	lc_mutex_lock(&c->lock);
	err = enter(v, rq, &range);
	if (err > 0) {
		c->stats.writes += !rq->counted;
		rq->counted = true;
		c->stats.write_bytes += w.end - w.at;
	}
	lc_mutex_unlock(&c->lock);
	if (err > 0) {
		err = write_window(v, &w, buf, scratch);
		leave(v, &range);
	} else {
		w.end = w.at;
	}
	lc_scratch_put(c, scratch);
	return err ? err : (int64_t)(w.end - w.at);
}

/*
 * One flush at a time, and who comes meanwhile shares the next one. So a failure, of which a store tells once, is known here
 * before the store can tell anybody else that all is well.
 */
int lc_direct_flush(struct lc_volume *v, u64 since)
{
	struct lc_core *c = v->core;
	u64 wanted;
	int err;

	lc_mutex_lock(&c->lock);
	wanted = v->flushes_begun + 1;
	while (v->flushes_ended < wanted && !v->log) {
		if (v->flushes_begun > v->flushes_ended && !LC_MUTANT(direct_flushes_overlap)) {
			lc_cond_wait(&v->flushed, &c->lock, LC_FOREVER);
			continue;
		}
		v->flushes_begun++;
		lc_mutex_unlock(&c->lock);
		err = lc_store_flush(v->backing);
		lc_mutex_lock(&c->lock);
		v->flushes_ended++;
		if (err) {
			v->flush_failures++;
			v->flush_error = err;
		}
		lc_cond_broadcast(&v->flushed);
		if (v->log) /* attached meanwhile: write-back waits for us */
			lc_log_progress(v->log);
	}
	err = v->flush_failures != since && !LC_MUTANT(failure_of_others) ? v->flush_error : 0;
	lc_mutex_unlock(&c->lock);
	return err;
}

/* Write zeros to whole blocks that we have entered. */
static int write_zeros(struct lc_volume *v, u64 len_bytes, u64 offset_bytes)
{
	u64 end = offset_bytes + len_bytes;
	u8 *scratch = lc_scratch_get(v->core);
	int err = scratch ? 0 : -ENOMEM;

	if (scratch)
		memset(scratch, 0, READ_BYTES);
	for (u64 at = offset_bytes; at < end && !err; at += READ_BYTES)
		err = lc_store_write(v->backing, scratch,
				     end - at < READ_BYTES ? end - at : READ_BYTES, at);
	lc_scratch_put(v->core, scratch);
	return err;
}

int64_t lc_direct_zero(struct lc_volume *v, struct lc_request *rq, u64 len_bytes, u64 offset_bytes,
		       bool punch, bool only)
{
	u64 step = len_bytes < ZERO_STEP_BYTES ? len_bytes : ZERO_STEP_BYTES;
	struct lc_range range = {
		.block = offset_bytes / LC_BLOCK,
		.nr = step / LC_BLOCK,
		.exclusive = true,
	};
	int err;

	lc_mutex_lock(&v->core->lock);
	err = enter(v, rq, &range);
	lc_mutex_unlock(&v->core->lock);
	if (err <= 0)
		return err;
	step = (u64)range.nr * LC_BLOCK;
	err = lc_store_zero(v->backing, step, offset_bytes, punch);
	/*
	 * Whatever it failed for: what can be written is not lost yet. Before anybody else may write there: the zeros
	 * may have been seen already, and must not come a second time.
	 */
	if (err && !only)
		err = write_zeros(v, step, offset_bytes);
	leave(v, &range);
	return err ? err : (int64_t)step;
}
