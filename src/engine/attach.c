/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attach.c - give a cache to volumes that are being served, and take it away again.
 *
 * path.h lets requests go on meanwhile. In both directions the path changes in a moment in which writers are held,
 * nothing is under way on the old path, and what went there is durable on the backing stores:
 *
 * Attaching. The backing stores are flushed, and their fingerprints taken, while clients go on; then, with writers held,
 * what little has come since is flushed, and the samples that it touched are taken again. So nothing in the log is
 * ever mixed with something older that is still on its way, and a volume with dirty data always has a
 * fingerprint that says whose it is (I12).
 *
 * Detaching. Drained while clients go on, then the rest with writers held. Before the first write goes straight, nothing that
 * the SSD holds may ever count again: from_seq of all volumes is behind the last record, durably.
 *
 * Opening, recovering or formatting, and starting threads come before writers are held. What they wait for when a cache
 * is attached: the writes that are under way, then a flush of those backing stores that were written since the same was
 * done a moment ago; and if those writes touched samples, these, and two flushes of the SSD. That takes some milliseconds,
 * or, on a slow disk, what its writes take. How long it was, lc_stats.held_ns tells.
 *
 * How long writers are held for requests under way and for the last drain is bounded by a share of the clients' patience;
 * whoever cannot make it in that time lets them go and tries again.
 */
#include <assert.h>
#include <string.h>

#include "cache.h"
#include "fingerprint.h"
#include "path.h"

/* Attaching prepares the volumes so often while clients go on, unless it takes no longer than this earlier. */
#define PREPARES_MAX 6u
#define PREPARED_NS (20 * LC_NS_PER_MS)
/* Detaching drains so often while clients go on, unless so little is left earlier, before they have to wait. */
#define DRAINS_MAX 8u
#define DRAINED_BLOCKS 256u
/* So often writers are held; each time for at most this share of client_timeout_ms. */
#define HOLDS_MAX 4u
#define HOLD_SHARE 4u

static int begin(struct lc_cache *c, enum lc_cache_state from, enum lc_cache_state to,
		 struct lc_error *err)
{
	static const char *const what[] = {
		[LC_CACHE_NONE] = "there is no cache",
		[LC_CACHE_ATTACHING] = "a cache is just being attached",
		[LC_CACHE_ATTACHED] = "there is a cache already: detach it first",
		[LC_CACHE_DETACHING] = "the cache is just being detached",
	};
	enum lc_cache_state state;

	lc_mutex_lock(&c->core.lock);
	state = c->state;
	if (state == from) {
		c->state = to;
		c->held_ns = 0;
	}
	lc_mutex_unlock(&c->core.lock);
	return state == from ? 0 : lc_fail(err, -EBUSY, "%s", what[state]);
}

static void end(struct lc_cache *c, enum lc_cache_state state)
{
	lc_mutex_lock(&c->core.lock);
	c->state = state;
	lc_mutex_unlock(&c->core.lock);
}

/* [lock; released meanwhile] */
static void wait_path(struct lc_core *core, u64 deadline_ns)
{
	core->path_waiters++;
	lc_cond_wait(&core->path, &core->lock, deadline_ns);
	core->path_waiters--;
}

/* Steps of all volumes that are under way. [lock] */
static u32 under_way(const struct lc_cache *c, bool writes, bool reads, bool direct)
{
	u32 nr = 0;

	for (unsigned i = 0; i < c->nr_volumes; i++) {
		const struct lc_volume *v = &c->volumes[i];

		nr += (writes ? v->log_writes : 0) + (reads ? v->log_reads : 0) +
		      (direct ? v->direct_writes : 0);
	}
	return nr;
}

/* All volumes take another path from now on. [lock] */
static void switch_path(struct lc_cache *c, struct lc_log *log)
{
	for (unsigned i = 0; i < c->nr_volumes; i++) {
		c->volumes[i].log = log;
		/* Whoever waits to go straight has to look again. */
		lc_cond_broadcast(&c->volumes[i].ranges.left);
	}
	lc_cond_broadcast(&c->core.path);
}

/* --- holding writers --- */

static u64 hold_deadline_ns(struct lc_core *core)
{
	u64 timeout_ms;

	lc_mutex_lock(&core->lock);
	timeout_ms = core->settings.client_timeout_ms;
	lc_mutex_unlock(&core->lock);
	return lc_now_ns() + timeout_ms * LC_NS_PER_MS / HOLD_SHARE;
}

