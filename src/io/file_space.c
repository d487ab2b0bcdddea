/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_space.c - the space under a file or block device: make a range zero without writing it, give
 * space back, and say where there are holes.
 *
 * zero() is fallocate() in two modes, on files and devices alike:
 *
 *		files				block devices
 *   PUNCH_HOLE	free the blocks			the device writes zeros by itself (and may
 *						unmap), or EOPNOTSUPP; never a discard
 *						after which anything could be read
 *   ZERO_RANGE	mark the blocks unwritten	the device writes zeros and keeps the space;
 *						if it cannot, the kernel sends them
 *
 * Always with KEEP_SIZE: no mode can make a file grow. The kernel waits for O_DIRECT I/O in flight
 * and drops cached pages of the range, so on a file both descriptors (file_priv.h) see the zeros,
 * and no old page is written over them later. On a device whose size is no multiple of its logical
 * block, fallocate cannot reach the last, incomplete block: there zeros are written through the tail
 * descriptor.
 *
 * Holes are what SEEK_HOLE says: also ranges that were allocated and never written, or zeroed while
 * keeping their space. They read as zeros, which is what counts for a copy.
 *
 * Locks: none; any thread may call. SEEK_DATA moves the position of the descriptor, which is common to
 * all threads; nobody reads or writes at that position.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "file_priv.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* --- zero --- */

static int try_fallocate(const struct lc_file *f, int mode, u64 offset_bytes, u64 len_bytes)
{
	int rc;

	/* What an interrupted attempt has done is quickly done again. */
	do
		rc = fallocate(f->fd, mode, (off_t)offset_bytes, (off_t)len_bytes) < 0 ? -errno : 0;
	while (rc == -EINTR);
	switch (-rc) {
	case ENOSYS: /* a kernel or sandbox without fallocate ... */
	case EPERM:  /* ... or a seccomp filter that says it so: an open file can be written */
	case ENODEV: /* block devices before 4.9 */
	case EINVAL: /* a file system with a granularity of its own */
		return -EOPNOTSUPP;
	default:
		return rc;
	}
}

/* [FROM, TO) of a device, behind main_end: less than a page. */
static int write_tail_zeros(struct lc_file *f, u64 from, u64 to)
{
	static _Alignas(LC_BLOCK) u8 zeros[LC_BLOCK];
	int rc = 0;

	for (; !rc && from < to; from += LC_BLOCK) {
		struct lc_io io = {
			.op = LC_IO_WRITE,
			.buf = zeros,
			.len_bytes = LC_BLOCK,
			.offset_bytes = from,
		};

		rc = lc_file_tail(f, &io);
	}
	return rc;
}

static int zero_device(struct lc_file *f, u64 offset_bytes, u64 end, bool punch)
{
	u64 main_end = end < f->main_end_bytes ? end : f->main_end_bytes;

	if (offset_bytes < main_end) {
		u64 len = main_end - offset_bytes;
		int rc = punch ? try_fallocate(f, PUNCH, offset_bytes, len) : -EOPNOTSUPP;

		if (rc == -EOPNOTSUPP)
			rc = try_fallocate(f, ZERO, offset_bytes, len);
		if (rc)
			return rc;
		offset_bytes = main_end;
	}
	return write_tail_zeros(f, offset_bytes, end);
}

int lc_file_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	struct lc_file *f = lc_file_of(s);
	u64 end = offset_bytes + len_bytes;
	u64 whole;
	int rc;

	if (f->type == S_IFBLK)
		return zero_device(f, offset_bytes, end, punch);
	/* What a file system says that it has done is not believed of all of them: lc_file_probe_space. */
	/*
	 * Punch the file's last block as a whole, or it would be zeroed and kept. Zeroing ends at the size:
	 * what it allocated behind that would never be used.
	 */
	whole = (end + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
	if (punch && s->can_punch) {
		rc = try_fallocate(f, PUNCH, offset_bytes, whole - offset_bytes);
		if (rc != -EOPNOTSUPP)
			return rc;
	}
	return s->can_zero ? try_fallocate(f, ZERO, offset_bytes, len_bytes) : -EOPNOTSUPP;
}

/* --- what zero is good for --- */

