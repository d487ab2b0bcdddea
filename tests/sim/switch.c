/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * switch.c - a cache that comes and goes while clients work.
 *
 * One fiber attaches and detaches at random: the SSD that was there before, another one, one that was formatted meanwhile,
 * one that was closed but not detached; and tries what must be refused. Another one changes settings. The oracle
 * hears of each switch what it has to know for rule 8. After a crash the next life begins with the SSD that was in
 * use, if that may hold anything that counts; otherwise without one, or with any that was detached.
 */
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

static struct fiber *switcher, *tuner;

/* --- somebody's dirty cache --- */

#define DIRTY_SEGMENT LC_SEGMENT_MIN_BYTES

static void dirty_main(void *arg)
{
	struct history *h = arg;
	struct lc_format_options o = {.segment_bytes = DIRTY_SEGMENT};
	struct lc_volume_spec spec = {sim_one_in(2) ? volume_names[0] : "strange", &h->spare.store};
	struct lc_error err = {.text = ""};
	struct lc_settings s;
	struct lc_cache *c;
	static u8 buf[2 * LC_BLOCK];
	int r = lc_cache_format(&h->dirty.store, &o, &err);

	lc_settings_init(&s);
	s.nr_buffers = 2;
	s.writeback = false;
	s.idle_ms = 0;
	if (!r)
		r = lc_cache_open(&h->dirty.store, &spec, 1, &s, &c, &err);
	if (!r)
		r = lc_cache_start(c, &err);
	if (!r)
		r = lc_write(lc_cache_volume(c, 0), buf, sizeof buf, LC_BLOCK, LC_FUA);
	/* Whoever attaches it in vain must not take this from it either. */
	if (!r && sim_one_in(2))
		r = lc_cache_set(c, lc_setting_find("dirty-low"), 77, true, &err);
	if (r)
		sim_fail("a cache to be left dirty: %d, %s", r, err.text);
	sim_crash_now();
}

void switch_prepare(struct history *h)
{
	/* With room enough that it need not write back. */
	store_sim_reset(&h->dirty, "dirty", 2 * lc_cache_min_bytes(DIRTY_SEGMENT), LC_SECTOR, false);
	sim_life("dirty", dirty_main, h);
	store_sim_crash(&h->dirty, SIM_KILL);
	store_sim_settle(&h->dirty);
	store_sim_crash(&h->spare, SIM_KILL);
	sim_life_end();
}

/* --- attach and detach --- */

static struct ssd *other(struct history *h, const struct ssd *s)
{
	return &h->ssds[s == &h->ssds[0]];
}

/* What the kernel drops after a failed flush, nobody can have again without a log. */
static void be_patient(struct history *h, bool patient)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		h->backing[v].patient_flush = patient;
}

static void all_away(struct history *h, bool away)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		if (away || h->present[v])
			h->clean[v] = h->away[v] = away;
}

static void begin(struct history *h, enum lc_cache_state state)
{
	h->state = state;
	h->covered[COVER_SWITCHES_FIVE] |= ++h->nr_switches > 9;
	if (!h->crash_in_switch || sim_one_in(2))
		return;
	h->crash_in_switch = false;
	sim_plan_crash(sim_log_between(1, sim_one_in(4) ? 5000 : 500));
}

static void format_other(struct history *h, struct ssd *s)
{
	struct lc_format_options o = {.segment_bytes = s->segment_bytes};
	struct lc_error err = {.text = ""};
	int r;

	s->formatted = s->voided = s->detached = false;
	r = lc_cache_format(&s->sim.store, &o, &err);
	sim_trace("%s: formatted, %d", s->sim.store.name, r);
	if (r && !h->faults)
		sim_fail("lc_cache_format: %d, %s", r, err.text);
	if (r)
		return;
	s->formatted = s->voided = true;
	settings_format(h, s);
}