/* From now on writers wait. [lock] */
static void begin_hold(struct lc_cache *c)
{
	c->core.hold = !LC_MUTANT(switch_without_hold);
	c->hold_began_ns = lc_now_ns();
}

/* And go on again, if they were held. [lock] */
static void end_hold(struct lc_cache *c)
{
	u64 held_ns = c->hold_began_ns ? lc_now_ns() - c->hold_began_ns : 0;

	if (held_ns > c->held_ns)
		c->held_ns = held_ns;
	c->hold_began_ns = 0;
	c->core.hold = false;
	lc_cond_broadcast(&c->core.path);
}

static void release_writers(struct lc_cache *c)
{
	lc_mutex_lock(&c->core.lock);
	end_hold(c);
	lc_mutex_unlock(&c->core.lock);
}

/* No write begins, and none is under way on either path. -ETIMEDOUT, -ECANCELED: writers are not held. */
static int hold_writers(struct lc_cache *c, u64 deadline_ns)
{
	int err = 0;

	lc_mutex_lock(&c->core.lock);
	begin_hold(c);
	while (under_way(c, true, false, true) && c->core.hold && !err) {
		wait_path(&c->core, deadline_ns);
		if (c->interrupted)
			err = -ECANCELED;
		else if (lc_now_ns() >= deadline_ns)
			err = -ETIMEDOUT;
	}
	lc_mutex_unlock(&c->core.lock);
	if (err)
		release_writers(c);
	return err;
}

/* --- attach --- */

/* Flush a backing store; if that fails, clients have to hear of it, because nothing is known of what they wrote. */
static int flush_volume(struct lc_cache *c, struct lc_volume *v, struct lc_error *err)
{
	u64 failures;
	int ret;

	lc_mutex_lock(&c->core.lock);
	failures = v->flush_failures;
	lc_mutex_unlock(&c->core.lock);
	ret = LC_MUTANT(attach_without_flush) ? 0 : lc_direct_flush(v, failures);
	if (!ret)
		return 0;
	return lc_fail(err, ret, "%s: flush fails: %s; no cache is attached before it works",
		       v->backing->name, strerror(-ret));
}

/* Take the samples in WHICH anew. */
static int sample_volume(struct lc_cache *c, struct lc_volume *v, u64 which, void *scratch,
			 struct lc_error *err)
{
	struct lc_volume_entry *e = &c->core.meta.volumes[v->id];
	int ret = lc_samples_read(v->backing, v->size_bytes, which, scratch, e->samples);

	return ret ? lc_fail(err, ret, "%s: cannot be read: %s; check it, and the kernel's log",
			     v->backing->name, strerror(-ret)) :
		     0;
}

/*
 * What went straight to a volume is made durable, and the samples that it touched are taken anew; FIRST: all of them.
 * *CHANGED: its fingerprint is another one now.
 */
static int catch_up(struct lc_cache *c, struct lc_volume *v, bool first, void *scratch,
		    bool *changed, struct lc_error *err)
{
	bool written;
	u64 which;
	int ret = first ? lc_wait_quiet(c, v->backing, err) : 0;

	*changed = false;
	if (ret)
		return ret;
	lc_mutex_lock(&c->core.lock);
	written = first || v->written;
	which = first ? ~0ull : v->touched;
	v->sampling = true;
	v->written = false; /* what ends from now on comes next time */
	v->touched = 0;
	lc_mutex_unlock(&c->core.lock);
	*changed = which;
	if (written)
		ret = flush_volume(c, v, err);
	return ret ? ret : sample_volume(c, v, which, scratch, err);
}

/*
 * The same for all volumes, and the table says so, durably: their fingerprints count. They may do so before writers are held:
 * as long as the log has nothing of a volume, its fingerprint decides nothing.
 */
static int catch_up_all(struct lc_cache *c, bool first, void *scratch, struct lc_error *err)
{
	struct lc_meta *meta = &c->core.meta;
	bool page[LC_NR_PAGES] = {false};
	int ret = 0;

	for (unsigned i = 0; i < c->nr_volumes && !ret; i++) {
		struct lc_volume *v = &c->volumes[i];
		bool changed;

		ret = catch_up(c, v, first, scratch, &changed, err);
		page[lc_volume_page(v->id)] |= changed;
		lc_mutex_lock(&c->core.lock);
		meta->volumes[v->id].unverified = false;
		meta->volumes[v->id].unsure = 0;
		lc_mutex_unlock(&c->core.lock);
	}
	for (u32 i = 0; i < LC_NR_PAGES && !ret; i++) {
		if (!page[i])
			continue;
		ret = lc_meta_write(meta, &c->core.lock, i, lc_log_flusher(&c->log));
		if (ret)
			lc_fail(err, ret, "%s: cannot be written: %s", c->core.ssd->name,
				strerror(-ret));
	}
	return ret;
}

