/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect.h"

#include <assert.h>
#include <string.h>

#include "cache.h"

#define SCAN_DEPTH 64u
#define ZONE_USED_BLOCKS (LC_NR_PAGES * 2)

/* --- metadata pages --- */

/* 0, or why this is no cache at all. */
static int judge_copies(struct lc_inspect *in, u8 *zone, const bool *readable)
{
	int err = readable[0] && readable[1] ? -EMEDIUMTYPE : -EIO;

	for (u32 page = 0; page < LC_NR_PAGES; page++) {
		for (u32 i = 0; i < 2; i++) {
			static const enum lc_copy_state states[] = {
				[LC_PAGE_OK] = LC_COPY_OK,
				[LC_PAGE_BROKEN] = LC_COPY_BROKEN,
				[LC_PAGE_UNKNOWN] = LC_COPY_UNKNOWN,
			};
			struct lc_copy *c = &in->copies[page][i];
			struct lc_page_info info;

			c->state = states[lc_page_verify(zone + (page * 2ull + i) * LC_BLOCK, page,
							 &info)];
			if (!readable[page * 2 + i])
				c->state = LC_COPY_UNREADABLE;
			c->version = info.version;
			c->generation = info.generation;
			memcpy(c->uuid, info.uuid, LC_UUID_BYTES);
		}
	}
	for (u32 i = 0; i < 2; i++)
		if (readable[i] && lc_page_recognize(zone + (size_t)i * LC_BLOCK))
			err = 0;
	return err;
}

/* The pages of another cache are none: the superblock says which one this is. */
static void judge_uuids(struct lc_inspect *in)
{
	const struct lc_copy *sb = in->copies[LC_PAGE_SUPERBLOCK];
	u32 newest = sb[1].state == LC_COPY_OK &&
		     (sb[0].state != LC_COPY_OK || sb[1].generation > sb[0].generation);

	if (sb[newest].state != LC_COPY_OK)
		return;
	for (u32 page = LC_PAGE_VOLUMES; page < LC_NR_PAGES; page++)
		for (u32 i = 0; i < 2; i++)
			if (in->copies[page][i].state == LC_COPY_OK &&
			    memcmp(in->copies[page][i].uuid, sb[newest].uuid, LC_UUID_BYTES))
				in->copies[page][i].state = LC_COPY_FOREIGN;
}

/* Let the pages without a good copy be empty ones of the same cache. */
static int replace_lost(struct lc_inspect *in, const u8 *zone, const bool *readable, u8 *block)
{
	const struct lc_copy *sb = in->copies[LC_PAGE_SUPERBLOCK];
	struct lc_page_info info = {.generation = 1};
	int err = 0;

	for (u32 page = 0; page < LC_NR_PAGES && !err; page++) {
		const struct lc_copy *c = in->copies[page];
		const u8 *copy = zone + page * 2ull * LC_BLOCK;
		bool ok[2] = {c[0].state == LC_COPY_OK, c[1].state == LC_COPY_OK};

		in->differ[page] = ok[0] && ok[1] && c[0].generation == c[1].generation &&
				   memcmp(copy, copy + LC_BLOCK, LC_BLOCK);
		memset(block, 0, LC_BLOCK);
		if (page != LC_PAGE_SUPERBLOCK && !ok[0] && !ok[1]) {
			in->lost[page] = true;
			in->nr_lost++;
			info.page = page;
			memcpy(info.uuid, sb[sb[0].state != LC_COPY_OK].uuid, LC_UUID_BYTES);
			lc_page_seal(block, &info);
		}
		/* What cannot be read would keep the engine from reading its neighbours. */
		for (u32 i = 0; i < 2 && !err; i++) {
			if (in->lost[page])
				err = lc_overlay_put(&in->overlay, page * 2ull + i, block);
			else if (!readable[page * 2 + i])
				err = lc_overlay_put(&in->overlay, page * 2ull + i,
						     ok[!i] ? copy + (size_t)!i * LC_BLOCK : block);
		}
	}
	return err;
}

static int load_meta(struct lc_inspect *in)
{
	if (in->core.meta.ssd)
		lc_meta_destroy(&in->core.meta);
	in->meta_error = lc_meta_load(&in->core.meta, &in->overlay.store, &in->meta_text);
	return in->meta_error;
}

