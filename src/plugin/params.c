/* SPDX-License-Identifier: BSD-3-Clause */
/* params.c - see params.h. One table entry and one small function for each key. */
#include "params.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "logcache/settings.h"
#include "name.h"
#include "size.h"

/* Longer would be a mistake in the unit, and stays far from the limits of 32 bits. */
#define FLUSH_INTERVAL_MAX_MS 3600000u
#define FLUSH_DEADLINE_MAX_MS 10000u
#define SECONDS_MAX 86400u

/* A sweep takes whole segments, so at least the largest one; and at most the largest cache. */
#define BATCH_MIN_BYTES LC_SEGMENT_MAX_BYTES
#define BATCH_MAX_BYTES (16ull << 40)

const char params_help[] =
	"backing=PATH|URI     (required) slow store: block device or file, or an NBD\n"
	"                     server (nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH,\n"
	"                     ...); a PATH alone means the same\n"
	"volume=NAME          begin the next volume, an NBD export of that name: the\n"
	"                     following backing= belongs to it; a backing= before the\n"
	"                     first volume= is the default export\n"
	"cache=PATH           SSD that holds the log: block device or file; without it\n"
	"                     the volumes are served straight from their stores\n"
	"cache-size=SIZE      create the cache file, fully allocated, if it is missing\n"
	"format=auto|no|force auto (default): format a blank cache only; no: never;\n"
	"                     force: format whatever is there, which destroys it\n"
	"segment-size=SIZE    8K to 1M, a power of two (default 1M); applies when the\n"
	"                     cache is formatted, an existing cache keeps its own\n"
	"io=auto|io_uring|libaio\n"
	"                     auto (default): io_uring, or libaio where the system does\n"
	"                     not allow that\n"
	"writeback=on|off     off: write back only when space runs out (default on)\n"
	"writeback-threshold=PERCENT\n"
	"                     0 to 100: write-back pauses while reads keep a backing\n"
	"                     store busy above this share (default 70; 100: never)\n"
	"writeback-batch=SIZE 1M to 16T, how far write-back looks (default auto)\n"
	"dirty-low=PERCENT    0 to 100: write back above this share (default 10)\n"
	"dirty-high=PERCENT   0 to 100: above this share write-back does not pause for\n"
	"                     reads (default 80)\n"
	"flush-interval=MS    0 to 3600000: make unflushed writes durable after so long\n"
	"                     (default 1000; 0: only when a client asks)\n"
	"flush-deadline=MS    0 to 10000: how long a flush may wait for others to share\n"
	"                     it (default 0)\n"
	"superblock-interval=SEC\n"
	"                     0 to 86400: write the superblock at least so often while\n"
	"                     the log grows (default 0: when write-back needs it)\n"
	"on-exit=keep|drain   drain: write everything back before exit (default keep)\n"
	"stall-timeout=SEC    0 to 86400: how long a write waits for space while a store\n"
	"                     fails, before it fails, too (default 30)\n"
	"client-timeout=SEC   1 to 86400: the clients' patience; what waited longer is\n"
	"                     given up if its client is gone (default 30)\n"
	"backing-fence=SEC    0 to 86400: NBD servers: how long one that lost its\n"
	"                     connection may still execute what it was sent (default 30)\n"
	"backing-timeout=SEC  1 to 86400: NBD servers: how long to wait for one that is\n"
	"                     away or does not answer (default 60)\n"
	"backing-without-flush=refuse|accept\n"
	"                     accept: an NBD server that cannot flush answers only when\n"
	"                     a write is durable (default refuse)\n"
	"control=PATH         Unix socket through which logcachectl looks at the server\n"
	"                     and changes what it does (default: none)\n"
	"metrics=[HOST:]PORT  metrics for Prometheus and status over TCP, read-only\n"
	"                     (default: none; without HOST 127.0.0.1)\n"
	"stats-interval=SEC   0 to 86400: log a line of statistics at most so often, and\n"
	"                     one at exit (default 0: none)";

#define HINT_LIST "nbdkit --help logcache lists all parameters"

static int refuse(const char *key, const char *value, const char *wanted)
{
	nbdkit_error("%s=%s: must be %s", key, value, wanted);
	return -1;
}

static int set_path(const char *key, const char *value, char **path)
{
	if (value[0] == '\0')
		return refuse(key, value, "the path of a block device or file");
	*path = nbdkit_absolute_path(value);
	return *path ? 0 : -1;
}

