/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_uring.c - a file or block device through io_uring: as many requests at a time as are wanted. Also the file
 * itself, for load_loop.c.
 */
#include "load.h"
#include "load_file.h"

#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct file {
	int fd;
	struct io_uring ring;
	bool have_ring;
};

u64 load_file_open(struct load_worker *w)
{
	const struct load_options *o = &w->load->options;
	struct file *f = load_alloc(1, sizeof(*f));
	off_t size;

	w->engine = f;
	f->fd = open(o->target, (o->op == LOAD_READ ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
	if (f->fd < 0)
		load_die("%s: %s", o->target, strerror(errno));
	size = lseek(f->fd, 0, SEEK_END); /* works for block devices, too */
	if (size < 0)
		load_die("%s: %s", o->target, strerror(errno));
	return (u64)size;
}

int load_file_fd(const struct load_worker *w)
{
	return ((struct file *)w->engine)->fd;
}

void load_file_close(struct load_worker *w)
{
	struct file *f = w->engine;

	if (f->have_ring)
		io_uring_queue_exit(&f->ring);
	close(f->fd);
	free(f);
}

static void prepare(struct file *f, struct load_slot *s)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
	u32 bytes = s->worker->load->options.block_bytes;

	switch (s->op) {
	case LOAD_READ:
		io_uring_prep_read(sqe, f->fd, s->buffer, bytes, s->offset_bytes);
		break;
	case LOAD_WRITE:
		io_uring_prep_write(sqe, f->fd, s->buffer, bytes, s->offset_bytes);
		if (s->fua)
			sqe->rw_flags = RWF_DSYNC;
		break;
	case LOAD_FLUSH:
		io_uring_prep_fsync(sqe, f->fd, IORING_FSYNC_DATASYNC);
		break;
	case NR_LOAD_OPS:
		break;
	}
	io_uring_sqe_set_data(sqe, s);
}

static void complete(struct load_worker *w, struct io_uring_cqe *cqe)
{
	struct load_slot *s = io_uring_cqe_get_data(cqe);
	int wanted = s->op == LOAD_FLUSH ? 0 : (int)w->load->options.block_bytes;

	if (cqe->res != wanted)
		load_die("%s: %s", w->load->options.target,
			 cqe->res < 0 ? strerror(-cqe->res) : "a short I/O");
	load_done(w, s);
}

static void run_uring(struct load_worker *w)
{
	struct file *f = w->engine;
	u32 depth = w->load->options.depth, in_flight = 0;
	int err = io_uring_queue_init(depth, &f->ring, 0);

	if (err < 0)
		load_die("io_uring: %s", strerror(-err));
	f->have_ring = true;
	for (u32 i = 0; i < depth; i++) {
		if (load_next(w, &w->slots[i])) {
			prepare(f, &w->slots[i]);
			in_flight++;
		}
	}
	while (in_flight) {
		struct io_uring_cqe *cqe;
		unsigned head, nr = 0;

		err = io_uring_submit_and_wait(&f->ring, 1);
		if (err < 0 && err != -EINTR)
			load_die("io_uring: %s", strerror(-err));
		io_uring_for_each_cqe(&f->ring, head, cqe)
		{
			struct load_slot *s = io_uring_cqe_get_data(cqe);

			nr++;
			complete(w, cqe);
			in_flight--;
			if (load_next(w, s)) {
				prepare(f, s);
				in_flight++;
			}
		}
		io_uring_cq_advance(&f->ring, nr);
	}
}

const struct load_engine load_uring = {load_file_open, run_uring, load_file_close};
