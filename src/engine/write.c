/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write.c - writes of clients, into the log. volume.h says how writers of one block get along.
 */
#include <assert.h>
#include <string.h>

#include "volume.h"

/* --- pending writes [lock] --- */

static void link_pending(struct lc_volume *v, struct lc_pending *p)
{
	p->next = v->pending;
	v->pending = p;
	v->nr_exclusive += p->exclusive;
}

static void unlink_pending(struct lc_volume *v, struct lc_pending *p)
{
	struct lc_pending **at = &v->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	v->nr_exclusive -= p->exclusive;
	if (v->log->published_waiters)
		lc_cond_broadcast(&v->log->published);
}

/*
 * The first block in [block, block + nr) that a whole-block write has to wait for (EXCLUSIVE_ONLY), or
 * that a part has to wait for (any overlap); block + nr if there is none.
 */
static u64 first_conflict(const struct lc_volume *v, u64 block, u32 nr, bool exclusive_only)
{
	u64 first = block + nr;

	if (exclusive_only && (!v->nr_exclusive || LC_MUTANT(whole_ignores_part)))
		return first;
	for (const struct lc_pending *p = v->pending; p; p = p->next) {
		u64 at = p->block > block ? p->block : block;

		if (exclusive_only && !p->exclusive)
			continue;
		if (at < p->block + p->nr && at < first)
			first = at;
	}
	return first;
}

/* --- publishing [lock] --- */

/* BYTES of client data are in place; the index shall know. */
static void publish(struct lc_volume *v, const struct lc_chunk *chunk, bool reused, u8 mask, u32 bytes)
{
	struct lc_core *c = v->core;
	struct lc_ring *ring = &c->ring;

	c->client_ops++;
	c->stats.write_bytes += bytes;
	for (u32 i = 0; i < chunk->nr; i++) {
		struct lc_slot *s = lc_index_slot(&ring->index, chunk->slot + i);
		u32 old = chunk->slot;

		if (reused) {
			s->key |= (u64)mask << 8; /* these sectors are valid now, too */
			c->stats.write_buffer_blocks++;
		} else {
			lc_block_publish(ring, chunk->slot + i, &old);
		}
		if (mask != LC_MASK_FULL)
			c->stats.write_partial_blocks++;
		if (old)
			c->stats.write_hit_blocks++;
		else
			c->stats.write_miss_blocks++;
		lc_bad_clear(&c->meta.bad, v->id, lc_key_block(s->key), lc_key_mask(s->key));
	}
	lc_log_published(v->log, chunk);
}

/* --- whole blocks --- */

/*
 * Write up to NR whole blocks, at most one chunk; FIRST of a request. Returns how many, or -errno; *SEQ gets
 * the record they are in. I6: they become visible only after the copy.
 */
static int write_whole(struct lc_volume *v, u64 block, u32 nr, const u8 *buf, bool first, u64 *seq)
{
	struct lc_core *c = v->core;
	struct lc_log *log = v->log;
	struct lc_pending pending = {.block = block};
	struct lc_chunk chunk;
	bool reused = false;

	if (nr > LC_CHUNK_BLOCKS)
		nr = LC_CHUNK_BLOCKS;
	lc_mutex_lock(&c->lock);
	c->stats.writes += first;
	for (;;) {
		u32 free = first_conflict(v, block, nr, true) - block;
		int err;

		if (!free) {
			lc_log_wait_published(log);
			continue;
		}
		if (nr == 1) {
			u32 slot = lc_index_find(&c->ring.index, v->id, block);

			reused = slot && lc_log_reuse(log, slot, &chunk);
		}
		if (reused || lc_log_reserve(log, v->id, block, LC_MASK_FULL, free, &chunk))
			break;
		err = lc_log_wait_space(log);
		if (err) {
			lc_log_unlock(log);
			return err;
		}
	}
	pending.nr = chunk.nr;
	link_pending(v, &pending);
	lc_log_unlock(log);

	if (LC_MUTANT(publish_before_copy)) {
		lc_mutex_lock(&c->lock);
		publish(v, &chunk, reused, LC_MASK_FULL, chunk.nr * LC_BLOCK);
		lc_log_unlock(log);
	}
	lc_copy(lc_log_data(log, chunk.slot), buf, (size_t)chunk.nr * LC_BLOCK);

	lc_mutex_lock(&c->lock);
	if (!LC_MUTANT(publish_before_copy))
		publish(v, &chunk, reused, LC_MASK_FULL, chunk.nr * LC_BLOCK);
	unlink_pending(v, &pending);
	lc_log_unlock(log);
	*seq = chunk.seq;
	return chunk.nr;
}

/* --- parts of blocks --- */

/* Bytes [from, to) of a block. */
struct part {
	u64 block;
	u32 from, to;
	u8 mask; /* sectors that it touches */
	bool aligned;
	const u8 *buf;
};

