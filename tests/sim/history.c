/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.c - draws a cache, leads it through its lives and crashes, and compares at the end.
 *
 * At every crash each store is either cut from power or merely loses its process (killed),
 * independently: a machine that loses power, a server that dies, a disk that is pulled with it.
 *
 * A crash during the opening repeats recovery from what the last one left half done. At the end the
 * log is drained, the backing stores lose power, and their images alone must equal the volumes.
 */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "history.h"
#include "oracle_bytes.h"

#define STEPS_MAX 8000000u /* of a history; more is a livelock */
#define LIVES_MAX 5u
#define LIVES_STUTTER_MAX 12u

static const char *const stage_names[] = {"open", "verify", "work", "drain", "close", "none"};

void history_create(struct history *h, unsigned nr_volumes, bool faults)
{
	unsigned v;

	memset(h, 0, sizeof(*h));
	h->nr_volumes = nr_volumes;
	h->faults = faults;
	h->limits = LIMITS_NONE;
	store_sim_create(&h->ssd, SIM_SSD_MAX_BYTES);
	for (v = 0; v < nr_volumes; v++)
		store_sim_create(&h->backing[v], (SIM_VOLUME_MAX_BLOCKS + 1) * LC_BLOCK);
	clients_create(h);
}

/* --- shapes --- */

static void draw_volume(struct history *h, unsigned v)
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
	sim_trace("%s: %llu bytes, blocks of %u, byte region at %llu", names[v],
		  (unsigned long long)size, h->backing[v].store.block_bytes,
		  (unsigned long long)region);
}

/* What is on the volume before it is cached: zeros, or PRESET. */
static void fill_volume(struct history *h, unsigned v, bool preset)
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

static void draw_cache(struct history *h)
{
	u64 size;

	h->segment_bytes = LC_SEGMENT_MIN_BYTES << sim_below(4);
	if (h->scenario == SCENARIO_FULL)
		h->segment_bytes = LC_SEGMENT_MIN_BYTES;
	else if (h->scenario == SCENARIO_STAMMER || h->scenario == SCENARIO_PATCHWORK ||
		 h->scenario == SCENARIO_SUPERSEDE)
		h->segment_bytes = LC_SEGMENT_MIN_BYTES << sim_between(2, 3);
	size = lc_cache_min_bytes(h->segment_bytes);
	size += (u64)h->segment_bytes * (sim_one_in(3) ? 0 : sim_log_between(1, 20));
	if (h->scenario == SCENARIO_FULL)
		size = lc_cache_min_bytes(h->segment_bytes) +
		       (u64)h->segment_bytes * sim_between(3, 7);
	if (sim_one_in(3))
		size += sim_below(h->segment_bytes);
	store_sim_reset(&h->ssd, "ssd", size, sim_one_in(2) ? LC_SECTOR : LC_BLOCK, false);
	sim_trace("ssd: %llu bytes, segments of %u", (unsigned long long)size, h->segment_bytes);
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
	s->batch_bytes = sim_one_in(2) ? 0 : (u64)h->segment_bytes * sim_between(1, 8);
	s->flush_interval_ms = intervals[sim_below(4)];
	s->retry_ms = sim_between(1, 20);
	/* Virtual time: only a store that fails lets it pass. */
	s->stall_timeout_ms = h->faults && sim_one_in(2) ? sim_log_between(5, 200) : 30000;
	if (h->scenario == SCENARIO_FULL) {
		s->nr_buffers = sim_between(4, 10);
		s->batch_bytes = (u64)h->segment_bytes * sim_between(4, 8);
		s->dirty_low_percent = 100;
		s->flush_interval_ms = 0;
	} else if (h->scenario == SCENARIO_PATCHWORK) {
		s->writeback = true;
		s->dirty_low_percent = 0;
	}
}

static void draw_faults(struct history *h)
{
	unsigned v;
	struct store_sim *s;

	for (v = 0; v <= h->nr_volumes; v++) {
		s = v ? &h->backing[v - 1] : &h->ssd;
		s->faults = (struct sim_faults){0};
		if (!h->faults || h->last || sim_one_in(2))
			continue;
		h->covered[COVER_FAULTS] = true;
		if (sim_one_in(2))
			s->faults.read_ppm = sim_log_between(100, 20000);
		if (sim_one_in(2))
			s->faults.write_ppm = sim_log_between(100, 20000);
		if (sim_one_in(2))
			s->faults.flush_ppm = sim_log_between(1000, 100000);
		if (sim_one_in(3)) {
			s->faults.gone_ns = sim_now() + sim_log_between(1000, 20000000);
			s->faults.back_ns = s->faults.gone_ns + sim_log_between(100000, 200000000);
			h->covered[COVER_GONE] = true;
		}
	}
}

