/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store_sim.h - simulated disks that lose power.
 *
 * A disk has two images. `now` is what a reader sees; `media` is what is certain to survive.
 * Between them stands the list of writes that no flush has covered:
 *
 *	submitted --(pieces reach `now` at random moments)--> completed --(flush)--> in `media`
 *
 * A flush covers the writes that had completed when it was submitted, no others. At a power cut
 * each other write of the list, completed or in flight, may survive: whole, not at all, its
 * beginning, or any subset of its sectors; overlapping ones in any order. What survives is from
 * then on certain.
 *
 * A kill (the process dies, the machine does not) is gentler: a write in flight lands or it does
 * not, everything completed stays readable, but it still needs a flush to be certain.
 *
 * To zero a range is a write like any other: it takes effect in pieces, is uncertain until a flush, and tears. Some
 * disks cannot do it, some say they can and then cannot, some fail in the middle.
 *
 * I/O takes random virtual time, takes effect in pieces, and completes in random order, so that a
 * reader at the same moment sees torn data, and a buffer that is changed too early reaches the disk
 * changed. The contract of store.h is asserted; overlapping writes in flight fail the history,
 * unless they write the same.
 *
 * store_sim.c holds the I/O paths, store_image.c the images, power cuts and faults.
 */
#ifndef LOGCACHE_SIM_STORE_H
#define LOGCACHE_SIM_STORE_H

#include "logcache/store.h"
#include "rt_sim.h"

#define SIM_PIECES_MAX 4u
#define SIM_BAD_RANGES_MAX 16u

/* A write that no flush has covered. */
struct sim_write {
	u64 offset_bytes;
	u32 len_bytes;
	u32 number;    /* order of submission */
	u32 done;      /* order of completion; 0: in flight */
	bool doubtful; /* failed, or a flush that should have covered it did: no flush will */
	bool zero;     /* by lc_store_zero: DATA is nobody's own */
	u8 *data;      /* as it reached the disk */
};

/* An I/O from submission to completion. */
struct sim_io {
	struct sim_event event;
	struct store_sim *store;
	struct sim_queue *queue; /* NULL: synchronous, and FIBER waits ... */
	struct fiber *fiber;
	void (*finished)(struct sim_io *io); /* ... or this is called, which may wake fibers, never block */
	void *arg;
	struct lc_io *io;
	enum lc_io_op op; /* that of lc_store_zero is a write */
	bool zero;
	u8 *buf;
	u32 len_bytes;
	u64 offset_bytes;
	struct sim_write *write;
	u32 covers; /* a flush: completions up to this one */
	int result;
	bool done, launched;
	u32 cut[SIM_PIECES_MAX + 1]; /* where its pieces begin, in bytes */
	u64 piece_ns[SIM_PIECES_MAX + 1];
	u8 order[SIM_PIECES_MAX];
	u32 nr_pieces, pieces_done;
	struct sim_io *next;	   /* in the store's list of everything submitted */
	struct sim_io *queue_next; /* in its queue's list */
};

/* A write that nobody waits for any more, and that will take effect by itself, some time. */
struct sim_ghost {
	struct sim_event event;
	struct store_sim *store;
	struct sim_ghost *next;
	u64 offset_bytes;
	u32 len_bytes;
	bool zero;
	u8 data[];
};

struct sim_faults {
	u32 read_ppm, write_ppm, flush_ppm, zero_ppm; /* chance of each I/O to fail with EIO */
	u64 gone_ns, back_ns; /* all I/O fails from gone_ns on, until back_ns: it vanished */
	int64_t nth[3];	      /* by enum lc_io_op: count down, and fail that one; 0: off */
};

struct store_sim {
	struct lc_store store;
	u8 *now, *media;
	u64 image_bytes;    /* capacity of the images */
	u32 *media_number;  /* per sector: which write is on the media */
	u8 *touched;	    /* per block: differs from zeros, maybe */
	u32 min_ns, max_ns; /* how long an I/O takes */
	u32 flush_factor;   /* and how much longer a flush */
	u32 last_number, last_done;
	struct sim_write **writes;
	u32 nr_writes, writes_capacity;
	struct sim_io *submitted;
	struct sim_queue *queues;
	struct sim_ghost *ghosts;
	u32 tear_bytes; /* what a power cut does not tear: LC_SECTOR or LC_BLOCK */
	/* Otherwise lc_store_zero is not supported (without PUNCH, with it), whatever can_... say. */
	bool zero_works, punch_works;
	u32 hole_bytes; /* how finely it knows its holes; 0: not at all */
	/* What failed, write or flush, loses nothing of what is there: the next flush covers the same writes. */
	bool patient_flush;
	struct sim_faults faults;
	struct {
		u64 offset_bytes, len_bytes;
	} bad[SIM_BAD_RANGES_MAX]; /* unreadable places, until written */
	u32 nr_bad;
	u64 nr_reads, nr_written, nr_flushes, nr_zeroed, nr_haunted;
	u64 nr_read_faults; /* reads that failed, blocks that rotted, places that cannot be read */
	u64 nr_together,
		nr_together_failed; /* calls of lc_store_read_many; with an error and not only errors */
};

