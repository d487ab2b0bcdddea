/* SPDX-License-Identifier: BSD-3-Clause */
/* world.c - see world.h. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <sanitizer/asan_interface.h>

#define QUEUES_MAX 64u
#define ARENA_BYTES (64u << 20)
#define ALLOCATIONS_MAX 1024u
#define REDZONE_BYTES 64u

struct fuzz_queue {
	struct lc_queue queue;
	struct fuzz_store *s;
	struct fiber *owner;
	struct lc_io *staged, **staged_end;
	struct lc_io *done;
	bool open, kicked, sleeping;
};

/* Of the present life: one that is abandoned does not close them. */
static struct fuzz_queue queues[QUEUES_MAX];

static struct {
	u8 *arena;
	size_t at; /* everything behind it is unused in this life */
	u64 used_bytes, limit_bytes;
	struct {
		void *p;
		size_t n;
	} pieces[ALLOCATIONS_MAX]; /* in use, in no order */
	u32 nr;
} memory = {.limit_bytes = UINT64_MAX};

static struct fuzz_store *store_of(struct lc_store *s)
{
	return (struct fuzz_store *)((char *)s - offsetof(struct fuzz_store, store));
}

/* --- I/O: done at once --- */

static void check(const struct fuzz_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	u64 end = (s->store.size_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;

	fuzz_check(len_bytes > 0 && offset_bytes < end && len_bytes <= end - offset_bytes,
		   "%s: I/O of %u bytes at %llu, beyond the end at %llu", s->store.name, len_bytes,
		   (unsigned long long)offset_bytes, (unsigned long long)s->store.size_bytes);
	fuzz_check((uintptr_t)buf % LC_BLOCK == 0 && len_bytes % s->store.block_bytes == 0 &&
			   offset_bytes % s->store.block_bytes == 0,
		   "%s: I/O of %u bytes at %llu is not aligned", s->store.name, len_bytes,
		   (unsigned long long)offset_bytes);
}

static int do_read(struct fuzz_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	u64 end = s->store.size_bytes, left;

	check(s, buf, len_bytes, offset_bytes);
	for (u64 b = offset_bytes / LC_BLOCK; b <= (offset_bytes + len_bytes - 1) / LC_BLOCK; b++)
		if (s->unreadable[b])
			return -EIO;
	left = offset_bytes < end ? end - offset_bytes : 0;
	if (left > len_bytes)
		left = len_bytes;
	memcpy(buf, s->data + offset_bytes, left);
	memset((u8 *)buf + left, 0, len_bytes - left);
	return 0;
}

/* The blocks of a range are about to change. */
static void before_change(struct fuzz_store *s, u32 len_bytes, u64 offset_bytes)
{
	if (!s->nr_writes++)
		s->first_write_bytes = offset_bytes;
	for (u64 b = offset_bytes / LC_BLOCK; b <= (offset_bytes + len_bytes - 1) / LC_BLOCK; b++) {
		s->unreadable[b] = false;
		s->touched[b] = true;
		if (s->saved[b])
			continue;
		s->saved[b] = true;
		memcpy(s->original + b * LC_BLOCK, s->data + b * LC_BLOCK, LC_BLOCK);
	}
}

static int do_write(struct fuzz_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	u64 end = s->store.size_bytes, left;

	check(s, buf, len_bytes, offset_bytes);
	if (s->judge)
		s->judge(s, buf, len_bytes, offset_bytes);
	before_change(s, len_bytes, offset_bytes);
	left = offset_bytes < end ? end - offset_bytes : 0;
	memcpy(s->data + offset_bytes, buf, left < len_bytes ? left : len_bytes);
	return 0;
}

static int sync_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	sim_assert_unlocked("lc_store_read");
	sim_point();
	return do_read(store_of(s), buf, len_bytes, offset_bytes);
}

static int sync_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	sim_assert_unlocked("lc_store_write");
	sim_point();
	return do_write(store_of(s), buf, len_bytes, offset_bytes);
}

