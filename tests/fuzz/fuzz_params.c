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
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

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

int64_t nbdkit_parse_size(const char *s)
{
	static const char suffixes[] = "bkmgtpe";
	const char *found;
	unsigned shift;
	long long n;
	char *end;

	errno = 0;
	n = strtoll(s, &end, 10);
	if (errno || end == s || n < 0)
		goto bad;
	if (*end == '\0')
		return n;
	found = strchr(suffixes, *end | 0x20);
	if (end[1])
		goto bad;
	if ((*end | 0x20) == 's')
		shift = 9;
	else if (found && *found)
		shift = 10 * (found - suffixes);
	else
		goto bad;
	if (n > INT64_MAX >> shift)
		goto bad;
	return (int64_t)n << shift;
bad:
	nbdkit_error("could not parse size string (%s)", s);
	return -1;
}

int nbdkit_parse_unsigned(const char *what, const char *s, unsigned *out)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(s, &end, 0);
	if (errno || end == s || *end || n > UINT32_MAX || strchr(s, '-')) {
		nbdkit_error("%s: could not parse number: \"%s\"", what, s);
		return -1;
	}
	*out = n;
	return 0;
}

/* --- what was accepted --- */

static void check(const struct params *p)
{
	const struct lc_settings *s = &p->settings;
	u32 segment = p->format_options.segment_bytes;

	fuzz_check(segment >= LC_SEGMENT_MIN_BYTES && segment <= LC_SEGMENT_MAX_BYTES &&
			   !(segment & (segment - 1)),
		   "segments of %u bytes", segment);
	fuzz_check(p->format <= PARAMS_FORMAT_FORCE, "format %d", (int)p->format);
	fuzz_check(s->dirty_low_percent <= 100 && s->flush_interval_ms <= 3600000 &&
			   p->stats_interval_s <= 86400 && s->nr_buffers >= 2 &&
			   s->nr_buffers <= 1024,
		   "a number out of range");
	fuzz_check(p->cache_size_bytes % LC_BLOCK == 0 && p->cache_size_bytes <= INT64_MAX,
		   "a cache of %llu bytes", (unsigned long long)p->cache_size_bytes);
}

static void check_complete(const struct params *p)
{
	char text[SIZE_TEXT_BYTES];

	fuzz_check(p->cache_path && p->cache_path[0] == '/' && p->backing_path &&
			   p->backing_path[0] == '/',
		   "a path is missing or relative");
	fuzz_check(!p->cache_size_bytes ||
			   p->cache_size_bytes >= lc_cache_min_bytes(p->format_options.segment_bytes),
		   "too small a cache");
	fuzz_check(strlen(size_text(text, p->cache_size_bytes)) < SIZE_TEXT_BYTES,
		   "a size without an end");
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t n)
{
	char *text = malloc(n + 1), *next = text, *line;
	bool failed = false;
	struct params p;
	int ret;

	memcpy(text, data, n);
	text[n] = '\0';
	params_init(&p);
	while (!failed && (line = strsep(&next, "\n"))) {
		char *value = strchr(line, '=');

		/*
		 * What nbdkit does with it: a key without a value comes as magic_config_key, or
		 * not at all.
		 */
		if (!value || value == line)
			continue;
		*value++ = '\0';
		nr_errors = 0;
		ret = params_set(&p, line, value);
		fuzz_check(ret == 0 || ret == -1, "%s=%s: %d", line, value, ret);
		fuzz_check(!ret == !nr_errors, "%s=%s: %s", line, value,
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
	free(text);
	return 0;
}
