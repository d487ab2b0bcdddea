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

#include "cache.h"
#include "fingerprint.h"
#include "path.h"

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
		lc_fail(err, ret, "%s: cannot be read: %s; check it, and the kernel's log",
			ssd->name, strerror(-ret));
	else
		ret = lc_page_recognize(pages) || lc_page_recognize(pages + LC_BLOCK);
	lc_free(pages, 2 * LC_BLOCK);
	return ret;
}

/* --- settings --- */

void lc_settings_init(struct lc_settings *s)
{
	*s = (struct lc_settings){
		.nr_buffers = LC_BUFFERS_MAX,
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
	if (s->nr_buffers < 2 || s->nr_buffers > LC_BUFFERS_MAX)
		return lc_fail(err, -EINVAL, "%u segment buffers: it takes 2 to %u", s->nr_buffers,
			       LC_BUFFERS_MAX);
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

static int decide(struct lc_cache *c, bool attach, struct lc_error *err)
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
	return ret ? ret : lc_bind_volumes(c, attach, err);
}

/* --- opening, second half: begin the epoch --- */

int lc_ssd_write_page(struct lc_cache *c, u32 page)
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
	sb->clean = sb->settled = false;
	ret = LC_MUTANT(epoch_not_durable) ?
		      0 :
		      lc_ssd_write_page(c, LC_PAGE_SUPERBLOCK); /* I1: before any other write */
	for (u32 i = 0; i < LC_NR_BAD_PAGES; i++)
		c->changed[LC_PAGE_BAD + i] |= c->core.meta.bad.changed[i];
	/* Lost blocks first: a crash must not leave a new volume in the table with what another one of its id has lost. */
	for (u32 page = LC_NR_PAGES; page-- > LC_PAGE_VOLUMES && !ret;)
		if (c->changed[page] || c->core.meta.lonely[page])
			ret = lc_ssd_write_page(c, page);
	if (ret)
		return lc_fail(err, ret, "%s: cannot write the metadata of the cache: %s",
			       c->core.ssd->name, strerror(-ret));
	return 0;
}

/* Let go of everything that stands on the SSD. */
static void forget_ssd(struct lc_cache *c)
{
	lc_writeback_destroy(&c->writeback);
	lc_log_destroy(&c->log);
	if (c->core.ring.segments)
		lc_ring_destroy(&c->core.ring);
	if (c->core.meta.ssd)
		lc_meta_destroy(&c->core.meta);
	c->core.meta = (struct lc_meta){0};
	c->recovery = (struct lc_recovery){0};
	memset(c->by_id, 0, sizeof c->by_id);
	memset(c->changed, 0, sizeof c->changed);
	memset(c->rewrite, 0, sizeof c->rewrite);
	lc_mutex_lock(&c->core.lock); /* somebody may be looking at these */
	for (unsigned i = 0; c->volumes && i < c->nr_volumes; i++) {
		c->volumes[i].id = 0;
		c->volumes[i].touched = 0;
		c->volumes[i].sampled = false;
		c->volumes[i].failing = false;
		c->volumes[i].failures = 0;
		c->volumes[i].retry_ns = c->volumes[i].swept = 0;
		c->volumes[i].round_blocks = 0;
	}
	c->core.stalled_since_ns = 0;
	if (c->core.ssd)
		c->core.stats.ssd_errors += lc_store_errors(c->core.ssd);
	c->core.ssd = NULL;
	lc_mutex_unlock(&c->core.lock);
}

