/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_open.c - open a file or block device as a store: refuse, lock, measure.
 *
 * The order matters: look at the type before opening (opening some character devices does things),
 * open exclusively, look again at what was really opened, lock, and only then measure. Nothing is
 * written at any time. Each refusal names the path, the reason and the remedy, because it is read
 * by somebody who wants the server to start.
 *
 * Locks: none; called before a store is shared.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "file_priv.h"
#include "logcache/rt.h"
#include "rings.h"

/*
 * How long to wait for somebody who will soon let go: the kernel holds the files of a killed server's
 * io_uring for a moment after its death, and udev probes a new device under a shared flock.
 */
#define PATIENCE_MS 3000u
#define PATIENCE_OWN_MS 500u
#define STEP_MS 20u

static int refuse_uri(const char *path, struct lc_error *err)
{
	const char *colon = strstr(path, "://");

	/* A path may contain "://", but a scheme has no slash before it. */
	if (!colon || colon == path || memchr(path, '/', (size_t)(colon - path)))
		return 0;
	if (strncmp(path, "nbd", 3) == 0)
		return lc_fail(err, -EOPNOTSUPP,
			       "'%s' is the URI of an NBD server: only the path of a file or block "
			       "device is of use here; attach it with nbd-client and give its device "
			       "(/dev/nbdX)",
			       path);
	return lc_fail(err, -EOPNOTSUPP,
		       "'%s' is a URI, which is not supported: give the path of a file or block "
		       "device (write ./%s if this is a file's name)",
		       path, path);
}

static int refuse_type(const char *path, mode_t mode, struct lc_error *err)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFBLK:
		return 0;
	case S_IFDIR:
		return lc_fail(err, -EISDIR,
			       "'%s' is a directory: give the path of a file in it, or of a block "
			       "device",
			       path);
	case S_IFCHR:
		return lc_fail(err, -ENOTBLK,
			       "'%s' is a character device, which holds no blocks: give a block "
			       "device or a regular file",
			       path);
	case S_IFSOCK:
		return lc_fail(err, -ENOTBLK,
			       "'%s' is a socket: give a block device or a regular file; an NBD "
			       "server is attached with nbd-client first",
			       path);
	default:
		return lc_fail(err, -ENOTBLK,
			       "'%s' is neither a regular file nor a block device: give one of them",
			       path);
	}
}

static int refuse_errno(const char *path, int rc, struct lc_error *err)
{
	switch (-rc) {
	case ENOENT:
	case ENOTDIR:
		return lc_fail(err, rc,
			       "'%s' does not exist: check the path, and that the device is attached",
			       path);
	case EPERM: /* permissions have nothing to do with it: root would get the same */
		return lc_fail(err, rc,
			       "it is forbidden to write to '%s', also for root: it is immutable or "
			       "append-only (lsattr shows that, chattr -i -a ends it), or a policy of the "
			       "unit or container keeps the device from the server (DeviceAllow=)",
			       path);
	case EACCES:
		if (geteuid() == 0)
			return lc_fail(err, rc,
				       "no permission to read and write '%s', although the server runs as "
				       "root: a security module (SELinux, AppArmor), an NFS server that does "
				       "not trust root, or the unit or container forbids it; allow it there",
				       path);
		return lc_fail(err, rc,
			       "no permission to read and write '%s': run the server as root or as "
			       "its owner, or give it access with chown or chmod (the folders above it, too)",
			       path);
	case EROFS:
		return lc_fail(err, rc,
			       "'%s' is read-only: remount its file system read-write, or use "
			       "blockdev --setrw on a device",
			       path);
	case EBUSY:
		return lc_fail(err, rc,
			       "'%s' is in use: mounted, swapped on, part of a RAID or device-mapper "
			       "device, one of its partitions is, or a process (perhaps this same server) "
			       "holds it; see lsblk and fuser, release it, and try again",
			       path);
	case ENOMEDIUM:
	case ENXIO:
		return lc_fail(err, rc, "'%s' has no device or medium behind it (%s): attach it",
			       path, strerror(-rc));
	default:
		return lc_fail(err, rc, "cannot open '%s': %s; check the path and the kernel's log",
			       path, strerror(-rc));
	}
}

/* --- exclusive use --- */

/* Who holds an flock on this file: a process id, or 0 if /proc/locks does not tell. */
static long lock_holder(const struct stat *st)
{
	unsigned long ino;
	unsigned int maj, min;
	long pid, found = 0;
	char line[256], kind[16];
	FILE *p = fopen("/proc/locks", "re");

	if (!p)
		return 0;
	while (!found && fgets(line, sizeof(line), p)) {
		if (sscanf(line, "%*d: %15s %*s %*s %ld %x:%x:%lu", kind, &pid, &maj, &min, &ino) != 5)
			continue;
		if (strcmp(kind, "FLOCK") == 0 && makedev(maj, min) == st->st_dev && ino == st->st_ino)
			found = pid;
	}
	fclose(p);
	return found > 0 ? found : 0;
}

