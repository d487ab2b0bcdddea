/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bind.c - volumes and backing stores: which is which, and what is refused (I12).
 */
#include <string.h>

#include "cache.h"
#include "fingerprint.h"

const char *lc_volume_shown(const char *name)
{
	return *name ? name : "(default)";
}

/* What the backing store of a volume does not have yet. */
static u64 dirty_blocks_of(const struct lc_ring *ring, u8 id)
{
	return ring->dirty_of[id] + (LC_MUTANT(zeros_are_not_dirty) ? 0 : ring->zeros.blocks_of[id]);
}

/* Forget what the cache holds of a volume; nothing of it is dirty. */
static void drop_volume(struct lc_cache *c, struct lc_volume_entry *e)
{
	struct lc_ring *ring = &c->core.ring;

	for (u32 i = 0; i < ring->index.nr_slots && ring->live_of[e->id]; i++) {
		u64 key = ring->index.slots[i].key;

		if (key & LC_SLOT_LIVE && lc_key_volume(key) == e->id)
			lc_block_drop(ring, ring->index.base + i);
	}
	e->from_seq = c->recovery.cut_seq + 1;
}

/*
 * Samples of the fingerprint that may be others by now, because an entry above the tail, or a lost block, explains it (bit i:
 * sample i).
 */
struct explained {
	u64 any; /* they may be anything: a copy may have been written to the backing store, or a part of it; */
	u64 zeroed; /* the rest of them: zeros, or a part is; but nothing else */
};

/*
 * Samples that a record above the tail has a copy of. A sweep may have written that, even if it was superseded since. One look at
 * the records for all volumes: there may be millions of them.
 */
static void find_logged(struct lc_cache *c)
{
	const struct lc_ring *ring = &c->core.ring;

	memset(c->logged, 0, sizeof c->logged);
	for (u64 id = ring->tail_id + 1;
	     id <= ring->head_id && !LC_MUTANT(superseded_was_not_written); id++) {
		u64 last_seq = lc_ring_segment(ring, id)->last_seq;
		u32 first = lc_ring_first_slot(ring, id);

		for (u32 i = 0; i < ring->segment_blocks; i++) {
			u64 key = lc_index_slot(&ring->index, first + i)->key;
			const struct lc_volume_entry *e = &c->core.meta.volumes[lc_key_volume(key)];

			if (lc_key_type(key) == LC_ENTRY_DATA && e->id && last_seq >= e->from_seq)
				c->logged[e->id] |= lc_samples_in(e->size_bytes, lc_key_block(key),
								  1);
		}
	}
}

static struct explained explained(const struct lc_cache *c, const struct lc_volume_entry *e)
{
	struct explained x = {.any = c->logged[e->id] | e->unsure};

	for (unsigned i = 0; i < LC_NR_SAMPLES; i++) {
		u64 block = lc_sample_block(e->size_bytes, i);

		/* A sweep that failed may have written it before it was lost. */
		if (lc_bad_mask(&c->core.meta.bad, e->id, block))
			x.any |= 1ull << i;
		if (lc_zeros_cover(&c->core.ring.zeros, lc_place(e->id, block)))
			x.zeroed |= 1ull << i;
	}
	if (LC_MUTANT(zeros_explain_all))
		x.any |= x.zeroed;
	x.zeroed &= ~x.any;
	return x;
}

/* Another volume whose fingerprint these samples are, or NULL. */
static const struct lc_volume_entry *owner_of(const struct lc_cache *c,
					      const struct lc_volume_entry *e,
					      const u32 samples[LC_NR_SAMPLES], u64 compare)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *other = &c->core.meta.volumes[id];
		struct explained x;
		u64 differ = 0;

		if (!other->id || other == e || other->size_bytes != e->size_bytes)
			continue;
		x = explained(c, other);
		for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
			differ |= (u64)(samples[i] != other->samples[i]) << i;
		if (!(differ & compare & ~x.any & ~x.zeroed))
			return other;
	}
	return NULL;
}

/*
 * Is the backing store neither blank, nor is there anything on it, besides zeros, that is as it was when the fingerprint was taken? All
 * of the samples that could show it may be among those that are explained.
 */
