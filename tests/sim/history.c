/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.c - leads a cache through its lives and crashes, and compares at the end.
 *
 * At every crash each store is either cut from power or merely loses its process (killed),
 * independently: a machine that loses power, a server that dies, a disk that is pulled with it.
 *
 * A crash during the opening repeats recovery from what the last one left half done. At the end the
 * log is drained, the backing stores lose power, and their images alone must equal the volumes.
 */
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

#define STEPS_MAX 8000000u /* of a history; more is a livelock */
#define LIVES_MAX 5u
#define LIVES_STUTTER_MAX 12u

const char *const volume_names[ORACLE_VOLUMES_MAX] = {"", "one", "two", "three"};

void history_create(struct history *h, unsigned nr_volumes, bool faults, bool cacheless,
		    bool switches, bool remote)
{
	unsigned v;

	memset(h, 0, sizeof(*h));
	h->nr_volumes = nr_volumes;
	h->faults = faults;
	h->remote = remote;
	h->may_fail = faults || remote;
	h->cacheless = cacheless;
	h->limits = LIMITS_NONE;
	h->switches = switches;
	h->ssd = &h->ssds[0];
	for (v = 0; v < SIM_SSDS; v++)
		store_sim_create(&h->ssds[v].sim, SIM_SSD_MAX_BYTES);
	store_sim_create(&h->dirty, SIM_SSD_MAX_BYTES);
	for (v = 0; v < nr_volumes; v++)
		store_sim_create(&h->backing[v], (SIM_VOLUME_MAX_BLOCKS + 1) * LC_BLOCK);
	for (v = 0; v < nr_volumes; v++)
		remote_create(&h->remotes[v], &h->backing[v]);
	store_sim_create(&h->spare, SIM_SPARE_BYTES);
	clients_create(h);
}

void history_covers(struct history *h, const struct lc_stats *st)
{
	u64 laps;

	if (!st->nr_segments)
		return;
	laps = st->head_id / st->nr_segments;
	if (st->dirty_segments + 2 >= st->nr_segments)
		h->covered[COVER_RING_FULL] = true;
	h->covered[COVER_PACED] |= st->pace_delay_ns > 0;
	h->covered[COVER_ROUNDS] |= st->rounds >= 3 && st->sweeps >= 2 * st->rounds;
	h->covered[COVER_LAPS] |= laps > 0;
	h->covered[COVER_LAPS_DOZEN] |= laps >= 12;
	h->covered[COVER_ZEROS_WRITTEN] |= st->zeroed_blocks && !h->backing[0].zero_works;
	if (laps > h->laps_max)
		h->laps_max = laps;
}

static void cover_together(struct history *h)
{
	for (unsigned i = 0; i < SIM_SSDS; i++) {
		h->covered[COVER_TOGETHER] |= h->ssds[i].sim.nr_together > 0;
		h->covered[COVER_TOGETHER_FAILED] |= h->ssds[i].sim.nr_together_failed > 0;
	}
	for (unsigned v = 0; v < h->nr_volumes; v++)
		h->covered[COVER_TOGETHER_BACKING] |= h->backing[v].nr_together > 0;
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
	struct lc_format_options o = {.segment_bytes = h->ssd->segment_bytes,
				      .label = sim_one_in(2) ? "simulated" : NULL};
	struct lc_error err = {.text = ""};
	int r;

	if (sim_one_in(6))
		sim_plan_crash(sim_log_between(1, 100));
	r = lc_cache_format(&h->ssd->sim.store, &o, &err);
	if (r)
		sim_fail("lc_cache_format: %d, %s", r, err.text);
	r = lc_cache_probe(&h->ssd->sim.store, &err);
	if (r != 1)
		sim_fail("lc_cache_probe after a format: %d, %s", r, err.text);
}

static u64 zeros_executed(const struct history *h)
{
	u64 n = 0;
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		n += h->backing[v].nr_zeroed;
	return n;
}

/*
 * A clean restart is warm. Opening may cost the content of the segments that the head enters next,
 * no more.
 */
