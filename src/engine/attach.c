/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attach.c - give a cache to volumes that are being served, and take it away again.
 *
 * path.h lets requests go on meanwhile. What has to be true at each moment:
 *
 * Attaching. From the switch on, writes go into the log, while some that went straight are still under way, and
 * what they wrote before is not flushed. So write-back is held until both is done: no block from the log may get to
 * the backing store before an older one that went straight; a FLUSH flushes both; and the
 * fingerprints, which are taken when the backing stores have come to rest, count as unverified until then.
 *
 * Detaching. Before the first write goes straight, everything is on the backing stores, and nothing that the SSD holds may
 * ever count again: from_seq of all volumes is behind the last record, durably.
 */
#include <assert.h>
#include <string.h>

#include "cache.h"
#include "fingerprint.h"
#include "path.h"

/* Detaching drains so often while clients go on, unless so little is left earlier, before they have to wait. */
#define DRAINS_MAX 8u
#define DRAINED_BLOCKS 256u

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
	if (state == from)
		c->state = to;
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
		c->volumes[i].flush_backing = log && !LC_MUTANT(attach_flushes_log_alone);
		/* Whoever waits to go straight has to look again. */
		lc_cond_broadcast(&c->volumes[i].ranges.left);
	}
	lc_cond_broadcast(&c->core.path);
}

/* --- attach --- */

/* What was written straight is durable, and has a fingerprint. */
static int settle_volume(struct lc_cache *c, struct lc_volume *v, void *scratch)
{
	struct lc_volume_entry *e = &c->core.meta.volumes[v->id];
	u32 samples[LC_NR_SAMPLES];
	int err = 0;

	if (!v->flush_backing && !e->unverified)
		return 0;
	if (!LC_MUTANT(attach_without_flush))
		err = lc_store_flush(v->backing);
	if (!err)
		err = lc_samples_read(v->backing, v->size_bytes, ~0ull, scratch, samples);
	if (err)
		return err;
	lc_mutex_lock(&c->core.lock);
	v->flush_backing = false;
	memcpy(e->samples, samples, sizeof samples);
	e->unverified = false;
	lc_mutex_unlock(&c->core.lock);
	err = lc_meta_write(&c->core.meta, &c->core.lock, lc_volume_page(v->id),
			    lc_log_flusher(&c->log));
	if (err)
		e->unverified = true; /* nobody else changes it */
	return err;
}

/* Writers that wait for space shall know that something fails; 0: it works. */
static void stall(struct lc_core *core, int err)
{
	lc_mutex_lock(&core->lock);
	if (!err)
		core->stalled_since_ns = 0;
	else if (!core->stalled_since_ns)
		core->stalled_since_ns = lc_now_ns();
	core->stall_error = err;
	lc_mutex_unlock(&core->lock);
}

static int settle_volumes(struct lc_cache *c, void *scratch)
{
	int err = 0;

	for (unsigned i = 0; i < c->nr_volumes && !err; i++) {
		err = settle_volume(c, &c->volumes[i], scratch);
		if (err)
			stall(&c->core, err);
		if (err)
			lc_log(LC_LOG_WARNING,
			       "%s: cannot be flushed: %s; attaching the cache waits for it",
			       c->volumes[i].backing->name, strerror(-err));
	}
	if (!err)
		stall(&c->core, 0);
	return err;
}

/* Until nothing on the way to the backing stores is older than what is in the log. */
static int settle(struct lc_cache *c, void *scratch)
{
	struct lc_core *core = &c->core;
	bool interrupted;

	lc_mutex_lock(&core->lock);
	while (under_way(c, false, false, true) && !c->interrupted && !LC_MUTANT(attach_overtakes))
		wait_path(core, LC_FOREVER);
	interrupted = c->interrupted;
	lc_mutex_unlock(&core->lock);
	while (!interrupted && settle_volumes(c, scratch)) {
		u64 until_ns = lc_now_ns() + core->settings.retry_ms * LC_NS_PER_MS;

		lc_mutex_lock(&core->lock);
		while (!c->interrupted && lc_now_ns() < until_ns)
			wait_path(core, until_ns);
		interrupted = c->interrupted;
		lc_mutex_unlock(&core->lock);
	}
	return interrupted ? -ECANCELED : 0;
}

