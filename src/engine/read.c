/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * read.c - reads of clients: from buffers in RAM, the SSD and the backing store, sector by sector.
 *
 * A chunk of blocks is looked up and pinned in one critical section. Then, without the mutex, come the
 * sectors that only the backing store has, and over them those from the cache: as few I/Os as the
 * layout allows, all of one store at once, one copy each. What comes from the SSD is checked against its crc; a clean block
 * that fails is dropped and read again, a dirty one is lost (I10): EIO, never stale data, unless that very crc proves that the
 * backing store has the same.
 */
#include <assert.h>
#include <string.h>

#include "path.h"

/* --- scratch memory --- */

#define SCRATCH_BYTES ((size_t)LC_CHUNK_BLOCKS * LC_BLOCK)

/* One that was used before, and is still in the CPU's cache; NULL: there is none. [lock] */
static void *take_scratch(struct lc_core *c)
{
	void *s = c->scratch;

	if (s)
		memcpy(&c->scratch, s, sizeof c->scratch);
	return s;
}

/* [lock] */
static void put_scratch(struct lc_core *c, void *scratch)
{
	memcpy(scratch, &c->scratch, sizeof c->scratch);
	c->scratch = scratch;
}

void *lc_scratch_get(struct lc_core *c)
{
	void *s;

	lc_mutex_lock(&c->lock);
	s = take_scratch(c);
	lc_mutex_unlock(&c->lock);
	return s ? s : lc_alloc(SCRATCH_BYTES);
}

void lc_scratch_put(struct lc_core *c, void *scratch)
{
	if (!scratch)
		return;
	lc_mutex_lock(&c->lock);
	put_scratch(c, scratch);
	lc_mutex_unlock(&c->lock);
}

void lc_scratch_destroy(struct lc_core *c)
{
	while (c->scratch) {
		void *s = c->scratch;

		memcpy(&c->scratch, s, sizeof c->scratch);
		lc_free(s, SCRATCH_BYTES);
	}
}

/* --- a chunk --- */

/* One block of a chunk. */
struct piece {
	u32 slot; /* 0: not in the cache */
	u32 crc;
	u8 needed;   /* sectors that the client wants */
	u8 cached;   /* sectors that the slot has */
	bool zeros;  /* the other ones read as zeros: the backing store does not know it yet */
	bool failed; /* it cannot be read, or */
	bool wrong;  /* its crc is wrong; */
	bool saved;  /* but the backing store has it */
	enum lc_pin pin;
	const u8 *data; /* of a slot in a buffer */
};

struct chunk {
	struct lc_volume *v;
	struct lc_log *log; /* while the step is under way */
	bool straight;	    /* the step did nothing: the volume has no log */
	u8 *buf;	    /* the client's */
	u64 offset_bytes;   /* of the client's first byte */
	u64 end_bytes;
	u64 block; /* the first one */
	u32 nr;
	bool begins;		/* the client's request */
	bool misses;		/* something has to come from the backing store */
	u64 backing_ns;		/* and took so long */
	struct lc_stats *stats; /* where it is counted */
	u8 *scratch;
	struct piece pieces[LC_CHUNK_BLOCKS];
};

/* Give the client the sectors in MASK of piece I, whose block is at SRC. */
static void deliver(struct chunk *c, u32 i, u8 mask, const u8 *src)
{
	u64 base = (c->block + i) * LC_BLOCK;

	mask &= c->pieces[i].needed;
	while (mask) {
		u32 first = __builtin_ctz(mask);
		u32 nr = __builtin_ctz(~(u32)(mask >> first));
		u64 from = base + first * LC_SECTOR, to = from + nr * LC_SECTOR;

		mask &= ~(((1u << nr) - 1) << first);
		if (from < c->offset_bytes)
			from = c->offset_bytes;
		if (to > c->end_bytes)
			to = c->end_bytes;
		lc_copy(c->buf + (from - c->offset_bytes), src + (from - base), to - from);
	}
}

/* How the statistics call it. */
static u32 kind_of(const struct piece *p)
{
	u32 kind = p->needed == LC_MASK_FULL ? LC_KIND_WHOLE : 0;

	if (!(p->needed & ~p->cached) || p->zeros)
		kind |= LC_KIND_HIT;
	if (p->slot && p->pin == LC_PIN_BUFFER)
		kind |= LC_KIND_BUFFER;
	return kind;
}

