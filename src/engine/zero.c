/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zero.c - zero and trim of clients, into the log; and what is a hole.
 *
 *	zero_range   one entry: reserve its slot, then in one go the range stands as pending (zeros.h), the index drops what
 *	             it has of it, and the record may leave (I5, I8)
 *
 * While that goes on nobody else writes in the range. The block of the entry's slot in the log is not used.
 */
#include <assert.h>
#include <string.h>

#include "path.h"

/* Zeros in fewer blocks are logged as data, and written back with their neighbours. */
#define ENTRY_MIN_BLOCKS 16u
/* Blocks looked up in one critical section. */
#define DROP_SLICE 64u
/*
 * What may be pending: a GiB, or as much as the store zeroes in half a second. A request that finds more waits for write-back, though
 * at most for half of its client's patience. What a store says of itself is not enough: a disk that zeroes without
 * being sent the zeros may need as long as for writes; and while write-back is at it, the tail stands still.
 */
#define PENDING_BLOCKS ((1ull << 30) / LC_BLOCK)
#define PENDING_MS 500u

bool lc_volume_can_trim(const struct lc_volume *v)
{
	return v->backing->can_punch;
}

bool lc_volume_can_fast_zero(const struct lc_volume *v)
{
	return v->backing->can_zero || v->backing->can_punch;
}

/* Will the backing store zero a range without writing it? */
static bool is_fast(const struct lc_volume *v, bool trim)
{
	return v->backing->can_zero || (trim && v->backing->can_punch);
}

/* More than write-back, which is at it, has to be given time for. A store that fails gets nowhere, however long one waits. [lock] */
static bool much_is_pending(const struct lc_volume *v)
{
	u64 blocks = v->core->ring.zeros.blocks_of[v->id];

	return !v->failing && blocks > PENDING_BLOCKS && blocks > v->zero_rate * PENDING_MS / 1000;
}

/* Let write-back get ahead of a store that has much to zero. [lock; released meanwhile] */
static void pace(struct lc_volume *v, struct lc_log *log, u64 began_ns)
{
	struct lc_core *c = v->core;
	u64 end_ns = began_ns + c->settings.client_timeout_ms * LC_NS_PER_MS / 2;

	while (much_is_pending(v) && lc_now_ns() < end_ns)
		if (lc_log_wait_zeroed(log, end_ns))
			break;
}

/* Everything that the index has of the range goes. [lock; released in between] */
static void drop_blocks(struct lc_volume *v, const struct lc_range *range)
{
	struct lc_core *c = v->core;
	u64 block = range->block;

	while (!lc_blocks_drop(&c->ring, v->id, &block, range->block + range->nr, DROP_SLICE)) {
		lc_mutex_unlock(&c->lock);
		lc_mutex_lock(&c->lock);
	}
	lc_bad_clear_range(&c->meta.bad, v->id, range->block, range->nr, UINT64_MAX);
}

/* One entry for blocks [block, block + nr). 1; 0 without a log; or -errno. */
static int zero_range(struct lc_volume *v, struct lc_request *rq, u64 block, u32 nr, bool trim)
{
	struct lc_core *c = v->core;
	struct lc_log *log;
	struct lc_range range = {.block = block, .nr = nr, .exclusive = true};
	struct lc_chunk chunk;
	int err;

	lc_mutex_lock(&c->lock);
	err = lc_path_write(v, rq, &log);
	if (err || !log) {
		lc_mutex_unlock(&c->lock);
		return err;
	}
	pace(v, log, rq->began_ns);
	lc_range_enter_first(&v->ranges, &range);
	err = lc_core_still_wanted(c, rq->since_ns);
	while (!err && !lc_log_reserve_zero(log, v->id, block, nr, trim, &chunk))
		err = lc_log_wait_space(log, true, rq->since_ns);
	if (!err) {
		lc_log_unlock(log);
		/* Nobody reads it; but what an earlier use of the buffer left there is nobody's business. */
		memset(lc_log_data(log, chunk.slot), 0, LC_BLOCK);
		lc_mutex_lock(&c->lock);
		c->client_ops++;
		lc_zeros_add(&c->ring, chunk.slot);
		/*
		 * Before the record may leave: once the entry is durable, write-back may zero the backing store,
		 * and an older block that it found in the index then would overwrite the zeros.
		 */
		drop_blocks(v, &range);
		lc_log_published(log, &chunk);
		lc_request_logged(rq, c, chunk.seq);
	}
	lc_range_leave(&v->ranges, &range);
	lc_path_write_done(v);
	lc_log_unlock(log);
	return err ? err : 1;
}

/* Zero blocks [first, end), step by step. TRIM: giving the space back; ONLY that, or nothing at all. */
static int zero_blocks(struct lc_volume *v, struct lc_request *rq, u64 first, u64 end, bool trim,
		       bool only)
{
	while (first < end) {
		u32 nr = end - first < LC_ZERO_BLOCKS_MAX ? end - first : LC_ZERO_BLOCKS_MAX;
		u64 at = first * LC_BLOCK, len = (u64)nr * LC_BLOCK;
		int64_t ret = zero_range(v, rq, first, nr, trim);

		if (ret > 0) {
			first += nr;
			continue;
		}
		if (!ret)
			ret = lc_direct_zero(v, rq, len, at, trim, only);
		if (ret == -EOPNOTSUPP) /* what cannot be trimmed stays */
			return 0;
		if (ret < 0)
			return ret;
		first += ret / LC_BLOCK;
	}
	return 0;
}

