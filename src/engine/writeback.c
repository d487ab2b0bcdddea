/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.c - when to sweep, and moving the tail. sweep.c does the sweeping.
 */
#include "writeback.h"

#include <assert.h>
#include <string.h>

/* Segments looked at in one critical section. */
#define SLICE 512u

/* --- the tail (I3) --- */

/*
 * The samples that the turns of a volume have taken anew, and which ones they are unsure of: durable before the tail moves. Until
 * then an entry above the tail explains them (bind.c).
 */
static int write_fingerprint(struct lc_writeback *w, struct lc_volume *v)
{
	struct lc_core *c = w->core;
	bool changed;
	int err;

	lc_mutex_lock(&c->lock);
	changed = v->sampled;
	v->sampled = false; /* what is taken from now on comes next time */
	lc_mutex_unlock(&c->lock);
	if (!changed)
		return 0;
	err = lc_meta_write(&c->meta, &c->lock, lc_volume_page(v->id), lc_log_flusher(w->log));
	if (!err)
		return 0;
	lc_mutex_lock(&c->lock);
	v->sampled = true;
	lc_mutex_unlock(&c->lock);
	return err;
}

/* What the superblock's new tail relies on: durable before it. */
static int write_companions(struct lc_writeback *w)
{
	struct lc_core *c = w->core;
	int err;

	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		err = w->volumes[id] ? write_fingerprint(w, w->volumes[id]) : 0;
		if (err)
			return err;
	}
	for (u32 i = 0; i < LC_NR_BAD_PAGES; i++) {
		bool changed;

		lc_mutex_lock(&c->lock);
		changed = c->meta.bad.changed[i];
		lc_mutex_unlock(&c->lock);
		if (!changed)
			continue;
		err = lc_meta_write(&c->meta, &c->lock, LC_PAGE_BAD + i, lc_log_flusher(w->log));
		if (err)
			return err;
	}
	return 0;
}

/* Write the superblock, with the newest durable seq. */
static int write_superblock(struct lc_writeback *w)
{
	struct lc_core *c = w->core;

	w->superblock_ns = lc_now_ns();
	lc_mutex_lock(&c->lock);
	c->meta.sb.durable_seq = w->log->durable_seq;
	lc_mutex_unlock(&c->lock);
	/* I7: what superseded blocks behind the tail is durable before they may go: it settles the log. */
	return lc_meta_write(&c->meta, &c->lock, LC_PAGE_SUPERBLOCK, lc_log_flusher(w->log));
}

static int advance_tail(struct lc_writeback *w)
{
	struct lc_core *c = w->core;
	struct lc_ring *ring = &c->ring;
	u64 tail;
	int err;

	lc_mutex_lock(&c->lock);
	tail = ring->tail_id;
	while (tail < w->log->durable_id && lc_ring_written_back(ring, tail + 1))
		if (++tail % SLICE == 0) {
			lc_mutex_unlock(&c->lock);
			lc_mutex_lock(&c->lock);
		}
	lc_mutex_unlock(&c->lock);
	if (tail == ring->tail_id) /* only this thread moves it */
		return 0;
	err = write_companions(w);
	if (err)
		return err;

	lc_mutex_lock(&c->lock);
	if (LC_MUTANT(reuse_before_superblock))
		lc_ring_set_tail(ring, tail);
	c->meta.sb.tail_id = tail;
	c->meta.sb.tail_seq = lc_ring_segment(ring, tail)->last_seq + 1;
	c->meta.sb.durable_seq = w->log->durable_seq; /* somebody else may write this page before we do */
	lc_mutex_unlock(&c->lock);
	err = write_superblock(w);
	if (err)
		return err;

	lc_mutex_lock(&c->lock);
	while (ring->tail_id + SLICE < tail) { /* there may be a million */
		lc_ring_set_tail(ring, ring->tail_id + SLICE);
		lc_mutex_unlock(&c->lock);
		lc_mutex_lock(&c->lock);
	}
	lc_ring_set_tail(ring, tail);
	lc_pace_room(c);
	lc_log_space(w->log);
	lc_log_wake(w->log); /* to reclaim */
	lc_log_unlock(w->log);
	return 0;
}

/* --- when --- */