/* Look up and pin. -EIO if a sector that is needed is on the list of lost blocks. */
static int look_up(struct chunk *c)
{
	struct lc_core *core = c->v->core;
	struct lc_log *log = c->log;
	struct lc_stats *st = c->stats;
	int err = 0;

	if (c->nr > 1)
		lc_volume_fetch(c->v, c->block, c->nr);
	for (u32 i = 0; i < c->nr; i++) {
		struct piece *p = &c->pieces[i];
		u64 base = (c->block + i) * LC_BLOCK;
		u64 from = c->offset_bytes > base ? c->offset_bytes - base : 0;
		u64 to = c->end_bytes - base < LC_BLOCK ? c->end_bytes - base : LC_BLOCK;

		*p = (struct piece){.needed = lc_sector_mask(from, to)};
		while ((p->slot = lc_index_find(&core->ring.index, c->v->id, c->block + i))) {
			p->pin = lc_log_pin(log, p->slot, &p->data);
			if (p->pin != LC_PIN_BUSY)
				break;
			lc_log_wait_published(log);
		}
		if (p->slot) {
			const struct lc_slot *s = lc_index_slot(&core->ring.index, p->slot);

			p->cached = lc_key_mask(s->key);
			p->crc = s->crc;
		}
		p->zeros = lc_zeros_cover(&core->ring.zeros, lc_place(c->v->id, c->block + i)) &&
			   !LC_MUTANT(read_ignores_zeros);
		st->blocks[kind_of(p)]++;
		if (lc_bad_mask(&core->meta.bad, c->v->id, c->block + i) & p->needed & ~p->cached)
			err = -EIO;
	}
	return err;
}

static bool misses(const struct piece *p)
{
	return (p->needed & ~p->cached) && !p->zeros;
}

/* A read of NR blocks, from piece I on, each to its own place in the scratch memory. */
static struct lc_io read_of(const struct chunk *c, u32 i, u32 nr, u64 offset_bytes)
{
	return (struct lc_io){
		.op = LC_IO_READ,
		.buf = c->scratch + i * LC_BLOCK,
		.len_bytes = nr * LC_BLOCK,
		.offset_bytes = offset_bytes,
	};
}

/* Which piece has the first block of a read. */
static u32 first_of(const struct chunk *c, const struct lc_io *io)
{
	return (u32)(((u8 *)io->buf - c->scratch) / LC_BLOCK);
}

/* The sectors that the cache does not have. */
static int read_backing(struct chunk *c)
{
	struct lc_io ios[LC_CHUNK_BLOCKS];
	u32 nr_ios = 0;

	for (u32 i = 0, nr; i < c->nr; i += nr) {
		nr = 1;
		if (c->pieces[i].zeros)
			deliver(c, i, ~c->pieces[i].cached, lc_zero_block);
		if (!misses(&c->pieces[i]))
			continue;
		while (i + nr < c->nr && misses(&c->pieces[i + nr]))
			nr++;
		ios[nr_ios++] = read_of(c, i, nr, (c->block + i) * LC_BLOCK);
	}
	lc_store_read_many(c->v->backing, ios, nr_ios);
	for (u32 k = 0; k < nr_ios; k++) {
		u32 i = first_of(c, &ios[k]), end = i + ios[k].len_bytes / LC_BLOCK;

		if (ios[k].result)
			return ios[k].result;
		for (; i < end; i++)
			deliver(c, i, ~c->pieces[i].cached, c->scratch + i * LC_BLOCK);
	}
	return 0;
}

static bool on_ssd(const struct piece *p)
{
	return p->slot && p->pin == LC_PIN_SSD && (p->needed & p->cached);
}

int lc_volume_backing_agrees(struct lc_volume *v, u64 block, u8 mask, u32 crc, u8 *buf)
{
	int err = lc_store_read(v->backing, buf, LC_BLOCK, block * LC_BLOCK);

	if (err)
		return err;
	for (u32 i = 0; i < LC_SECTORS_PER_BLOCK; i++)
		if (!(mask & 1u << i)) /* as write.c fills them */
			memset(buf + i * LC_SECTOR, 0, LC_SECTOR);
	return lc_crc32c(buf, LC_BLOCK) == crc || LC_MUTANT(saved_without_proof);
}

