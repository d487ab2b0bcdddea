/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.c - format, open, start, drain, close: ties the rooms together.
 *
 * Opening has two halves. The first only reads: metadata, recovery, and whether each backing store is the
 * one that the cache knows (I12); every refusal is in it. The second begins the new epoch: the
 * superblock first, durable in both copies (I1), then what changed in the volume table.
 */
#include <assert.h>
#include <string.h>

#include "fingerprint.h"
#include "recover.h"
#include "writeback.h"

struct lc_cache {
	struct lc_core core;
	struct lc_log log;
	struct lc_writeback writeback;
	struct lc_recovery recovery;
	struct lc_volume *volumes; /* [nr_volumes], in the order of the specs */
	struct lc_volume *by_id[LC_VOLUMES_MAX + 1];
	bool changed[LC_NR_PAGES]; /* metadata pages to be written at opening */
	unsigned nr_volumes;
};

/* --- format --- */

static bool segment_bytes_ok(u32 bytes)
{
	return bytes >= LC_SEGMENT_MIN_BYTES && bytes <= LC_SEGMENT_MAX_BYTES &&
	       !(bytes & (bytes - 1));
}

u64 lc_cache_min_bytes(u32 segment_bytes)
{
	return (u64)LC_SEGMENTS_MIN * segment_bytes + lc_zone_blocks(0) * LC_BLOCK;
}

int lc_cache_format(struct lc_store *ssd, const struct lc_format_options *o, struct lc_error *err)
{
	u64 blocks = ssd->size_bytes / LC_BLOCK, nr_segments;
	struct lc_superblock sb = {.epoch = 1, .first = 1, .tail_seq = 1, .clean = true};

	if (!segment_bytes_ok(o->segment_bytes))
		return lc_fail(err, -EINVAL,
			       "segment size %u: it must be a power of two from %u to %u bytes",
			       o->segment_bytes, LC_SEGMENT_MIN_BYTES, LC_SEGMENT_MAX_BYTES);
	if (o->label && strlen(o->label) >= LC_LABEL_BYTES)
		return lc_fail(err, -EINVAL, "label \"%s\": longer than %u bytes", o->label,
			       LC_LABEL_BYTES - 1);
	if (ssd->size_bytes < lc_cache_min_bytes(o->segment_bytes))
		return lc_fail(err, -ENOSPC,
			       "%s: %llu bytes are too small for a cache: with segments of %u bytes it "
			       "takes at least %llu, with the smallest ones at least %llu",
			       ssd->name, (unsigned long long)ssd->size_bytes, o->segment_bytes,
			       (unsigned long long)lc_cache_min_bytes(o->segment_bytes),
			       (unsigned long long)lc_cache_min_bytes(LC_SEGMENT_MIN_BYTES));
	if (blocks > UINT32_MAX)
		blocks = UINT32_MAX; /* slots have 32 bits: 16 TiB */
	sb.device_blocks = blocks;
	sb.zone_blocks = lc_zone_blocks(blocks);
	sb.segment_blocks = o->segment_bytes / LC_BLOCK;
	nr_segments = (blocks - sb.zone_blocks) / sb.segment_blocks;
	sb.nr_segments = nr_segments;
	if (o->label)
		memcpy(sb.label, o->label, strlen(o->label));
	return lc_meta_format(ssd, &sb, err);
}

int lc_cache_probe(struct lc_store *ssd, struct lc_error *err)
{
	u8 *pages;
	int ret;

	if (ssd->size_bytes < 2 * LC_BLOCK)
		return 0;
	pages = lc_alloc(2 * LC_BLOCK);
	if (!pages)
		return lc_fail(err, -ENOMEM, "%s: no memory", ssd->name);
	ret = lc_store_read(ssd, pages, 2 * LC_BLOCK, 0);
	if (ret)
		lc_fail(err, ret, "%s: cannot be read: %s", ssd->name, strerror(-ret));
	else
		ret = lc_page_recognize(pages) || lc_page_recognize(pages + LC_BLOCK);
	lc_free(pages, 2 * LC_BLOCK);
	return ret;
}

/* --- settings --- */

