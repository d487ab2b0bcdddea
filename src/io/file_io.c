/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_io.c - how one I/O on a file or block device is done: what the synchronous calls and all kinds
 * of queues share.
 *
 * A read or write is cut as file_priv.h shows: the main part goes through the O_DIRECT descriptor,
 * an unaligned end of the file through the buffered one. lc_file_account() decides after each
 * attempt, synchronous or from a queue, whether an I/O is complete, failed, or must go on; unit
 * tests feed it what a healthy kernel does not say.
 *
 * Locks: none. Everything works on positions of its own (pread, pwrite); any thread may call.
 *
 * Errors of the page cache are reported once for each descriptor, to whoever flushes first. There
 * is one main descriptor: a failed flush, synchronous or in a queue, speaks for all writes so far.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

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
	/*
	 * More than was asked for: short of memory, kernels (6.1 is one) that go on with a partial I/O by themselves have counted the
	 * first part twice. So the count says nothing; what we know is where this attempt began.
	 */
	if (res > want_bytes - io->done_bytes)
		return false;
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

int lc_file_sync_io(struct lc_file *f, struct lc_io *io)
{
	u32 want = lc_file_main_bytes(f, io);
	int rc = lc_file_tail(f, io);

	if (rc || !want)
		return rc;
	return transfer(f, f->fd, io, 0, want, f->align_bytes);
}

int lc_file_sync_flush(struct lc_file *f)
{
	while (fdatasync(f->fd) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}
