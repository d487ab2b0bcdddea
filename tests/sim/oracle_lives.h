/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle_lives.h - time, lives, and what must have survived them: all that the oracles know apart from content.
 *
 * Time is a counter (tick), which rises at every submission and acknowledgement. An operation belongs to the life in
 * which it was submitted; lives do not overlap. Of each life this room keeps, for the rules in oracle.h,
 *
 *	durable		by volume: what was acknowledged before this tick was flushed, or drained (rule 2)
 *	visible		the latest submission among what was found after its crash: T of rule 4
 *	a stretch	since when everything goes through the log, and until when (rules 7 and 8)
 *
 * From that and from an operation's own ticks follows whether it must still be there. Sectors, versions and bytes are
 * the business of those who ask:
 *
 *	oracle.c -> oracle_sector.c -> oracle_lives.c <- oracle_bytes.c
 *
 * Nothing is locked: no fiber goes on while another one is in here. A table that is too small fails the history.
 */
#ifndef LOGCACHE_SIM_ORACLE_LIVES_H
#define LOGCACHE_SIM_ORACLE_LIVES_H

#include "logcache/types.h"

#define ORACLE_VOLUMES_MAX 4u
#define ORACLE_LIVES_MAX 32u
#define ORACLE_NEVER UINT32_MAX /* instead of a tick */
#define ORACLE_ALL_VOLUMES UINT32_MAX

/* --- time --- */

/* Something was submitted or acknowledged: the next tick. */
u32 oracle_tick(void);
/* The last one. */
u32 oracle_now(void);

/*
 * A read begins: returns a ticket. It ends: returns the tick at which it began. A read that a crash cuts off does not
 * end, and its ticket is void.
 */
u32 oracle_read_begin(void);
u32 oracle_read_end(u32 ticket);
/* No read in progress, and none to come, started before this tick. */
u32 oracle_oldest_read(void);

/* --- lives --- */

/* The cache has been opened: a new life, with a log or without. */
void oracle_opened(bool log);
/* Rule 8. Somebody asks to attach a cache; it has switched; that is done. */
void oracle_attaching(void);
void oracle_switched(void);
void oracle_settled(void);
/* Of the last life. */
bool oracle_switch_seen(void);
/* Somebody asks to detach it; that has ended, in vain or not. Returns the tick of the former. */
u32 oracle_detaching(void);
void oracle_detached(bool done);
/* The life has ended without a clean close. */
void oracle_crashed(void);
/* Everything acknowledged is durable; nothing is in progress. */
void oracle_closed(void);
/* The present life, or the last one: they count from 1; what was there before has life 0. */
u8 oracle_life(void);
/* Did LIFE end with a log, so that there is one prefix of all? */
bool oracle_has_log(u8 life);

/* --- what must have survived --- */

/*
 * Everything acknowledged before TICK on a volume (ORACLE_ALL_VOLUMES) is durable: a flush submitted at TICK
 * has succeeded, or a drain.
 */
void oracle_durable(unsigned volume, u32 tick);

/* What the log makes of something that is submitted now, when it becomes durable. */
struct oracle_promise {
	u32 tick;   /* of all volumes, what was acknowledged before this is durable; 0: nothing */
	bool loose; /* the stretch is not settled: only what was submitted in it */
};
struct oracle_promise oracle_promise(u32 tick);
void oracle_kept(struct oracle_promise p);

/* An operation submitted at TICK of LIFE survived a crash (I9). True if that tells something new. */
bool oracle_visible(u8 life, u32 tick);
/* Is an operation of LIFE that was acknowledged at ACK durable, because a flush says so? */
bool oracle_flushed(u8 life, unsigned volume, u32 ack);
/* Must this operation of LIFE be there, or have been replaced? */
bool oracle_guaranteed(u8 life, unsigned volume, u32 submit, u32 ack);

/* --- for oracle.c, and for reports --- */

/* A new history: life 0, in which nothing is in progress. */
void oracle_lives_begin(void);
/* One line of a failure's report, to stderr: of LIFE, what is known to be durable on VOLUME. */
void oracle_lives_describe(u8 life, unsigned volume);

#endif