static bool idle(struct lc_writeback *w, u64 now_ns)
{
	struct lc_core *c = w->core;

	if (w->seen_ops != c->client_ops || !w->quiet_ns) {
		w->seen_ops = c->client_ops;
		w->quiet_ns = now_ns;
	}
	return c->settings.idle_ms && now_ns - w->quiet_ns >= c->settings.idle_ms * LC_NS_PER_MS;
}

/* Up to which segment there is a reason to write back now; the tail itself if there is none. [lock] */
static u64 target(struct lc_writeback *w)
{
	struct lc_core *c = w->core;
	const struct lc_ring *ring = &c->ring;
	u64 durable = w->log->durable_id, tail = ring->tail_id;
	bool quiet = idle(w, lc_now_ns());
	bool wanted = lc_pace_pressed(c) || lc_ring_zeros_full(ring);
	bool much = (ring->head_id - tail) * 100 > (u64)c->settings.dirty_low_percent * ring->nr;

	if (durable <= tail)
		return tail;
	/*
	 * Somebody drains; clients wait for the tail, or for zeros; or something has failed, and only another attempt shows
	 * that it works again.
	 */
	if (w->drain_id > tail || w->log->zero_waiters || c->stalled_since_ns || wanted ||
	    (c->settings.writeback && (quiet || much)))
		return durable;
	return tail;
}

/*
 * A client's flush from before the cache came (direct.c) is still under way: it would be told of what the store loses from now on,
 * instead of ours. It wakes us when it has ended. [lock]
 */
static bool is_being_flushed(const struct lc_volume *v)
{
	return v->flushes_ended < v->flushes_begun && !LC_MUTANT(sweep_during_a_flush);
}

/*
 * The next volume that has something to write back, and is not left alone because it fails or is being flushed. *NR: so many have;
 * *DUE: one that fails waits behind it for another attempt. [lock]
 */
static struct lc_volume *next_volume(struct lc_writeback *w, u32 *nr, bool *due)
{
	const struct lc_ring *ring = &w->core->ring;
	struct lc_volume *next = NULL;
	bool flushed = false;
	u64 now_ns = lc_now_ns();

	*nr = 0;
	*due = false;
	for (u32 i = 0; i < LC_VOLUMES_MAX; i++) {
		u32 id = (w->turn + i) % LC_VOLUMES_MAX + 1;
		struct lc_volume *v = w->volumes[id];

		if (!v || (!ring->dirty_of[id] && !ring->zeros.blocks_of[id]) ||
		    (v->failing && now_ns < v->retry_ns))
			continue;
		if (is_being_flushed(v)) {
			flushed = true;
			continue;
		}
		++*nr;
		if (next)
			*due |= v->failing;
		else
			next = v;
	}
	if (w->flushed && !flushed)
		w->fruitless = 0; /* the turns without it say nothing of it */
	w->flushed = flushed;
	if (next)
		w->turn = next->id;
	return next;
}

/* How long nothing is tried after failures: ever longer. [lock] */
static u64 pause_ns(const struct lc_writeback *w)
{
	u32 growth = w->failures < 5 ? 1u << w->failures >> 1 : LC_RETRY_GROWTH;

	return (u64)w->core->settings.retry_ms * growth * LC_NS_PER_MS;
}

/* Nothing can be done before the next attempt: who drains shall know why. [lock] */
static void give_up(struct lc_writeback *w, int err)
{
	w->errors++;
	w->last_error = err;
	w->turn_error = 0;
	lc_cond_broadcast(&w->done);
}

/* Neither a turn's volume nor any other can be written back: the SSD fails, or a list is full. [lock] */
static void blocked(struct lc_writeback *w, int err)
{
	struct lc_core *c = w->core;

	w->failures++;
	w->retry_ns = lc_now_ns() + pause_ns(w);
	if (!c->stalled_since_ns) {
		c->stalled_since_ns = lc_now_ns();
		c->stall_error = err;
	}
	give_up(w, err);
}

/*
 * A backing store fails. Have the others come first, or for so long that nobody is to wait for them? They may have something dirty
 * for ever: what is in the open segment, or what clients write. [lock]
 */
static bool others_are_done(const struct lc_writeback *w, const struct lc_volume *v, u32 nr)
{
	const struct lc_core *c = w->core;

	return (!w->flushed && (!v || w->fruitless > nr)) ||
	       lc_now_ns() >= c->stalled_since_ns + c->settings.stall_timeout_ms * LC_NS_PER_MS;
}