static int sync_zero(struct lc_store *ls, u64 len_bytes, u64 offset_bytes, bool punch)
{
	struct fuzz_store *s = store_of(ls);
	u64 end = s->store.size_bytes;

	sim_assert_unlocked("lc_store_zero");
	sim_point();
	fuzz_check(len_bytes > 0 && offset_bytes < end && len_bytes <= end - offset_bytes &&
			   offset_bytes % LC_BLOCK == 0 &&
			   (len_bytes % LC_BLOCK == 0 || offset_bytes + len_bytes == end),
		   "%s: zero of %llu bytes at %llu, the end is at %llu", ls->name,
		   (unsigned long long)len_bytes, (unsigned long long)offset_bytes,
		   (unsigned long long)end);
	fuzz_check(!punch || ls->can_punch, "%s: it cannot give space back", ls->name);
	if (s->zero_error)
		return s->zero_error;
	if (s->judge)
		s->judge(s, NULL, len_bytes, offset_bytes);
	before_change(s, len_bytes, offset_bytes);
	memset(s->data + offset_bytes, 0, len_bytes);
	return 0;
}

static int sync_flush(struct lc_store *s)
{
	(void)s; /* it has nothing that is not durable */
	sim_assert_unlocked("lc_store_flush");
	sim_point();
	return 0;
}

static void store_close(struct lc_store *s)
{
	sim_fail("%s: the engine closed a store that is not its own", s->name);
}

/* --- queues --- */

static void queue_submit(struct lc_queue *lq, struct lc_io *io)
{
	struct fuzz_queue *q = (struct fuzz_queue *)lq;

	fuzz_check(sim_self() == q->owner, "a queue is used by who did not open it");
	io->next = NULL;
	*q->staged_end = io;
	q->staged_end = &io->next;
}

static void queue_start(struct lc_queue *lq)
{
	struct fuzz_queue *q = (struct fuzz_queue *)lq;
	struct lc_io *io = q->staged;

	q->staged = NULL;
	q->staged_end = &q->staged;
	while (io) {
		struct lc_io *next = io->next;

		io->result = io->op == LC_IO_READ ?
				     do_read(q->s, io->buf, io->len_bytes, io->offset_bytes) :
			     io->op == LC_IO_WRITE ?
				     do_write(q->s, io->buf, io->len_bytes, io->offset_bytes) :
				     0;
		io->next = q->done; /* the last first: nobody may count on an order */
		q->done = io;
		io = next;
	}
}

static struct lc_io *queue_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct fuzz_queue *q = (struct fuzz_queue *)lq;
	struct lc_io *done;

	sim_assert_unlocked("lc_queue_wait");
	sim_point();
	queue_start(lq);
	while (!q->done && !q->kicked && deadline_ns > sim_now()) {
		q->sleeping = true;
		sim_block("I/O of a queue", q, deadline_ns);
		q->sleeping = false;
	}
	q->kicked = false;
	done = q->done;
	q->done = NULL;
	return done;
}

static void queue_kick(struct lc_queue *lq)
{
	struct fuzz_queue *q = (struct fuzz_queue *)lq;

	q->kicked = true;
	if (q->sleeping)
		sim_wake(q->owner);
	sim_point();
}

static void queue_close(struct lc_queue *lq)
{
	struct fuzz_queue *q = (struct fuzz_queue *)lq;

	fuzz_check(q->open && !q->staged && !q->done, "a queue is closed with I/O in it");
	q->open = false;
}

static int queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
		      unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	static const struct lc_queue_ops ops = {
		.submit = queue_submit,
		.start = queue_start,
		.wait = queue_wait,
		.kick = queue_kick,
		.close = queue_close,
	};
	unsigned i = 0;

	(void)areas; /* nothing is registered */
	(void)nr_areas;
	(void)err;
	while (i < QUEUES_MAX && queues[i].open)
		i++;
	fuzz_check(depth > 0 && i < QUEUES_MAX, "%s: a queue of depth %u, the %uth", s->name, depth,
		   i);
	queues[i] = (struct fuzz_queue){
		.queue = {&ops},
		.s = store_of(s),
		.owner = sim_self(),
		.staged_end = &queues[i].staged,
		.open = true,
	};
	*out = &queues[i].queue;
	return 0;
}

/* --- stores --- */

void world_store_create(struct fuzz_store *s, const char *name)
{
	static const struct lc_store_ops ops = {
		.read = sync_read,
		.write = sync_write,
		.flush = sync_flush,
		.zero = sync_zero,
		.queue_open = queue_open,
		.close = store_close,
	};
	size_t bytes = (size_t)STORE_BLOCKS_MAX * LC_BLOCK;

	*s = (struct fuzz_store){.store = {.ops = &ops, .name = name}};
	s->data = calloc(1, bytes);
	s->original = calloc(1, bytes);
	if (!s->data || !s->original)
		abort();
}

