/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_priv.h - the rooms of a repair (repair.h), each below the one before it:
 *
 *	repair.c	what is wrong, the metadata pages, the proof, doing it
 *	repair_chain.c	the chain of records: headers again, fillers, the cut
 *	repair_salvage.c	what a damaged header still says
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
	u32 position, end;	/* blocks of its segment */
	u64 first, durable_seq; /* what its header says; not with rebuild */
	bool rebuild;		/* only the summary has it */
	bool restore;		/* its header is damaged, and known all the same */
	bool closed; /* the segment has a summary: no other record is missing behind its last one */
};

/* A block of a volume that was in a record whose header is lost. */
struct named {
	u64 key;  /* volume, block and mask */
	u32 slot; /* where it is on the SSD */
	u64 id;	  /* in which segment */
	u64 upto; /* the record had this seq at most; none up to it that is left is newer */
};

struct repair {
	struct lc_inspect *in;
	lc_repair_say say;
	lc_progress progress;
	void *arg;
	struct lc_error *err;
	struct found *found; /* [nr], in log order */
	size_t nr, max;
	struct named *named; /* [nr_named] */
	size_t nr_named, max_named;
	u64 known_durable;
	u64 max_epoch; /* in the superblock or a first header: no record is of a later one */
	u8 filler;     /* id of a volume that does not exist */
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

/* --- repair_salvage.c --- */

/*
 * Is block POSITION of segment ID, which is loaded as a whole, the damaged header of a record, and known what it was?
 * Then INFO and r->entries get it. BEFORE is the record before it in the segment, NULL if there is none that is known.
 */
bool repair_restore(struct repair *r, u64 id, u32 position, const struct found *before,
		    struct lc_record_info *info);
/*
 * Damaged headers in blocks [FROM, TO) of segment ID, of records with seqs A to B: remember which blocks they still name,
 * how many is added to *NR. UPTO: see struct named. 0 or -ENOMEM.
 */
int repair_name(struct repair *r, u64 id, u32 from, u32 to, u64 a, u64 b, u64 upto, u64 *nr);
/*
 * The log is mended, and was recovered: what was named and is in no newer record goes on the list of lost blocks, and is
 * told.
 */
int repair_lose_named(struct repair *r);

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
/* The log ends at record SEQ; of the blocks in the records behind it NAMED are known. */
int repair_cut(struct repair *r, u64 seq, u64 named);
/* The pages of the list of lost blocks that have changed. */
int repair_write_lists(struct repair *r);

#endif
