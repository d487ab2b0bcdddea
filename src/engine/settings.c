/* SPDX-License-Identifier: BSD-3-Clause */
#include "logcache/settings.h"

#include <assert.h>
#include <string.h>

#include "cache.h"
#include "path.h"

#define DAY_S 86400u

/* Where a setting lives in struct lc_settings: a bool, u32 or u64, SCALE times its unit. */
struct place {
	struct lc_setting setting;
	size_t offset, size;
	u32 scale;
};

#define AT(field) offsetof(struct lc_settings, field), sizeof(((struct lc_settings *)0)->field)

/* clang-format off */
static const struct place places[] = {
	{{1, "writeback", "", "off: write back only when space runs out", 0, 1, false},
	 AT(writeback), 1},
	{{2, "writeback-threshold", "%", "pause write-back while clients' reads keep a backing store busier", 0, 100, false},
	 AT(writeback_threshold_percent), 1},
	{{3, "writeback-batch", "bytes", "how much of the log a sweep looks at; 0: as much as pays", 1u << 20, 1ull << 44, true},
	 AT(batch_bytes), 1},
	{{4, "dirty-low", "%", "write back when more of the cache is dirty", 0, 100, false},
	 AT(dirty_low_percent), 1},
	{{5, "dirty-high", "%", "do not pause for readers when more of the cache is dirty", 0, 100, false},
	 AT(dirty_high_percent), 1},
	{{6, "flush-interval", "ms", "make unflushed writes durable after so long; 0: only when a client asks", 0, 3600000, false},
	 AT(flush_interval_ms), 1},
	{{7, "flush-deadline", "ms", "how long a flush may wait for others to share it", 0, 10000, false},
	 AT(flush_deadline_ms), 1},
	{{8, "superblock-interval", "s", "write the superblock at least so often; 0: when the tail moves", 0, DAY_S, false},
	 AT(superblock_interval_ms), 1000},
	{{9, "stall-timeout", "s", "how long a write waits for space while a store fails", 0, DAY_S, false},
	 AT(stall_timeout_ms), 1000},
	{{10, "client-timeout", "s", "the clients' patience", 1, DAY_S, false},
	 AT(client_timeout_ms), 1000},
};
/* clang-format on */

#define NR_PLACES (sizeof places / sizeof *places)

const struct lc_setting *lc_setting_at(unsigned i)
{
	return i < NR_PLACES ? &places[i].setting : NULL;
}

const struct lc_setting *lc_setting_find(const char *key)
{
	for (unsigned i = 0; i < NR_PLACES; i++)
		if (!strcmp(places[i].setting.key, key))
			return &places[i].setting;
	return NULL;
}

static const struct place *place_of(const struct lc_setting *k)
{
	return (const struct place *)k; /* its first member */
}

u64 lc_setting_get(const struct lc_settings *s, const struct lc_setting *k)
{
	const struct place *p = place_of(k);
	const u8 *at = (const u8 *)s + p->offset;
	bool b;
	u32 w;
	u64 d;

	switch (p->size) {
	case sizeof b:
		memcpy(&b, at, sizeof b);
		return b;
	case sizeof w:
		memcpy(&w, at, sizeof w);
		return w / p->scale;
	default:
		memcpy(&d, at, sizeof d);
		return d / p->scale;
	}
}

u64 lc_setting_default(const struct lc_setting *k)
{
	struct lc_settings s;

	lc_settings_init(&s);
	return lc_setting_get(&s, k);
}

static bool in_range(const struct lc_setting *k, u64 value)
{
	return (value >= k->min && value <= k->max) || (k->zero_is_off && !value);
}

/* A value that is in range. */
static void put(struct lc_settings *s, const struct lc_setting *k, u64 value)
{
	const struct place *p = place_of(k);
	u8 *at = (u8 *)s + p->offset;
	u64 d = value * p->scale;
	u32 w = d;
	bool b = d;

	if (p->size == sizeof b)
		memcpy(at, &b, sizeof b);
	else if (p->size == sizeof w)
		memcpy(at, &w, sizeof w);
	else
		memcpy(at, &d, sizeof d);
}

const char *lc_setting_unit_text(const struct lc_setting *k)
{
	static const char *const texts[][2] = {{"%", "per cent"},
					       {"ms", "milliseconds"},
					       {"s", "seconds"}};

	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!strcmp(k->unit, texts[i][0]))
			return texts[i][1];
	return k->unit;
}

