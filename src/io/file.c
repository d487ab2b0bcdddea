/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.c - I/O on files and block devices: the synchronous calls, and what the queues share with
 * them.
 *
 * A read or write is cut as file_priv.h shows: the main part goes through the O_DIRECT descriptor,
 * an unaligned end of the file through the buffered one. lc_file_account() decides after each
 * attempt, synchronous or from a ring, whether an I/O is complete, failed, or must go on; unit
 * tests feed it what a healthy kernel does not say.
 *
 * Locks: none. Everything works on positions of its own (pread, pwrite); any thread may call.
 *
 * Errors of the page cache are reported once for each descriptor, to whoever flushes first. There
 * is one main descriptor: a failed flush, synchronous or in a queue, speaks for all writes so far.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "file_priv.h"
#include "logcache/rt.h"

bool lc_file_account(struct lc_io *io, u32 want_bytes, u32 align_bytes, int64_t res)
{
	u32 done;

	if (res == -EINTR || res == -EAGAIN)
		return false;
	if (res < 0) {
		io->result = (int)res;
		return true;
	}
	if (io->op == LC_IO_FLUSH) {
		io->result = 0;
		return true;
	}
	assert(res <= want_bytes - io->done_bytes);
	if (res == want_bytes - io->done_bytes) {
		io->done_bytes = want_bytes;
		io->result = 0;
		return true;
	}
	/* O_DIRECT cannot go on from the middle of a logical block: do that block again. */
	done = (u32)(io->done_bytes + res) / align_bytes * align_bytes;
	if (done <= io->done_bytes) {
		/* No progress, and no reason given. For a read: the file ends too early. */
		io->result = -EIO;
		return true;
	}
	io->done_bytes = done;
	return false;
}

void lc_file_tell_shrunk(struct lc_file *f)
{
	if (!atomic_exchange(&f->told_shrunk, true))
		lc_log(LC_LOG_ERROR,
		       "'%s' ends before its size of %llu bytes: it shrank while it was in use; "
		       "stop the server, restore the file to that size, and check the data",
		       f->path, (unsigned long long)f->store.size_bytes);
}

void lc_file_nap(void)
{
	struct timespec ms = {.tv_nsec = LC_NS_PER_MS};

	/* Cut short by a signal is fine: the caller tries again either way. */
	(void)nanosleep(&ms, NULL);
}

u32 lc_file_main_bytes(const struct lc_file *f, const struct lc_io *io)
{
	if (io->op == LC_IO_FLUSH || io->offset_bytes >= f->main_end_bytes)
		return 0;
	if (io->len_bytes > f->main_end_bytes - io->offset_bytes)
		return (u32)(f->main_end_bytes - io->offset_bytes);
	return io->len_bytes;
}

/* All of IO's first WANT bytes through FD, at its buffer + SKIP. */
static int transfer(struct lc_file *f, int fd, struct lc_io *io, u32 skip, u32 want, u32 align)
{
	u8 *buf = (u8 *)io->buf + skip;
	u64 offset = io->offset_bytes + skip;
	int64_t res;

	io->done_bytes = 0;
	for (;;) {
		u32 at = io->done_bytes;

		if (io->op == LC_IO_READ)
			res = pread(fd, buf + at, want - at, (off_t)(offset + at));
		else
			res = pwrite(fd, buf + at, want - at, (off_t)(offset + at));
		if (res < 0)
			res = -errno;
		if (lc_file_account(io, want, align, res))
			break;
		if (res == -EAGAIN)
			lc_file_nap();
	}
	if (io->op == LC_IO_READ && io->result == -EIO && res >= 0)
		lc_file_tell_shrunk(f);
	return io->result;
}

