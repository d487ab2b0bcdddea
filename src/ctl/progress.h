/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * progress.h - one line that says how far something is.
 *
 * On a terminal the line is written again and again; with --progress also elsewhere, then as lines of their own, and
 * not so often. Nothing appears of what takes less than two seconds. All of it goes to standard error.
 */
#ifndef LC_CTL_PROGRESS_H
#define LC_CTL_PROGRESS_H

#include "logcache/logcache.h"

struct progress {
	const char *what;
	bool off, terminal;
	u64 begun_ns, told_ns;
	bool shown; /* there is a line that is not ended */
};

/* WANTED: --progress; QUIET: --quiet. */
void progress_begin(struct progress *p, const char *what, bool wanted, bool quiet);
/* UNIT_BYTES: how many bytes one of DONE and TOTAL is, to tell a rate; 0: none. Cheap when it is too early. */
void progress_tell(struct progress *p, u64 done, u64 total, u64 unit_bytes);
/* Make room for other lines. */
void progress_end(struct progress *p);

#endif
