/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.h - one history: a cache of random shape, its lives, its clients, its crashes.
 *
 * Everything is drawn from the seed:
 *
 *	format -> life -> crash -> life -> crash -> ... -> last life -> drain -> close -> compare
 *
 * A life is: open (recover), start, verify the whole content, work (clients), maybe drain, close. A
 * crash is planned for a stage of it and a number of steps after the stage began. Some lives do without a volume
 * for which the cache holds nothing dirty; some histories, or parts of them up to a fresh format,
 * without an SSD.
 *
 *	history.c	leads through the lives
 *	draw.c		shapes, settings, faults
 *	damage.c	what decays on the SSD between lives
 *	volumes.c	other people's hands on the backing stores; openings that must be refused
 *	remote.c	backing stores behind connections that break
 *	switch.c	attaches and detaches while clients work
 *	tuner.c	changes settings meanwhile
 *	workload.c, client.c, client_zero.c, verify.c	what clients do
 */
#ifndef LOGCACHE_SIM_HISTORY_H
#define LOGCACHE_SIM_HISTORY_H

#include "coverage.h"
#include "logcache/logcache.h"
#include "oracle.h"
#include "remote.h"
#include "store_sim.h"

#define CLIENTS_MAX 6u
#define SIM_IO_MAX (1u << 20) /* the largest request of a client */
#define SIM_SSD_MAX_BYTES (4u << 20)
#define SIM_VOLUME_MAX_BLOCKS 400u
#define SIM_SPARE_BYTES (12u * LC_BLOCK) /* smaller than any volume */

/* A kind of history. */
enum scenario {
	SCENARIO_ANY,	  /* everything at random */
	SCENARIO_STUTTER, /* many lives, small writes that are flushed at once */
	SCENARIO_STAMMER, /* the same, but no life gets farther than its first records */
	SCENARIO_FULL, /* a ring of tiny segments that is always full; several are passed at once */
	SCENARIO_SUPERSEDE, /* a few blocks, written over and over while they are written back */
	SCENARIO_PATCHWORK, /* short segments with several records, half overwritten at the crash */
	SCENARIO_PENDING,   /* so many trims and zeros that no more may be pending */
	NR_SCENARIOS,
};

enum stage { STAGE_OPEN, STAGE_VERIFY, STAGE_WORK, STAGE_DRAIN, STAGE_CLOSE, STAGE_NONE };

struct workload {
	/* shares of 100 */
	u32 write, read, flush, think, bytes, zero, trim, extent;
	u32 fua_percent; /* of the writes, zeros and trims */
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
	struct lc_client connections[ORACLE_VOLUMES_MAX]; /* in this life */
};

#define SIM_SSDS 2u
#define KNOB_STATES 4u

/* tuner.c: what an SSD may keep of the settings, by number. More than KNOB_STATES possibilities: anything. */
struct kept {
	struct {
		bool keeps;
		u64 value;
	} may[LC_SETTINGS_MAX][KNOB_STATES + 1];
	u8 nr[LC_SETTINGS_MAX];
};

/* What they are in this life. */
struct knobs {
	bool known[LC_SETTINGS_MAX];
	bool raced[LC_SETTINGS_MAX]; /* changed while a cache was attached or detached */
	u64 value[LC_SETTINGS_MAX];
	/* What is just being kept, or not any more: also by an SSD that is formatted and attached meanwhile. */
	bool keeping;
	u32 number;
	bool keeps;
	u64 kept;
};

struct ssd {
	struct store_sim sim;
	u32 segment_bytes;
	bool formatted;
	bool voided; /* detached, or never used: nothing on it counts */
	bool detached;
	struct kept kept;
};

struct history {
	u64 seed;
	bool faults;
	bool remote;   /* the backing stores are behind servers */
	bool may_fail; /* I/O may fail, for either reason */
	struct limits limits;
	unsigned nr_volumes;
	struct ssd ssds[SIM_SSDS], *ssd; /* the one at hand: in use, or to be used next */
	struct store_sim backing[ORACLE_VOLUMES_MAX];
	struct remote remotes[ORACLE_VOLUMES_MAX];
	struct lc_store *stores[ORACLE_VOLUMES_MAX]; /* what the engine gets, in a life */
	u32 nr_sectors[ORACLE_VOLUMES_MAX];	     /* that the sector oracle judges */
	struct client clients[CLIENTS_MAX];

	/* switch.c: the cache comes and goes */
	bool switches;		   /* in this history */
	struct store_sim dirty;	   /* a cache that holds somebody's dirty data */
	bool mixed;		   /* in this life there was, or will be, a time without a log */
	bool at_stake;		   /* ssd may hold something that counts, if the power fails now */
	bool left;		   /* ssd was closed, not detached, before it was to be attached */
	bool unverified;	   /* and it may not know the backing stores for sure */
	bool stop_switching;	   /* the clients have finished */
	bool interrupted;	   /* lc_cache_interrupt was called */
	bool crash_in_switch;	   /* the crash that was planned comes there */
	enum lc_cache_state state; /* of the present life; as the model sees it */
	u32 nr_switches;	   /* in this life: begun */
	struct knobs knobs;

