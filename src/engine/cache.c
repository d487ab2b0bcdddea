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
		.idle_ms = 1000,
		.flush_interval_ms = 1000,
		.retry_ms = 1000,
		.stall_timeout_ms = 30000,
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
	if (s->dirty_low_percent > 100)
		return lc_fail(err, -EINVAL, "dirty-low: %u is more than 100 per cent",
			       s->dirty_low_percent);
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

static u64 dirty_blocks_of(const struct lc_ring *ring, u8 id)
{
	u64 nr = 0;

	for (u32 i = 0; i < ring->index.nr_slots; i++)
		nr += ring->index.slots[i].key & LC_SLOT_DIRTY &&
		      lc_key_volume(ring->index.slots[i].key) == id;
	return nr;
}

/* Forget what the cache holds of a volume; nothing of it is dirty. */
static void drop_volume(struct lc_cache *c, struct lc_volume_entry *e)
{
	struct lc_ring *ring = &c->core.ring;

	for (u32 i = 0; i < ring->index.nr_slots; i++) {
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
		/* A sweep that failed may have written it before it was lost. */
		if (lc_bad_mask(&core->meta.bad, e->id, block))
			which |= 1ull << i;
	}
	return which;
}

/* Is this the backing store that the table entry is about? */
static int check_backing(struct lc_cache *c, struct lc_volume_entry *e, struct lc_store *backing,
			 struct lc_error *err)
{
	u64 dirty = dirty_blocks_of(&c->core.ring, e->id);
	u64 compare = ~explained(&c->core, e);
	u32 samples[LC_NR_SAMPLES];
	void *scratch;
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

static struct lc_volume_entry *find_entry(struct lc_cache *c, const char *name)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		if (c->core.meta.volumes[id].id && !strcmp(c->core.meta.volumes[id].name, name))
			return &c->core.meta.volumes[id];
	return NULL;
}

static struct lc_volume_entry *new_entry(struct lc_cache *c, const struct lc_volume_spec *spec)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		struct lc_volume_entry *e = &c->core.meta.volumes[id];

		if (e->id)
			continue;
		*e = (struct lc_volume_entry){.id = id, .from_seq = c->recovery.cut_seq + 1};
		memcpy(e->name, spec->name, strlen(spec->name));
		lc_random(e->uuid, sizeof e->uuid);
		return e;
	}
	return NULL;
}

/* A table entry for the volume, and a fingerprint of its present size. */
static int bind_volume(struct lc_cache *c, struct lc_volume *v, const struct lc_volume_spec *spec,
		       struct lc_error *err)
{
	struct lc_store *backing = spec->backing;
	struct lc_volume_entry *e = find_entry(c, spec->name);
	int ret = 0;

	if (e)
		ret = check_backing(c, e, backing, err);
	else
		e = new_entry(c, spec);
	if (!e)
		return lc_fail(err, -ENOSPC,
			       "%s: the cache knows %u volumes already, there is no room for %s",
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
	*v = (struct lc_volume){
		.core = &c->core,
		.log = &c->log,
		.backing = backing,
		.size_bytes = backing->size_bytes,
		.nr_blocks = lc_blocks_of(backing->size_bytes),
		.id = e->id,
	};
	c->by_id[e->id] = v;
	return 0;
}

/* I12: a cache never starts without a backing store that it holds dirty data for. */
static int check_absent(struct lc_cache *c, struct lc_error *err)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *e = &c->core.meta.volumes[id];
		u64 dirty;

