/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uring.c - the queue of the file store on io_uring.
 *
 * One queue is one ring, created and used by one thread; queue.h shows the way of an I/O. start() and
 * wait() move as many as DEPTH allows from the FIFO into the ring and enter the kernel once. The
 * ring has room for DEPTH I/Os and the kick's read, and twice that for completions, so neither side
 * can overflow.
 *
 * DEFER_TASKRUN: on newer kernels completions are only posted while the owner is in the kernel and
 * asks for events. That saves interrupts of the owner, and means that looking at the completion
 * queue is not enough: wait() enters the kernel even with a deadline of 0.
 *
 * Kick: an eventfd, and in the ring a read of it, armed before each wait. A kick that finds no
 * read armed stays in the eventfd's counter and completes the next one at once: it cannot be lost.
 *
 * Registration: files and the caller's areas are registered, where the kernel lets us: that saves
 * looking up the descriptor and pinning the pages for each I/O. An I/O whose buffer lies in no area
 * works the same. Both are taken back explicitly at close: the kernel tears a ring down later, by
 * itself, and the lock on the file and the quota of locked memory would be held until then.
 *
 * Locks: none. The owner alone touches the queue; kick() only writes to the eventfd.
 */
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "file_priv.h"
#include "logcache/rt.h"
#include "queue.h"

/* The kernel's limit for one registered buffer. */
#define BUFFER_MAX_BYTES (1ull << 30)
#define DEPTH_MAX 8192u

struct uring_queue {
	struct lc_file_queue q;
	struct io_uring ring;
	u64 event_count; /* the kick's read goes here */
	bool kick_armed;
	bool kicked;
	bool files_registered;
	unsigned nr_buffers; /* registered */
	struct lc_area *buffers;
};

static struct uring_queue *uring_of(struct lc_queue *q)
{
	return (struct uring_queue *)q; /* the first member of the first member */
}

/* --- into the ring --- */

/* The registered buffer that holds [P, P + N), or -1. There are few: usually one. */
static int buffer_index(const struct uring_queue *u, const u8 *p, u32 n)
{
	for (unsigned i = 0; i < u->nr_buffers; i++) {
		const u8 *base = u->buffers[i].base;

		if (p >= base && p < base + u->buffers[i].len_bytes &&
		    n <= (size_t)(base + u->buffers[i].len_bytes - p))
			return (int)i;
	}
	return -1;
}

static void prepare(struct uring_queue *u, struct io_uring_sqe *sqe, struct lc_io *io)
{
	struct lc_file *f = u->q.file;
	int fd = u->files_registered ? 0 : f->fd;
	u8 *buf = (u8 *)io->buf + io->done_bytes;
	u64 offset = io->offset_bytes + io->done_bytes;
	u32 n = lc_file_main_bytes(f, io) - io->done_bytes;
	int index;

	if (io->op == LC_IO_FLUSH) {
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	} else {
		index = buffer_index(u, buf, n);
		if (io->op == LC_IO_READ && index >= 0)
			io_uring_prep_read_fixed(sqe, fd, buf, n, offset, index);
		else if (io->op == LC_IO_READ)
			io_uring_prep_read(sqe, fd, buf, n, offset);
		else if (index >= 0)
			io_uring_prep_write_fixed(sqe, fd, buf, n, offset, index);
		else
			io_uring_prep_write(sqe, fd, buf, n, offset);
	}
	if (u->files_registered)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, io);
}

/* Move what may go from the FIFO into the ring, and see that the kick's read is there. */
static void stage(struct uring_queue *u)
{
	struct io_uring_sqe *sqe;
	struct lc_io *io;

	if (!u->kick_armed) {
		sqe = io_uring_get_sqe(&u->ring);
		if (sqe) {
			io_uring_prep_read(sqe, u->q.event_fd, &u->event_count,
					   sizeof(u->event_count), 0);
			io_uring_sqe_set_data(sqe, u); /* no I/O has this address */
			u->kick_armed = true;
		}
	}
	while ((io = lc_file_queue_next(&u->q))) {
		/* Full if the kernel did not take an earlier batch: the next turn tries again. */
		sqe = io_uring_get_sqe(&u->ring);
		if (!sqe)
			break;
		prepare(u, sqe, io);
		lc_file_queue_sent(&u->q);
	}
}

/* --- out of the ring --- */

static void complete_kick(struct uring_queue *u, int res)
{
	u->kick_armed = false; /* stage() arms it again */
	if (res != -EINTR && res != -EAGAIN)
		u->kicked = true;
}