static bool is_doubtful(const struct lc_volume_entry *e, struct lc_store *backing, void *scratch)
{
	bool blank = true;

	for (unsigned i = 0; i < LC_NR_SAMPLES; i++) {
		u32 samples[LC_NR_SAMPLES];

		/* One that cannot be read may be one that is to be overwritten. */
		if (lc_samples_read(backing, e->size_bytes, 1ull << i, scratch, samples) ||
		    !memcmp(scratch, lc_zero_block, LC_BLOCK))
			continue;
		if (samples[i] == e->samples[i])
			return false;
		blank = false;
	}
	return !blank && !LC_MUTANT(never_in_doubt);
}

static bool has_zero_sector(const u8 *block)
{
	for (const u8 *s = block; s < block + LC_BLOCK; s += LC_SECTOR)
		if (!s[0] && !memcmp(s, s + 1, LC_SECTOR - 1))
			return true;
	return false;
}

/*
 * Is each of the samples in WHICH as it was, or zeros, at least in part? What cannot be read is none of another disk's data: a
 * power cut while it was zeroed may have left it so, and it will be written.
 */
static bool may_be_zeroed(const struct lc_volume_entry *e, struct lc_store *backing, u64 which,
			  void *scratch)
{
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++) {
		u32 samples[LC_NR_SAMPLES];

		if (which & 1ull << i &&
		    !lc_samples_read(backing, e->size_bytes, 1ull << i, scratch, samples) &&
		    samples[i] != e->samples[i] && !has_zero_sector(scratch))
			return false;
	}
	return true;
}

/* Is this the backing store that the table entry is about? */
static int check_backing(struct lc_cache *c, struct lc_volume_entry *e, struct lc_store *backing,
			 struct lc_error *err)
{
	u64 dirty = dirty_blocks_of(&c->core.ring, e->id);
	struct explained x = explained(c, e);
	u64 compare = ~x.any & ~x.zeroed;
	u32 samples[LC_NR_SAMPLES];
	void *scratch;
	const struct lc_volume_entry *owner;
	bool same = true, doubtful = false;
	int ret;

	if (backing->size_bytes < e->size_bytes)
		return lc_fail(err, -EBUSY,
			       "%s: has %llu bytes, but had %llu when the cache %s last served it as volume "
			       "%s: give the right backing store, or restore its size; logcachectl forget lets the "
			       "cache forget the volume%s",
			       backing->name, (unsigned long long)backing->size_bytes,
			       (unsigned long long)e->size_bytes, c->core.ssd->name,
			       lc_volume_shown(e->name),
			       dirty ? ", and the data for it that was not written back yet" : "");
	/*
	 * The cache was attached or detached: there is nothing to compare. If it has data all the same, the detach failed: the
	 * cache stayed, and the fingerprint is right.
	 */
	if (e->unverified && (!dirty || LC_MUTANT(failed_detach_counts)))
		return 0;
	e->unverified = false;
	scratch = lc_alloc(LC_BLOCK);
	if (!scratch)
		return lc_fail(err, -ENOMEM, "%s: no memory to check it", backing->name);
	ret = lc_samples_read(backing, e->size_bytes, compare, scratch, samples);
	if (!ret && dirty) {
		same = may_be_zeroed(e, backing, x.zeroed, scratch);
		doubtful = is_doubtful(e, backing, scratch);
	}
	lc_free(scratch, LC_BLOCK);
	if (ret)
		return lc_fail(err, ret, "%s: cannot be read: %s; check it, and the kernel's log",
			       backing->name, strerror(-ret));
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		if (compare & 1ull << i && samples[i] != e->samples[i])
			same = false;
	if (same && doubtful && backing->size_bytes > e->size_bytes)
		return lc_fail(err, -EBUSY,
			       "%s: has %llu bytes, but had %llu when the cache %s last served it as volume %s, and "
			       "nothing on it shows that it is the same one, while the cache holds %llu blocks for it "
			       "that were not written back yet: give the right backing store; or, if this is the "
			       "one, and has grown, serve it once at its old size (losetup --sizelimit) with "
			       "on-exit=drain; nothing was changed",
			       backing->name, (unsigned long long)backing->size_bytes,
			       (unsigned long long)e->size_bytes, c->core.ssd->name,
			       lc_volume_shown(e->name), (unsigned long long)dirty);
	if (same && doubtful)
		lc_log(LC_LOG_WARNING,
		       "%s: nothing on it shows that it is the backing store that the cache %s holds %llu blocks for "
		       "which were not written back yet: it is taken for that of volume %s",
		       backing->name, c->core.ssd->name, (unsigned long long)dirty,
		       lc_volume_shown(e->name));
	if (same)
		return 0;
	owner = owner_of(c, e, samples, compare);
	if (dirty && owner)
		return lc_fail(err, -EBUSY,
			       "%s: is not the backing store of volume %s, for which the cache %s holds %llu "
			       "blocks that were not written back yet, but looks like that of volume %s: "
			       "are they swapped? nothing was changed",
			       backing->name, lc_volume_shown(e->name), c->core.ssd->name,
			       (unsigned long long)dirty, lc_volume_shown(owner->name));
	if (dirty)
		return lc_fail(err, -EBUSY,
			       "%s: is not the backing store that the cache %s belongs to, or somebody wrote "
			       "to it without the cache, which holds %llu blocks for volume %s that were "
			       "not written back yet: give the right backing store, or give these blocks up with "
			       "logcachectl forget; nothing was changed",
			       backing->name, c->core.ssd->name, (unsigned long long)dirty,
			       lc_volume_shown(e->name));
	lc_log(LC_LOG_WARNING,
	       "%s: was changed without the cache, or is another one than before: the clean blocks "
	       "cached for volume %s are dropped",
	       backing->name, lc_volume_shown(e->name));
	drop_volume(c, e);
	e->unverified = true;
	return 0;
}