/* Overwrite the part in the block's slot, if that is possible without reading anything. [lock] */
static bool reuse_for_part(struct lc_volume *v, const struct part *p, struct lc_chunk *chunk)
{
	u32 slot = lc_index_find(&v->core->ring.index, v->id, p->block);

	if (!slot)
		return false;
	if (!p->aligned && p->mask & ~lc_key_mask(lc_index_slot(&v->core->ring.index, slot)->key))
		return false;
	return lc_log_reuse(v->log, slot, chunk);
}

/*
 * Put together what the new copy of the block holds: what is cached of it, the whole block for a part that
 * is not aligned to sectors, and the new data over it. MASK gets the sectors that are valid.
 */
static int merge_part(struct lc_volume *v, const struct part *p, u8 *scratch, u8 *mask)
{
	int err;

	if (p->aligned) {
		err = lc_volume_read_cached(v, p->block, scratch, mask);
		if (LC_MUTANT(no_merge))
			*mask = 0;
	} else {
		err = lc_volume_read_block(v, p->block, scratch);
		*mask = lc_volume_mask(v, p->block);
	}
	if (err)
		return err;
	for (u32 i = 0; i < LC_SECTORS_PER_BLOCK; i++)
		if (!(*mask & 1u << i)) /* nobody's data: not what an earlier block left here */
			memset(scratch + i * LC_SECTOR, 0, LC_SECTOR);
	memcpy(scratch + p->from, p->buf, p->to - p->from);
	*mask |= p->mask;
	return 0;
}

/* A new slot for the block, made of SCRATCH. [lock; released meanwhile] */
static int append_part(struct lc_volume *v, const struct part *p, const u8 *scratch, u8 mask,
		       struct lc_chunk *chunk)
{
	struct lc_core *c = v->core;
	struct lc_log *log = v->log;

	while (!lc_log_reserve(log, v->id, p->block, mask, 1, chunk)) {
		int err = lc_log_wait_space(log);

		if (err)
			return err;
	}
	lc_log_unlock(log);
	lc_copy(lc_log_data(log, chunk->slot), scratch, LC_BLOCK);
	lc_mutex_lock(&c->lock);
	publish(v, chunk, false, mask, p->to - p->from);
	return 0;
}

static int write_part(struct lc_volume *v, const struct part *p, bool first, u64 *seq)
{
	struct lc_core *c = v->core;
	struct lc_log *log = v->log;
	struct lc_pending pending = {.block = p->block, .nr = 1, .exclusive = true};
	struct lc_chunk chunk;
	u8 *scratch = NULL;
	u8 mask;
	int err = 0;

	lc_mutex_lock(&c->lock);
	c->stats.writes += first;
	while (!LC_MUTANT(part_ignores_pending) && first_conflict(v, p->block, 1, false) == p->block)
		lc_log_wait_published(log);
	link_pending(v, &pending);
	if (reuse_for_part(v, p, &chunk)) {
		lc_log_unlock(log);
		lc_copy(lc_log_data(log, chunk.slot) + p->from, p->buf, p->to - p->from);
		lc_mutex_lock(&c->lock);
		publish(v, &chunk, true, p->mask, p->to - p->from);
	} else {
		lc_log_unlock(log);
		scratch = lc_scratch_get(c);
		err = scratch ? merge_part(v, p, scratch, &mask) : -ENOMEM;
		lc_mutex_lock(&c->lock);
		if (!err)
			err = append_part(v, p, scratch, mask, &chunk);
	}
	unlink_pending(v, &pending);
	lc_log_unlock(log);
	lc_scratch_put(c, scratch);
	if (!err)
		*seq = chunk.seq;
	return err;
}

int lc_write(struct lc_volume *v, const void *buf, u32 len_bytes, u64 offset_bytes, unsigned flags)
{
	struct lc_core *c = v->core;
	const u8 *from = buf;
	u64 at = offset_bytes, end = offset_bytes + len_bytes, newest = 0, seq = 0;
	int err = 0;

	assert(end <= v->size_bytes);
	while (at < end && err >= 0) {
		u64 block = at / LC_BLOCK;
		u32 skip = at % LC_BLOCK, step;

		if (!skip && end - at >= LC_BLOCK) {
			u64 nr = (end - at) / LC_BLOCK;

			err = write_whole(v, block, nr, from, from == buf, &seq);
			step = err > 0 ? err * LC_BLOCK : 0;
		} else {
			struct part p = {.block = block, .from = skip, .buf = from};

			p.to = end - at < LC_BLOCK - skip ? skip + (end - at) : LC_BLOCK;
			p.mask = lc_sector_mask(p.from, p.to);
			p.aligned = p.from % LC_SECTOR == 0 && p.to % LC_SECTOR == 0;
			err = write_part(v, &p, from == buf, &seq);
			step = p.to - p.from;
		}
		at += step;
		from += step;
		if (seq > newest)
			newest = seq;
	}
	if (err < 0)
		return err;
	if (!(flags & LC_FUA))
		return 0;
	lc_mutex_lock(&c->lock);
	err = lc_log_commit(v->log, newest);
	lc_log_unlock(v->log);
	return err;
}