void lc_settings_init(struct lc_settings *s)
{
	*s = (struct lc_settings){
		.nr_buffers = 64,
		.writeback = true,
		.dirty_low_percent = 10,
		.writeback_threshold_percent = 70,
		.dirty_high_percent = 80,
		.idle_ms = 1000,
		.flush_interval_ms = 1000,
		.retry_ms = 1000,
		.stall_timeout_ms = 30000,
		.client_timeout_ms = 30000,
	};
}

static int check_arguments(const struct lc_volume_spec *specs, unsigned nr,
			   const struct lc_settings *s, struct lc_error *err)
{
	if (nr < 1 || nr > LC_VOLUMES_MAX)
		return lc_fail(err, -EINVAL, "%u volumes: a cache serves 1 to %u", nr,
			       LC_VOLUMES_MAX);
	if (s->nr_buffers < 2 || s->nr_buffers > 1024)
		return lc_fail(err, -EINVAL, "%u segment buffers: it takes 2 to 1024", s->nr_buffers);
	if (s->dirty_low_percent > 100 || s->dirty_high_percent > 100)
		return lc_fail(err, -EINVAL,
			       "dirty-low %u, dirty-high %u: neither may be more than 100 per cent",
			       s->dirty_low_percent, s->dirty_high_percent);
	if (s->writeback_threshold_percent > 100)
		return lc_fail(err, -EINVAL, "writeback-threshold: %u is more than 100 per cent",
			       s->writeback_threshold_percent);
	for (unsigned i = 0; i < nr; i++) {
		if (strlen(specs[i].name) >= LC_NAME_BYTES)
			return lc_fail(err, -EINVAL, "volume name \"%s\": longer than %u bytes",
				       specs[i].name, LC_NAME_BYTES - 1);
		if (!specs[i].backing->size_bytes)
			return lc_fail(err, -EINVAL, "%s: is empty, there is nothing to serve",
				       specs[i].backing->name);
		if (specs[i].backing->size_bytes > LC_BLOCK_NR_MAX * LC_BLOCK)
			return lc_fail(err, -EFBIG,
				       "%s: has %llu bytes, a volume may have %llu (4 PiB)",
				       specs[i].backing->name,
				       (unsigned long long)specs[i].backing->size_bytes,
				       (unsigned long long)(LC_BLOCK_NR_MAX * LC_BLOCK));
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(specs[i].name, specs[k].name))
				return lc_fail(err, -EINVAL, "volume \"%s\" is given twice",
					       specs[i].name);
	}
	return 0;
}

/* --- opening, first half: decide (no writes) --- */

static const char *shown(const char *name)
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

/* Samples of the fingerprint whose change an entry above the tail, or a lost block, explains. */
static u64 explained(const struct lc_core *core, const struct lc_volume_entry *e)
{
	const struct lc_ring *ring = &core->ring;
	u64 which = 0;

	for (unsigned i = 0; i < LC_NR_SAMPLES; i++) {
		u64 block = lc_sample_block(e->size_bytes, i);
		u32 slot = lc_index_find(&ring->index, e->id, block);

		if (slot && lc_index_slot(&ring->index, slot)->key & LC_SLOT_DIRTY)
			which |= 1ull << i;
		if (lc_zeros_cover(&ring->zeros, lc_place(e->id, block)))
			which |= 1ull << i;
		/* A sweep that failed may have written it before it was lost. */
		if (lc_bad_mask(&core->meta.bad, e->id, block))
			which |= 1ull << i;
	}
	return which;
}

/* Another volume whose fingerprint these samples are, or NULL. */
static const struct lc_volume_entry *owner_of(const struct lc_cache *c,
					      const struct lc_volume_entry *e,
					      const u32 samples[LC_NR_SAMPLES], u64 compare)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *other = &c->core.meta.volumes[id];
		u64 differ = 0;

		if (!other->id || other == e || other->size_bytes != e->size_bytes)
			continue;
		for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
			differ |= (u64)(samples[i] != other->samples[i]) << i;
		if (!(differ & compare & ~explained(&c->core, other)))
			return other;
	}
	return NULL;
}

