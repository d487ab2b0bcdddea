/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tuner.c - settings that change while clients work, and what an SSD keeps of them.
 *
 * Of each SSD and each setting the model knows what it may keep: one thing, after a call that returned 0; the old or the
 * new, after one that failed or was cut off by a crash. An opening shows which. A change while a cache is just
 * attached or detached may have been kept or not, and may hold or not.
 */
#include <string.h>

#include "history.h"

static void may_keep(struct kept *k, u32 n, bool keeps, u64 value)
{
	u32 i;

	for (i = 0; i < k->nr[n] && i < KNOB_STATES; i++)
		if (k->may[n][i].keeps == keeps && k->may[n][i].value == value)
			return;
	if (k->nr[n] > KNOB_STATES)
		return;
	k->may[n][k->nr[n]].keeps = keeps;
	k->may[n][k->nr[n]].value = value;
	k->nr[n]++;
}

void settings_format(struct history *h, struct ssd *s)
{
	u32 n;

	memset(&s->kept, 0, sizeof(s->kept));
	for (n = 0; n < LC_SETTINGS_MAX; n++)
		s->kept.nr[n] = 1; /* nothing */
	if (h->knobs.keeping)
		may_keep(&s->kept, h->knobs.number, h->knobs.keeps, h->knobs.kept);
}

static void does_keep(struct kept *k, u32 n, bool keeps, u64 value)
{
	k->nr[n] = 0;
	may_keep(k, n, keeps, value);
}

static bool possible(const struct kept *k, u32 n, bool keeps, u64 value, bool any)
{
	u32 i;

	if (k->nr[n] > KNOB_STATES)
		return true;
	for (i = 0; i < k->nr[n]; i++)
		if (k->may[n][i].keeps == keeps && (!keeps || any || k->may[n][i].value == value))
			return true;
	return false;
}

/* What is kept of a setting, and what holds: NOW. */
static void check_kept(struct history *h, const struct lc_setting *k, u64 now, bool opened)
{
	struct kept *kept = &h->ssd->kept;
	u32 n = k->number;
	bool given = h->settings.given & 1u << n, keeps = lc_cache_keeps(h->cache, k, NULL);

	if (!possible(kept, n, keeps, now, given || !opened))
		sim_fail("setting %s is %s with the value %llu, which nobody can have kept", k->key,
			 keeps ? "kept" : "not kept", (unsigned long long)now);
	if (opened && keeps && !given)
		does_keep(kept, n, true, now);
	else if (opened && !keeps)
		does_keep(kept, n, false, 0);
	h->covered[COVER_SETTING_BACK] |= opened && keeps;
	if (opened && (!keeps || given) && now != lc_setting_get(&h->settings, k))
		sim_fail("setting %s is %llu after opening, not what was asked for", k->key,
			 (unsigned long long)now);
}

void settings_opened(struct history *h)
{
	const struct lc_setting *k;
	struct lc_settings now;
	unsigned i;

	lc_cache_settings(h->cache, &now);
	memset(&h->knobs, 0, sizeof(h->knobs));
	for (i = 0; (k = lc_setting_at(i)); i++) {
		u64 value = lc_setting_get(&now, k);

		if (!h->no_ssd)
			check_kept(h, k, value, true);
		else if (value != lc_setting_get(&h->settings, k))
			sim_fail("setting %s is %llu, not what was asked for", k->key,
				 (unsigned long long)value);
		h->knobs.known[k->number] = true;
		h->knobs.value[k->number] = value;
	}
}

void settings_attaching(struct history *h)
{
	memset(h->knobs.raced, 0, sizeof(h->knobs.raced));
}

/* What the SSD keeps holds from now on, unless somebody has just changed it. */
void settings_attached(struct history *h)
{
	const struct kept *kept = &h->ssd->kept;
	const struct lc_setting *k;
	unsigned i;

	for (i = 0; (k = lc_setting_at(i)); i++) {
		u32 n = k->number;

		if (h->settings.given & 1u << n || (kept->nr[n] == 1 && !kept->may[n][0].keeps))
			continue;
		h->knobs.known[n] = kept->nr[n] == 1 && !h->knobs.raced[n];
		h->knobs.value[n] = kept->may[n][0].value;
		h->covered[COVER_SETTING_ATTACHED] |= h->knobs.known[n];
	}
}

