/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store_sim.c - store.h on simulated disks: synchronous calls, queues, and the time that I/O takes.
 *
 * The life of an I/O
 *
 *	stage	 lc_queue_submit: on the queue's list, not yet seen by the disk. What a flush will
 *		 cover is decided here: whatever has completed by now
 *	submit	 lc_queue_start, or a synchronous call: on the disk's list; a crash may let it
 *		 survive
 *	launch	 no more than `depth` of a queue at a time: random moments are drawn at which its
 *		 pieces take effect and at which it completes
 *	done	 its result is known; a queue hands it out in some lc_queue_wait after that
 *
 * Pieces begin at random sectors and take effect in random order.
 */
#include <stdlib.h>
#include <string.h>

#include "store_sim.h"

struct sim_queue {
	struct lc_queue queue;
	struct store_sim *store;
	struct fiber *owner;
	u32 depth, launched;
	struct sim_io *staged, **staged_tail;
	struct sim_io *waiting, **waiting_tail; /* started, beyond the depth; linked by queue_next */
	struct lc_io *completed;
	bool kicked, sleeping;
	u32 unreaped; /* submitted and not handed out */
	struct sim_queue *next;
};

void (*store_sim_before_change)(const struct store_sim *s, enum lc_io_op op, u32 len_bytes,
				u64 offset_bytes);

static const char *const op_names[] = {"read", "write", "flush"};

static const char *io_name(const struct sim_io *io)
{
	return io->zero ? "zero" : op_names[io->op];
}

static struct store_sim *sim_of(struct lc_store *s)
{
	return (struct store_sim *)((char *)s - offsetof(struct store_sim, store));
}

static struct sim_queue *queue_of(struct lc_queue *q)
{
	return (struct sim_queue *)((char *)q - offsetof(struct sim_queue, queue));
}