static void reap(struct uring_queue *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		void *data = io_uring_cqe_get_data(cqe);

		if (data == u)
			complete_kick(u, cqe->res);
		else
			lc_file_queue_completed(&u->q, data, cqe->res);
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
}

/* --- the system call --- */

/*
 * io_uring_enter said RC. What the kernel did not take stays in the ring for the next time, so the
 * only question is how soon that should be.
 */
static void after_enter(struct uring_queue *u, int rc)
{
	if (rc >= 0 || rc == -EINTR || rc == -ETIME)
		return;
	if (rc != -EAGAIN && rc != -EBUSY && rc != -ENOMEM)
		lc_file_queue_tell_refused(&u->q, "io_uring_enter", rc);
	u->q.starved = true;
}

/* Hand over what is in the submission queue and fetch events, without waiting. */
static void enter_now(struct uring_queue *u)
{
	after_enter(u, io_uring_submit_and_get_events(&u->ring));
}

/* The same, and wait for one completion or the deadline. */
static void enter_wait(struct uring_queue *u, u64 deadline_ns)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts;
	u64 now_ns, left_ns;

	if (deadline_ns == LC_FOREVER) {
		after_enter(u, io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, NULL, NULL));
		return;
	}
	now_ns = lc_now_ns();
	left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	if (!left_ns) {
		enter_now(u);
		return;
	}
	ts.tv_sec = (long long)(left_ns / LC_NS_PER_S);
	ts.tv_nsec = (long long)(left_ns % LC_NS_PER_S);
	after_enter(u, io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL));
}

/* --- the operations --- */

static void uring_start(struct lc_queue *lq)
{
	struct uring_queue *u = uring_of(lq);

	lc_file_queue_check_owner(&u->q);
	stage(u);
	if (io_uring_sq_ready(&u->ring))
		after_enter(u, io_uring_submit(&u->ring));
}

static struct lc_io *uring_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct uring_queue *u = uring_of(lq);

	lc_file_queue_check_owner(&u->q);
	for (;;) {
		/* In this order: what was reaped may have to go on, and to be staged before we sleep. */
		reap(u);
		stage(u);
		if (u->q.done.head || u->kicked)
			break;
		lc_file_queue_rest(&u->q);
		enter_wait(u, deadline_ns);
		reap(u);
		if (u->q.done.head || u->kicked)
			break;
		if (deadline_ns != LC_FOREVER && lc_now_ns() >= deadline_ns)
			break;
	}
	/*
	 * What could follow goes to the device now, not when the owner comes back. The kick's read
	 * alone is not worth a system call: a kick meanwhile is kept by the eventfd.
	 */
	stage(u);
	if (io_uring_sq_ready(&u->ring) > (u->q.inflight ? 0u : 1u))
		enter_now(u);
	u->kicked = false;
	return lc_file_queue_take_done(&u->q);
}

static void uring_kick(struct lc_queue *lq)
{
	lc_file_queue_wake(&uring_of(lq)->q);
}

static void uring_close(struct lc_queue *lq)
{
	struct uring_queue *u = uring_of(lq);

	lc_file_queue_check_owner(&u->q);
	/* The kick's read points into the queue: complete it before the memory goes. */
	if (u->kick_armed) {
		uring_kick(lq);
		while (u->kick_armed) {
			enter_wait(u, LC_FOREVER);
			reap(u);
		}
	}
	/* Failing means that it was not registered, or that the exit of the ring does it. */
	if (u->nr_buffers)
		(void)io_uring_unregister_buffers(&u->ring);
	if (u->files_registered)
		(void)io_uring_unregister_files(&u->ring);
	io_uring_queue_exit(&u->ring);
	lc_file_queue_fini(&u->q);
	free(u->buffers);
	free(u);
}

