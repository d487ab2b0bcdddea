/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle_bytes.h - the judge of writes that are not aligned to sectors.
 *
 * The end of each volume (with the odd bytes after its last whole sector) belongs to one client,
 * which has one operation in progress at a time. So there is a definite content after each
 * operation, and after a crash there must be a k such that
 *
 *	operations 1 .. k are there completely, k+1 in any subset of its sectors, and nothing later (I9)
 *	k is not below what a flush, FUA, or the prefix rule of oracle.h guarantees (I2)
 *	each sector, as a whole, is as it was after k or k+1 operations: sectors are not torn
 *
 * Where there was a time without a log (rules 7 and 8 of oracle.h) each sector has a k of its own.
 *
 * Other clients write to the sectors beside the region, often inside one block with it.
 */
#ifndef LOGCACHE_SIM_ORACLE_BYTES_H
#define LOGCACHE_SIM_ORACLE_BYTES_H

#include "logcache/types.h"

#define BYTES_REGION_MAX (8u * LC_BLOCK)

/* The region of VOLUME is LEN bytes at OFFSET (a multiple of LC_SECTOR), now as in INITIAL. */
void bytes_begin(unsigned volume, u64 offset_bytes, u32 len_bytes, const u8 *initial);
u64 bytes_offset(unsigned volume);
u32 bytes_len(unsigned volume);

/* After damage: what is found is believed. */
void bytes_allow_loss(void);
/* Has this life's content been judged? Before that nobody may write. */
bool bytes_settled(unsigned volume);
/* May the owner write? Not if too many operations wait for a flush, or one failed. */
bool bytes_may_write(unsigned volume);
/* A write of LEN bytes at AT (from the beginning of the region): fills BUF. */
void bytes_write_submit(unsigned volume, u32 at, u32 len, bool fua, u8 *buf);
/* LEN bytes at AT will be zeros. */
void bytes_zero_submit(unsigned volume, u32 at, u32 len, bool fua);
void bytes_write_done(unsigned volume, int error);
/* What the owner read. */
void bytes_check(unsigned volume, u32 at, u32 len, const u8 *buf, const char *what);
/* While nothing is in progress: is it what a read would return? */
bool bytes_current(unsigned volume, const u8 *content);
/* Everything acknowledged before TICK on a volume (ORACLE_ALL_VOLUMES) is durable. */
void bytes_durable(unsigned volume, u32 tick);

/* A life ended; the next one has to judge. */
void bytes_life_ended(void);
/* The first content that is read in a life: the whole region. */
void bytes_judge(unsigned volume, const u8 *content);
/* Could this, between lives, be what survived? */
bool bytes_suffice(unsigned volume, const u8 *content);
/* Somebody else has changed the region, for which the cache holds nothing, to this. */
void bytes_foreign(unsigned volume, const u8 *content);

#endif