static void check_warm(struct history *h)
{
	struct lc_stats st;
	u64 blocks = h->ssd->segment_bytes / LC_BLOCK;

	lc_cache_stats(h->cache, &st);
	sim_trace("recovered: %llu blocks cached, %llu dirty, epoch %llu",
		  (unsigned long long)st.cached_blocks, (unsigned long long)st.dirty_blocks,
		  (unsigned long long)st.epoch);
	if (st.pending_zero_blocks && !h->before_valid) {
		h->covered[COVER_ZEROS_AGAIN] = true;
		h->covered[COVER_ZEROS_DONE] |= h->zeroed != zeros_executed(h);
	}
	if (!h->before_valid || h->faults || h->colder || h->no_ssd)
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
	struct lc_volume_spec specs[ORACLE_VOLUMES_MAX];
	struct lc_error err = {.text = ""};
	u64 steps = sim_steps();
	unsigned i, v;

	for (i = 0; i < h->nr_served; i++)
		specs[i] = (struct lc_volume_spec){.name = volume_names[h->served[i]],
						   .backing = h->stores[h->served[i]]};
	h->open_error = lc_cache_open(h->no_ssd ? NULL : &h->ssd->sim.store, specs, h->nr_served,
				      &h->settings, &h->cache, &err);
	if (h->open_error) {
		sim_trace("open refused: %d, %s", h->open_error, err.text);
		if (!h->may_fail || (h->last && !h->damaged))
			sim_fail("lc_cache_open: %d, %s", h->open_error, err.text);
		h->nr_refused++;
		h->covered[COVER_REFUSED] = true;
		return false;
	}
	h->open_steps = sim_steps() - steps;
	oracle_opened(!h->no_ssd);
	for (v = 0; v < h->nr_volumes && !h->no_ssd; v++) {
		h->covered[COVER_BACK] |= h->present[v] && h->away[v] && h->open_before;
		/* Left out, it has lost its clean blocks, durably; served, it may get dirty. */
		h->away[v] = !h->present[v];
		h->clean[v] &= !h->present[v];
	}
	h->open_before = true;
	for (i = 0; i < h->nr_served; i++)
		if (lc_volume_size_bytes(lc_cache_volume(h->cache, i)) !=
		    h->backing[h->served[i]].store.size_bytes)
			sim_fail("the size of volume %u is not that of its backing store",
				 h->served[i]);
	if (lc_cache_has_ssd(h->cache) == h->no_ssd)
		sim_fail("lc_cache_has_ssd is wrong");
	check_warm(h);
	if (h->switches)
		settings_opened(h);
	h->unverified &= h->no_ssd;
	h->colder = false;
	h->zeroed = zeros_executed(h);
	return true;
}

static void drain(struct history *h)
{
	struct lc_stats st;
	u32 tick = oracle_tick();
	int r = lc_cache_drain(h->cache);

	sim_trace("drained: %d (tick %u)", r, tick);
	if (r) {
		if ((!h->may_fail || (h->last && !h->faults)) && !h->interrupted)
			sim_fail("lc_cache_drain: %d", r);
		return;
	}
	if (h->no_ssd) /* there is nothing to drain, and it is no flush */
		return;
	if (!oracle_has_log(oracle_life())) /* attaching was interrupted: what went straight is not flushed */
		return;
	durable_at(ORACLE_ALL_VOLUMES, tick);
	lc_cache_stats(h->cache, &st);
	if (h->lost) /* blocks that cannot be read are not on the backing store either */
		return;
	if (st.dirty_blocks || st.pending_zero_blocks)
		sim_fail("%llu dirty blocks and %llu pending zeros after a drain",
			 (unsigned long long)st.dirty_blocks,
			 (unsigned long long)st.pending_zero_blocks);
	h->drained = h->covered[COVER_DRAINED] = true;
	check_images(h, true, "on the backing store after a drain and a power cut");
}

/* The SSD has lost blocks; but whoever zeroes everything does not miss them. */
static void zero_everything(struct history *h)
{
	unsigned i;

	for (i = 0; i < h->nr_served; i++)
		/* Zeros in a short last block are data, in a place of the SSD that may be bad. */
		if (h->backing[h->served[i]].store.size_bytes % LC_BLOCK)
			return;
	for (i = 0; i < h->nr_served; i++)
		if (!do_whole(&h->clients[0], h->served[i], false))
			return;
	h->covered[COVER_ZERO_LOST] |= h->lost;
	h->lost = false;
	verify_all(h);
	if (h->lost)
		sim_fail("something is still lost after everything was zeroed");
}

static void open_stores(struct history *h)
{
	unsigned i;

	for (i = 0; i < h->nr_served; i++) {
		unsigned v = h->served[i];

		h->stores[v] = h->remote ? remote_open(&h->remotes[v]) : &h->backing[v].store;
	}
}

static void close_stores(struct history *h)
{
	unsigned i;

	for (i = 0; i < h->nr_served && h->remote; i++)
		lc_store_close(h->stores[h->served[i]]);
}

