/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd.c - NBD servers as a store: putting the layers together. See nbd.h. */
#include "nbd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "nbd_priv.h"

int lc_nbd_open(const char *uri, const struct lc_nbd_options *o, struct lc_store **out,
		struct lc_error *err)
{
	struct lc_nbd_link *l;
	struct lc_error why;
	int rc = lc_nbd_check_uri(uri, &why);

	if (rc)
		return lc_fail(err, rc, "the URI of an NBD server is not right: %s", why.text);
	l = calloc(1, sizeof *l);
	if (l)
		l->uri = strdup(uri);
	if (!l || !l->uri) {
		free(l);
		return lc_fail(err, -ENOMEM, "'%s': no memory: free some", uri);
	}
	l->link.ops = &lc_nbd_link_ops;
	l->without_flush = o->without_flush;
	l->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = l->cancel_fd < 0 ? -errno : 0;
	for (unsigned i = 0; i < LC_NBD_CONNECTIONS; i++) {
		struct lc_nbd_conn *c = &l->conns[i];

		c->link = l;
		lc_mutex_init(&c->lock);
		lc_mutex_init(&c->done_lock);
		c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (c->event_fd < 0)
			rc = -errno;
	}
	if (rc) {
		l->link.ops->close(&l->link);
		return lc_fail(err, rc,
			       "'%s': cannot create an eventfd: %s; raise the limit on open files "
			       "(LimitNOFILE=, ulimit -n)",
			       uri, strerror(-rc));
	}
	return lc_fence_open(&l->link, uri, &o->fence, out, err);
}