int lc_file_tail(struct lc_file *f, struct lc_io *io)
{
	u64 size = f->store.size_bytes;
	u64 end = io->offset_bytes + io->len_bytes;
	u32 skip = lc_file_main_bytes(f, io);
	int rc = 0;

	if (io->op == LC_IO_FLUSH || skip == io->len_bytes)
		return 0;
	if (io->offset_bytes + skip < size) {
		u64 stop = end < size ? end : size;

		assert(f->tail_fd >= 0);
		rc = transfer(f, f->tail_fd, io, skip, (u32)(stop - io->offset_bytes - skip), 1);
		io->done_bytes = 0; /* the main part counts from its own start */
	}
	if (io->op == LC_IO_READ && end > size) {
		/* A whole I/O of sectors can lie behind the end, in the last block. */
		u64 from = io->offset_bytes > size ? io->offset_bytes : size;

		memset((u8 *)io->buf + (from - io->offset_bytes), 0, end - from);
	}
	return rc;
}

static int sync_io(struct lc_file *f, struct lc_io *io)
{
	u32 want = lc_file_main_bytes(f, io);
	int rc = lc_file_tail(f, io);

	if (rc || !want)
		return rc;
	return transfer(f, f->fd, io, 0, want, f->align_bytes);
}

static int file_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_io io = {
		.op = LC_IO_READ,
		.buf = buf,
		.len_bytes = len_bytes,
		.offset_bytes = offset_bytes,
	};

	return sync_io(lc_file_of(s), &io);
}

static int file_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_io io = {
		.op = LC_IO_WRITE,
		.buf = (void *)(uintptr_t)buf, /* a write only reads it */
		.len_bytes = len_bytes,
		.offset_bytes = offset_bytes,
	};

	return sync_io(lc_file_of(s), &io);
}

static int file_flush(struct lc_store *s)
{
	struct lc_file *f = lc_file_of(s);

	while (fdatasync(f->fd) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* The only place that chooses between kinds of queues. */
static int file_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			   unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	return lc_uring_queue_open(lc_file_of(s), depth, areas, nr_areas, out, err);
}

static void file_close(struct lc_store *s)
{
	struct lc_file *f = lc_file_of(s);

	/*
	 * The lock is left to close(): an explicit LOCK_UN would take it away from a forked child
	 * that goes on with the same open file. What close() itself says is of no use: everything
	 * that counts was flushed, or is known not to be.
	 */
	if (f->tail_fd >= 0)
		close(f->tail_fd);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

const struct lc_store_ops lc_file_ops = {
	.read = file_read,
	.write = file_write,
	.flush = file_flush,
	.queue_open = file_queue_open,
	.close = file_close,
};

/* --- identity --- */

static bool same(mode_t type_a, dev_t dev_a, ino_t ino_a, dev_t rdev_a, mode_t type_b, dev_t dev_b,
		 ino_t ino_b, dev_t rdev_b)
{
	if (type_a != type_b)
		return false;
	/* A device may have several nodes, with different inodes. */
	if (type_a == S_IFBLK)
		return rdev_a == rdev_b;
	return dev_a == dev_b && ino_a == ino_b;
}

bool lc_file_same(const struct lc_store *a, const struct lc_store *b)
{
	const struct lc_file *fa = (const struct lc_file *)a;
	const struct lc_file *fb = (const struct lc_file *)b;

	if (a->ops != &lc_file_ops || b->ops != &lc_file_ops)
		return false;
	return same(fa->type, fa->dev, fa->ino, fa->rdev, fb->type, fb->dev, fb->ino, fb->rdev);
}

int lc_file_same_path(const char *a, const char *b)
{
	struct stat sa, sb;

	if (stat(a, &sa) < 0 || stat(b, &sb) < 0)
		return -errno;
	return same(sa.st_mode & S_IFMT, sa.st_dev, sa.st_ino, sa.st_rdev, sb.st_mode & S_IFMT,
		    sb.st_dev, sb.st_ino, sb.st_rdev);
}

int lc_file_reopen(const struct lc_file *f, int flags)
{
	struct stat st;
	int fd = open(f->path, flags | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	if (!same(f->type, f->dev, f->ino, f->rdev, st.st_mode & S_IFMT, st.st_dev, st.st_ino,
		  st.st_rdev)) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}
