/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_params.c - libFuzzer target: the plugin's parameters (src/plugin/params.c).
 *
 * The input is text: lines of key=value, as on nbdkit's command line. What nbdkit lends to a
 * plugin is imitated below, closely enough for every value that it could return.
 *
 * A refusal says why, an acceptance says nothing, and whatever was accepted is in the range that
 * the engine asks for.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "name.h"
#include "params.h"
#include "size.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t n);

static unsigned nr_errors;

/* --- nbdkit --- */

void nbdkit_error(const char *fmt, ...)
{
	char text[4096];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	fuzz_check(text[0], "an empty message");
	nr_errors++;
}

char *nbdkit_absolute_path(const char *path)
{
	char *s = NULL;

	if (path[0] == '/')
		return strdup(path);
	return asprintf(&s, "/folder/%s", path) < 0 ? NULL : s;
}

/* --- what was accepted --- */

/* By a table of bytes (RFC 3629), not by decoding, as name.c does it. */
static void check_name(const char *name)
{
	const unsigned char *s = (const unsigned char *)name;
	size_t n = strlen(name);

	fuzz_check(n < LC_NAME_BYTES, "a name of %zu bytes", n);
	for (size_t i = 0; i < n;) {
		size_t len = s[i] < 0x80 ? 1 : s[i] < 0xe0 ? 2 : s[i] < 0xf0 ? 3 : 4;

		fuzz_check(s[i] >= 0x20 && s[i] != 0x7f && (s[i] < 0x80 || s[i] >= 0xc2) &&
				   s[i] < 0xf5,
			   "byte %#x in a name", s[i]);
		fuzz_check(i + len <= n, "a name that ends inside a character");
		for (size_t k = 1; k < len; k++)
			fuzz_check((s[i + k] & 0xc0) == 0x80, "byte %#x in a character", s[i + k]);
		/* C1 controls, overlong forms, surrogates, beyond Unicode: the second byte tells. */
		fuzz_check(!(s[i] == 0xc2 && s[i + 1] < 0xa0) && !(s[i] == 0xe0 && s[i + 1] < 0xa0) &&
				   !(s[i] == 0xed && s[i + 1] >= 0xa0) &&
				   !(s[i] == 0xf0 && s[i + 1] < 0x90) &&
				   !(s[i] == 0xf4 && s[i + 1] >= 0x90),
			   "%#x %#x in a name", s[i], s[i + 1]);
		i += len;
	}
}

static void check(const struct params *p)
{
	const struct lc_settings *s = &p->settings;
	u32 segment = p->format_options.segment_bytes;

	fuzz_check(segment >= LC_SEGMENT_MIN_BYTES && segment <= LC_SEGMENT_MAX_BYTES &&
			   !(segment & (segment - 1)),
		   "segments of %u bytes", segment);
	fuzz_check(p->format <= PARAMS_FORMAT_FORCE, "format %d", (int)p->format);
	fuzz_check(p->io <= PARAMS_IO_LIBAIO, "io %d", (int)p->io);
	fuzz_check(s->dirty_low_percent <= 100 && s->dirty_high_percent <= 100 &&
			   s->writeback_threshold_percent <= 100 && s->flush_interval_ms <= 3600000 &&
			   s->flush_deadline_ms <= 10000 && s->superblock_interval_ms <= 86400000 &&
			   s->stall_timeout_ms <= 86400000 && s->client_timeout_ms >= 1000 &&
			   s->client_timeout_ms <= 86400000 && p->stats_interval_s <= 86400 &&
			   s->nr_buffers >= 2 && s->nr_buffers <= 64,
		   "a number out of range");
	fuzz_check(!s->batch_bytes || (s->batch_bytes >= 1 << 20 && s->batch_bytes <= 16ull << 40),
		   "a batch of %llu bytes", (unsigned long long)s->batch_bytes);
	fuzz_check(p->cache_size_bytes % LC_BLOCK == 0 && p->cache_size_bytes <= INT64_MAX,
		   "a cache of %llu bytes", (unsigned long long)p->cache_size_bytes);
	fuzz_check(p->nr_volumes <= LC_VOLUMES_MAX, "%u volumes", p->nr_volumes);
}