static void count(struct lc_volume *v, u64 *requests, u64 *bytes, u64 len_bytes)
{
	lc_mutex_lock(&v->core->lock);
	++*requests;
	*bytes += len_bytes;
	lc_mutex_unlock(&v->core->lock);
}

int lc_zero(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags)
{
	struct lc_stats *stats = &v->core->stats;
	struct lc_request rq = {.counted = true};
	bool trim = flags & LC_MAY_TRIM && v->backing->can_punch;
	u64 end_bytes = offset_bytes + len_bytes, first, end;
	int err;

	assert(end_bytes <= v->size_bytes && !(flags & ~(LC_FUA | LC_MAY_TRIM | LC_FAST_ONLY)));
	if (flags & LC_FAST_ONLY && !is_fast(v, trim))
		return -EOPNOTSUPP;
	err = lc_request_begin(&rq, v->core);
	if (err)
		return err;
	count(v, &stats->zeros, &stats->zero_bytes, len_bytes);
	lc_whole_blocks(len_bytes, offset_bytes, &first, &end);
	if (end < first + (trim ? 1 : ENTRY_MIN_BLOCKS)) {
		/* Few blocks: less than what one data write may have. */
		err = lc_volume_write(v, &rq, NULL, len_bytes, offset_bytes);
	} else {
		err = lc_volume_write(v, &rq, NULL, first * LC_BLOCK - offset_bytes, offset_bytes);
		if (!err)
			err = zero_blocks(v, &rq, first, end, trim, false);
		if (!err)
			err = lc_volume_write(v, &rq, NULL, end_bytes - end * LC_BLOCK,
					      end * LC_BLOCK);
	}
	return err ? err : lc_volume_finish(v, &rq, flags);
}

int lc_trim(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags)
{
	struct lc_stats *stats = &v->core->stats;
	struct lc_request rq = {.counted = true};
	u64 first, end;
	int err;

	assert(offset_bytes + len_bytes <= v->size_bytes && !(flags & ~LC_FUA));
	if (!v->backing->can_punch)
		return 0;
	err = lc_request_begin(&rq, v->core);
	if (err)
		return err;
	count(v, &stats->trims, &stats->trim_bytes, len_bytes);
	lc_whole_blocks(len_bytes, offset_bytes, &first, &end);
	err = zero_blocks(v, &rq, first, end, true, true);
	return err ? err : lc_volume_finish(v, &rq, flags);
}

/* --- extents --- */

/* Blocks looked at for one answer. */
#define EXTENT_BLOCKS_MAX 32768u

/* What the cache says of a block. */
enum block_kind { BLOCK_CACHED, BLOCK_ZERO, BLOCK_ABSENT };

static enum block_kind kind_of(const struct lc_volume *v, u64 block)
{
	const struct lc_ring *ring = &v->core->ring;

	if (lc_index_find(&ring->index, v->id, block) ||
	    lc_bad_mask(&v->core->meta.bad, v->id, block))
		return BLOCK_CACHED; /* what is lost is no hole either */
	return lc_zeros_cover(&ring->zeros, lc_place(v->id, block)) ? BLOCK_ZERO : BLOCK_ABSENT;
}

/* How many blocks from BLOCK on, at most MAX, are of one kind. No lock held. */
static u32 blocks_alike(struct lc_volume *v, u64 block, u32 max, enum block_kind *kind)
{
	struct lc_core *c = v->core;
	u32 nr = 1;
	bool same = true;

	lc_mutex_lock(&c->lock);
	*kind = kind_of(v, block);
	while (same && nr < max) {
		same = kind_of(v, block + nr) == *kind;
		nr += same;
		if (nr % DROP_SLICE == 0) {
			lc_mutex_unlock(&c->lock);
			lc_mutex_lock(&c->lock);
		}
	}
	lc_mutex_unlock(&c->lock);
	return nr;
}

int lc_extent(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, struct lc_extent *out)
{
	struct lc_core *c = v->core;
	u64 block = offset_bytes / LC_BLOCK;
	u64 blocks = (offset_bytes + len_bytes + LC_BLOCK - 1) / LC_BLOCK - block;
	enum block_kind kind = BLOCK_ABSENT;
	bool cached;
	int err = 0;

	assert(len_bytes > 0 && offset_bytes + len_bytes <= v->size_bytes);
	lc_mutex_lock(&c->lock);
	cached = lc_path_read(v);
	lc_mutex_unlock(&c->lock);
	if (cached) {
		u64 alike = blocks_alike(v, block,
					 blocks < EXTENT_BLOCKS_MAX ? blocks : EXTENT_BLOCKS_MAX,
					 &kind);

		/* They all begin where the first one does, maybe before OFFSET. */
		alike = (block + alike) * LC_BLOCK - offset_bytes;
		if (alike < len_bytes)
			len_bytes = alike;
	}
	*out = (struct lc_extent){.len_bytes = len_bytes, .hole = kind == BLOCK_ZERO};
	if (kind == BLOCK_ABSENT)
		err = lc_store_extent(v->backing, len_bytes, offset_bytes, out);
	if (cached) {
		lc_mutex_lock(&c->lock);
		lc_path_read_done(v);
		lc_mutex_unlock(&c->lock);
	}
	return err;
}