static void destroy(struct lc_cache *c)
{
	forget_ssd(c);
	lc_scratch_destroy(&c->core);
	for (unsigned i = 0; c->volumes && i < c->nr_volumes; i++) {
		lc_ranges_destroy(&c->volumes[i].ranges);
		lc_cond_destroy(&c->volumes[i].flushed);
	}
	lc_cond_destroy(&c->core.path);
	lc_pace_destroy(&c->core.pace);
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

int lc_ssd_open(struct lc_cache *c, bool attach, struct lc_error *err)
{
	struct lc_store *ssd = c->core.ssd;
	u64 start_ns = lc_now_ns();
	/* What we are about to read is to be durable: a killed server may have left it in a cache. */
	int ret = LC_MUTANT(open_without_flush) ? 0 : lc_store_flush(ssd);

	if (ret)
		lc_fail(err, ret, "%s: flush fails: %s", ssd->name, strerror(-ret));
	if (!ret)
		ret = decide(c, attach, err);
	if (!ret && lc_log_init(&c->log, &c->core, c->recovery.cut_seq + 1))
		ret = no_memory(c, err);
	if (!ret && lc_writeback_init(&c->writeback, &c->core, &c->log, c->by_id))
		ret = no_memory(c, err);
	if (!ret)
		ret = begin_epoch(c, err);
	if (ret) {
		forget_ssd(c);
		return ret;
	}
	c->log.epoch = c->core.meta.sb.epoch;
	c->log.first = c->core.meta.sb.first;
	c->core.attachment++;
	c->recovery.opening_ns = lc_now_ns() - start_ns;
	return 0;
}

/* Can nothing that was written back, or straight, to any volume be executed later any more? */
static bool settled(struct lc_cache *c)
{
	for (unsigned i = 0; i < c->nr_volumes; i++)
		if (!lc_store_settled(c->volumes[i].backing))
			return false;
	return true;
}

int lc_ssd_close(struct lc_cache *c, int err)
{
	struct lc_superblock *sb = &c->core.meta.sb;

	for (u32 page = LC_PAGE_VOLUMES; page < LC_PAGE_BAD && !err; page++)
		if (c->rewrite[page])
			err = lc_ssd_write_page(c, page);
	if (!err) {
		sb->clean = true;
		sb->settled = LC_MUTANT(always_settled) || settled(c);
		sb->durable_seq = c->log.durable_seq;
		err = lc_ssd_write_page(c, LC_PAGE_SUPERBLOCK);
	}
	forget_ssd(c);
	return err;
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
	lc_cond_init(&c->core.path);
	lc_pace_init(&c->core.pace);
	c->volumes = lc_alloc(nr_specs * sizeof *c->volumes);
	if (!c->volumes) {
		destroy(c);
		return lc_fail(err, -ENOMEM, "no memory for %u volumes", nr_specs);
	}
	for (unsigned i = 0; i < nr_specs; i++) {
		struct lc_volume *v = &c->volumes[i];

		v->core = &c->core;
		memcpy(v->name, specs[i].name, strlen(specs[i].name));
		v->backing = specs[i].backing;
		v->size_bytes = v->backing->size_bytes;
		v->nr_blocks = lc_blocks_of(v->size_bytes);
		lc_ranges_init(&v->ranges, &c->core.lock);
		lc_cond_init(&v->flushed);
	}
	if (ssd) {
		ret = lc_ssd_open(c, false, err);
		if (ret) {
			destroy(c);
			return ret;
		}
		lc_settings_take_kept(&c->core.settings, &c->core.meta.sb);
		for (unsigned i = 0; i < nr_specs; i++) {
			c->volumes[i].log = &c->log;
			if (c->volumes[i].continued)
				lc_store_trust(c->volumes[i].backing);
		}
		c->state = LC_CACHE_ATTACHED;
	}
	*out = c;
	return 0;
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
	enum lc_cache_state state;
	int err;

	lc_mutex_lock(&c->core.lock);
	state = c->state;
	if (state == LC_CACHE_ATTACHED)
		lc_path_read(&c->volumes[0]); /* it is not detached under our feet */
	lc_mutex_unlock(&c->core.lock);
	if (state != LC_CACHE_ATTACHED)
		return state == LC_CACHE_NONE ? 0 : -EBUSY;
	err = lc_writeback_drain(&c->writeback, LC_FOREVER);
	lc_mutex_lock(&c->core.lock);
	lc_path_read_done(&c->volumes[0]);
	lc_mutex_unlock(&c->core.lock);
	return err;
}

int lc_cache_close(struct lc_cache *c)
{
	int err = 0;

	assert(c->state == LC_CACHE_NONE || c->state == LC_CACHE_ATTACHED);
	for (unsigned i = 0; i < c->nr_volumes; i++)
		if (!c->volumes[i].log) {
			int ret = lc_store_flush(c->volumes[i].backing);

			if (ret)
				err = ret;
		}
	if (c->state == LC_CACHE_ATTACHED) {
		int ret;

		lc_writeback_stop(&c->writeback);
		ret = lc_ssd_close(c, lc_log_stop(&c->log));
		if (ret)
			err = ret;
	}
	destroy(c);
	return err;
}

struct lc_volume *lc_cache_volume(struct lc_cache *c, unsigned i)
{
	assert(i < c->nr_volumes);
	return &c->volumes[i];
}

bool lc_cache_has_ssd(struct lc_cache *c)
{
	bool has;

	lc_mutex_lock(&c->core.lock);
	has = c->volumes[0].log; /* they all have one, or none has */
	lc_mutex_unlock(&c->core.lock);
	return has;
}

u64 lc_volume_size_bytes(const struct lc_volume *v)
{
	return v->size_bytes;
}