static int start_threads(struct lc_cache *c, struct lc_error *err)
{
	int ret = lc_log_start(&c->log, err);

	if (ret)
		return ret;
	c->writeback.held = true;
	ret = lc_writeback_start(&c->writeback, err);
	if (ret)
		lc_log_stop(&c->log);
	return ret;
}

int lc_cache_attach(struct lc_cache *c, struct lc_store *ssd, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	void *scratch;
	int ret = begin(c, LC_CACHE_NONE, LC_CACHE_ATTACHING, err);

	if (ret)
		return ret;
	scratch = lc_scratch_get(core);
	if (scratch) {
		core->ssd = ssd;
		ret = lc_ssd_open(c, true, err);
	} else {
		ret = lc_fail(err, -ENOMEM, "%s: no memory", ssd->name);
	}
	if (!ret) {
		ret = start_threads(c, err);
		if (ret)
			lc_ssd_close(c, 0);
	}
	if (ret) {
		lc_scratch_put(core, scratch);
		end(c, LC_CACHE_NONE);
		return ret;
	}
	lc_mutex_lock(&core->lock);
	switch_path(c, &c->log);
	lc_mutex_unlock(&core->lock);

	ret = settle(c, scratch);
	lc_scratch_put(core, scratch);
	if (ret)
		lc_fail(err, ret, "%s: interrupted before write-back could begin", ssd->name);
	else
		lc_writeback_release(&c->writeback);
	end(c, LC_CACHE_ATTACHED);
	return ret;
}

/* --- detach --- */

/* Drain until little is left, or clients are too quick for that. */
static int drain_most(struct lc_cache *c)
{
	for (unsigned i = 0; i < DRAINS_MAX; i++) {
		u64 left;
		int err = lc_writeback_drain(&c->writeback);

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

/* No writer begins, and none is under way. */
static void hold_writers(struct lc_cache *c)
{
	lc_mutex_lock(&c->core.lock);
	c->core.hold = !LC_MUTANT(detach_without_hold);
	while (under_way(c, true, false, false) && c->core.hold)
		wait_path(&c->core, LC_FOREVER);
	lc_mutex_unlock(&c->core.lock);
}

static void release_writers(struct lc_cache *c)
{
	lc_mutex_lock(&c->core.lock);
	c->core.hold = false;
	lc_cond_broadcast(&c->core.path);
	lc_mutex_unlock(&c->core.lock);
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
	/* The cache stays: from_seq is right all the same, and write-back goes on to refresh the fingerprints. */
	lc_mutex_lock(&c->core.lock);
	for (unsigned i = 0; i < c->nr_volumes; i++)
		meta->volumes[c->volumes[i].id].unverified = false;
	lc_mutex_unlock(&c->core.lock);
	return err;
}

int lc_cache_detach(struct lc_cache *c, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	const char *name;
	int ret = begin(c, LC_CACHE_ATTACHED, LC_CACHE_DETACHING, err);

	if (ret)
		return ret;
	name = core->ssd->name;
	ret = drain_most(c);
	if (!ret) {
		hold_writers(c);
		ret = LC_MUTANT(detach_undrained) ? 0 : lc_writeback_drain(&c->writeback);
	}
	if (!ret)
		ret = void_volumes(c);
	if (ret) {
		release_writers(c);
		end(c, LC_CACHE_ATTACHED);
		return lc_fail(err, ret,
			       "%s: not everything could be written back: %s; the cache stays",
			       name, strerror(-ret));
	}
	lc_mutex_lock(&core->lock);
	core->hold = false;
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
	if (c->writeback.core)
		lc_writeback_interrupt(&c->writeback);
	lc_cond_broadcast(&c->core.path);
	lc_mutex_unlock(&c->core.lock);
}
