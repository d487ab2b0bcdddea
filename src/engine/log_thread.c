/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_thread.c - the log thread: it writes records that are full or old, flushes the SSD when that is due though
 * nobody asks for it, and reclaims segments.
 *
 * One loop: do whatever can be done, then sleep in the queue until a completion, a kick or a deadline.
 */
#include <assert.h>
#include <string.h>

#include "log.h"

/* Records at the SSD at a time. */
#define QUEUE_DEPTH 16u
/* Blocks dropped from the index in one critical section. */
#define RECLAIM_SLICE 16u
/* Segments made ready ahead of the head. */
#define RECLAIM_AHEAD 4u

/* --- failure and reissue (I10) --- */

/*
 * Send all records since the last durable one once more: the same bytes to the same places, so there is nothing
 * to tell the two attempts apart by, and no need to. [lock]
 */
static void reissue(struct lc_log *l)
{
	assert(!l->in_flight && !l->flushing);
	l->broken = false;
	l->reissued_seq = l->sent_seq;
	if (LC_MUTANT(no_reissue)) {
		l->written_seq = l->sent_seq;
		return;
	}
	for (u64 seq = l->durable_seq + 1; seq <= l->sent_seq; seq++) {
		assert(lc_log_record(l, seq)->state == LC_RECORD_WRITTEN);
		lc_log_record(l, seq)->state = LC_RECORD_SEALED;
	}
	l->sent_seq = l->written_seq = l->durable_seq;
}

/* Tell the administrator. [lock; released meanwhile: who reads the log may be slow] */
static void tell_news(struct lc_log *l)
{
	const char *what = l->news_failed, *name = l->core->ssd->name;
	int error = l->news_error;
	bool is_healed = l->news_healed;

	l->news_failed = NULL;
	l->news_healed = false;
	lc_mutex_unlock(&l->core->lock);
	if (what)
		lc_log(LC_LOG_ERROR,
		       "%s: %s failed: %s: flushes fail until the log could be written again", name,
		       what, strerror(-error));
	if (is_healed)
		lc_log(LC_LOG_INFO, "%s: the log is written and durable again", name);
	lc_mutex_lock(&l->core->lock);
}

/* --- records --- */

static bool send_records(struct lc_log *l)
{
	bool any = false;

	while (l->in_flight < QUEUE_DEPTH) {
		struct lc_record *r = lc_log_next_record(l);

		if (!r)
			break;
		lc_log_finish_record(l, r, l->entries);
		lc_queue_submit(l->queue, &r->io);
		lc_queue_start(l->queue);
		lc_mutex_lock(&l->core->lock);
		any = true;
	}
	return any;
}

/* --- flushes --- */

/* The oldest record that is not durable is older than the flush interval. */
static bool overdue(struct lc_log *l)
{
	u32 interval_ms = l->core->settings.flush_interval_ms;

	return interval_ms && l->durable_seq + 1 < l->next_seq &&
	       l->now_ns >=
		       lc_log_record(l, l->durable_seq + 1)->opened_ns + interval_ms * LC_NS_PER_MS;
}

/* Has the log a reason to flush what is written now, though nobody waits for it? */
static bool flush_wanted(struct lc_log *l)
{
	struct lc_core *c = l->core;
	u64 undurable = c->ring.head_id - l->durable_id;

	if (l->failed)
		return l->written_seq >= l->reissued_seq;
	if (l->written_seq == l->durable_seq)
		return false;
	/* Writers are slowed so that write-back can keep up: then it needs something that it may write back. */
	if (lc_pace_pressed(c) && l->durable_id <= c->ring.tail_id && undurable > 1)
		return true;
	/* I10: a client that never flushes must not wedge the log. */
	return l->space_waiters || undurable * 2 >= c->settings.nr_buffers ||
	       (l->next_seq - l->durable_seq) * 2 >= LC_RECORDS_MAX || overdue(l);
}

static bool start_flush(struct lc_log *l)
{
	if (l->flushing || l->broken || !flush_wanted(l))
		return false;
	lc_log_begin_flush(l);
	l->flush_io = (struct lc_io){.op = LC_IO_FLUSH};
	lc_mutex_unlock(&l->core->lock);
	lc_queue_submit(l->queue, &l->flush_io);
	lc_queue_start(l->queue);
	lc_mutex_lock(&l->core->lock);
	return true;
}

static void complete(struct lc_log *l, struct lc_io *io)
{
	if (io == &l->flush_io)
		lc_log_end_flush(l, io->result);
	else
		lc_log_record_written(l, io->owner, io->result);
}

/* --- reclaim --- */

/*
 * Make one more place ready for the head, in small steps: the clean segment that was there one lap before
 * gives up its blocks; I4: only at or below the durable tail, and when its last reader has left. [lock]
 */
