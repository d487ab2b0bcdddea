/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.c - the clients' side of the log: reserve, publish, pin, wait. log_thread.c is the other side.
 */
#include "log.h"

#include <assert.h>
#include <string.h>

/* --- begin and end --- */

static int alloc_buffers(struct lc_log *l)
{
	struct lc_core *c = l->core;
	u32 nr = c->settings.nr_buffers, blocks = c->ring.segment_blocks;
	size_t bytes = (size_t)blocks * LC_BLOCK;

	l->buffers = lc_alloc(nr * sizeof *l->buffers);
	l->memory = lc_alloc(nr * bytes);
	l->entries = lc_alloc(blocks * sizeof *l->entries);
	l->leader_entries = lc_alloc(blocks * sizeof *l->entries);
	if (!l->buffers || !l->memory || !l->entries || !l->leader_entries)
		return -ENOMEM;
	for (u32 i = 0; i < nr; i++) {
		l->buffers[i].data = l->memory + i * bytes;
		l->buffers[i].copying = lc_alloc(blocks * sizeof(u16));
		if (!l->buffers[i].copying)
			return -ENOMEM;
	}
	return 0;
}

int lc_log_init(struct lc_log *l, struct lc_core *core, u64 next_seq)
{
	int err;

	*l = (struct lc_log){
		.core = core,
		.next_seq = next_seq,
		.sent_seq = next_seq - 1,
		.written_seq = next_seq - 1,
		.durable_seq = next_seq - 1,
		.durable_id = core->ring.head_id,
		.epoch = core->meta.sb.epoch,
		.first = core->meta.sb.first,
	};
	lc_cond_init(&l->led);
	lc_cond_init(&l->served[0]);
	lc_cond_init(&l->served[1]);
	lc_cond_init(&l->published);
	lc_cond_init(&l->space);
	lc_cond_init(&l->progress);
	err = alloc_buffers(l);
	if (err)
		lc_log_destroy(l);
	return err;
}

void lc_log_destroy(struct lc_log *l)
{
	u32 nr, blocks;

	if (!l->core)
		return;
	nr = l->core->settings.nr_buffers;
	blocks = l->core->ring.segment_blocks;
	for (u32 i = 0; l->buffers && i < nr; i++)
		lc_free(l->buffers[i].copying, blocks * sizeof(u16));
	lc_free(l->buffers, nr * sizeof *l->buffers);
	lc_free(l->memory, (size_t)nr * blocks * LC_BLOCK);
	lc_free(l->entries, blocks * sizeof *l->entries);
	lc_free(l->leader_entries, blocks * sizeof *l->entries);
	lc_cond_destroy(&l->led);
	lc_cond_destroy(&l->served[0]);
	lc_cond_destroy(&l->served[1]);
	lc_cond_destroy(&l->published);
	lc_cond_destroy(&l->space);
	lc_cond_destroy(&l->progress);
	*l = (struct lc_log){0};
}

int lc_log_start(struct lc_log *l, struct lc_error *err)
{
	int ret = lc_thread_start(&l->thread, "lc-log", lc_log_main, l);

	if (ret)
		return lc_fail(err, ret, "%s: cannot start the log thread: %s", l->core->ssd->name,
			       strerror(-ret));
	lc_mutex_lock(&l->core->lock);
	while (!l->running)
		lc_cond_wait(&l->progress, &l->core->lock, LC_FOREVER);
	ret = l->start_result;
	lc_mutex_unlock(&l->core->lock);
	if (ret) {
		lc_thread_join(&l->thread);
		lc_fail(err, ret, "%s", l->start_error.text);
	}
	l->started = !ret;
	return ret;
}

int lc_log_stop(struct lc_log *l)
{
	struct lc_core *c = l->core;
	bool told = false;
	u64 deadline_ns;
	u32 patience_ms;
	int err;

	if (!l->started)
		return 0;
	lc_mutex_lock(&c->lock);
	patience_ms = c->settings.stall_timeout_ms;
	deadline_ns = lc_now_ns() + patience_ms * LC_NS_PER_MS;
	/* A log that has failed gets its chance to be reissued. */
	while ((err = lc_log_commit(l, lc_log_newest_seq(l))) && lc_now_ns() < deadline_ns) {
		if (!told) {
			lc_mutex_unlock(&c->lock);
			lc_log(LC_LOG_WARNING,
			       "%s: the end of the log cannot be written: %s; trying again for up to %u s "
			       "(stall-timeout)",
			       c->ssd->name, strerror(-err), patience_ms / 1000);
			lc_mutex_lock(&c->lock);
			told = true;
		}
		lc_cond_wait(&l->progress, &c->lock,
			     lc_now_ns() + c->settings.retry_ms * LC_NS_PER_MS);
	}
	l->stop = true;
	lc_log_wake(l);
	lc_log_unlock(l);
	lc_thread_join(&l->thread);
	l->started = false;
	return err;
}

