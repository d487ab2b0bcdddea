/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.c - see worker.h. */
#include "worker.h"

static void worker_thread(void *arg)
{
	struct worker *w = arg;

	lc_mutex_lock(&w->lock);
	while (w->first || !w->stop) {
		struct work *work = w->first;
		bool stopping = w->stop;

		if (!work) {
			(void)lc_cond_wait(&w->wake, &w->lock, LC_FOREVER); /* never times out */
			continue;
		}
		w->first = work->next;
		if (!w->first)
			w->last = &w->first;
		lc_mutex_unlock(&w->lock);
		work->run(work, stopping);
		lc_mutex_lock(&w->lock);
		w->nr--;
	}
	lc_mutex_unlock(&w->lock);
}

int worker_start(struct worker *w)
{
	int rc;

	*w = (struct worker){.last = &w->first};
	lc_mutex_init(&w->lock);
	lc_cond_init(&w->wake);
	rc = lc_thread_start(&w->thread, "lc-control", worker_thread, w);
	if (rc < 0)
		worker_destroy(w);
	return rc;
}

int worker_do(struct worker *w, struct work *work)
{
	int rc = 0;

	lc_mutex_lock(&w->lock);
	if (w->stop) {
		rc = -ESHUTDOWN;
	} else if (w->nr == WORKER_QUEUE_MAX) {
		rc = -EAGAIN;
	} else {
		w->nr++;
		work->next = NULL;
		*w->last = work;
		w->last = &work->next;
		lc_cond_signal(&w->wake);
	}
	lc_mutex_unlock(&w->lock);
	return rc;
}

void worker_stop(struct worker *w)
{
	lc_mutex_lock(&w->lock);
	w->stop = true;
	lc_cond_signal(&w->wake);
	lc_mutex_unlock(&w->lock);
	lc_thread_join(&w->thread);
}

void worker_destroy(struct worker *w)
{
	lc_cond_destroy(&w->wake);
	lc_mutex_destroy(&w->lock);
}
