/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file_many.c - several reads of a file or block device at once, in the caller's thread.
 *
 * Each is cut as file_priv.h shows, and goes on after a partial transfer, EINTR and EAGAIN, as a synchronous one
 * does; only that what the main descriptor has to do goes through a ring (rings.h), up to LC_RING_DEPTH reads at a time.
 * Without a ring they are done one after the other.
 *
 * Locks: none but that of the lists of rings. Any thread may call.
 */
#include "file.h"
#include "file_priv.h"
#include "rings.h"

/*
 * Do what is left of IOS, all of which have a part for the main descriptor. Those that are complete leave the list; how
 * many remain. *RC: what the ring said.
 */
static u32 turn(struct lc_file *f, struct lc_ring *ring, struct lc_io **ios, u32 nr, int *rc)
{
	struct lc_ring_read reads[LC_RING_DEPTH];
	bool starved = false;
	u32 left = 0;

	for (u32 i = 0; i < nr; i++)
		reads[i] = (struct lc_ring_read){
			.buf = (u8 *)ios[i]->buf + ios[i]->done_bytes,
			.len_bytes = lc_file_main_bytes(f, ios[i]) - ios[i]->done_bytes,
			.offset_bytes = ios[i]->offset_bytes + ios[i]->done_bytes,
		};
	*rc = lc_ring_read(ring, f->fd, reads, nr);
	for (u32 i = 0; i < nr; i++) {
		struct lc_io *io = ios[i];
		int64_t res = reads[i].result;

		if (res == LC_RING_UNSENT ||
		    !lc_file_account(io, lc_file_main_bytes(f, io), f->align_bytes, res))
			ios[left++] = io;
		else if (io->result == -EIO && res >= 0)
			lc_file_tell_shrunk(f);
		starved |= res == -EAGAIN;
	}
	if (starved)
		lc_file_nap();
	return left;
}

/* NR reads, not more than a ring takes. 0, or the ring is of no use any more. */
static int read_together(struct lc_file *f, struct lc_ring *ring, struct lc_io *ios, u32 nr)
{
	struct lc_io *todo[LC_RING_DEPTH];
	u32 left = 0;
	int rc = 0;

	for (u32 i = 0; i < nr; i++) {
		ios[i].done_bytes = 0;
		ios[i].result = lc_file_tail(f, &ios[i]);
		if (!ios[i].result && lc_file_main_bytes(f, &ios[i]))
			todo[left++] = &ios[i];
	}
	while (left && !rc)
		left = turn(f, ring, todo, left, &rc);
	for (u32 i = 0; i < left; i++)
		todo[i]->result = lc_file_sync_io(f, todo[i]);
	return rc;
}

void lc_file_read_many(struct lc_store *s, struct lc_io *ios, u32 nr)
{
	struct lc_file *f = lc_file_of(s);
	unsigned kinds = (f->io != LC_FILE_IO_AIO ? LC_RING_URING : 0) |
			 (f->io != LC_FILE_IO_URING ? LC_RING_AIO : 0);
	struct lc_ring *ring = lc_ring_take(kinds);
	int rc = 0;

	while (nr && ring && !rc) {
		u32 n = nr < LC_RING_DEPTH ? nr : LC_RING_DEPTH;

		rc = read_together(f, ring, ios, n);
		ios += n;
		nr -= n;
	}
	for (u32 i = 0; i < nr; i++)
		ios[i].result = lc_file_sync_io(f, &ios[i]);
	lc_ring_put(ring, rc);
}
