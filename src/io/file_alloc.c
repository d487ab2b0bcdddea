/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_alloc.c - the blocks under a cache file: create one that is fully written, warn about
 * others.
 *
 * A block of a file can be missing (sparse), allocated but unwritten (fallocate), or written. In
 * the first two cases the first write to it changes the file system's metadata, and the flush that
 * follows has to commit its journal: half the flushes per second. A missing block may also find the
 * file system full, in the middle of the log. So lc_file_create() writes zeros, all of them.
 *
 * It allocates before it writes: the space is contiguous, known to suffice after a moment instead
 * of after an hour, and the file has its full size from the start.
 *
 * Locks: none, and no state; the file under construction is held with flock like an open store.
 */
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "file.h"
#include "file_priv.h"
#include "logcache/rt.h"

#define CHUNK_BYTES (4u << 20)
/* Without O_DIRECT: push what was written to the disk so often, or the last fsync takes minutes. */
#define PUSH_BYTES (64ull << 20)
#define PROGRESS_NS (1 * LC_NS_PER_S)

static double mib(u64 bytes)
{
	return (double)bytes / (1 << 20);
}

/* --- a cache file that exists already --- */

/* How many bytes of the file are allocated but unwritten; 0 as well where nobody can tell. */
static u64 unwritten_bytes(const struct lc_file *f)
{
	enum { EXTENTS = 128 };
	size_t n = sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent);
	struct fiemap *map = calloc(1, n);
	u64 at = 0, sum = 0;
	bool last = false;

	if (!map)
		return 0; /* it is about a warning only */
	while (!last && at < f->store.size_bytes) {
		memset(map, 0, n);
		map->fm_start = at;
		map->fm_length = f->store.size_bytes - at;
		map->fm_extent_count = EXTENTS;
		if (ioctl(f->fd, FS_IOC_FIEMAP, map) < 0 || map->fm_mapped_extents == 0)
			break;
		for (u32 i = 0; i < map->fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];

			if (e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				sum += e->fe_length;
			last = last || (e->fe_flags & FIEMAP_EXTENT_LAST);
			at = e->fe_logical + e->fe_length;
		}
	}
	free(map);
	return sum;
}

void lc_file_warn_cache(struct lc_store *s)
{
	const struct lc_file *f = lc_file_of(s);
	struct stat st;
	u64 have, unwritten;

	if (f->type != S_IFREG || fstat(f->fd, &st) < 0)
		return;
	have = (u64)st.st_blocks * 512;
	if (have < f->store.size_bytes) {
		lc_log(LC_LOG_WARNING,
		       "cache file '%s' is sparse: %.0f MiB of %.0f MiB have no space on the disk yet; "
		       "flushes are slow, and the cache fails when the file system is full; "
		       "shut down with on-exit=drain, remove the file, and let cache-size= create it",
		       f->path, mib(f->store.size_bytes - have), mib(f->store.size_bytes));
		return;
	}
	unwritten = unwritten_bytes(f);
	if (unwritten)
		lc_log(LC_LOG_WARNING,
		       "cache file '%s' is allocated, but %.0f MiB of %.0f MiB were never written; "
		       "flushes take twice as long until they are; "
		       "shut down with on-exit=drain, remove the file, and let cache-size= create it",
		       f->path, mib(unwritten), mib(f->store.size_bytes));
}

/* --- creating one --- */

/* The folder of PATH, which the caller frees; NULL if there is no memory. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	if (slash == path)
		return strdup("/");
	return strndup(path, (size_t)(slash - path));
}

/* What the file system of FD can still take for us; false if it does not say. */
static bool free_bytes(int fd, u64 *bytes)
{
	struct statvfs v;

	if (fstatvfs(fd, &v) < 0 || v.f_blocks == 0)
		return false;
	*bytes = (u64)(geteuid() == 0 ? v.f_bfree : v.f_bavail) * v.f_frsize;
	return true;
}

static int no_space(const char *path, u64 size_bytes, u64 missing_bytes, struct lc_error *err)
{
	return lc_fail(err, -ENOSPC,
		       "no space for cache file '%s' of %.1f MiB: %.1f MiB are missing on its file "
		       "system; give a smaller cache-size, or free some space",
		       path, mib(size_bytes), mib(missing_bytes));
}

static int write_failed(const char *path, u64 size_bytes, u64 done_bytes, int rc, struct lc_error *err)
{
	if (rc == -ENOSPC || rc == -EDQUOT)
		return no_space(path, size_bytes, size_bytes - done_bytes, err);
	return lc_fail(err, rc,
		       "cannot create cache file '%s': writing at byte %llu of %llu failed: %s; the file "
		       "was removed; check the limits on file sizes (ulimit -f) and the kernel's log",
		       path, (unsigned long long)done_bytes, (unsigned long long)size_bytes,
		       strerror(-rc));
}

