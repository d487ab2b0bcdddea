/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mem_store.h - what the engine's unit tests share: a store in memory that counts, remembers and
 * fails.
 *
 * A mem_store implements all of store.h: synchronous calls from any thread, and queues, whose I/O
 * is done in the owner's thread when it is started. The memory is sparse, so a store of many GiB costs
 * what is touched. Blocks can be given back (zero with punch), and are then holes until they are written.
 * It never loses anything by itself: tests of crashes cut it off at a chosen write
 * (`dies_at_write`, of which the sectors in `torn_mask` still arrive), or build the image by hand.
 *
 * Each program includes it once; everything is static.
 */
#ifndef LOGCACHE_TEST_MEM_STORE_H
#define LOGCACHE_TEST_MEM_STORE_H

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "format.h"
#include "logcache/rt.h"
#include "logcache/store.h"
#include "rt_posix.h"

#define UNUSED __attribute__((unused))
#define MEM_TRACE_MAX 512u
#define MEM_BAD_MAX 8u
/* How much a store can grow. */
#define MEM_SLACK_BYTES (1u << 20)

/* What the trace calls a zero() without and with punch: not an operation of a queue. */
#define MEM_IO_ZERO ((enum lc_io_op)100)
#define MEM_IO_PUNCH ((enum lc_io_op)101)

struct mem_trace {
	enum lc_io_op op; /* writes, flushes and zeroes alone are remembered */
	u64 offset_bytes;
	u64 len_bytes;
};

struct mem_store {
	struct lc_store store;
	struct lc_mutex lock; /* guards the rest */
	u8 *data;
	size_t map_bytes;
	u8 *taken; /* a bit for each block: written or zeroed, and not punched since */
	size_t taken_bytes;

	u64 reads, writes, flushes, zeroes, punches, extents;
	u64 flushes_begun;
	struct mem_trace trace[MEM_TRACE_MAX]; /* since mem_forget */
	unsigned nr_trace;

	u64 bad_blocks[MEM_BAD_MAX]; /* cannot be read */
	unsigned nr_bad_blocks;
	int read_error, write_error, flush_error; /* every one fails while it is not 0, */
	int zero_error, extent_error;		  /* and changes nothing */
	u32 flush_ms;				  /* how long a flush takes */
	u64 dies_at_write;			  /* as counted by `writes`; 0: never */
	u64 dies_at_flush;
	u64 dies_at_zero; /* as counted by `zeroes` and `punches` together; the first half arrives */
	u8 torn_mask; /* of each block of the fatal write: the sectors that arrive all the same */
	bool dead;    /* everything fails until mem_revive */
};

struct mem_queue {
	struct lc_queue queue;
	struct mem_store *m;
	struct lc_mutex lock;
	struct lc_cond woken;
	struct lc_io *staged, **staged_end;
	struct lc_io *done;
	bool kicked;
};

/*
 * Some programs open thousands of caches. What one lets go of is for the next one: or half of the time would be spent on giving
 * memory back to the system, and getting it again page by page.
 */
static __attribute__((constructor)) void mem_keep(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, 4 << 20);  /* a sanitizer's malloc has no such thing: */
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 20); /* it is a wish */
}

static inline struct mem_store *mem_of(struct lc_store *s)
{
	return (struct mem_store *)s;
}

/* --- synchronous --- */

static bool mem_is_bad(const struct mem_store *m, u64 offset_bytes, u32 len_bytes)
{
	for (unsigned i = 0; i < m->nr_bad_blocks; i++)
		if (m->bad_blocks[i] * LC_BLOCK < offset_bytes + len_bytes &&
		    offset_bytes < (m->bad_blocks[i] + 1) * LC_BLOCK)
			return true;
	return false;
}

static void mem_remember(struct mem_store *m, enum lc_io_op op, u64 offset_bytes, u64 len_bytes)
{
	if (m->nr_trace < MEM_TRACE_MAX)
		m->trace[m->nr_trace++] = (struct mem_trace){op, offset_bytes, len_bytes};
}