void lc_log_wake(struct lc_log *l)
{
	if (l->sleeping) {
		l->sleeping = false;
		l->kick = true;
	}
}

void lc_log_unlock(struct lc_log *l)
{
	bool kick = l->kick;

	l->kick = false;
	l->kickers += kick;
	lc_mutex_unlock(&l->core->lock);
	if (!kick)
		return;
	lc_queue_kick(l->queue);
	lc_mutex_lock(&l->core->lock);
	if (!--l->kickers && l->stop)
		lc_cond_broadcast(&l->progress);
	lc_mutex_unlock(&l->core->lock);
}

/* --- buffers --- */

static struct lc_buffer *buffer_of(const struct lc_log *l, const struct lc_segment *seg)
{
	return seg->buffer < 0 ? NULL : &l->buffers[seg->buffer];
}

/*
 * A buffer for a new segment: an unused one, or that of the oldest segment which needs it no more. I10: a
 * buffer is given away only when a successful flush covers all of it.
 */
static int take_buffer(struct lc_log *l)
{
	struct lc_ring *ring = &l->core->ring;
	int best = -1;

	for (u32 i = 0; i < l->core->settings.nr_buffers; i++) {
		struct lc_buffer *b = &l->buffers[i];
		struct lc_segment *seg;

		if (!b->segment_id)
			return i;
		seg = lc_ring_segment(ring, b->segment_id);
		assert(seg->id == b->segment_id && seg->buffer == (int)i);
		if (seg->state == LC_SEGMENT_CLOSED &&
		    (seg->last_seq <= l->durable_seq || LC_MUTANT(free_unflushed_buffer)) &&
		    !b->readers && (best < 0 || b->segment_id < l->buffers[best].segment_id))
			best = i;
	}
	if (best >= 0)
		lc_ring_segment(ring, l->buffers[best].segment_id)->buffer = -1;
	return best;
}

static bool open_segment(struct lc_log *l)
{
	struct lc_ring *ring = &l->core->ring;
	u64 id = ring->head_id + 1;
	struct lc_segment *seg = lc_ring_segment(ring, id);
	struct lc_buffer *b;
	int i;

	if (!lc_ring_may_enter(ring, id)) /* I4 */
		return false;
	i = take_buffer(l);
	if (i < 0)
		return false;
	assert(seg->state == LC_SEGMENT_FREE && !seg->live && !seg->dirty && !seg->readers);
	lc_ring_set_segment(ring, id,
			    (struct lc_segment){.id = id, .buffer = i, .state = LC_SEGMENT_OPEN});
	b = &l->buffers[i];
	b->segment_id = id;
	b->first_seq = l->next_seq;
	b->nr_records = 0;
	ring->head_id = id;
	l->fill = 0;
	l->core->stats.segments++;
	return true;
}

/* --- records --- */

static struct lc_record *open_record(struct lc_log *l)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_record *r = lc_log_record(l, l->next_seq);

	if (l->next_seq > l->durable_seq + LC_RECORDS_MAX - 1)
		return NULL;
	if (!ring->head_id || lc_ring_segment(ring, ring->head_id)->state != LC_SEGMENT_OPEN)
		if (!open_segment(l))
			return NULL;
	*r = (struct lc_record){
		.seq = l->next_seq++,
		.segment_id = ring->head_id,
		.opened_ns = lc_now_ns(),
		.start = l->fill,
		.end = l->fill + 1,
		/* The last block is for the summary, unless one record takes the whole segment. */
		.limit = ring->segment_blocks - (l->fill ? 1 : 0),
		.state = LC_RECORD_OPEN,
	};
	assert(r->end < r->limit);
	l->open = true;
	/* It must not get older than flush-interval unseen. */
	if (l->core->settings.flush_interval_ms && l->sleep_until_ns == LC_FOREVER)
		lc_log_wake(l);
	return r;
}

static struct lc_record *the_open_record(struct lc_log *l)
{
	return l->open ? lc_log_record(l, l->next_seq - 1) : NULL;
}

static void close_segment(struct lc_log *l, struct lc_segment *seg)
{
	seg->state = LC_SEGMENT_CLOSED;
	lc_log_set_durable(l, l->durable_seq); /* perhaps all of it is */
}

void lc_log_seal(struct lc_log *l)
{
	struct lc_record *r = the_open_record(l);
	struct lc_segment *seg = lc_ring_segment(&l->core->ring, r->segment_id);
	struct lc_buffer *b = buffer_of(l, seg);
	u32 blocks = l->core->ring.segment_blocks;

	assert(r->state == LC_RECORD_OPEN && r->end > r->start + 1);
	r->state = LC_RECORD_SEALED;
	l->open = false;
	l->fill = r->end;
	seg->last_seq = r->seq;
	b->nr_blocks[b->nr_records++] = r->end - r->start - 1;
	/* Another record takes a header, a block of data and, in the end, the summary. */
	if (r->end + 3u > blocks) {
		r->last = true;
		close_segment(l, seg);
	}
}

