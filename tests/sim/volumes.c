/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volumes.c - what can happen to one of several volumes: left out, written by others, confused, failing.
 *
 * The oracle knows when the cache must hold something for a volume: its backing store's image alone is then not what
 * may have survived. Without that volume, or with another store in its place, opening must be refused,
 * and nothing may be written (I12).
 */
#include <string.h>

#include "fingerprint.h"
#include "history.h"
#include "oracle_bytes.h"

/* --- other people's writes --- */

static void write_sectors(struct history *h, unsigned v, u32 sector, u32 nr)
{
	u8 *buf = h->clients[0].memory;

	oracle_foreign(v, sector, nr, buf);
	store_sim_preset(&h->backing[v], buf, nr * LC_SECTOR, (u64)sector * LC_SECTOR);
	sim_trace("%s: somebody else writes sectors %u+%u", h->backing[v].store.name, sector, nr);
}

static void write_bytes(struct history *h, unsigned v)
{
	u32 len = bytes_len(v), at = sim_below(len), i;
	u8 *buf = h->clients[0].memory;

	memcpy(buf, h->backing[v].now + bytes_offset(v), len);
	for (i = at; i < len && i < at + 700; i++)
		buf[i] ^= 0xa5;
	store_sim_preset(&h->backing[v], buf, len, bytes_offset(v));
	bytes_foreign(v, buf);
}

/*
 * Blocks that may have been cached, and of which the cache has no sample: only that the volume was left out can tell
 * it that they have changed.
 */
static void write_unnoticed(struct history *h, unsigned v)
{
	u32 block, sector;

	for (block = 0; block < h->nr_sectors[v] / LC_SECTORS_PER_BLOCK; block++) {
		sector = block * LC_SECTORS_PER_BLOCK;
		if (!lc_samples_in(h->backing[v].store.size_bytes, block, 1) &&
		    !oracle_untouched(v, sector, LC_SECTORS_PER_BLOCK) && sim_one_in(2))
			write_sectors(h, v, sector, LC_SECTORS_PER_BLOCK);
	}
}

void volumes_foreign(struct history *h)
{
	unsigned v;
	u32 k;

	for (v = 0; v < h->nr_volumes; v++) {
		u32 nr = sim_between(1, 64), all = h->nr_sectors[v];

		/* The cache knows the volume: it can only notice where it has a sample. The first block is one. */
		bool to_notice = h->clean[v] && !h->away[v];

		if (!h->clean[v] || (to_notice && (h->damaged || h->unverified)) || sim_one_in(2))
			continue;
		store_sim_settle(&h->backing[v]);
		h->colder = true;
		h->covered[to_notice ? COVER_FOREIGN_SEEN : COVER_FOREIGN] |= h->open_before;
		if (to_notice) {
			write_sectors(h, v, 0, LC_SECTORS_PER_BLOCK);
		} else if (sim_one_in(2)) {
			write_unnoticed(h, v);
			continue;
		}
		for (k = sim_below(4); k > 0; k--)
			write_sectors(h, v, sim_below(all - nr), nr);
		if (sim_one_in(2))
			write_bytes(h, v);
	}
}

/* --- openings that must be refused --- */

static void refused_main(void *arg)
{
	struct history *h = arg;
	struct lc_volume_spec specs[ORACLE_VOLUMES_MAX];
	struct lc_error err = {.text = ""};
	unsigned i;
	int r;

	for (i = 0; i < h->nr_served; i++) {
		unsigned v = h->served[i];

		specs[i] = (struct lc_volume_spec){
			.name = v < h->nr_volumes ? volume_names[v] : "strange",
			.backing = h->place[i] < h->nr_volumes ? &h->backing[h->place[i]].store :
								 &h->spare.store,
		};
	}
	r = lc_cache_open(&h->ssd->sim.store, specs, h->nr_served, &h->settings, &h->cache, &err);
	sim_trace("%s: %d, %s", h->attempt, r, err.text);
	if (r != -EBUSY || !*err.text)
		sim_fail("opening with %s: %d instead of a refusal with -EBUSY (%s)", h->attempt, r,
			 err.text);
}

static struct store_sim *store_at(struct history *h, unsigned i)
{
	return i < h->nr_volumes ? &h->backing[i] : i == h->nr_volumes ? &h->ssd->sim : &h->spare;
}

static u64 writes_of_all(struct history *h)
{
	u64 n = 0;
	unsigned i;

	for (i = 0; i < h->nr_volumes + 2; i++)
		n += store_at(h, i)->last_number - store_at(h, i)->nr_haunted;
	return n;
}

/* Volumes `served` on the stores `place` (of the same index). */
void volumes_attempt(struct history *h, void (*fn)(void *))
{
	u64 before = writes_of_all(h);
	struct sim_leftover left;
	unsigned i;

	for (i = 0; i < h->nr_volumes + 2; i++)
		store_at(h, i)->faults = (struct sim_faults){0};
	sim_life("refused", fn, h);
	if (writes_of_all(h) != before)
		sim_fail("opening with %s was refused, but something was written", h->attempt);
	for (i = 0; i < h->nr_volumes + 2; i++) {
		store_sim_assert_idle(store_at(h, i));
		store_sim_crash(store_at(h, i), SIM_KILL);
	}
	left = sim_life_end();
	if (left.fibers || left.allocations)
		sim_fail("something is left over after opening with %s was refused", h->attempt);
}