enum sim_crash { SIM_KILL, SIM_POWER_CUT };

/* Images for stores of up to MAX_BYTES; once per process. */
void store_sim_create(struct store_sim *s, u64 max_bytes);
/* A new disk full of zeros, with a random speed around that of an SSD or a hard disk. */
void store_sim_reset(struct store_sim *s, const char *name, u64 size_bytes, u32 block_bytes,
		     bool slow);
/* Let it do, and know, all that a disk can: zero, punch, holes. */
void store_sim_enable(struct store_sim *s);
/* Put bytes on the disk at once and for certain (initial content). */
void store_sim_preset(struct store_sim *s, const void *buf, u32 len_bytes, u64 offset_bytes);
/* The end of a life: what was in flight lands or does not, and no queue is left. */
void store_sim_crash(struct store_sim *s, enum sim_crash kind);
/* After a clean close: nothing may be in flight. */
void store_sim_assert_idle(struct store_sim *s);
/* What would be there after the worst power cut: all that is certain, nothing else. */
const u8 *store_sim_media(const struct store_sim *s);

/*
 * For who stands between the engine and a disk (remote.h). Begin an I/O; FINISHED is called at its end. Any
 * alignment to sectors.
 */
struct sim_io *store_sim_begin(struct store_sim *s, enum lc_io_op op, void *buf, u32 len_bytes,
			       u64 offset_bytes, void (*finished)(struct sim_io *io), void *arg);
/* It is finished. */
void store_sim_end(struct sim_io *io);
/*
 * Nobody waits for it any more, finished or not. What has not taken effect may still do so at any time before
 * UNTIL, in any order, or never.
 */
void store_sim_abandon(struct sim_io *io, u64 until_ns);
/* Before a new history. */
void store_sim_drop_ghosts(struct store_sim *s);

/* Between lives: everything that is there becomes certain. */
void store_sim_settle(struct store_sim *s);
/*
 * The end of a life for somebody who decides himself what survives: I/O and queues are gone, `media`
 * is certain, and `writes` lists what is not, in order of submission.
 */
void store_sim_freeze(struct store_sim *s);
/*
 * If set, called on a fiber before a write is submitted and before a flush succeeds: right before anything that
 * changes which states a power cut can leave.
 */
extern void (*store_sim_before_change)(const struct store_sim *s, enum lc_io_op op, u32 len_bytes,
				       u64 offset_bytes);

/* Faults; by default there are none. */
void store_sim_rot(struct store_sim *s, u64 offset_bytes, u32 len_bytes);
void store_sim_bad_range(struct store_sim *s, u64 offset_bytes, u64 len_bytes);

/* --- between store_sim.c and store_image.c --- */

void store_sim_drop_queues(struct store_sim *s);
/* Zeros everywhere. */
void image_reset(struct store_sim *s);
/* Will this I/O fail? 0 or -errno. */
int image_draw_fault(const struct sim_io *io);
struct sim_write *image_write_begin(struct store_sim *s, u32 len_bytes, u64 offset_bytes, bool zero);
/* What begins at OFFSET, as far as it is alike. */
struct lc_extent image_extent(const struct store_sim *s, u64 len_bytes, u64 offset_bytes);
/* The largest image full of zeros. */
u8 *image_zeros(void);
/* Bytes FROM .. TO of the I/O take effect. */
void image_apply(struct sim_io *io, u32 from, u32 to);
/* The I/O has come to its end: what does that make certain, or doubtful? */
void image_complete(struct sim_io *io);
void image_check_overlap(const struct sim_io *io);
/* A write in flight: what has taken effect of it is done; the rest becomes ghosts, or nothing. */
void image_abandon(struct sim_io *io, u64 until_ns);

#endif
