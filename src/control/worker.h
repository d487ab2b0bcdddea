/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.h - what a request asks for and may have to wait for a disk: done by one thread, in order, while the
 * connection is suspended.
 *
 * There cannot be more of it than there are connections, so the queue needs no limit of its own.
 */
#ifndef LC_CONTROL_WORKER_H
#define LC_CONTROL_WORKER_H

#include "logcache/rt.h"

/* A piece of work; lives in whatever asks for it. */
struct work {
	struct work *next;
	/* STOPPING: do not do it any more, only say so. Then *WORK is the worker's no longer. */
	void (*run)(struct work *work, bool stopping);
};

struct worker {
	struct lc_mutex lock;
	struct lc_cond wake;
	struct lc_thread thread;
	struct work *first, **last; /* guarded by lock */
	bool stop;		    /* guarded by lock */
};

int worker_start(struct worker *w); /* 0 or -errno */
/* False: the worker has been stopped, and WORK is not touched. */
bool worker_do(struct worker *w, struct work *work);
/* Finish what is being done, refuse the rest, join. worker_do() may still be called. */
void worker_stop(struct worker *w);
void worker_destroy(struct worker *w);

#endif
