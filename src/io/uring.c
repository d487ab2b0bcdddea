/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uring.c - the queue of the file store on io_uring.
 *
 * One queue is one ring, created and used by one thread. An I/O goes
 *
 *	submit -> waiting (FIFO) -> ring (at most DEPTH) -> done (list) -> returned by wait
 *	               ^               |
 *	               +- the rest of a partial transfer, EINTR, EAGAIN
 *
 * submit() only appends to the FIFO: no system call. start() and wait() move as many as DEPTH
 * allows into the ring and enter the kernel once. The ring has room for DEPTH I/Os and the kick's
 * read, and twice that for completions, so neither side can overflow.
 *
 * DEFER_TASKRUN: on newer kernels completions are only posted while the owner is in the kernel and
 * asks for events. That saves interrupts of the owner, and means that looking at the completion
 * queue is not enough: wait() enters the kernel even with a deadline of 0.
 *
 * Kick: an eventfd, and in the ring a read of it, armed before each wait. A kick that finds no
 * read armed stays in the eventfd's counter and completes the next one at once: it cannot be lost.
 *
 * Part of the file's last block may have to go through the page cache (file_priv.h). submit() does
 * that on the spot, and only the rest goes through the ring.
 *
 * Registration: files and the caller's areas are registered, where the kernel lets us: that saves
 * looking up the descriptor and pinning the pages for each I/O. An I/O whose buffer lies in no area
 * works the same. Both are taken back explicitly at close: the kernel tears a ring down later, by
 * itself, and the lock on the file and the quota of locked memory would be held until then.
 *
 * Locks: none. The owner alone touches the queue; kick() only writes to the eventfd.
 */
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "file_priv.h"
#include "logcache/rt.h"

/* The kernel's limit for one registered buffer. */
#define BUFFER_MAX_BYTES (1ull << 30)
#define DEPTH_MAX 8192u

struct io_list {
	struct lc_io *head, *tail;
};

struct uring_queue {
	struct lc_queue queue;
	struct lc_file *file;
	struct io_uring ring;
	pthread_t owner;
	unsigned depth;
	unsigned inflight;	/* in the ring, the kick's read not counted */
	struct io_list waiting; /* for room in the ring */
	struct io_list done;	/* to be returned by wait */
	int event_fd;
	u64 event_count; /* the kick's read goes here */
	bool kick_armed;
	bool kicked;
	bool starved; /* the kernel said EAGAIN, and nothing else, lately */
	bool told_enter;
	bool files_registered;
	unsigned nr_buffers; /* registered */
	struct lc_area *buffers;
};

static struct uring_queue *uring_of(struct lc_queue *q)
{
	return (struct uring_queue *)q; /* the first member */
}

static void append(struct io_list *l, struct lc_io *io)
{
	io->next = NULL;
	if (l->head)
		l->tail->next = io;
	else
		l->head = io;
	l->tail = io;
}

static void prepend(struct io_list *l, struct lc_io *io)
{
	if (!l->head)
		l->tail = io;
	io->next = l->head;
	l->head = io;
}

static void check_owner(const struct uring_queue *q)
{
	assert(pthread_equal(q->owner, pthread_self()));
	(void)q; /* only the assertion reads it */
}

/* --- into the ring --- */

/* The registered buffer that holds [P, P + N), or -1. There are few: usually one. */
static int buffer_index(const struct uring_queue *q, const u8 *p, u32 n)
{
	for (unsigned i = 0; i < q->nr_buffers; i++) {
		const u8 *base = q->buffers[i].base;

		if (p >= base && p < base + q->buffers[i].len_bytes &&
		    n <= (size_t)(base + q->buffers[i].len_bytes - p))
			return (int)i;
	}
	return -1;
}