/* The contract of store.h. */
static void check(const struct store_sim *s, enum lc_io_op op, const void *buf, u32 len_bytes,
		  u64 offset_bytes)
{
	u64 end = (s->store.size_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;

	if (op == LC_IO_FLUSH)
		return;
	if ((uintptr_t)buf % LC_BLOCK || !len_bytes || len_bytes % s->store.block_bytes ||
	    offset_bytes % s->store.block_bytes || offset_bytes >= end ||
	    len_bytes > end - offset_bytes)
		sim_fail("%s: %s of %u bytes at %llu (buffer at ...%03x) breaks the contract: "
			 "blocks of %u, "
			 "size %llu",
			 s->store.name, op_names[op], len_bytes, (unsigned long long)offset_bytes,
			 (unsigned)((uintptr_t)buf % LC_BLOCK), s->store.block_bytes,
			 (unsigned long long)s->store.size_bytes);
}

/* --- launching and completing --- */

static void io_fired(struct sim_event *ev);

static void draw_pieces(struct sim_io *io)
{
	u32 sectors = io->len_bytes / LC_SECTOR, n = 1, i;

	if (sectors > 1 && sim_one_in(2))
		n = sim_between(2, sectors < SIM_PIECES_MAX ? sectors : SIM_PIECES_MAX);
	io->nr_pieces = io->op == LC_IO_FLUSH ? 0 : n;
	for (i = 0; i < n; i++) {
		u32 k = sim_below(i + 1);

		io->cut[i] = LC_SECTOR * (u32)((u64)sectors * i / n);
		if (i && sectors > n)
			io->cut[i] += LC_SECTOR * sim_below(sectors / n);
		io->order[i] = io->order[k];
		io->order[k] = (u8)i;
	}
	io->cut[n] = io->len_bytes;
}

static void launch(struct sim_io *io)
{
	struct store_sim *s = io->store;
	u32 delay = sim_log_between(s->min_ns, s->max_ns), i;
	u64 t = sim_now();

	if (io->op == LC_IO_FLUSH)
		t += (u64)delay * s->flush_factor;
	if (sim_one_in(64))
		delay *= 16; /* the one that takes for ever */
	io->launched = true;
	for (i = 0; i < io->nr_pieces; i++)
		io->piece_ns[i] = t += delay / io->nr_pieces;
	io->piece_ns[i] = sim_one_in(2) ? t : t + delay / 2;
	if (io->op == LC_IO_FLUSH)
		io->piece_ns[0] = t + delay;
	io->event.fire = io_fired;
	sim_event_arm(&io->event, io->piece_ns[0]);
}

static struct sim_io *io_new(struct store_sim *s, enum lc_io_op op, void *buf, u32 len_bytes,
			     u64 offset_bytes)
{
	struct sim_io *io = calloc(1, sizeof(*io));

	if (!io)
		abort();
	io->store = s;
	io->op = op;
	io->zero = buf == image_zeros();
	io->buf = buf;
	io->len_bytes = op == LC_IO_FLUSH ? 0 : len_bytes;
	io->offset_bytes = offset_bytes;
	io->covers = s->last_done;
	return io;
}

static void before_change(const struct store_sim *s, enum lc_io_op op, u32 len_bytes, u64 offset_bytes)
{
	if (store_sim_before_change)
		store_sim_before_change(s, op, len_bytes, offset_bytes);
}

/* From here on the disk knows of it. */
static void enter(struct sim_io *io)
{
	struct store_sim *s = io->store;

	if (!io->zero && !io->finished) /* their contracts are others */
		check(s, io->op, io->buf, io->len_bytes, io->offset_bytes);
	sim_trace("%s: submit %s %u at %llu", s->store.name, io_name(io), io->len_bytes,
		  (unsigned long long)io->offset_bytes);
	io->result = image_draw_fault(io);
	draw_pieces(io);
	if (io->op == LC_IO_WRITE) {
		image_check_overlap(io);
		io->write = image_write_begin(s, io->len_bytes, io->offset_bytes, io->zero);
	}
	io->next = s->submitted;
	s->submitted = io;
}

static void leave(struct sim_io *io)
{
	struct sim_io **p = &io->store->submitted;

	while (*p != io)
		p = &(*p)->next;
	*p = io->next;
}

static void queue_launch(struct sim_queue *q)
{
	while (q->waiting && q->launched < q->depth) {
		struct sim_io *io = q->waiting;

		q->waiting = io->queue_next;
		if (!q->waiting)
			q->waiting_tail = &q->waiting;
		q->launched++;
		launch(io);
	}
}

static void queue_completed(struct sim_io *io)
{
	struct sim_queue *q = io->queue;
	struct lc_io *l = io->io, **p = &q->completed;

	while (*p && sim_one_in(2))
		p = &(*p)->next;
	l->result = io->result;
	l->done_bytes = io->result ? 0 : io->len_bytes;
	l->next = *p;
	*p = l;
	q->launched--;
	leave(io);
	free(io);
	queue_launch(q);
	if (q->sleeping)
		sim_wake(q->owner);
}

static void io_fired(struct sim_event *ev)
{
	struct sim_io *io = (struct sim_io *)((char *)ev - offsetof(struct sim_io, event));

	while (io->pieces_done < io->nr_pieces && io->piece_ns[io->pieces_done] <= sim_now()) {
		u32 i = io->order[io->pieces_done++];

		image_apply(io, io->cut[i], io->cut[i + 1]);
	}
	if (io->pieces_done < io->nr_pieces || io->piece_ns[io->nr_pieces] > sim_now()) {
		sim_event_arm(&io->event, io->piece_ns[io->pieces_done]);
		return;
	}
	if (io->op == LC_IO_FLUSH && !io->result)
		before_change(io->store, LC_IO_FLUSH, 0, 0);
	image_complete(io);
	sim_trace("%s: done %s %u at %llu: %d", io->store->store.name, io_name(io), io->len_bytes,
		  (unsigned long long)io->offset_bytes, io->result);
	io->done = true;
	if (io->queue)
		queue_completed(io);
	else if (io->finished)
		io->finished(io);
	else
		sim_wake(io->fiber);
}

/* --- synchronous --- */

/* A write of image_zeros() is that of lc_store_zero. */
static int do_sync(struct lc_store *ls, enum lc_io_op op, void *buf, u32 len_bytes, u64 offset_bytes)
{
	static const char *const names[] = {"lc_store_read", "lc_store_write", "lc_store_flush"};
	static const char *const waits[] = {"a read", "a write", "a flush"};
	struct sim_io *io;
	int r;

	sim_assert_unlocked(names[op]);
	sim_point();
	if (op == LC_IO_WRITE)
		before_change(sim_of(ls), op, len_bytes, offset_bytes);
	io = io_new(sim_of(ls), op, buf, len_bytes, offset_bytes);
	io->fiber = sim_self();
	enter(io);
	launch(io);
	while (!io->done)
		sim_block(waits[op], io, LC_FOREVER);
	r = io->result;
	leave(io);
	free(io);
	return r;
}

static int sync_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	return do_sync(s, LC_IO_READ, buf, len_bytes, offset_bytes);
}

