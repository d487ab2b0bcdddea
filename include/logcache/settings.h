/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * settings.h - the settings that can be changed while a cache serves, by name.
 *
 * One table says for each: its key, unit, range and default. Values are numbers in that unit; a switch is 0 or 1.
 * Who offers them (a command line, a control interface) has nothing to know about any one of them.
 */
#ifndef LOGCACHE_SETTINGS_H
#define LOGCACHE_SETTINGS_H

#include "logcache/types.h"

struct lc_cache;
struct lc_settings;

/* The number of a setting is also its number on the SSD, and never used for another one. */
#define LC_SETTINGS_MAX 32u

struct lc_setting {
	u8 number; /* 1 .. LC_SETTINGS_MAX - 1 */
	const char *key;
	const char *unit; /* "%", "ms", "s", "bytes"; "" for a switch */
	const char *text; /* one line: what it does */
	u64 min, max;	  /* 0 and 1 for a switch */
	bool zero_is_off; /* 0 means something besides the range: see the text */
};

/* The I-th setting; NULL: there is none. */
const struct lc_setting *lc_setting_at(unsigned i);
/* NULL: there is none of this name. */
const struct lc_setting *lc_setting_find(const char *key);

static inline bool lc_setting_is_switch(const struct lc_setting *k)
{
	return !k->unit[0];
}

u64 lc_setting_get(const struct lc_settings *s, const struct lc_setting *k);
u64 lc_setting_default(const struct lc_setting *k);
/* Its unit for a sentence: "per cent", "seconds", ... */
const char *lc_setting_unit_text(const struct lc_setting *k);
/* -ERANGE: ERR says what is possible; S is as before. */
int lc_setting_put(struct lc_settings *s, const struct lc_setting *k, u64 value,
		   struct lc_error *err);

/* What a cache does at present. */
void lc_cache_settings(struct lc_cache *c, struct lc_settings *out);

/*
 * Change one setting of a cache from now on; any thread. PERSIST: also when it is opened again, unless
 * it is given explicitly then (lc_settings.given); without PERSIST a value that was kept earlier stays kept.
 * -ERANGE; -ENODEV: there is no SSD to keep it on; or what that said: then the setting holds, but was not kept.
 */
int lc_cache_set(struct lc_cache *c, const struct lc_setting *k, u64 value, bool persist,
		 struct lc_error *err);
/* Back to the default, and keep nothing. */
int lc_cache_unset(struct lc_cache *c, const struct lc_setting *k, struct lc_error *err);
/* Is a value kept on the SSD? *VALUE (may be NULL): which, if so. */
bool lc_cache_keeps(struct lc_cache *c, const struct lc_setting *k, u64 *value);

#endif
