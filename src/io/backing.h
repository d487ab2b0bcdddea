/* SPDX-License-Identifier: BSD-3-Clause */
/* backing.h - a backing store by what the administrator calls it: a path (file.h) or the URI of an NBD server (nbd.h). */
#ifndef LOGCACHE_IO_BACKING_H
#define LOGCACHE_IO_BACKING_H

#include "nbd.h"

/* Open it, with the flags of lc_file_open() or the options of lc_nbd_open(). Returns what these do. */
int lc_backing_open(const char *where, unsigned file_flags, const struct lc_nbd_options *o,
		    struct lc_store **out, struct lc_error *err);

/* Are these certainly the same? Of two URIs that are written differently nobody knows. */
bool lc_backing_same(const char *a, const char *b);

#endif