/* The name of a process that lives; a lock outlives the process that took it if that forked. */
static bool process_name(long pid, char *name, size_t n)
{
	char path[64];
	FILE *p;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	p = fopen(path, "re");
	if (!p)
		return false;
	ok = fgets(name, (int)n, p) != NULL;
	fclose(p);
	if (ok)
		name[strcspn(name, "\n")] = '\0';
	return ok;
}

static int refuse_locked(const char *path, const struct stat *st, struct lc_error *err)
{
	long pid = lock_holder(st);
	char name[32];

	if (pid == (long)getpid())
		return lc_fail(err, -EBUSY,
			       "'%s' is in use by this same server: give each file or device to one "
			       "parameter only",
			       path);
	if (pid && process_name(pid, name, sizeof(name)))
		return lc_fail(err, -EBUSY,
			       "'%s' is in use by process %ld (%s), which holds a lock on it: stop that "
			       "process, or give another file or device",
			       path, pid, name);
	return lc_fail(err, -EBUSY,
		       "'%s' is in use by another process, which holds a lock on it (see lslocks and "
		       "fuser): stop that process, or give another file or device",
		       path);
}

/* Wait one step; false when patience is at its end. */
static bool be_patient(unsigned *waited_ms)
{
	struct timespec step = {.tv_nsec = STEP_MS * LC_NS_PER_MS};

	if (*waited_ms >= PATIENCE_MS)
		return false;
	(void)nanosleep(&step, NULL); /* cut short: looks again earlier */
	*waited_ms += STEP_MS;
	return true;
}

static int lock(const struct lc_file *f, const struct stat *st, struct lc_error *err)
{
	unsigned waited_ms = 0;
	char name[32];

	while (flock(f->fd, LOCK_EX | LOCK_NB) < 0) {
		long pid;

		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return lc_fail(err, -errno,
				       "cannot lock '%s': %s; its file system must support flock",
				       f->path, strerror(errno));
		/*
		 * Another process that locked a file and lives will not let go of it. This one may just
		 * have closed it: a ring goes in the background.
		 */
		pid = f->type == S_IFBLK ? 0 : lock_holder(st);
		if (pid == (long)getpid() ? waited_ms >= PATIENCE_OWN_MS :
					    pid && process_name(pid, name, sizeof(name)))
			return refuse_locked(f->path, st, err);
		if (!be_patient(&waited_ms))
			return refuse_locked(f->path, st, err);
	}
	return 0;
}

static int open_exclusive(struct lc_file *f, struct lc_error *err)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOCTTY;
	unsigned waited_ms = 0;
	struct stat st;
	int rc;

	if (stat(f->path, &st) < 0)
		return refuse_errno(f->path, -errno, err);
	rc = refuse_type(f->path, st.st_mode, err);
	if (rc)
		return rc;
	if (S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	f->align_bytes = 0; /* O_DIRECT: measured later */
	do
		f->fd = open(f->path, flags | O_DIRECT);
	while (f->fd < 0 && errno == EBUSY && be_patient(&waited_ms));
	if (f->fd < 0 && errno == EINVAL) {
		f->align_bytes = 1;
		f->fd = open(f->path, flags);
	}
	if (f->fd < 0)
		return refuse_errno(f->path, -errno, err);
	if (fstat(f->fd, &st) < 0)
		return refuse_errno(f->path, -errno, err);
	rc = refuse_type(f->path, st.st_mode, err);
	if (rc)
		return rc;
	f->type = st.st_mode & S_IFMT;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->rdev = st.st_rdev;
	return lock(f, &st, err);
}

/* --- size and alignment --- */

static int measure_device(struct lc_file *f, struct lc_error *err)
{
	int sector_bytes = 0, read_only = 0;
	u64 size_bytes = 0;

	if (ioctl(f->fd, BLKROGET, &read_only) < 0 || ioctl(f->fd, BLKSSZGET, &sector_bytes) < 0 ||
	    ioctl(f->fd, BLKGETSIZE64, &size_bytes) < 0)
		return lc_fail(err, -errno,
			       "cannot find out size and sectors of '%s': %s; is it a block device?",
			       f->path, strerror(errno));
	if (read_only)
		return refuse_errno(f->path, -EROFS, err);
	f->store.size_bytes = size_bytes;
	f->store.block_bytes = (u32)sector_bytes;
	return 0;
}

/*
 * The unit of O_DIRECT on a regular file: *ALIGN_BYTES; above LC_BLOCK it is only known to be
 * larger. -EOPNOTSUPP: this file has no O_DIRECT. Kernels before 6.1 and some file systems don't
 * tell; then trying is the only way, and a read does no harm.
 */
static int direct_alignment(const struct lc_file *f, u32 *align_bytes)
{
	u32 n;
	void *buf;

#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
	    (sx.stx_mask & STATX_DIOALIGN)) {
		if (sx.stx_dio_offset_align == 0 || sx.stx_dio_mem_align > LC_BLOCK)
			return -EOPNOTSUPP;
		*align_bytes = sx.stx_dio_offset_align;
		return 0;
	}