/* Is this the backing store that the table entry is about? */
static int check_backing(struct lc_cache *c, struct lc_volume_entry *e, struct lc_store *backing,
			 struct lc_error *err)
{
	u64 dirty = dirty_blocks_of(&c->core.ring, e->id);
	u64 compare = ~explained(&c->core, e);
	u32 samples[LC_NR_SAMPLES];
	void *scratch;
	const struct lc_volume_entry *owner;
	bool same = true;
	int ret;

	if (backing->size_bytes < e->size_bytes)
		return lc_fail(err, -EBUSY,
			       "%s: has %llu bytes, but had %llu when the cache %s last served it as volume "
			       "%s: give the right backing store, or restore its size%s",
			       backing->name, (unsigned long long)backing->size_bytes,
			       (unsigned long long)e->size_bytes, c->core.ssd->name, shown(e->name),
			       dirty ? "; the cache holds data that was not written back to it yet" :
				       "");
	scratch = lc_alloc(LC_BLOCK);
	if (!scratch)
		return lc_fail(err, -ENOMEM, "%s: no memory to check it", backing->name);
	ret = lc_samples_read(backing, e->size_bytes, compare, scratch, samples);
	lc_free(scratch, LC_BLOCK);
	if (ret)
		return lc_fail(err, ret, "%s: cannot be read: %s", backing->name, strerror(-ret));
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		if (compare & 1ull << i && samples[i] != e->samples[i])
			same = false;
	if (same)
		return 0;
	owner = owner_of(c, e, samples, compare);
	if (dirty && owner)
		return lc_fail(err, -EBUSY,
			       "%s: is not the backing store of volume %s, for which the cache %s holds %llu "
			       "blocks that were not written back yet, but looks like that of volume %s: "
			       "are they swapped? nothing was changed",
			       backing->name, shown(e->name), c->core.ssd->name,
			       (unsigned long long)dirty, shown(owner->name));
	if (dirty)
		return lc_fail(err, -EBUSY,
			       "%s: is not the backing store that the cache %s belongs to, or somebody wrote "
			       "to it without the cache, which holds %llu blocks for volume %s that were "
			       "not written back yet: give the right backing store; nothing was changed",
			       backing->name, c->core.ssd->name, (unsigned long long)dirty,
			       shown(e->name));
	lc_log(LC_LOG_WARNING,
	       "%s: was changed without the cache, or is another one than before: the clean blocks "
	       "cached for volume %s are dropped",
	       backing->name, shown(e->name));
	drop_volume(c, e);
	memcpy(e->samples, samples, sizeof samples);
	c->changed[lc_volume_page(e->id)] = true;
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

static bool specified(const struct lc_volume_spec *specs, unsigned nr, const char *name)
{
	for (unsigned i = 0; i < nr; i++)
		if (!strcmp(specs[i].name, name))
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
 * A table entry for a new volume: an unused one, or that of a volume which is not served (SPECS has NR volumes)
 * and not needed. What the log still has under its id is void from now on.
 */
static struct lc_volume_entry *new_entry(struct lc_cache *c, const struct lc_volume_spec *specs,
					 const char *name)
{
	struct lc_volume_entry *e = NULL;

	for (u32 id = 1; id <= LC_VOLUMES_MAX && !e; id++)
		if (!c->core.meta.volumes[id].id)
			e = &c->core.meta.volumes[id];
	for (u32 id = 1; id <= LC_VOLUMES_MAX && !e; id++)
		if (!specified(specs, c->nr_volumes, c->core.meta.volumes[id].name) &&
		    disposable(c, id))
			e = &c->core.meta.volumes[id];
	if (!e)
		return NULL;
	if (e->id) {
		lc_log(LC_LOG_WARNING, "%s: volume %s is forgotten, to make room for %s",
		       c->core.ssd->name, shown(e->name), shown(name));
		drop_volume(c, e);
	}
	*e = (struct lc_volume_entry){
		.id = e - c->core.meta.volumes,
		.from_seq = c->recovery.cut_seq + 1,
	};
	memcpy(e->name, name, strlen(name));
	lc_random(e->uuid, sizeof e->uuid);
	return e;
}

/* The I-th volume: a table entry, and a fingerprint of its present size. */
static int bind_volume(struct lc_cache *c, const struct lc_volume_spec *specs, unsigned i,
		       struct lc_error *err)
{
	const struct lc_volume_spec *spec = &specs[i];
	struct lc_store *backing = spec->backing;
	struct lc_volume_entry *e = find_entry(c, spec->name);
	int ret = 0;

	if (e)
		ret = check_backing(c, e, backing, err);
	else
		e = new_entry(c, specs, spec->name);
	if (!e)
		return lc_fail(err, -ENOSPC,
			       "%s: the cache knows %u volumes already, and holds data for all of them that "
			       "was not written back yet: there is no room for %s; serve them once with "
			       "on-exit=drain",
			       c->core.ssd->name, LC_VOLUMES_MAX, shown(spec->name));
	if (ret)
		return ret;
	if (e->size_bytes && e->size_bytes < backing->size_bytes) {
		ret = check_growth(c, e, backing, err);
		if (ret)
			return ret;
	}
	if (e->size_bytes != backing->size_bytes) {
		void *scratch = lc_alloc(LC_BLOCK);

		if (!scratch)
			return lc_fail(err, -ENOMEM, "%s: no memory to read it", backing->name);
		e->size_bytes = backing->size_bytes;
		ret = lc_samples_read(backing, e->size_bytes, ~0ull, scratch, e->samples);
		lc_free(scratch, LC_BLOCK);
		if (ret)
			return lc_fail(err, ret, "%s: cannot be read: %s", backing->name,
				       strerror(-ret));
		c->changed[lc_volume_page(e->id)] = true;
	}
	c->volumes[i].log = &c->log;
	c->volumes[i].id = e->id;
	c->by_id[e->id] = &c->volumes[i];
	return 0;
}

/*
 * I12: a cache never starts without a backing store that it holds dirty data for. A volume that is left out
 * without any loses its clean blocks: nobody knows what happens to its backing store meanwhile.
 */
static int check_absent(struct lc_cache *c, struct lc_error *err)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		struct lc_volume_entry *e = &c->core.meta.volumes[id];
		u64 dirty = dirty_blocks_of(&c->core.ring, id);

		if (!e->id || c->by_id[id])
			continue;
		if (dirty)
			return lc_fail(err, -EBUSY,
				       "%s: the cache holds %llu blocks for volume %s that were not "
				       "written back yet: serve that volume, too, with its backing store of "
				       "%llu bytes; nothing was changed",
				       c->core.ssd->name, (unsigned long long)dirty, shown(e->name),
				       (unsigned long long)e->size_bytes);
		if (e->from_seq > c->recovery.cut_seq || LC_MUTANT(absent_stays_cached))
			continue;
		drop_volume(c, e);
		c->changed[lc_volume_page(e->id)] = true;
	}
	return 0;
}

