/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * check.h - verify everything that is on a cache device, and say what each finding means.
 *
 *	pages	both copies of each; the superblock's and the volume table's values
 *	log	can it be followed from the tail to its end (lc_recover), and do the promises hold that
 *		the segments make to each other
 *	data	every segment that counts: headers, summaries against headers, the crc of every block
 *
 * Places that do not count (void, old, never written) are nobody's data and are not read beyond their first header.
 *
 * Writes nothing, single-threaded. The time goes into reading all that is cached, once.
 */
#ifndef LC_CHECK_H
#define LC_CHECK_H

#include "inspect.h"

enum lc_finding {
	LC_FOUND_NOTE,	   /* nothing is wrong, but worth knowing: after a crash, for example */
	LC_FOUND_HARMLESS, /* wrong, and no data depends on it */
	LC_FOUND_LOST,	   /* data is lost: it answers with errors */
	LC_FOUND_CORRUPT,  /* the cache cannot be opened, or what it says cannot be right */
};

#define LC_NR_FINDINGS 4u

/* TEXT: one line, lower case, no newline; valid during the call. */
typedef void (*lc_found)(void *arg, enum lc_finding finding, const char *text);

struct lc_check_result {
	u64 findings[LC_NR_FINDINGS];
	u64 segments, records, blocks; /* verified */
	u64 dirty_blocks; /* to be written back, or zeroed on a backing store; 0 if the log cannot be followed */
};

/*
 * IN is just opened. FOUND is called for each finding, PROGRESS (may be NULL) now and then, both with ARG.
 * 0: the check was done, whatever it found; -ENOMEM.
 */
int lc_check(struct lc_inspect *in, lc_found found, lc_progress progress, void *arg,
	     struct lc_check_result *result, struct lc_error *err);

#endif
