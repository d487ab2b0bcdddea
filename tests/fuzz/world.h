/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * world.h - the engine's surroundings while it is fuzzed: stores in memory, memory that is counted.
 *
 * Threads, time and locks are those of tests/sim (rt_sim.h): fibers in one thread, so that an
 * input that failed fails again, and a deadlock or an endless loop is a failure at once and not a
 * timeout. The disks are simpler than the simulator's: an I/O is complete when it is started.
 *
 * Before each input a store is as it was: a copy of its template. Only what was touched is copied
 * back.
 */
#ifndef LOGCACHE_FUZZ_WORLD_H
#define LOGCACHE_FUZZ_WORLD_H

#include "logcache/rt.h"
#include "logcache/store.h"
#include "rt_sim.h"

#define STORE_BLOCKS_MAX 448u

struct fuzz_store {
	struct lc_store store;
	u8 *data;	    /* STORE_BLOCKS_MAX blocks */
	const u8 *template; /* what `data` is, but for the blocks touched */
	bool touched[STORE_BLOCKS_MAX];
	u8 *original; /* blocks as they were before the first write; where `saved` */
	bool saved[STORE_BLOCKS_MAX];
	bool unreadable[STORE_BLOCKS_MAX]; /* until it is written */
	u32 nr_writes;
	u64 first_write_bytes; /* offset of the first one */
	int zero_error;	       /* of every zero(); then it changes nothing */
	/* Judges a write, or (BUF NULL) zeroing, before it is done; NULL: nobody does. */
	void (*judge)(struct fuzz_store *s, const u8 *buf, u32 len_bytes, u64 offset_bytes);
	u8 volume; /* the judge's: whose backing store it is */
};

/* Once per process. */
void world_store_create(struct fuzz_store *s, const char *name);
/*
 * Become a store of SIZE bytes with the content of TEMPLATE (STORE_BLOCKS_MAX blocks; kept by
 * reference).
 */
void world_store_reset(struct fuzz_store *s, const u8 *template, u64 size_bytes, u32 block_bytes);
/* From now on `original` is the content of now, and writes are counted. */
void world_store_mark(struct fuzz_store *s);

static inline u8 *world_block(struct fuzz_store *s, u32 block)
{
	s->touched[block] = true;
	return s->data + (size_t)block * LC_BLOCK;
}

/* A block as it was when world_store_mark was called. */
const u8 *world_original(const struct fuzz_store *s, u32 block);

/* Memory for lives; once per process, before the first one. */
void world_begin(void);
/* lc_alloc gives so much at one time, and one byte more is a failure. */
void world_limit_memory(u64 bytes);
/* The end of a life, in which nothing is left over unless it was ABANDONED. */
void world_life_end(bool abandoned);

/* What must hold does not: says so and aborts, which the fuzzer takes note of. */
#define fuzz_check(condition, ...)             \
	do {                                   \
		if (!(condition))              \
			sim_fail(__VA_ARGS__); \
	} while (0)

#endif
