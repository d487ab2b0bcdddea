/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commit.c - how records become durable: finish, write, flush, and group commit on top of that. log.h has the idea.
 *
 * What the log thread and the leader of a round both do is here once: a record is finished by whoever writes it, and
 * counts as written, and a flush as done, through the same functions, so that a failure is the same for all.
 */
#include <assert.h>
#include <string.h>

#include "log.h"

/* --- failure (I10) --- */

/* Something happened that the leader may wait for. [lock] */
static void tell_leader(struct lc_log *l)
{
	if (l->leader_waits)
		lc_cond_signal(&l->led);
}

/* Whoever waits for what is durable now, or if ERR for anything, has waited enough. [lock] */
static void finish_commits(struct lc_log *l, int err)
{
	struct lc_commit **at = &l->commits;
	bool any[2] = {false, false};

	while (*at) {
		struct lc_commit *c = *at;

		if (err || (c->seq <= l->durable_seq && c->flush <= l->flushes_started) ||
		    LC_MUTANT(round_serves_latecomers)) {
			*at = c->next;
			c->result = err;
			c->done = true;
			any[c->round % 2] |= c != l->leader;
		} else {
			at = &c->next;
		}
	}
	for (unsigned i = 0; i < 2; i++)
		if (any[i])
			lc_cond_broadcast(&l->served[i]);
	tell_leader(l);
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
	lc_log_wake(l); /* to reissue, and to tell the administrator */
}

static void healed(struct lc_log *l)
{
	l->failed = false;
	l->news_healed = true;
	lc_log_space(l);
	lc_log_progress(l);
}

/* --- records --- */

struct lc_record *lc_log_next_record(struct lc_log *l)
{
	struct lc_record *r = lc_log_record(l, l->sent_seq + 1);

	if (l->broken || l->sent_seq + 1 >= l->next_seq || r->state != LC_RECORD_SEALED)
		return NULL;
	return r->writers && !LC_MUTANT(seal_with_writers) ? NULL : r;
}

/* The summary of the segment whose last record is R, into the last block of its buffer. */
static void write_summary(struct lc_log *l, const struct lc_record *r, const struct lc_buffer *b,
			  struct lc_slot *entries)
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
		memmove(&entries[nr], &entries[position + 1], b->nr_blocks[i] * sizeof *entries);
		nr += b->nr_blocks[i];
		position += 1 + b->nr_blocks[i];
	}
	assert(position == r->end);
	s.nr_entries = nr;
	/* Records are written up to here: what an earlier use of the buffer left between is no record. */
	memset(b->data + (size_t)r->end * LC_BLOCK, 0, (size_t)(blocks - 1 - r->end) * LC_BLOCK);
	lc_summary_encode(b->data + (size_t)(blocks - 1) * LC_BLOCK, &s, entries);
}

/* Its slots' keys do not change any more, apart from the flags; its data is read by nobody but readers. */
void lc_log_finish_record(struct lc_log *l, struct lc_record *r, struct lc_slot *scratch)
{
	struct lc_core *c = l->core;
	struct lc_segment *seg = lc_ring_segment(&c->ring, r->segment_id);
	struct lc_buffer *b = &l->buffers[seg->buffer];
	u32 first = lc_ring_first_slot(&c->ring, r->segment_id);
	struct lc_slot *slots = lc_index_slot(&c->ring.index, first);
	bool summary = r->last && r->start > 0;
	u32 from = summary ? 0 : r->start + 1;
	u32 end = summary ? c->ring.segment_blocks : r->end;
	struct lc_record *next;
	struct lc_record_info info = {
		.segment_id = r->segment_id,
		.seq = r->seq,
		.epoch = l->epoch,
		.first = l->first,
		.durable_seq = l->durable_seq,
		.position = r->start,
		.nr_entries = r->end - r->start - 1,
	};

	assert(r == lc_log_next_record(l));
	r->state = LC_RECORD_WRITING;
	r->io = (struct lc_io){
		.op = LC_IO_WRITE,
		.buf = b->data + (size_t)r->start * LC_BLOCK,
		.len_bytes = (end - r->start) * LC_BLOCK,
		.offset_bytes = lc_slot_offset_bytes(first + r->start),
		.owner = r,
	};
	l->in_flight++;
	l->sent_seq = r->seq;
	l->sent_ns = lc_now_ns();
	c->stats.records++;
	c->stats.log_bytes += r->io.len_bytes;
	memcpy(&scratch[from], &slots[from], (r->end - from) * sizeof *slots);
	next = lc_log_next_record(l);
	if (next)
		lc_log_ready(l, next); /* it had to wait for its turn */
	lc_log_unlock(l);

	memcpy(info.uuid, c->meta.uuid, LC_UUID_BYTES);
	lc_record_encode(r->io.buf, &info, &scratch[r->start + 1]);
	if (summary)
		write_summary(l, r, b, scratch);
}

