/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * request.h - how a client's request ends: what nbdkit answers, and what the administrator reads.
 *
 * A store that fails may fail every request, a hundred thousand a second. So of each kind of request
 * REQUEST_ERRORS_PER_S failures a second are told one by one; the rest are counted, and the number
 * follows with the next failure that is told, or at the end.
 *
 * With -D logcache.requests=1 (and -v) every request is shown with its result and its time.
 *
 * A request may have lain in its connection's socket before it began, for as long as all threads of the connection were busy: no
 * thread reads ahead. If that is longer than its client's patience, the client has sent it again on another connection,
 * and may have written something newer since. So each thread knows since when its request may have been
 * waiting, and the engine counts that as well (waits_since of logcache.h).
 *
 * Threads: any. The lock in here is taken for failures alone.
 */
#ifndef LC_PLUGIN_REQUEST_H
#define LC_PLUGIN_REQUEST_H

#include "open.h"

#define REQUEST_ERRORS_PER_S 3u

enum request_kind {
	REQUEST_READ,
	REQUEST_WRITE,
	REQUEST_ZERO,
	REQUEST_TRIM,
	REQUEST_FLUSH,
	REQUEST_EXTENTS,
	NR_REQUEST_KINDS,
};

struct request {
	enum request_kind kind;
	const struct served_volume *volume;
	u64 offset_bytes;
	u32 len_bytes;
	u32 flags; /* nbdkit's */
	u64 start_ns;
};

/* When the plugin is loaded and unloaded. */
void requests_init(void);
void requests_fini(void);

/* After the last request: the number of failures that was not told yet. */
void requests_tell_rest(void);

/* Begin a request, in the thread that will end it. */
struct request request_begin(enum request_kind kind, const void *volume, u32 len_bytes,
			     u64 offset_bytes, u32 flags);

/* lc_settings.waits_since, for the request that this thread has begun. */
u64 request_waits_since(void);

/*
 * RC is what the engine returned for it. Returns what its callback has to return: 0, or -1 with the error set
 * that the client shall see.
 */
int request_end(const struct request *r, int rc);

#endif
