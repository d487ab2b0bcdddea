/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue.c - what the kinds of queues of the file store have in common: the lists of I/O that wait and
 * that are done, and the eventfd of the kicks. queue.h shows the way of an I/O.
 *
 * Locks: none. The owner alone touches a queue, but for lc_file_queue_wake().
 */
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "logcache/rt.h"
#include "queue.h"

static void append(struct lc_io_list *l, struct lc_io *io)
{
	io->next = NULL;
	if (l->head)
		l->tail->next = io;
	else
		l->head = io;
	l->tail = io;
}

static void prepend(struct lc_io_list *l, struct lc_io *io)
{
	if (!l->head)
		l->tail = io;
	io->next = l->head;
	l->head = io;
}

int lc_file_queue_init(struct lc_file_queue *q, const struct lc_queue_ops *ops, struct lc_file *f,
		       unsigned depth, int event_flags, struct lc_error *err)
{
	assert(depth > 0);
	*q = (struct lc_file_queue){
		.queue.ops = ops,
		.file = f,
		.owner = pthread_self(),
		.depth = depth,
	};
	q->event_fd = eventfd(0, EFD_CLOEXEC | event_flags);
	if (q->event_fd < 0)
		return lc_fail(err, -errno,
			       "'%s': cannot create an eventfd: %s; raise the limit on open files "
			       "(LimitNOFILE=, ulimit -n)",
			       f->path, strerror(errno));
	return 0;
}

void lc_file_queue_fini(struct lc_file_queue *q)
{
	assert(q->inflight == 0 && !q->waiting.head && !q->done.head);
	close(q->event_fd);
}

void lc_file_queue_submit(struct lc_queue *lq, struct lc_io *io)
{
	struct lc_file_queue *q = (struct lc_file_queue *)lq; /* the first member */

	lc_file_queue_check_owner(q);
	if (io->op != LC_IO_FLUSH)
		lc_store_check(&q->file->store, io->buf, io->len_bytes, io->offset_bytes);
	io->done_bytes = 0;
	io->result = lc_file_tail(q->file, io);
	if (io->result || (io->op != LC_IO_FLUSH && lc_file_main_bytes(q->file, io) == 0))
		append(&q->done, io);
	else
		append(&q->waiting, io);
}

void lc_file_queue_sent(struct lc_file_queue *q)
{
	assert(q->waiting.head && q->inflight < q->depth);
	q->waiting.head = q->waiting.head->next;
	q->inflight++;
}

void lc_file_queue_completed(struct lc_file_queue *q, struct lc_io *io, int64_t res)
{
	struct lc_file *f = q->file;

	assert(q->inflight > 0);
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

void lc_file_queue_wake(const struct lc_file_queue *q)
{
	u64 one = 1;

	/* Only a signal can keep it from being written: the counter holds 2^64 kicks. */
	while (write(q->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void lc_file_queue_rest(struct lc_file_queue *q)
{
	if (q->starved) {
		q->starved = false;
		lc_file_nap();
	}
}

struct lc_io *lc_file_queue_take_done(struct lc_file_queue *q)
{
	struct lc_io *list = q->done.head;

	q->done.head = NULL;
	return list;
}

void lc_file_queue_tell_refused(struct lc_file_queue *q, const char *what, int rc)
{
	if (q->told_refused)
		return;
	q->told_refused = true;
	lc_log(LC_LOG_ERROR,
	       "'%s': the kernel refuses %s (%s): its I/O stands still until that ends; look for a "
	       "seccomp filter that was installed after the start",
	       q->file->path, what, strerror(-rc));
}
