/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recover.h - what the SSD says: from segments on the device to the ring and the index in RAM.
 *
 * Recovery reads, and writes nothing. It
 *
 *	scans     the first header and the summary of every segment, with a deep queue
 *	chains    from the superblock's tail upward: contiguous seqs, epochs that never fall, nothing void (I1);
 *	          records that nobody said to be durable are verified whole; the log is cut at the
 *	          first one that is missing or torn. A cut below what a valid record, the list of lost
 *	          blocks or the superblock says was durable is corruption (I11), a read error is never a
 *	          torn tail: refused
 *	warms     from the tail downward: the clean segments, as long as they are contiguous; at the
 *	          first gap the rest is forgotten (the head may have overwritten part of it)
 *	replays   all of it, newest wins (I5): what the scan finds at once, by a second thread, if that is found to be just what
 *	          counts; otherwise everything in order of ids
 *
 * Everything above the tail comes back dirty, everything else clean. A segment is described by
 * its summary if that fits its first header and its last record was durable; by its chain of headers otherwise.
 *
 * Before anything else runs; the engine mutex is not taken. Its own second thread has ended when it returns.
 */
#ifndef LC_RECOVER_H
#define LC_RECOVER_H

#include "core.h"

struct lc_recovery {
	u64 cut_seq;   /* the last record that counts */
	u64 max_epoch; /* in the superblock or a first header: no record is of a later one */
	u64 dirty_records, clean_segments;
	u64 early_segments; /* those that were entered into the index while the scan went on */
	/* cache.c fills these in */
	bool was_clean; /* closed in good order the last time */
	u64 opening_ns; /* all that opening took */
};

/*
 * CORE's meta is loaded and its ring initialized and empty; fills in the ring, and takes what was
 * overwritten above the tail off the list of lost blocks. -EUCLEAN: corrupt (I11); or a read error.
 */
int lc_recover(struct lc_core *core, struct lc_recovery *out, struct lc_error *err);

#endif
