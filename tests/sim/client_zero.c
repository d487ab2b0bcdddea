/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_zero.c - zero, trim, and what is a hole.
 *
 * The oracle takes a zero for a write of zeros, and a trim for a zero of all whole blocks in its range, if the volume
 * can trim (logcache.h allows less: a sector may also stay as it was). Where it cannot, or at the edges (a
 * short block at the end of a volume is one), a trim does nothing; nor without an SSD, where the store turns out
 * to have claimed too much.
 */
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

/* Zeros in at least so many whole blocks are an entry of the log. Only the coverage report depends on it. */
#define ENTRY_BLOCKS 16u

static void draw_zeros(struct client *c, unsigned volume, u32 *sector, u32 *nr)
{
	u32 all = c->history->nr_sectors[volume], kind = sim_below(100);

	draw_range(c, volume, sector, nr);
	if (kind < 20) { /* in a block */
		*nr = sim_between(1, LC_SECTORS_PER_BLOCK - 1);
	} else if (kind < 40) { /* many blocks, at any sector */
		*nr = sim_log_between(LC_SECTORS_PER_BLOCK * ENTRY_BLOCKS / 2, all);
	} else if (kind < 60) { /* many whole blocks */
		*nr = LC_SECTORS_PER_BLOCK *
		      sim_log_between(ENTRY_BLOCKS - 2, all / LC_SECTORS_PER_BLOCK);
		*sector -= *sector % LC_SECTORS_PER_BLOCK;
	} else if (kind < 65) {
		*sector = 0;
		*nr = all;
	}
	if (*nr > c->history->limits.sectors)
		*nr = c->history->limits.sectors;
	if (*nr > all - *sector)
		*nr = all - *sector;
}

/* Done. What fails fails at once; to ask again and again brings nothing new. */
static void done(u32 version, int error)
{
	oracle_write_done(version, error);
	if (error)
		sim_sleep(sim_log_between(100000, 20000000));
}

static bool fua_now(const struct client *c)
{
	return sim_below(100) < c->load.fua_percent;
}