/* Seal the open record for the log thread to write. [lock] */
static void seal_for_thread(struct lc_log *l)
{
	lc_log_seal(l);
	lc_log_wake(l);
}

void lc_log_close_segment(struct lc_log *l)
{
	struct lc_ring *ring = &l->core->ring;

	if (l->open)
		seal_for_thread(l);
	if (ring->head_id && lc_ring_segment(ring, ring->head_id)->state == LC_SEGMENT_OPEN)
		close_segment(l, lc_ring_segment(ring, ring->head_id));
}

void lc_log_set_durable(struct lc_log *l, u64 seq)
{
	struct lc_ring *ring = &l->core->ring;
	u64 before = l->durable_id;

	assert(seq >= l->durable_seq && seq <= l->written_seq);
	l->durable_seq = seq;
	while (l->durable_id < ring->head_id) {
		struct lc_segment *seg = lc_ring_segment(ring, l->durable_id + 1);

		if (seg->state != LC_SEGMENT_CLOSED || seg->last_seq > seq)
			break;
		l->durable_id++;
	}
	if (l->durable_id != before)
		lc_log_progress(l);
}

/* --- writing --- */

u32 lc_log_reserve(struct lc_log *l, u8 volume, u64 block, u8 mask, u32 nr, struct lc_chunk *chunk)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_record *r = the_open_record(l);

	if (!r)
		r = open_record(l);
	if (!r)
		return 0;
	if (nr > (u32)(r->limit - r->end))
		nr = r->limit - r->end;
	*chunk = (struct lc_chunk){
		.seq = r->seq,
		.slot = lc_ring_first_slot(ring, r->segment_id) + r->end,
		.nr = nr,
	};
	for (u32 i = 0; i < nr; i++) {
		struct lc_slot *s = lc_index_slot(&ring->index, chunk->slot + i);

		assert(!(s->key & LC_SLOT_LIVE));
		s->key = lc_key(volume, block + i, mask, LC_ENTRY_DATA);
	}
	r->end += nr;
	r->writers++;
	if (r->end == r->limit)
		seal_for_thread(l);
	return nr;
}

bool lc_log_reserve_zero(struct lc_log *l, u8 volume, u64 block, u32 nr, bool trim,
			 struct lc_chunk *chunk)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_slot *s;

	assert(nr > 0 && nr <= LC_ZERO_BLOCKS_MAX);
	if (lc_ring_zeros_full(ring) || !lc_log_reserve(l, volume, block, LC_MASK_FULL, 1, chunk))
		return false;
	s = lc_index_slot(&ring->index, chunk->slot);
	s->key = lc_key(volume, block, LC_MASK_FULL, trim ? LC_ENTRY_TRIM : LC_ENTRY_ZERO);
	s->crc = nr;
	lc_zeros_claim(ring, chunk->slot);
	return true;
}

u32 lc_log_find_open(struct lc_log *l, u8 volume, u64 block)
{
	const struct lc_ring *ring = &l->core->ring;
	const struct lc_record *r = the_open_record(l);
	u32 first = r ? lc_ring_first_slot(ring, r->segment_id) : 0;

	return lc_index_find_in(&ring->index, volume, block, r ? first + r->start + 1 : 0,
				r ? first + r->end : 0);
}

bool lc_log_reuse(struct lc_log *l, u32 slot, struct lc_chunk *chunk)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_record *r = the_open_record(l);
	u16 *copying =
		&buffer_of(l, lc_ring_segment_of(ring, slot))->copying[lc_ring_position(ring, slot)];

	assert(r && r->segment_id == lc_ring_segment_of(ring, slot)->id &&
	       lc_ring_position(ring, slot) > r->start && lc_ring_position(ring, slot) < r->end);
	if (*copying && !LC_MUTANT(overwrite_with_reader))
		return false;
	*copying = LC_COPYING_WRITER;
	r->writers++;
	*chunk = (struct lc_chunk){.seq = r->seq, .slot = slot, .nr = 1};
	return true;
}

u8 *lc_log_data(const struct lc_log *l, u32 slot)
{
	struct lc_ring *ring = &l->core->ring;

	return buffer_of(l, lc_ring_segment_of(ring, slot))->data +
	       (size_t)lc_ring_position(ring, slot) * LC_BLOCK;
}