static void life_main(void *arg)
{
	struct history *h = arg;
	struct lc_error err = {.text = ""};
	u32 tick;
	int r;

	enter_stage(h, STAGE_OPEN);
	open_stores(h);
	if (!open_cache(h)) {
		close_stores(h);
		return;
	}
	if (!h->never_start) {
		r = lc_cache_start(h->cache, &err);
		if (r)
			sim_fail("lc_cache_start: %d, %s", r, err.text);
		enter_stage(h, STAGE_VERIFY);
		if (h->verify_first)
			verify_all(h);
		if (h->zero_lost)
			zero_everything(h);
		enter_stage(h, STAGE_WORK);
		clients_run(h);
		verify_all(h);
		enter_stage(h, STAGE_DRAIN);
		if (h->one_fails)
			volumes_drain_one_failing(h);
		if (h->drain)
			drain(h);
	}
	enter_stage(h, STAGE_CLOSE);
	tick = oracle_tick();
	lc_cache_stats(h->cache, &h->before);
	history_covers(h, &h->before);
	r = lc_cache_close(h->cache);
	sim_trace("closed: %d", r);
	if (r && !h->faults) /* a server that is away is no reason */
		sim_fail("lc_cache_close: %d", r);
	if (!r) {
		durable_at(ORACLE_ALL_VOLUMES, tick);
		h->closed = true;
		h->drained |= h->no_ssd;
	}
	close_stores(h);
}

/*
 * Without an SSD nobody flushes at an opening, so what a killed server left behind is as uncertain after it as it
 * was before, and a read proves nothing. The machine writes it to the disk meanwhile: that makes nothing certain
 * that anybody was promised.
 */
static void settle_backing(struct history *h)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		store_sim_settle(&h->backing[v]);
}

/* The one that is not in use. */
static struct store_sim *other_ssd(struct history *h)
{
	return &h->ssds[h->ssd == &h->ssds[0]].sim;
}

static void crash_stores(struct history *h)
{
	/* Of eight: all lose power, all are killed, each for itself. */
	u32 kind = sim_below(8), nr_cut = 0;
	unsigned v;

	for (v = 0; v <= h->nr_volumes + h->switches; v++) {
		struct store_sim *s = v > h->nr_volumes ? other_ssd(h) :
				      v			? &h->backing[v - 1] :
							  &h->ssd->sim;
		bool cut = kind < 3 || (kind > 3 && sim_one_in(2));

		sim_trace("%s: %s", s->store.name, cut ? "power cut" : "killed");
		nr_cut += cut;
		if (cut) {
			s->tear_bytes = sim_one_in(3) ? LC_BLOCK : LC_SECTOR;
			h->covered[s->tear_bytes == LC_BLOCK ? COVER_TEAR_BLOCK : COVER_TEAR_SECTOR] =
				true;
		}
		if (h->remote && v && v <= h->nr_volumes)
			remote_crash(&h->remotes[v - 1]);
		store_sim_crash(s, cut ? SIM_POWER_CUT : SIM_KILL);
	}
	if (h->no_ssd || h->mixed)
		settle_backing(h);
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
		h->before_valid = h->closed && (!h->switches || !h->no_ssd);
		store_sim_assert_idle(&h->ssd->sim);
		if (h->switches)
			store_sim_assert_idle(other_ssd(h));
		for (v = 0; v < h->nr_volumes; v++)
			store_sim_assert_idle(&h->backing[v]);
		if (h->power_cut_after) {
			sim_trace("power cut after the close");
			store_sim_crash(&h->ssd->sim, SIM_POWER_CUT);
			if (h->switches)
				store_sim_crash(other_ssd(h), SIM_POWER_CUT);
			for (v = 0; v < h->nr_volumes; v++)
				store_sim_crash(&h->backing[v], SIM_POWER_CUT);
		}
		if (h->closed)
			oracle_closed();
		for (v = 0; v < h->nr_volumes && h->closed && h->drained && !h->no_ssd; v++)
			h->clean[v] = true;
	}
	if (outcome == SIM_RETURNED) { /* the process ends, also one that could not open */
		store_sim_crash(&h->ssd->sim, SIM_KILL);
		if (h->switches)
			store_sim_crash(other_ssd(h), SIM_KILL);
		for (v = 0; v < h->nr_volumes; v++)
			store_sim_crash(&h->backing[v], SIM_KILL);
		if (h->no_ssd || h->mixed)
			settle_backing(h);
	}
	if (h->switches)
		store_sim_crash(&h->dirty, SIM_KILL);
	left = sim_life_end();
	if (outcome == SIM_RETURNED && (left.fibers || left.allocations))
		sim_fail("%s left over after %s: %u threads, %u allocations of %llu bytes",
			 left.fibers ? "threads" : "memory",
			 h->open_error ? "an open that failed" : "a close", left.fibers,
			 left.allocations, (unsigned long long)left.bytes);
}