/* Does this block take space? Also if a test put something there by hand. */
static bool mem_is_taken(const struct mem_store *m, u64 block)
{
	const u8 *p = m->data + block * LC_BLOCK;

	return (m->taken[block / 8] & 1u << block % 8) || p[0] || memcmp(p, p + 1, LC_BLOCK - 1);
}

static void mem_take(struct mem_store *m, u64 offset_bytes, u64 len_bytes, bool take)
{
	u64 end = (offset_bytes + len_bytes + LC_BLOCK - 1) / LC_BLOCK;

	for (u64 block = offset_bytes / LC_BLOCK; block < end; block++) {
		if (take)
			m->taken[block / 8] |= (u8)(1u << block % 8);
		else
			m->taken[block / 8] &= (u8) ~(1u << block % 8);
	}
}

static int mem_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct mem_store *m = mem_of(s);
	u64 left = offset_bytes < s->size_bytes ? s->size_bytes - offset_bytes : 0;
	u32 inside = left < len_bytes ? left : len_bytes;
	int err;

	lc_mutex_lock(&m->lock);
	m->reads++;
	err = m->dead || mem_is_bad(m, offset_bytes, len_bytes) ? -EIO : m->read_error;
	if (!err) {
		memcpy(buf, m->data + offset_bytes, inside);
		memset((u8 *)buf + inside, 0, len_bytes - inside);
	}
	lc_mutex_unlock(&m->lock);
	return err;
}

static int mem_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct mem_store *m = mem_of(s);
	u8 mask = LC_MASK_FULL;
	int err;

	lc_mutex_lock(&m->lock);
	err = m->dead ? -EIO : m->write_error;
	if (!err) {
		m->writes++;
		mem_remember(m, LC_IO_WRITE, offset_bytes, len_bytes);
		if (m->dies_at_write && m->writes == m->dies_at_write) {
			m->dead = true;
			mask = m->torn_mask;
			err = -EIO;
		}
		for (u32 at = 0; at < len_bytes; at += LC_SECTOR) {
			u64 to = offset_bytes + at,
			    left = to < s->size_bytes ? s->size_bytes - to : 0;

			if (mask & 1u << to % LC_BLOCK / LC_SECTOR)
				memcpy(m->data + to, (const u8 *)buf + at,
				       left < LC_SECTOR ? left : LC_SECTOR);
		}
		mem_take(m, offset_bytes, len_bytes, true);
	}
	lc_mutex_unlock(&m->lock);
	return err;
}

static int mem_flush(struct lc_store *s)
{
	struct mem_store *m = mem_of(s);
	int err;

	lc_mutex_lock(&m->lock);
	m->flushes_begun++;
	lc_mutex_unlock(&m->lock);
	if (m->flush_ms)
		nanosleep(&(struct timespec){.tv_nsec = m->flush_ms * (long)LC_NS_PER_MS}, NULL);
	lc_mutex_lock(&m->lock);
	err = m->dead ? -EIO : m->flush_error;
	if (!err) {
		m->flushes++;
		mem_remember(m, LC_IO_FLUSH, 0, 0);
		if (m->dies_at_flush && m->flushes == m->dies_at_flush) {
			m->dead = true;
			err = -EIO;
		}
	}
	lc_mutex_unlock(&m->lock);
	return err;
}

static int mem_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	struct mem_store *m = mem_of(s);
	int err;

	lc_mutex_lock(&m->lock);
	err = m->dead ? -EIO : m->zero_error;
	if (!err) {
		if (punch)
			m->punches++;
		else
			m->zeroes++;
		mem_remember(m, punch ? MEM_IO_PUNCH : MEM_IO_ZERO, offset_bytes, len_bytes);
		if (m->dies_at_zero && m->zeroes + m->punches == m->dies_at_zero) {
			m->dead = true;
			len_bytes = len_bytes / 2 / LC_SECTOR * LC_SECTOR;
			punch = false; /* the block in the middle may be half zeroed */
			err = -EIO;
		}
		memset(m->data + offset_bytes, 0, len_bytes);
		mem_take(m, offset_bytes, len_bytes, !punch);
	}
	lc_mutex_unlock(&m->lock);
	return err;
}

