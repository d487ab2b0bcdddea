/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.h - make a cache that is refused as corrupt (I11) start again, on explicit demand.
 *
 * What stops an opening is a record that is known to have been durable and whose header is gone: nothing leads to the
 * newer records behind it. Their data is there, and is worth more than what was lost. So the chain is mended:
 *
 *	- a header whose segment has a summary is written again from that, and one that is damaged in what is known
 *	  anyway, as its checksum proves: nothing is lost
 *	- for other records without a header, fillers are written: records with the missing seqs, in their place,
 *	  about blocks of a volume that does not exist, which count for nobody
 *	- if there is no valid record behind the gap, the log is cut there: a new epoch begins at the gap
 *	  (I1), and what the volume table and the list of lost blocks say of later records is adjusted
 *	- a header that cannot be read, with nothing behind it, is overwritten
 *	- a metadata page without a good copy is written empty, if nothing depends on what it said; a copy that cannot be
 *	  read is written again from the other one
 *
 * A damaged header was the only place that said which blocks its record held. Entries of it that agree with their data
 * still say so: such blocks go on the list of lost blocks, unless newer records hold them. Of others it is known, and
 * said, how many they were at most, but not which ones: they read as what they were before. Blocks
 * whose data is damaged need no repair: they answer with errors, and write-back puts them on the list.
 *
 * And where a whole epoch left no trace, nobody knows at which record it began (I1): that is said, too.
 *
 * Not repaired, because it could not be done soundly: a cache without a superblock (nobody knows what is dirty), the
 * table entry of a volume that has dirty data (nobody knows whose it is), values that are impossible under a
 * good checksum.
 *
 * Everything is planned in the overlay of the inspection, and a recovery must succeed there, before anything is
 * written to the device. A crash meanwhile leaves a cache that can be repaired again.
 */
#ifndef LC_REPAIR_H
#define LC_REPAIR_H

#include "inspect.h"

enum lc_repair_line {
	LC_REPAIR_DOES,	 /* what is written */
	LC_REPAIR_LOSES, /* what is lost thereby, or was already */
};

typedef void (*lc_repair_say)(void *arg, enum lc_repair_line what, const char *text);

/*
 * IN is just opened. SAY gets each thing to be done, PROGRESS (may be NULL) how far it is. 1: there is something
 * to do, and lc_repair_apply would do it; 0: nothing; -EUCLEAN: it cannot be repaired, ERR says why; -ENOMEM.
 */
int lc_repair_plan(struct lc_inspect *in, lc_repair_say say, lc_progress progress, void *arg,
		   struct lc_error *err);

/* Write what was planned. The store below was opened for writing, and flushed before the plan was made. */
int lc_repair_apply(struct lc_inspect *in, struct lc_error *err);

#endif