void history_format(struct history *h)
{
	enum sim_outcome outcome;

	h->crash_stage = STAGE_NONE;
	h->before_valid = h->no_ssd = h->open_before = false;
	h->ssd->sim.faults = (struct sim_faults){0};
	h->ssd->formatted = h->ssd->voided = true;
	h->ssd->detached = h->at_stake = h->unverified = false;
	settings_format(h, h->ssd);
	do {
		outcome = sim_life("format", format_main, h);
		if (outcome == SIM_CRASHED) {
			h->nr_crashes++;
			crash_stores(h);
		}
		sim_life_end();
	} while (outcome == SIM_CRASHED);
	memset(h->clean, true, sizeof(h->clean));
	memset(h->away, true, sizeof(h->away));
}

/*
 * After a life that left nothing but the backing stores: a new log on the same device, of whose past nothing may
 * show through; or some lives without an SSD until then (it would not know what was written meanwhile).
 */
static void start_afresh(struct history *h)
{
	bool before = h->no_ssd;

	if (h->switches || !sim_one_in(3))
		return;
	if (h->cacheless || (!h->remote && sim_one_in(3))) {
		h->no_ssd = true;
		memset(h->clean, true, sizeof(h->clean));
		memset(h->away, true, sizeof(h->away));
	} else {
		history_format(h);
		h->covered[COVER_NO_SSD_BETWEEN] |= before;
	}
}

/* What happens while nobody serves. */
static void between_lives(struct history *h)
{
	if (h->no_ssd) {
		h->covered[COVER_NO_SSD] = true;
	} else {
		if (!h->metadata_damaged && sim_one_in(6))
			damage_metadata(h);
		else if (h->faults && sim_one_in(8))
			damage(h);
		if (sim_one_in(4))
			volumes_refused(h);
	}
	if (sim_one_in(2))
		volumes_foreign(h);
}

void history_run(struct history *h, u64 seed)
{
	bool preset;
	unsigned v;
	u32 life, nr_lives;
	u64 crashes;

	h->seed = seed;
	for (v = 0; v < h->nr_volumes; v++)
		store_sim_drop_ghosts(&h->backing[v]);
	sim_seed(seed + h->limits.salt * 1000000007ull);
	sim_history_begin(STEPS_MAX);
	h->preset = preset = sim_one_in(2);
	h->damaged = h->metadata_damaged = h->crashed_open = h->colder = false;
	h->mixed = h->at_stake = h->left = h->unverified = h->interrupted = false;
	h->state = LC_CACHE_NONE;
	memset(h->covered, 0, sizeof(h->covered));
	h->scenario = sim_one_in(2) ? SCENARIO_ANY : (enum scenario)sim_below(NR_SCENARIOS);
	memset(h->nr_sectors, 0, sizeof(h->nr_sectors));
	draw_cache(h);
	for (v = 0; v < h->nr_volumes; v++) {
		draw_volume(h, v);
		remote_begin(&h->remotes[v]);
		h->remotes[v].covered_lost = &h->covered[COVER_LINK_LOST];
		h->remotes[v].covered_restart = &h->covered[COVER_LINK_RESTART];
		h->remotes[v].covered_stuck = &h->covered[COVER_LINK_STUCK];
	}
	oracle_begin(seed, h->nr_volumes, h->nr_sectors, preset);
	oracle_allow_errors(h->may_fail);
	for (v = 0; v < h->nr_volumes; v++)
		fill_volume(h, v, preset);
	store_sim_reset(&h->spare, "spare", SIM_SPARE_BYTES, LC_SECTOR, true);
	if (h->switches)
		switch_prepare(h);
	history_format(h);
	h->no_ssd = h->cacheless || (!h->remote && sim_one_in(h->switches ? 2 : 20));
	h->open_steps = 0;
	nr_lives = sim_between(2, h->scenario == SCENARIO_STUTTER || h->scenario == SCENARIO_STAMMER ?
					  LIVES_STUTTER_MAX :
					  LIVES_MAX);
	if (nr_lives > h->limits.lives)
		nr_lives = h->limits.lives;
	crashes = h->nr_crashes;
	for (life = 0; life < nr_lives; life++) {
		bool last = life == nr_lives - 1;

		if (life)
			between_lives(h);
		draw_life(h, last, life == nr_lives - 2 && h->nr_crashes == crashes);
		run_life(h);
		if (h->switches)
			switch_between_lives(h);
		if (h->closed && h->drained && !last)
			start_afresh(h);
	}
	for (v = 0; v < h->nr_volumes; v++)
		h->covered[COVER_HAUNTED] |= h->backing[v].nr_haunted > 0;
	cover_together(h);
	h->covered[COVER_CRASH_FIVE] = h->nr_crashes >= crashes + 5;
	if (h->scenario != SCENARIO_ANY)
		h->covered[COVER_STUTTER + (h->scenario - SCENARIO_STUTTER)] = true;
	if (h->no_ssd)
		h->covered[COVER_NO_SSD] = true;
	if (h->drained)
		check_images(h, false, "on the backing store at the end");
}