/* A number in the directory of the device's request queue; 0 if it is not there. */
static u64 queue_limit(dev_t dev, const char *name)
{
	/* A partition has no queue of its own. */
	static const char *const dirs[] = {"queue", "../queue"};
	unsigned long long n = 0;

	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		char path[128];
		FILE *p;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev),
			 dirs[i], name);
		p = fopen(path, "re");
		if (!p)
			continue;
		if (fscanf(p, "%llu", &n) != 1)
			n = 0;
		fclose(p);
		break;
	}
	return n;
}

/*
 * Can holes be punched into the file? Ask for one far behind its end: that frees nothing, not even
 * blocks that somebody has allocated right behind the end, and can be refused only for the reason that
 * we ask for. How far a file may reach differs: try nearer until the file system lets us.
 */
static bool can_punch_file(const struct lc_file *f)
{
	struct statfs fs;
	u64 end = (f->store.size_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;

	/* Behind FUSE is anything: nbdfuse makes a trim of it, which promises no zeros. */
	if (fstatfs(f->fd, &fs) < 0 || (u64)fs.f_type == FUSE_SUPER_MAGIC)
		return false;
	for (u64 gap = 1ull << 40; gap >= LC_BLOCK; gap >>= 4) {
		int rc = try_fallocate(f, PUNCH, end + gap, LC_BLOCK);

		if (rc != -EFBIG)
			return rc == 0;
	}
	return false;
}

/*
 * ZERO_RANGE cannot be asked in the same way: behind the end of the file it would allocate blocks,
 * and within the file it is the real thing. So go by what is known of the file systems.
 */
static bool can_zero_file(const struct lc_file *f)
{
	struct statfs fs;
	int flags = 0;

	if (fstatfs(f->fd, &fs) < 0)
		return false;
	switch ((u64)fs.f_type) {
	case EXT4_SUPER_MAGIC:
		/* Files that an ext3 made have no extents that could be marked. */
		return ioctl(f->fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_EXTENT_FL);
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

void lc_file_probe_space(struct lc_file *f)
{
	struct lc_store *s = &f->store;

	if (f->type == S_IFBLK) {
		s->can_zero = queue_limit(f->rdev, "write_zeroes_max_bytes") > 0;
		s->can_punch = s->can_zero && queue_limit(f->rdev, "discard_max_bytes") > 0;
	} else {
		s->can_punch = can_punch_file(f);
		s->can_zero = s->can_punch && can_zero_file(f);
	}
}

/* --- where the holes are --- */

int lc_file_extent(struct lc_store *s, u64 len_bytes, u64 offset_bytes, struct lc_extent *out)
{
	struct lc_file *f = lc_file_of(s);
	u64 end = offset_bytes + len_bytes;
	struct stat st;
	off_t data, hole;

	*out = (struct lc_extent){.len_bytes = len_bytes}; /* data, wherever nobody knows better */
	if (f->type == S_IFBLK)
		return 0;
	data = lseek(f->fd, (off_t)offset_bytes, SEEK_DATA);
	if (data < 0) {
		if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)
			return 0;
		if (errno != ENXIO)
			return -errno;
		/*
		 * No data up to the end of the file. Unless it shrank: what is missing is no hole, and
		 * whoever reads it shall get the error.
		 */
		if (fstat(f->fd, &st) < 0)
			return -errno;
		out->hole = (u64)st.st_size >= s->size_bytes;
		return 0;
	}
	if ((u64)data > offset_bytes) {
		out->hole = true;
		if ((u64)data < end)
			out->len_bytes = (u64)data - offset_bytes;
		return 0;
	}
	hole = lseek(f->fd, (off_t)offset_bytes, SEEK_HOLE);
	if (hole < 0)
		/* ENXIO: it shrank between the two questions. */
		return errno == EINVAL || errno == ENXIO ? 0 : -errno;
	if ((u64)hole > offset_bytes && (u64)hole < end)
		out->len_bytes = (u64)hole - offset_bytes;
	else if ((u64)hole <= offset_bytes && len_bytes > LC_BLOCK)
		/* Punched between the two questions: the next one will see it. */
		out->len_bytes = LC_BLOCK;
	return 0;
}