		if (!e->id || c->by_id[id])
			continue;
		dirty = dirty_blocks_of(&c->core.ring, id);
		if (dirty)
			return lc_fail(err, -EBUSY,
				       "%s: the cache holds %llu blocks for volume %s that were not "
				       "written back yet: serve that volume, too",
				       c->core.ssd->name, (unsigned long long)dirty, shown(e->name));
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
		ret = bind_volume(c, &c->volumes[i], &specs[i], err);
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

int lc_cache_open(struct lc_store *ssd, const struct lc_volume_spec *specs, unsigned nr_specs,
		  const struct lc_settings *settings, struct lc_cache **out, struct lc_error *err)
{
	struct lc_cache *c;
	int ret = check_arguments(specs, nr_specs, settings, err);

	if (ret)
		return ret;
	c = lc_alloc(sizeof *c);
	if (!c)
		return lc_fail(err, -ENOMEM, "%s: no memory", ssd->name);
	c->core.ssd = ssd;
	c->core.settings = *settings;
	c->nr_volumes = nr_specs;
	lc_mutex_init(&c->core.lock);
	c->volumes = lc_alloc(nr_specs * sizeof *c->volumes);
	if (!c->volumes) {
		ret = lc_fail(err, -ENOMEM, "%s: no memory", ssd->name);
		goto fail;
	}
	/* What we are about to read is to be durable: a killed server may have left it in a cache. */
	ret = LC_MUTANT(open_without_flush) ? 0 : lc_store_flush(ssd);
	if (ret) {
		lc_fail(err, ret, "%s: flush fails: %s", ssd->name, strerror(-ret));
		goto fail;
	}
	ret = decide(c, specs, err);
	if (!ret && lc_log_init(&c->log, &c->core, c->recovery.cut_seq + 1))
		ret = no_memory(c, err);
	if (!ret && lc_writeback_init(&c->writeback, &c->core, &c->log, c->by_id))
		ret = no_memory(c, err);
	if (!ret)
		ret = begin_epoch(c, err);
	if (ret)
		goto fail;
	c->log.epoch = c->core.meta.sb.epoch;
	c->log.first = c->core.meta.sb.first;
	*out = c;
	return 0;
fail:
	destroy(c);
	return ret;
}

/* --- life --- */

int lc_cache_start(struct lc_cache *c, struct lc_error *err)
{
	int ret = lc_log_start(&c->log, err);

	if (ret)
		return ret;
	ret = lc_writeback_start(&c->writeback, err);
	if (ret)
		lc_log_stop(&c->log);
	return ret;
}

int lc_cache_drain(struct lc_cache *c)
{
	return lc_writeback_drain(&c->writeback);
}

int lc_cache_close(struct lc_cache *c)
{
	struct lc_superblock *sb = &c->core.meta.sb;
	int err;

	lc_writeback_stop(&c->writeback);
	err = lc_log_stop(&c->log);
	if (!err) {
		sb->clean = true;
		sb->durable_seq = c->log.durable_seq;
		err = write_page(c, LC_PAGE_SUPERBLOCK);
	}
	destroy(c);
	return err;
}

struct lc_volume *lc_cache_volume(struct lc_cache *c, unsigned i)
{
	assert(i < c->nr_volumes);
	return &c->volumes[i];
}

u64 lc_volume_size_bytes(const struct lc_volume *v)
{
	return v->size_bytes;
}

int lc_flush(struct lc_volume *v)
{
	struct lc_core *c = v->core;
	int err;

	lc_mutex_lock(&c->lock);
	c->client_ops++;
	c->stats.flushes++;
	err = lc_log_commit(v->log, lc_log_newest_seq(v->log));
	lc_log_unlock(v->log);
	return err;
}

/* --- insight --- */

void lc_cache_stats(struct lc_cache *c, struct lc_stats *out)
{
	struct lc_core *core = &c->core;
	const struct lc_ring *ring = &core->ring;

	lc_mutex_lock(&core->lock);
	*out = core->stats;
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
	out->cached_blocks = ring->index.nr_entries;
	out->capacity_blocks = (u64)ring->nr * (ring->segment_blocks - 1);
	out->memory_bytes = lc_index_bytes(&ring->index) + ring->nr * sizeof *ring->segments +
			    lc_sweep_bytes(&c->writeback.sweep) +
			    (u64)core->settings.nr_buffers * ring->segment_blocks * LC_BLOCK;
	lc_mutex_unlock(&core->lock);
}

double lc_memory_per_block(u32 segment_bytes)
{
	double blocks = (double)segment_bytes / LC_BLOCK;

	/* The slot table, the hash at its load of 0.8, the sweep's buffers, a share of the segment table. */
	return sizeof(struct lc_slot) + 4 * 1.25 + 0.75 + sizeof(struct lc_segment) / blocks;
}
