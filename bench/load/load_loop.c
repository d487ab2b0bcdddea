/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_loop.c - a file or block device, one request at a time, with system calls alone: the least that such a
 * request can cost.
 */
#include "load.h"
#include "load_file.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void carry_out(const struct load_worker *w, struct load_slot *s, int fd)
{
	struct iovec iov = {.iov_base = s->buffer, .iov_len = w->load->options.block_bytes};
	off_t at = (off_t)s->offset_bytes;
	ssize_t n = 0;

	switch (s->op) {
	case LOAD_READ:
		n = preadv2(fd, &iov, 1, at, 0);
		break;
	case LOAD_WRITE:
		n = pwritev2(fd, &iov, 1, at, s->fua ? RWF_DSYNC : 0);
		break;
	case LOAD_FLUSH:
		n = fdatasync(fd) < 0 ? -1 : (ssize_t)iov.iov_len;
		break;
	case NR_LOAD_OPS:
		break;
	}
	if (n != (ssize_t)iov.iov_len)
		load_die("%s: %s", w->load->options.target, n < 0 ? strerror(errno) : "a short I/O");
}

static void run_loop(struct load_worker *w)
{
	int fd = load_file_fd(w);

	while (load_next(w, w->slots)) {
		carry_out(w, w->slots, fd);
		load_done(w, w->slots);
	}
}

const struct load_engine load_loop = {load_file_open, run_loop, load_file_close};
