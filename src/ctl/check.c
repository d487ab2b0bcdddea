/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * check.c - logcachectl check: verify everything on a cache (src/engine/check.h), and say what is wrong.
 */
#include "check.h"

#include <getopt.h>
#include <stdio.h>

#include "ctl.h"
#include "progress.h"
#include "readonly.h"

/* Of each kind, more than so many say nothing new. */
#define LINES_MAX 1000u

struct checking {
	struct progress progress;
	u64 segment_bytes;
	u64 lines[LC_NR_FINDINGS];
	bool quiet;
};

static const char *const words[LC_NR_FINDINGS] = {
	[LC_FOUND_NOTE] = "note",
	[LC_FOUND_HARMLESS] = "harmless",
	[LC_FOUND_LOST] = "lost",
	[LC_FOUND_CORRUPT] = "corrupt",
};

static void found(void *arg, enum lc_finding finding, const char *text)
{
	struct checking *c = arg;

	if (c->lines[finding]++ >= LINES_MAX || (c->quiet && finding == LC_FOUND_NOTE))
		return;
	progress_end(&c->progress);
	printf("%s: %s\n", words[finding], text);
}

static void progress(void *arg, u64 done, u64 total)
{
	struct checking *c = arg;

	progress_tell(&c->progress, done, total, c->segment_bytes);
}

static int conclude(const char *path, const struct checking *c, const struct lc_check_result *r)
{
	const u64 *n = r->findings;
	u64 problems = n[LC_FOUND_HARMLESS] + n[LC_FOUND_LOST] + n[LC_FOUND_CORRUPT];
	char text[LC_COUNT_BYTES], records[LC_COUNT_BYTES], blocks[LC_COUNT_BYTES];

	for (unsigned i = 0; i < LC_NR_FINDINGS; i++)
		if (n[i] > LINES_MAX)
			printf("%s: %llu more\n", words[i], (unsigned long long)(n[i] - LINES_MAX));
	if (!c->quiet)
		printf("%s: %s, %s, %s of data verified\n", path,
		       lc_count_text(text, r->segments, "segment"),
		       lc_count_text(records, r->records, "record"),
		       lc_count_text(blocks, r->blocks, "block"));
	if (!problems) {
		if (!c->quiet && r->dirty_blocks)
			printf("%s: no problems; %s not written back yet\n", path,
			       lc_count_text(text, r->dirty_blocks, "block"));
		else if (!c->quiet)
			printf("%s: no problems\n", path);
		return CTL_OK;
	}
	printf("%s: %s: %llu harmless, %llu of lost data, %llu of corruption%s\n", path,
	       lc_count_text(text, problems, "problem"), (unsigned long long)n[LC_FOUND_HARMLESS],
	       (unsigned long long)n[LC_FOUND_LOST], (unsigned long long)n[LC_FOUND_CORRUPT],
	       n[LC_FOUND_CORRUPT] ? "; logcachectl repair says what can be done" : "");
	return CTL_FAILED;
}

static int parse(int argc, char **argv, bool *wanted, bool *quiet)
{
	static const struct option options[] = {
		{"progress", no_argument, NULL, 'p'},
		{"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (c == 'p')
			*wanted = true;
		else if (c == 'q')
			*quiet = quiet_log = true;
		else
			return misused_option("check", argv);
	}
	return argc - optind == 1 ? CTL_OK : misused("check: give one CACHE");
}

int command_check(int argc, char **argv)
{
	struct checking c = {0};
	struct lc_check_result result;
	struct lc_error err = {""};
	struct lc_inspect *in;
	struct lc_store *ssd;
	bool wanted = false;
	int rc = parse(argc, argv, &wanted, &c.quiet);

	if (rc)
		return rc;
	if (readonly_open(argv[optind], &ssd, &err))
		return fail("%s", err.text);
	rc = lc_inspect_open(ssd, &in, &err);
	if (!rc) {
		progress_begin(&c.progress, "checking", wanted, c.quiet);
		c.segment_bytes = (u64)in->core.meta.sb.segment_blocks * LC_BLOCK;
		rc = lc_check(in, found, progress, &c, &result, &err);
		progress_end(&c.progress);
		lc_inspect_close(in);
	}
	lc_store_close(ssd);
	return rc ? fail("%s", err.text) : conclude(argv[optind], &c, &result);
}