static bool reclaim(struct lc_log *l)
{
	struct lc_ring *ring = &l->core->ring;
	u64 id = ring->free_id + 1;
	u32 ahead = ring->nr / 8 < RECLAIM_AHEAD ? ring->nr / 8 + 1 : RECLAIM_AHEAD;
	u32 first = lc_ring_first_slot(ring, id);
	struct lc_segment *seg = lc_ring_segment(ring, id);

	l->reclaim_waits = false;
	if (id > ring->head_id + ahead || id > ring->tail_id + ring->nr)
		return false;
	if (seg->id) {
		assert(seg->id + ring->nr == id && seg->id <= ring->tail_id);
		assert(seg->state == LC_SEGMENT_CLOSED && seg->dirty == 0);
	}
	if (seg->live) {
		for (u32 i = 0, nr = 0; i < ring->segment_blocks && nr < RECLAIM_SLICE; i++)
			if (lc_index_slot(&ring->index, first + i)->key & LC_SLOT_LIVE) {
				lc_block_drop(ring, first + i);
				nr++;
			}
		return true;
	}
	if (!LC_MUTANT(reuse_with_reader) &&
	    (seg->readers || (seg->buffer >= 0 && l->buffers[seg->buffer].readers))) {
		l->reclaim_waits = true;
		return false;
	}
	if (seg->buffer >= 0)
		l->buffers[seg->buffer].segment_id = 0;
	lc_ring_set_segment(ring, id, (struct lc_segment){.buffer = -1, .state = LC_SEGMENT_FREE});
	ring->free_id = id;
	lc_log_space(l);
	return true;
}

/* --- the thread --- */

/* When the log gets old enough to be flushed by itself. */
static u64 interval_deadline_ns(struct lc_log *l)
{
	u64 interval_ns = l->core->settings.flush_interval_ms * LC_NS_PER_MS;

	if (!interval_ns)
		return LC_FOREVER;
	if (l->durable_seq + 1 < l->next_seq) {
		/* An overdue record waits for its own I/O, copies or flush: those wake us. */
		return overdue(l) ? LC_FOREVER :
				    lc_log_record(l, l->durable_seq + 1)->opened_ns + interval_ns;
	}
	/* Linger a little: then the next record needs no kick to be seen. */
	return l->now_ns < l->sent_ns + interval_ns ? l->sent_ns + interval_ns : LC_FOREVER;
}

/* When to look again if nothing happens. */
static u64 next_deadline_ns(struct lc_log *l)
{
	if (l->broken)
		return l->in_flight || l->flushing ? LC_FOREVER : l->retry_ns;
	return interval_deadline_ns(l);
}

static void open_queue(struct lc_log *l)
{
	struct lc_core *c = l->core;
	u32 bytes = c->ring.segment_blocks * LC_BLOCK, nr = c->settings.nr_buffers;
	struct lc_area *areas = lc_alloc(nr * sizeof *areas);
	int err;

	for (u32 i = 0; areas && i < nr; i++)
		areas[i] = (struct lc_area){l->buffers[i].data, bytes};
	if (areas)
		err = lc_queue_open(c->ssd, QUEUE_DEPTH + 1, areas, nr, &l->queue, &l->start_error);
	else
		err = lc_fail(&l->start_error, -ENOMEM, "%s: no memory for a queue", c->ssd->name);
	lc_free(areas, nr * sizeof *areas);
	lc_mutex_lock(&c->lock);
	l->start_result = err;
	l->running = true;
	lc_cond_broadcast(&l->progress);
	lc_mutex_unlock(&c->lock);
}

void lc_log_main(void *log)
{
	struct lc_log *l = log;
	struct lc_mutex *lock = &l->core->lock;

	open_queue(l);
	lc_mutex_lock(lock);
	while (l->queue) {
		bool busy = false;
		struct lc_io *done;

		l->now_ns = lc_now_ns();
		if (l->broken && !l->in_flight && !l->flushing && l->now_ns >= l->retry_ns)
			reissue(l);
		if (l->open && overdue(l) && lc_log_newest_seq(l) == l->durable_seq + 1)
			lc_log_seal(l);
		busy |= send_records(l);
		busy |= start_flush(l);
		busy |= reclaim(l);
		if (busy) {
			/* The mutex was released, or ought to be: look at everything again. */
			lc_mutex_unlock(lock);
			lc_mutex_lock(lock);
			continue;
		}
		if (l->news_failed || l->news_healed) {
			tell_news(l);
			continue;
		}
		if (l->stop && !l->in_flight && !l->flushing)
			break;

		l->sleep_until_ns = next_deadline_ns(l);
		l->sleeping = true;
		lc_mutex_unlock(lock);
		done = lc_queue_wait(l->queue, l->sleep_until_ns);
		lc_mutex_lock(lock);
		l->sleeping = false;
		while (done) {
			struct lc_io *io = done;

			done = io->next;
			complete(l, io);
		}
	}
	while (l->queue && l->kickers)
		lc_cond_wait(&l->progress, lock, LC_FOREVER);
	lc_mutex_unlock(lock);
	if (l->queue)
		lc_queue_close(l->queue);
}