static const struct lc_queue_ops uring_ops = {
	.submit = lc_file_queue_submit,
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
	if (rc == 0 && !(ring->features & IORING_FEAT_EXT_ARG))
		rc = -ENOSYS;
	else if (rc == 0)
		/* A filter may let us make rings, and not use them: better to know now. */
		rc = io_uring_submit_and_get_events(ring);
	else
		return rc;
	if (rc < 0)
		io_uring_queue_exit(ring);
	return rc < 0 ? rc : 0;
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
static void register_areas(struct uring_queue *u, const struct lc_area *areas, unsigned nr_areas)
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
	u->buffers = calloc(n, sizeof(*u->buffers));
	if (!iov || !u->buffers) {
		tell_memlock(u->q.file, bytes, -ENOMEM);
		free(iov);
		return;
	}
	n = 0;
	for (unsigned i = 0; i < nr_areas; i++) {
		for (size_t at = 0; at < areas[i].len_bytes; at += BUFFER_MAX_BYTES) {
			size_t left = areas[i].len_bytes - at;

			iov[n].iov_base = (u8 *)areas[i].base + at;
			iov[n].iov_len = left < BUFFER_MAX_BYTES ? left : BUFFER_MAX_BYTES;
			u->buffers[n].base = iov[n].iov_base;
			u->buffers[n].len_bytes = iov[n].iov_len;
			n++;
		}
	}
	rc = io_uring_register_buffers(&u->ring, iov, n);
	if (rc == 0)
		u->nr_buffers = n;
	else
		tell_memlock(u->q.file, bytes, rc);
	free(iov);
}

/* The number in a file of /proc/sys/kernel; -1 if there is none. */
static int kernel_setting(const char *name)
{
	char path[64];
	int n = -1;
	FILE *p;

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s", name);
	p = fopen(path, "re");
	if (!p)
		return -1;
	if (fscanf(p, "%d", &n) != 1)
		n = -1;
	fclose(p);
	return n;
}

/* Does a seccomp filter look at what this thread asks the kernel for? */
static bool is_filtered(void)
{
	FILE *p = fopen("/proc/thread-self/status", "re");
	char line[256];
	int mode = 0;

	if (!p)
		return false;
	while (fgets(line, sizeof(line), p) && sscanf(line, "Seccomp: %d", &mode) != 1)
		;
	fclose(p);
	return mode != 0;
}

void lc_uring_why(int rc, char why[LC_URING_WHY_LEN])
{
	bool refused = rc == -EPERM || rc == -EACCES;
	int disabled = refused ? kernel_setting("io_uring_disabled") : -1;
	const char *reason = NULL;

	if (disabled == 2)
		reason = "sysctl kernel.io_uring_disabled is 2";
	else if (disabled == 1)
		reason = "sysctl kernel.io_uring_disabled is 1, and the server neither has "
			 "CAP_SYS_ADMIN nor is in the group kernel.io_uring_group";
	else if ((refused || rc == -ENOSYS) && is_filtered())
		reason = "a seccomp filter forbids it (of the container, or SystemCallFilter= of the "
			 "unit)";
	else if (refused)
		reason = "a security module forbids it";
	else if (rc == -ENOSYS)
		reason = "the kernel has none, or is older than 5.11";
	else if (rc == -EMFILE || rc == -ENFILE)
		reason = "raise the limit on open files (LimitNOFILE=, ulimit -n)";
	else if (rc == -ENOMEM)
		reason = "no memory; before kernel 5.12 it must be locked memory (LimitMEMLOCK=, "
			 "ulimit -l)";
	snprintf(why, LC_URING_WHY_LEN, "%s%s%s", reason ? reason : "", reason ? ": " : "",
		 strerror(-rc));
}

int lc_uring_queue_open(struct lc_file *f, unsigned depth, const struct lc_area *areas,
			unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	struct uring_queue *u = calloc(1, sizeof(*u));
	char why[LC_URING_WHY_LEN];
	int rc;

	if (!u)
		return lc_fail(err, -ENOMEM, "'%s': no memory for a queue: free some", f->path);
	/* The kick's read waits in the ring: the eventfd must not be O_NONBLOCK. */
	rc = lc_file_queue_init(&u->q, &uring_ops, f, depth < DEPTH_MAX ? depth : DEPTH_MAX, 0, err);
	if (rc)
		goto fail_memory;
	rc = create_ring(&u->ring, u->q.depth + 1);
	if (rc) {
		lc_uring_why(rc, why);
		lc_fail(err, rc,
			"'%s': io_uring is not available: %s; remove that obstacle, or use io=auto or "
			"io=libaio",
			f->path, why);
		goto fail_queue;
	}
	u->files_registered = io_uring_register_files(&u->ring, &f->fd, 1) == 0;
	/* Spares a look-up in each system call; without it everything works the same. */
	(void)io_uring_register_ring_fd(&u->ring);
	register_areas(u, areas, nr_areas);
	*out = &u->q.queue;
	return 0;

fail_queue:
	lc_file_queue_fini(&u->q);
fail_memory:
	free(u);
	return rc;
}