static int decide(struct lc_cache *c, const struct lc_volume_spec *specs, struct lc_error *err)
{
	struct lc_core *core = &c->core;
	int ret = lc_meta_load(&core->meta, core->ssd, err);

	if (ret)
		return ret;
	ret = lc_ring_init(&core->ring, core->meta.sb.zone_blocks, core->meta.sb.segment_blocks,
			   core->meta.sb.nr_segments);
	if (ret)
		return lc_fail(err, ret, "%s: no memory for the index of %llu blocks",
			       core->ssd->name, (unsigned long long)core->meta.sb.device_blocks);
	ret = lc_recover(core, &c->recovery, err);
	for (u32 id = 1; id <= LC_VOLUMES_MAX && !ret; id++)
		if (core->meta.volumes[id].from_seq > c->recovery.cut_seq + 1)
			ret = lc_fail(err, -EUCLEAN,
				      "%s: volume %s begins at record %llu, but the log ends at %llu: the "
				      "cache device is corrupt; nothing was changed",
				      core->ssd->name, shown(core->meta.volumes[id].name),
				      (unsigned long long)core->meta.volumes[id].from_seq,
				      (unsigned long long)c->recovery.cut_seq);
	for (unsigned i = 0; i < c->nr_volumes && !ret; i++)
		ret = bind_volume(c, specs, i, err);
	return ret ? ret : check_absent(c, err);
}

/* --- opening, second half: begin the epoch --- */

static int write_page(struct lc_cache *c, u32 page)
{
	return lc_meta_write(&c->core.meta, &c->core.lock, page,
			     (struct lc_flusher){lc_meta_flush_store, NULL, c->core.ssd});
}

