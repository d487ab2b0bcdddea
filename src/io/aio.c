/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * aio.c - the queue of the file store on libaio, for where there is no io_uring.
 *
 * One queue is one context of the kernel; queue.h shows the way of an I/O. start() and wait() send
 * what DEPTH allows, some dozens in a system call. The kernel copies what describes an I/O while it takes
 * it, and hands the address of our struct lc_io back: nothing is kept here for an I/O in flight.
 *
 * Waiting: each I/O signals the queue's eventfd when it completes, and so does a kick, after it has set
 * a flag. The owner sleeps on this one eventfd. It empties it before it looks at completions and
 * flag, never after: a signal that it swallows stands for something that it is about to see.
 *
 * What libaio cannot do as well as io_uring
 *   - Files without O_DIRECT: the I/O is done during io_submit(), in the owner's thread. Works, slowly.
 *   - With O_DIRECT, io_submit() still waits where the file system does: for blocks to be allocated
 *     (a sparse file), or for the device when its queue is full.
 *   - Flush is IO_CMD_FDSYNC, which is done by a thread of the kernel. File systems without it, and
 *     kernels before 4.18, say EINVAL: then the owner calls fdatasync() itself, and waits.
 *   - Contexts are limited for the whole system (sysctl fs.aio-max-nr).
 *   - Memory cannot be registered: the areas that the caller names are of no use.
 *
 * At close the kernel waits for what holds the file, so the lock on it falls with the store.
 *
 * Locks: none. The owner alone touches the queue; kick() sets an atomic flag and writes to the eventfd.
 */
#include <libaio.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "file_priv.h"
#include "logcache/rt.h"
#include "queue.h"

/* What the context could hold; fs.aio-max-nr, 65536 by default, is for all of the system. */
#define DEPTH_MAX 1024u
/* How much goes through one system call. */
#define BATCH 64u

struct aio_queue {
	struct lc_file_queue q;
	io_context_t context;
	atomic_bool kicked;
	bool no_fdsync;
};

static struct aio_queue *aio_of(struct lc_queue *q)
{
	return (struct aio_queue *)q; /* the first member of the first member */
}

/* --- into the kernel --- */

static void prepare(const struct aio_queue *a, struct iocb *cb, struct lc_io *io)
{
	struct lc_file *f = a->q.file;
	u8 *buf = (u8 *)io->buf + io->done_bytes;
	u64 offset = io->offset_bytes + io->done_bytes;
	u32 n = lc_file_main_bytes(f, io) - io->done_bytes;

	if (io->op == LC_IO_FLUSH)
		io_prep_fdsync(cb, f->fd);
	else if (io->op == LC_IO_READ)
		io_prep_pread(cb, f->fd, buf, n, (long long)offset);
	else
		io_prep_pwrite(cb, f->fd, buf, n, (long long)offset);
	io_set_eventfd(cb, a->q.event_fd);
	cb->data = io;
}

/* IO, which the kernel got, is complete with RES. */
static void completed(struct aio_queue *a, struct lc_io *io, int64_t res)
{
	if (io->op == LC_IO_FLUSH && res == -EINVAL) {
		a->no_fdsync = true;
		res = lc_file_sync_flush(a->q.file);
	}
	lc_file_queue_completed(&a->q, io, res);
}

/* The first I/O of the FIFO is one that completes, with RES, without the kernel's queue. */
static void complete_next(struct aio_queue *a, int64_t res)
{
	struct lc_io *io = lc_file_queue_next(&a->q);

	lc_file_queue_sent(&a->q);
	completed(a, io, res);
}

/* Send what may go. It stops when the kernel is out of resources; wait() will try again. */
static void stage(struct aio_queue *a)
{
	struct iocb cbs[BATCH], *list[BATCH];

	while (lc_file_queue_next(&a->q) && !a->q.starved) {
		struct lc_io *io = lc_file_queue_next(&a->q);
		unsigned n = 0;
		int rc;

		if (io->op == LC_IO_FLUSH && a->no_fdsync) {
			complete_next(a, -EINVAL);
			continue;
		}
		for (; io && n < BATCH && a->q.inflight + n < a->q.depth; io = io->next, n++) {
			if (io->op == LC_IO_FLUSH && a->no_fdsync)
				break;
			prepare(a, &cbs[n], io);
			list[n] = &cbs[n];
		}
		rc = io_submit(a->context, n, list);
		/* Fewer than N: the next round begins with what was refused, and hears why. */
		for (int i = 0; i < rc; i++)
			lc_file_queue_sent(&a->q);
		if (rc > 0 || rc == -EINTR)
			continue;
		if (rc == 0 || rc == -EAGAIN || rc == -ENOMEM)
			a->q.starved = true;
		else
			complete_next(a, rc);
	}
}

/* --- out of the kernel --- */