void world_store_reset(struct fuzz_store *s, const u8 *template, u64 size_bytes, u32 block_bytes)
{
	for (u32 i = 0; i < STORE_BLOCKS_MAX; i++)
		if (s->touched[i] || s->template != template)
			memcpy(s->data + (size_t)i * LC_BLOCK, template + (size_t)i * LC_BLOCK,
			       LC_BLOCK);
	s->template = template;
	memset(s->touched, 0, sizeof s->touched);
	memset(s->unreadable, 0, sizeof s->unreadable);
	s->store.size_bytes = size_bytes;
	s->store.block_bytes = block_bytes;
	s->store.can_zero = s->store.can_punch = true;
	s->zero_error = 0;
	s->judge = NULL;
	world_store_mark(s);
}

void world_store_mark(struct fuzz_store *s)
{
	memset(s->saved, 0, sizeof s->saved);
	s->nr_writes = 0;
}

const u8 *world_original(const struct fuzz_store *s, u32 block)
{
	return (s->saved[block] ? s->original : s->data) + (size_t)block * LC_BLOCK;
}

/*
 * --- memory: the linker puts this in the place of what tests/sim/rt_api.c has (--wrap) ---
 *
 * Most of the time of an input went into pages for large buffers, taken and given back. So there
 * is one arena, used from its beginning again in each life, and never twice in one life: whatever
 * is free is poisoned.
 */

void *__wrap_lc_alloc(size_t n);
void __wrap_lc_free(void *p, size_t n);

void *__wrap_lc_alloc(size_t n)
{
	size_t align = n >= LC_BLOCK ? LC_BLOCK : 16;
	u8 *p;

	sim_assert_unlocked("lc_alloc");
	fuzz_check(n <= memory.limit_bytes && memory.used_bytes <= memory.limit_bytes - n,
		   "lc_alloc of %zu bytes: %llu are in use, this device explains no more than %llu",
		   n, (unsigned long long)memory.used_bytes, (unsigned long long)memory.limit_bytes);
	memory.at = (memory.at + REDZONE_BYTES + align - 1) / align * align;
	fuzz_check(memory.at + n <= ARENA_BYTES && memory.nr < ALLOCATIONS_MAX,
		   "more than %u MiB or %u pieces were allocated in one life", ARENA_BYTES >> 20,
		   ALLOCATIONS_MAX);
	p = memory.arena + memory.at;
	memory.at += n;
	memory.pieces[memory.nr].p = p;
	memory.pieces[memory.nr++].n = n;
	memory.used_bytes += n;
	ASAN_UNPOISON_MEMORY_REGION(p, n);
	return memset(p, 0, n);
}

void __wrap_lc_free(void *p, size_t n)
{
	u32 i = memory.nr;

	if (!p)
		return;
	while (i > 0 && memory.pieces[i - 1].p != p)
		i--;
	fuzz_check(i > 0, "lc_free of what is not allocated");
	fuzz_check(memory.pieces[i - 1].n == n,
		   "lc_free with %zu bytes of what was allocated with %zu", n,
		   memory.pieces[i - 1].n);
	memory.pieces[i - 1] = memory.pieces[--memory.nr];
	memory.used_bytes -= n;
	ASAN_POISON_MEMORY_REGION(p, n);
}

void world_limit_memory(u64 bytes)
{
	memory.limit_bytes = bytes;
}

void world_begin(void)
{
	memory.arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory.arena == MAP_FAILED)
		abort();
	ASAN_POISON_MEMORY_REGION(memory.arena, ARENA_BYTES);
}

void world_life_end(bool abandoned)
{
	struct sim_leftover left = sim_life_end();

	fuzz_check(abandoned || (!left.fibers && !memory.nr),
		   "%u fibers and %u allocations (%llu bytes) are left over", left.fibers,
		   memory.nr, (unsigned long long)memory.used_bytes);
	for (u32 i = 0; i < memory.nr; i++)
		ASAN_POISON_MEMORY_REGION(memory.pieces[i].p, memory.pieces[i].n);
	memory.nr = 0;
	memory.at = 0;
	memory.used_bytes = 0;
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		fuzz_check(abandoned || !queues[i].open, "a queue was not closed");
		queues[i].open = false;
	}
}

void sim_report_and_exit(void)
{
	abort();
}
