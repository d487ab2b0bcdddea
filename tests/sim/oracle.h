/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle.h - what a read may return, before and after crashes.
 *
 * Every sector that a client writes says who wrote it: {volume, sector, version, seed} and a filler
 * that depends on all of these, so that a mixture of two versions is recognised. A version is the
 * number of the write operation. The oracle keeps, for every sector, the versions that it may hold.
 *
 * Time is a counter (tick) that rises at every submission and acknowledgement. Per sector, each
 * version v has a cluster: its write and the reads that returned it, with
 *
 *	first_end(v)	the earliest moment at which an operation of the cluster had ended
 *	last_start(v)	the latest moment at which one started
 *
 * and v is BEFORE u if first_end(v) < last_start(u): somebody had finished with v when somebody
 * began with u.
 *
 * 1. Reads: a sector behaves as one register (is linearizable) if and only if never v before u and
 *    u before v (Gibbons and Korach, 1997, "Testing shared memories": zones). That is: a read
 *    returns the last acknowledged write or a concurrent one, and nobody sees time go back.
 * 2. Durability (I2): after a crash a sector may not hold v if v is before some u that was
 *    acknowledged before a successful flush was submitted, or that was written with FUA.
 * 3. Newest wins (I5): "before" knows of reads, so what a read returned is not replaced by a write
 *    that raced with it.
 * 4. Prefix (I9): if b is visible after the crash, everything that was acknowledged before b was
 *    submitted counts as durable for rule 2, on all volumes: let T be the latest submission among
 *    the visible versions of a life; then whatever was acknowledged before T in that life must be
 *    there, or have been replaced.
 * 5. After a successful opening the first read of a sector decides what it held; everything else is
 *    dead for ever. That content is durable (recovery has flushed).
 *
 * The rules are sound (a correct engine never fails them); concurrency and unacknowledged writes
 * make them lenient exactly as far as design.md allows.
 *
 * Writes that are not aligned to sectors go to a region of their own: oracle_bytes.h.
 */
#ifndef LOGCACHE_SIM_ORACLE_H
#define LOGCACHE_SIM_ORACLE_H

#include "logcache/types.h"

#define ORACLE_VOLUMES_MAX 4u
#define ORACLE_SECTORS_MAX 8192u /* per volume */
#define ORACLE_LIVES_MAX 32u
#define ORACLE_NEVER UINT32_MAX

/* Start a history. PRESET: the volumes hold version 0 of every sector, else zeros. */
void oracle_begin(u64 seed, unsigned nr_volumes, const u32 *nr_sectors, bool preset);
/* With faults, reads may fail, and what failed is not checked. */
void oracle_allow_errors(bool allow);
/*
 * The cache device was damaged where the engine may take it for a torn tail: as some of what it
 * then cuts off may have been written back already, old and new can both appear. From now on only
 * the content of sectors is judged: not torn, not foreign.
 */
void oracle_allow_loss(void);
/* Version 0 of one sector, for the initial image. */
void oracle_preset_sector(unsigned volume, u32 sector, u8 *buf);

/* --- clients --- */

u32 oracle_tick(void);
/* A write begins: fill BUF (any alignment) with its sectors. Returns its version. */
u32 oracle_write_submit(unsigned volume, u32 sector, u32 nr, bool fua, u8 *buf);
void oracle_write_done(u32 version, int error);
/* A read begins; returns a ticket. BUF is filled so that what the engine does not write shows. */
u32 oracle_read_submit(u8 *buf, u32 nr);
void oracle_read_done(u32 ticket, unsigned volume, u32 sector, u32 nr, const u8 *buf, int error);
/*
 * Everything acknowledged before TICK is durable: a flush submitted at TICK has succeeded, or a
 * drain.
 */
void oracle_durable(u32 tick);

/* --- lives --- */

/* The cache has been opened: a new life. */
void oracle_opened(void);
/* The life has ended without a clean close. */
void oracle_crashed(void);
/* Everything acknowledged is durable; nothing is in progress. */
void oracle_closed(void);

/*
 * Verification of the whole image, before clients write: report what was read of each part, then
 * judge (also when a crash cut it short).
 */
void oracle_verify_read(unsigned volume, u32 sector, u32 nr, const u8 *buf, int error);
void oracle_verify_judge(void);
/* For the other oracle, which knows of operations that this one does not see. */
u8 oracle_life(void);
/* An operation submitted at TICK of LIFE survived a crash (I9). */
void oracle_visible(u8 life, u32 tick);
/* Everything that was acknowledged in LIFE before this tick must be there. */
u32 oracle_guaranteed_tick(u8 life);

/* A backing store's image alone, while nothing is in progress: it must equal the volume. */
void oracle_check_image(unsigned volume, u32 sector, u32 nr, const u8 *image, const char *what);

#endif
