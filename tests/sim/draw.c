/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * draw.c - the shapes of things, drawn from the seed: volumes, a cache, the settings and the course of a life, and
 * which faults it meets.
 */
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

const char *const stage_names[] = {"open", "verify", "work", "drain", "close", "none"};

void draw_volume(struct history *h, unsigned v)
{
	static const char *const names[ORACLE_VOLUMES_MAX] = {"backing0", "backing1", "backing2",
							      "backing3"};
	u64 size = (u64)LC_BLOCK * sim_log_between(16, SIM_VOLUME_MAX_BLOCKS), region;

	switch (sim_below(4)) {
	case 0: /* ends with some sector */
		size += LC_SECTOR * sim_below(8);
		break;
	case 1: /* ends anywhere */
		size += sim_below(LC_BLOCK);
		break;
	}
	region = size - sim_between(LC_SECTOR, BYTES_REGION_MAX - LC_SECTOR);
	region -= region % (sim_one_in(2) ? LC_SECTOR : LC_BLOCK);
	if (size - region > BYTES_REGION_MAX)
		region += (size - region - BYTES_REGION_MAX + LC_SECTOR - 1) / LC_SECTOR * LC_SECTOR;
	h->nr_sectors[v] = (u32)(region / LC_SECTOR);
	store_sim_reset(&h->backing[v], names[v], size, sim_one_in(2) ? LC_SECTOR : LC_BLOCK, true);
	if (h->scenario == SCENARIO_PENDING && !v && !h->backing[v].store.can_punch)
		store_sim_enable(&h->backing[v]);
	sim_trace("%s: %llu bytes, blocks of %u, byte region at %llu, zero %u punch %u work, can_zero %u can_punch %u",
		  names[v], (unsigned long long)size, h->backing[v].store.block_bytes,
		  (unsigned long long)region, h->backing[v].zero_works, h->backing[v].punch_works,
		  h->backing[v].store.can_zero, h->backing[v].store.can_punch);
}

void fill_volume(struct history *h, unsigned v, bool preset)
{
	u64 region = (u64)h->nr_sectors[v] * LC_SECTOR;
	u32 len = (u32)(h->backing[v].store.size_bytes - region), x;
	u8 initial[BYTES_REGION_MAX] = {0}, *buf = h->clients[0].memory;

	for (x = 0; preset && x < h->nr_sectors[v]; x++) {
		oracle_preset_sector(v, x, buf);
		store_sim_preset(&h->backing[v], buf, LC_SECTOR, (u64)x * LC_SECTOR);
	}
	for (x = 0; preset && x < len; x++)
		initial[x] = (u8)(x * 7 + 3);
	store_sim_preset(&h->backing[v], initial, len, region);
	bytes_begin(v, region, len, initial);
}

static void draw_ssd(struct history *h, struct ssd *s, const char *name)
{
	u64 size;

	s->segment_bytes = LC_SEGMENT_MIN_BYTES << sim_below(4);
	if (h->scenario == SCENARIO_FULL)
		s->segment_bytes = LC_SEGMENT_MIN_BYTES;
	else if (h->scenario == SCENARIO_STAMMER || h->scenario == SCENARIO_PATCHWORK ||
		 h->scenario == SCENARIO_SUPERSEDE)
		s->segment_bytes = LC_SEGMENT_MIN_BYTES << sim_between(2, 3);
	else if (h->scenario == SCENARIO_PENDING) /* room for all entries that may be pending */
		s->segment_bytes = LC_SEGMENT_MIN_BYTES << sim_between(1, 3);
	size = lc_cache_min_bytes(s->segment_bytes);
	size += (u64)s->segment_bytes * (sim_one_in(3) ? 0 : sim_log_between(1, 20));
	if (h->scenario == SCENARIO_FULL)
		size = lc_cache_min_bytes(s->segment_bytes) +
		       (u64)s->segment_bytes * sim_between(3, 7);
	if (h->scenario == SCENARIO_PENDING)
		size = lc_cache_min_bytes(s->segment_bytes) +
		       (u64)s->segment_bytes * sim_between(8, 40);
	if (sim_one_in(3))
		size += sim_below(s->segment_bytes);
	store_sim_reset(&s->sim, name, size, sim_one_in(2) ? LC_SECTOR : LC_BLOCK, false);
	s->formatted = s->voided = s->detached = false;
	sim_trace("%s: %llu bytes, segments of %u", name, (unsigned long long)size, s->segment_bytes);
}

