/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_priv.h - what the sources of the file store share. Nobody outside src/io includes it,
 * except unit tests.
 *
 * How an I/O is cut
 *
 *	0                                     main_end          size     end of its 4 KiB block
 *	|------------- main descriptor -----------|-- tail_fd -----|- - - - - - -|
 *	 O_DIRECT; pread, pwrite, io_uring, libaio   page cache      zeros / dropped
 *
 * Where the size is a multiple of the logical block, main_end is the size and there is no tail
 * descriptor. Otherwise O_DIRECT could not write the last bytes without making the file grow, and
 * they go through a second, buffered descriptor. main_end then lies on a *page* boundary, not
 * merely on a sector: the page cache writes a dirty page back as a whole, and would put old sectors
 * over what O_DIRECT wrote meanwhile into the same page. So no page is ever reached both ways. Both
 * descriptors are the same inode: one fdatasync covers both.
 *
 * A file system without O_DIRECT: the main descriptor is buffered, takes any alignment, and reaches
 * up to the size.
 */
#ifndef LOGCACHE_IO_FILE_PRIV_H
#define LOGCACHE_IO_FILE_PRIV_H

#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "logcache/store.h"

/* All is set by lc_file_open and constant afterwards, but the two atomics: no lock is needed. */
struct lc_file {
	struct lc_store store;
	char *path;
	int fd;
	int tail_fd; /* -1: not needed */
	u64 main_end_bytes;
	u32 align_bytes; /* of transfers on fd: the logical block with O_DIRECT, else 1 */
	unsigned io;	 /* LC_FILE_IO_URING, LC_FILE_IO_AIO, or 0: auto */
	mode_t type;	 /* S_IFREG or S_IFBLK */
	dev_t dev;	 /* a file is {dev, ino}, ... */
	ino_t ino;
	dev_t rdev;		 /* ... a device is rdev */
	atomic_bool told_shrunk; /* each message once for each store */
	atomic_bool told_memlock;
};

extern const struct lc_store_ops lc_file_ops;

static inline struct lc_file *lc_file_of(struct lc_store *s)
{
	return (struct lc_file *)s; /* the first member */
}

/* --- file_io.c --- */

/*
 * Account for one attempt to transfer what is left of IO, of which WANT_BYTES in all are to be
 * moved: RES is what the system call or the completion said (bytes, or -errno). True: IO is
 * complete and io->result set. False: it (or the rest, from io->done_bytes on) is to be tried
 * again. ALIGN_BYTES: the rest begins at a multiple of it.
 */
bool lc_file_account(struct lc_io *io, u32 want_bytes, u32 align_bytes, int64_t res);

/* How many bytes of IO, from its start, go through the main descriptor; 0 for a flush. */
u32 lc_file_main_bytes(const struct lc_file *f, const struct lc_io *io);

/*
 * Do the rest of IO: behind main_end through the page cache, behind the size with zeros. May wait
 * for the disk. 0 or -errno. Does nothing to I/O that ends before.
 */
int lc_file_tail(struct lc_file *f, struct lc_io *io);

/* Log, once, that a read found the end of the file too early. */
void lc_file_tell_shrunk(struct lc_file *f);

/* Sleep a moment before something that said EAGAIN is tried again. */
void lc_file_nap(void);

/* All of IO, a read or write, in the caller's thread. 0 or -errno. */
int lc_file_sync_io(struct lc_file *f, struct lc_io *io);

/* Make durable what was written through either descriptor. 0 or -errno. */
int lc_file_sync_flush(struct lc_file *f);

/* --- file_many.c --- */

/* The operation read_many of struct lc_store_ops. */
void lc_file_read_many(struct lc_store *s, struct lc_io *ios, u32 nr);

/* --- file.c --- */

/*
 * A further descriptor of the same inode, buffered, with FLAGS (O_RDONLY, O_RDWR). -ESTALE if the
 * path leads elsewhere by now.
 */
int lc_file_reopen(const struct lc_file *f, int flags);

/* --- file_space.c --- */

/* Find out what zero() can do, and set can_zero and can_punch. The content is not touched. */
void lc_file_probe_space(struct lc_file *f);

/* The operations zero and extent of struct lc_store_ops. */
int lc_file_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch);
int lc_file_extent(struct lc_store *s, u64 len_bytes, u64 offset_bytes, struct lc_extent *out);

/* --- the kinds of queues: each a file that fills in a struct lc_queue_ops --- */

/* uring.c */
int lc_uring_queue_open(struct lc_file *f, unsigned depth, const struct lc_area *areas,
			unsigned nr_areas, struct lc_queue **out, struct lc_error *err);

#define LC_URING_WHY_LEN 256u
/* Why lc_uring_queue_open said RC, as far as the system tells: fit for "not available: WHY". */
void lc_uring_why(int rc, char why[LC_URING_WHY_LEN]);

/* aio.c: no areas, because libaio registers no memory. */
int lc_aio_queue_open(struct lc_file *f, unsigned depth, struct lc_queue **out, struct lc_error *err);

#endif