/* All at once; they end in any order, well or badly. What a crash leaves unfinished the store's list has. */
static void sync_read_many(struct lc_store *ls, struct lc_io *ios, u32 nr)
{
	struct sim_io *list = NULL, *io;
	u32 nr_failed = 0;

	sim_assert_unlocked("lc_store_read_many");
	sim_point();
	for (u32 i = 0; i < nr; i++) {
		io = io_new(sim_of(ls), LC_IO_READ, ios[i].buf, ios[i].len_bytes,
			    ios[i].offset_bytes);
		io->fiber = sim_self();
		io->io = &ios[i];
		io->io->done_bytes = 0xdddddddd; /* both are ours until it completes */
		io->io->next = (struct lc_io *)(uintptr_t)0xdd;
		io->queue_next = list;
		list = io;
		enter(io);
		launch(io);
	}
	while ((io = list)) {
		while (!io->done)
			sim_block("several reads", io, LC_FOREVER);
		io->io->result = io->result;
		nr_failed += !!io->result;
		list = io->queue_next;
		leave(io);
		free(io);
	}
	sim_of(ls)->nr_together++;
	sim_of(ls)->nr_together_failed += nr_failed && nr_failed < nr;
}

static int sync_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	return do_sync(s, LC_IO_WRITE, (void *)(uintptr_t)buf, len_bytes, offset_bytes);
}

static int sync_flush(struct lc_store *s)
{
	return do_sync(s, LC_IO_FLUSH, NULL, 0, 0);
}

static int sync_zero(struct lc_store *ls, u64 len_bytes, u64 offset_bytes, bool punch)
{
	if (punch ? !sim_of(ls)->punch_works : !sim_of(ls)->zero_works) {
		sim_assert_unlocked("lc_store_zero");
		sim_point();
		return -EOPNOTSUPP;
	}
	/* Its end may be inside a sector, which is the store's last one. */
	len_bytes = (len_bytes + LC_SECTOR - 1) / LC_SECTOR * LC_SECTOR;
	return do_sync(ls, LC_IO_WRITE, image_zeros(), (u32)len_bytes, offset_bytes);
}

static int sync_extent(struct lc_store *ls, u64 len_bytes, u64 offset_bytes, struct lc_extent *out)
{
	struct store_sim *s = sim_of(ls);
	struct sim_io io = {.store = s, .op = LC_IO_READ, .len_bytes = 1, .offset_bytes = offset_bytes};

	sim_assert_unlocked("lc_store_extent");
	sim_point();
	if (image_draw_fault(&io))
		return -EIO;
	*out = image_extent(s, len_bytes, offset_bytes);
	sim_point();
	return 0;
}

static void store_close(struct lc_store *s)
{
	sim_fail("%s: the engine closed a store; stores are the caller's", s->name);
}

/* --- for the model of a server --- */

struct sim_io *store_sim_begin(struct store_sim *s, enum lc_io_op op, void *buf, u32 len_bytes,
			       u64 offset_bytes, void (*finished)(struct sim_io *io), void *arg)
{
	struct sim_io *io = io_new(s, op, buf, len_bytes, offset_bytes);

	io->finished = finished;
	io->arg = arg;
	enter(io);
	launch(io);
	return io;
}

void store_sim_end(struct sim_io *io)
{
	leave(io);
	free(io);
}

