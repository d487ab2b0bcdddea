/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle_sector.h - the versions that each sector may hold, and the judging of a read by the rules in oracle.h.
 *
 * Private to the oracle of sectors: oracle.c alone calls this. It says which operation or read there was, and when;
 * oracle_lives.h says what must have survived.
 *
 * Each sector has a list of nodes, one for each version that it may hold now or after a crash. Nodes of the present
 * life are what was written or found in it; those of earlier lives are candidates until a read decides between them. A version
 * that is not on the list has been excluded for ever: that is how stale data from long ago is recognised.
 *
 * A node is dropped when its sector has a durable version after it, and no read in progress is old
 * enough to return it; otherwise lists would grow with the history.
 *
 * A read that breaks a rule ends the history (sim_fail) with a report: what was found, what speaks against it, what
 * would have been possible. A table that is too small ends it, too. VOLUME and SECTOR are in the range that
 * sectors_begin() was told, VERSION is one that version_submit() or version_foreign() returned, or 0; nobody checks that.
 * Nothing is locked: no fiber goes on while another one is in here.
 */
#ifndef LOGCACHE_SIM_ORACLE_SECTOR_H
#define LOGCACHE_SIM_ORACLE_SECTOR_H

#include "oracle.h"

/* An operation that gives sectors new content. Its number is their version; version 0 is the initial content. */
struct op {
	u32 volume, sector, nr;
	u32 submit, ack; /* ticks; ack ORACLE_NEVER: not (yet) acknowledged */
	u64 submit_ns, ack_ns;
	const char *fiber;
	u8 life;
	bool fua, failed;
	bool zero; /* lc_zero, or lc_trim; its content says nothing of who wrote it */
	bool trim; /* for people */
	struct oracle_promise promise; /* FUA */
};

/*
 * When a read took place: at some moment from tick START to tick END. LIFE is the present one; to look at what a crash
 * would leave, before there was one, the next (sector_may_hold() alone).
 */
struct read_time {
	u8 life;
	u32 start, end;
};

/* A new history. PRESET: version 0 says whose it is, else it is zeros. */
void sectors_begin(unsigned nr_volumes, const u32 *nr_sectors, bool preset);

/* --- versions --- */

/* OP begins: from now on its sectors may hold what it writes. Returns the version. */
u32 version_submit(const struct op *op);
/* It was acknowledged at TICK. */
void version_acknowledged(u32 version, u32 tick);
/* It failed: any of its sectors may be there, now or later, until something newer is. */
void version_failed(u32 version);
/* Somebody else, between lives, did OP: that, and nothing else, is what its sectors hold. Returns the version. */
u32 version_foreign(const struct op *op);
/* Valid until the next sectors_begin(). */
const struct op *version_op(u32 version);
/* One more than the newest. */
u32 versions_nr(void);

/* --- sectors: the read R returned VERSION, or CONTENT_ZEROS; WHERE says on what occasion, for reports --- */

/* May the sector hold that, by rules 1 to 6? Then the read counts in the version's cluster; else the history fails. */
void sector_judge(unsigned volume, u32 sector, u32 version, const struct read_time *r,
		  const char *where);
/* The same question, of which nothing follows. No to CONTENT_BROKEN. */
bool sector_may_hold(unsigned volume, u32 sector, u32 version, const struct read_time *r);
/*
 * After a recovery: what does that say of what survived (rule 4; rule 6 for zeros)? Returns whether it was news. Judging
 * comes after all sectors were found, since each may exclude something elsewhere. Fails if VERSION is not on the list.
 */
bool sector_found(unsigned volume, u32 sector, u32 version, const struct read_time *r,
		  const char *where);
/* The history fails by a RULE that the caller knows. */
_Noreturn void sector_violated(const char *rule, unsigned volume, u32 sector, u32 version,
			       const char *where);
/* Has anybody ever written to it, whatever became of that? */
bool sector_touched(unsigned volume, u32 sector);

#endif