static void check_volumes(const struct params *p)
{
	char text[NAME_TEXT_BYTES];

	fuzz_check(p->nr_volumes > 0, "no volume");
	for (unsigned i = 0; i < p->nr_volumes; i++) {
		const struct params_volume *v = &p->volumes[i];

		fuzz_check(v->backing_path && (v->backing_path[0] == '/' ||
					       (lc_is_uri(v->backing_path) &&
						!lc_nbd_check_uri(v->backing_path, NULL))),
			   "a path is missing or relative");
		check_name(v->name);
		fuzz_check(v->name[0] || i == 0, "a default export that is not the first volume");
		for (unsigned k = 0; k < i; k++)
			fuzz_check(strcmp(p->volumes[k].name, v->name) != 0, "a name twice");
		fuzz_check(strlen(name_text(text, v->name)) < NAME_TEXT_BYTES,
			   "a name without an end");
	}
}

static void check_complete(const struct params *p)
{
	struct params none;
	char text[SIZE_TEXT_BYTES];

	check_volumes(p);
	fuzz_check(!p->cache_path || p->cache_path[0] == '/', "a relative path");
	fuzz_check(!p->cache_size_bytes ||
			   p->cache_size_bytes >= lc_cache_min_bytes(p->format_options.segment_bytes),
		   "too small a cache");
	fuzz_check(p->settings.dirty_low_percent <= p->settings.dirty_high_percent,
		   "dirty-low above dirty-high");
	/* What would be ignored is refused. */
	params_init(&none);
	none.settings.client_timeout_ms = p->settings.client_timeout_ms;
	none.settings.given = p->settings.given;
	fuzz_check(p->cache_path ||
			   (!p->cache_size_bytes && p->format == none.format &&
			    p->format_options.segment_bytes == none.format_options.segment_bytes),
		   "a parameter of the cache without one");
	/* With a control interface a cache may be attached later. */
	fuzz_check(p->cache_path || p->control_path ||
			   (!memcmp(&none.settings, &p->settings, sizeof none.settings) &&
			    !p->drain_on_exit && p->io == none.io),
		   "a setting of a cache that will never be there");
	fuzz_check(strlen(size_text(text, p->cache_size_bytes)) < SIZE_TEXT_BYTES,
		   "a size without an end");
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t n)
{
	char *text = malloc(n + 1), *next = text, *line;
	bool failed = false;
	static struct params p; /* large for a stack with guards */
	int ret;

	memcpy(text, data, n);
	text[n] = '\0';
	params_init(&p);
	while (!failed && (line = strsep(&next, "\n"))) {
		char *value = strchr(line, '=');

		/* What nbdkit does with a word that is not key=value: it goes to magic_config_key. */
		const char *key = line;

		if (value && value != line) {
			*value++ = '\0';
		} else {
			key = "backing";
			value = line;
		}
		nr_errors = 0;
		ret = params_set(&p, key, value);
		fuzz_check(ret == 0 || ret == -1, "%s=%s: %d", key, value, ret);
		fuzz_check(!ret == !nr_errors, "%s=%s: %s", key, value,
			   ret ? "refused without a word" : "accepted with an error");
		failed = ret;
		check(&p);
	}
	nr_errors = 0;
	/* nbdkit stops at the first refusal. */
	if (!failed) {
		ret = params_complete(&p);
		fuzz_check(!ret == !nr_errors, "complete: %s",
			   ret ? "refused without a word" : "accepted with an error");
		if (!ret)
			check_complete(&p);
	}
	params_free(&p);
	params_free(&p); /* a second time does no harm */
	fuzz_check(p.nr_volumes == 0 && !p.cache_path, "something is left");
	free(text);
	return 0;
}