void lc_log_record_written(struct lc_log *l, struct lc_record *r, int result)
{
	assert(r->state == LC_RECORD_WRITING && l->in_flight > 0);
	l->in_flight--;
	r->state = LC_RECORD_WRITTEN;
	if (result)
		fail(l, result, "write of the log");
	while (!l->broken && l->written_seq < l->sent_seq &&
	       lc_log_record(l, l->written_seq + 1)->state == LC_RECORD_WRITTEN)
		l->written_seq++;
	if (l->broken)
		lc_log_wake(l); /* it waits for the last I/O before it reissues */
	tell_leader(l);
}

void lc_log_ready(struct lc_log *l, const struct lc_record *r)
{
	if (l->leader_waits && r->seq == l->leader_seq)
		tell_leader(l);
	else
		lc_log_wake(l);
}

/* --- flushes --- */

void lc_log_begin_flush(struct lc_log *l)
{
	assert(!l->flushing && !l->broken);
	l->flushing = true;
	l->flush_ns = lc_now_ns();
	l->flushes_started++;
	l->flush_covers_seq = LC_MUTANT(flush_covers_sent) ?
				      l->sent_seq :
				      l->written_seq; /* I2: completed before this flush is submitted */
	if (LC_MUTANT(ack_before_flush)) {
		lc_log_set_durable(l, l->flush_covers_seq);
		finish_commits(l, 0);
	}
}

/*
 * Would the next record get older than flush-interval unseen? It was opened while the log thread waited for the end of
 * this flush, and not for a time. [lock]
 */
static bool unwatched(const struct lc_log *l)
{
	return l->core->settings.flush_interval_ms && l->sleep_until_ns == LC_FOREVER &&
	       l->durable_seq + 1 < l->next_seq;
}

