/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write.c - writes of clients, into the log. volume.h says how writers of one block get along.
 */
#include <assert.h>
#include <string.h>

#include "path.h"

const u8 lc_zero_block[LC_BLOCK];

/*
 * A block of a segment buffer will be written: it was last used tens of MiB of log ago. Asked for at once, its lines come from memory
 * side by side; a copy alone has no more of them on their way than the CPU has room for stores.
 */
static void fetch(u8 *to)
{
	for (u32 at = 0; at < LC_BLOCK; at += LC_CACHE_LINE)
		__builtin_prefetch(to + at, 1);
}

/*
 * NR blocks of client data, or zeros, into the log, and their checksums: those are done while the lines are on their way, and take no
 * time of their own.
 */
static void fill(u8 *to, const u8 *from, u32 nr, u32 *crcs)
{
	for (u32 i = 0; i < nr; i++, to += LC_BLOCK) {
		const u8 *block = from ? from + (size_t)i * LC_BLOCK : lc_zero_block;

		fetch(to);
		crcs[i] = lc_crc32c(block, LC_BLOCK);
		lc_copy(to, block, LC_BLOCK);
	}
}

/* A part of a block. */
static void fill_part(u8 *to, const u8 *from, u32 n)
{
	lc_copy(to, from ? from : lc_zero_block, n);
}

/* --- publishing [lock] --- */

/* BYTES of the request are in place, in blocks with these CRCS; the index shall know. */
static void publish(struct lc_volume *v, struct lc_request *rq, const struct lc_chunk *chunk,
		    bool reused, u8 mask, u32 bytes, const u32 *crcs)
{
	struct lc_core *c = v->core;
	struct lc_ring *ring = &c->ring;

	c->client_ops++;
	c->stats.writes += !rq->counted;
	rq->counted = true;
	c->stats.write_bytes += bytes;
	lc_request_logged(rq, c, chunk->seq);
	if (!reused)
		rq->pay_ns = lc_pace_charge(c, chunk->slot, chunk->nr);
	for (u32 i = 0; i < chunk->nr; i++) {
		struct lc_slot *s = lc_index_slot(&ring->index, chunk->slot + i);
		u32 old = chunk->slot;

		if (!reused || !LC_MUTANT(overwrite_keeps_crc))
			s->crc = crcs[i];
		if (reused) {
			s->key |= (u64)mask << 8; /* these sectors are valid now, too */
		} else {
			lc_block_publish(ring, chunk->slot + i, &old);
		}
		c->stats.blocks[LC_KIND_WRITE | (old ? LC_KIND_HIT : 0) |
				(old && lc_ring_segment_of(ring, old)->buffer >= 0 ? LC_KIND_BUFFER : 0) |
				(bytes >= LC_BLOCK ? LC_KIND_WHOLE : 0)]++;
		lc_bad_clear(&c->meta.bad, v->id, lc_key_block(s->key), lc_key_mask(s->key));
	}
	lc_log_published(v->log, chunk);
}

/* --- whole blocks --- */

/* Somebody else changes these blocks. [lock; released meanwhile] */
static int wait_for_ranges(struct lc_volume *v, struct lc_request *rq)
{
	lc_ranges_wait(&v->ranges);
	return lc_core_still_wanted(v->core, rq->since_ns);
}

/*
 * Write up to NR whole blocks, at most one chunk. Returns how many, 0 without a log, or -errno. I6: they
 * become visible only after the copy.
 */
static int write_whole(struct lc_volume *v, struct lc_request *rq, u64 block, u32 nr, const u8 *buf)
{
	struct lc_core *c = v->core;
	struct lc_log *log;
	struct lc_range range = {.block = block};
	struct lc_chunk chunk;
	u32 crcs[LC_CHUNK_BLOCKS];
	bool reused = false;
	int err;

	if (nr > LC_CHUNK_BLOCKS)
		nr = LC_CHUNK_BLOCKS;
	lc_volume_announce(v, block, nr);
	lc_mutex_lock(&c->lock);
	err = lc_path_write(v, rq, &log);
	if (err || !log) {
		lc_mutex_unlock(&c->lock);
		return err;
	}
	for (;;) {
		u32 free = lc_ranges_free(&v->ranges, block, nr);

		if (nr == 1 && free) {
			u32 slot = lc_log_find_open(log, v->id, block);

			reused = slot && lc_log_reuse(log, slot, &chunk);
		}
		if (free && (reused || lc_log_reserve(log, v->id, block, LC_MASK_FULL, free, &chunk)))
			break;
		if (free)
			err = lc_log_wait_space(log, false, rq->since_ns);
		else
			err = wait_for_ranges(v, rq);
		if (err) {
			lc_path_write_done(v);
			lc_log_unlock(log);
			return err;
		}
	}
	range.nr = chunk.nr;
	lc_range_enter(&v->ranges, &range);
	if (nr > 1)
		lc_volume_fetch(v, block, chunk.nr);
	lc_log_unlock(log);

	if (LC_MUTANT(publish_before_copy)) {
		for (u32 i = 0; i < chunk.nr; i++)
			crcs[i] = lc_crc32c(buf ? buf + (size_t)i * LC_BLOCK : lc_zero_block,
					    LC_BLOCK);
		lc_mutex_lock(&c->lock);
		publish(v, rq, &chunk, reused, LC_MASK_FULL, chunk.nr * LC_BLOCK, crcs);
		lc_log_unlock(log);
	}
	fill(lc_log_data(log, chunk.slot), buf, chunk.nr, crcs);

	lc_mutex_lock(&c->lock);
	if (!LC_MUTANT(publish_before_copy))
		publish(v, rq, &chunk, reused, LC_MASK_FULL, chunk.nr * LC_BLOCK, crcs);
	lc_range_leave(&v->ranges, &range);
	lc_path_write_done(v);
	lc_log_unlock(log);
	return chunk.nr;
}