static void attach(struct history *h)
{
	struct ssd *s = &h->ssds[sim_below(SIM_SSDS)];
	struct lc_error err = {.text = ""};
	bool voided = s->voided, fresh = false;
	u32 tick;
	int r;

	if (!s->formatted || sim_one_in(12)) {
		format_other(h, s);
		fresh = true;
		voided = s->voided;
	}
	if (!s->formatted)
		return;
	h->covered[COVER_ATTACHED_OTHER] |= s != h->ssd;
	h->ssd = s;
	s->voided = false;
	h->left = !voided;
	h->at_stake = h->unverified = true;
	all_away(h, false);
	tick = oracle_tick();
	oracle_attaching();
	settings_attaching(h);
	begin(h, LC_CACHE_ATTACHING);
	r = lc_cache_attach(h->cache, &s->sim.store, &err);
	sim_trace("%s: attached, %d, %s", s->sim.store.name, r, err.text);
	if (r && !lc_cache_has_ssd(h->cache)) {
		if (!h->faults && r != -ETIMEDOUT && !(r == -ECANCELED && h->interrupted))
			sim_fail("lc_cache_attach: %d, %s", r, err.text);
		h->covered[COVER_ATTACH_CANCELED] |= r == -ECANCELED;
		h->covered[COVER_ATTACH_FAILED] = true;
		h->state = LC_CACHE_NONE;
		h->at_stake = false;
		s->voided = voided;
		all_away(h, true);
		store_sim_assert_idle(&s->sim);
		return;
	}
	if (r)
		sim_fail("lc_cache_attach: %d, %s, but it is attached", r, err.text);
	h->no_ssd = false;
	h->state = LC_CACHE_ATTACHED;
	oracle_settled();
	durable_at(ORACLE_ALL_VOLUMES, tick);
	be_patient(h, false);
	h->unverified = false;
	settings_attached(h);
	h->covered[COVER_ATTACHED] = true;
	h->covered[COVER_ATTACHED_NEW] |= fresh;
	h->covered[COVER_ATTACHED_AGAIN] |= s->detached;
	h->covered[COVER_ATTACHED_LEFT] |= !voided;
}

static void detach(struct history *h)
{
	struct lc_error err = {.text = ""};
	u32 tick;
	int r;

	be_patient(h, true);
	h->unverified = true;
	begin(h, LC_CACHE_DETACHING);
	tick = oracle_detaching();
	r = lc_cache_detach(h->cache, &err);
	sim_trace("detached: %d, %s", r, err.text);
	oracle_detached(!r);
	if (lc_cache_has_ssd(h->cache) != !!r)
		sim_fail("lc_cache_detach: %d, but lc_cache_has_ssd says otherwise", r);
	if (r) {
		if (!h->faults && !h->interrupted && r != -ETIMEDOUT)
			sim_fail("lc_cache_detach: %d, %s", r, err.text);
		h->covered[COVER_DETACH_FAILED] = true;
		h->state = LC_CACHE_ATTACHED;
		be_patient(h, false);
		return;
	}
	durable_at(ORACLE_ALL_VOLUMES, tick);
	h->state = LC_CACHE_NONE;
	h->no_ssd = true;
	h->at_stake = false;
	h->ssd->voided = h->ssd->detached = true;
	all_away(h, true);
	h->covered[COVER_DETACHED] = true;
	store_sim_assert_idle(&h->ssd->sim);
}

/* --- what must be refused, and change nothing --- */

static void refuse(struct history *h, struct store_sim *s, enum cover cover, const char *what)
{
	struct lc_error err = {.text = ""};
	u32 before = s->last_number;
	int r;

	settings_attaching(h);
	r = lc_cache_attach(h->cache, &s->store, &err);
	sim_trace("%s: %d, %s", what, r, err.text);
	if (r != -EBUSY || !*err.text)
		sim_fail("%s: %d instead of -EBUSY (%s)", what, r, err.text);
	if (s == &h->dirty && s->last_number != before)
		sim_fail("%s was refused, but something was written", what);
	if (s == &h->dirty)
		store_sim_assert_idle(s);
	if (lc_cache_has_ssd(h->cache) != (h->state == LC_CACHE_ATTACHED))
		sim_fail("%s was refused, but there is a cache now, or none any more", what);
	h->covered[cover] = true;
}