void lc_log_published(struct lc_log *l, const struct lc_chunk *chunk)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_record *r = lc_log_record(l, chunk->seq);
	struct lc_buffer *b = buffer_of(l, lc_ring_segment_of(ring, chunk->slot));

	assert(r->seq == chunk->seq && r->writers > 0 && r->state <= LC_RECORD_SEALED);
	for (u32 i = 0; i < chunk->nr; i++)
		b->copying[lc_ring_position(ring, chunk->slot + i)] &= ~LC_COPYING_WRITER;
	if (--r->writers == 0 && r->state == LC_RECORD_SEALED)
		lc_log_ready(l, r);
	if (l->published_waiters)
		lc_cond_broadcast(&l->published);
}

/* Somebody waits for entries that zero: write-back, and the tail, take closed segments alone. [lock] */
static void close_zeros(struct lc_log *l)
{
	const struct lc_ring *ring = &l->core->ring;

	if (ring->head_id && lc_ring_segment(ring, ring->head_id)->zero_entries)
		lc_log_close_segment(l);
}

int lc_log_wait_space(struct lc_log *l, bool zero, u64 since_ns)
{
	struct lc_core *c = l->core;
	bool full = zero && lc_ring_zeros_full(&c->ring);
	u64 seen = l->space_events, now_ns = lc_now_ns(), deadline_ns = LC_FOREVER;

	if (full)
		close_zeros(l);
	if (l->failed)
		return -EIO; /* I10 */
	if (c->settings.abandoned) {
		/* Look at that time, and each second after it. */
		deadline_ns = since_ns + c->settings.client_timeout_ms * LC_NS_PER_MS;
		if (deadline_ns <= now_ns)
			deadline_ns = now_ns + LC_NS_PER_S;
	}
	if (c->stalled_since_ns && (full || lc_ring_starved(&c->ring))) {
		u64 end_ns = c->stalled_since_ns + c->settings.stall_timeout_ms * LC_NS_PER_MS;

		if (now_ns >= end_ns)
			return c->stall_error;
		if (end_ns < deadline_ns)
			deadline_ns = end_ns;
	}
	l->space_waiters++;
	lc_log_progress(l);
	lc_log_wake(l);
	lc_log_unlock(l);
	lc_mutex_lock(&c->lock);
	while (l->space_events == seen)
		if (lc_cond_wait(&l->space, &c->lock, deadline_ns))
			break;
	l->space_waiters--;
	return lc_core_still_wanted(c, since_ns);
}

void lc_log_space(struct lc_log *l)
{
	l->space_events++;
	if (l->space_waiters)
		lc_cond_broadcast(&l->space);
}

void lc_log_progress(struct lc_log *l)
{
	l->progress_events++;
	lc_cond_broadcast(&l->progress);
}

int lc_log_wait_zeroed(struct lc_log *l, u64 deadline_ns)
{
	u64 seen = l->space_events;
	int ret = 0;

	close_zeros(l);
	l->space_waiters++;
	l->zero_waiters++;
	lc_log_progress(l);
	lc_log_wake(l);
	lc_log_unlock(l);
	lc_mutex_lock(&l->core->lock);
	while (!ret && l->space_events == seen)
		ret = lc_cond_wait(&l->space, &l->core->lock, deadline_ns);
	l->zero_waiters--;
	l->space_waiters--;
	return ret;
}

void lc_log_wait_published(struct lc_log *l)
{
	l->published_waiters++;
	lc_cond_wait(&l->published, &l->core->lock, LC_FOREVER);
	l->published_waiters--;
}

/* --- reading --- */

enum lc_pin lc_log_pin(struct lc_log *l, u32 slot, const u8 **data)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_segment *seg = lc_ring_segment_of(ring, slot);
	struct lc_buffer *b = buffer_of(l, seg);
	u16 *copying;

	if (!b) {
		seg->readers++;
		return LC_PIN_SSD;
	}
	copying = &b->copying[lc_ring_position(ring, slot)];
	if (*copying & LC_COPYING_WRITER && !LC_MUTANT(read_while_overwritten))
		return LC_PIN_BUSY; /* I6 */
	++*copying;
	b->readers++;
	*data = lc_log_data(l, slot);
	return LC_PIN_BUFFER;
}

void lc_log_unpin(struct lc_log *l, u32 slot, enum lc_pin pin)
{
	struct lc_ring *ring = &l->core->ring;
	struct lc_segment *seg = lc_ring_segment_of(ring, slot);
	struct lc_buffer *b = buffer_of(l, seg);

	if (pin == LC_PIN_SSD) {
		assert(seg->readers > 0);
		seg->readers--;
	} else {
		assert(b && b->readers > 0);
		b->copying[lc_ring_position(ring, slot)]--;
		b->readers--;
		if (!b->readers && l->space_waiters)
			lc_log_space(l);
	}
	if (l->reclaim_waits)
		lc_log_wake(l);
}