/*
 * While clients go on, as much as can be done of what writers would have to wait for: again until a turn is short,
 * and little has come meanwhile.
 */
static int prepare_volumes(struct lc_cache *c, void *scratch, struct lc_error *err)
{
	int ret = 0;

	for (u32 turn = 0; turn < PREPARES_MAX && !ret; turn++) {
		u64 began_ns = lc_now_ns();

		ret = catch_up_all(c, turn == 0, scratch, err);
		if (turn > 0 && lc_now_ns() - began_ns <= PREPARED_NS)
			break;
	}
	return ret;
}

/* Come to the moment in which the path may change. Writers are held then; on failure they are not. */
static int settle(struct lc_cache *c, void *scratch, struct lc_error *err)
{
	int ret = prepare_volumes(c, scratch, err);

	for (unsigned i = 0; !ret; i++) {
		ret = hold_writers(c, hold_deadline_ns(&c->core));
		if (!ret)
			break;
		if (ret == -ETIMEDOUT && i + 1 < HOLDS_MAX)
			ret = 0;
		else
			lc_fail(err, ret, "%s",
				ret == -ECANCELED ? "interrupted" :
						    "a write takes too long on its backing store");
	}
	if (ret)
		return ret;
	ret = catch_up_all(c, false, scratch, err);
	if (ret)
		release_writers(c);
	return ret;
}

static int start_threads(struct lc_cache *c, struct lc_error *err)
{
	int ret = lc_log_start(&c->log, err);

	if (ret)
		return ret;
	ret = lc_writeback_start(&c->writeback, err);
	if (ret)
		lc_log_stop(&c->log);
	return ret;
}

/* The SSD is not used after all. */
static void give_up(struct lc_cache *c)
{
	lc_writeback_stop(&c->writeback);
	lc_ssd_close(c, lc_log_stop(&c->log));
}

static int attach(struct lc_cache *c, struct lc_store *ssd, void *scratch, struct lc_error *err)
{
	int ret;

	lc_mutex_lock(&c->core.lock); /* somebody may be looking at it */
	c->core.ssd = ssd;
	lc_mutex_unlock(&c->core.lock);
	ret = lc_ssd_open(c, true, err);
	if (ret)
		return ret;
	ret = start_threads(c, err);
	if (ret) {
		lc_ssd_close(c, 0);
		return ret;
	}
	ret = settle(c, scratch, err);
	lc_mutex_lock(&c->core.lock);
	if (!ret) {
		lc_settings_take_kept(&c->core.settings, &c->core.meta.sb);
		switch_path(c, &c->log);
	}
	end_hold(c);
	for (unsigned i = 0; i < c->nr_volumes; i++)
		c->volumes[i].sampling = false;
	lc_mutex_unlock(&c->core.lock);
	if (ret)
		give_up(c);
	return ret;
}

int lc_cache_attach(struct lc_cache *c, struct lc_store *ssd, struct lc_error *err)
{
	void *scratch;
	int ret = begin(c, LC_CACHE_NONE, LC_CACHE_ATTACHING, err);

	if (ret)
		return ret;
	scratch = lc_scratch_get(&c->core);
	if (scratch)
		ret = attach(c, ssd, scratch, err);
	else
		ret = lc_fail(err, -ENOMEM, "%s: no memory", ssd->name);
	lc_scratch_put(&c->core, scratch);
	end(c, ret ? LC_CACHE_NONE : LC_CACHE_ATTACHED);
	return ret;
}

/* --- detach --- */

/* Drain until little is left, or clients are too quick for that. */
static int drain_most(struct lc_cache *c)
{
	for (unsigned i = 0; i < DRAINS_MAX; i++) {
		u64 left;
		int err = lc_writeback_drain(&c->writeback, LC_FOREVER);

		if (err)
			return err;
		lc_mutex_lock(&c->core.lock);
		left = c->core.ring.dirty_blocks + c->core.ring.zeros.nr;
		lc_mutex_unlock(&c->core.lock);
		if (left <= DRAINED_BLOCKS)
			break;
	}
	return 0;
}