static int mem_extent(struct lc_store *s, u64 len_bytes, u64 offset_bytes, struct lc_extent *out)
{
	struct mem_store *m = mem_of(s);
	u64 end = offset_bytes + len_bytes, at;
	int err;

	lc_mutex_lock(&m->lock);
	m->extents++;
	err = m->dead ? -EIO : m->extent_error;
	if (!err) {
		out->hole = !mem_is_taken(m, offset_bytes / LC_BLOCK);
		for (at = offset_bytes / LC_BLOCK + 1;
		     at * LC_BLOCK < end && mem_is_taken(m, at) != out->hole; at++)
			;
		out->len_bytes = (at * LC_BLOCK < end ? at * LC_BLOCK : end) - offset_bytes;
	}
	lc_mutex_unlock(&m->lock);
	return err;
}

/* --- queue --- */

static void mem_queue_submit(struct lc_queue *queue, struct lc_io *io)
{
	struct mem_queue *q = (struct mem_queue *)queue;

	if (io->op != LC_IO_FLUSH)
		lc_store_check(&q->m->store, io->buf, io->len_bytes, io->offset_bytes);
	io->next = NULL;
	*q->staged_end = io;
	q->staged_end = &io->next;
}

static void mem_queue_start(struct lc_queue *queue)
{
	struct mem_queue *q = (struct mem_queue *)queue;
	struct lc_store *s = &q->m->store;
	struct lc_io *io = q->staged;

	q->staged = NULL;
	q->staged_end = &q->staged;
	while (io) {
		struct lc_io *next = io->next;

		if (io->op == LC_IO_READ)
			io->result = mem_read(s, io->buf, io->len_bytes, io->offset_bytes);
		else if (io->op == LC_IO_WRITE)
			io->result = mem_write(s, io->buf, io->len_bytes, io->offset_bytes);
		else
			io->result = mem_flush(s);
		io->next = q->done; /* the last first: nobody may count on an order */
		q->done = io;
		io = next;
	}
}

static struct lc_io *mem_queue_wait(struct lc_queue *queue, u64 deadline_ns)
{
	struct mem_queue *q = (struct mem_queue *)queue;
	struct lc_io *done;

	mem_queue_start(queue);
	lc_mutex_lock(&q->lock);
	while (!q->done && !q->kicked && deadline_ns)
		if (lc_cond_wait(&q->woken, &q->lock, deadline_ns))
			break;
	q->kicked = false;
	lc_mutex_unlock(&q->lock);
	done = q->done;
	q->done = NULL;
	return done;
}

static void mem_queue_kick(struct lc_queue *queue)
{
	struct mem_queue *q = (struct mem_queue *)queue;

	lc_mutex_lock(&q->lock);
	q->kicked = true;
	lc_cond_signal(&q->woken);
	lc_mutex_unlock(&q->lock);
}

static void mem_queue_close(struct lc_queue *queue)
{
	struct mem_queue *q = (struct mem_queue *)queue;

	assert(!q->staged && !q->done);
	lc_mutex_destroy(&q->lock);
	lc_cond_destroy(&q->woken);
	free(q);
}

static int mem_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			  unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	static const struct lc_queue_ops ops = {
		.submit = mem_queue_submit,
		.start = mem_queue_start,
		.wait = mem_queue_wait,
		.kick = mem_queue_kick,
		.close = mem_queue_close,
	};
	struct mem_queue *q = calloc(1, sizeof *q);

	(void)depth; /* all I/O is done at once, */
	(void)areas; /* and needs no registered memory */
	(void)nr_areas;
	(void)err;
	assert_non_null(q);
	q->queue.ops = &ops;
	q->m = mem_of(s);
	q->staged_end = &q->staged;
	lc_mutex_init(&q->lock);
	lc_cond_init(&q->woken);
	*out = &q->queue;
	return 0;
}

/* --- life --- */

