/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * settings.c - GET and PATCH /v1/settings.
 *
 * A change is checked as a whole before any of it is applied: first each value, on a copy of the present
 * settings, then what they mean together. Applying cannot fail after that. Keeping them on the SSD can, and may take as long
 * as the SSD likes, so the worker does that, when everything holds already.
 *
 * The engine's table has all settings but one: what happens at exit is the plugin's affair, and is not kept.
 */
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "priv.h"

static const char on_exit_key[] = "on-exit";
static const char *const on_exit_words[] = {"keep", "drain"};

/* What a request wants. */
struct wish {
	struct {
		const struct lc_setting *setting;
		u64 value;
		bool reset; /* back to the default, and keep none */
	} changes[LC_SETTINGS_MAX];
	unsigned nr;
	int drain_on_exit; /* -1: as it is */
	bool persist;
};

static bool drain_on_exit(struct control *c)
{
	return __atomic_load_n(c->config.drain_on_exit, __ATOMIC_RELAXED);
}

/* --- telling --- */

static json_t *value_of(const struct lc_setting *k, u64 value)
{
	return lc_setting_is_switch(k) ? json_boolean(value) : json_number_of(value);
}

json_t *settings_values(struct control *c)
{
	const struct lc_setting *k;
	json_t *o = json_object();
	struct lc_settings s;

	lc_cache_settings(c->config.cache, &s);
	for (unsigned i = 0; (k = lc_setting_at(i)); i++)
		json_object_set_new(o, k->key, value_of(k, lc_setting_get(&s, k)));
	json_object_set_new(o, on_exit_key, json_string(on_exit_words[drain_on_exit(c)]));
	return o;
}

static json_t *describe(struct control *c, const struct lc_settings *s, const struct lc_setting *k)
{
	json_t *o = json_object();
	u64 kept;
	bool keeps = lc_cache_keeps(c->config.cache, k, &kept);

	json_object_set_new(o, "key", json_string(k->key));
	json_object_set_new(o, "value", value_of(k, lc_setting_get(s, k)));
	json_object_set_new(o, "default", value_of(k, lc_setting_default(k)));
	if (!lc_setting_is_switch(k)) {
		json_object_set_new(o, "unit", json_string(k->unit));
		json_object_set_new(o, "min", json_number_of(k->min));
		json_object_set_new(o, "max", json_number_of(k->max));
		json_object_set_new(o, "zero_allowed", json_boolean(k->zero_is_off || !k->min));
	}
	json_object_set_new(o, "persistent", json_boolean(keeps));
	json_object_set_new(o, "kept", keeps ? value_of(k, kept) : json_null());
	json_object_set_new(o, "text", json_string(k->text));
	return o;
}

static json_t *describe_all(struct control *c)
{
	const struct lc_setting *k;
	json_t *all = json_array();
	struct lc_settings s;

	lc_cache_settings(c->config.cache, &s);
	for (unsigned i = 0; (k = lc_setting_at(i)); i++)
		json_array_append_new(all, describe(c, &s, k));
	json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:[s, s], s:b, s:n, s:s}", "key",
					     on_exit_key, "value", on_exit_words[drain_on_exit(c)],
					     "default", on_exit_words[0], "words", on_exit_words[0],
					     on_exit_words[1], "persistent", 0, "kept", "text",
					     "drain: write everything back before exit"));
	return json_pack("{s:o}", "settings", all);
}

void settings_get(struct exchange *x)
{
	exchange_json(x, MHD_HTTP_OK, describe_all(exchange_control(x)));
}

/* --- changing --- */

static int take_on_exit(struct wish *w, const json_t *value, struct lc_error *err)
{
	const char *word = json_is_null(value) ? on_exit_words[0] : json_string_value(value);

	if (w->persist)
		return lc_fail(err, -EINVAL, "%s: cannot be kept: give it on the command line",
			       on_exit_key);
	if (!word || (strcmp(word, on_exit_words[0]) != 0 && strcmp(word, on_exit_words[1]) != 0))
		return lc_fail(err, -EINVAL, "%s: must be \"%s\" or \"%s\"", on_exit_key,
			       on_exit_words[0], on_exit_words[1]);
	w->drain_on_exit = strcmp(word, on_exit_words[1]) == 0;
	return 0;
}

/* One member of the request; S are the settings as they will be. */
static int take(struct wish *w, struct lc_settings *s, const char *key, const json_t *value,
		struct lc_error *err)
{
	const struct lc_setting *k = lc_setting_find(key);
	u64 n;

