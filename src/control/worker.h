/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker.h - what a request asks for and may have to wait for a disk: done by one thread, in order, while the
 * connection is suspended.
 *
 * On a disk that hangs all of it waits. So there is never more than WORKER_QUEUE_MAX, a fraction of the connections that
 * there may be: the others are for those who want to see what is the matter.
 */
#ifndef LC_CONTROL_WORKER_H
#define LC_CONTROL_WORKER_H

#include "logcache/rt.h"

#define WORKER_QUEUE_MAX 16u

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
	u32 nr;	   /* guarded by lock: in the queue, and the one that is being done */
	bool stop; /* guarded by lock */
};

int worker_start(struct worker *w); /* 0 or -errno */
/* 0; or WORK is not touched: -ESHUTDOWN: the worker has been stopped; -EAGAIN: too much waits already. */
int worker_do(struct worker *w, struct work *work);
/* Finish what is being done, refuse the rest, join. worker_do() may still be called. */
void worker_stop(struct worker *w);
void worker_destroy(struct worker *w);

#endif