	/* the volumes */
	bool cacheless;			/* no life has an SSD */
	bool preset;			/* at first there was something else than zeros */
	bool clean[ORACLE_VOLUMES_MAX]; /* the cache holds nothing dirty for it: it may be left out */
	bool away[ORACLE_VOLUMES_MAX]; /* and nothing at all: others may write to its backing store */
	bool colder;		       /* what was cached cannot all be there any more */
	struct store_sim spare;	       /* a backing store that belongs to no volume */

	/* the present life */
	struct lc_cache *cache;
	bool no_ssd;
	bool open_before; /* this log was opened before */
	bool present[ORACLE_VOLUMES_MAX];
	u8 served[ORACLE_VOLUMES_MAX],
		place[ORACLE_VOLUMES_MAX]; /* by place in the specs; by volume */
	unsigned nr_served;
	bool one_fails; /* a backing store is gone while the others are drained */
	bool zero_lost; /* zero everything: then nothing may be lost any more */
	u64 zeroed;	/* zeros that the backing stores had executed when it began */
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
	const char *attempt;	/* volumes.c: an opening that must be refused */
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
/* A new, empty cache on the SSD at hand. */
void history_format(struct history *h);
/* Note what the statistics say of the log. */
void history_covers(struct history *h, const struct lc_stats *st);
/* Once per process. */
void history_create(struct history *h, unsigned nr_volumes, bool faults, bool cacheless,
		    bool switches, bool remote);
extern const char *const volume_names[ORACLE_VOLUMES_MAX];
/* A volume that is served in this life. */
static inline struct lc_volume *volume_of(const struct history *h, unsigned v)
{
	return lc_cache_volume(h->cache, h->place[v]);
}

/* --- draw.c --- */

extern const char *const stage_names[];
void draw_volume(struct history *h, unsigned v);
/* What is on the volume before it is cached: zeros, or PRESET. */
void fill_volume(struct history *h, unsigned v, bool preset);
void draw_cache(struct history *h);
void draw_life(struct history *h, bool last, bool must_crash);

/* --- damage.c --- */

void damage_metadata(struct history *h);
void damage(struct history *h);

/* --- volumes.c: between lives, except volumes_drain_one_failing --- */

/* Somebody else writes to backing stores where that is allowed, or must be noticed. */
void volumes_foreign(struct history *h);
/* Try to open the cache with volumes missing, swapped, or strange, where that must be refused. */
void volumes_refused(struct history *h);
/* Run FN, which is refused, in a life of its own: nothing may be written. */
void volumes_attempt(struct history *h, void (*fn)(void *));
/* One backing store vanishes: what is dirty of the others must reach theirs all the same. */
void volumes_drain_one_failing(struct history *h);

/* --- switch.c: a cache that comes and goes --- */

/* Before the first life: a cache that is never written back. */
void switch_prepare(struct history *h);
void switch_life_begins(struct history *h);
/* Start those who attach, detach, and change settings; and wait for their end. */
void switch_start(struct history *h);
void switch_finish(struct history *h);
/* Is a cache just being attached, and seen to be in use by now? */
void switch_watch(struct history *h);
/* A life has ended, somehow: with which SSD does the next one begin? */
void switch_between_lives(struct history *h);
/* The SSD holds dirty data of these volumes: it must not be attached. */
void switch_refused(struct history *h);

/* --- tuner.c --- */

void settings_format(struct history *h, struct ssd *s);
/* Opened: what is kept holds. */
void settings_opened(struct history *h);
void settings_attaching(struct history *h);
void settings_attached(struct history *h);
/* One setting is changed. */
void settings_change(struct history *h);
/* While nothing is in progress: everything is as it should be. */
void settings_check(struct history *h);

/* --- workload.c --- */

void workload_draw(struct workload *w, u32 nr_blocks);
/* What suits a scenario other than SCENARIO_ANY. */
void workload_scenario(struct workload *w, enum scenario s, u32 nr_blocks);

/* --- client.c --- */

void clients_create(struct history *h);
/* Run nr_clients clients, and return when all have finished. */
void clients_run(struct history *h);
/* Everything acknowledged before TICK on a volume (ORACLE_ALL_VOLUMES) is durable. */
void durable_at(unsigned volume, u32 tick);
/* Request buffers come at any alignment. */
u8 *client_buffer(const struct client *c);
/* Where, and how much. */
void draw_range(struct client *c, unsigned volume, u32 *sector, u32 *nr);

/* --- client_zero.c --- */

void do_zero(struct client *c, unsigned volume);
void do_trim(struct client *c, unsigned volume);
void do_extent(struct client *c, unsigned volume);
/* Client 0 alone: with the byte region. False if that cannot be written now. */
bool do_whole(struct client *c, unsigned volume, bool trim);
/* In the byte region, or trim it. */
void do_zero_bytes(struct client *c, unsigned volume, u32 at, u32 len, bool trim);

/* --- verify.c --- */

/* Read everything and judge it; for the first time in a life, or again. */
void verify_all(struct history *h);
/* Read the whole region; the first time in a life, decide what survived. */
void verify_bytes(struct history *h, unsigned volume, u8 *buf);

#endif