static void draw_life(struct history *h, bool last, bool must_crash)
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
	h->never_start = h->crash_stage == STAGE_NONE && !last && sim_one_in(5);
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
		h->load.write = h->load.bytes = h->load.drains = 0;
		h->load.read = 50;
	}
	if (h->nr_clients > h->limits.clients)
		h->nr_clients = h->limits.clients;
	if (h->limits.ops < LIMITS_NONE.ops && h->ops_per_client > h->limits.ops)
		h->ops_per_client = h->limits.ops;
	h->covered[COVER_NEVER_FLUSH] |= !h->load.flush && !h->load.fua_percent;
	draw_settings(h);
	draw_faults(h);
	h->closed = h->drained = h->lost = false;
	h->open_error = 0;
	sim_trace("--- a life: crash in stage %s after %u steps, %u clients, buffers %u, "
		  "write-back %s, "
		  "dirty-low %u, idle %u ms, flush-interval %u ms",
		  stage_names[h->crash_stage], h->crash_steps, h->nr_clients,
		  h->settings.nr_buffers, h->settings.writeback ? "on" : "off",
		  h->settings.dirty_low_percent, h->settings.idle_ms, h->settings.flush_interval_ms);
}

/*
 * One of the two copies of a metadata page decays. Whatever depends on an update has waited for both copies (I3), so
 * the other one, even if a crash left it one generation behind, is as good: nothing may be lost.
 * If a crash has damaged one already there is none to spare. Mostly it is the newer one, and the superblock.
 */
static void damage_metadata(struct history *h)
{
	u32 page = sim_one_in(4), copy = sim_below(2), i;
	struct lc_page_info info[2];

	for (i = 0; i < 2; i++)
		if (lc_page_verify(h->ssd.now + (2 * page + i) * LC_BLOCK, page, &info[i]) !=
		    LC_PAGE_OK)
			return;
	if (info[0].generation != info[1].generation)
		copy = info[1].generation > info[0].generation;
	store_sim_rot(&h->ssd, (2 * page + copy) * LC_BLOCK + sim_below(256), sim_between(1, 256));
	h->covered[COVER_METADATA] = true;
	h->metadata_damaged = true; /* once: the other copy may stay the only one for long */
}

/*
 * Between lives something in the log decays. The cache may then refuse to open, or answer with EIO,
 * but never with stale data (I10, I11). Only after a crash it may take the damage for a torn tail,
 * and lose what no one had recorded as durable.
 */
static void damage(struct history *h)
{
	u64 zone = lc_cache_min_bytes(h->segment_bytes) - LC_SEGMENTS_MIN * h->segment_bytes;
	u64 place = zone + sim_rand() % (h->ssd.store.size_bytes - zone - LC_BLOCK);

	if (sim_one_in(2))
		store_sim_rot(&h->ssd, place, sim_log_between(1, LC_BLOCK));
	else
		store_sim_bad_range(&h->ssd, place, sim_log_between(1, LC_BLOCK));
	h->damaged = h->covered[COVER_DAMAGE] = true;
	if (h->before_valid)
		return;
	oracle_allow_loss();
	bytes_allow_loss();
}

void history_covers(struct history *h, const struct lc_stats *st)
{
	u64 laps = st->head_id / st->nr_segments;

	if (st->dirty_segments + 2 >= st->nr_segments)
		h->covered[COVER_RING_FULL] = true;
	h->covered[COVER_LAPS] |= laps > 0;
	h->covered[COVER_LAPS_DOZEN] |= laps >= 12;
	if (laps > h->laps_max)
		h->laps_max = laps;
}

/* --- a life --- */

static void enter_stage(struct history *h, enum stage stage)
{
	sim_trace("stage %s", stage_names[stage]);
	h->stage = stage;
	if (h->crash_stage == stage)
		sim_plan_crash(h->crash_steps);
}

static void format_main(void *arg)
{
	struct history *h = arg;
	struct lc_format_options o = {.segment_bytes = h->segment_bytes,
				      .label = sim_one_in(2) ? "simulated" : NULL};
	struct lc_error err = {.text = ""};
	int r;

	if (sim_one_in(6))
		sim_plan_crash(sim_log_between(1, 100));
	r = lc_cache_format(&h->ssd.store, &o, &err);
	if (r)
		sim_fail("lc_cache_format: %d, %s", r, err.text);
	r = lc_cache_probe(&h->ssd.store, &err);
	if (r != 1)
		sim_fail("lc_cache_probe after a format: %d, %s", r, err.text);
}

/*
 * A clean restart is warm. Opening may cost the content of the segments that the head enters next,
 * no more.
 */
