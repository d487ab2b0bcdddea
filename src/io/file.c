/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.c - files and block devices as a store: the table of operations, the choice of the kind of
 * queue, and the question whether two stores are one file.
 *
 * How an I/O is done is in file_io.c, zeros and holes are in file_space.c, several reads at once
 * in file_many.c (over rings.c), the queues in uring.c and aio.c (over queue.c). Calls go down in this order, never up.
 *
 * Locks: none. Any thread may call.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"
#include "file_priv.h"
#include "logcache/rt.h"
#include "rings.h"

static int file_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_io io = {
		.op = LC_IO_READ,
		.buf = buf,
		.len_bytes = len_bytes,
		.offset_bytes = offset_bytes,
	};

	return lc_file_sync_io(lc_file_of(s), &io);
}

static int file_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct lc_io io = {
		.op = LC_IO_WRITE,
		.buf = (void *)(uintptr_t)buf, /* a write only reads it */
		.len_bytes = len_bytes,
		.offset_bytes = offset_bytes,
	};

	return lc_file_sync_io(lc_file_of(s), &io);
}

static int file_flush(struct lc_store *s)
{
	return lc_file_sync_flush(lc_file_of(s));
}

/* --- which kind of queue --- */

/*
 * The only place that chooses. With `auto` whatever keeps io_uring from working is a reason to try
 * libaio: it asks for less (no ring, no locked memory), and a server that runs a little slower is
 * better than none.
 */
static int file_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			   unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	/* The reason holds for the whole process, however many stores and queues there are. */
	static atomic_bool told;
	struct lc_file *f = lc_file_of(s);
	struct lc_error aio_err;
	char why[LC_URING_WHY_LEN];
	int uring_rc, rc;

	if (f->io == LC_FILE_IO_URING)
		return lc_uring_queue_open(f, depth, areas, nr_areas, out, err);
	if (f->io == LC_FILE_IO_AIO)
		return lc_aio_queue_open(f, depth, out, err);
	uring_rc = lc_uring_queue_open(f, depth, areas, nr_areas, out, NULL);
	if (uring_rc == 0)
		return 0;
	lc_uring_why(uring_rc, why);
	rc = lc_aio_queue_open(f, depth, out, &aio_err);
	if (rc)
		return lc_fail(err, rc, "%s; before that io_uring was not available: %s",
			       aio_err.text, why);
	if (!atomic_exchange(&told, true))
		lc_log(LC_LOG_INFO,
		       "'%s': io_uring is not available: %s; libaio is used instead, here and for "
		       "all other files and devices, which takes a little more CPU",
		       f->path, why);
	return 0;
}

static void file_close(struct lc_store *s)
{
	struct lc_file *f = lc_file_of(s);

	/*
	 * The lock is left to close(): an explicit LOCK_UN would take it away from a forked child
	 * that goes on with the same open file. What close() itself says is of no use: everything
	 * that counts was flushed, or is known not to be.
	 */
	lc_rings_unuse();
	if (f->tail_fd >= 0)
		close(f->tail_fd);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

const struct lc_store_ops lc_file_ops = {
	.read = file_read,
	.read_many = lc_file_read_many,
	.write = file_write,
	.flush = file_flush,
	.zero = lc_file_zero,
	.extent = lc_file_extent,
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