void store_sim_abandon(struct sim_io *io, u64 until_ns)
{
	sim_event_cancel(&io->event);
	leave(io);
	if (io->op == LC_IO_WRITE && !io->done)
		image_abandon(io, until_ns);
	free(io);
}

/* --- queues --- */

static void only_owner(const struct sim_queue *q, const char *what)
{
	if (sim_self() != q->owner)
		sim_fail("%s: %s by %s, but the queue belongs to %s", q->store->store.name, what,
			 sim_fiber_name(sim_self()), sim_fiber_name(q->owner));
}

static void queue_submit(struct lc_queue *lq, struct lc_io *l)
{
	struct sim_queue *q = queue_of(lq);
	struct sim_io *io = io_new(q->store, l->op, l->buf, l->len_bytes, l->offset_bytes);

	only_owner(q, "lc_queue_submit");
	check(q->store, l->op, l->buf, l->len_bytes, l->offset_bytes);
	io->queue = q;
	io->io = l;
	l->done_bytes = 0xdddddddd; /* both are ours until it completes */
	l->next = (struct lc_io *)(uintptr_t)0xdd;
	*q->staged_tail = io;
	q->staged_tail = &io->queue_next;
	q->unreaped++;
}

static void start_staged(struct sim_queue *q)
{
	while (q->staged) {
		struct sim_io *io = q->staged;

		if (io->op == LC_IO_WRITE)
			before_change(q->store, io->op, io->len_bytes, io->offset_bytes);
		q->staged = io->queue_next;
		io->queue_next = NULL;
		*q->waiting_tail = io;
		q->waiting_tail = &io->queue_next;
		enter(io);
	}
	q->staged_tail = &q->staged;
	queue_launch(q);
}

static void queue_start(struct lc_queue *lq)
{
	struct sim_queue *q = queue_of(lq);

	only_owner(q, "lc_queue_start");
	sim_assert_unlocked("lc_queue_start");
	sim_point();
	start_staged(q);
	sim_point();
}

static struct lc_io *queue_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct sim_queue *q = queue_of(lq);
	struct lc_io *list, *l;

	only_owner(q, "lc_queue_wait");
	sim_assert_unlocked("lc_queue_wait");
	sim_point();
	start_staged(q);
	while (!q->completed && !q->kicked && deadline_ns > sim_now()) {
		q->sleeping = true;
		sim_block("I/O of a queue", q, deadline_ns);
		q->sleeping = false;
	}
	/* A kick that met a completion may be noticed only the next time. */
	if (!q->completed || sim_one_in(2))
		q->kicked = false;
	sim_point();
	list = q->completed;
	if (!list)
		return NULL;
	for (l = list; l; l = l->next) {
		q->unreaped--;
		if (l->next && sim_one_in(8)) /* the rest the next time */
			break;
	}
	q->completed = l ? l->next : NULL;
	if (l)
		l->next = NULL;
	return list;
}

static void queue_kick(struct lc_queue *lq)
{
	struct sim_queue *q = queue_of(lq);

	q->kicked = true;
	if (q->sleeping)
		sim_wake(q->owner);
	sim_point();
}

static void queue_free(struct sim_queue *q)
{
	struct sim_io *io;

	while ((io = q->staged)) {
		q->staged = io->queue_next;
		free(io);
	}
	free(q);
}

static void queue_close(struct lc_queue *lq)
{
	struct sim_queue *q = queue_of(lq), **p = &q->store->queues;

	only_owner(q, "lc_queue_close");
	if (q->unreaped)
		sim_fail("%s: a queue is closed while %u I/Os have not been reaped",
			 q->store->store.name, q->unreaped);
	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
	queue_free(q);
}

static const struct lc_queue_ops queue_ops = {
	.submit = queue_submit,
	.start = queue_start,
	.wait = queue_wait,
	.kick = queue_kick,
	.close = queue_close,
};

