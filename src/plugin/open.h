/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * open.h - from parameters to an open cache: the stores, the decision to format, recovery.
 *
 * This is where a start is refused, and a refused start writes nothing anywhere (I12). So the order
 * is: everything that can be found out by looking at the parameters, at all backing stores and at the
 * cache; then the first write (a new cache file, a format, or the new epoch of an existing cache,
 * which lc_cache_open() likewise writes last). A cache file that was created by a start that fails
 * after all is removed again.
 *
 *	what is at cache=		format=auto		no		force
 *	nothing, with cache-size=	create, format		refuse		create, format
 *	nothing				refuse			refuse		refuse
 *	a logcache			open			open		format, warn
 *	zeros only			format			refuse		format
 *	anything else			refuse			refuse		format, warn
 *	(no cache=)			serve the volumes straight from their backing stores
 *
 * Runs in nbdkit's get_ready and cleanup: one thread, and no client. Everything that takes root's
 * rights to open is opened here, before nbdkit -u changes to another user.
 */
#ifndef LC_PLUGIN_OPEN_H
#define LC_PLUGIN_OPEN_H

#include "logcache/logcache.h"
#include "params.h"

/* One NBD export. */
struct served_volume {
	const char *name; /* the parameters'; "" for the default export */
	struct lc_store *backing;
	struct lc_volume *volume;
};

/* What is being served. All zero while nothing is. */
struct served {
	struct lc_store *ssd; /* NULL: without a cache; attach's and detach's while serving */
	struct lc_cache *cache;
	struct served_volume volumes[LC_VOLUMES_MAX]; /* in the order of the parameters */
	unsigned nr_volumes;
};

/*
 * Open and lock all stores, format the cache if that is called for, recover it. No thread
 * runs afterwards, and there are no connections: served_start() comes after the fork. P outlives S. Returns 0, or -errno with S
 * empty and everything released.
 */
int served_open(struct served *s, const struct params *p, struct lc_error *err);

/* Connect to servers again, in the background, and start the cache (lc_cache_start). */
int served_start(struct served *s, struct lc_error *err);

/*
 * Give the SSD at PATH to a cache that has none, and take it away again, while clients go on. The same table decides
 * about formatting. segment_bytes 0: as P says. From one thread at a time, not while opening or closing.
 * Return what lc_cache_attach() and lc_cache_detach() do, or why PATH cannot be used.
 */
int served_attach(struct served *s, const struct params *p, const char *path,
		  enum params_format format, u32 segment_bytes, struct lc_error *err);
int served_detach(struct served *s, struct lc_error *err);

/* The volume of this name; NULL if there is none. */
const struct served_volume *served_find(const struct served *s, const char *name);

/*
 * Close the cache (lc_cache_close) and the stores, and leave S empty. Does nothing to an empty one.
 * Returns what lc_cache_close() returned.
 */
int served_close(struct served *s);

#endif
