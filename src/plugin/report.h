/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report.h - what the administrator reads about the cache: at the start a line for the cache and one
 * for each volume, and, with stats-interval=, a line of statistics at most so often and once at the end.
 *
 * The lines go through lc_log() at level info. Counters run from the opening of the cache. A
 * thread of its own wakes up at each interval, and stays silent when no counter has changed.
 */
#ifndef LC_PLUGIN_REPORT_H
#define LC_PLUGIN_REPORT_H

#include "open.h"

struct report {
	struct lc_cache *cache;
	u32 interval_s;
	bool running;
	struct lc_thread thread;
	struct lc_mutex lock;
	struct lc_cond wake;
	bool stop;	      /* guarded by lock */
	struct lc_stats last; /* the thread's; then report_stop's */
};

/* What was opened: size, memory, dirty share, position of the log; then the volumes. */
void report_opened(const struct served *s);

/* Start the thread, unless INTERVAL_S is 0. Returns 0 or -errno. Call after the fork. */
int report_start(struct report *r, struct lc_cache *c, u32 interval_s);

/* Join the thread and log the last line. Does nothing if it does not run. */
void report_stop(struct report *r);

#endif