/*
 * A store has grown whose old end was inside a sector: cached copies of that sector have zeros where new data is
 * now. What is clean is dropped, for good; what is dirty has to go to the store as it was.
 */
static int check_growth(struct lc_cache *c, struct lc_volume_entry *e,
			const struct lc_store *backing, struct lc_error *err)
{
	if (e->size_bytes % LC_SECTOR == 0)
		return 0;
	if (dirty_blocks_of(&c->core.ring, e->id))
		return lc_fail(err, -EBUSY,
			       "%s: has grown from %llu bytes, which is not a multiple of %u, while the "
			       "cache %s held data that was not written back: give it that size "
			       "again, serve it once with on-exit=drain, then let it grow",
			       backing->name, (unsigned long long)e->size_bytes, LC_SECTOR,
			       c->core.ssd->name);
	drop_volume(c, e);
	return 0;
}

/* Is a volume of this name served? */
static bool served(const struct lc_cache *c, const char *name)
{
	for (unsigned i = 0; i < c->nr_volumes; i++)
		if (!strcmp(c->volumes[i].name, name))
			return true;
	return false;
}

static struct lc_volume_entry *find_entry(struct lc_cache *c, const char *name)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		if (c->core.meta.volumes[id].id && !strcmp(c->core.meta.volumes[id].name, name))
			return &c->core.meta.volumes[id];
	return NULL;
}

/* Does the cache hold anything of a volume that must not be forgotten? */
static bool disposable(const struct lc_cache *c, u8 id)
{
	return !dirty_blocks_of(&c->core.ring, id) && !lc_bad_any(&c->core.meta.bad, id);
}

/*
 * A table entry for a new volume: an unused one, or that of a volume which is neither served nor needed. What
 * the log still has under its id is void from now on.
 */
static struct lc_volume_entry *new_entry(struct lc_cache *c, const char *name)
{
	struct lc_volume_entry *e = NULL;

	for (u32 id = 1; id <= LC_VOLUMES_MAX && !e; id++)
		if (!c->core.meta.volumes[id].id)
			e = &c->core.meta.volumes[id];
	for (u32 id = 1; id <= LC_VOLUMES_MAX && !e; id++)
		if (!served(c, c->core.meta.volumes[id].name) && disposable(c, id))
			e = &c->core.meta.volumes[id];
	if (!e)
		return NULL;
	if (e->id) {
		lc_log(LC_LOG_WARNING, "%s: volume %s is forgotten, to make room for %s",
		       c->core.ssd->name, lc_volume_shown(e->name), lc_volume_shown(name));
		drop_volume(c, e);
	}
	*e = (struct lc_volume_entry){
		.id = e - c->core.meta.volumes,
		.from_seq = c->recovery.cut_seq + 1,
	};
	memcpy(e->name, name, strlen(name));
	lc_random(e->uuid, sizeof e->uuid);
	/* A forget that was interrupted (forget.c) may have left lost blocks of another volume. */
	lc_bad_clear_range(&c->core.meta.bad, e->id, 0, LC_BLOCK_NR_MAX, UINT64_MAX);
	return e;
}