int lc_setting_put(struct lc_settings *s, const struct lc_setting *k, u64 value, struct lc_error *err)
{
	if (!in_range(k, value)) {
		if (lc_setting_is_switch(k))
			return lc_fail(err, -ERANGE, "%s: must be on or off", k->key);
		return lc_fail(err, -ERANGE,
			       "%s=%llu: must be a whole number of %s from %llu to %llu%s", k->key,
			       (unsigned long long)value, lc_setting_unit_text(k),
			       (unsigned long long)k->min, (unsigned long long)k->max,
			       k->zero_is_off ? ", or 0" : "");
	}
	put(s, k, value);
	return 0;
}

/* --- of a cache --- */

void lc_cache_settings(struct lc_cache *c, struct lc_settings *out)
{
	lc_mutex_lock(&c->core.lock);
	*out = c->core.settings;
	lc_mutex_unlock(&c->core.lock);
}

/* Whoever waits shall look at the settings again. [lock] */
static void wake_all(struct lc_cache *c)
{
	lc_log_progress(&c->log);
	lc_log_space(&c->log);
	lc_log_wake(&c->log);
}

bool lc_cache_keeps(struct lc_cache *c, const struct lc_setting *k, u64 *value)
{
	bool keeps;

	lc_mutex_lock(&c->core.lock);
	keeps = c->volumes[0].log && c->core.meta.sb.kept & 1u << k->number;
	if (keeps && value)
		*value = c->core.meta.sb.values[k->number];
	lc_mutex_unlock(&c->core.lock);
	return keeps;
}

/* Keep VALUE, or none. */
static int keep(struct lc_cache *c, const struct lc_setting *k, bool keep, u64 value,
		struct lc_error *err)
{
	struct lc_superblock *sb = &c->core.meta.sb;
	struct lc_volume *v = &c->volumes[0];
	bool changes;
	int ret = -ENODEV;

	lc_mutex_lock(&c->core.lock);
	if (!v->log) {
		lc_mutex_unlock(&c->core.lock);
		return keep ? lc_fail(err, ret, "%s: holds, but there is no cache to keep it in",
				      k->key) :
			      0;
	}
	changes = keep || sb->kept & 1u << k->number;
	v->log_reads++; /* the SSD stays as long as we are under way (path.h) */
	sb->kept = keep ? sb->kept | 1u << k->number : sb->kept & ~(1u << k->number);
	sb->values[k->number] = keep ? value : 0;
	lc_mutex_unlock(&c->core.lock);

	ret = changes ? lc_meta_write(&c->core.meta, &c->core.lock, LC_PAGE_SUPERBLOCK,
				      lc_log_flusher(&c->log)) :
			0;
	if (ret)
		lc_fail(err, ret, "%s: holds, but could not be kept: %s: %s", k->key,
			c->core.ssd->name, strerror(-ret));
	lc_mutex_lock(&c->core.lock);
	lc_path_read_done(v);
	lc_mutex_unlock(&c->core.lock);
	return ret;
}

int lc_cache_set(struct lc_cache *c, const struct lc_setting *k, u64 value, bool persist,
		 struct lc_error *err)
{
	int ret;

	lc_mutex_lock(&c->core.lock);
	ret = lc_setting_put(&c->core.settings, k, value, err);
	if (!ret) /* what an SSD that is attached later keeps counts less */
		c->core.settings.given |= 1u << k->number;
	if (!ret && c->volumes[0].log) {
		wake_all(c);
		lc_log_unlock(&c->log);
	} else {
		lc_mutex_unlock(&c->core.lock);
	}
	return ret || !persist ? ret : keep(c, k, true, value, err);
}

int lc_cache_unset(struct lc_cache *c, const struct lc_setting *k, struct lc_error *err)
{
	int ret = lc_cache_set(c, k, lc_setting_default(k), false, err);

	return ret ? ret : keep(c, k, false, 0, err);
}

void lc_settings_take_kept(struct lc_settings *s, const struct lc_superblock *sb)
{
	for (unsigned i = 0; i < NR_PLACES; i++) {
		const struct lc_setting *k = &places[i].setting;
		u32 bit = 1u << k->number;

		if (sb->kept & bit && !(s->given & bit) && in_range(k, sb->values[k->number]))
			put(s, k, sb->values[k->number]);
	}
}
