/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * format.c - logcachectl format: make an empty cache.
 *
 * The same decision as the plugin's (src/plugin/open.h), with one difference: whoever says "format" means it, so a
 * logcache that is there is refused like any other data, instead of being opened.
 *
 *	nothing, with --size	create the file, format
 *	nothing			refuse
 *	zeros only		format
 *	anything else		refuse, unless --force
 *
 * A device that somebody uses is refused in any case (I12).
 */
#include <assert.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdio.h>

#include "blank.h"
#include "ctl.h"
#include "file.h"
#include "size.h"

struct request {
	const char *path;
	struct lc_format_options options;
	u64 size_bytes; /* 0: not given */
	bool force;
};

static int parse(int argc, char **argv, struct request *rq)
{
	static const struct option options[] = {
		{"segment-size", required_argument, NULL, 's'},
		{"label", required_argument, NULL, 'l'},
		{"size", required_argument, NULL, 'z'},
		{"force", no_argument, NULL, 'f'},
		{NULL, 0, NULL, 0},
	};
	u64 n;
	int c;

	rq->options.segment_bytes = LC_SEGMENT_DEFAULT_BYTES;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			if (!parse_size(optarg, &n) || n < LC_SEGMENT_MIN_BYTES ||
			    n > LC_SEGMENT_MAX_BYTES || n & (n - 1))
				return misused("--segment-size=%s: must be a power of two from 8K to "
					       "1M bytes",
					       optarg);
			rq->options.segment_bytes = n;
			break;
		case 'l':
			if (strlen(optarg) >= LC_LABEL_BYTES)
				return misused("--label=%s: must be at most %u bytes long", optarg,
					       LC_LABEL_BYTES - 1);
			rq->options.label = optarg;
			break;
		case 'z':
			if (!parse_size(optarg, &rq->size_bytes) || !rq->size_bytes ||
			    rq->size_bytes % LC_BLOCK)
				return misused("--size=%s: must be a size in bytes, or with a suffix "
					       "such as M or G, and a multiple of 4K",
					       optarg);
			break;
		case 'f':
			rq->force = true;
			break;
		default:
			return misused_option("format", argv);
		}
	}
	if (argc - optind != 1)
		return misused("format: give one CACHE");
	rq->path = argv[optind];
	return CTL_OK;
}

/* 0: may be formatted; or -errno. */
static int decide(const struct request *rq, struct lc_store *ssd, struct lc_error *err)
{
	char what[256], have[SIZE_TEXT_BYTES], want[SIZE_TEXT_BYTES];
	int rc;

	if (rq->size_bytes && rq->size_bytes != ssd->size_bytes)
		return lc_fail(err, -EINVAL,
			       "'%s' exists with a size of %s, not --size=%s: leave out --size, or remove the "
			       "file once it holds nothing of value",
			       rq->path, size_text(have, ssd->size_bytes),
			       size_text(want, rq->size_bytes));
	rc = lc_cache_probe(ssd, err);
	if (rc < 0)
		return rc;
	if (rc == 1 && !rq->force)
		return lc_fail(err, -EEXIST,
			       "'%s' is a logcache already: see logcachectl dump; give --force to destroy "
			       "it, with whatever it has not written back",
			       rq->path);
	if (rc == 1 || rq->force)
		return 0;
	rc = lc_blank_check(ssd, what, sizeof what, err);
	if (rc == 0)
		return lc_fail(err, -EEXIST,
			       "'%s' is not blank: it holds %s; correct the path, or give --force to "
			       "destroy what is there",
			       rq->path, what);
	return rc < 0 ? rc : 0;
}

static int open_or_create(const struct request *rq, struct lc_store **ssd, bool *created,
			  struct lc_error *err)
{
	struct stat st;
	u64 least = lc_cache_min_bytes(rq->options.segment_bytes);
	char text[SIZE_TEXT_BYTES], size[SIZE_TEXT_BYTES];
	int rc;

	if (stat(rq->path, &st) < 0 && errno == ENOENT) {
		if (!rq->size_bytes)
			return lc_fail(err, -ENOENT,
				       "'%s' does not exist: correct the path, or give --size=SIZE to "
				       "create the file",
				       rq->path);
		if (rq->size_bytes < least)
			return lc_fail(err, -ENOSPC,
				       "--size=%s is too small for '%s': the least is %s%s",
				       size_text(size, rq->size_bytes), rq->path,
				       size_text(text, least),
				       rq->options.segment_bytes > LC_SEGMENT_MIN_BYTES ?
					       ", or less with a smaller --segment-size" :
					       "");
		rc = lc_file_create(rq->path, rq->size_bytes, err);
		if (rc < 0)
			return rc;
		*created = true;
	}
	return lc_file_open(rq->path, 0, ssd, err);
}

static int format(const struct request *rq, struct lc_store *ssd, struct lc_error *err)
{
	char text[SIZE_TEXT_BYTES], segment[SIZE_TEXT_BYTES];
	int rc = decide(rq, ssd, err);

	if (!rc)
		lc_file_warn_cache(ssd);
	if (!rc)
		rc = lc_cache_format(ssd, &rq->options, err);
	if (!rc)
		printf("%s: formatted: %s, segments of %s\n", rq->path,
		       size_text(text, ssd->size_bytes),
		       size_text(segment, rq->options.segment_bytes));
	return rc;
}

int command_format(int argc, char **argv)
{
	struct request rq = {0};
	struct lc_error err = {""};
	struct lc_store *ssd = NULL;
	bool created = false;
	int rc = parse(argc, argv, &rq);

	if (rc)
		return rc;
	assert(rq.path);
	rc = open_or_create(&rq, &ssd, &created, &err);
	if (ssd) {
		rc = format(&rq, ssd, &err);
		lc_store_close(ssd);
	}
	if (rc && created)
		unlink(rq.path); /* best effort: the reason for failing is another one */
	return rc ? fail("%s", err.text) : CTL_OK;
}