/*
 * By which place would the cache see that the backing store of V is another one, or was written by somebody else? By
 * a sample that nothing dirty explains. UINT64_MAX: none.
 */
static u64 telltale(const struct history *h, unsigned v)
{
	u64 size = h->backing[v].store.size_bytes;
	unsigned i;

	for (i = 0; i < LC_NR_SAMPLES; i++) {
		u64 sector = lc_sample_block(size, i) * LC_SECTORS_PER_BLOCK;

		if (sector + LC_SECTORS_PER_BLOCK <= h->nr_sectors[v] &&
		    oracle_untouched(v, (u32)sector, LC_SECTORS_PER_BLOCK))
			return sector * LC_SECTOR;
	}
	return UINT64_MAX;
}

static void flip(struct store_sim *s, u64 at)
{
	s->now[at] ^= 1;
	s->media[at] ^= 1;
	s->touched[at / LC_BLOCK] = 1;
}

void volumes_refused(struct history *h)
{
	unsigned v = sim_below(h->nr_volumes), w = (v + 1) % h->nr_volumes, i;
	u64 place;

	/*
	 * What the cache must hold it may know to be lost, and have nothing dirty: then it serves a volume that was changed, without
	 * its clean blocks (bind.c).
	 */
	if (h->damaged || h->ssd->sim.nr_read_faults)
		return;
	if (oracle_image_suffices(v, h->backing[v].now) &&
	    bytes_suffice(v, h->backing[v].now + bytes_offset(v)))
		return;
	h->nr_served = h->nr_volumes;
	for (i = 0; i < h->nr_volumes; i++)
		h->served[i] = h->place[i] = (u8)i;
	if (h->switches && (h->unverified || sim_one_in(3))) {
		switch_refused(h);
		return;
	}
	place = telltale(h, v);
	if (place != UINT64_MAX && sim_one_in(3)) {
		h->attempt = "a dirty volume that somebody else wrote to";
		h->covered[COVER_REFUSED_WRITTEN] = true;
		flip(&h->backing[v], place);
		volumes_attempt(h, refused_main);
		flip(&h->backing[v], place);
		return;
	}
	if (w != v && place != UINT64_MAX && h->preset && sim_one_in(2)) {
		h->attempt = "swapped backing stores";
		h->place[v] = (u8)w;
		h->place[w] = (u8)v;
		h->covered[COVER_REFUSED_SWAPPED] = true;
	} else if (w != v && sim_one_in(2)) {
		h->attempt = "a dirty volume left out";
		h->served[v] = h->place[v] = (u8)--h->nr_served;
		h->covered[COVER_REFUSED_LEFT_OUT] = true;
	} else {
		h->attempt = "a strange backing store";
		h->place[v] = (u8)h->nr_volumes;
		if (sim_one_in(2))
			h->served[v] = (u8)h->nr_volumes; /* and a strange name */
		h->covered[COVER_REFUSED_STRANGE] = true;
	}
	volumes_attempt(h, refused_main);
}

/* --- one fails --- */

static bool others_drained(struct history *h, unsigned failing)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++) {
		const u8 *media = h->backing[v].media;

		if (v != failing &&
		    (!oracle_image_current(v, media) || !bytes_current(v, media + bytes_offset(v))))
			return false;
	}
	return true;
}

/*
 * A drain fails by what some sweep said, maybe one from before it was asked for, or because the log has failed and
 * was not tried again yet. So one may not be enough.
 */
static int drain_patiently(struct history *h)
{
	int r = lc_cache_drain(h->cache);

	sim_trace("drained: %d", r);
	if (r)
		sim_sleep(h->settings.retry_ms * 1000000ull);
	return r;
}

void volumes_drain_one_failing(struct history *h)
{
	unsigned v, failing = h->served[sim_below(h->nr_served)], tries;
	int r = -EIO;

	if (h->damaged || h->lost)
		return;
	for (v = 0; v <= h->nr_volumes; v++)
		store_at(h, v)->faults = (struct sim_faults){0};
	h->backing[failing].faults.back_ns = UINT64_MAX;
	h->covered[COVER_ONE_FAILS] = true;
	sim_trace("%s is gone", h->backing[failing].store.name);
	for (tries = 0; r && tries < 50 && (!tries || !others_drained(h, failing)); tries++)
		r = drain_patiently(h);
	if (!others_drained(h, failing))
		sim_fail("while the backing store of volume %u fails, the others' data do not reach "
			 "theirs",
			 failing);
	h->backing[failing].faults = (struct sim_faults){0};
	sim_trace("%s is back", h->backing[failing].store.name);
	for (r = -EIO, tries = 0; r && tries < 50; tries++)
		r = drain_patiently(h);
	if (r)
		sim_fail("a backing store is back, but the drain still fails with %d", r);
}