static void check_warm(struct history *h)
{
	struct lc_stats st;
	u64 blocks = h->segment_bytes / LC_BLOCK;

	lc_cache_stats(h->cache, &st);
	sim_trace("recovered: %llu blocks cached, %llu dirty, epoch %llu",
		  (unsigned long long)st.cached_blocks, (unsigned long long)st.dirty_blocks,
		  (unsigned long long)st.epoch);
	if (!h->before_valid || h->faults)
		return;
	if (st.cached_blocks + 2 * blocks < h->before.cached_blocks)
		sim_fail("a clean restart is not warm: %llu blocks were cached, now %llu are",
			 (unsigned long long)h->before.cached_blocks,
			 (unsigned long long)st.cached_blocks);
}

static void check_images(struct history *h, bool media, const char *what)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++) {
		const u8 *image = media ? h->backing[v].media : h->backing[v].now;

		oracle_check_image(v, 0, h->nr_sectors[v], image, what);
		bytes_check(v, 0, bytes_len(v), image + bytes_offset(v), what);
	}
}

static bool open_cache(struct history *h)
{
	static const char *const names[ORACLE_VOLUMES_MAX] = {"", "one", "two", "three"};
	struct lc_volume_spec specs[ORACLE_VOLUMES_MAX];
	struct lc_error err = {.text = ""};
	u64 steps = sim_steps();
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		specs[v] = (struct lc_volume_spec){.name = names[v], .backing = &h->backing[v].store};
	h->open_error = lc_cache_open(&h->ssd.store, specs, h->nr_volumes, &h->settings, &h->cache,
				      &err);
	if (h->open_error) {
		sim_trace("open refused: %d, %s", h->open_error, err.text);
		if (!h->faults || (h->last && !h->damaged))
			sim_fail("lc_cache_open: %d, %s", h->open_error, err.text);
		h->nr_refused++;
		h->covered[COVER_REFUSED] = true;
		return false;
	}
	h->open_steps = sim_steps() - steps;
	oracle_opened();
	for (v = 0; v < h->nr_volumes; v++)
		if (lc_volume_size_bytes(lc_cache_volume(h->cache, v)) !=
		    h->backing[v].store.size_bytes)
			sim_fail("the size of volume %u is not that of its backing store", v);
	check_warm(h);
	return true;
}

static void drain(struct history *h)
{
	struct lc_stats st;
	u32 tick = oracle_tick();
	int r = lc_cache_drain(h->cache);

	sim_trace("drained: %d (tick %u)", r, tick);
	if (r) {
		if (!h->faults)
			sim_fail("lc_cache_drain: %d", r);
		return;
	}
	durable_at(tick);
	lc_cache_stats(h->cache, &st);
	if (h->lost) /* blocks that cannot be read are not on the backing store either */
		return;
	if (st.dirty_blocks)
		sim_fail("%llu dirty blocks after a drain", (unsigned long long)st.dirty_blocks);
	h->drained = h->covered[COVER_DRAINED] = true;
	check_images(h, true, "on the backing store after a drain and a power cut");
}

static void life_main(void *arg)
{
	struct history *h = arg;
	struct lc_error err = {.text = ""};
	u32 tick;
	int r;

	enter_stage(h, STAGE_OPEN);
	if (!open_cache(h))
		return;
	if (!h->never_start) {
		r = lc_cache_start(h->cache, &err);
		if (r)
			sim_fail("lc_cache_start: %d, %s", r, err.text);
		enter_stage(h, STAGE_VERIFY);
		if (h->verify_first)
			verify_all(h);
		enter_stage(h, STAGE_WORK);
		clients_run(h);
		verify_all(h);
		enter_stage(h, STAGE_DRAIN);
		if (h->drain)
			drain(h);
	}
	enter_stage(h, STAGE_CLOSE);
	tick = oracle_tick();
	lc_cache_stats(h->cache, &h->before);
	history_covers(h, &h->before);
	r = lc_cache_close(h->cache);
	sim_trace("closed: %d", r);
	if (r && !h->faults)
		sim_fail("lc_cache_close: %d", r);
	if (!r) {
		durable_at(tick);
		h->closed = true;
	}
}

static void crash_stores(struct history *h)
{
	/* Of eight: all lose power, all are killed, each for itself. */
	u32 kind = sim_below(8), nr_cut = 0;
	unsigned v;

	for (v = 0; v <= h->nr_volumes; v++) {
		struct store_sim *s = v ? &h->backing[v - 1] : &h->ssd;
		bool cut = kind < 3 || (kind > 3 && sim_one_in(2));

		sim_trace("%s: %s", s->store.name, cut ? "power cut" : "killed");
		nr_cut += cut;
		if (cut) {
			s->tear_bytes = sim_one_in(3) ? LC_BLOCK : LC_SECTOR;
			h->covered[s->tear_bytes == LC_BLOCK ? COVER_TEAR_BLOCK : COVER_TEAR_SECTOR] =
				true;
		}
		store_sim_crash(s, cut ? SIM_POWER_CUT : SIM_KILL);
	}
	h->covered[!nr_cut		  ? COVER_KILL_ALL :
		   nr_cut > h->nr_volumes ? COVER_CUT_ALL :
					    COVER_CUT_SOME] = true;
}