#endif
	buf = lc_alloc(LC_BLOCK);
	if (!buf)
		return -ENOMEM;
	for (n = LC_SECTOR; n <= LC_BLOCK; n *= 2) {
		ssize_t got;

		do {
			got = pread(f->fd, buf, n, 0);
		} while (got < 0 && (errno == EINTR || errno == EAGAIN));
		/* An error other than this one is about the data, not about the alignment. */
		if (got >= 0 || errno != EINVAL)
			break;
	}
	lc_free(buf, LC_BLOCK);
	*align_bytes = n;
	return 0;
}

static int go_buffered(struct lc_file *f, struct lc_error *err)
{
	int flags = fcntl(f->fd, F_GETFL);

	if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return lc_fail(err, -errno,
			       "cannot switch '%s' to buffered I/O: %s; use another "
			       "file system",
			       f->path, strerror(errno));
	f->align_bytes = 1;
	lc_log(LC_LOG_INFO,
	       "'%s': its file system refuses O_DIRECT: its I/O is buffered, that is, cached a second "
	       "time in the kernel's memory; flushes make data durable all the same; ext4, xfs or a "
	       "block device do without",
	       f->path);
	return 0;
}

static int measure_file(struct lc_file *f, struct lc_error *err)
{
	struct stat st;
	u32 align_bytes = 0;
	int rc = -EOPNOTSUPP;

	if (fstat(f->fd, &st) < 0)
		return refuse_errno(f->path, -errno, err);
	f->store.size_bytes = (u64)st.st_size;
	f->store.block_bytes = LC_SECTOR;
	if (f->align_bytes != 1)
		rc = direct_alignment(f, &align_bytes);
	if (rc == -EOPNOTSUPP)
		return go_buffered(f, err);
	if (rc)
		return lc_fail(err, rc, "no memory to open '%s': free some", f->path);
	if (align_bytes > LC_SECTOR)
		f->store.block_bytes = align_bytes;
	return 0;
}

/* Where the main descriptor ends, and a buffered one for what is behind (file_priv.h). */
static int open_tail(struct lc_file *f, struct lc_error *err)
{
	u64 size = f->store.size_bytes;
	u64 page = (u64)sysconf(_SC_PAGESIZE);
	u8 byte;

	f->main_end_bytes = size;
	if (f->align_bytes == 1)
		return 0;
	f->align_bytes = f->store.block_bytes;
	if (size % f->store.block_bytes == 0)
		return 0;
	if (page < LC_BLOCK)
		page = LC_BLOCK;
	f->main_end_bytes = size / page * page;
	f->tail_fd = lc_file_reopen(f, O_RDWR);
	if (f->tail_fd < 0)
		return refuse_errno(f->path, f->tail_fd, err);
	/* Some devices state a size whose last, incomplete block nobody can read: say so now. */
	if (pread(f->tail_fd, &byte, 1, (off_t)(size - 1)) != 1)
		return lc_fail(err, -EIO,
			       "cannot read the last byte of '%s': its size, %llu bytes, is not a "
			       "multiple of its logical block of %u bytes, and its driver cannot "
			       "handle that; change the size of what lies under it",
			       f->path, (unsigned long long)size, f->store.block_bytes);
	return 0;
}

static int measure(struct lc_file *f, struct lc_error *err)
{
	int rc = f->type == S_IFBLK ? measure_device(f, err) : measure_file(f, err);

	if (rc)
		return rc;
	if (f->store.size_bytes == 0)
		return lc_fail(err, -ENODATA,
			       "'%s' is empty (0 bytes): give it a size first (truncate -s, or "
			       "cache-size= for a cache file that does not exist yet)",
			       f->path);
	if (f->store.block_bytes > LC_BLOCK)
		return lc_fail(err, -EOPNOTSUPP,
			       "'%s' needs I/O in units of more than %u bytes, which is not "
			       "supported: format the device with smaller sectors, or use another one",
			       f->path, LC_BLOCK);
	return open_tail(f, err);
}

int lc_file_open(const char *path, unsigned flags, struct lc_store **out, struct lc_error *err)
{
	struct lc_file *f;
	int rc = refuse_uri(path, err);

	assert(!(flags & LC_FILE_IO_URING) || !(flags & LC_FILE_IO_AIO));
	if (rc)
		return rc;
	f = calloc(1, sizeof(*f));
	if (!f)
		return lc_fail(err, -ENOMEM, "no memory to open '%s': free some", path);
	f->fd = -1;
	f->tail_fd = -1;
	f->io = flags & (LC_FILE_IO_URING | LC_FILE_IO_AIO);
	f->store.ops = &lc_file_ops;
	lc_rings_use();
	f->path = strdup(path);
	f->store.name = f->path;
	rc = f->path ? open_exclusive(f, err) :
		       lc_fail(err, -ENOMEM, "no memory to open '%s': free some", path);
	if (!rc)
		rc = measure(f, err);
	if (rc) {
		lc_store_close(&f->store);
		return rc;
	}
	lc_file_probe_space(f);
	*out = &f->store;
	return 0;
}
