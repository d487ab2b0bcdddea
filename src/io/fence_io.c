/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fence_io.c - the store's side of a fence: calls, which wait for what they began, and queues, which have one request for
 * each I/O that is on its way, and a list of those that are done.
 *
 * Locks: the fence's mutex guards the completions of queues, and `done` of calls. What a queue has staged is its
 * owner's alone.
 */
#include <string.h>

#include "fence.h"
#include "fence_priv.h"

struct io_list {
	struct lc_io *head, *tail;
};

struct fence_queue {
	struct lc_queue queue; /* the first member */
	struct lc_fence *f;
	u32 depth;
	struct lc_link_io *requests; /* depth of them */
	struct io_list staged;	     /* the owner's: waits for a free one */
	struct lc_link_io *spare;    /* the owner's: free ones that it took */
	u32 nr_active;		     /* the owner's: submitted and not reaped */

	/* [lock] */
	struct lc_link_io *free;
	struct io_list done;
	struct lc_cond wake;
	bool sleeping, kicked;
};

static void push(struct io_list *l, struct lc_io *io)
{
	io->next = NULL;
	if (l->head)
		l->tail->next = io;
	else
		l->head = io;
	l->tail = io;
}

void lc_fence_deliver(struct lc_link_io *io, int result)
{
	struct fence_queue *q = io->queue;

	if (!q) {
		io->result = result;
		io->done = true;
		lc_cond_signal(io->wake);
		return;
	}
	io->io->result = result;
	push(&q->done, io->io);
	io->next = q->free;
	q->free = io;
	if (q->sleeping) {
		q->sleeping = false;
		lc_cond_signal(&q->wake);
	}
}

/* How much of an I/O the store has: the rest of its last block reads as zeros, and is dropped when written. */
static u64 inside(const struct lc_fence *f, u64 len_bytes, u64 offset_bytes)
{
	u64 room = f->store.size_bytes - offset_bytes;

	return len_bytes < room ? len_bytes : room;
}

static void begin(struct lc_fence *f, struct lc_link_io *io, u64 len_bytes)
{
	u64 n = io->op == LC_LINK_FLUSH ? 0 : inside(f, len_bytes, io->offset_bytes);

	if (io->op == LC_LINK_READ)
		memset((u8 *)io->buf + n, 0, len_bytes - n);
	lc_fence_begin(f, io, n);
}

/* --- calls --- */

static int call(struct lc_fence *f, struct lc_link_io *io, u64 len_bytes)
{
	struct lc_cond wake;

	lc_cond_init(&wake);
	io->wake = &wake; /* cppcheck-suppress autoVariables; nobody looks at it when it is done */
	begin(f, io, len_bytes);
	lc_mutex_lock(&f->lock);
	while (!io->done)
		lc_cond_wait(&wake, &f->lock, LC_FOREVER);
	lc_mutex_unlock(&f->lock);
	lc_cond_destroy(&wake);
	return io->result;
}

static int fence_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_link_io io = {.op = LC_LINK_READ, .buf = buf, .offset_bytes = offset_bytes};

	return call(lc_fence_of(s), &io, len_bytes);
}

/* How many requests of a call of read_many are on their way at a time. */
#define MANY 32u

static void fence_read_many(struct lc_store *s, struct lc_io *ios, u32 nr)
{
	struct lc_fence *f = lc_fence_of(s);
	struct lc_link_io requests[MANY];
	struct lc_cond wake;

	lc_cond_init(&wake);
	for (u32 n; nr; ios += n, nr -= n) {
		n = nr < MANY ? nr : MANY;
		for (u32 i = 0; i < n; i++) {
			requests[i] = (struct lc_link_io){
				.op = LC_LINK_READ,
				.buf = ios[i].buf,
				.offset_bytes = ios[i].offset_bytes,
				.wake = &wake,
			};
			begin(f, &requests[i], ios[i].len_bytes);
		}
		lc_mutex_lock(&f->lock);
		for (u32 i = 0; i < n; i++) {
			/* cppcheck-suppress uninitvar; all N were set in the loop above */
			while (!requests[i].done)
				lc_cond_wait(&wake, &f->lock, LC_FOREVER);
			ios[i].result = requests[i].result;
		}
		lc_mutex_unlock(&f->lock);
	}
	lc_cond_destroy(&wake);
}

