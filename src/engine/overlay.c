/* SPDX-License-Identifier: BSD-3-Clause */
#include "overlay.h"

#include <assert.h>
#include <string.h>

#include "logcache/rt.h"

struct lc_overlay_block {
	u64 block;
	u8 *data; /* LC_BLOCK bytes */
};

#define GROW_BLOCKS 64u

/*
 * A queue whose I/O is done by threads, one synchronous read at a time each: whatever store is below, it can do
 * that. Enough of them keep an SSD busy.
 */
#define QUEUE_THREADS 16u

struct overlay_queue {
	struct lc_queue queue;
	struct lc_store *store;
	struct lc_thread threads[QUEUE_THREADS];
	u32 nr_threads;
	struct lc_mutex lock; /* for all that follows */
	struct lc_cond work, progress;
	struct lc_io *staged, *done;
	u32 in_flight; /* staged or being done */
	bool stop, kicked;
};

static struct lc_overlay *overlay_of(struct lc_store *s)
{
	return (struct lc_overlay *)s; /* its first member */
}

/* The first changed block at or behind BLOCK, as an index. */
static u32 find(const struct lc_overlay *o, u64 block)
{
	u32 low = 0, high = o->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (o->blocks[mid].block < block)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int grow(struct lc_overlay *o)
{
	u32 max = o->max ? o->max * 2 : GROW_BLOCKS;
	struct lc_overlay_block *blocks = lc_alloc(max * sizeof *blocks);

	if (!blocks)
		return -ENOMEM;
	if (o->nr)
		memcpy(blocks, o->blocks, o->nr * sizeof *blocks);
	lc_free(o->blocks, o->max * sizeof *blocks);
	o->blocks = blocks;
	o->max = max;
	return 0;
}

int lc_overlay_put(struct lc_overlay *o, u64 block, const void *data)
{
	u32 i = find(o, block);

	if (i == o->nr || o->blocks[i].block != block) {
		u8 *copy = lc_alloc(LC_BLOCK);

		if (!copy || (o->nr == o->max && grow(o))) {
			lc_free(copy, LC_BLOCK);
			return -ENOMEM;
		}
		memmove(&o->blocks[i + 1], &o->blocks[i], (o->nr - i) * sizeof *o->blocks);
		o->blocks[i] = (struct lc_overlay_block){block, copy};
		o->nr++;
	}
	memcpy(o->blocks[i].data, data, LC_BLOCK);
	return 0;
}

/* Runs of blocks that are not changed are read from below, so a changed block hides that it is unreadable there. */
static int overlay_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_overlay *o = overlay_of(s);
	u64 at = offset_bytes / LC_BLOCK, end = (offset_bytes + len_bytes) / LC_BLOCK;
	u32 i = find(o, at);

	assert(offset_bytes % LC_BLOCK == 0 && len_bytes % LC_BLOCK == 0);
	while (at < end) {
		u8 *p = (u8 *)buf + (at * LC_BLOCK - offset_bytes);
		u64 until = i < o->nr && o->blocks[i].block < end ? o->blocks[i].block : end;
		int err;

		if (until == at) {
			memcpy(p, o->blocks[i++].data, LC_BLOCK);
			at++;
			continue;
		}
		err = lc_store_read(o->below, p, (u32)(until - at) * LC_BLOCK, at * LC_BLOCK);
		if (err)
			return err;
		at = until;
	}
	return 0;
}

static int overlay_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	int err = 0;

	assert(offset_bytes % LC_BLOCK == 0 && len_bytes % LC_BLOCK == 0);
	for (u32 i = 0; i < len_bytes && !err; i += LC_BLOCK)
		err = lc_overlay_put(overlay_of(s), (offset_bytes + i) / LC_BLOCK,
				     (const u8 *)buf + i);
	return err;
}

static int overlay_flush(struct lc_store *s)
{
	(void)s; /* nothing of it is on the device */
	return 0;
}

static void overlay_close(struct lc_store *s)
{
	(void)s; /* lc_overlay_destroy */
}

/* --- the queue --- */

static struct overlay_queue *queue_of(struct lc_queue *q)
{
	return (struct overlay_queue *)q; /* its first member */
}

static void queue_thread(void *arg)
{
	struct overlay_queue *q = arg;

	lc_mutex_lock(&q->lock);
	while (!q->stop) {
		struct lc_io *io = q->staged;

		if (!io) {
			lc_cond_wait(&q->work, &q->lock, LC_FOREVER);
			continue;
		}
		q->staged = io->next;
		lc_mutex_unlock(&q->lock);
		io->result = lc_store_read(q->store, io->buf, io->len_bytes, io->offset_bytes);
		lc_mutex_lock(&q->lock);
		io->next = q->done;
		q->done = io;
		q->in_flight--;
		lc_cond_signal(&q->progress);
	}
	lc_mutex_unlock(&q->lock);
}

