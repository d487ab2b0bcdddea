/* SPDX-License-Identifier: BSD-3-Clause */
#include "core.h"

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