static int write_all(int fd, const void *buf, u64 n, u64 offset)
{
	u64 done = 0;

	while (done < n) {
		ssize_t put = pwrite(fd, (const u8 *)buf + done, n - done, (off_t)(offset + done));

		if (put < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		done += (u64)put;
		/* O_DIRECT goes on from whole blocks only; rewriting a few zeros is harmless. */
		if (done < n)
			done = done / LC_BLOCK * LC_BLOCK;
	}
	return 0;
}

/* Fill FD with zeros up to SIZE; O_DIRECT (if DIRECT) for all but an unaligned end. */
static int write_zeros(int fd, bool direct, const char *path, u64 size_bytes, struct lc_error *err)
{
	u64 whole = size_bytes / LC_BLOCK * LC_BLOCK;
	u64 told_ns = lc_now_ns();
	u64 at = 0, pushed = 0;
	void *zeros = lc_alloc(CHUNK_BYTES);
	int rc = 0;

	if (!zeros)
		return lc_fail(err, -ENOMEM, "no memory to create cache file '%s': free some", path);
	while (!rc && at < size_bytes) {
		u64 end = at < whole ? whole : size_bytes;
		u64 n = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;

		if (at == whole && direct) {
			if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT) < 0) {
				rc = -errno;
				break;
			}
			direct = false;
		}
		rc = write_all(fd, zeros, n, at);
		if (rc)
			break;
		at += n;
		if (!direct && at - pushed >= PUSH_BYTES) {
			rc = fdatasync(fd) < 0 ? -errno : 0;
			pushed = at;
		}
		if (lc_now_ns() - told_ns >= PROGRESS_NS) {
			told_ns = lc_now_ns();
			lc_log(LC_LOG_INFO, "creating cache file '%s': %.0f of %.0f MiB (%u %%)",
			       path, mib(at), mib(size_bytes), (unsigned)(at * 100.0 / size_bytes));
		}
	}
	lc_free(zeros, CHUNK_BYTES);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	return rc ? write_failed(path, size_bytes, at, rc, err) : 0;
}

static int fill(int fd, const char *path, u64 size_bytes, struct lc_error *err)
{
	bool direct;
	u64 room = 0;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return lc_fail(err, -EBUSY,
			       "cannot lock cache file '%s' while it is created: %s; is another server "
			       "being started with it?",
			       path, strerror(errno));
	if (fallocate(fd, 0, 0, (off_t)size_bytes) < 0) {
		if (errno == ENOSPC || errno == EDQUOT)
			return no_space(path, size_bytes,
					free_bytes(fd, &room) && room < size_bytes ?
						size_bytes - room :
						size_bytes,
					err);
		if (errno != EOPNOTSUPP && errno != EINTR)
			return write_failed(path, size_bytes, 0, -errno, err);
		/* Where it is not supported (nfs3, zfs), writing alone allocates the blocks. */
	}
	direct = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) == 0;
	return write_zeros(fd, direct, path, size_bytes, err);
}

int lc_file_create(const char *path, u64 size_bytes, struct lc_error *err)
{
	char *folder;
	u64 room;
	int dir, fd, rc;

	if (size_bytes == 0)
		return lc_fail(err, -EINVAL, "cache file '%s' of 0 bytes: give a cache-size", path);
	if (size_bytes > INT64_MAX)
		return lc_fail(err, -EFBIG,
			       "cache file '%s': no file can be so large; give a smaller "
			       "cache-size",
			       path);
	folder = folder_of(path);
	if (!folder)
		return lc_fail(err, -ENOMEM, "no memory to create '%s': free some", path);
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		rc = lc_fail(err, -errno,
			     "cannot create cache file '%s': folder '%s': %s; create it, or "
			     "give another path",
			     path, folder, strerror(errno));
		goto out_folder;
	}
	if (free_bytes(dir, &room) && room < size_bytes) {
		rc = no_space(path, size_bytes, size_bytes - room, err);
		goto out_dir;
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = lc_fail(err, -errno,
			     "cannot create cache file '%s': %s; check the path, and that "
			     "the server may write to its folder",
			     path, strerror(errno));
		goto out_dir;
	}
	lc_log(LC_LOG_INFO, "creating cache file '%s': writing %.0f MiB of zeros", path,
	       mib(size_bytes));
	rc = fill(fd, path, size_bytes, err);
	if (!rc && fsync(dir) < 0)
		rc = lc_fail(err, -errno,
			     "cannot make cache file '%s' durable in folder '%s': %s; check "
			     "the kernel's log",
			     path, folder, strerror(errno));
	if (rc && unlink(path) < 0)
		lc_log(LC_LOG_WARNING, "cannot remove the incomplete cache file '%s': %s; remove it",
		       path, strerror(errno));
	if (!rc)
		lc_log(LC_LOG_INFO, "created cache file '%s'", path);
	close(fd);
out_dir:
	close(dir);
out_folder:
	free(folder);
	return rc;
}