	if (strcmp(key, on_exit_key) == 0)
		return take_on_exit(w, value, err);
	if (!k)
		return lc_fail(err, -EINVAL, "%s: there is no such setting: see logcachectl get",
			       key);
	if (json_is_null(value))
		n = lc_setting_default(k);
	else if (lc_setting_is_switch(k) && json_is_boolean(value))
		n = json_is_true(value);
	else if (!lc_setting_is_switch(k) && json_is_integer(value) && json_integer_value(value) >= 0)
		n = json_integer_value(value);
	else if (lc_setting_is_switch(k))
		return lc_fail(err, -EINVAL, "%s: must be on or off (in JSON: true or false)", key);
	else
		return lc_fail(err, -EINVAL,
			       "%s: must be a whole number of %s from %" PRIu64 " to %" PRIu64 "%s",
			       key, lc_setting_unit_text(k), k->min, k->max,
			       k->zero_is_off ? ", or 0" : "");
	w->changes[w->nr].setting = k;
	w->changes[w->nr].value = n;
	w->changes[w->nr++].reset = json_is_null(value);
	return lc_setting_put(s, k, n, err);
}

static int check(struct control *c, struct wish *w, json_t *body, struct lc_error *err)
{
	struct lc_settings s;
	const char *key;
	json_t *value;

	lc_cache_settings(c->config.cache, &s);
	json_object_foreach(body, key, value)
	{
		int rc = take(w, &s, key, value, err);

		if (rc < 0)
			return rc;
	}
	if (s.dirty_low_percent > s.dirty_high_percent)
		return lc_fail(err, -EINVAL,
			       "dirty-low (%" PRIu32 ") would be above dirty-high (%" PRIu32
			       "): give a smaller dirty-low, or a larger dirty-high as well",
			       s.dirty_low_percent, s.dirty_high_percent);
	if (w->persist && !lc_cache_has_ssd(c->config.cache))
		return lc_fail(err, -ENODEV, "there is no cache to keep settings in");
	return 0;
}

/* Everything has been checked; an error would be a bug, but is told. */
static int apply(struct control *c, const struct wish *w, struct lc_error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < w->nr; i++) {
		int rc = lc_cache_set(c->config.cache, w->changes[i].setting, w->changes[i].value,
				      false, err);

		if (rc < 0)
			ret = rc;
	}
	if (w->drain_on_exit != -1)
		__atomic_store_n(c->config.drain_on_exit, w->drain_on_exit, __ATOMIC_RELAXED);
	return ret;
}

/*
 * In the worker's thread: keep what holds. Somebody may have changed it since; then the newer value is the one
 * to be kept, and two changes can never be kept the wrong way round.
 */
static void keep(struct exchange *x)
{
	struct control *c = exchange_control(x);
	const struct wish *w = exchange_kept(x);
	struct lc_error err = {""};

	for (unsigned i = 0; i < w->nr; i++) {
		const struct lc_setting *k = w->changes[i].setting;
		struct lc_settings s;
		int rc;

		lc_cache_settings(c->config.cache, &s);
		if (w->changes[i].reset && lc_setting_get(&s, k) == lc_setting_default(k))
			rc = lc_cache_unset(c->config.cache, k, &err);
		else
			rc = lc_cache_set(c->config.cache, k, lc_setting_get(&s, k), true, &err);
		if (rc < 0) {
			exchange_error(x, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err.text);
			return;
		}
	}
	exchange_json(x, MHD_HTTP_OK, describe_all(c));
}

/* ?persist=1; false: something else, and the exchange has been answered. */
static bool take_persist(struct exchange *x, bool *persist)
{
	const char *text = exchange_query(x);

	*persist = text && strcmp(text, "1") == 0;
	if (!text || *persist || strcmp(text, "0") == 0)
		return true;
	exchange_error(x, MHD_HTTP_BAD_REQUEST, "persist=%s: must be 0 or 1", text);
	return false;
}

void settings_patch(struct exchange *x)
{
	struct control *c = exchange_control(x);
	struct wish w = {.drain_on_exit = -1}, *copy;
	struct lc_error err = {""};
	json_t *body;
	int rc;

	if (!take_persist(x, &w.persist))
		return;
	body = exchange_body(x);
	if (!body)
		return;
	lc_mutex_lock(&c->settings_lock);
	rc = check(c, &w, body, &err);
	if (rc == 0)
		rc = apply(c, &w, &err);
	lc_mutex_unlock(&c->settings_lock);
	if (rc < 0) {
		exchange_error(x, rc == -ENODEV ? MHD_HTTP_CONFLICT : MHD_HTTP_BAD_REQUEST, "%s",
			       err.text);
		return;
	}
	if (!w.persist) {
		exchange_json(x, MHD_HTTP_OK, describe_all(c));
		return;
	}
	copy = malloc(sizeof *copy);
	if (!copy) {
		exchange_error(x, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory: set, but not kept");
		return;
	}
	*copy = w;
	exchange_keep(x, copy);
	exchange_later(x, keep);
}