/* --- parts of blocks --- */

/* Bytes [from, to) of a block. */
struct part {
	u64 block;
	u32 from, to;
	u8 mask; /* sectors that it touches */
	bool aligned;
	const u8 *buf; /* NULL: zeros */
};

/* Overwrite the part in the block's slot, if that is possible without reading anything. [lock] */
static bool reuse_for_part(struct lc_volume *v, const struct part *p, struct lc_chunk *chunk)
{
	u32 slot = lc_log_find_open(v->log, v->id, p->block);

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
	fill_part(scratch + p->from, p->buf, p->to - p->from);
	*mask |= p->mask;
	return 0;
}

/* A new slot for the block, made of SCRATCH. [lock; released meanwhile] */
static int append_part(struct lc_volume *v, struct lc_request *rq, const struct part *p,
		       const u8 *scratch, u8 mask)
{
	struct lc_core *c = v->core;
	struct lc_log *log = v->log;
	struct lc_chunk chunk;
	u32 crc;
	int err = lc_core_still_wanted(c, rq->since_ns);

	while (!err && !lc_log_reserve(log, v->id, p->block, mask, 1, &chunk))
		err = lc_log_wait_space(log, false, rq->since_ns);
	if (err)
		return err;
	lc_log_unlock(log);
	fill(lc_log_data(log, chunk.slot), scratch, 1, &crc);
	lc_mutex_lock(&c->lock);
	publish(v, rq, &chunk, false, mask, p->to - p->from, &crc);
	return 0;
}

/* 1; 0 without a log; or -errno. */
static int write_part(struct lc_volume *v, struct lc_request *rq, const struct part *p)
{
	struct lc_core *c = v->core;
	struct lc_log *log;
	struct lc_range range = {.block = p->block, .nr = 1, .exclusive = true};
	struct lc_chunk chunk;
	u8 *scratch = NULL, *slot_data;
	u8 mask;
	u32 crc;
	int err;

	lc_mutex_lock(&c->lock);
	err = lc_path_write(v, rq, &log);
	if (err || !log) {
		lc_mutex_unlock(&c->lock);
		return err;
	}
	lc_range_enter_alone(&v->ranges, &range);
	err = lc_core_still_wanted(c, rq->since_ns);
	if (!err && reuse_for_part(v, p, &chunk)) {
		lc_log_unlock(log);
		slot_data = lc_log_data(log, chunk.slot);
		fill_part(slot_data + p->from, p->buf, p->to - p->from);
		crc = lc_crc32c(slot_data, LC_BLOCK);
		lc_mutex_lock(&c->lock);
		publish(v, rq, &chunk, true, p->mask, p->to - p->from, &crc);
	} else if (!err) {
		lc_log_unlock(log);
		scratch = lc_scratch_get(c);
		err = scratch ? merge_part(v, p, scratch, &mask) : -ENOMEM;
		lc_mutex_lock(&c->lock);
		if (!err)
			err = append_part(v, rq, p, scratch, mask);
	}
	lc_range_leave(&v->ranges, &range);
	lc_path_write_done(v);
	lc_log_unlock(log);
	lc_scratch_put(c, scratch);
	return err ? err : 1;
}

/* As much of [at, end) as one step takes, through the log: bytes, 0 without a log, or -errno. */
static int64_t write_step(struct lc_volume *v, struct lc_request *rq, const u8 *from, u64 at, u64 end)
{
	struct part p = {.block = at / LC_BLOCK, .from = at % LC_BLOCK, .buf = from};
	int ret;

	if (!p.from && end - at >= LC_BLOCK) {
		u64 nr = (end - at) / LC_BLOCK;

		ret = write_whole(v, rq, p.block, nr < LC_CHUNK_BLOCKS ? nr : LC_CHUNK_BLOCKS, from);
		return ret > 0 ? (int64_t)ret * LC_BLOCK : ret;
	}
	p.to = end - at < LC_BLOCK - p.from ? p.from + (end - at) : LC_BLOCK;
	p.mask = lc_sector_mask(p.from, p.to);
	p.aligned = p.from % LC_SECTOR == 0 && p.to % LC_SECTOR == 0;
	ret = write_part(v, rq, &p);
	return ret > 0 ? (int64_t)(p.to - p.from) : ret;
}

