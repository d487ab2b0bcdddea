/* SPDX-License-Identifier: BSD-3-Clause */
#include "path.h"

int lc_path_write(struct lc_volume *v, struct lc_request *rq, struct lc_log **log)
{
	struct lc_core *c = v->core;
	int err = 0;

	while (c->hold && !err) {
		c->path_waiters++;
		lc_cond_wait(&c->path, &c->lock, LC_FOREVER);
		c->path_waiters--;
		err = lc_core_still_wanted(c, rq->since_ns);
	}
	if (!err && rq->direct) /* a step that went straight may have taken long */
		err = lc_core_still_wanted(c, rq->since_ns);
	*log = err ? NULL : v->log;
	v->log_writes += *log != NULL;
	return err;
}
