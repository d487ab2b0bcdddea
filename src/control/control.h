/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.h - how an administrator looks at a running server and changes what it does: HTTP/1.1 with JSON
 * over a Unix socket, and the read-only part of it over TCP for a monitoring system.
 *
 * docs/control.md is the contract with clients. This header is the one with the plugin:
 *
 *	get_ready	control_listen(): sockets are bound while errors still reach the terminal, before a
 *			change of user, and before any store is opened: a refusal leaves no trace
 *	after_fork	control_start(): threads do not survive a fork
 *	cleanup		control_finish_jobs(), drain if wanted (status goes on being answered meanwhile),
 *			control_stop()
 *	exit()		control_abandon(): of a start that failed nothing else is called
 *
 * Threads
 *
 *   One of libmicrohttpd for each of the two sockets answers requests, and never waits for a disk: the
 *   engine's mutex is all that it takes. What may take long is done elsewhere. A flush, and keeping
 *   settings on the SSD, by one worker while the connection is suspended (worker.h); drain, attach and
 *   detach as jobs in a thread of their own, whose state clients ask for (jobs.h).
 *
 *   Clients' requests on the NBD side meet none of this, but for the engine's mutex, and shards
 *   of counters that each thread has for itself (latency.h).
 *
 * Rooms: control.c life; socket.c the listening sockets; http.c requests and answers; api.c which path means what;
 * status.c, settings.c, metrics.c what they say; jobs.c, worker.c what takes long.
 */
#ifndef LC_CONTROL_H
#define LC_CONTROL_H

#include "logcache/logcache.h"

struct control;

/* What to do with what is on an SSD that is to be attached: as format= of the plugin. */
enum control_format { CONTROL_FORMAT_AUTO, CONTROL_FORMAT_NO, CONTROL_FORMAT_FORCE };

/* What the status says of the server as a whole. */
enum control_phase {
	CONTROL_SERVING,
	CONTROL_WAITING,  /* it was asked to end, and waits for its clients */
	CONTROL_DRAINING, /* it ends, and writes everything back before */
};

/* What the server serves; strings and the cache outlive the control interface. */
struct control_config {
	const char *version;
	struct lc_cache *cache;
	unsigned nr_volumes;
	const char *cache_path; /* of the cache that was opened; NULL: none */
	bool *drain_on_exit;	/* the setting on-exit; used atomically */
	/*
	 * Open the SSD at PATH (absolute), format it if that is called for, give it to the cache; and the way back.
	 * They run in the thread of a job, one at a time, never after control_finish_jobs() has returned.
	 * segment_bytes 0: the default. Return what lc_cache_attach() and lc_cache_detach() do.
	 */
	int (*attach)(const char *path, enum control_format format, u32 segment_bytes,
		      struct lc_error *err);
	int (*detach)(struct lc_error *err);
};

/*
 * Bind the Unix socket SOCKET_PATH (absolute) and the TCP address METRICS_ADDRESS ([HOST:]PORT); either may be
 * NULL, and the strings outlive *OUT. Nothing is answered before control_start(). With neither, *OUT is
 * NULL, which all functions below accept.
 *
 * A socket that a killed server left behind is replaced. -EADDRINUSE: another server uses it, or something
 * else is at its path; -EINVAL: no address; or what the system said.
 */
int control_listen(const char *socket_path, const char *metrics_address, struct control **out,
		   struct lc_error *err);

/* Start to answer. On failure nobody answers, and control_stop() is still to be called. CONFIG is copied. */
int control_start(struct control *c, const struct control_config *config, struct lc_error *err);

/* Any thread, before control_stop(). C may be NULL. */
void control_set_phase(struct control *c, enum control_phase phase);

/*
 * No job can be started from now on. One that runs is waited for if DRAIN, as a drain will be waited for by
 * the caller anyway, or else interrupted (lc_cache_interrupt: for good).
 */
void control_finish_jobs(struct control *c, bool drain);

/* Answer no more, remove the socket, release everything. C may be NULL. Before the cache is closed. */
void control_stop(struct control *c);

/*
 * The process ends without having come to control_stop(): remove the socket, unless a child of this process serves it. Nothing
 * else is touched, as other threads may still use it. C may be NULL.
 */
void control_abandon(struct control *c);

#endif