static int fence_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_link_io io = {
		.op = LC_LINK_WRITE,
		.buf = (void *)(uintptr_t)buf, /* a write only reads it */
		.offset_bytes = offset_bytes,
	};

	return call(lc_fence_of(s), &io, len_bytes);
}

static int fence_flush(struct lc_store *s)
{
	struct lc_link_io io = {.op = LC_LINK_FLUSH};

	return call(lc_fence_of(s), &io, 0);
}

static int fence_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	struct lc_fence *f = lc_fence_of(s);
	struct lc_link_io io = {.op = LC_LINK_ZERO, .punch = punch, .offset_bytes = offset_bytes};
	bool has;

	lc_mutex_lock(&f->lock);
	has = f->info.zero;
	lc_mutex_unlock(&f->lock);
	return has ? call(f, &io, len_bytes) : -EOPNOTSUPP;
}

static int fence_extent(struct lc_store *s, u64 len_bytes, u64 offset_bytes, struct lc_extent *out)
{
	struct lc_fence *f = lc_fence_of(s);
	struct lc_link_io io = {.op = LC_LINK_EXTENT, .offset_bytes = offset_bytes};
	bool has;
	int rc;

	lc_mutex_lock(&f->lock);
	has = f->info.extent;
	lc_mutex_unlock(&f->lock);
	*out = (struct lc_extent){.len_bytes = len_bytes};
	if (!has)
		return 0;
	rc = call(f, &io, len_bytes);
	if (rc)
		return rc;
	assert(io.extent.len_bytes > 0 && io.extent.len_bytes <= len_bytes);
	*out = io.extent;
	return 0;
}

/* --- queues --- */

static struct fence_queue *queue_of(struct lc_queue *q)
{
	return (struct fence_queue *)q;
}

static void fence_submit(struct lc_queue *lq, struct lc_io *io)
{
	struct fence_queue *q = queue_of(lq);

	if (io->op != LC_IO_FLUSH)
		lc_store_check(&q->f->store, io->buf, io->len_bytes, io->offset_bytes);
	push(&q->staged, io);
	q->nr_active++;
}

static struct lc_link_io *take_request(struct fence_queue *q)
{
	struct lc_link_io *r;

	if (!q->spare) {
		lc_mutex_lock(&q->f->lock);
		q->spare = q->free;
		q->free = NULL;
		lc_mutex_unlock(&q->f->lock);
	}
	r = q->spare;
	if (r)
		q->spare = r->next;
	return r;
}

static void fence_start(struct lc_queue *lq)
{
	static const enum lc_link_op ops[] = {
		[LC_IO_READ] = LC_LINK_READ,
		[LC_IO_WRITE] = LC_LINK_WRITE,
		[LC_IO_FLUSH] = LC_LINK_FLUSH,
	};
	struct fence_queue *q = queue_of(lq);
	struct lc_link_io *r;

	while (q->staged.head && (r = take_request(q))) {
		struct lc_io *io = q->staged.head;

		q->staged.head = io->next;
		*r = (struct lc_link_io){
			.op = ops[io->op],
			.buf = io->buf,
			.offset_bytes = io->offset_bytes,
			.queue = q,
			.io = io,
		};
		begin(q->f, r, io->len_bytes);
	}
}