/* A whole number in [MIN, MAX] of UNIT. */
static int set_number(const char *key, const char *value, u32 min, u32 max, const char *unit, u32 *out)
{
	u64 n;

	if (!parse_number(value, &n) || n < min || n > max) {
		nbdkit_error("%s=%s: must be a whole number of %s from %" PRIu32 " to %" PRIu32,
			     key, value, unit, min, max);
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
	/* Nobody shall read of a missing file instead. */
	if (lc_is_uri(value)) {
		nbdkit_error("%s=: the log cannot be on a server, only on a block device or file of this "
			     "machine: give its path; URIs are for backing=",
			     key);
		return -1;
	}
	return set_path(key, value, &p->cache_path);
}

static int set_volume(struct params *p, const char *key, const char *value)
{
	struct params_volume *v;

	if (value[0] == '\0') {
		nbdkit_error("%s=: a name is missing; for the default export, which has none, put its "
			     "backing= before the first volume=",
			     key);
		return -1;
	}
	if (!name_is_text(value))
		return refuse(key, value, "UTF-8 without control characters");
	if (strlen(value) >= LC_NAME_BYTES)
		return refuse(key, value, "at most 63 bytes long");
	for (unsigned i = 0; i < p->nr_volumes; i++) {
		if (strcmp(p->volumes[i].name, value) == 0) {
			nbdkit_error("%s=%s: there is a volume of this name already: give each a name of "
				     "its own",
				     key, value);
			return -1;
		}
	}
	if (p->nr_volumes == LC_VOLUMES_MAX) {
		nbdkit_error("%s=%s: one volume too many: a server has at most %u", key, value,
			     LC_VOLUMES_MAX);
		return -1;
	}
	v = &p->volumes[p->nr_volumes++];
	memcpy(v->name, value, strlen(value) + 1);
	return 0;
}

static int set_backing(struct params *p, const char *key, const char *value)
{
	struct params_volume *v;
	char text[NAME_TEXT_BYTES];
	struct lc_error err = {""};

	if (p->nr_volumes == 0)
		p->nr_volumes = 1; /* its name is empty */
	v = &p->volumes[p->nr_volumes - 1];
	/* First of all: a URI that has a password in it is not repeated, so the volume says which one it is. */
	if (lc_is_uri(value) && lc_nbd_check_uri(value, &err) < 0) {
		nbdkit_error("%s= of %s: the URI of an NBD server is not right: %s", key,
			     name_text(text, v->name), err.text);
		return -1;
	}
	if (v->backing_path) {
		nbdkit_error("%s=%s: %s has %s=%s already: to begin another volume, put volume=NAME "
			     "before it",
			     key, value, name_text(text, v->name), key, v->backing_path);
		return -1;
	}
	if (!lc_is_uri(value))
		return set_path(key, value, &v->backing_path);
	v->backing_path = strdup(value);
	if (!v->backing_path)
		nbdkit_error("strdup: %m");
	return v->backing_path ? 0 : -1;
}

static int set_cache_size(struct params *p, const char *key, const char *value)
{
	u64 n;

	if (!parse_size(value, &n) || !n || n % LC_BLOCK != 0)
		return refuse(key, value,
			      "a size in bytes, or with a suffix such as M or G, "
			      "and a multiple of 4K");
	p->cache_size_bytes = n;
	return 0;
}

/* One of NR words; *OUT is its number. */
static int set_word(const char *key, const char *value, const char *const *words, unsigned nr,
		    const char *wanted, unsigned *out)
{
	for (unsigned i = 0; i < nr; i++) {
		if (strcmp(value, words[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	return refuse(key, value, wanted);
}

static int set_format(struct params *p, const char *key, const char *value)
{
	static const char *const words[] = {
		[PARAMS_FORMAT_AUTO] = "auto",
		[PARAMS_FORMAT_NO] = "no",
		[PARAMS_FORMAT_FORCE] = "force",
	};
	unsigned i = p->format;
	int ret = set_word(key, value, words, 3, "auto, no or force", &i);

	p->format = i;
	return ret;
}

static int set_io(struct params *p, const char *key, const char *value)
{
	static const char *const words[] = {
		[PARAMS_IO_AUTO] = "auto",
		[PARAMS_IO_IO_URING] = "io_uring",
		[PARAMS_IO_LIBAIO] = "libaio",
	};
	unsigned i = p->io;
	int ret = set_word(key, value, words, 3, "auto, io_uring or libaio", &i);

	p->io = i;
	return ret;
}

static int set_segment_size(struct params *p, const char *key, const char *value)
{
	u64 n;

	if (!parse_size(value, &n) || n < LC_SEGMENT_MIN_BYTES || n > LC_SEGMENT_MAX_BYTES ||
	    (n & (n - 1)) != 0)
		return refuse(key, value, "a power of two from 8K to 1M bytes");
	p->format_options.segment_bytes = n;
	return 0;
}

static int set_writeback(struct params *p, const char *key, const char *value)
{
	return set_choice(key, value, "on", "off", &p->settings.writeback);
}

static int set_writeback_threshold(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, 100, "per cent", &p->settings.writeback_threshold_percent);
}

static int set_writeback_batch(struct params *p, const char *key, const char *value)
{
	u64 n = 0;

	if (strcmp(value, "auto") != 0 &&
	    (!parse_size(value, &n) || n < BATCH_MIN_BYTES || n > BATCH_MAX_BYTES))
		return refuse(key, value, "auto, or a size from 1M to 16T");
	p->settings.batch_bytes = n;
	return 0;
}

static int set_dirty_low(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, 100, "per cent", &p->settings.dirty_low_percent);
}

static int set_dirty_high(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, 100, "per cent", &p->settings.dirty_high_percent);
}

static int set_flush_interval(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, FLUSH_INTERVAL_MAX_MS, "milliseconds",
			  &p->settings.flush_interval_ms);
}

static int set_flush_deadline(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, FLUSH_DEADLINE_MAX_MS, "milliseconds",
			  &p->settings.flush_deadline_ms);
}

