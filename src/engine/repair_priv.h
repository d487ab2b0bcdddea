/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_priv.h - the rooms of a repair (repair.h), each below the one before it:
 *
 *	repair.c	what is wrong, the metadata pages, the proof, doing it
 *	repair_chain.c	the chain of records: headers again, fillers, the cut
 *	repair_find.c	which records are there
 *	repair_write.c	what is changed in the overlay, and what is said
 */
#ifndef LC_REPAIR_PRIV_H
#define LC_REPAIR_PRIV_H

#include "repair.h"

typedef unsigned long long ull; /* for printf */

/* A record above the tail that is there, or that a summary describes. */
struct found {
	u64 id, seq, epoch;
	u32 position, end; /* blocks of its segment */
	bool rebuild;	   /* only the summary has it */
	bool closed; /* the segment has a summary: no other record is missing behind its last one */
};

struct repair {
	struct lc_inspect *in;
	lc_repair_say say;
	lc_progress progress;
	void *arg;
	struct lc_error *err;
	struct found *found; /* [nr], in log order */
	size_t nr, max;
	u64 known_durable;
	u8 filler; /* id of a volume that does not exist */
	bool changed;
	struct lc_summary_info summary;
	struct lc_slot entries[LC_ENTRIES_MAX], summary_entries[LC_SUMMARY_ENTRIES_MAX];
	_Alignas(LC_BLOCK) u8 block[LC_BLOCK];
};

static inline u32 segment_blocks(const struct repair *r)
{
	return r->in->core.ring.segment_blocks;
}

static inline u32 place_of(const struct repair *r, u64 id)
{
	return (id - 1) % r->in->core.ring.nr;
}

/* --- repair_chain.c --- */

/* From the tail up: whatever is missing below a record that is there, or below what was durable. */
int repair_mend(struct repair *r);

/* --- repair_find.c --- */

/* Fill in found and known_durable. */
int repair_find(struct repair *r);

/* --- repair_write.c: they return 0, or what repair_no_memory or repair_impossible returned --- */

void repair_tell(struct repair *r, enum lc_repair_line what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int repair_no_memory(struct repair *r);
int repair_impossible(struct repair *r, const char *why);
/* BLOCK is to be what lies at POSITION in segment ID. */
int repair_put(struct repair *r, u64 id, u32 position, const void *block);
/* The log ends at record SEQ. */
int repair_cut(struct repair *r, u64 seq);
/* The pages of the list of lost blocks that have changed. */
int repair_write_lists(struct repair *r);

#endif
