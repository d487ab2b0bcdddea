/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * online.c - logcachectl get, set, flush, reset-stats: one request, one answer.
 */
#include "online.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "http.h"
#include "logcache/settings.h"
#include "size.h"

const char *online_socket(int *argc, char **argv)
{
	const char *socket = getenv("LOGCACHE_SOCKET");
	int n = 1;

	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "-s") == 0 && i + 1 == *argc) {
			misused("-s: a SOCKET is missing");
			return NULL;
		}
		if (strcmp(argv[i], "-s") == 0)
			socket = argv[++i];
		else if (strncmp(argv[i], "-s", 2) == 0 && argv[i][2])
			socket = argv[i] + 2;
		else
			argv[n++] = argv[i];
	}
	*argc = n;
	argv[n] = NULL;
	if (!socket || !*socket) {
		misused("which server? Give -s SOCKET, the control= of it, or set LOGCACHE_SOCKET");
		return NULL;
	}
	return socket;
}

/* A command without arguments of its own. NULL: it was misused. */
static const char *alone(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);

	if (socket && argc > 1) {
		misused("'%s' is too much", argv[1]);
		return NULL;
	}
	return socket;
}

static int post(int argc, char **argv, const char *path)
{
	const char *socket = alone(argc, argv);
	json_t *answer;

	if (!socket)
		return CTL_USAGE;
	if (!http_ask(socket, "POST", path, NULL, &answer))
		return CTL_FAILED;
	json_decref(answer);
	return CTL_OK;
}

int command_flush(int argc, char **argv)
{
	return post(argc, argv, "/v1/flush");
}

int command_reset_stats(int argc, char **argv)
{
	return post(argc, argv, "/v1/stats/reset");
}

/* --- get --- */

/* Of setting K, in the words that "set" takes: 0 besides the range is auto, and bytes may have a suffix. */
static const char *value_text(char text[TEXT_BYTES], const json_t *k, const json_t *value)
{
	static const char suffixes[] = " KMGT";
	bool bytes = strcmp(text_of(k, "unit"), "bytes") == 0;
	json_int_t n = json_integer_value(value);
	unsigned i = 0;

	if (json_is_boolean(value)) {
		snprintf(text, TEXT_BYTES, "%s", json_is_true(value) ? "on" : "off");
	} else if (json_is_string(value)) {
		snprintf(text, TEXT_BYTES, "%s", json_string_value(value));
	} else if (!n && number_of(k, "min") > 0) {
		snprintf(text, TEXT_BYTES, "auto");
	} else {
		while (bytes && n && n % 1024 == 0 && suffixes[i + 1]) {
			n /= 1024;
			i++;
		}
		snprintf(text, TEXT_BYTES, "%lld%.*s", (long long)n, i > 0, &suffixes[i]);
	}
	return text;
}

static const char *range_text(char text[64], const json_t *k)
{
	const json_t *words = json_object_get(k, "words");
	char min[TEXT_BYTES], max[TEXT_BYTES];

	if (json_is_boolean(json_object_get(k, "value")))
		snprintf(text, 64, "on, off");
	else if (words)
		snprintf(text, 64, "%s, %s", json_string_value(json_array_get(words, 0)),
			 json_string_value(json_array_get(words, 1)));
	else
		snprintf(text, 64, "%s%s..%s",
			 json_is_true(json_object_get(k, "zero_allowed")) && number_of(k, "min") > 0 ?
				 "auto, " :
				 "",
			 value_text(min, k, json_object_get(k, "min")),
			 value_text(max, k, json_object_get(k, "max")));
	return text;
}

static void show_setting(const json_t *k)
{
	char value[TEXT_BYTES], def[TEXT_BYTES], kept[TEXT_BYTES] = "", range[64];

	if (json_is_true(json_object_get(k, "persistent")))
		value_text(kept, k, json_object_get(k, "kept"));
	printf("%-20s %10s %-5s %10s  %-14s %10s  %s\n", text_of(k, "key"),
	       value_text(value, k, json_object_get(k, "value")), text_of(k, "unit"),
	       value_text(def, k, json_object_get(k, "default")), range_text(range, k), kept,
	       text_of(k, "text"));
}

/* All settings, or the value of one. */
static int show_settings(const json_t *answer, const char *key)
{
	const json_t *all = json_object_get(answer, "settings"), *k;
	char value[TEXT_BYTES];
	size_t i;

	if (!key)
		printf("%-20s %10s %-5s %10s  %-14s %10s  %s\n", "KEY", "VALUE", "UNIT", "DEFAULT",
		       "RANGE", "KEPT", "");
	json_array_foreach(all, i, k)
	{
		if (!key) {
			show_setting(k);
		} else if (strcmp(key, text_of(k, "key")) == 0) {
			printf("%s\n", value_text(value, k, json_object_get(k, "value")));
			return CTL_OK;
		}
	}
	return key ? fail("%s: there is no such setting: see logcachectl get", key) : CTL_OK;
}

int command_get(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);
	json_t *answer;
	int ret;

	if (!socket)
		return CTL_USAGE;
	if (argc > 2)
		return misused("get: one KEY at most");
	if (argc > 1 && argv[1][0] == '-')
		return misused("get: there is no option %s", argv[1]);
	if (!http_ask(socket, "GET", "/v1/settings", NULL, &answer))
		return CTL_FAILED;
	ret = show_settings(answer, argc > 1 ? argv[1] : NULL);
	json_decref(answer);
	return ret;
}

/* --- set --- */

/* Of a setting that this program does not know the server says what is wrong. */
static bool is_size(const char *key)
{
	const struct lc_setting *k = lc_setting_find(key);

	return k && strcmp(k->unit, "bytes") == 0;
}

/* on or true, off or false, a number, or a size where it is one, "auto" for the 0 that means so, "default"; the server knows the rest. */
static json_t *parse_value(const char *key, const char *text)
{
	u64 n;

	if (strcmp(text, "on") == 0 || strcmp(text, "true") == 0)
		return json_true();
	if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0)
		return json_false();
	if (strcmp(text, "default") == 0)
		return json_null();
	if (strcmp(text, "auto") == 0)
		return json_integer(0);
	if (is_size(key) ? parse_size(text, &n) : parse_number(text, &n))
		return json_integer((json_int_t)n);
	return json_string(text);
}

static bool take_assignment(json_t *body, const char *text)
{
	const char *equals = strchr(text, '=');
	char key[64];

	if (!equals || equals == text || equals - text >= (int)sizeof key) {
		misused("set: %s: must be KEY=VALUE", text);
		return false;
	}
	snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
	if (json_object_get(body, key)) {
		misused("set: %s is there twice", key);
		return false;
	}
	if (json_object_set_new(body, key, parse_value(key, equals + 1)) == 0)
		return true;
	misused("set: %s: must be UTF-8", text);
	return false;
}

int command_set(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);
	json_t *body = json_object(), *answer = NULL;
	bool persist = false;
	int ret = CTL_USAGE;

	if (!socket)
		goto out;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--persist") == 0)
			persist = true;
		else if (!take_assignment(body, argv[i]))
			goto out;
	}
	if (!json_object_size(body)) {
		misused("set: nothing to set: give KEY=VALUE");
		goto out;
	}
	ret = http_ask(socket, "PATCH", persist ? "/v1/settings?persist=1" : "/v1/settings", body,
		       &answer) ?
		      CTL_OK :
		      CTL_FAILED;
out:
	json_decref(answer);
	json_decref(body);
	return ret;
}
