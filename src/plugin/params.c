/* SPDX-License-Identifier: BSD-3-Clause */
/* params.c - see params.h. One table entry and one small function for each key. */
#include "params.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "size.h"

/* Longer would be a mistake in the unit, and stays far from the limits of 32 bits. */
#define FLUSH_INTERVAL_MAX_MS 3600000u
#define STATS_INTERVAL_MAX_S 86400u

const char params_help[] =
	"cache=PATH           (required) SSD that holds the log: block device or file\n"
	"cache-size=SIZE      create the cache file, fully allocated, if it is missing\n"
	"backing=PATH         (required) slow store behind it: block device or file\n"
	"format=auto|no|force auto (default): format a blank cache only; no: never;\n"
	"                     force: format whatever is there, which destroys it\n"
	"segment-size=SIZE    8K to 1M, a power of two (default 1M); applies when the\n"
	"                     cache is formatted, an existing cache keeps its own\n"
	"writeback=on|off     off: write back only when space runs out (default on)\n"
	"dirty-low=PERCENT    0 to 100: write back above this share (default 10)\n"
	"flush-interval=MS    0 to 3600000: make unflushed writes durable after so long\n"
	"                     (default 1000; 0: only when a client asks)\n"
	"on-exit=keep|drain   drain: write everything back before exit (default keep)\n"
	"stats-interval=SEC   0 to 86400: log a line of statistics at most so often, and\n"
	"                     one at exit (default 0: none)";

#define HINT_LIST "nbdkit --help logcache lists all parameters"

static int refuse(const char *key, const char *value, const char *wanted)
{
	nbdkit_error("%s=%s: must be %s", key, value, wanted);
	return -1;
}

/* Only paths are served; whoever gives a URI shall not read of a missing file instead. */
static bool is_uri(const char *value)
{
	const char *colon = strstr(value, "://");

	return colon && colon > value && strcspn(value, "/") > (size_t)(colon - value);
}

static int set_path(const char *key, const char *value, char **path)
{
	if (is_uri(value)) {
		nbdkit_error("%s=%s: a URI is not supported by this version: give the path of a "
			     "block device or file; an NBD server can be attached with nbd-client, "
			     "and its device (/dev/nbdX) be given",
			     key, value);
		return -1;
	}
	if (value[0] == '\0')
		return refuse(key, value, "the path of a block device or file");
	*path = nbdkit_absolute_path(value);
	return *path ? 0 : -1;
}

/* A whole number in [0, MAX] of UNIT. */
static int set_number(const char *key, const char *value, u32 max, const char *unit, u32 *out)
{
	unsigned n;

	if (nbdkit_parse_unsigned(key, value, &n) == -1 || n > max) {
		nbdkit_error("%s=%s: must be a whole number of %s from 0 to %" PRIu32, key, value,
			     unit, max);
		return -1;
	}
	*out = n;
	return 0;
}

/* One of two words. */
static int set_choice(const char *key, const char *value, const char *yes, const char *no, bool *out)
{
	if (strcmp(value, yes) != 0 && strcmp(value, no) != 0) {
		nbdkit_error("%s=%s: must be %s or %s", key, value, yes, no);
		return -1;
	}
	*out = strcmp(value, yes) == 0;
	return 0;
}

static int set_cache(struct params *p, const char *key, const char *value)
{
	return set_path(key, value, &p->cache_path);
}

static int set_backing(struct params *p, const char *key, const char *value)
{
	return set_path(key, value, &p->backing_path);
}

static int set_cache_size(struct params *p, const char *key, const char *value)
{
	int64_t n = nbdkit_parse_size(value);

	if (n <= 0 || n % LC_BLOCK != 0)
		return refuse(key, value,
			      "a size in bytes, or with a suffix such as M or G, "
			      "and a multiple of 4K");
	p->cache_size_bytes = n;
	return 0;
}

static int set_format(struct params *p, const char *key, const char *value)
{
	static const char *const words[] = {
		[PARAMS_FORMAT_AUTO] = "auto",
		[PARAMS_FORMAT_NO] = "no",
		[PARAMS_FORMAT_FORCE] = "force",
	};

	for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(value, words[i]) == 0) {
			p->format = i;
			return 0;
		}
	}
	return refuse(key, value, "auto, no or force");
}

static int set_segment_size(struct params *p, const char *key, const char *value)
{
	int64_t n = nbdkit_parse_size(value);

	if (n < LC_SEGMENT_MIN_BYTES || n > LC_SEGMENT_MAX_BYTES || (n & (n - 1)) != 0)
		return refuse(key, value, "a power of two from 8K to 1M bytes");
	p->format_options.segment_bytes = n;
	return 0;
}

static int set_writeback(struct params *p, const char *key, const char *value)
{
	return set_choice(key, value, "on", "off", &p->settings.writeback);
}

static int set_dirty_low(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 100, "per cent", &p->settings.dirty_low_percent);
}

static int set_flush_interval(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, FLUSH_INTERVAL_MAX_MS, "milliseconds",
			  &p->settings.flush_interval_ms);
}

static int set_on_exit(struct params *p, const char *key, const char *value)
{
	return set_choice(key, value, "drain", "keep", &p->drain_on_exit);
}

static int set_stats_interval(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, STATS_INTERVAL_MAX_S, "seconds", &p->stats_interval_s);
}

static const struct {
	const char *key;
	int (*set)(struct params *p, const char *key, const char *value);
} keys[] = {
	{"cache", set_cache},
	{"cache-size", set_cache_size},
	{"backing", set_backing},
	{"format", set_format},
	{"segment-size", set_segment_size},
	{"writeback", set_writeback},
	{"dirty-low", set_dirty_low},
	{"flush-interval", set_flush_interval},
	{"on-exit", set_on_exit},
	{"stats-interval", set_stats_interval},
};

#define NR_KEYS (sizeof keys / sizeof *keys)
_Static_assert(NR_KEYS <= 32, "one bit each in params.given");

void params_init(struct params *p)
{
	memset(p, 0, sizeof *p);
	p->format_options.segment_bytes = LC_SEGMENT_DEFAULT_BYTES;
	lc_settings_init(&p->settings);
}

int params_set(struct params *p, const char *key, const char *value)
{
	for (unsigned i = 0; i < NR_KEYS; i++) {
		if (strcmp(key, keys[i].key) != 0)
			continue;
		if (p->given & 1u << i) {
			nbdkit_error("%s=%s: %s= was given already", key, value, key);
			return -1;
		}
		p->given |= 1u << i;
		return keys[i].set(p, key, value);
	}
	nbdkit_error("unknown parameter '%s': %s", key, HINT_LIST);
	return -1;
}

int params_complete(struct params *p)
{
	u64 min = lc_cache_min_bytes(p->format_options.segment_bytes);
	char s[SIZE_TEXT_BYTES];

	if (!p->backing_path) {
		nbdkit_error("backing=PATH is required: the block device or file to be cached; %s",
			     HINT_LIST);
		return -1;
	}
	if (!p->cache_path) {
		nbdkit_error("cache=PATH is required: the block device or file that holds the log; "
			     "%s",
			     HINT_LIST);
		return -1;
	}
	if (p->cache_size_bytes && p->cache_size_bytes < min) {
		nbdkit_error("cache-size=%" PRIu64 ": too small: the least is %s with "
			     "segment-size=%" PRIu32,
			     p->cache_size_bytes, size_text(s, min), p->format_options.segment_bytes);
		return -1;
	}
	return 0;
}

void params_free(struct params *p)
{
	free(p->cache_path);
	free(p->backing_path);
	p->cache_path = p->backing_path = NULL;
}