static void mem_close(struct lc_store *s)
{
	struct mem_store *m = mem_of(s);

	munmap(m->data, m->map_bytes);
	munmap(m->taken, m->taken_bytes);
	lc_mutex_destroy(&m->lock);
}

static UNUSED u8 *mem_map(size_t n)
{
	u8 *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		     -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/*
 * A store of zeros, all of it a hole, that can zero and punch. Take that away with zero_error =
 * -EOPNOTSUPP, or by setting can_zero and can_punch of the store.
 */
static UNUSED void mem_open(struct mem_store *m, const char *name, u64 size_bytes)
{
	static const struct lc_store_ops ops = {
		.read = mem_read,
		.write = mem_write,
		.flush = mem_flush,
		.zero = mem_zero,
		.extent = mem_extent,
		.queue_open = mem_queue_open,
		.close = mem_close,
	};

	*m = (struct mem_store){
		.store =
			{
				.ops = &ops,
				.name = name,
				.size_bytes = size_bytes,
				.block_bytes = LC_SECTOR,
				.can_zero = true,
				.can_punch = true,
			},
		.map_bytes = size_bytes + MEM_SLACK_BYTES,
		.taken_bytes = (size_bytes + MEM_SLACK_BYTES) / LC_BLOCK / 8 + 1,
	};
	lc_mutex_init(&m->lock);
	m->data = mem_map(m->map_bytes);
	m->taken = mem_map(m->taken_bytes);
}

/* Count and trace from here on. */
static UNUSED void mem_forget(struct mem_store *m)
{
	m->reads = m->writes = m->flushes = m->zeroes = m->punches = m->extents = 0;
	m->nr_trace = 0;
}

/* Whatever was injected is over; the content stays. */
static UNUSED void mem_revive(struct mem_store *m)
{
	m->dead = false;
	m->dies_at_write = m->dies_at_flush = m->dies_at_zero = 0;
	m->read_error = m->write_error = m->flush_error = m->zero_error = m->extent_error = 0;
	m->nr_bad_blocks = 0;
}

static UNUSED u8 *mem_block(struct mem_store *m, u64 block)
{
	return m->data + block * LC_BLOCK;
}

static UNUSED void mem_break_reads(struct mem_store *m, u64 block)
{
	assert_true(m->nr_bad_blocks < MEM_BAD_MAX);
	m->bad_blocks[m->nr_bad_blocks++] = block;
}

/* --- raw bytes --- */

static UNUSED u32 raw_get32(const void *block, size_t at)
{
	u32 v;

	memcpy(&v, (const u8 *)block + at, sizeof v);
	return v;
}

/* BYTES low bytes of V at offset AT of a block. */
static UNUSED void raw_put(void *block, size_t at, size_t bytes, u64 v)
{
	for (size_t i = 0; i < bytes; i++)
		((u8 *)block)[at + i] = v >> 8 * i;
}

/* Give a block that was tampered with a good crc again: it is at byte 8, and counts as zero. */
static UNUSED void raw_reseal(void *block)
{
	raw_put(block, 8, 4, 0);
	raw_put(block, 8, 4, lc_crc32c(block, LC_BLOCK));
}

/* --- random, the same in every run --- */

static UNUSED u64 rnd(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static UNUSED u64 rnd_below(u64 *state, u64 n)
{
	return rnd(state) % n;
}

static UNUSED void rnd_fill(u64 *state, void *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((u8 *)buf)[i] = rnd(state);
}

/* --- the engine's messages --- */

static char mem_log_text[4096];

static void mem_log_capture(enum lc_log_level level, const char *line)
{
	(void)level; /* tests look at words */
	snprintf(mem_log_text, sizeof mem_log_text, "%s", line);
}

/* Group setup: keep what the engine logs (the last line) instead of printing it. */
static UNUSED int mem_quiet(void **state)
{
	(void)state;
	lc_log_hook(mem_log_capture);
	return 0;
}

static UNUSED void assert_says(const struct lc_error *err, const char *words)
{
	if (!strstr(err->text, words))
		fail_msg("the message does not say \"%s\": %s", words, err->text);
}

#endif