static int open_meta(struct lc_inspect *in)
{
	u8 *zone = lc_alloc((size_t)(ZONE_USED_BLOCKS + 1) * LC_BLOCK);
	bool *readable = lc_alloc(ZONE_USED_BLOCKS * sizeof *readable);
	int err = -ENOMEM;

	if (zone && readable) {
		for (u32 i = 0; i < ZONE_USED_BLOCKS; i++)
			readable[i] = !lc_store_read(in->ssd, zone + (size_t)i * LC_BLOCK, LC_BLOCK,
						     (u64)i * LC_BLOCK);
		err = judge_copies(in, zone, readable);
		if (!err) {
			judge_uuids(in);
			err = replace_lost(in, zone, readable,
					   zone + (size_t)ZONE_USED_BLOCKS * LC_BLOCK);
		}
	}
	lc_free(zone, (size_t)(ZONE_USED_BLOCKS + 1) * LC_BLOCK);
	lc_free(readable, ZONE_USED_BLOCKS * sizeof *readable);
	return err ? err : load_meta(in) == -ENOMEM ? -ENOMEM : 0;
}

int lc_inspect_open(struct lc_store *ssd, struct lc_inspect **out, struct lc_error *err)
{
	struct lc_inspect *in;
	int ret;

	if (ssd->size_bytes < (u64)ZONE_USED_BLOCKS * LC_BLOCK)
		return lc_fail(err, -EMEDIUMTYPE, "%s: too small to hold a cache", ssd->name);
	in = lc_alloc(sizeof *in);
	if (!in)
		return lc_fail(err, -ENOMEM, "%s: no memory to look at it", ssd->name);
	in->ssd = ssd;
	lc_overlay_init(&in->overlay, ssd);
	in->core.ssd = &in->overlay.store;
	lc_mutex_init(&in->core.lock);
	lc_settings_init(&in->core.settings);
	ret = open_meta(in);
	if (ret == -ENOMEM)
		lc_fail(err, ret, "%s: no memory to look at it", ssd->name);
	else if (ret == -EMEDIUMTYPE)
		lc_fail(err, ret,
			"'%s' is not a logcache: there is no superblock on it; check the path",
			ssd->name);
	else if (ret)
		lc_fail(err, ret,
			"%s: the superblock cannot be read: check the device and the kernel's log",
			ssd->name);
	if (ret) {
		lc_inspect_close(in);
		return ret;
	}
	*out = in;
	return 0;
}

void lc_inspect_again(struct lc_inspect *in)
{
	const struct lc_ring *ring = &in->core.ring;
	size_t segment_bytes = (size_t)ring->segment_blocks * LC_BLOCK;

	lc_free(in->places, ring->nr * sizeof *in->places);
	lc_free(in->births, in->max_births * sizeof *in->births);
	lc_free(in->segment, segment_bytes);
	lc_free(in->readable, ring->segment_blocks * sizeof *in->readable);
	in->places = NULL;
	in->births = NULL;
	in->nr_births = in->max_births = 0;
	in->segment = NULL;
	in->readable = NULL;
	if (in->has_ring)
		lc_ring_destroy(&in->core.ring);
	in->has_ring = false;
	in->log_error = 0;
	in->log_text.text[0] = '\0';
}

void lc_inspect_close(struct lc_inspect *in)
{
	lc_inspect_again(in);
	if (in->core.meta.ssd)
		lc_meta_destroy(&in->core.meta);
	lc_overlay_destroy(&in->overlay);
	lc_mutex_destroy(&in->core.lock);
	lc_free(in, sizeof *in);
}

/* --- the log --- */

bool lc_inspect_void(const struct lc_inspect *in, u64 epoch, u64 seq)
{
	for (u32 i = in->nr_births; i-- > 0 && in->births[i].epoch > epoch;)
		if (in->births[i].first <= seq)
			return true;
	return false;
}

static int grow_births(struct lc_inspect *in, u32 max)
{
	struct lc_birth *births = lc_alloc(max * sizeof *births);

	if (!births)
		return -ENOMEM;
	if (in->nr_births)
		memcpy(births, in->births, in->nr_births * sizeof *births);
	lc_free(in->births, in->max_births * sizeof *in->births);
	in->births = births;
	in->max_births = max;
	return 0;
}

int lc_inspect_birth(struct lc_inspect *in, u64 epoch, u64 first)
{
	u32 i = in->nr_births;

	while (i > 0 && in->births[i - 1].epoch > epoch)
		i--;
	if (i > 0 && in->births[i - 1].epoch == epoch) {
		if (first < in->births[i - 1].first)
			in->births[i - 1].first = first;
		return 0;
	}
	if (in->nr_births == in->max_births && grow_births(in, 2 * in->max_births))
		return -ENOMEM;
	memmove(&in->births[i + 1], &in->births[i], (in->nr_births - i) * sizeof *in->births);
	in->births[i] = (struct lc_birth){epoch, first};
	in->nr_births++;
	return 0;
}