static void prepare(struct uring_queue *q, struct io_uring_sqe *sqe, struct lc_io *io)
{
	int fd = q->files_registered ? 0 : q->file->fd;
	u8 *buf = (u8 *)io->buf + io->done_bytes;
	u64 offset = io->offset_bytes + io->done_bytes;
	u32 n = lc_file_main_bytes(q->file, io) - io->done_bytes;
	int index;

	if (io->op == LC_IO_FLUSH) {
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	} else {
		index = buffer_index(q, buf, n);
		if (io->op == LC_IO_READ && index >= 0)
			io_uring_prep_read_fixed(sqe, fd, buf, n, offset, index);
		else if (io->op == LC_IO_READ)
			io_uring_prep_read(sqe, fd, buf, n, offset);
		else if (index >= 0)
			io_uring_prep_write_fixed(sqe, fd, buf, n, offset, index);
		else
			io_uring_prep_write(sqe, fd, buf, n, offset);
	}
	if (q->files_registered)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, io);
}

/* Move what may go from the FIFO into the ring, and see that the kick's read is there. */
static void stage(struct uring_queue *q)
{
	struct io_uring_sqe *sqe;

	if (!q->kick_armed) {
		sqe = io_uring_get_sqe(&q->ring);
		if (sqe) {
			io_uring_prep_read(sqe, q->event_fd, &q->event_count,
					   sizeof(q->event_count), 0);
			io_uring_sqe_set_data(sqe, q); /* no I/O has this address */
			q->kick_armed = true;
		}
	}
	while (q->waiting.head && q->inflight < q->depth) {
		struct lc_io *io = q->waiting.head;

		/* Full if the kernel did not take an earlier batch: the next turn tries again. */
		sqe = io_uring_get_sqe(&q->ring);
		if (!sqe)
			break;
		q->waiting.head = io->next;
		prepare(q, sqe, io);
		q->inflight++;
	}
}

/* --- out of the ring --- */

static void complete_kick(struct uring_queue *q, int res)
{
	q->kick_armed = false; /* stage() arms it again */
	if (res != -EINTR && res != -EAGAIN)
		q->kicked = true;
}

static void complete_io(struct uring_queue *q, struct lc_io *io, int res)
{
	struct lc_file *f = q->file;

	q->inflight--;
	if (!lc_file_account(io, lc_file_main_bytes(f, io), f->align_bytes, res)) {
		q->starved = res == -EAGAIN;
		prepend(&q->waiting, io);
		return;
	}
	q->starved = false;
	if (io->op == LC_IO_READ && io->result == -EIO && res >= 0)
		lc_file_tell_shrunk(f);
	append(&q->done, io);
}

static void reap(struct uring_queue *q)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&q->ring, head, cqe)
	{
		void *data = io_uring_cqe_get_data(cqe);

		if (data == q)
			complete_kick(q, cqe->res);
		else
			complete_io(q, data, cqe->res);
		n++;
	}
	io_uring_cq_advance(&q->ring, n);
}

/* --- the system call --- */

/*
 * io_uring_enter said RC. What the kernel did not take stays in the ring for the next time, so the
 * only question is how soon that should be.
 */
static void after_enter(struct uring_queue *q, int rc)
{
	if (rc >= 0 || rc == -EINTR || rc == -ETIME)
		return;
	if (rc != -EAGAIN && rc != -EBUSY && rc != -ENOMEM && !q->told_enter) {
		q->told_enter = true;
		lc_log(LC_LOG_ERROR,
		       "'%s': the kernel refuses io_uring_enter (%s): its I/O stands still until that "
		       "ends; look for a seccomp filter that was installed after the start",
		       q->file->path, strerror(-rc));
	}
	q->starved = true;
}

/* Hand over what is in the submission queue and fetch events, without waiting. */
static void enter_now(struct uring_queue *q)
{
	after_enter(q, io_uring_submit_and_get_events(&q->ring));
}

/* The same, and wait for one completion or the deadline. */
static void enter_wait(struct uring_queue *q, u64 deadline_ns)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts;
	u64 now_ns, left_ns;

	if (deadline_ns == LC_FOREVER) {
		after_enter(q, io_uring_submit_and_wait_timeout(&q->ring, &cqe, 1, NULL, NULL));
		return;
	}
	now_ns = lc_now_ns();
	left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	if (!left_ns) {
		enter_now(q);
		return;
	}
	ts.tv_sec = (long long)(left_ns / LC_NS_PER_S);
	ts.tv_nsec = (long long)(left_ns % LC_NS_PER_S);
	after_enter(q, io_uring_submit_and_wait_timeout(&q->ring, &cqe, 1, &ts, NULL));
}