/* Of bytes [at, at + len) all that is in blocks which are whole there. */
static u64 whole_blocks(u64 *at, u64 len)
{
	u64 end = (*at + len) / LC_BLOCK * LC_BLOCK;
	u64 from = (*at + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;

	*at = from;
	return from < end ? end - from : 0;
}

static bool trim_works(const struct client *c, unsigned volume)
{
	const struct store_sim *s = &c->history->backing[volume];

	if (lc_volume_can_trim(volume_of(c->history, volume)) != s->store.can_punch)
		sim_fail("lc_volume_can_trim does not say what the backing store does");
	/* With a log, zeros are written back instead. */
	return s->store.can_punch && (s->punch_works || !c->history->no_ssd);
}

/* With a cache that comes and goes nobody can tell what a store does that claims too much. */
static bool trim_depends(const struct client *c, unsigned volume)
{
	const struct store_sim *s = &c->history->backing[volume];

	return c->history->mixed && s->store.can_punch && !s->punch_works;
}

/* Does the backing store say that it need not write what it zeroes? */
static bool is_fast(const struct client *c, unsigned volume, unsigned flags)
{
	const struct lc_store *s = &c->history->backing[volume].store;

	return s->can_zero || (s->can_punch && flags & LC_MAY_TRIM);
}

/* LC_FAST_ONLY, and a store that is not: nothing happens, the oracle does not even hear of it. */
static void zero_refused(struct client *c, unsigned volume, u64 len, u64 at, unsigned flags)
{
	int r = lc_zero(volume_of(c->history, volume), len, at, flags | LC_FAST_ONLY);

	if (r != -EOPNOTSUPP)
		sim_fail("lc_zero, if it is fast, where it is not: %d", r);
	c->history->covered[COVER_ZERO_FAST] = true;
}

static unsigned draw_flags(struct client *c, unsigned volume, bool fua)
{
	unsigned flags = fua ? LC_FUA : 0;

	if (sim_one_in(2))
		flags |= LC_MAY_TRIM;
	if (is_fast(c, volume, flags) && sim_one_in(4))
		flags |= LC_FAST_ONLY;
	c->history->covered[COVER_ZERO_PUNCH] |= flags & LC_MAY_TRIM &&
						 lc_volume_can_trim(volume_of(c->history, volume));
	return flags;
}

void do_zero(struct client *c, unsigned volume)
{
	struct lc_volume *v = volume_of(c->history, volume);
	bool fua = fua_now(c);
	unsigned flags = draw_flags(c, volume, fua);
	u32 sector, nr, version;

	if (c->number == 0 && sim_one_in(8) && do_whole(c, volume, sim_one_in(2)))
		return;
	draw_zeros(c, volume, &sector, &nr);
	if (!is_fast(c, volume, flags) && sim_one_in(8)) {
		zero_refused(c, volume, (u64)nr * LC_SECTOR, (u64)sector * LC_SECTOR, flags);
		return;
	}
	c->history->covered[nr >= (ENTRY_BLOCKS + 2) * LC_SECTORS_PER_BLOCK ? COVER_ZERO_ENTRY :
									      COVER_ZERO_DATA] = true;
	version = oracle_zero_submit(volume, sector, nr, fua, false);
	done(version, lc_zero(v, (u64)nr * LC_SECTOR, (u64)sector * LC_SECTOR, flags));
}

void do_trim(struct client *c, unsigned volume)
{
	struct lc_volume *v = volume_of(c->history, volume);
	bool fua = fua_now(c);
	u32 sector, nr, version = 0;
	u64 at, len;
	int r;

	if (trim_depends(c, volume))
		return;
	draw_zeros(c, volume, &sector, &nr);
	at = (u64)sector * LC_SECTOR;
	len = trim_works(c, volume) ? whole_blocks(&at, (u64)nr * LC_SECTOR) : 0;
	c->history->covered[len ? COVER_TRIM : COVER_TRIM_NONE] = true;
	if (len)
		version = oracle_zero_submit(volume, (u32)(at / LC_SECTOR), (u32)(len / LC_SECTOR),
					     fua, true);
	r = lc_trim(v, (u64)nr * LC_SECTOR, (u64)sector * LC_SECTOR, fua ? LC_FUA : 0);
	if (len)
		done(version, r);
	else if (r && !c->history->may_fail)
		sim_fail("a trim that has no effect failed with %d, but no store did", r);
}

void do_extent(struct client *c, unsigned volume)
{
	struct history *h = c->history;
	struct lc_volume *v = volume_of(h, volume);
	struct lc_extent e = {.len_bytes = 0};
	u32 sector, nr, ticket, odd;
	int r;

	draw_zeros(c, volume, &sector, &nr);
	odd = sim_one_in(4) ? sim_below(LC_SECTOR) :
			      0; /* any alignment; then the first sector does not count */
	ticket = oracle_read_submit(NULL, 0);
	r = lc_extent(v, (u64)nr * LC_SECTOR - odd, (u64)sector * LC_SECTOR + odd, &e);
	if (r && !h->may_fail)
		sim_fail("lc_extent: %d, but no store failed", r);
	if (!r && (!e.len_bytes || e.len_bytes > (u64)nr * LC_SECTOR - odd))
		sim_fail("lc_extent of %u sectors at %u: %llu bytes", nr, sector,
			 (unsigned long long)e.len_bytes);
	h->covered[COVER_HOLE] |= e.hole;
	nr = r || !e.hole ? 0 : (u32)((e.len_bytes + odd) / LC_SECTOR);
	oracle_hole_done(ticket, volume, sector + (odd && nr), nr - (odd && nr));
}

/* --- with the byte region --- */

void do_zero_bytes(struct client *c, unsigned volume, u32 at, u32 len, bool trim)
{
	struct history *h = c->history;
	struct lc_volume *v = volume_of(h, volume);
	bool fua = fua_now(c), effect = !trim;
	u64 from = bytes_offset(volume) + at, first = from, n = len;
	int r;

	if (trim && trim_depends(c, volume))
		return;
	if (trim) {
		n = trim_works(c, volume) ? whole_blocks(&first, len) : 0;
		effect = n > 0;
	}
	if (effect)
		bytes_zero_submit(volume, (u32)(first - bytes_offset(volume)), (u32)n, fua);
	r = trim ? lc_trim(v, len, from, fua ? LC_FUA : 0) :
		   lc_zero(v, len, from, draw_flags(c, volume, fua));
	if (r && !h->may_fail)
		sim_fail("a %s of %u bytes failed with %d, but no store did",
			 trim ? "trim" : "zero", len, r);
	if (effect)
		bytes_write_done(volume, r);
}

bool do_whole(struct client *c, unsigned volume, bool trim)
{
	struct history *h = c->history;
	struct lc_volume *v = volume_of(h, volume);
	u64 size = lc_volume_size_bytes(v), from = 0, end;
	bool fua = fua_now(c), effect = !trim || trim_works(c, volume);
	u32 version = 0;
	int r;

	if (!bytes_may_write(volume) || h->limits.sectors < h->nr_sectors[volume] ||
	    (trim && trim_depends(c, volume)))
		return false;
	end = trim ? whole_blocks(&from, size) : size;
	if (end > bytes_offset(volume) && effect) /* always, but for a short region behind a trim */
		bytes_zero_submit(volume, 0, (u32)(end - bytes_offset(volume)), fua);
	else if (effect)
		return false;
	if (effect)
		version = oracle_zero_submit(volume, 0, h->nr_sectors[volume], fua, trim);
	h->covered[COVER_ZERO_WHOLE] = true;
	r = trim ? lc_trim(v, size, 0, fua ? LC_FUA : 0) :
		   lc_zero(v, size, 0, draw_flags(c, volume, fua));
	if (r && !h->may_fail)
		sim_fail("a %s of the whole volume failed with %d, but no store did",
			 trim ? "trim" : "zero", r);
	if (effect) {
		oracle_write_done(version, r);
		bytes_write_done(volume, r);
	}
	return !r;
}