static void refuse_detach(struct history *h)
{
	struct lc_error err = {.text = ""};
	int r = lc_cache_detach(h->cache, &err);

	if (r != -EBUSY || !*err.text)
		sim_fail("detaching none: %d instead of -EBUSY (%s)", r, err.text);
	h->covered[COVER_REFUSED_NONE] = true;
}

static int open_without(struct history *h)
{
	struct lc_volume_spec specs[ORACLE_VOLUMES_MAX];
	struct lc_error err = {.text = ""};
	unsigned i;
	int r;

	for (i = 0; i < h->nr_served; i++)
		specs[i] = (struct lc_volume_spec){volume_names[h->served[i]],
						   &h->backing[h->served[i]].store};
	r = lc_cache_open(NULL, specs, h->nr_served, &h->settings, &h->cache, &err);
	if (!r)
		r = lc_cache_start(h->cache, &err);
	if (r)
		sim_fail("opening without an SSD: %d, %s", r, err.text);
	h->state = LC_CACHE_NONE;
	return r;
}

static void refused_main(void *arg)
{
	struct history *h = arg;
	int r;

	open_without(h);
	refuse(h, &h->ssd->sim, COVER_REFUSED_OWN, "attaching the volumes' own dirty cache");
	r = lc_cache_close(h->cache);
	if (r)
		sim_fail("closing after an attach was refused: %d", r);
}

void switch_refused(struct history *h)
{
	h->attempt = "attaching the volumes' own dirty cache";
	volumes_attempt(h, refused_main);
}

/* --- the fibers --- */

static void switch_once(struct history *h)
{
	bool attached = h->state == LC_CACHE_ATTACHED;

	if (sim_one_in(8) && attached)
		refuse(h, sim_one_in(2) ? &h->dirty : &other(h, h->ssd)->sim, COVER_REFUSED_SECOND,
		       "attaching a second one");
	else if (sim_one_in(8) && !attached)
		refuse(h, &h->dirty, COVER_REFUSED_DIRTY, "attaching somebody's dirty cache");
	else if (sim_one_in(16) && !attached)
		refuse_detach(h);
	else if (attached)
		detach(h);
	else
		attach(h);
}

static void switcher_main(void *arg)
{
	struct history *h = arg;
	u32 pause_ns = sim_log_between(100, 30000000);

	do {
		sim_sleep(1 + sim_below(2 * pause_ns));
		switch_once(h);
	} while (!h->stop_switching);
}

static void tuner_main(void *arg)
{
	struct history *h = arg;
	u32 pause_ns = sim_log_between(1000, 100000000), n = sim_below(12);

	while (n-- && !h->stop_switching) {
		sim_sleep(1 + sim_below(2 * pause_ns));
		settings_change(h);
	}
}

void switch_life_begins(struct history *h)
{
	unsigned i;

	h->mixed = !sim_one_in(6);
	h->nr_switches = 0;
	h->interrupted = h->stop_switching = false;
	h->crash_in_switch = h->mixed && h->crash_stage == STAGE_WORK && !sim_one_in(3);
	h->state = h->no_ssd ? LC_CACHE_NONE : LC_CACHE_ATTACHED;
	for (i = 0; i < SIM_SSDS; i++)
		h->ssds[i].sim.patient_flush = false;
	if (!h->no_ssd) {
		h->at_stake = true;
		h->covered[COVER_OPEN_DETACHED] |= h->ssd->voided && h->ssd->detached;
		h->ssd->voided = false;
	}
	for (i = 0; lc_setting_at(i); i++)
		if (sim_one_in(12))
			h->settings.given |= 1u << lc_setting_at(i)->number;
}

void switch_start(struct history *h)
{
	switcher = h->mixed ? sim_fiber_start("switcher", switcher_main, h) : NULL;
	tuner = sim_one_in(2) ? sim_fiber_start("tuner", tuner_main, h) : NULL;
}

void switch_finish(struct history *h)
{
	h->stop_switching = true;
	if (switcher && !h->last && sim_one_in(3)) {
		h->interrupted = true;
		lc_cache_interrupt(h->cache);
		sim_trace("interrupted");
	}
	if (switcher)
		sim_fiber_join(switcher);
	if (tuner)
		sim_fiber_join(tuner);
	settings_check(h);
}