/* --- the operations --- */

static void uring_submit(struct lc_queue *lq, struct lc_io *io)
{
	struct uring_queue *q = uring_of(lq);

	check_owner(q);
	if (io->op != LC_IO_FLUSH)
		lc_store_check(&q->file->store, io->buf, io->len_bytes, io->offset_bytes);
	io->done_bytes = 0;
	io->result = lc_file_tail(q->file, io);
	if (io->result || (io->op != LC_IO_FLUSH && lc_file_main_bytes(q->file, io) == 0))
		append(&q->done, io);
	else
		append(&q->waiting, io);
}

static void uring_start(struct lc_queue *lq)
{
	struct uring_queue *q = uring_of(lq);

	check_owner(q);
	stage(q);
	if (io_uring_sq_ready(&q->ring))
		after_enter(q, io_uring_submit(&q->ring));
}

static struct lc_io *uring_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct uring_queue *q = uring_of(lq);
	struct lc_io *list;

	check_owner(q);
	for (;;) {
		stage(q);
		reap(q);
		if (q->done.head || q->kicked)
			break;
		if (q->starved) {
			q->starved = false;
			lc_file_nap();
		}
		enter_wait(q, deadline_ns);
		reap(q);
		if (q->done.head || q->kicked)
			break;
		if (deadline_ns != LC_FOREVER && lc_now_ns() >= deadline_ns)
			break;
	}
	/*
	 * What could follow goes to the device now, not when the owner comes back. The kick's read
	 * alone is not worth a system call: a kick meanwhile is kept by the eventfd.
	 */
	stage(q);
	if (io_uring_sq_ready(&q->ring) > (q->inflight ? 0u : 1u))
		enter_now(q);
	q->kicked = false;
	list = q->done.head;
	q->done.head = NULL;
	return list;
}