void draw_cache(struct history *h)
{
	static const char *const names[SIM_SSDS] = {"ssd", "ssd2"};
	unsigned i;

	for (i = 0; i < (h->switches ? SIM_SSDS : 1); i++)
		draw_ssd(h, &h->ssds[i], names[i]);
	h->ssd = &h->ssds[0];
}

static void draw_settings(struct history *h)
{
	static const u32 intervals[] = {0, 1, 10, 1000};
	static const u32 idles[] = {0, 1, 20, 1000};
	static const u32 lows[] = {0, 10, 50, 100};
	struct lc_settings *s = &h->settings;

	lc_settings_init(s);
	s->nr_buffers = sim_between(2, 6);
	s->writeback = !sim_one_in(4);
	s->dirty_low_percent = lows[sim_below(4)];
	s->idle_ms = idles[sim_below(4)];
	s->batch_bytes = sim_one_in(2) ? 0 : (u64)h->ssd->segment_bytes * sim_between(1, 8);
	s->flush_interval_ms = intervals[sim_below(4)];
	s->retry_ms = sim_between(1, 20);
	/* Virtual time: only a store that fails lets it pass. */
	s->stall_timeout_ms = h->may_fail && sim_one_in(2) ? sim_log_between(5, 200) : 30000;
	if (h->scenario == SCENARIO_FULL) {
		s->nr_buffers = sim_between(4, 10);
		s->batch_bytes = (u64)h->ssd->segment_bytes * sim_between(4, 8);
		s->dirty_low_percent = 100;
		s->flush_interval_ms = 0;
	} else if (h->scenario == SCENARIO_PATCHWORK) {
		s->writeback = true;
		s->dirty_low_percent = 0;
	} else if (h->scenario == SCENARIO_PENDING && sim_one_in(2)) {
		s->writeback = false;
		s->flush_interval_ms = sim_below(2);
	}
}

static void draw_faults(struct history *h)
{
	unsigned v;
	struct store_sim *s;

	for (v = 0; v <= h->nr_volumes + (h->switches ? SIM_SSDS - 1 : 0); v++) {
		s = v > h->nr_volumes ? &h->ssds[1].sim : v ? &h->backing[v - 1] : &h->ssds[0].sim;
		s->faults = (struct sim_faults){0};
		/* What a failed flush loses, nobody can have again without a log. */
		s->patient_flush = h->no_ssd;
		if (!h->faults || h->last || sim_one_in(2))
			continue;
		h->covered[COVER_FAULTS] = true;
		if (sim_one_in(2))
			s->faults.read_ppm = sim_log_between(100, 20000);
		if (sim_one_in(2))
			s->faults.write_ppm = sim_log_between(100, 20000);
		if (sim_one_in(2))
			s->faults.flush_ppm = sim_log_between(1000, 100000);
		if (v && v <= h->nr_volumes && sim_one_in(2))
			s->faults.zero_ppm = sim_log_between(1000, 500000);
		if (sim_one_in(3)) {
			s->faults.gone_ns = sim_now() + sim_log_between(1000, 20000000);
			s->faults.back_ns = s->faults.gone_ns + sim_log_between(100000, 200000000);
			h->covered[COVER_GONE] = true;
		}
	}
}

/*
 * Which volumes are served, in which order? One for which the cache holds nothing dirty may be left out. In
 * the end all are there.
 */
static void draw_served(struct history *h)
{
	unsigned v, i;

	h->nr_served = 0;
	for (v = 0; v < h->nr_volumes; v++) {
		bool must = h->last || !h->clean[v] || (v == h->nr_volumes - 1 && !h->nr_served);

		h->present[v] = must || !sim_one_in(h->open_before ? 3 : 12);
		if (!h->present[v])
			continue;
		i = sim_below(++h->nr_served);
		h->served[h->nr_served - 1] = h->served[i];
		h->served[i] = (u8)v;
	}
	for (i = 0; i < h->nr_served; i++)
		h->place[h->served[i]] = (u8)i;
	h->colder |= h->nr_served < h->nr_volumes;
	h->covered[COVER_LEFT_OUT] |= h->nr_served < h->nr_volumes && !h->no_ssd;
}