void lc_log_end_flush(struct lc_log *l, int result)
{
	assert(l->flushing);
	l->flushing = false;
	if (result) {
		fail(l, result, "flush");
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
	if (l->broken || l->failed || l->written_seq > l->durable_seq || unwatched(l))
		lc_log_wake(l); /* it could not flush, or reissue, meanwhile */
}

/* --- rounds of group commit --- */

/*
 * Wake the log thread, if it was to be woken: before a wait, which releases the mutex without doing that. True: the
 * mutex was released meanwhile. [lock]
 */
static bool kick_now(struct lc_log *l)
{
	if (!l->kick)
		return false;
	lc_log_unlock(l);
	lc_mutex_lock(&l->core->lock);
	return true;
}

/* Wait until something happens. [lock; released meanwhile] */
static void leader_wait(struct lc_log *l, u64 deadline_ns)
{
	if (kick_now(l))
		return; /* perhaps it has happened by now */
	l->leader_waits = true;
	lc_cond_wait(&l->led, &l->core->lock, deadline_ns);
	l->leader_waits = false;
}

/* Wait for company. [lock; released meanwhile] */
static void wait_for_others(struct lc_log *l)
{
	u64 due_ns = lc_now_ns() + l->core->settings.flush_deadline_ms * LC_NS_PER_MS;

	while (!l->hurry && !l->leader->done && lc_now_ns() < due_ns)
		leader_wait(l, due_ns);
}

/* What remains to be written for this round. [lock; released meanwhile] */
static void lead_writes(struct lc_log *l, u64 seq)
{
	struct lc_record *r = lc_log_next_record(l);
	int err;

	/* More than one: the log thread has a queue. */
	if (!r || r->seq != seq) {
		if (l->sent_seq + 1 < seq)
			lc_log_wake(l);
		leader_wait(l, LC_FOREVER);
		return;
	}
	lc_log_finish_record(l, r, l->leader_entries);
	err = lc_store_write(l->core->ssd, r->io.buf, r->io.len_bytes, r->io.offset_bytes);
	lc_mutex_lock(&l->core->lock);
	lc_log_record_written(l, r, err);
}

/* [lock; released meanwhile] */
static void lead_flush(struct lc_log *l)
{
	int err;

	if (l->flushing) { /* it was submitted too early for us, or serves us, too */
		leader_wait(l, LC_FOREVER);
		return;
	}
	lc_log_begin_flush(l);
	lc_mutex_unlock(&l->core->lock);
	err = LC_MUTANT(leader_skips_flush) ? 0 : lc_store_flush(l->core->ssd);
	lc_mutex_lock(&l->core->lock);
	lc_log_end_flush(l, err);
}

/* Nobody leads, but somebody waits: one of them has to. [lock] */
static void pass_on(struct lc_log *l)
{
	if (!l->leader && l->commits && !LC_MUTANT(nobody_leads_next))
		lc_cond_signal(&l->served[(l->round + 1) % 2]);
}

/* Is all that was to be done for a round done? [lock] */
static bool is_served(const struct lc_log *l, u64 seq, u64 flush)
{
	return l->durable_seq >= seq && l->flushes_started - l->flushing >= flush;
}

/* Lead the round that is to serve C, and everybody else who waits by now. [lock; released meanwhile] */
static void lead(struct lc_log *l, struct lc_commit *c)
{
	u64 seq = 0, flush = 0;

	l->leader = c;
	l->round++;
	assert(c->round == l->round);
	if (l->core->settings.flush_deadline_ms && !c->flush)
		wait_for_others(l);
	l->hurry = false;
	for (const struct lc_commit *w = l->commits; w; w = w->next) {
		seq = w->seq > seq ? w->seq : seq;
		flush = w->flush > flush ? w->flush : flush;
	}
	if (!l->failed && l->open && lc_log_newest_seq(l) <= seq)
		lc_log_seal(l);
	/* Or until it failed: then all who waited know, C among them. */
	l->leader_seq = seq;
	while (!l->failed && !is_served(l, seq, flush)) {
		if (l->written_seq < seq)
			lead_writes(l, seq);
		else
			lead_flush(l);
	}
	assert(c->done);
	l->leader = NULL;
	l->leader_seq = 0;
}

/* [lock; released meanwhile] */
static int wait_commit(struct lc_log *l, struct lc_commit *c)
{
	c->round = l->round + 1;
	c->next = l->commits;
	l->commits = c;
	if (c->flush) {
		l->hurry = true;
		tell_leader(l);
	}
	kick_now(l);
	while (!c->done && l->leader)
		lc_cond_wait(&l->served[c->round % 2], &l->core->lock, LC_FOREVER);
	if (!c->done)
		lead(l, c);
	pass_on(l);
	kick_now(l); /* the caller may be about to wait, too */
	return c->result;
}

int lc_log_commit(struct lc_log *l, u64 seq)
{
	struct lc_commit commit = {.seq = seq};

	assert(seq < l->next_seq);
	if (seq <= l->durable_seq || LC_MUTANT(no_flush))
		return 0; /* I2: costs no I/O */
	if (l->failed)
		return -EIO;
	if (LC_MUTANT(flush_without_open) && l->open && lc_log_newest_seq(l) <= seq)
		return 0;
	return wait_commit(l, &commit);
}

int lc_log_flush_device(void *log)
{
	struct lc_log *l = log;
	struct lc_commit commit = {0};
	int err = -EIO;

	lc_mutex_lock(&l->core->lock);
	if (!l->failed && l->failures == l->page_failures) {
		commit.flush = l->flushes_started + 1;
		err = wait_commit(l, &commit);
	}
	lc_log_unlock(l);
	return err;
}

int lc_log_settle(void *log)
{
	struct lc_log *l = log;
	int err;

	lc_mutex_lock(&l->core->lock);
	l->page_failures = l->failures;
	err = LC_MUTANT(superseded_not_durable) ? 0 : lc_log_commit(l, lc_log_newest_seq(l));
	lc_log_unlock(l);
	return err;
}
