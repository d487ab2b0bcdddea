/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.h - the store for regular files and block devices: how to open and create one.
 *
 * What comes back is a struct lc_store (store.h holds the contract of its I/O). All functions
 * return 0 or -errno unless they say otherwise; ERR names the path, the reason and the remedy.
 *
 * In use by somebody else (I12)
 *
 *   A store is opened for this server alone. On block devices O_EXCL makes the kernel refuse what
 *   is mounted, swapped on, claimed by device mapper, MD or bcache, or opened with O_EXCL by any
 *   process; a disk and one of its partitions exclude each other, too. On files and devices alike
 *   flock keeps two logcaches (and udev's probing) apart.
 *
 *   Not detected: a program that opens the file or device without asking for anything (dd, a
 *   virtual machine without image locking); a loop device whose backing file is given as well; one
 *   disk under two device numbers (two paths of a multipath disk without dm-multipath); on NFS,
 *   another client if the mount keeps locks to itself (nolock, local_lock=flock or all).
 */
#ifndef LOGCACHE_IO_FILE_H
#define LOGCACHE_IO_FILE_H

#include "logcache/store.h"
#include "logcache/types.h"

/*
 * Which kind of queue lc_queue_open() makes: neither flag, io_uring if there is any, else libaio, and
 * one line in the log that says why; one of them, that one, or an error. Never both.
 */
#define LC_FILE_IO_URING 1u
#define LC_FILE_IO_AIO 2u

/*
 * Open the regular file or block device at PATH for reading and writing, with O_DIRECT where its
 * file system has it, and lock it (above). The lock belongs to the open file: it survives a fork,
 * and falls when the last process that has the store has closed it or ended. Nothing is written; a
 * file's time of modification changes, because its file system is asked whether it can punch holes.
 *
 * -ENOENT, -EACCES, -EROFS, -EBUSY (in use), -EISDIR, -ENOTBLK (neither file nor block device),
 * -ENODATA (empty), -EOPNOTSUPP (a URI, or a logical block above 4096 bytes), or what the system
 * said.
 */
int lc_file_open(const char *path, unsigned flags, struct lc_store **out, struct lc_error *err);

/*
 * Create the file PATH (mode 0600) of SIZE_BYTES, which may not exist, and write it full of zeros:
 * a file whose extents are written flushes twice as fast as one that was merely allocated, and
 * cannot run out of space later. Takes as long as the disk needs, and logs its progress. On failure
 * no file is left, unless the process is killed meanwhile: then a file of the full size stays,
 * which works, and of which lc_file_warn_cache warns.
 *
 * -ENOSPC (ERR says how much is missing), -EEXIST, -ENOENT (the folder), or what the system said.
 */
int lc_file_create(const char *path, u64 size_bytes, struct lc_error *err);

/*
 * S, from lc_file_open, holds a cache, or will: warn, with the remedy, if it is a file that is sparse or was never written,
 * because flushes suffer. The remedy removes the file: not before it is known that nothing else is in it.
 */
void lc_file_warn_cache(struct lc_store *s);

/* Are these two stores the same file or device? False if either does not come from lc_file_open. */
bool lc_file_same(const struct lc_store *a, const struct lc_store *b);

/*
 * The same question before opening, so that a message can say which two parameters clash: 1 the
 * same (also through links, or two nodes of one device), 0 not, -errno if one cannot be looked at.
 */
int lc_file_same_path(const char *a, const char *b);

#endif