/* A block of a read of the SSD that FAILED, or did not: check it, and give it to the client. False: it cannot be had. */
static bool take(struct chunk *c, u32 i, bool failed)
{
	struct piece *p = &c->pieces[i];
	u8 *block = c->scratch + i * LC_BLOCK;

	p->failed = failed;
	if (!p->failed && !LC_MUTANT(no_crc_on_read))
		p->failed = p->wrong = lc_crc32c(block, LC_BLOCK) != p->crc;
	if (p->failed)
		p->saved = lc_volume_backing_agrees(c->v, c->block + i, p->cached, p->crc, block) > 0;
	if (!p->failed || p->saved)
		deliver(c, i, p->cached, block);
	return !p->failed;
}

static bool read_ssd(struct chunk *c)
{
	struct lc_store *ssd = c->v->core->ssd;
	struct lc_io ios[LC_CHUNK_BLOCKS];
	u32 nr_ios = 0;
	bool failed = false;

	for (u32 i = 0, nr; i < c->nr; i += nr) {
		nr = 1;
		if (!on_ssd(&c->pieces[i]))
			continue;
		while (i + nr < c->nr && on_ssd(&c->pieces[i + nr]) &&
		       c->pieces[i + nr].slot == c->pieces[i].slot + nr)
			nr++;
		ios[nr_ios++] = read_of(c, i, nr, lc_slot_offset_bytes(c->pieces[i].slot));
	}
	lc_store_read_many(ssd, ios, nr_ios);
	for (u32 k = 0; k < nr_ios; k++) {
		u32 i = first_of(c, &ios[k]), nr = ios[k].len_bytes / LC_BLOCK;

		for (u32 end = i + nr; i < end; i++) {
			bool bad = ios[k].result;

			/* One bad sector must not fail its neighbours. */
			if (bad && nr > 1)
				bad = lc_store_read(ssd, c->scratch + i * LC_BLOCK, LC_BLOCK,
						    lc_slot_offset_bytes(c->pieces[i].slot));
			failed |= !take(c, i, bad);
		}
	}
	return failed;
}

static void unpin(struct chunk *c)
{
	for (u32 i = 0; i < c->nr; i++)
		if (c->pieces[i].slot)
			lc_log_unpin(c->log, c->pieces[i].slot, c->pieces[i].pin);
}

/*
 * SLOT, which we still have pinned, could not be read, or its crc was WRONG. A clean copy is forgotten; a
 * dirty one is lost: -EIO, unless somebody overwrote it meanwhile. [lock]
 */
static int forget_bad(struct lc_core *core, u32 slot, bool wrong)
{
	const struct lc_slot *s = lc_index_slot(&core->ring.index, slot);

	core->stats.crc_errors += wrong;
	if (!(s->key & LC_SLOT_LIVE))
		return 0;
	if (s->key & LC_SLOT_DIRTY)
		return -EIO;
	lc_block_drop(&core->ring, slot);
	return 0;
}

static int read_chunk(struct chunk *c)
{
	struct lc_core *core = c->v->core;
	bool failed = false, on_disk = false, again = false;
	int err;

	lc_mutex_lock(&core->lock);
	core->client_ops++;
	c->stats->reads += c->begins;
	c->begins = false;
	c->stats->read_bytes += c->end_bytes - c->offset_bytes;
	c->log = lc_path_read(c->v);
	c->straight = !c->log;
	if (!c->log) {
		lc_mutex_unlock(&core->lock);
		return 0;
	}
	err = look_up(c);
	c->misses = false;
	for (u32 i = 0; i < c->nr; i++) {
		c->misses |= misses(&c->pieces[i]);
		on_disk |= on_ssd(&c->pieces[i]);
	}
	if (c->misses)
		lc_busy_begin(&c->v->reads);
	if (c->misses || on_disk)
		c->scratch = take_scratch(core);
	lc_mutex_unlock(&core->lock);

	if (!err && !c->scratch && (c->misses || on_disk)) {
		c->scratch = lc_alloc(SCRATCH_BYTES);
		if (!c->scratch)
			err = -ENOMEM;
	}
	if (c->misses)
		c->backing_ns = lc_now_ns();
	if (!err)
		err = read_backing(c);
	if (c->misses)
		c->backing_ns = lc_now_ns() - c->backing_ns;
	if (!err && on_disk)
		failed = read_ssd(c);
	for (u32 i = 0; i < c->nr && !err; i++)
		if (c->pieces[i].slot && c->pieces[i].pin == LC_PIN_BUFFER)
			deliver(c, i, c->pieces[i].cached, c->pieces[i].data);
	lc_mutex_lock(&core->lock);
	if (c->scratch)
		put_scratch(core, c->scratch);
	c->scratch = NULL;
	for (u32 i = 0; i < c->nr && failed; i++) {
		const struct piece *p = &c->pieces[i];

		if (p->failed && forget_bad(core, p->slot, p->wrong) && !p->saved)
			err = -EIO;
		again |= p->failed && !p->saved;
	}
	unpin(c);
	if (c->misses) {
		lc_busy_end(&c->v->reads);
		lc_histogram_add(&core->latencies.backing_read, c->backing_ns);
	}
	lc_path_read_done(c->v);
	lc_log_unlock(c->log);
	if (err)
		return err;
	return again ? -EAGAIN : 0;
}