static enum lc_content state_of(const struct lc_inspect *in, u32 i)
{
	const struct lc_inspect_place *p = &in->places[i];
	const struct lc_ring *ring = &in->core.ring;
	u64 tail = in->core.meta.sb.tail_id;

	if (!p->id)
		return p->state;
	if (ring->segments[i].id == p->id) /* the recovery has found it */
		return p->id > tail ? LC_CONTENT_DIRTY : LC_CONTENT_CLEAN;
	if (lc_inspect_void(in, p->epoch, p->seq))
		return LC_CONTENT_VOID;
	return p->id > tail ? LC_CONTENT_BEYOND : LC_CONTENT_OLD;
}

/* Is BLOCK, which is block K of the place that is loaded, a header that belongs there? */
static bool is_record(const struct lc_inspect *in, const void *block, u32 k,
		      struct lc_record_info *r, struct lc_slot entries[LC_ENTRIES_MAX])
{
	const struct lc_ring *ring = &in->core.ring;

	return lc_record_decode(block, r, entries) &&
	       !memcmp(r->uuid, in->core.meta.uuid, LC_UUID_BYTES) && r->position == k &&
	       (r->segment_id - 1) % ring->nr == in->loaded &&
	       k + 1 + r->nr_entries <= ring->segment_blocks;
}

/* What the block at the beginning of a place says. */
static void scan_header(struct lc_inspect *in, u32 i, const void *block,
			struct lc_slot entries[LC_ENTRIES_MAX])
{
	struct lc_inspect_place *p = &in->places[i];
	struct lc_record_info r;

	in->loaded = i;
	if (!is_record(in, block, 0, &r, entries))
		return;
	p->id = r.segment_id;
	p->seq = r.seq;
	p->epoch = r.epoch;
	p->first = r.first;
	p->durable_seq = r.durable_seq;
	(void)lc_inspect_birth(in, r.epoch, r.first); /* there is room for one of each place */
}

/* One read of a first header; unused ones are linked. */
struct scan_io {
	struct lc_io io;
	u32 place;
	struct scan_io *next;
};

static void scan(struct lc_inspect *in, struct lc_queue *q, struct scan_io *ios, u8 *memory,
		 lc_progress progress, void *arg)
{
	const struct lc_ring *ring = &in->core.ring;
	struct lc_slot entries[LC_ENTRIES_MAX];
	struct scan_io *unused = NULL;
	u32 place = 0, in_flight = 0;

	for (u32 i = 0; i < SCAN_DEPTH; i++) {
		ios[i].io.buf = memory + (size_t)i * LC_BLOCK;
		ios[i].next = unused;
		unused = &ios[i];
	}
	while (place < ring->nr || in_flight) {
		for (; place < ring->nr && unused; in_flight++) {
			struct scan_io *s = unused;
			u32 slot = ring->zone_blocks + place * ring->segment_blocks;

			unused = s->next;
			s->place = place++;
			s->io = (struct lc_io){.op = LC_IO_READ,
					       .buf = s->io.buf,
					       .len_bytes = LC_BLOCK,
					       .offset_bytes = lc_slot_offset_bytes(slot),
					       .owner = s};
			lc_queue_submit(q, &s->io);
		}
		for (struct lc_io *done = lc_queue_wait(q, LC_FOREVER); done; in_flight--) {
			struct scan_io *s = done->owner;

			done = done->next;
			if (s->io.result)
				in->places[s->place].state = LC_CONTENT_UNREADABLE;
			else
				scan_header(in, s->place, s->io.buf, entries);
			s->next = unused;
			unused = s;
		}
		if (progress)
			progress(arg, place, ring->nr);
	}
}