/* Seconds on the command line, milliseconds in the settings. */
static int set_seconds(const char *key, const char *value, u32 min, u32 *out_ms)
{
	u32 seconds;

	if (set_number(key, value, min, SECONDS_MAX, "seconds", &seconds) == -1)
		return -1;
	*out_ms = seconds * 1000;
	return 0;
}

static int set_superblock_interval(struct params *p, const char *key, const char *value)
{
	return set_seconds(key, value, 0, &p->settings.superblock_interval_ms);
}

static int set_on_exit(struct params *p, const char *key, const char *value)
{
	return set_choice(key, value, "drain", "keep", &p->drain_on_exit);
}

static int set_stall_timeout(struct params *p, const char *key, const char *value)
{
	return set_seconds(key, value, 0, &p->settings.stall_timeout_ms);
}

/* Without any patience nothing could be promised. */
static int set_client_timeout(struct params *p, const char *key, const char *value)
{
	return set_seconds(key, value, 1, &p->settings.client_timeout_ms);
}

static int set_backing_fence(struct params *p, const char *key, const char *value)
{
	return set_seconds(key, value, 0, &p->nbd.fence.fence_ms);
}

static int set_backing_timeout(struct params *p, const char *key, const char *value)
{
	return set_seconds(key, value, 1, &p->nbd.fence.patience_ms);
}

static int set_without_flush(struct params *p, const char *key, const char *value)
{
	return set_choice(key, value, "accept", "refuse", &p->nbd.without_flush);
}

static int set_stats_interval(struct params *p, const char *key, const char *value)
{
	return set_number(key, value, 0, SECONDS_MAX, "seconds", &p->stats_interval_s);
}

static int set_control(struct params *p, const char *key, const char *value)
{
	if (value[0] == '\0')
		return refuse(key, value, "the path of a Unix socket");
	p->control_path = nbdkit_absolute_path(value);
	return p->control_path ? 0 : -1;
}

static int set_metrics(struct params *p, const char *key, const char *value)
{
	if (value[0] == '\0')
		return refuse(key, value, "[HOST:]PORT");
	p->metrics_address = strdup(value);
	if (!p->metrics_address)
		nbdkit_error("strdup: %m");
	return p->metrics_address ? 0 : -1;
}

/* May come several times. */
#define KEY_MANY 1u
/* Means nothing without a cache, so it is refused then, rather than ignored. */
#define KEY_CACHE 2u
/* The same, but a cache may also be attached later, through the control interface. */
#define KEY_LATER 4u
/* Means nothing if no backing store is an NBD server. */
#define KEY_NBD 8u

static const struct {
	const char *key;
	int (*set)(struct params *p, const char *key, const char *value);
	unsigned flags;
} keys[] = {
	{"backing", set_backing, KEY_MANY},
	{"volume", set_volume, KEY_MANY},
	{"cache", set_cache, 0},
	{"cache-size", set_cache_size, KEY_CACHE},
	{"format", set_format, KEY_CACHE},
	{"segment-size", set_segment_size, KEY_CACHE},
	{"io", set_io, KEY_LATER},
	{"writeback", set_writeback, KEY_LATER},
	{"writeback-threshold", set_writeback_threshold, KEY_LATER},
	{"writeback-batch", set_writeback_batch, KEY_LATER},
	{"dirty-low", set_dirty_low, KEY_LATER},
	{"dirty-high", set_dirty_high, KEY_LATER},
	{"flush-interval", set_flush_interval, KEY_LATER},
	{"flush-deadline", set_flush_deadline, KEY_LATER},
	{"superblock-interval", set_superblock_interval, KEY_LATER},
	{"on-exit", set_on_exit, KEY_LATER},
	{"stall-timeout", set_stall_timeout, KEY_LATER},
	{"client-timeout", set_client_timeout, 0},
	{"backing-fence", set_backing_fence, KEY_NBD},
	{"backing-timeout", set_backing_timeout, KEY_NBD},
	{"backing-without-flush", set_without_flush, KEY_NBD},
	{"stats-interval", set_stats_interval, 0},
	{"control", set_control, 0},
	{"metrics", set_metrics, 0},
};