static int begin_epoch(struct lc_cache *c, struct lc_error *err)
{
	struct lc_superblock *sb = &c->core.meta.sb;
	u64 cut_seq = c->recovery.cut_seq;
	int ret;

	c->recovery.was_clean = sb->clean;
	sb->epoch = c->recovery.max_epoch + !LC_MUTANT(same_epoch);
	if (!LC_MUTANT(old_first))
		sb->first = cut_seq + 1;
	sb->durable_seq = cut_seq; /* the device was flushed before it was read */
	sb->clean = false;
	ret = LC_MUTANT(epoch_not_durable) ?
		      0 :
		      write_page(c, LC_PAGE_SUPERBLOCK); /* I1: before any other write */
	for (u32 i = 0; i < LC_NR_BAD_PAGES; i++)
		c->changed[LC_PAGE_BAD + i] |= c->core.meta.bad.changed[i];
	for (u32 page = LC_PAGE_VOLUMES; page < LC_NR_PAGES && !ret; page++)
		if (c->changed[page] || c->core.meta.lonely[page])
			ret = write_page(c, page);
	if (ret)
		return lc_fail(err, ret, "%s: cannot write the metadata of the cache: %s",
			       c->core.ssd->name, strerror(-ret));
	return 0;
}

static void destroy(struct lc_cache *c)
{
	lc_writeback_destroy(&c->writeback);
	lc_log_destroy(&c->log);
	lc_scratch_destroy(&c->core);
	if (c->core.ring.segments)
		lc_ring_destroy(&c->core.ring);
	if (c->core.meta.ssd)
		lc_meta_destroy(&c->core.meta);
	for (unsigned i = 0; c->volumes && i < c->nr_volumes; i++)
		lc_ranges_destroy(&c->volumes[i].ranges);
	lc_mutex_destroy(&c->core.lock);
	lc_free(c->volumes, c->nr_volumes * sizeof *c->volumes);
	lc_free(c, sizeof *c);
}

static int no_memory(const struct lc_cache *c, struct lc_error *err)
{
	return lc_fail(err, -ENOMEM, "%s: no memory for %u segment buffers of %u bytes",
		       c->core.ssd->name, c->core.settings.nr_buffers,
		       c->core.ring.segment_blocks * LC_BLOCK);
}

/* Everything that needs an SSD. */
static int open_ssd(struct lc_cache *c, const struct lc_volume_spec *specs, struct lc_error *err)
{
	struct lc_store *ssd = c->core.ssd;
	/* What we are about to read is to be durable: a killed server may have left it in a cache. */
	int ret = LC_MUTANT(open_without_flush) ? 0 : lc_store_flush(ssd);

	if (ret)
		return lc_fail(err, ret, "%s: flush fails: %s", ssd->name, strerror(-ret));
	ret = decide(c, specs, err);
	if (!ret && lc_log_init(&c->log, &c->core, c->recovery.cut_seq + 1))
		ret = no_memory(c, err);
	if (!ret && lc_writeback_init(&c->writeback, &c->core, &c->log, c->by_id))
		ret = no_memory(c, err);
	if (!ret)
		ret = begin_epoch(c, err);
	c->log.epoch = c->core.meta.sb.epoch;
	c->log.first = c->core.meta.sb.first;
	return ret;
}

int lc_cache_open(struct lc_store *ssd, const struct lc_volume_spec *specs, unsigned nr_specs,
		  const struct lc_settings *settings, struct lc_cache **out, struct lc_error *err)
{
	struct lc_cache *c;
	int ret = check_arguments(specs, nr_specs, settings, err);

	if (ret)
		return ret;
	c = lc_alloc(sizeof *c);
	if (!c)
		return lc_fail(err, -ENOMEM, "no memory for %u volumes", nr_specs);
	c->core.ssd = ssd;
	c->core.settings = *settings;
	c->nr_volumes = nr_specs;
	lc_mutex_init(&c->core.lock);
	c->volumes = lc_alloc(nr_specs * sizeof *c->volumes);
	if (!c->volumes) {
		destroy(c);
		return lc_fail(err, -ENOMEM, "no memory for %u volumes", nr_specs);
	}
	for (unsigned i = 0; i < nr_specs; i++) {
		struct lc_volume *v = &c->volumes[i];

		v->core = &c->core;
		v->backing = specs[i].backing;
		v->size_bytes = v->backing->size_bytes;
		v->nr_blocks = lc_blocks_of(v->size_bytes);
		lc_ranges_init(&v->ranges, &c->core.lock);
	}
	ret = ssd ? open_ssd(c, specs, err) : 0;
	if (ret)
		destroy(c);
	else
		*out = c;
	return ret;
}