static void reap(struct aio_queue *a)
{
	struct io_event events[BATCH];
	int n;

	do {
		struct timespec now = {0};

		/* No system call if there is nothing: libaio looks at the kernel's ring itself. */
		n = io_getevents(a->context, 0, BATCH, events, &now);
		for (int i = 0; i < n; i++)
			completed(a, events[i].data, (int64_t)(long)events[i].res);
	} while (n == (int)BATCH || n == -EINTR);
	if (n < 0) {
		lc_file_queue_tell_refused(&a->q, "io_getevents", n);
		a->q.starved = true;
	}
}

/* Sleep until the eventfd is signalled or the deadline comes, and empty it. */
static void sleep_until(struct aio_queue *a, u64 deadline_ns)
{
	struct pollfd p = {.fd = a->q.event_fd, .events = POLLIN};
	struct timespec ts, *timeout = NULL;
	u64 now_ns, count;

	if (deadline_ns != LC_FOREVER) {
		now_ns = lc_now_ns();
		if (deadline_ns <= now_ns)
			return;
		ts.tv_sec = (time_t)((deadline_ns - now_ns) / LC_NS_PER_S);
		ts.tv_nsec = (long)((deadline_ns - now_ns) % LC_NS_PER_S);
		timeout = &ts;
	}
	/* A signal ends it early; the caller finds nothing, and comes again. */
	if (ppoll(&p, 1, timeout, NULL) > 0)
		(void)!read(a->q.event_fd, &count, sizeof(count)); /* nobody else reads: it is there */
}

/* --- the operations --- */

static void aio_start(struct lc_queue *lq)
{
	struct aio_queue *a = aio_of(lq);

	lc_file_queue_check_owner(&a->q);
	stage(a);
}

static struct lc_io *aio_wait(struct lc_queue *lq, u64 deadline_ns)
{
	struct aio_queue *a = aio_of(lq);
	bool kicked;

	lc_file_queue_check_owner(&a->q);
	for (;;) {
		lc_file_queue_rest(&a->q);
		stage(a);
		reap(a);
		kicked = atomic_exchange(&a->kicked, false);
		if (a->q.done.head || kicked)
			break;
		if (deadline_ns != LC_FOREVER && lc_now_ns() >= deadline_ns)
			break;
		/* What was reaped may have to go on, and to be sent before we sleep. */
		if (!lc_file_queue_next(&a->q) && !a->q.starved)
			sleep_until(a, deadline_ns);
	}
	/* What could follow goes to the device now, not when the owner comes back. */
	stage(a);
	return lc_file_queue_take_done(&a->q);
}

static void aio_kick(struct lc_queue *lq)
{
	struct aio_queue *a = aio_of(lq);

	/* If it is set already, whoever did that also signals. */
	if (!atomic_exchange(&a->kicked, true))
		lc_file_queue_wake(&a->q);
}

static void aio_close(struct lc_queue *lq)
{
	struct aio_queue *a = aio_of(lq);

	lc_file_queue_check_owner(&a->q);
	/* It can only fail for a context that does not exist. */
	(void)io_destroy(a->context);
	lc_file_queue_fini(&a->q);
	free(a);
}

static const struct lc_queue_ops aio_ops = {
	.submit = lc_file_queue_submit,
	.start = aio_start,
	.wait = aio_wait,
	.kick = aio_kick,
	.close = aio_close,
};

/* --- opening --- */

static int refuse_setup(const struct lc_file *f, int rc, struct lc_error *err)
{
	switch (-rc) {
	case EAGAIN:
		return lc_fail(err, rc,
			       "'%s': libaio is not available: all of the system's contexts are in use; "
			       "raise sysctl fs.aio-max-nr",
			       f->path);
	case ENOSYS:
	case EPERM:
		return lc_fail(err, rc,
			       "'%s': libaio is not available (%s): the kernel was built without it, or "
			       "a seccomp filter forbids it; allow io_setup, io_submit, io_getevents and "
			       "io_destroy, or io_uring",
			       f->path, strerror(-rc));
	default:
		return lc_fail(err, rc, "'%s': libaio is not available: %s; see the kernel's log",
			       f->path, strerror(-rc));
	}
}

int lc_aio_queue_open(struct lc_file *f, unsigned depth, struct lc_queue **out, struct lc_error *err)
{
	struct aio_queue *a = calloc(1, sizeof(*a));
	int rc;

	if (!a)
		return lc_fail(err, -ENOMEM, "'%s': no memory for a queue: free some", f->path);
	rc = lc_file_queue_init(&a->q, &aio_ops, f, depth < DEPTH_MAX ? depth : DEPTH_MAX,
				EFD_NONBLOCK, err);
	if (rc)
		goto fail_memory;
	rc = io_setup((int)a->q.depth, &a->context);
	if (rc) {
		refuse_setup(f, rc, err);
		goto fail_queue;
	}
	*out = &a->q.queue;
	return 0;

fail_queue:
	lc_file_queue_fini(&a->q);
fail_memory:
	free(a);
	return rc;
}
