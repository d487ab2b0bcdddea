/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inspect.h - look at a cache that nobody serves, as far as it can be read.
 *
 * An opening (cache.c) refuses at the first thing that is wrong; this goes on. It is what
 * logcachectl's offline commands stand on, and it writes nothing:
 *
 *	lc_inspect_open		the metadata pages: both copies of each, and what the good ones say
 *	lc_inspect_log		what lc_recover() makes of the log, or why it refuses; and the first
 *				header of every place
 *	lc_inspect_load		one place of the ring, to look at its blocks and records one by one
 *
 * A metadata page that has no valid copy would be the end, and so would a copy that cannot be read; so everything is read
 * through an overlay (overlay.h) in which such a page is empty, and such a copy is what the other one is. `lost[]`
 * says which pages are taken for empty: what follows from them is to be taken with care. Without a superblock there is no log to be found, and only `copies` means anything.
 *
 * Single-threaded.
 */
#ifndef LC_INSPECT_H
#define LC_INSPECT_H

#include "overlay.h"
#include "recover.h"

enum lc_copy_state {
	LC_COPY_OK,
	LC_COPY_BROKEN,	    /* checksum, magic or page number */
	LC_COPY_UNKNOWN,    /* intact, but of another version of the format */
	LC_COPY_FOREIGN,    /* of another cache: the uuid is not the superblock's */
	LC_COPY_UNREADABLE, /* an I/O error */
};

struct lc_copy {
	enum lc_copy_state state;
	u32 version;
	u64 generation;
	u8 uuid[LC_UUID_BYTES];
};

enum lc_content {
	LC_CONTENT_EMPTY,      /* no valid first header */
	LC_CONTENT_UNREADABLE, /* an I/O error there */
	LC_CONTENT_DIRTY,      /* above the tail: newer than the backing stores */
	LC_CONTENT_CLEAN,      /* in the cache, and on the backing stores as well */
	LC_CONTENT_OLD, /* clean once; older segments are not used once one of them is overwritten */
	LC_CONTENT_VOID, /* cut off by a recovery (I1) */
	LC_CONTENT_BEYOND, /* behind the end of the log: what a crash left, or what a broken record cut off */
};

/* What the first header of a place says. */
struct lc_inspect_place {
	enum lc_content state;
	u64 id; /* 0: there is none */
	u64 seq, epoch, first;
	u64 durable_seq; /* what it says of others */
};

/* An epoch, and the seq at which it began. */
struct lc_birth {
	u64 epoch, first;
};

struct lc_inspect {
	struct lc_store *ssd;
	struct lc_overlay overlay;
	struct lc_copy copies[LC_NR_PAGES][2];
	bool differ[LC_NR_PAGES]; /* two good copies of one generation are not the same */
	bool lost[LC_NR_PAGES];	  /* no good copy: taken as empty */
	u32 nr_lost;

	/* core.meta is loaded unless meta_error, whose text then says why. */
	int meta_error;
	struct lc_error meta_text;
	struct lc_core core;

	/* After lc_inspect_log: the ring and the index are what an opening would have, unless log_error. */
	bool has_ring;
	int log_error;
	struct lc_error log_text;
	struct lc_recovery recovery;
	struct lc_inspect_place *places; /* [core.ring.nr] */
	struct lc_birth *births;	 /* [nr_births], sorted; of each epoch one */
	u32 nr_births, max_births;

	u8 *segment; /* lc_inspect_load */
	u32 loaded;  /* the place */
	bool whole;
	bool *readable; /* [segment_blocks] */
};

/* How far something is that takes long. */
typedef void (*lc_progress)(void *arg, u64 done, u64 total);

/*
 * -EMEDIUMTYPE: there is no superblock, not even a damaged one, or no room for one; -EIO: what there is cannot be read;
 * -ENOMEM. A cache that is damaged is no error here.
 */
int lc_inspect_open(struct lc_store *ssd, struct lc_inspect **out, struct lc_error *err);
void lc_inspect_close(struct lc_inspect *in);

/* meta_error is 0. -ENOMEM; a log that is damaged is no error here. */
int lc_inspect_log(struct lc_inspect *in, lc_progress progress, void *arg, struct lc_error *err);

/* Forget what lc_inspect_log found: the overlay was changed, look again. */
void lc_inspect_again(struct lc_inspect *in);

/* Would a recovery ignore a record of this epoch and seq (I1)? */
bool lc_inspect_void(const struct lc_inspect *in, u64 epoch, u64 seq);

/* A header says that EPOCH began at FIRST. 0 or -ENOMEM. */
int lc_inspect_birth(struct lc_inspect *in, u64 epoch, u64 first);

/* Begin with a place: WHOLE: read all of it at once. Otherwise each block is read when it is asked for. */
void lc_inspect_load(struct lc_inspect *in, u32 place, bool whole);
/* Block K of the place that is loaded, valid until the next call; NULL: it cannot be read. */
const u8 *lc_inspect_block(struct lc_inspect *in, u32 k);
/* Is block K of the place the header of a record of this cache that belongs there? Void ones, too. */
bool lc_inspect_record(struct lc_inspect *in, u32 k, struct lc_record_info *r,
		       struct lc_slot entries[LC_ENTRIES_MAX]);
/* Is its last block the summary of segment ID? */
bool lc_inspect_summary(struct lc_inspect *in, u64 id, struct lc_summary_info *s,
			struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX]);

/* The name of volume ID for a message; "?" if the table has none. */
const char *lc_inspect_volume(const struct lc_inspect *in, u8 id);

#endif