int lc_wait_quiet(struct lc_cache *c, struct lc_store *s, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	u64 until_ns = LC_MUTANT(sample_at_once) ? 0 : lc_store_quiet_ns(s), now_ns = lc_now_ns();
	bool interrupted;

	if (until_ns <= now_ns)
		return 0;
	lc_log(LC_LOG_INFO,
	       "%s: waiting for %.1f s (backing-fence) before its fingerprint is taken: until then it may still execute "
	       "what an earlier server asked of it",
	       s->name, (double)(until_ns - now_ns) / LC_NS_PER_S);
	lc_mutex_lock(&core->lock);
	while (!c->interrupted && lc_now_ns() < until_ns) {
		core->path_waiters++;
		lc_cond_wait(&core->path, &core->lock, until_ns);
		core->path_waiters--;
	}
	interrupted = c->interrupted;
	lc_mutex_unlock(&core->lock);
	return interrupted ? lc_fail(err, -ECANCELED, "interrupted") : 0;
}

/* A table entry for the volume, and a fingerprint of its present size. */
static int bind_volume(struct lc_cache *c, struct lc_volume *v, bool attach, struct lc_error *err)
{
	struct lc_store *backing = v->backing;
	struct lc_volume_entry *e = find_entry(c, v->name);
	bool elsewhere = attach || (e && e->unverified);
	int ret = 0;

	if (!e)
		e = new_entry(c, v->name);
	else if (attach)
		drop_volume(c, e);
	else
		ret = check_backing(c, e, backing, err);
	if (!e)
		return lc_fail(err, -ENOSPC,
			       "%s: the cache knows %u volumes already, and has lost blocks of all of them that are "
			       "not served now, which it must remember: there is no room for %s; logcachectl forget "
			       "lets it forget one of them; nothing was changed",
			       c->core.ssd->name, LC_VOLUMES_MAX, lc_volume_shown(v->name));
	if (ret)
		return ret;
	v->id = e->id;
	c->by_id[e->id] = v;
	c->changed[lc_volume_page(e->id)] |= elsewhere;
	/* Left out, new or replaced in the last epoch, it would begin there (drop_absent, new_entry, check_backing). */
	v->continued = !attach && !e->unverified && c->core.meta.sb.clean &&
		       c->core.meta.sb.settled &&
		       (e->from_seq < c->core.meta.sb.first || LC_MUTANT(trust_left_out));
	/*
	 * What was lost when it was served without the cache since has been somebody else's affair; but not what was lost later, when a
	 * detach had failed.
	 */
	if (elsewhere)
		lc_bad_clear_range(&c->core.meta.bad, e->id, 0, LC_BLOCK_NR_MAX,
				   LC_MUTANT(losses_end_with_a_detach) ? UINT64_MAX :
									 e->from_seq - 1);
	if (attach) { /* clients go on writing: the fingerprint is taken later */
		e->size_bytes = backing->size_bytes;
		e->unverified = true;
		c->changed[lc_volume_page(e->id)] = true;
		return 0;
	}
	if (e->size_bytes && e->size_bytes < backing->size_bytes) {
		ret = check_growth(c, e, backing, err);
		if (ret)
			return ret;
		lc_log(LC_LOG_INFO, "%s: has grown from %llu to %llu bytes", backing->name,
		       (unsigned long long)e->size_bytes, (unsigned long long)backing->size_bytes);
	}
	if (e->size_bytes != backing->size_bytes || e->unverified) {
		void *scratch;

		ret = v->continued ? 0 : lc_wait_quiet(c, backing, err);
		if (ret)
			return ret;
		/* What can be read there may be in its cache alone, from an earlier life or from somebody else. */
		ret = LC_MUTANT(sample_without_flush) ? 0 : lc_store_flush(backing);
		if (ret)
			return lc_fail(err, ret,
				       "%s: flush fails: %s; check it, and the kernel's log",
				       backing->name, strerror(-ret));
		scratch = lc_alloc(LC_BLOCK);
		if (!scratch)
			return lc_fail(err, -ENOMEM, "%s: no memory to read it", backing->name);
		e->size_bytes = backing->size_bytes;
		e->unverified = false;
		e->unsure = 0;
		ret = lc_samples_read(backing, e->size_bytes, ~0ull, scratch, e->samples);
		lc_free(scratch, LC_BLOCK);
		if (ret)
			return lc_fail(err, ret,
				       "%s: cannot be read: %s; check it, and the kernel's log",
				       backing->name, strerror(-ret));
		c->changed[lc_volume_page(e->id)] = true;
	} else {
		/*
		 * What explains that they may be others goes away: records, when the tail passes them; lost blocks, when
		 * they are overwritten. Then the table has to.
		 */
		u64 unsure = e->unsure;

		if (!LC_MUTANT(all_samples_are_sure))
			unsure |= explained(c, e).any;
		c->changed[lc_volume_page(e->id)] |= unsure != e->unsure;
		e->unsure = unsure;
	}
	return 0;
}