/*
 * Does nothing that has failed hold the tail any more, be it that it works again or that it was superseded? Then the
 * failure is over: there is no reason for another attempt, which would show that, and writers have to wait for nothing. [lock]
 */
static void end_failure(struct lc_writeback *w)
{
	if (w->core->ring.tail_id < w->log->durable_id || LC_MUTANT(failure_outlasts_its_cause))
		return;
	w->core->stalled_since_ns = 0;
	w->turn_error = 0;
}

/* A turn, if there is a reason for one; and the tail. False: nothing can be done now. [lock; released meanwhile] */
static bool write_back(struct lc_writeback *w)
{
	struct lc_core *c = w->core;
	u64 tail = c->ring.tail_id, upto = target(w), written = 0, moved;
	struct lc_volume *v;
	u32 nr;
	bool due, done;
	int err = 0, tail_err;

	if (upto <= tail || lc_now_ns() < w->retry_ns)
		return false;
	v = next_volume(w, &nr, &due);
	/* Who fails holds the tail; the others' blocks lie behind what it would take. */
	if (!w->sweep.nr_failing && !c->pace.hurries)
		upto = lc_pace_limit(c, upto);
	lc_mutex_unlock(&c->lock);
	if (v)
		err = lc_sweep_turn(&w->sweep, v, upto, &written);
	lc_sweep_forgive(&w->sweep);
	tail_err = err == -ECANCELED ? 0 : advance_tail(w);
	moved = c->ring.tail_id - tail; /* only this thread moves it */
	/* A turn that found nothing to do proves nothing: what another volume's turn failed at may still hold the tail. */
	done = written || moved;
	if (!err && !tail_err && (done || LC_MUTANT(nothing_is_success)))
		lc_sweep_works(&w->sweep);
	lc_mutex_lock(&c->lock);
	if (w->stop)
		return false;
	if (v)
		lc_pace_turned(c, written, moved);
	w->fruitless = done || !v ? 0 : w->fruitless + 1;
	if (tail_err || (err && w->sweep.error)) {
		blocked(w, err ? err : tail_err);
	} else {
		if (done)
			w->failures = 0;
		if (err)
			w->turn_error = err; /* the others come first */
		else if (!w->sweep.nr_failing)
			w->turn_error = 0;
		/* Also after a turn that failed: stores that fail slowly are due again whenever one of them has. */
		if (w->turn_error && others_are_done(w, v, nr))
			give_up(w, w->turn_error);
	}
	end_failure(w);
	if (err || tail_err)
		lc_log_space(w->log); /* writers may have waited long enough */
	lc_cond_broadcast(&w->done);
	return moved || (v && (due || w->fruitless <= nr));
}

/* When the superblock is due because of its interval. [lock] */
static u64 superblock_due_ns(const struct lc_writeback *w)
{
	const struct lc_core *c = w->core;

	if (!c->settings.superblock_interval_ms || w->log->durable_seq <= c->meta.sb.durable_seq)
		return LC_FOREVER;
	return w->superblock_ns + c->settings.superblock_interval_ms * LC_NS_PER_MS;
}

/* When to look again if nothing happens. [lock] */
static u64 wake_up_ns(const struct lc_writeback *w)
{
	const struct lc_settings *s = &w->core->settings;
	u64 now_ns = lc_now_ns();
	u64 wake_ns = now_ns + (s->idle_ms ? s->idle_ms : 1000) * LC_NS_PER_MS;

	/* Nobody tells us that the log has become durable further on, and the superblock is due some time after that. */
	if (s->superblock_interval_ms && now_ns + s->superblock_interval_ms * LC_NS_PER_MS < wake_ns)
		wake_ns = now_ns + s->superblock_interval_ms * LC_NS_PER_MS;
	if (w->retry_ns > now_ns && w->retry_ns < wake_ns)
		wake_ns = w->retry_ns;
	for (u32 id = 1; id <= LC_VOLUMES_MAX && w->sweep.nr_failing; id++) {
		const struct lc_volume *v = w->volumes[id];

		if (v && v->failing && v->retry_ns > now_ns && v->retry_ns < wake_ns)
			wake_ns = v->retry_ns;
	}
	return wake_ns;
}