void draw_life(struct history *h, bool last, bool must_crash)
{
	u32 k = sim_below(100);

	h->last = last;
	h->crash_stage = last	? STAGE_NONE :
			 k < 22 ? STAGE_OPEN :
			 k < 32 ? STAGE_VERIFY :
			 k < 75 ? STAGE_WORK :
			 k < 83 ? STAGE_DRAIN :
			 k < 91 ? STAGE_CLOSE :
				  STAGE_NONE;
	if (must_crash || (!last && h->scenario > SCENARIO_STUTTER && sim_one_in(2)))
		h->crash_stage = STAGE_WORK;
	h->crash_steps = sim_log_between(1, 600);
	if (h->crash_stage == STAGE_WORK)
		h->crash_steps = h->scenario == SCENARIO_STAMMER ?
					 sim_between(20, 400) :
				 h->scenario == SCENARIO_STUTTER ?
					 sim_log_between(10, sim_one_in(3) ? 6000 : 600) :
					 sim_log_between(20, sim_one_in(20) ? 60000 : 8000);
	/* The end of an opening, where it writes, is the interesting part. */
	if (h->crash_stage == STAGE_OPEN && h->open_steps > 8 && sim_one_in(2))
		h->crash_steps = (u32)h->open_steps - sim_log_between(0, (u32)h->open_steps / 2);
	h->verify_first = last || !sim_one_in(5);
	/* Opened and closed again in good order, before what a crash left on its way has arrived. */
	if (h->remote && !h->before_valid && !last && !must_crash && sim_one_in(6))
		h->crash_stage = STAGE_NONE;
	h->never_start = h->crash_stage == STAGE_NONE && !last && sim_one_in(h->remote ? 2 : 5);
	h->drain = last || h->crash_stage == STAGE_DRAIN || sim_one_in(4);
	h->power_cut_after = last || sim_one_in(3);
	h->nr_clients = sim_between(1, CLIENTS_MAX);
	h->ops_per_client = sim_log_between(2, 200 / h->nr_clients);
	/* With a crash planned for the work, work until it comes. */
	if (h->crash_stage == STAGE_WORK)
		h->ops_per_client = UINT32_MAX;
	if (h->scenario != SCENARIO_ANY) {
		workload_scenario(&h->load, h->scenario, h->nr_sectors[0] / LC_SECTORS_PER_BLOCK + 1);
		h->nr_clients = h->scenario == SCENARIO_STUTTER ? sim_between(1, 2) :
								  sim_between(2, CLIENTS_MAX);
	} else {
		workload_draw(&h->load, h->nr_sectors[0] / LC_SECTORS_PER_BLOCK + 1);
	}
	if (last && h->scenario != SCENARIO_ANY && sim_one_in(2)) { /* do not bury what was lost */
		h->load.write = h->load.bytes = h->load.drains = h->load.zero = h->load.trim = 0;
		h->load.read = 50;
	}
	if (h->nr_clients > h->limits.clients)
		h->nr_clients = h->limits.clients;
	if (h->limits.ops < LIMITS_NONE.ops && h->ops_per_client > h->limits.ops)
		h->ops_per_client = h->limits.ops;
	h->covered[COVER_NEVER_FLUSH] |= !h->load.flush && !h->load.fua_percent;
	draw_settings(h);
	draw_faults(h);
	draw_served(h);
	/* The log still has the old copies of what was left out when it comes back, if little happens meanwhile. */
	if (h->nr_served < h->nr_volumes && !sim_one_in(3)) {
		h->nr_clients = 1;
		h->ops_per_client = sim_below(4);
		h->crash_steps = sim_between(1, 100);
	}
	if (h->switches)
		switch_life_begins(h);
	for (unsigned v = 0; v < h->nr_volumes; v++)
		remote_draw(&h->remotes[v], h->last);
	h->one_fails = h->nr_served > 1 && !h->remote && !h->no_ssd && !h->switches && h->drain &&
		       sim_one_in(2);
	h->zero_lost = last && h->damaged && sim_one_in(2);
	h->closed = h->drained = h->lost = false;
	h->open_error = 0;
	sim_trace("--- a life%s: crash in stage %s after %u steps, %u clients, buffers %u, "
		  "write-back %s, "
		  "dirty-low %u, idle %u ms, flush-interval %u ms",
		  h->no_ssd ? " without an SSD" : "", stage_names[h->crash_stage], h->crash_steps,
		  h->nr_clients, h->settings.nr_buffers, h->settings.writeback ? "on" : "off",
		  h->settings.dirty_low_percent, h->settings.idle_ms, h->settings.flush_interval_ms);
}
