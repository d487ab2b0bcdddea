/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * path.h - which way the requests of a volume go: through the log, or straight to the backing store.
 *
 * That can change while clients go on (attach.c). A request is done in steps (a chunk of a read or write, a range to
 * zero), and each step looks at v->log and says that it is under way, in the critical section that it begins
 * with anyway; and in its last one, that it is done. Whoever changes the path waits for the steps that are under way on
 * the old one.
 *
 * Changes on both paths hold their blocks in v->ranges, so that they never overtake each other.
 *
 * Locking: the engine mutex guards everything here.
 */
#ifndef LC_PATH_H
#define LC_PATH_H

#include "volume.h"

/* A read begins: the log to go through, or NULL to go straight. */
static inline struct lc_log *lc_path_read(struct lc_volume *v)
{
	v->log_reads += v->log != NULL;
	return v->log;
}

/* Somebody waits for steps to be done. */
static inline void lc_path_done(struct lc_volume *v)
{
	if (v->core->path_waiters)
		lc_cond_broadcast(&v->core->path);
}

static inline void lc_path_read_done(struct lc_volume *v)
{
	v->log_reads--;
	lc_path_done(v);
}

/*
 * A write, zero or trim begins. *LOG is NULL if it goes straight. Waits while writers are held (the mutex is
 * released). -ESHUTDOWN: see lc_core_still_wanted.
 */
int lc_path_write(struct lc_volume *v, struct lc_request *rq, struct lc_log **log);

static inline void lc_path_write_done(struct lc_volume *v)
{
	v->log_writes--;
	lc_path_done(v);
}

#endif
