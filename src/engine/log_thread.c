/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_thread.c - the log thread: it alone writes records, flushes the SSD, and reclaims segments.
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

static void finish_commits(struct lc_log *l, int err)
{
	struct lc_commit **at = &l->commits;
	bool any = false;

	while (*at) {
		struct lc_commit *c = *at;

		if (err || (c->seq <= l->durable_seq && c->flush <= l->flushes_started)) {
			*at = c->next;
			c->result = err;
			c->done = true;
			any = true;
		} else {
			at = &c->next;
		}
	}
	if (any)
		lc_cond_broadcast(&l->committed);
}

static void fail(struct lc_log *l, int err, const char *what)
{
	if (!l->failed) {
		l->news_failed = what;
		l->news_error = err;
	}
	l->failures++;
	if (!l->broken)
		l->retry_ns = lc_now_ns() + l->core->settings.retry_ms * LC_NS_PER_MS;
	l->failed = l->broken = true;
	finish_commits(l, -EIO);
	lc_log_space(l);
}

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

static void healed(struct lc_log *l)
{
	l->failed = false;
	l->news_healed = true;
	lc_log_space(l);
	lc_cond_broadcast(&l->progress);
}

/* Tell the administrator, without the mutex: who reads the log may be slow. */
static void tell_news(struct lc_log *l)
{
	if (l->news_failed)
		lc_log(LC_LOG_ERROR,
		       "%s: %s failed: %s: flushes fail until the log could be written again",
		       l->core->ssd->name, l->news_failed, strerror(-l->news_error));
	if (l->news_healed)
		lc_log(LC_LOG_INFO, "%s: the log is written and durable again", l->core->ssd->name);
	l->news_failed = NULL;
	l->news_healed = false;
}

/* --- records --- */

/* The summary of the segment whose last record is R, into the last block of its buffer. */
static void write_summary(struct lc_log *l, const struct lc_record *r, const struct lc_buffer *b)
{
	u32 blocks = l->core->ring.segment_blocks, position = 0, nr = 0;
	struct lc_summary_info s = {
		.segment_id = r->segment_id,
		.first_seq = b->first_seq,
		.last_seq = r->seq,
		.epoch = l->epoch,
		.nr_records = b->nr_records,
	};

	memcpy(s.uuid, l->core->meta.uuid, LC_UUID_BYTES);
	for (u32 i = 0; i < b->nr_records; i++) {
		s.nr_blocks[i] = b->nr_blocks[i];
		memmove(&l->entries[nr], &l->entries[position + 1],
			b->nr_blocks[i] * sizeof *l->entries);
		nr += b->nr_blocks[i];
		position += 1 + b->nr_blocks[i];
	}
	assert(position == r->end);
	s.nr_entries = nr;
	/* Records are written up to here: what an earlier use of the buffer left between is no record. */
	memset(b->data + (size_t)r->end * LC_BLOCK, 0, (size_t)(blocks - 1 - r->end) * LC_BLOCK);
	lc_summary_encode(b->data + (size_t)(blocks - 1) * LC_BLOCK, &s, l->entries);
}

/*
 * Finish a sealed record and hand it to the SSD. [lock] Its slots' keys do not change any more, apart
 * from the flags; its data is read by nobody but readers.
 */
static void send_record(struct lc_log *l, struct lc_record *r)
{
	struct lc_core *c = l->core;
	struct lc_segment *seg = lc_ring_segment(&c->ring, r->segment_id);
	struct lc_buffer *b = &l->buffers[seg->buffer];
	struct lc_slot *slots = lc_index_slot(&c->ring.index,
					      lc_ring_first_slot(&c->ring, r->segment_id));
	bool summary = r->last && r->start > 0;
	u32 from = summary ? 0 : r->start + 1, blocks = r->end;
	struct lc_record_info info = {
		.segment_id = r->segment_id,
		.seq = r->seq,
		.epoch = l->epoch,
		.first = l->first,
		.durable_seq = l->durable_seq,
		.position = r->start,
		.nr_entries = r->end - r->start - 1,
	};

	r->state = LC_RECORD_WRITING;
	l->in_flight++;
	l->sent_seq = r->seq;
	c->stats.records++;
	memcpy(&l->entries[from], &slots[from], (r->end - from) * sizeof *slots);
	lc_mutex_unlock(&c->lock);

	memcpy(info.uuid, c->meta.uuid, LC_UUID_BYTES);
	for (u32 i = r->start + 1; i < r->end; i++)
		if (lc_key_type(l->entries[i].key) == LC_ENTRY_DATA)
			l->entries[i].crc = lc_crc32c(b->data + (size_t)i * LC_BLOCK, LC_BLOCK);
	lc_record_encode(b->data + (size_t)r->start * LC_BLOCK, &info, &l->entries[r->start + 1]);

	lc_mutex_lock(&c->lock);
	/* Before the buffer can be given away, so before anybody reads these from the SSD. */
	for (u32 i = r->start + 1; i < r->end; i++)
		slots[i].crc = l->entries[i].crc;
	lc_mutex_unlock(&c->lock);

	if (summary) {
		write_summary(l, r, b);
		blocks = c->ring.segment_blocks;
	}
	r->io = (struct lc_io){
		.op = LC_IO_WRITE,
		.buf = b->data + (size_t)r->start * LC_BLOCK,
		.len_bytes = (blocks - r->start) * LC_BLOCK,
		.offset_bytes = lc_slot_offset_bytes(lc_ring_first_slot(&c->ring, r->segment_id) +
						     r->start),
		.owner = r,
	};
	lc_queue_submit(l->queue, &r->io);
	lc_queue_start(l->queue);

	lc_mutex_lock(&c->lock);
	c->stats.log_bytes += r->io.len_bytes;
	l->sent_ns = lc_now_ns();
}