static u64 draw_value(const struct lc_setting *k)
{
	u64 range = k->max - k->min;

	if (k->zero_is_off && sim_one_in(4))
		return 0;
	if (range > 100 && !sim_one_in(8))
		range = sim_one_in(2) ? 100 : 10;
	return k->min + sim_rand() % (range + 1);
}

static bool stable(const struct history *h)
{
	return h->state == LC_CACHE_NONE || h->state == LC_CACHE_ATTACHED;
}

/* Out of range: nothing happens. */
static void change_refused(struct history *h, const struct lc_setting *k)
{
	struct lc_error err = {.text = ""};
	int r = lc_cache_set(h->cache, k, k->max + 1, sim_one_in(2), &err);

	if (r != -ERANGE || !*err.text)
		sim_fail("setting %s, out of range: %d", k->key, r);
}

void settings_change(struct history *h)
{
	static const char *const how[] = {"set", "kept", "unset"};
	u32 nr = 0, n, kind = sim_below(3), switches = h->nr_switches;
	const struct lc_setting *k;
	struct lc_error err = {.text = ""};
	bool exact = stable(h), attached = h->state == LC_CACHE_ATTACHED;
	struct ssd *s = h->ssd;
	struct kept before[SIM_SSDS];
	u64 value;
	int r;

	while (lc_setting_at(nr))
		nr++;
	k = lc_setting_at(sim_below(nr));
	n = k->number;
	if (sim_one_in(12)) {
		change_refused(h, k);
		return;
	}
	value = kind == 2 ? lc_setting_default(k) : draw_value(k);
	for (nr = 0; nr < SIM_SSDS; nr++) {
		before[nr] = h->ssds[nr].kept;
		if (kind)
			may_keep(&h->ssds[nr].kept, n, kind == 1, kind == 1 ? value : 0);
	}
	h->knobs.keeping = kind;
	h->knobs.number = n;
	h->knobs.keeps = kind == 1;
	h->knobs.kept = kind == 1 ? value : 0;
	h->knobs.known[n] = false;
	h->knobs.raced[n] = true;
	h->settings.given |= 1u << n; /* what an SSD that is attached later keeps counts less */
	if (kind == 2)
		r = lc_cache_unset(h->cache, k, &err);
	else
		r = lc_cache_set(h->cache, k, value, kind == 1, &err);
	h->knobs.keeping = false;
	exact = exact && stable(h) && switches == h->nr_switches;
	sim_trace("setting %s=%llu, %s: %d%s", k->key, (unsigned long long)value, how[kind], r,
		  exact ? "" : " (meanwhile the cache comes or goes)");
	h->covered[COVER_SETTING] = true;
	if (!exact)
		return;
	for (nr = 0; nr < SIM_SSDS; nr++)
		if (!attached || &h->ssds[nr] != s)
			h->ssds[nr].kept = before[nr];
	h->knobs.known[n] = true;
	h->knobs.value[n] = value;
	if (!attached && r != (kind == 1 ? -ENODEV : 0))
		sim_fail("setting %s without a cache: %d", k->key, r);
	if (!attached)
		return;
	if (r && !h->faults)
		sim_fail("setting %s: %d, %s", k->key, r, err.text);
	h->covered[COVER_SETTING_FAILED] |= r != 0;
	if (r || !kind)
		return;
	does_keep(&s->kept, n, kind == 1, kind == 1 ? value : 0);
	h->covered[COVER_SETTING_KEPT] |= kind == 1;
}

void settings_check(struct history *h)
{
	const struct lc_setting *k;
	struct lc_settings now;
	unsigned i;

	lc_cache_settings(h->cache, &now);
	for (i = 0; (k = lc_setting_at(i)); i++) {
		u64 value = lc_setting_get(&now, k);

		if (h->knobs.known[k->number] && value != h->knobs.value[k->number])
			sim_fail("setting %s is %llu, and was changed to %llu", k->key,
				 (unsigned long long)value,
				 (unsigned long long)h->knobs.value[k->number]);
		if (!h->no_ssd)
			check_kept(h, k, value, false);
		else if (lc_cache_keeps(h->cache, k, NULL))
			sim_fail("setting %s is kept, but there is no cache", k->key);
	}
}
