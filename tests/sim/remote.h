/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * remote.h - a simulated disk behind a server and a connection that breaks: a link for src/io/fence.c.
 *
 * The server has a disk (store_sim.h). A connection breaks at a random moment; the server may be away for a while
 * then, and may have lost power. What was in flight comes back as lost, and what of it had not taken effect becomes
 * a ghost: it takes effect at any moment within the fence, in any order, through later connections, crashes of the
 * engine's process, and its next life. Sometimes a request is never answered.
 */
#ifndef LOGCACHE_SIM_REMOTE_H
#define LOGCACHE_SIM_REMOTE_H

#include "fence.h"
#include "store_sim.h"

struct remote_io;

struct remote {
	struct lc_link link; /* the first member */
	struct store_sim *disk;
	struct lc_fence_options options;
	u32 session_max_ns; /* how long a connection lasts; 0: for ever */
	u32 away_max_ns;
	u32 max_bytes, zero_max_bytes;

	bool connected, broken, told, quit;
	u64 away_until_ns;
	struct sim_event breaks;
	struct lc_thread thread; /* hands over answers */
	struct fiber *fiber;
	struct remote_io *flight;
	struct lc_link_io *done;
	bool *covered_lost, *covered_restart, *covered_stuck; /* what to tell of */
};

/* Once. */
void remote_create(struct remote *r, struct store_sim *disk);
/* A history begins: how long is the fence in it? */
void remote_begin(struct remote *r);
/* A life begins: how good is the connection in it? STEADY: it never breaks. */
void remote_draw(struct remote *r, bool steady);
/* In a life: connect, and get a store. */
struct lc_store *remote_open(struct remote *r);
/* The engine's process has died, or its life ended; the server goes on. */
void remote_crash(struct remote *r);

#endif