void switch_watch(struct history *h)
{
	u32 nr = h->nr_switches;

	if (!lc_cache_has_ssd(h->cache) || nr != h->nr_switches || h->state != LC_CACHE_ATTACHING)
		return;
	oracle_switched();
	h->covered[COVER_ATTACH_SEEN] = true;
}

/* --- between lives --- */

static void say_how_it_ended(struct history *h)
{
	bool after = h->nr_switches > 0;

	if (h->closed || h->open_error)
		return;
	h->covered[COVER_CRASH_ATTACHING] |= h->state == LC_CACHE_ATTACHING;
	h->covered[COVER_CRASH_SWITCHED] |= h->state == LC_CACHE_ATTACHING && oracle_switch_seen();
	h->covered[COVER_CRASH_ATTACHED] |= h->state == LC_CACHE_ATTACHED && after;
	h->covered[COVER_CRASH_DETACHING] |= h->state == LC_CACHE_DETACHING;
	h->covered[COVER_CRASH_DETACHED] |= h->state == LC_CACHE_NONE && after;
}

static int try_again(struct history *h)
{
	struct lc_error err = {.text = ""};
	int r = open_without(h);

	if (!r)
		r = lc_cache_attach(h->cache, &h->ssd->sim.store, &err);
	sim_trace("attached again: %d, %s", r, err.text);
	if (r && r != -EBUSY && !h->damaged)
		sim_fail("attaching again after a crash: %d, %s", r, err.text);
	return r;
}

static void try_again_main(void *arg)
{
	struct history *h = arg;
	struct lc_error err = {.text = ""};
	int r = try_again(h);

	if (!r) {
		r = lc_cache_detach(h->cache, &err);
		if (r)
			sim_fail("detaching it: %d, %s", r, err.text);
		h->at_stake = false;
		h->ssd->voided = h->ssd->detached = true;
		all_away(h, true);
	}
	r = lc_cache_close(h->cache);
	if (r)
		sim_fail("closing: %d", r);
}

/*
 * A crash came while an SSD was attached that had been closed, but not detached, before the volumes were served without
 * it. Whether it was in use already, nobody knows. If not, to open it would bring back its clean blocks, which are
 * stale. To attach it again is right in any case: it is refused if the SSD holds anything dirty, and then its clean
 * blocks are gone as well.
 */
static void attach_again(struct history *h)
{
	unsigned v;

	for (v = 0; v < h->nr_volumes; v++)
		h->backing[v].faults = (struct sim_faults){0};
	h->ssd->sim.faults = (struct sim_faults){0};
	h->covered[COVER_LEFT_AGAIN] = true;
	sim_life("again", try_again_main, h);
	store_sim_crash(&h->ssd->sim, SIM_KILL);
	for (v = 0; v < h->nr_volumes; v++)
		store_sim_crash(&h->backing[v], SIM_KILL);
	sim_life_end();
}

void switch_between_lives(struct history *h)
{
	struct ssd *s;

	say_how_it_ended(h);
	if (h->at_stake && h->left && h->state == LC_CACHE_ATTACHING && !h->closed)
		attach_again(h);
	h->left = false;
	if (h->at_stake && !(h->closed && h->drained)) {
		h->no_ssd = false;
		return;
	}
	if (h->at_stake && sim_one_in(3)) /* the same again */
		return;
	/* Clean or not, if it was not detached, it must not be opened after others have served the volumes. */
	h->at_stake = h->unverified = h->before_valid = h->open_before = false;
	all_away(h, true);
	h->no_ssd = true;
	h->covered[COVER_OPEN_WITHOUT] |= h->ssd->detached;
	if (sim_one_in(3))
		return;
	s = &h->ssds[sim_below(SIM_SSDS)];
	if (!s->detached)
		s = other(h, s);
	h->ssd = s;
	if (!s->formatted || !s->voided)
		history_format(h);
	h->no_ssd = false;
}