static bool send_records(struct lc_log *l)
{
	bool any = false;

	while (!l->broken && l->in_flight < QUEUE_DEPTH && l->sent_seq + 1 < l->next_seq) {
		struct lc_record *r = lc_log_record(l, l->sent_seq + 1);

		if (r->state != LC_RECORD_SEALED || (r->writers && !LC_MUTANT(seal_with_writers)))
			break;
		send_record(l, r);
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

/* Has anybody a reason to flush what is written now? */
static bool flush_wanted(struct lc_log *l)
{
	struct lc_core *c = l->core;
	u64 undurable = c->ring.head_id - l->durable_id;

	for (struct lc_commit *w = l->commits; w; w = w->next)
		if (w->seq <= l->written_seq && w->due_ns <= l->now_ns &&
		    (w->seq > l->durable_seq || w->flush > l->flushes_started))
			return true;
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

/* A commit that was left to wait for company, and is due now, wants the open record sealed. */
static bool seal_wanted(const struct lc_log *l)
{
	for (const struct lc_commit *w = l->commits; w; w = w->next)
		if (w->seq >= lc_log_newest_seq(l) && w->due_ns <= l->now_ns)
			return true;
	return false;
}

static bool start_flush(struct lc_log *l)
{
	if (l->flushing || l->broken || !flush_wanted(l))
		return false;
	l->flushing = true;
	l->flush_ns = lc_now_ns();
	l->flushes_started++;
	l->flush_covers_seq = LC_MUTANT(flush_covers_sent) ?
				      l->sent_seq :
				      l->written_seq; /* I2: completed before this flush is submitted */
	l->flush_io = (struct lc_io){.op = LC_IO_FLUSH};
	if (LC_MUTANT(ack_before_flush)) {
		lc_log_set_durable(l, l->flush_covers_seq);
		finish_commits(l, 0);
	}
	lc_mutex_unlock(&l->core->lock);
	lc_queue_submit(l->queue, &l->flush_io);
	lc_queue_start(l->queue);
	lc_mutex_lock(&l->core->lock);
	return true;
}

static void complete(struct lc_log *l, struct lc_io *io)
{
	if (io == &l->flush_io) {
		l->flushing = false;
		if (io->result) {
			fail(l, io->result, "flush");
			return;
		}
		l->core->stats.commits++;
		lc_histogram_add(&l->core->latencies.commit, lc_now_ns() - l->flush_ns);
		lc_log_set_durable(l, l->flush_covers_seq);
		if (!l->broken) {
			finish_commits(l, 0);
			if (l->failed && l->durable_seq >= l->reissued_seq)
				healed(l);
		}
		lc_log_space(l);
	} else {
		struct lc_record *r = io->owner;

		l->in_flight--;
		r->state = LC_RECORD_WRITTEN;
		if (io->result)
			fail(l, io->result, "write of the log");
		while (!l->broken && l->written_seq < l->sent_seq &&
		       lc_log_record(l, l->written_seq + 1)->state == LC_RECORD_WRITTEN)
			l->written_seq++;
	}
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
	u64 at_ns;

	if (l->broken)
		return l->in_flight || l->flushing ? LC_FOREVER : l->retry_ns;
	at_ns = interval_deadline_ns(l);
	for (const struct lc_commit *w = l->commits; w; w = w->next)
		if (w->due_ns > l->now_ns && w->due_ns < at_ns)
			at_ns = w->due_ns;
	return at_ns;
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
		if (l->open &&
		    ((overdue(l) && lc_log_newest_seq(l) == l->durable_seq + 1) || seal_wanted(l)))
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
		if (l->stop && !l->in_flight && !l->flushing)
			break;

		l->sleep_until_ns = next_deadline_ns(l);
		l->sleeping = true;
		lc_mutex_unlock(lock);
		tell_news(l);
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