static struct lc_io *fence_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct fence_queue *q = queue_of(lq);
	struct lc_mutex *lock = &q->f->lock;
	struct lc_io *list;

	fence_start(lq);
	lc_mutex_lock(lock);
	while (!q->done.head && !q->kicked &&
	       (deadline_ns == LC_FOREVER || lc_now_ns() < deadline_ns)) {
		q->sleeping = true;
		lc_cond_wait(&q->wake, lock, deadline_ns);
		q->sleeping = false;
	}
	list = q->done.head;
	q->done.head = NULL;
	q->kicked = false;
	lc_mutex_unlock(lock);
	for (struct lc_io *io = list; io; io = io->next)
		q->nr_active--;
	/* What could follow goes over the link now, not when the owner comes back. */
	fence_start(lq);
	return list;
}

static void fence_kick(struct lc_queue *lq)
{
	struct fence_queue *q = queue_of(lq);

	lc_mutex_lock(&q->f->lock);
	q->kicked = true;
	lc_cond_signal(&q->wake);
	lc_mutex_unlock(&q->f->lock);
}

static void fence_queue_close(struct lc_queue *lq)
{
	struct fence_queue *q = queue_of(lq);

	assert(!q->nr_active);
	lc_cond_destroy(&q->wake);
	lc_free(q->requests, q->depth * sizeof *q->requests);
	lc_free(q, sizeof *q);
}

static int fence_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			    unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	static const struct lc_queue_ops ops = {
		.submit = fence_submit,
		.start = fence_start,
		.wait = fence_wait,
		.kick = fence_kick,
		.close = fence_queue_close,
	};
	struct fence_queue *q = lc_alloc(sizeof *q);
	struct lc_link_io *requests = lc_alloc(depth * sizeof *requests);

	(void)areas; /* memory need not be registered */
	(void)nr_areas;
	assert(depth > 0);
	if (!q || !requests) {
		lc_free(q, sizeof *q);
		lc_free(requests, depth * sizeof *requests);
		return lc_fail(err, -ENOMEM, "'%s': no memory for a queue: free some", s->name);
	}
	*q = (struct fence_queue){
		.queue.ops = &ops,
		.f = lc_fence_of(s),
		.depth = depth,
		.requests = requests,
	};
	lc_cond_init(&q->wake);
	for (unsigned i = 0; i < depth; i++) {
		requests[i].next = q->free;
		q->free = &requests[i];
	}
	*out = &q->queue;
	return 0;
}

/* --- the store --- */

static void fence_trust(struct lc_store *s)
{
	struct lc_fence *f = lc_fence_of(s);

	lc_mutex_lock(&f->lock);
	if (f->fence_of_start)
		f->fence_ns = 0;
	f->fence_of_start = false;
	lc_cond_signal(&f->change);
	lc_mutex_unlock(&f->lock);
}

static bool fence_settled(struct lc_store *s)
{
	struct lc_fence *f = lc_fence_of(s);
	bool settled;

	lc_mutex_lock(&f->lock);
	settled = !f->nr_flight && !f->waiting.head && f->session != SESSION_BROKEN &&
		  lc_now_ns() >= f->fence_ns;
	lc_mutex_unlock(&f->lock);
	return settled;
}

static u64 fence_quiet_ns(struct lc_store *s)
{
	struct lc_fence *f = lc_fence_of(s);
	u64 quiet_ns;

	lc_mutex_lock(&f->lock);
	quiet_ns = f->fence_ns;
	lc_mutex_unlock(&f->lock);
	return quiet_ns;
}

static void fence_close(struct lc_store *s)
{
	lc_fence_pause(s);
	lc_fence_destroy(lc_fence_of(s));
}

const struct lc_store_ops lc_fence_ops = {
	.read = fence_read,
	.read_many = fence_read_many,
	.write = fence_write,
	.flush = fence_flush,
	.zero = fence_zero,
	.extent = fence_extent,
	.queue_open = fence_queue_open,
	.trust = fence_trust,
	.settled = fence_settled,
	.quiet_ns = fence_quiet_ns,
	.close = fence_close,
};