/* A step has taken room in a log that has little: pace.h. A long request pays for a part of itself, as clients have patience. */
static void pay(struct lc_volume *v, struct lc_request *rq)
{
	struct lc_core *c = v->core;

	lc_mutex_lock(&c->lock);
	if (lc_now_ns() < rq->began_ns + c->settings.client_timeout_ms * LC_NS_PER_MS / 4)
		/* Nobody counts us: the log, and the ring, may go meanwhile. */
		while (v->log && lc_pace_owes(c, rq->pay_ns))
			lc_cond_wait(&c->pace.paid, &c->lock, rq->pay_ns);
	lc_mutex_unlock(&c->lock);
	rq->pay_ns = 0;
}

int lc_volume_write(struct lc_volume *v, struct lc_request *rq, const void *buf, u64 len_bytes,
		    u64 offset_bytes)
{
	const u8 *from = buf;
	u64 at = offset_bytes, end = offset_bytes + len_bytes;

	while (at < end) {
		int64_t ret = write_step(v, rq, from, at, end);

		if (!ret)
			ret = lc_direct_write(v, rq, from, end - at, at);
		if (ret < 0)
			return ret;
		if (rq->pay_ns)
			pay(v, rq);
		at += ret;
		if (from)
			from += ret;
	}
	return 0;
}

/* --- durability --- */

/*
 * Make durable what is in the log up to SEQ (0: all that it has now) of the SSD of that number. What was in the log of an SSD that
 * was detached since is on the backing store, durably. Without a log: -ENODEV.
 */
static int flush_log(struct lc_volume *v, u64 seq, u64 attachment)
{
	struct lc_core *c = v->core;
	struct lc_log *log;
	int err = 0;

	lc_mutex_lock(&c->lock);
	log = lc_path_read(v);
	if (!log) {
		lc_mutex_unlock(&c->lock);
		return -ENODEV;
	}
	if (!attachment || attachment == c->attachment)
		err = lc_log_commit(log, seq ? seq : lc_log_newest_seq(log));
	lc_path_read_done(v);
	lc_log_unlock(log);
	return err;
}

int lc_volume_finish(struct lc_volume *v, const struct lc_request *rq, unsigned flags)
{
	int err = 0;

	if (!(flags & LC_FUA))
		return 0;
	if (rq->newest_seq)
		err = flush_log(v, rq->newest_seq, rq->attachment);
	if (err == -ENODEV)
		err = 0;
	return !err && rq->direct ? lc_direct_flush(v, rq->failures) : err;
}

int lc_write(struct lc_volume *v, const void *buf, u32 len_bytes, u64 offset_bytes, unsigned flags)
{
	struct lc_request rq = {0};
	int err;

	lc_volume_announce(v, offset_bytes / LC_BLOCK, 1);
	assert(offset_bytes + len_bytes <= v->size_bytes && !(flags & ~LC_FUA));
	err = lc_request_begin(&rq, v->core);
	if (!err)
		err = lc_volume_write(v, &rq, buf, len_bytes, offset_bytes);
	return err ? err : lc_volume_finish(v, &rq, flags);
}

int lc_flush(struct lc_volume *v)
{
	struct lc_core *c = v->core;
	u64 failures;
	int err;

	lc_mutex_lock(&c->lock);
	c->client_ops++;
	c->stats.flushes++;
	failures = v->flush_failures;
	lc_mutex_unlock(&c->lock);
	err = flush_log(v, 0, 0);
	return err == -ENODEV ? lc_direct_flush(v, failures) : err;
}

void lc_client_begin(struct lc_volume *v, struct lc_client *c)
{
	lc_mutex_lock(&v->core->lock);
	c->failures_heard = v->failures_told;
	lc_mutex_unlock(&v->core->lock);
}

int lc_client_flush(struct lc_volume *v, struct lc_client *c)
{
	u64 heard;
	int err;

	/* Now: another flush of C may hear meanwhile of what was written before this one, but not before that one. */
	lc_mutex_lock(&v->core->lock);
	heard = c->failures_heard;
	lc_mutex_unlock(&v->core->lock);
	err = lc_flush(v);
	lc_mutex_lock(&v->core->lock);
	if (!err && heard != v->flush_failures && !LC_MUTANT(first_client_hears))
		err = v->flush_error;
	c->failures_heard = v->failures_told = v->flush_failures;
	lc_mutex_unlock(&v->core->lock);
	return err;
}
