/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shutdown.h - the end of a server, and what is said about it meanwhile, in the log, to systemd and in the status.
 *
 *	phase		ends when				who waits
 *	serving		nbdkit was asked to end
 *	waiting		the last client has disconnected	nbdkit, before it calls cleanup
 *	draining	everything is written back, or		cleanup, until shutdown_stop()
 *			on-exit is no longer drain
 *
 * A thread of its own says so. It has nothing to do, and does not run, while there is no client. Otherwise it asks nbdkit once a
 * second: nbdkit tells nobody by itself that it was asked to end, and who asks then finds an error of nbdkit's in the log
 * ("aborting sleep because of server shut down"). That line is there only if clients are still attached, in front of
 * ours, which explains it.
 *
 * Lock: of the struct, for the clients and the phase. Nothing is waited for while it is held.
 */
#ifndef LC_PLUGIN_SHUTDOWN_H
#define LC_PLUGIN_SHUTDOWN_H

#include "control.h"
#include "logcache/logcache.h"

struct shutdown {
	struct lc_cache *cache;
	struct control *control;   /* NULL: there is none */
	const bool *drain_on_exit; /* the setting; read atomically */
	struct lc_thread thread;
	bool running;

	struct lc_mutex lock;
	struct lc_cond wake;
	unsigned nr_clients;
	enum control_phase phase;
	bool stop;
};

/* In after_fork. Returns -errno if no thread can be started: then nothing is said, and all else works. */
int shutdown_start(struct shutdown *s, struct lc_cache *cache, struct control *control,
		   const bool *drain_on_exit);

/* A client has come, or gone. Any thread. */
void shutdown_client(struct shutdown *s, bool came);

/*
 * What is waited for from now on is that everything is written back: it is told how far that is, and ended (lc_cache_interrupt)
 * when on-exit becomes keep.
 */
void shutdown_draining(struct shutdown *s);

/* Before the control interface and the cache go. Does nothing if it was not started. */
void shutdown_stop(struct shutdown *s);

#endif