/* I12: a cache never starts without a backing store that it holds dirty data for. */
static int check_absent(struct lc_cache *c, struct lc_error *err)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *e = &c->core.meta.volumes[id];
		u64 dirty = dirty_blocks_of(&c->core.ring, id);

		if (e->id && dirty && !served(c, e->name))
			return lc_fail(err, -EBUSY,
				       "%s: the cache holds %llu blocks for volume %s that were not "
				       "written back yet: serve that volume, too, with its backing store of "
				       "%llu bytes, or give these blocks up with logcachectl forget; "
				       "nothing was changed",
				       c->core.ssd->name, (unsigned long long)dirty,
				       lc_volume_shown(e->name), (unsigned long long)e->size_bytes);
	}
	return 0;
}

/* A volume that is left out loses its clean blocks: nobody knows what happens to its backing store meanwhile. */
static void drop_absent(struct lc_cache *c)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		struct lc_volume_entry *e = &c->core.meta.volumes[id];

		if (!e->id || c->by_id[id] || e->from_seq > c->recovery.cut_seq ||
		    LC_MUTANT(absent_stays_cached))
			continue;
		drop_volume(c, e);
		c->changed[lc_volume_page(e->id)] = true;
	}
}

/* Attaching must not bring back what was not written back before the volumes were served without it. */
static int check_nothing_dirty(struct lc_cache *c, struct lc_error *err)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		u64 dirty = dirty_blocks_of(&c->core.ring, id);

		if (dirty)
			return lc_fail(err, -EBUSY,
				       "%s: the cache holds %llu blocks for volume %s that were not "
				       "written back yet, and that volume has been served without it since: "
				       "give the cache at the start to recover them, or format it to give "
				       "them up; nothing was changed",
				       c->core.ssd->name, (unsigned long long)dirty,
				       lc_volume_shown(c->core.meta.volumes[id].name));
	}
	return 0;
}

int lc_bind_volumes(struct lc_cache *c, bool attach, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	int ret = attach ? check_nothing_dirty(c, err) : check_absent(c, err);

	for (u32 id = 1; id <= LC_VOLUMES_MAX && !ret; id++)
		if (core->meta.volumes[id].from_seq > c->recovery.cut_seq + 1)
			ret = lc_fail(err, -EUCLEAN,
				      "%s: volume %s begins at record %llu, but the log ends at %llu: the "
				      "cache device is corrupt; nothing was changed",
				      core->ssd->name, lc_volume_shown(core->meta.volumes[id].name),
				      (unsigned long long)core->meta.volumes[id].from_seq,
				      (unsigned long long)c->recovery.cut_seq);
	find_logged(c);
	for (unsigned i = 0; i < c->nr_volumes && !ret; i++)
		ret = bind_volume(c, &c->volumes[i], attach, err);
	if (!ret)
		drop_absent(c);
	return ret;
}
