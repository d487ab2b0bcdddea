/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.c - logcachectl repair: make a corrupt cache start again (src/engine/repair.h), on explicit demand (I11).
 *
 * Without --yes the device is opened for reading only: what would be done is said, and nothing can happen.
 */
#include "repair.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "file.h"
#include "progress.h"
#include "readonly.h"

struct repairing {
	const char *path;
	bool yes, wanted, quiet;
	struct progress progress;
	u64 losses;
};

static void say(void *arg, enum lc_repair_line what, const char *text)
{
	struct repairing *r = arg;

	progress_end(&r->progress);
	printf("%s: %s\n", what == LC_REPAIR_DOES ? "repair" : "lost", text);
	r->losses += what == LC_REPAIR_LOSES;
}

static void progress(void *arg, u64 done, u64 total)
{
	struct repairing *r = arg;

	progress_tell(&r->progress, done, total, 0);
}

/* Plan, and do it if that is wanted. */
static int repair(struct repairing *r, struct lc_store *ssd, struct lc_error *err)
{
	struct lc_inspect *in;
	int rc = lc_inspect_open(ssd, &in, err);

	if (rc)
		return rc;
	progress_begin(&r->progress, "looking for records", r->wanted, r->quiet);
	rc = lc_repair_plan(in, say, progress, r, err);
	progress_end(&r->progress);
	if (rc > 0 && r->yes) {
		rc = lc_repair_apply(in, err);
		if (!rc)
			printf("%s: repaired: it can be served again%s\n", r->path,
			       r->losses ? "; check what is on its volumes" : "");
	} else if (rc > 0) {
		printf("%s: nothing was changed: give --yes to do this\n", r->path);
		rc = lc_fail(err, -EUCLEAN, "'%s' needs repair", r->path);
	} else if (rc == 0) {
		printf("%s: nothing to repair\n", r->path);
	}
	lc_inspect_close(in);
	return rc;
}

static int parse(int argc, char **argv, struct repairing *r)
{
	static const struct option options[] = {
		{"yes", no_argument, NULL, 'y'},
		{"progress", no_argument, NULL, 'p'},
		{"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (c == 'y')
			r->yes = true;
		else if (c == 'p')
			r->wanted = true;
		else if (c == 'q')
			r->quiet = quiet_log = true;
		else
			return misused_option("repair", argv);
	}
	if (argc - optind != 1)
		return misused("repair: give one CACHE");
	r->path = argv[optind];
	return CTL_OK;
}

int command_repair(int argc, char **argv)
{
	struct repairing r = {0};
	struct lc_error err = {""};
	struct lc_store *ssd;
	int rc = parse(argc, argv, &r);

	if (rc)
		return rc;
	if (r.yes ? lc_file_open(r.path, 0, &ssd, &err) : readonly_open(r.path, &ssd, &err))
		return fail("%s", err.text);
	/* What we are about to read is to be durable, as when it is opened. */
	rc = lc_store_flush(ssd);
	if (rc)
		lc_fail(&err, rc, "%s: flush fails: %s", r.path, strerror(-rc));
	if (!rc)
		rc = repair(&r, ssd, &err);
	lc_store_close(ssd);
	return rc ? fail("%s", err.text) : CTL_OK;
}