static void uring_kick(struct lc_queue *lq)
{
	const struct uring_queue *q = uring_of(lq);
	u64 one = 1;

	/* Only a signal can keep it from being written: the counter holds 2^64 kicks. */
	while (write(q->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void uring_close(struct lc_queue *lq)
{
	struct uring_queue *q = uring_of(lq);

	check_owner(q);
	assert(q->inflight == 0 && !q->waiting.head && !q->done.head);
	/* The kick's read points into the queue: complete it before the memory goes. */
	if (q->kick_armed) {
		uring_kick(lq);
		while (q->kick_armed) {
			enter_wait(q, LC_FOREVER);
			reap(q);
		}
	}
	/* Failing means that it was not registered, or that the exit of the ring does it. */
	if (q->nr_buffers)
		(void)io_uring_unregister_buffers(&q->ring);
	if (q->files_registered)
		(void)io_uring_unregister_files(&q->ring);
	io_uring_queue_exit(&q->ring);
	close(q->event_fd);
	free(q->buffers);
	free(q);
}

static const struct lc_queue_ops uring_ops = {
	.submit = uring_submit,
	.start = uring_start,
	.wait = uring_wait,
	.kick = uring_kick,
	.close = uring_close,
};

/* --- opening --- */

/* The best ring that this kernel makes: each line costs more wake-ups than the one before. */
static int create_ring(struct io_uring *ring, unsigned entries)
{
	static const unsigned flags[] = {
		/* 6.1 */ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_SUBMIT_ALL,
		/* 5.19 */ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		/* 5.11 */ 0,
	};
	int rc = -EINVAL;

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]) && rc == -EINVAL; i++) {
		struct io_uring_params p = {.flags = flags[i]};

		rc = io_uring_queue_init_params(entries, ring, &p);
	}
	/* Without timeouts in io_uring_enter (5.11) waiting would need entries of its own. */
	if (rc == 0 && !(ring->features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(ring);
		return -ENOSYS;
	}
	return rc;
}

static void tell_memlock(struct lc_file *f, u64 bytes, int rc)
{
	struct rlimit limit = {0};

	if (atomic_exchange(&f->told_memlock, true))
		return;
	/* A limit that cannot be read is shown as 0. */
	(void)getrlimit(RLIMIT_MEMLOCK, &limit);
	lc_log(LC_LOG_WARNING,
	       "'%s': cannot register %llu KiB of buffers for its I/O (%s; locked memory is limited to "
	       "%llu KiB): it works, with a little more CPU; raise LimitMEMLOCK= of the unit, or "
	       "ulimit -l",
	       f->path, (unsigned long long)bytes >> 10, strerror(-rc),
	       (unsigned long long)limit.rlim_cur >> 10);
}

/* Register the areas, in pieces that the kernel takes. Without memory or permission: do without. */
static void register_areas(struct uring_queue *q, const struct lc_area *areas, unsigned nr_areas)
{
	struct iovec *iov = NULL;
	unsigned n = 0;
	u64 bytes = 0;
	int rc;

	for (unsigned i = 0; i < nr_areas; i++) {
		n += (unsigned)((areas[i].len_bytes + BUFFER_MAX_BYTES - 1) / BUFFER_MAX_BYTES);
		bytes += areas[i].len_bytes;
	}
	if (n == 0)
		return;
	iov = calloc(n, sizeof(*iov));
	q->buffers = calloc(n, sizeof(*q->buffers));
	if (!iov || !q->buffers) {
		tell_memlock(q->file, bytes, -ENOMEM);
		free(iov);
		return;
	}
	n = 0;
	for (unsigned i = 0; i < nr_areas; i++) {
		for (size_t at = 0; at < areas[i].len_bytes; at += BUFFER_MAX_BYTES) {
			size_t left = areas[i].len_bytes - at;

			iov[n].iov_base = (u8 *)areas[i].base + at;
			iov[n].iov_len = left < BUFFER_MAX_BYTES ? left : BUFFER_MAX_BYTES;
			q->buffers[n].base = iov[n].iov_base;
			q->buffers[n].len_bytes = iov[n].iov_len;
			n++;
		}
	}
	rc = io_uring_register_buffers(&q->ring, iov, n);
	if (rc == 0)
		q->nr_buffers = n;
	else
		tell_memlock(q->file, bytes, rc);
	free(iov);
}

int lc_uring_queue_open(struct lc_file *f, unsigned depth, const struct lc_area *areas,
			unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	struct uring_queue *q = calloc(1, sizeof(*q));
	int rc;

	assert(depth > 0);
	if (!q)
		return lc_fail(err, -ENOMEM, "'%s': no memory for a queue", f->path);
	q->queue.ops = &uring_ops;
	q->file = f;
	q->owner = pthread_self();
	q->depth = depth < DEPTH_MAX ? depth : DEPTH_MAX;
	q->event_fd = eventfd(0, EFD_CLOEXEC);
	if (q->event_fd < 0) {
		rc = -errno;
		lc_fail(err, rc,
			"'%s': cannot create an eventfd: %s; raise the limit on open files "
			"(LimitNOFILE=, ulimit -n)",
			f->path, strerror(-rc));
		goto fail_queue;
	}
	rc = create_ring(&q->ring, q->depth + 1);
	if (rc) {
		lc_fail(err, rc,
			"'%s': io_uring is not available (%s): check the kernel (5.11 or newer), sysctl "
			"kernel.io_uring_disabled, seccomp filters of containers and units, and ulimit -n",
			f->path, strerror(-rc));
		goto fail_event;
	}
	q->files_registered = io_uring_register_files(&q->ring, &f->fd, 1) == 0;
	/* Spares a look-up in each system call; without it everything works the same. */
	(void)io_uring_register_ring_fd(&q->ring);
	register_areas(q, areas, nr_areas);
	*out = &q->queue;
	return 0;

fail_event:
	close(q->event_fd);
fail_queue:
	free(q);
	return rc;
}