static void run_life(struct history *h)
{
	enum sim_outcome outcome;
	struct sim_leftover left;
	unsigned v;

	bytes_life_ended();
	outcome = sim_life("main", life_main, h);
	if (outcome == SIM_CRASHED) {
		sim_trace("=== crash in stage %s at step %llu", stage_names[h->stage],
			  (unsigned long long)sim_steps());
		h->nr_crashes++;
		h->before_valid = false;
		if (h->stage == STAGE_OPEN) {
			h->covered[COVER_CRASH_OPEN_TWICE] |= h->crashed_open;
			h->covered[COVER_CRASH_OPEN] = true;
		}
		h->crashed_open = h->stage == STAGE_OPEN;
		crash_stores(h);
		oracle_verify_judge();
		oracle_crashed();
	} else if (!h->open_error) {
		h->before_valid = h->closed;
		store_sim_assert_idle(&h->ssd);
		for (v = 0; v < h->nr_volumes; v++)
			store_sim_assert_idle(&h->backing[v]);
		if (h->power_cut_after) {
			sim_trace("power cut after the close");
			store_sim_crash(&h->ssd, SIM_POWER_CUT);
			for (v = 0; v < h->nr_volumes; v++)
				store_sim_crash(&h->backing[v], SIM_POWER_CUT);
		}
		if (h->closed)
			oracle_closed();
	}
	if (outcome == SIM_RETURNED) { /* the process ends, also one that could not open */
		store_sim_crash(&h->ssd, SIM_KILL);
		for (v = 0; v < h->nr_volumes; v++)
			store_sim_crash(&h->backing[v], SIM_KILL);
	}
	left = sim_life_end();
	if (outcome == SIM_RETURNED && (left.fibers || left.allocations))
		sim_fail("%s left over after %s: %u threads, %u allocations of %llu bytes",
			 left.fibers ? "threads" : "memory",
			 h->open_error ? "an open that failed" : "a close", left.fibers,
			 left.allocations, (unsigned long long)left.bytes);
}

static void format(struct history *h)
{
	enum sim_outcome outcome;

	h->crash_stage = STAGE_NONE;
	h->before_valid = false;
	h->ssd.faults = (struct sim_faults){0};
	do {
		outcome = sim_life("format", format_main, h);
		if (outcome == SIM_CRASHED) {
			h->nr_crashes++;
			crash_stores(h);
		}
		sim_life_end();
	} while (outcome == SIM_CRASHED);
}

void history_run(struct history *h, u64 seed)
{
	bool preset;
	unsigned v;
	u32 life, nr_lives;
	u64 crashes;

	h->seed = seed;
	sim_seed(seed + h->limits.salt * 1000000007ull);
	sim_history_begin(STEPS_MAX);
	preset = sim_one_in(2);
	h->damaged = h->metadata_damaged = h->crashed_open = false;
	memset(h->covered, 0, sizeof(h->covered));
	h->scenario = sim_one_in(2) ? SCENARIO_ANY : (enum scenario)sim_below(NR_SCENARIOS);
	memset(h->nr_sectors, 0, sizeof(h->nr_sectors));
	draw_cache(h);
	for (v = 0; v < h->nr_volumes; v++)
		draw_volume(h, v);
	oracle_begin(seed, h->nr_volumes, h->nr_sectors, preset);
	oracle_allow_errors(h->faults);
	for (v = 0; v < h->nr_volumes; v++)
		fill_volume(h, v, preset);
	format(h);
	h->open_steps = 0;
	nr_lives = sim_between(2, h->scenario == SCENARIO_STUTTER || h->scenario == SCENARIO_STAMMER ?
					  LIVES_STUTTER_MAX :
					  LIVES_MAX);
	if (nr_lives > h->limits.lives)
		nr_lives = h->limits.lives;
	crashes = h->nr_crashes;
	for (life = 0; life < nr_lives; life++) {
		bool last = life == nr_lives - 1;

		if (life && !h->metadata_damaged && sim_one_in(6))
			damage_metadata(h);
		else if (h->faults && life && sim_one_in(8))
			damage(h);
		draw_life(h, last, life == nr_lives - 2 && h->nr_crashes == crashes);
		run_life(h);
		/* A new log on the same device: nothing of the old one may show through. */
		if (h->closed && h->drained && !last && sim_one_in(4))
			format(h);
	}
	h->covered[COVER_CRASH_FIVE] = h->nr_crashes >= crashes + 5;
	if (h->scenario != SCENARIO_ANY)
		h->covered[COVER_STUTTER + (h->scenario - SCENARIO_STUTTER)] = true;
	if (h->drained)
		check_images(h, false, "on the backing store at the end");
}