#define NR_KEYS (sizeof keys / sizeof *keys)
_Static_assert(NR_KEYS <= 32, "one bit each in params.given");

void params_init(struct params *p)
{
	memset(p, 0, sizeof *p);
	p->format_options.segment_bytes = LC_SEGMENT_DEFAULT_BYTES;
	lc_settings_init(&p->settings);
	lc_nbd_options_init(&p->nbd);
}

/* What is on the command line counts for more than what the cache keeps. */
static void mark_given(struct lc_settings *s, const char *key)
{
	const struct lc_setting *k = lc_setting_find(key);

	if (k)
		s->given |= 1u << k->number;
}

int params_set(struct params *p, const char *key, const char *value)
{
	for (unsigned i = 0; i < NR_KEYS; i++) {
		if (strcmp(key, keys[i].key) != 0)
			continue;
		if (p->given & 1u << i && !(keys[i].flags & KEY_MANY)) {
			nbdkit_error("%s=%s: %s= was given already", key, value, key);
			return -1;
		}
		p->given |= 1u << i;
		mark_given(&p->settings, key);
		return keys[i].set(p, key, value);
	}
	nbdkit_error("unknown parameter '%s': %s", key, HINT_LIST);
	return -1;
}

static int check_volumes(const struct params *p)
{
	if (p->nr_volumes == 0) {
		nbdkit_error("backing=PATH is required: the block device or file to be served, or the URI "
			     "of an NBD server; %s",
			     HINT_LIST);
		return -1;
	}
	for (unsigned i = 0; i < p->nr_volumes; i++) {
		const struct params_volume *v = &p->volumes[i];

		if (v->backing_path)
			continue;
		nbdkit_error("volume=%s has no backing store: give backing=PATH behind it, before the "
			     "next volume=",
			     v->name);
		return -1;
	}
	return 0;
}

static int check_nbd(const struct params *p)
{
	for (unsigned i = 0; i < p->nr_volumes; i++)
		if (lc_is_uri(p->volumes[i].backing_path))
			return 0;
	for (unsigned i = 0; i < NR_KEYS; i++) {
		if (!(keys[i].flags & KEY_NBD && p->given & 1u << i))
			continue;
		nbdkit_error("%s= means nothing here: no backing= is the URI of an NBD server; leave it out",
			     keys[i].key);
		return -1;
	}
	return 0;
}

static int check_cache(const struct params *p)
{
	u64 min = lc_cache_min_bytes(p->format_options.segment_bytes);
	char size[SIZE_TEXT_BYTES], least[SIZE_TEXT_BYTES], segment[SIZE_TEXT_BYTES];

	for (unsigned i = 0; !p->cache_path && i < NR_KEYS; i++) {
		unsigned useless = p->control_path ? KEY_CACHE : KEY_CACHE | KEY_LATER;

		if (!(keys[i].flags & useless && p->given & 1u << i))
			continue;
		nbdkit_error("%s= means nothing without a cache: give cache=PATH as well, or leave out "
			     "%s=",
			     keys[i].key, keys[i].key);
		return -1;
	}
	if (p->cache_size_bytes && p->cache_size_bytes < min) {
		nbdkit_error("cache-size=%s: too small: the least is %s with segment-size=%s; give a "
			     "larger one%s",
			     size_text(size, p->cache_size_bytes), size_text(least, min),
			     size_text(segment, p->format_options.segment_bytes),
			     p->format_options.segment_bytes > LC_SEGMENT_MIN_BYTES ?
				     ", or a smaller segment-size=" :
				     "");
		return -1;
	}
	if (p->settings.dirty_low_percent > p->settings.dirty_high_percent) {
		nbdkit_error("dirty-low=%" PRIu32 " is above dirty-high=%" PRIu32
			     ": give a smaller dirty-low=, or a larger dirty-high= as well",
			     p->settings.dirty_low_percent, p->settings.dirty_high_percent);
		return -1;
	}
	return 0;
}

int params_complete(struct params *p)
{
	return check_volumes(p) == -1 || check_nbd(p) == -1 || check_cache(p) == -1 ? -1 : 0;
}

void params_free(struct params *p)
{
	free(p->cache_path);
	p->cache_path = NULL;
	free(p->control_path);
	p->control_path = NULL;
	free(p->metrics_address);
	p->metrics_address = NULL;
	for (unsigned i = 0; i < p->nr_volumes; i++)
		free(p->volumes[i].backing_path);
	p->nr_volumes = 0;
}
