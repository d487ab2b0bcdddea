/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * forget.c - logcachectl forget: remove a volume from a cache (src/engine/forget.h).
 */
#include "forget.h"

#include <getopt.h>
#include <stdio.h>

#include "ctl.h"
#include "file.h"
#include "name.h"

static int forget(const char *path, const char *name, bool lose)
{
	char volume[NAME_TEXT_BYTES], dirty[LC_COUNT_BYTES], lost[LC_COUNT_BYTES];
	struct lc_forgotten f = {0};
	struct lc_error err = {""};
	struct lc_store *ssd;
	int rc;

	if (lc_file_open(path, 0, &ssd, &err))
		return fail("%s", err.text);
	rc = lc_forget(ssd, name, lose, &f, &err);
	lc_store_close(ssd);
	if (rc == -EBUSY)
		return fail("%s; write them back with logcachectl drain, or give them up with "
			    "--yes-lose-data",
			    err.text);
	if (rc)
		return fail("%s", err.text);
	printf("%s: %s is forgotten", path, name_text(volume, name));
	if (f.dirty_blocks || f.lost_blocks)
		printf("; given up with it: %s not written back, and %s",
		       lc_count_text(dirty, f.dirty_blocks, "block"),
		       lc_count_text(lost, f.lost_blocks, "lost block"));
	printf("\n");
	return CTL_OK;
}

int command_forget(int argc, char **argv)
{
	static const struct option options[] = {
		{"yes-lose-data", no_argument, NULL, 'l'},
		{NULL, 0, NULL, 0},
	};
	bool lose = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'l')
			return misused_option("forget", argv);
		lose = true;
	}
	if (argc - optind != 2)
		return misused("forget: give one CACHE and one VOLUME ('' is the default export)");
	return forget(argv[optind], argv[optind + 1], lose);
}
