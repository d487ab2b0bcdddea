/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recover_priv.h - what the files of recovery have in common: the scan, what counts, and the way into the index.
 *
 *	recover_scan.c    what lies at the borders of the places, and the second thread's way through it
 *	recover.c         which segments count, and how far
 *	recover_replay.c  their entries into the index: while the scan goes on, or afterwards
 *
 * Locking: two threads while the scan goes on, one before and after. A place belongs to the scan until it is
 * handed over (lc_eager_scanned), and to the second thread then; so do its slots and its segment. The hash, the
 * bulk that leads into it, and the counts of the ring are the second thread's.
 */
#ifndef LC_RECOVER_PRIV_H
#define LC_RECOVER_PRIV_H

#include "bulk.h"
#include "recover.h"

#define LC_RECOVER_PROGRESS_NS (2 * LC_NS_PER_S)

/* What the scan found in one place of the ring. */
struct place {
	u64 id; /* 0: no valid first header */
	u64 seq;
	u64 epoch;
	u64 durable_seq;       /* what the header says of others */
	u64 summary_first_seq; /* 0: no valid summary */
	u64 summary_last_seq;
	u64 summary_epoch;
	u64 summary_id;
	u16 nr_first;	 /* data blocks of the first record */
	bool unreadable; /* the first header */
	u8 seen;	 /* of its two borders */
	bool entered;	 /* its blocks were entered into the index while the scan went on */
	bool zeroes;	 /* it was entered, and has ZERO or TRIM entries, which were not */
	bool walked;	 /* its slots are no longer what the scan found */
	bool counts;	 /* its segment is part of the log */
};

struct birth {
	u64 epoch, first; /* the epoch began at this seq */
};

/* Entering segments into the index while the scan goes on: recover_replay.c. */
struct lc_eager {
	struct lc_mutex lock;
	struct lc_cond more;
	u32 scanned;   /* guarded by lock: the scan has done with the places before this one */
	bool finished; /* guarded by lock: there is no more to come */
	bool running;
	bool failed; /* an entry cannot be right, if it counts; the replay finds out */
	u64 durable_seq;
	struct lc_thread thread;
};

struct recovery {
	struct lc_core *core;
	struct lc_recovery *out;
	struct lc_error *err;
	struct place *places;
	struct birth *births; /* sorted by epoch; `first` is the least of all from there on */
	u32 nr_births;
	/* Every record up to here was durable: the superblock, the list of lost blocks or a record says so. */
	u64 known_durable;
	u8 *segment; /* one segment of scratch */
	struct lc_eager eager;
	struct lc_bulk bulk;
	struct lc_slot entries[LC_ENTRIES_MAX];
};

static inline u32 place_of(const struct recovery *r, u64 id)
{
	return (id - 1) % r->core->ring.nr;
}

static inline bool our_uuid(const struct recovery *r, const u8 uuid[LC_UUID_BYTES])
{
	return !memcmp(uuid, r->core->meta.uuid, LC_UUID_BYTES);
}

/* The slot table of a place of the ring. */
static inline struct lc_slot *slots_of(const struct recovery *r, u32 place)
{
	const struct lc_ring *ring = &r->core->ring;

	return &ring->index.slots[(size_t)place * ring->segment_blocks];
}

/*
 * A summary replaces what the slot table says of a place if it goes with the place's first header. The two
 * come in any order, so each looks for the other.
 */
static inline bool summary_fits(const struct place *p)
{
	return p->id && p->summary_id == p->id &&
	       (LC_MUTANT(any_summary) ||
		(p->summary_first_seq == p->seq && p->summary_epoch >= p->epoch));
}

/*
 * Has the scan seen all there is to know of the segment in a place: by its summary, or because a single record
 * fills it? Then *LAST_SEQ is that of its last record, which has to be known to be durable.
 */
static inline bool is_whole(const struct recovery *r, const struct place *p, u64 *last_seq)
{
	*last_seq = p->summary_id ? p->summary_last_seq : p->seq;
	return p->id &&
	       (p->summary_id ? summary_fits(p) : p->nr_first + 4u > r->core->ring.segment_blocks);
}

/* Read the borders of all places. */
int lc_recover_scan(struct recovery *r);

/* Segment ID, up to LAST_SEQ, is in its place of the ring; its blocks may have been entered before. */
void lc_recover_set_segment(struct recovery *r, u64 id, u64 last_seq);

/* The second thread. The scan has done with the places before SCANNED, which only grows; with everything. */
int lc_eager_start(struct recovery *r);
void lc_eager_scanned(struct recovery *r, u32 scanned);
void lc_eager_finish(struct recovery *r);

/* All is decided but the index; or nothing is, because recovery fails: take out what was entered. */
void lc_eager_undo(struct recovery *r);
/* Enter all segments from OLDEST on, or what is missing. */
int lc_recover_replay(struct recovery *r, u64 oldest);

#endif