static void writeback_main(void *arg)
{
	struct lc_writeback *w = arg;
	struct lc_core *c = w->core;
	int err = lc_sweep_open(&w->sweep, &w->start_error);

	lc_mutex_lock(&c->lock);
	w->start_result = err;
	w->running = true;
	lc_cond_broadcast(&w->done);
	while (!w->stop && !err) {
		u64 seen = w->log->progress_events;

		if (lc_now_ns() >= superblock_due_ns(w)) {
			lc_mutex_unlock(&c->lock);
			/* If that fails, the log has failed, too, and says so itself. */
			(void)write_superblock(w);
			lc_mutex_lock(&c->lock);
		} else if (!write_back(w) && !w->stop && w->log->progress_events == seen) {
			lc_cond_wait(&w->log->progress, &c->lock, wake_up_ns(w));
		}
	}
	lc_mutex_unlock(&c->lock);
	lc_sweep_close(&w->sweep);
}

void lc_writeback_interrupt(struct lc_writeback *w)
{
	w->interrupted = true;
	lc_cond_broadcast(&w->done);
}

/* What has failed is tried again at once. [lock] */
static void forgive_failures(struct lc_writeback *w)
{
	w->retry_ns = 0;
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		if (w->volumes[id])
			w->volumes[id]->retry_ns = 0;
}

int lc_writeback_drain(struct lc_writeback *w, u64 deadline_ns)
{
	struct lc_core *c = w->core;
	u64 upto, errors;
	int err;

	lc_mutex_lock(&c->lock);
	lc_log_close_segment(w->log);
	upto = c->ring.head_id;
	errors = w->errors;
	c->pace.hurries++;
	forgive_failures(w);
	err = lc_log_commit(w->log, lc_log_newest_seq(w->log));
	if (w->drain_id < upto)
		w->drain_id = upto;
	lc_log_progress(w->log);
	while (!err && c->ring.tail_id < upto) {
		if (w->interrupted) {
			err = -ECANCELED;
			break;
		}
		err = lc_cond_wait(&w->done, &c->lock, deadline_ns);
		if (c->ring.tail_id >= upto)
			err = 0;
		else if (w->errors != errors)
			err = w->last_error;
	}
	if (!--c->pace.hurries) /* one that fails is no reason to leave another one waiting */
		w->drain_id = 0;
	lc_log_unlock(w->log);
	return err;
}

/* --- begin and end --- */

int lc_writeback_init(struct lc_writeback *w, struct lc_core *core, struct lc_log *log,
		      struct lc_volume **volumes)
{
	*w = (struct lc_writeback){.core = core, .log = log, .volumes = volumes};
	lc_cond_init(&w->done);
	lc_pace_reset(&core->pace);
	return lc_sweep_init(&w->sweep, core, log, volumes);
}

void lc_writeback_destroy(struct lc_writeback *w)
{
	if (!w->core)
		return;
	lc_sweep_destroy(&w->sweep);
	lc_cond_destroy(&w->done);
	*w = (struct lc_writeback){0};
}

int lc_writeback_start(struct lc_writeback *w, struct lc_error *err)
{
	int ret = lc_thread_start(&w->thread, "lc-writeback", writeback_main, w);

	if (ret)
		return lc_fail(err, ret, "%s: cannot start the write-back thread: %s",
			       w->core->ssd->name, strerror(-ret));
	lc_mutex_lock(&w->core->lock);
	while (!w->running)
		lc_cond_wait(&w->done, &w->core->lock, LC_FOREVER);
	ret = w->start_result;
	lc_mutex_unlock(&w->core->lock);
	if (ret) {
		lc_thread_join(&w->thread);
		lc_fail(err, ret, "%s", w->start_error.text);
	}
	w->started = !ret;
	return ret;
}

void lc_writeback_stop(struct lc_writeback *w)
{
	if (!w->started)
		return;
	lc_mutex_lock(&w->core->lock);
	w->stop = w->sweep.stop = true;
	lc_log_progress(w->log);
	lc_cond_broadcast(&w->done);
	lc_mutex_unlock(&w->core->lock);
	lc_thread_join(&w->thread);
	w->started = false;
}
