/* SPDX-License-Identifier: BSD-3-Clause */
#include "core.h"

/* The least that client_timeout_ms can be set to. What is younger when it begins, as nearly all is, need not ask for the mutex. */
#define LATE_NS LC_NS_PER_S

int lc_core_still_wanted(struct lc_core *c, u64 since_ns)
{
	const struct lc_settings *s = &c->settings;
	bool gone;

	if (!s->abandoned || lc_now_ns() < since_ns + s->client_timeout_ms * LC_NS_PER_MS)
		return 0;
	lc_mutex_unlock(&c->lock);
	gone = s->abandoned();
	lc_mutex_lock(&c->lock);
	return gone ? -ESHUTDOWN : 0;
}

int lc_core_begin_change(struct lc_core *c, u64 now_ns, u64 *since_ns)
{
	int err;

	*since_ns = c->settings.waits_since ? c->settings.waits_since() : now_ns;
	if (now_ns < *since_ns + LATE_NS)
		return 0;
	lc_mutex_lock(&c->lock);
	err = lc_core_still_wanted(c, *since_ns);
	lc_mutex_unlock(&c->lock);
	return err;
}
