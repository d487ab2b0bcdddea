/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tiny.h - a tiny cache with one client that does one thing at a time, and an exact model of it.
 *
 * This is what exhaustive.c enumerates: workloads are strings of letters, the schedule is fixed, and since nothing is
 * concurrent the model is exact. Write k of the workload is version base + k; after a crash there must be a
 * k such that writes 1 .. k are there completely, write k+1 in any subset of its sectors, and
 * nothing later (I9), where k is not below what a flush, FUA, drain or close guarantees (I2). What recovery
 * has shown once stays for ever. Zeros are version 0, whoever wrote them: they match where the latest
 * change of a sector is a zero, or there is none.
 *
 * Three blocks of the volume count. The third is written by the past of some shapes and never again, so that its clean
 * copy grows old in the log. The other blocks are only there to be zeroed: it takes many for an entry in the log.
 */
#ifndef LOGCACHE_SIM_TINY_H
#define LOGCACHE_SIM_TINY_H

#include "logcache/logcache.h"
#include "store_sim.h"

#define TINY_BLOCKS 3u
#define TINY_VOLUME_BLOCKS 18u
#define TINY_SECTORS (TINY_BLOCKS * LC_SECTORS_PER_BLOCK)
#define TINY_OPS_MAX 8u
#define TINY_WRITES_MAX 64u

/* What a cache looks like, and what happened to it before the workload. */
struct tiny_shape {
	const char *name;
	u32 segment_bytes, nr_segments, nr_buffers, dirty_low_percent;
	const char *past; /* letters; "": just formatted */
	bool zero_fails;  /* the backing store says that it can punch, and cannot */
};

extern const struct tiny_shape tiny_shapes[];
extern const u32 tiny_nr_shapes;

/*
 * Letters: 0 1 2 write block 0, block 1, block 2; b write blocks 0 and 1; s write one sector of block 0, another
 * one each time; z zero all but the last block of the volume. With FUA: ) ! B S Z (capitals, as on a keyboard).
 * t trim blocks 0 and 1; f flush; r read all; d drain; c close and open again.
 */
const char *tiny_letter_text(char letter);

struct tiny_write {
	u32 first, nr; /* sectors */
	bool zero;
};

struct tiny {
	const struct tiny_shape *shape;
	struct store_sim ssd, backing;
	struct lc_cache *cache;

	/* the model */
	u32 before[TINY_SECTORS]; /* versions that the past has left */
	u32 nr_past;		  /* writes of the past */
	struct tiny_write writes[TINY_WRITES_MAX];
	u32 nr_submitted, nr_durable; /* writes of the workload */
	u32 settled[TINY_SECTORS];    /* what recovery showed */
	bool is_settled;

	/* the life at hand */
	const char *ops;
	u32 done; /* letters that were acknowledged */
	bool working;
	u8 *buf;
};

void tiny_create(struct tiny *t);
/* Format, and live through the past. Everything is certain then. */
void tiny_begin(struct tiny *t, const struct tiny_shape *shape);
/* Forget the workload: the model is as tiny_begin left it. */
void tiny_reset(struct tiny *t);
/* The life of a workload: a fiber's main function, with the struct tiny as argument. */
void tiny_work(void *tiny);
/* Recover, judge what is there, drain, compare the backing store, close. */
void tiny_recover(void *tiny);

#endif
