/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.c - when to sweep, and moving the tail. sweep.c does the sweeping.
 */
#include "writeback.h"

#include <assert.h>
#include <string.h>

#include "fingerprint.h"

/* --- the tail (I3) --- */

/* Refresh the fingerprint samples that were written to since the last time. */
static int refresh_fingerprint(struct lc_writeback *w, struct lc_volume *v)
{
	struct lc_core *c = w->core;
	struct lc_volume_entry *entry = &c->meta.volumes[v->id];
	u32 samples[LC_NR_SAMPLES];
	void *scratch;
	u64 which;
	int err;

	lc_mutex_lock(&c->lock);
	which = v->touched;
	memcpy(samples, entry->samples, sizeof samples);
	lc_mutex_unlock(&c->lock);
	if (!which)
		return 0;
	scratch = lc_scratch_get(c);
	if (!scratch)
		return -ENOMEM;
	err = lc_samples_read(v->backing, v->size_bytes, which, scratch, samples);
	lc_scratch_put(c, scratch);
	if (err)
		return err;
	lc_mutex_lock(&c->lock);
	memcpy(entry->samples, samples, sizeof samples);
	lc_mutex_unlock(&c->lock);
	err = lc_meta_write(&c->meta, &c->lock, lc_volume_page(v->id), lc_log_flusher(w->log));
	if (err)
		return err;
	lc_mutex_lock(&c->lock);
	v->touched &= ~which;
	lc_mutex_unlock(&c->lock);
	return 0;
}

/* What the superblock's new tail relies on: durable before it. */
static int write_companions(struct lc_writeback *w)
{
	struct lc_core *c = w->core;
	int err;

	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		err = w->volumes[id] ? refresh_fingerprint(w, w->volumes[id]) : 0;
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
		tail++;
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
	lc_ring_set_tail(ring, tail);
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
	u64 segment_bytes = (u64)ring->segment_blocks * LC_BLOCK;
	u64 batch = c->settings.batch_bytes / segment_bytes;
	bool quiet = idle(w, lc_now_ns());
	bool wanted = lc_ring_starved(ring) || lc_ring_zeros_full(ring);
	bool much = (ring->head_id - tail) * 100 > (u64)c->settings.dirty_low_percent * ring->nr;

	if (durable <= tail)
		return tail;
	if (w->drain_id > tail)
		return durable;
	/* Clients wait for the tail, or for zeros; or a sweep has failed, and only another one shows that it works again. */
	if (!(w->log->space_waiters && wanted) && !w->log->zero_waiters && !c->stalled_since_ns &&
	    !(c->settings.writeback && (quiet || much)))
		return tail;
	/* Who fails holds the tail; the others' blocks lie behind what it would take. */
	if (w->sweep.nr_failing)
		return durable;
	if (!c->settings.batch_bytes)
		batch = ring->nr / 8;
	if (!batch)
		batch = 1;
	return durable < tail + batch ? durable : tail + batch;
}

/* One sweep has ended. [lock] */
static void settle(struct lc_writeback *w, int err)
{
	struct lc_core *c = w->core;

	w->failures = err ? w->failures + 1 : 0;
	if (err) {
		w->errors++;
		w->last_error = err;
		if (!c->stalled_since_ns) { /* it was not a backing store: the SSD, or a full list */
			c->stalled_since_ns = lc_now_ns();
			c->stall_error = err;
		}
		lc_log_space(w->log); /* writers may have waited long enough */
	}
	lc_cond_broadcast(&w->done);
}

/* When the superblock is due because of its interval. [lock] */
static u64 superblock_due_ns(const struct lc_writeback *w)
{
	const struct lc_core *c = w->core;

	if (!c->settings.superblock_interval_ms || w->log->durable_seq <= c->meta.sb.durable_seq)
		return LC_FOREVER;
	return w->superblock_ns + c->settings.superblock_interval_ms * LC_NS_PER_MS;
}

/* Sweep, and move the tail. */
static int write_back(struct lc_writeback *w, u64 upto)
{
	int err = lc_sweep_run(&w->sweep, upto), tail_err;

	/* Whatever failed, the other volumes' blocks may have let the tail go on. */
	tail_err = err == -ECANCELED ? 0 : advance_tail(w);
	if (!err)
		err = tail_err;
	if (!err)
		lc_sweep_works(&w->sweep);
	return err;
}

/* How long to wait if nothing happens; after failures ever longer. [lock] */
static u64 pause_ns(const struct lc_writeback *w)
{
	const struct lc_settings *s = &w->core->settings;
	u32 growth = w->failures < 5 ? 1u << w->failures >> 1 : LC_RETRY_GROWTH;

	return w->failures ? (u64)s->retry_ms * growth * LC_NS_PER_MS :
			     (s->idle_ms ? s->idle_ms : 1000) * LC_NS_PER_MS;
}

/* When to look again if nothing happens. [lock] */
static u64 wake_up_ns(const struct lc_writeback *w)
{
	u64 interval_ns = w->core->settings.superblock_interval_ms * LC_NS_PER_MS;
	u64 pause = pause_ns(w);

	/* Nobody tells us that the log has become durable further on, and the superblock is due some time after that. */
	return lc_now_ns() + (interval_ns && interval_ns < pause ? interval_ns : pause);
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
		u64 upto, until_ns;

		if (lc_now_ns() >= superblock_due_ns(w)) {
			lc_mutex_unlock(&c->lock);
			/* If that fails, the log has failed, too, and says so itself. */
			(void)write_superblock(w);
			lc_mutex_lock(&c->lock);
			continue;
		}
		upto = target(w);
		if (upto > c->ring.tail_id) {
			int failed;

			lc_mutex_unlock(&c->lock);
			failed = write_back(w, upto);
			lc_mutex_lock(&c->lock);
			if (w->stop)
				break;
			settle(w, failed);
			if (!failed)
				continue;
		}
		until_ns = wake_up_ns(w);
		/* What failed is not tried again at each progress of the log. */
		lc_cond_wait(c->stalled_since_ns ? &w->done : &w->log->progress, &c->lock, until_ns);
	}
	lc_mutex_unlock(&c->lock);
	lc_sweep_close(&w->sweep);
}

void lc_writeback_interrupt(struct lc_writeback *w)
{
	w->interrupted = true;
	lc_cond_broadcast(&w->done);
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
	w->sweep.hurries++;
	err = lc_log_commit(w->log, lc_log_newest_seq(w->log));
	if (w->drain_id < upto)
		w->drain_id = upto;
	lc_cond_broadcast(&w->log->progress);
	lc_cond_broadcast(&w->done); /* no pause between attempts */
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
	if (!--w->sweep.hurries) /* one that fails is no reason to leave another one waiting */
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
	lc_cond_broadcast(&w->log->progress);
	lc_cond_broadcast(&w->done);
	lc_mutex_unlock(&w->core->lock);
	lc_thread_join(&w->thread);
	w->started = false;
}