/* Durably: nothing that the SSD holds of these volumes counts any more, and their fingerprints say nothing. */
static int void_volumes(struct lc_cache *c)
{
	struct lc_meta *meta = &c->core.meta;
	bool page[LC_NR_PAGES] = {false};
	int err = 0;

	lc_mutex_lock(&c->core.lock);
	for (unsigned i = 0; i < c->nr_volumes; i++) {
		struct lc_volume_entry *e = &meta->volumes[c->volumes[i].id];

		e->from_seq = lc_log_newest_seq(&c->log) + 1;
		e->unverified = true;
		page[lc_volume_page(e->id)] = true;
	}
	lc_mutex_unlock(&c->core.lock);
	for (u32 i = 0; i < LC_NR_PAGES && !err && !LC_MUTANT(detach_keeps_blocks); i++)
		if (page[i])
			err = lc_meta_write(meta, &c->core.lock, i, lc_log_flusher(&c->log));
	if (!err)
		return 0;
	/*
	 * The cache stays. from_seq is right all the same; the fingerprints are right, too, and count again: write-back
	 * writes them before the tail moves, or closing does.
	 */
	lc_mutex_lock(&c->core.lock);
	for (unsigned i = 0; i < c->nr_volumes; i++) {
		struct lc_volume *v = &c->volumes[i];

		meta->volumes[v->id].unverified = false;
		v->sampled = true;
		c->rewrite[lc_volume_page(v->id)] = true;
	}
	lc_mutex_unlock(&c->core.lock);
	return err;
}

/* A block that is lost may answer with an error, but never with what the backing store has of it (I10). */
static int check_nothing_lost(struct lc_cache *c, struct lc_error *err)
{
	for (unsigned i = 0; i < c->nr_volumes; i++) {
		const struct lc_volume *v = &c->volumes[i];
		bool lost;

		lc_mutex_lock(&c->core.lock);
		lost = lc_bad_any(&c->core.meta.bad, v->id);
		lc_mutex_unlock(&c->core.lock);
		if (lost)
			return lc_fail(err, -EUCLEAN,
				       "%s: blocks of volume %s are lost, and answer with an error; without "
				       "the cache they would read as something old: overwrite them first; the "
				       "cache stays",
				       c->core.ssd->name, lc_volume_shown(v->name));
	}
	return 0;
}

/* Come to the moment in which the path may change. Writers are held then; on failure they are not. */
static int drain_all(struct lc_cache *c)
{
	int err = drain_most(c);

	for (unsigned i = 0; !err; i++) {
		u64 deadline_ns = hold_deadline_ns(&c->core);

		err = hold_writers(c, deadline_ns);
		if (!err) {
			if (!LC_MUTANT(detach_undrained))
				err = lc_writeback_drain(&c->writeback, deadline_ns);
			if (!err)
				break;
			release_writers(c);
		}
		if (err == -ETIMEDOUT && i + 1 < HOLDS_MAX)
			err = drain_most(c);
	}
	return err;
}

int lc_cache_detach(struct lc_cache *c, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	struct lc_error why;
	const char *name;
	int ret = begin(c, LC_CACHE_ATTACHED, LC_CACHE_DETACHING, err);

	if (ret)
		return ret;
	name = core->ssd->name;
	ret = drain_all(c);
	if (ret) {
		lc_cache_drain_error(c, ret, &why);
		lc_fail(err, ret, "not everything could be written back: %s; the cache stays",
			why.text);
	} else {
		ret = check_nothing_lost(c, err);
		if (!ret) {
			ret = void_volumes(c);
			if (ret)
				lc_fail(err, ret, "%s: cannot be written: %s; the cache stays",
					name, strerror(-ret));
		}
		if (ret)
			release_writers(c);
	}
	if (ret) {
		end(c, LC_CACHE_ATTACHED);
		return ret;
	}
	lc_mutex_lock(&core->lock);
	end_hold(c);
	switch_path(c, NULL);
	while (under_way(c, true, true, false))
		wait_path(core, LC_FOREVER);
	lc_mutex_unlock(&core->lock);

	lc_writeback_stop(&c->writeback);
	ret = lc_ssd_close(c, lc_log_stop(&c->log));
	if (ret) /* everything is on the backing stores: no reason to fail */
		lc_log(LC_LOG_WARNING,
		       "%s: could not be closed in good order: %s; nothing is lost by that", name,
		       strerror(-ret));
	end(c, LC_CACHE_NONE);
	return 0;
}

void lc_cache_interrupt(struct lc_cache *c)
{
	lc_mutex_lock(&c->core.lock);
	c->interrupted = true;
	if (c->volumes[0].log)
		lc_writeback_interrupt(&c->writeback);
	lc_cond_broadcast(&c->core.path);
	lc_mutex_unlock(&c->core.lock);
}