static int queue_open(struct lc_store *ls, unsigned depth, const struct lc_area *areas,
		      unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	struct store_sim *s = sim_of(ls);
	struct sim_queue *q = calloc(1, sizeof(*q));
	unsigned i;

	(void)err; /* it always works */
	if (!q)
		abort();
	sim_assert_unlocked("lc_queue_open");
	if (!depth)
		sim_fail("%s: a queue of depth 0", s->store.name);
	for (i = 0; i < nr_areas; i++)
		if (!areas[i].base || !areas[i].len_bytes)
			sim_fail("%s: an empty area is registered", s->store.name);
	q->queue.ops = &queue_ops;
	q->store = s;
	q->owner = sim_self();
	q->depth = depth;
	q->staged_tail = &q->staged;
	q->waiting_tail = &q->waiting;
	q->next = s->queues;
	s->queues = q;
	*out = &q->queue;
	return 0;
}

static const struct lc_store_ops plain_ops = {
	.read = sync_read,
	.read_many = sync_read_many,
	.write = sync_write,
	.flush = sync_flush,
	.queue_open = queue_open,
	.close = store_close,
};

static const struct lc_store_ops all_ops = {
	.read = sync_read,
	.read_many = sync_read_many,
	.write = sync_write,
	.flush = sync_flush,
	.zero = sync_zero,
	.extent = sync_extent,
	.queue_open = queue_open,
	.close = store_close,
};

/* --- between lives --- */

void store_sim_drop_queues(struct store_sim *s)
{
	while (s->queues) {
		struct sim_queue *q = s->queues;

		s->queues = q->next;
		queue_free(q);
	}
}

void store_sim_assert_idle(struct store_sim *s)
{
	if (s->queues)
		sim_fail("%s: a queue was not closed", s->store.name);
	if (s->submitted)
		sim_fail("%s: %s of %u bytes at %llu was never reaped", s->store.name,
			 op_names[s->submitted->op], s->submitted->len_bytes,
			 (unsigned long long)s->submitted->offset_bytes);
}

/* What a disk can do besides reading and writing, and what it says of that. */
static void draw_abilities(struct store_sim *s)
{
	static const u32 holes[] = {LC_BLOCK, LC_BLOCK, LC_SECTOR, 0};

	s->store.ops = &plain_ops;
	s->store.can_zero = s->store.can_punch = s->zero_works = s->punch_works = false;
	s->hole_bytes = 0;
	if (sim_one_in(6))
		return;
	s->store.ops = &all_ops;
	s->hole_bytes = holes[sim_below(4)];
	s->zero_works = !sim_one_in(6);
	/* Known beforehand, as far as it can be: some say too much, some too little. */
	s->store.can_zero = s->zero_works ? !sim_one_in(6) : sim_one_in(2);
	s->punch_works = sim_one_in(6) ? !s->zero_works : s->zero_works;
	s->store.can_punch = s->punch_works ? !sim_one_in(6) : sim_one_in(3);
}

void store_sim_enable(struct store_sim *s)
{
	s->store.ops = &all_ops;
	s->store.can_zero = s->store.can_punch = s->zero_works = s->punch_works = true;
	if (!s->hole_bytes)
		s->hole_bytes = LC_BLOCK;
}

void store_sim_reset(struct store_sim *s, const char *name, u64 size_bytes, u32 block_bytes, bool slow)
{
	assert(size_bytes <= s->image_bytes);
	store_sim_drop_ghosts(s);
	image_reset(s);
	s->store.name = name;
	s->store.size_bytes = size_bytes;
	s->store.block_bytes = block_bytes;
	s->min_ns = slow ? 4000 : 1000;
	s->max_ns = sim_log_between(slow ? 8000 : 2000, slow ? 20000000 : 400000);
	s->flush_factor = sim_one_in(2) ? 0 : sim_log_between(1, 64);
	s->tear_bytes = LC_SECTOR;
	s->faults = (struct sim_faults){0};
	s->patient_flush = false;
	s->nr_reads = s->nr_written = s->nr_flushes = s->nr_zeroed = s->nr_read_faults =
		s->nr_haunted = 0;
	s->nr_together = s->nr_together_failed = 0;
	if (slow)
		draw_abilities(s);
	else
		s->store.ops = &plain_ops;
}
