/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.h - one history: a cache of random shape, its lives, its clients, its crashes.
 *
 * Everything is drawn from the seed:
 *
 *	format -> life -> crash -> life -> crash -> ... -> last life -> drain -> close -> compare
 *
 * A life is: open (recover), start, verify the whole content, work (clients), maybe drain, close. A
 * crash is planned for a stage of it and a number of steps after the stage began.
 *
 * history.c draws the shape and leads through the lives; client.c is what clients do in them.
 */
#ifndef LOGCACHE_SIM_HISTORY_H
#define LOGCACHE_SIM_HISTORY_H

#include "coverage.h"
#include "logcache/logcache.h"
#include "oracle.h"
#include "store_sim.h"

#define CLIENTS_MAX 6u
#define SIM_IO_MAX (1u << 20) /* the largest request of a client */
#define SIM_SSD_MAX_BYTES (4u << 20)
#define SIM_VOLUME_MAX_BLOCKS 400u

/* A kind of history. */
enum scenario {
	SCENARIO_ANY,	  /* everything at random */
	SCENARIO_STUTTER, /* many lives, small writes that are flushed at once */
	SCENARIO_STAMMER, /* the same, but no life gets farther than its first records */
	SCENARIO_FULL, /* a ring of tiny segments that is always full; several are passed at once */
	SCENARIO_SUPERSEDE, /* a few blocks, written over and over while they are written back */
	SCENARIO_PATCHWORK, /* short segments with several records, half overwritten at the crash */
	NR_SCENARIOS,
};

enum stage { STAGE_OPEN, STAGE_VERIFY, STAGE_WORK, STAGE_DRAIN, STAGE_CLOSE, STAGE_NONE };

struct workload {
	/* shares of 100 */
	u32 write, read, flush, think, bytes;
	u32 fua_percent; /* of the writes */
	u32 hot_percent; /* of the operations: in a few blocks */
	u32 hot_block, hot_blocks;
	u32 big_percent;
	bool single; /* nothing but whole single blocks */
	u32 think_max_ns;
	bool sequential;
	u32 drains; /* per thousand operations: lc_cache_drain */
};

/* To make a history smaller; shrink.h. */
struct limits {
	u32 lives, clients, ops, sectors; /* at most; ops of one client in one life */
	u32 salt;			  /* another schedule, other draws */
};

#define LIMITS_NONE ((struct limits){16, CLIENTS_MAX, 4096, SIM_IO_MAX / LC_SECTOR, 0})

struct client {
	struct history *history;
	u32 number;
	struct workload load;
	u32 nr_ops;
	u32 cursor; /* of a sequential client, in sectors */
	u8 *memory; /* SIM_IO_MAX and some: for requests at any alignment */
};

struct history {
	u64 seed;
	bool faults;
	struct limits limits;
	unsigned nr_volumes;
	struct store_sim ssd, backing[ORACLE_VOLUMES_MAX];
	u32 nr_sectors[ORACLE_VOLUMES_MAX]; /* that the sector oracle judges */
	struct client clients[CLIENTS_MAX];
	u32 segment_bytes;

	/* the present life */
	struct lc_cache *cache;
	enum stage stage, crash_stage;
	u32 crash_steps;
	bool last, verify_first, never_start, drain, power_cut_after;
	bool closed, drained; /* how it ended */
	bool lost;	      /* a read of everything failed somewhere: some block is lost */
	int open_error;
	u32 nr_clients, ops_per_client;
	struct workload load;
	struct lc_settings settings;
	struct lc_stats before; /* the statistics at the last clean close */
	bool before_valid;
	enum scenario scenario;
	bool crashed_open;     /* the last life, while opening */
	u64 open_steps;	       /* how many the last opening took */
	bool damaged;	       /* rot or unreadable places: refusing to open is fine */
	bool metadata_damaged; /* one copy of one page; harmless */

	u64 nr_ops, nr_crashes, nr_refused;
	bool covered[NR_COVER]; /* by this history */
	u64 laps_max;		/* of the log, in any history */
};

/* Run the history of SEED. Returns if it went well, else sim_fail() ends the process. */
void history_run(struct history *h, u64 seed);
/* Note what the statistics say of the log. */
void history_covers(struct history *h, const struct lc_stats *st);
/* Once per process. */
void history_create(struct history *h, unsigned nr_volumes, bool faults);

/* --- client.c --- */

void workload_draw(struct workload *w, u32 nr_blocks);
/* What suits a scenario other than SCENARIO_ANY. */
void workload_scenario(struct workload *w, enum scenario s, u32 nr_blocks);
void clients_create(struct history *h);
/* Run nr_clients clients, and return when all have finished. */
void clients_run(struct history *h);
/* Read everything and judge it; for the first time in a life, or again. */
void verify_all(struct history *h);
/* An acknowledgement of lc_flush, lc_cache_drain or lc_cache_close that was called at TICK. */
void durable_at(u32 tick);

#endif