int lc_read(struct lc_volume *v, void *buf, u32 len_bytes, u64 offset_bytes)
{
	u64 at = offset_bytes, end = offset_bytes + len_bytes;
	struct chunk c = {.v = v, .stats = &v->core->stats};
	int64_t ret;
	int err = 0;

	assert(end <= v->size_bytes);
	while (at < end && !err) {
		u64 limit = (at / LC_BLOCK + LC_CHUNK_BLOCKS) * LC_BLOCK;

		c.buf = (u8 *)buf + (at - offset_bytes);
		c.offset_bytes = at;
		c.end_bytes = end < limit ? end : limit;
		c.block = at / LC_BLOCK;
		c.nr = (c.end_bytes + LC_BLOCK - 1) / LC_BLOCK - c.block;
		c.begins = at == offset_bytes;
		lc_volume_announce(v, c.block, c.nr);
		/* Each turn drops a bad clean copy, or finds a newer one. */
		do
			err = read_chunk(&c);
		while (err == -EAGAIN);
		if (c.straight) {
			ret = lc_direct_read(v, c.buf, c.end_bytes - at, at);
			err = ret < 0 ? ret : 0;
			at += ret;
		} else {
			at = c.end_bytes;
		}
	}
	return err;
}

int lc_volume_read_block(struct lc_volume *v, u64 block, void *buf)
{
	u64 from = block * LC_BLOCK;
	struct lc_stats ours = {0}; /* no client asked for this */
	struct chunk c = {
		.v = v,
		.stats = &ours,
		.buf = buf,
		.offset_bytes = from,
		.end_bytes = from + LC_BLOCK, /* the store reads as zeros behind its end */
		.block = block,
		.nr = 1,
	};
	int err;

	do
		err = read_chunk(&c);
	while (err == -EAGAIN);
	assert(!c.straight); /* the caller's write keeps the log */
	return err;
}

int lc_volume_read_cached(struct lc_volume *v, u64 block, void *buf, u8 *mask)
{
	struct lc_core *core = v->core;
	const u8 *data;
	struct lc_slot s;
	enum lc_pin pin = LC_PIN_BUSY;
	u32 slot;
	bool wrong = false;
	int err = 0;

	*mask = 0;
	lc_mutex_lock(&core->lock);
	while ((slot = lc_index_find(&core->ring.index, v->id, block))) {
		pin = lc_log_pin(v->log, slot, &data);
		if (pin != LC_PIN_BUSY)
			break;
		lc_log_wait_published(v->log);
	}
	if (slot)
		s = *lc_index_slot(&core->ring.index, slot);
	lc_mutex_unlock(&core->lock);
	if (!slot)
		return 0;

	*mask = lc_key_mask(s.key);
	if (pin == LC_PIN_BUFFER)
		lc_copy(buf, data, LC_BLOCK);
	else if ((lc_store_read(core->ssd, buf, LC_BLOCK, lc_slot_offset_bytes(slot)) ||
		  (wrong = lc_crc32c(buf, LC_BLOCK) != s.crc)) &&
		 lc_volume_backing_agrees(v, block, *mask, s.crc, buf) <= 0)
		*mask = 0;

	lc_mutex_lock(&core->lock);
	if (!*mask)
		err = forget_bad(core, slot, wrong);
	lc_log_unpin(v->log, slot, pin);
	lc_log_unlock(v->log);
	return err;
}