static void queue_submit(struct lc_queue *lq, struct lc_io *io)
{
	struct overlay_queue *q = queue_of(lq);

	assert(io->op == LC_IO_READ); /* a recovery does nothing else */
	lc_mutex_lock(&q->lock);
	io->next = q->staged;
	q->staged = io;
	q->in_flight++;
	lc_cond_signal(&q->work);
	lc_mutex_unlock(&q->lock);
}

static void queue_start(struct lc_queue *q)
{
	(void)q; /* it was, when it was submitted */
}

static struct lc_io *queue_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct overlay_queue *q = queue_of(lq);
	struct lc_io *done;

	lc_mutex_lock(&q->lock);
	while (!q->done && q->in_flight && !q->kicked && lc_now_ns() < deadline_ns)
		lc_cond_wait(&q->progress, &q->lock, deadline_ns);
	done = q->done;
	q->done = NULL;
	q->kicked = false;
	lc_mutex_unlock(&q->lock);
	return done;
}

static void queue_kick(struct lc_queue *lq)
{
	struct overlay_queue *q = queue_of(lq);

	lc_mutex_lock(&q->lock);
	q->kicked = true;
	lc_cond_signal(&q->progress);
	lc_mutex_unlock(&q->lock);
}

static void queue_close(struct lc_queue *lq)
{
	struct overlay_queue *q = queue_of(lq);

	lc_mutex_lock(&q->lock);
	assert(!q->in_flight);
	q->stop = true;
	lc_cond_broadcast(&q->work);
	lc_mutex_unlock(&q->lock);
	for (u32 i = 0; i < q->nr_threads; i++)
		lc_thread_join(&q->threads[i]);
	lc_cond_destroy(&q->work);
	lc_cond_destroy(&q->progress);
	lc_mutex_destroy(&q->lock);
	lc_free(q, sizeof *q);
}

static int overlay_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			      unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	static const struct lc_queue_ops ops = {
		.submit = queue_submit,
		.start = queue_start,
		.wait = queue_wait,
		.kick = queue_kick,
		.close = queue_close,
	};
	struct overlay_queue *q = lc_alloc(sizeof *q);

	(void)areas; /* nothing to be registered */
	(void)nr_areas;
	if (!q)
		return lc_fail(err, -ENOMEM, "%s: no memory to read it", s->name);
	q->queue.ops = &ops;
	q->store = s;
	lc_mutex_init(&q->lock);
	lc_cond_init(&q->work);
	lc_cond_init(&q->progress);
	while (q->nr_threads < depth && q->nr_threads < QUEUE_THREADS &&
	       !lc_thread_start(&q->threads[q->nr_threads], "lc-read", queue_thread, q))
		q->nr_threads++;
	if (!q->nr_threads) {
		queue_close(&q->queue);
		return lc_fail(err, -EAGAIN, "%s: cannot start a thread to read it", s->name);
	}
	*out = &q->queue;
	return 0;
}

void lc_overlay_init(struct lc_overlay *o, struct lc_store *below)
{
	static const struct lc_store_ops ops = {
		.read = overlay_read,
		.write = overlay_write,
		.flush = overlay_flush,
		.queue_open = overlay_queue_open,
		.close = overlay_close,
	};

	*o = (struct lc_overlay){
		.store = {.ops = &ops,
			  .name = below->name,
			  .size_bytes = below->size_bytes,
			  .block_bytes = LC_BLOCK},
		.below = below,
	};
}

void lc_overlay_destroy(struct lc_overlay *o)
{
	for (u32 i = 0; i < o->nr; i++)
		lc_free(o->blocks[i].data, LC_BLOCK);
	lc_free(o->blocks, o->max * sizeof *o->blocks);
	o->blocks = NULL;
	o->nr = o->max = 0;
}

int lc_overlay_apply(struct lc_overlay *o, u64 first, u64 end)
{
	u32 from = find(o, first), i = from;
	int err = 0;

	for (; i < o->nr && o->blocks[i].block < end && !err; i++)
		err = lc_store_write(o->below, o->blocks[i].data, LC_BLOCK,
				     o->blocks[i].block * LC_BLOCK);
	return err || i == from ? err : lc_store_flush(o->below);
}