static int scan_places(struct lc_inspect *in, lc_progress progress, void *arg, struct lc_error *err)
{
	struct scan_io *ios = lc_alloc(SCAN_DEPTH * sizeof *ios);
	u8 *memory = lc_alloc(SCAN_DEPTH * LC_BLOCK);
	struct lc_queue *q = NULL;
	int ret;

	in->births[0] = (struct lc_birth){in->core.meta.sb.epoch, in->core.meta.sb.first};
	in->nr_births = 1;
	if (ios && memory)
		ret = lc_queue_open(&in->overlay.store, SCAN_DEPTH, NULL, 0, &q, err);
	else
		ret = lc_fail(err, -ENOMEM, "%s: no memory to look at it", in->ssd->name);
	if (!ret) {
		assert(q);
		scan(in, q, ios, memory, progress, arg);
		lc_queue_close(q);
		for (u32 i = 0; i < in->core.ring.nr; i++)
			in->places[i].state = state_of(in, i);
	}
	lc_free(ios, SCAN_DEPTH * sizeof *ios);
	lc_free(memory, SCAN_DEPTH * LC_BLOCK);
	return ret;
}

int lc_inspect_log(struct lc_inspect *in, lc_progress progress, void *arg, struct lc_error *err)
{
	struct lc_ring *ring = &in->core.ring;
	const struct lc_superblock *sb = &in->core.meta.sb;

	assert(!in->meta_error && !in->has_ring);
	if (load_meta(in)) /* afresh: a recovery takes entries off the list of lost blocks */
		return lc_fail(err, in->meta_error, "%s", in->meta_text.text);
	if (lc_ring_init(ring, sb->zone_blocks, sb->segment_blocks, sb->nr_segments))
		return lc_fail(err, -ENOMEM, "%s: no memory for the index of %llu blocks",
			       in->ssd->name, (unsigned long long)sb->device_blocks);
	in->has_ring = true;
	in->places = lc_alloc(ring->nr * sizeof *in->places);
	if (grow_births(in, ring->nr + 1))
		return lc_fail(err, -ENOMEM, "%s: no memory to look at it", in->ssd->name);
	in->segment = lc_alloc((size_t)ring->segment_blocks * LC_BLOCK);
	in->readable = lc_alloc(ring->segment_blocks * sizeof *in->readable);
	if (!in->places || !in->segment || !in->readable)
		return lc_fail(err, -ENOMEM, "%s: no memory to look at it", in->ssd->name);
	in->log_error = lc_recover(&in->core, &in->recovery, &in->log_text);
	if (in->log_error == -ENOMEM)
		return lc_fail(err, -ENOMEM, "%s", in->log_text.text);
	return scan_places(in, progress, arg, err);
}

/* --- one place --- */

static u64 place_offset_bytes(const struct lc_inspect *in, u32 k)
{
	const struct lc_ring *ring = &in->core.ring;

	return lc_slot_offset_bytes(ring->zone_blocks + in->loaded * ring->segment_blocks + k);
}

void lc_inspect_load(struct lc_inspect *in, u32 place, bool whole)
{
	u32 blocks = in->core.ring.segment_blocks;
	bool ok;

	in->loaded = place;
	in->whole = whole;
	if (!whole)
		return;
	ok = !lc_store_read(&in->overlay.store, in->segment, blocks * LC_BLOCK,
			    place_offset_bytes(in, 0));
	for (u32 k = 0; k < blocks; k++)
		in->readable[k] = ok || !lc_store_read(&in->overlay.store,
						       in->segment + (size_t)k * LC_BLOCK, LC_BLOCK,
						       place_offset_bytes(in, k));
}

const u8 *lc_inspect_block(struct lc_inspect *in, u32 k)
{
	if (in->whole)
		return in->readable[k] ? in->segment + (size_t)k * LC_BLOCK : NULL;
	return lc_store_read(&in->overlay.store, in->segment, LC_BLOCK, place_offset_bytes(in, k)) ?
		       NULL :
		       in->segment;
}

bool lc_inspect_record(struct lc_inspect *in, u32 k, struct lc_record_info *r,
		       struct lc_slot entries[LC_ENTRIES_MAX])
{
	const u8 *block = lc_inspect_block(in, k);

	return block && is_record(in, block, k, r, entries);
}

bool lc_inspect_summary(struct lc_inspect *in, u64 id, struct lc_summary_info *s,
			struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX])
{
	const struct lc_ring *ring = &in->core.ring;
	const u8 *block = lc_inspect_block(in, ring->segment_blocks - 1);

	return block && lc_summary_decode(block, s, entries) &&
	       !memcmp(s->uuid, in->core.meta.uuid, LC_UUID_BYTES) && s->segment_id == id &&
	       s->nr_entries + s->nr_records < ring->segment_blocks;
}

const char *lc_inspect_volume(const struct lc_inspect *in, u8 id)
{
	const struct lc_volume_entry *v = &in->core.meta.volumes[id];

	return v->id ? lc_volume_shown(v->name) : "?";
}