/* --- life --- */

int lc_cache_start(struct lc_cache *c, struct lc_error *err)
{
	int ret;

	if (!c->core.ssd)
		return 0;
	ret = lc_log_start(&c->log, err);
	if (ret)
		return ret;
	ret = lc_writeback_start(&c->writeback, err);
	if (ret)
		lc_log_stop(&c->log);
	return ret;
}

int lc_cache_drain(struct lc_cache *c)
{
	return c->core.ssd ? lc_writeback_drain(&c->writeback) : 0;
}

/* Without an SSD: what was written to the backing stores is durable. */
static int flush_all(struct lc_cache *c)
{
	int err = 0;

	for (unsigned i = 0; i < c->nr_volumes; i++) {
		int ret = lc_store_flush(c->volumes[i].backing);

		if (ret)
			err = ret;
	}
	return err;
}

int lc_cache_close(struct lc_cache *c)
{
	struct lc_superblock *sb = &c->core.meta.sb;
	int err;

	if (!c->core.ssd) {
		err = flush_all(c);
	} else {
		lc_writeback_stop(&c->writeback);
		err = lc_log_stop(&c->log);
		if (!err) {
			sb->clean = true;
			sb->durable_seq = c->log.durable_seq;
			err = write_page(c, LC_PAGE_SUPERBLOCK);
		}
	}
	destroy(c);
	return err;
}

struct lc_volume *lc_cache_volume(struct lc_cache *c, unsigned i)
{
	assert(i < c->nr_volumes);
	return &c->volumes[i];
}

bool lc_cache_has_ssd(const struct lc_cache *c)
{
	return c->core.ssd;
}

u64 lc_volume_size_bytes(const struct lc_volume *v)
{
	return v->size_bytes;
}

/* --- insight --- */

void lc_cache_stats(struct lc_cache *c, struct lc_stats *out)
{
	struct lc_core *core = &c->core;
	const struct lc_ring *ring = &core->ring;

	lc_mutex_lock(&core->lock);
	*out = core->stats;
	if (!core->ssd) {
		lc_mutex_unlock(&core->lock);
		return;
	}
	out->head_id = ring->head_id;
	out->tail_id = ring->tail_id;
	out->seq = lc_log_newest_seq(&c->log);
	out->durable_seq = c->log.durable_seq;
	out->epoch = core->meta.sb.epoch;
	out->nr_segments = ring->nr;
	out->segment_bytes = ring->segment_blocks * LC_BLOCK;
	out->was_clean = c->recovery.was_clean;
	out->recovered_records = c->recovery.dirty_records;
	out->dirty_segments = ring->head_id - ring->tail_id;
	out->dirty_blocks = ring->dirty_blocks;
	out->pending_zero_blocks = ring->zeros.blocks;
	out->cached_blocks = ring->index.nr_entries;
	out->capacity_blocks = (u64)ring->nr * (ring->segment_blocks - 1);
	out->memory_bytes = lc_index_bytes(&ring->index) + ring->nr * sizeof *ring->segments +
			    lc_zeros_bytes(&ring->zeros) + lc_sweep_bytes(&c->writeback.sweep) +
			    (u64)core->settings.nr_buffers * ring->segment_blocks * LC_BLOCK;
	lc_mutex_unlock(&core->lock);
}

double lc_memory_per_block(u32 segment_bytes)
{
	double blocks = (double)segment_bytes / LC_BLOCK;

	/* The slot table, the hash at its load of 0.8, sweeps, pending zeros, a share of the segment table. */
	return sizeof(struct lc_slot) + 4 * 1.25 + 0.75 + 0.03125 +
	       sizeof(struct lc_segment) / blocks;
}
