/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle.h - what a read may return, before and after crashes.
 *
 * Every sector that a client writes says who wrote it (content.h). A version is the number of the write
 * operation. The oracle keeps, for every sector, the versions that it may hold.
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
 * 6. Zeros: lc_zero writes a version of its own, and so does lc_trim to the whole blocks of its range, if the
 *    volume can trim at all (otherwise it does nothing). But zeros do not say whose they are. Each operation
 *    that zeroed the sector, and the zeros of the beginning, is tried under the rules above: if none passes, the
 *    read was wrong; if exactly one does, that is it, and it counts in its cluster; if several do, nothing is
 *    learned except what all of them have in common. (What a read really saw passes, because each cluster
 *    is known at most as large as it is; so a correct engine never fails.)
 * 7. Without an SSD there is no log. Then rule 4 does not hold, a flush counts for its volume alone, and FUA for
 *    its write alone. Rules 1 to 3 and 5 do hold.
 * 8. In a life in which a cache comes and goes, rules 1 to 3 and 5 hold throughout, and so does rule 7. Rule 4 holds for
 *    stretches. A stretch has three ticks:
 *
 *	from	all that is submitted now goes through the log (attaching has been seen to have switched, or was done)
 *	settled	attaching is done: what went straight before is durable
 *	until	somebody asks to detach: from now on things may go straight again
 *
 *    Let b be visible after a crash (or FUA, and acknowledged), and submitted at or after `from`. Then what was
 *    acknowledged before min(b's submission, until) is there, or replaced:
 *	- if settled, all of it. If b went through the log, then what is in the log before it is there, and what is not
 *	  in the log went straight before the switch, and was flushed. If b went straight, after `until`, then all that
 *	  was in the log had been written back, durably, before that was possible; and what was acknowledged
 *	  before `until` was in the log, or older than it.
 *	- if not, only what was submitted at or after `from`, too. Something older may have gone straight, and nobody has
 *	  flushed it.
 *    b may have been submitted before `from`: then nobody knows which way it went, and nothing follows.
 *    Only the last stretch of a life counts. When detaching is done, what was acknowledged before `until` is durable, and no
 *    earlier stretch says more than that. When attaching is done, what was acknowledged before it was asked for is durable,
 *    too. A detach that fails leaves the stretch as it was: nobody has gone straight meanwhile.
 *    A flush counts for its volume in any case, and for the others as if it were a b that was submitted when it was.
 *
 * The rules are sound (a correct engine never fails them); concurrency and unacknowledged writes
 * make them lenient exactly as far as design.md allows.
 *
 * Writes that are not aligned to sectors go to a region of their own: oracle_bytes.h.
 *
 * The oracle is told right before and right after something is done. Flushes, openings, crashes, attaching and
 * detaching are told to oracle_lives.h, which both oracles ask. What breaks a rule ends the history (sim_fail). The rooms,
 * whose calls go down:
 *
 *	oracle.c	what it is told and asked, sector by sector
 *	oracle_sector.c	the versions that each sector may hold; is a read right? (private: oracle_sector.h)
 *	oracle_lives.c	time, lives; what must have survived
 */
#ifndef LOGCACHE_SIM_ORACLE_H
#define LOGCACHE_SIM_ORACLE_H

#include "oracle_lives.h"

#define ORACLE_SECTORS_MAX 8192u /* per volume */

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

/* A write begins: fill BUF (any alignment) with its sectors. Returns its version. */
u32 oracle_write_submit(unsigned volume, u32 sector, u32 nr, bool fua, u8 *buf);
/* The same for lc_zero and lc_trim, with the sectors that will be zeros. */
u32 oracle_zero_submit(unsigned volume, u32 sector, u32 nr, bool fua, bool trim);
void oracle_write_done(u32 version, int error);
/* A read begins; returns a ticket. BUF is filled so that what the engine does not write shows. */
u32 oracle_read_submit(u8 *buf, u32 nr);
void oracle_read_done(u32 ticket, unsigned volume, u32 sector, u32 nr, const u8 *buf, int error);
/* Since the TICKET was taken (for no sectors) these were, at some moment, said to be a hole: zeros. */
void oracle_hole_done(u32 ticket, unsigned volume, u32 sector, u32 nr);

/* --- verification --- */

/*
 * Verification of the whole image, before clients write: report what was read of each part, then
 * judge (also when a crash cut it short).
 */
void oracle_verify_read(unsigned volume, u32 sector, u32 nr, const u8 *buf, int error);
void oracle_verify_judge(void);

/* A backing store's image alone, while nothing is in progress: it must equal the volume. */
void oracle_check_image(unsigned volume, u32 sector, u32 nr, const u8 *image, const char *what);

/* While nothing is in progress: is it what a read would return? */
bool oracle_image_current(unsigned volume, const u8 *image);

/* --- between lives: what others may do with a backing store --- */

/* Could the volume's image alone be what survived? If not, the cache must hold something for it. */
bool oracle_image_suffices(unsigned volume, const u8 *image);
/* Has nobody written there, ever? */
bool oracle_untouched(unsigned volume, u32 sector, u32 nr);
/*
 * Somebody else writes to the backing store of a volume for which the cache holds nothing: fill BUF. That is
 * what it holds from now on.
 */
void oracle_foreign(unsigned volume, u32 sector, u32 nr, u8 *buf);

#endif
