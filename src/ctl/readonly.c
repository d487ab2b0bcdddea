/* SPDX-License-Identifier: BSD-3-Clause */
#include "readonly.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The kernel holds the files of a killed server for a moment after its death. */
#define PATIENCE_MS 1000u
#define STEP_MS 20u

struct readonly {
	struct lc_store store;
	char *path;
	int fd;
};

static struct readonly *readonly_of(struct lc_store *s)
{
	return (struct readonly *)s; /* its first member */
}

static int readonly_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	struct readonly *r = readonly_of(s);
	u32 done = 0;

	while (done < len_bytes) {
		ssize_t got = pread(r->fd, (u8 *)buf + done, len_bytes - done,
				    (off_t)(offset_bytes + done));

		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0)
			return -errno;
		if (got == 0) { /* the last block reaches past the end */
			memset((u8 *)buf + done, 0, len_bytes - done);
			break;
		}
		done += (u32)got;
	}
	return 0;
}

static int readonly_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	(void)s;
	(void)buf;
	(void)len_bytes;
	(void)offset_bytes;
	return -EROFS;
}

static int readonly_flush(struct lc_store *s)
{
	(void)s; /* nothing was written */
	return 0;
}

static int readonly_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			       unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	(void)depth;
	(void)areas;
	(void)nr_areas;
	(void)out;
	return lc_fail(err, -EOPNOTSUPP, "%s: no queues", s->name);
}

static void readonly_close(struct lc_store *s)
{
	struct readonly *r = readonly_of(s);

	if (r->fd >= 0)
		close(r->fd);
	free(r->path);
	free(r);
}

/* Somebody's lock goes away, or it is refused. */
static int lock(struct readonly *r, struct lc_error *err)
{
	struct timespec step = {.tv_nsec = STEP_MS * LC_NS_PER_MS};

	for (unsigned waited_ms = 0; flock(r->fd, LOCK_SH | LOCK_NB) < 0; waited_ms += STEP_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return lc_fail(err, -errno,
				       "cannot lock '%s': %s; its file system must support flock",
				       r->path, strerror(errno));
		if (waited_ms >= PATIENCE_MS)
			return lc_fail(err, -EBUSY,
				       "'%s' is in use by another process, most likely a server, which "
				       "changes it all the time: stop that first (see lslocks and fuser)",
				       r->path);
		(void)nanosleep(&step, NULL); /* cut short: looks again earlier */
	}
	return 0;
}

static int measure(struct readonly *r, struct lc_error *err)
{
	struct stat st;
	u64 size_bytes;

	if (fstat(r->fd, &st) < 0)
		return lc_fail(err, -errno, "cannot look at '%s': %s", r->path, strerror(errno));
	size_bytes = (u64)st.st_size;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return lc_fail(err, -ENOTBLK,
			       "'%s' is neither a regular file nor a block device: give one of them",
			       r->path);
	if (S_ISBLK(st.st_mode) && ioctl(r->fd, BLKGETSIZE64, &size_bytes) < 0)
		return lc_fail(err, -errno, "cannot find out the size of '%s': %s", r->path,
			       strerror(errno));
	r->store.size_bytes = size_bytes;
	return 0;
}

/* Some file systems take O_DIRECT when opening, and refuse it when reading. */
static int without_direct(struct readonly *r)
{
	void *block = NULL;
	int rc = 0;

	if (posix_memalign(&block, LC_BLOCK, LC_BLOCK))
		return -ENOMEM;
	if (pread(r->fd, block, LC_BLOCK, 0) < 0 && errno == EINVAL)
		rc = fcntl(r->fd, F_SETFL, fcntl(r->fd, F_GETFL) & ~O_DIRECT) < 0 ? -errno : 0;
	free(block);
	return rc;
}

static int open_path(struct readonly *r, struct lc_error *err)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int rc;

	/* O_DIRECT: what the device has is of interest, not what the kernel's memory has. */
	r->fd = open(r->path, flags | O_DIRECT);
	if (r->fd < 0 && errno == EINVAL)
		r->fd = open(r->path, flags);
	if (r->fd < 0 && errno == ENOENT)
		return lc_fail(err, -errno, "'%s' does not exist: check the path", r->path);
	if (r->fd < 0 && errno == EACCES)
		return lc_fail(err, -errno,
			       "no permission to read '%s': run this as root or as its owner",
			       r->path);
	if (r->fd < 0)
		return lc_fail(err, -errno,
			       "cannot open '%s': %s; check the path and the kernel's log", r->path,
			       strerror(errno));
	rc = measure(r, err);
	if (!rc)
		rc = lock(r, err);
	if (!rc && without_direct(r))
		rc = lc_fail(err, -EIO, "cannot read '%s' without O_DIRECT", r->path);
	return rc;
}

int readonly_open(const char *path, struct lc_store **out, struct lc_error *err)
{
	static const struct lc_store_ops ops = {
		.read = readonly_read,
		.write = readonly_write,
		.flush = readonly_flush,
		.queue_open = readonly_queue_open,
		.close = readonly_close,
	};
	struct readonly *r = calloc(1, sizeof *r);
	int rc;

	if (!r)
		return lc_fail(err, -ENOMEM, "no memory to open '%s'", path);
	r->fd = -1;
	r->path = strdup(path);
	r->store = (struct lc_store){.ops = &ops, .name = r->path, .block_bytes = LC_BLOCK};
	rc = r->path ? open_path(r, err) : lc_fail(err, -ENOMEM, "no memory to open '%s'", path);
	if (rc) {
		readonly_close(&r->store);
		return rc;
	}
	*out = &r->store;
	return 0;
}
