/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * logcache.h - the engine: a log-structured cache on one store, in front of slower ones.
 *
 * Life of a cache
 *
 *	lc_cache_format()   once: an empty log on a blank device
 *	lc_cache_open()     decide every refusal, recover; no thread runs yet (fork is fine after it)
 *	lc_cache_start()    start the log thread and the write-back thread
 *	lc_read() lc_write() lc_zero() lc_trim() lc_flush()   from any number of threads
 *	lc_cache_drain()    optional: everything to the backing stores
 *	lc_cache_close()    seal, flush, mark as cleanly shut down, release memory
 *
 * A cache may be opened without an SSD: then its volumes are served straight from their backing stores, and
 * start, drain and close have little to do.
 *
 * All functions return 0 or -errno. Nothing here is global: several caches can live in one process.
 */
#ifndef LOGCACHE_LOGCACHE_H
#define LOGCACHE_LOGCACHE_H

#include "logcache/histogram.h"
#include "logcache/rt.h"
#include "logcache/settings.h"
#include "logcache/store.h"
#include "logcache/types.h"

struct lc_cache;
struct lc_volume;

#define LC_SEGMENT_MIN_BYTES (8u << 10)
#define LC_SEGMENT_MAX_BYTES (1u << 20)
#define LC_SEGMENT_DEFAULT_BYTES (1u << 20)
/* Head, two in reserve (I4), and one that can be written back. */
#define LC_SEGMENTS_MIN 4u
#define LC_VOLUMES_MAX 255u
/* Bytes with the closing NUL. A name is 1 to 63 bytes of UTF-8, or empty for the default export. */
#define LC_NAME_BYTES 64u
#define LC_LABEL_BYTES 64u
#define LC_UUID_BYTES 16u

/* --- formatting --- */

struct lc_format_options {
	u32 segment_bytes; /* a power of two, LC_SEGMENT_MIN_BYTES .. LC_SEGMENT_MAX_BYTES */
	const char *label; /* for people; at most 63 bytes; NULL: none */
};

/* The smallest cache device, in bytes, that a segment size allows. */
u64 lc_cache_min_bytes(u32 segment_bytes);

/*
 * Write an empty log to SSD: its metadata zone alone, flushed. Whatever the store held is lost; whether
 * that is wanted is for the caller to find out first (I12).
 * -EINVAL: a segment size out of range; -ENOSPC: too small (ERR says how small is possible).
 */
int lc_cache_format(struct lc_store *ssd, const struct lc_format_options *o, struct lc_error *err);

/*
 * Does SSD hold a logcache? 1 yes (any version, also damaged ones: the magic of a superblock copy is
 * there), 0 no, -errno if it could not be read.
 */
int lc_cache_probe(struct lc_store *ssd, struct lc_error *err);

/* --- opening --- */

struct lc_volume_spec {
	const char *name;	  /* identity in the cache; "" for the default export */
	struct lc_store *backing; /* stays the caller's; outlives the cache */
};

struct lc_settings {
	u32 given; /* bit N: setting number N (settings.h) is meant, whatever the cache keeps */
	u32 nr_buffers;	       /* segment buffers in RAM, 2 .. 64 */
	bool writeback;	       /* off: only when segments run out */
	u32 dirty_low_percent; /* of the segments: write-back starts above */
	/*
	 * Write-back pauses while clients' reads keep a backing store busy for more than this share of
	 * the time (100: never), unless more than dirty_high_percent of the segments are dirty.
	 */
	u32 writeback_threshold_percent;
	u32 dirty_high_percent;
	u32 idle_ms;	 /* write back everything after so long without client I/O; 0: never */
	u64 batch_bytes; /* of the log that a sweep looks at; 0: as it pays */
	u32 flush_interval_ms; /* an open record older than this is made durable; 0: never by itself */
	u32 flush_deadline_ms; /* how long a flush may wait for others to share it; 0: not at all */
	u32 superblock_interval_ms; /* write it at least so often while the log grows; 0: need not be */
	u32 retry_ms; /* pause before an I/O that failed is tried again; grows up to LC_RETRY_GROWTH fold */
	u32 stall_timeout_ms; /* how long a write waits for space while a store fails */
	u32 client_timeout_ms; /* the clients' patience: a request is finished, or given up, by then */
	/*
	 * May be NULL. Called by a request that has waited longer than client_timeout_ms, in its own thread, without
	 * locks: is its client gone? Then it fails with -ESHUTDOWN instead of running late: the client
	 * may have sent it again, and written something newer since.
	 */
	bool (*abandoned)(void);
	/*
	 * May be NULL: it has just come. Called by a request that changes something, when it begins, in its own thread, without
	 * locks: since when (lc_now_ns) may it have been waiting for that, unread in a socket? That counts as well.
	 */
	u64 (*waits_since)(void);
};

#define LC_RETRY_GROWTH 16u

/* The defaults of the settings. */
void lc_settings_init(struct lc_settings *s);

/*
 * Open the cache on SSD (NULL: none) for the given volumes and recover it. Volumes that the cache knows and that
 * hold no dirty data may be left out; they lose their clean blocks.
 *
 * Every refusal is decided before the first write to any store (I12): a wrong version, corruption
 * (I11), a backing store that is missing, foreign or shrunk while the cache holds dirty data for it.
 * ERR names the thing, the reason and the remedy. After success the new epoch is durable (I1), but no
 * record is written and no thread runs. The stores stay the caller's and outlive the cache. Takes a fingerprint of
 * each volume that is new here, or was detached or changed since: not before lc_store_quiet_ns.
 *
 * -EINVAL bad settings or specs; -ENOMEM; -EMEDIUMTYPE not a logcache, or of an unknown version;
 * -EUCLEAN corrupt; -EBUSY a volume's backing store does not fit its dirty data; or what the store said.
 */
int lc_cache_open(struct lc_store *ssd, const struct lc_volume_spec *specs, unsigned nr_specs,
		  const struct lc_settings *settings, struct lc_cache **out, struct lc_error *err);

/* Start the threads. On failure the cache is as lc_cache_open left it, and can be closed. */
int lc_cache_start(struct lc_cache *c, struct lc_error *err);

/* --- attach and detach, while clients go on; from one thread at a time --- */

enum lc_cache_state { LC_CACHE_NONE, LC_CACHE_ATTACHING, LC_CACHE_ATTACHED, LC_CACHE_DETACHING };

/*
 * Give a cache to volumes that are being served without one; it was formatted before. Clients notice nothing but
 * a short wait. The cache begins empty: what it has of these volumes is dropped. Refused like an opening, and
 * besides if it holds anything dirty, or if a backing store cannot be flushed. SSD stays the caller's until it is
 * detached. -EBUSY: there is one, or one is being attached or detached; -ECANCELED: lc_cache_interrupt; -ETIMEDOUT:
 * a client's write is stuck in its backing store. After a failure the volumes are served without a cache as before.
 */
int lc_cache_attach(struct lc_cache *c, struct lc_store *ssd, struct lc_error *err);

/*
 * Write everything back, serve the volumes without the cache, and let go of its SSD. Clients wait only for the
 * last bit of write-back. On failure the cache stays as it was. -EUCLEAN: blocks are lost, which must not turn into
 * old data; -ETIMEDOUT: clients write faster than that can be written back.
 */
int lc_cache_detach(struct lc_cache *c, struct lc_error *err);

/* End what lc_cache_attach, lc_cache_detach and lc_cache_drain are waiting for, for good: before closing. */
void lc_cache_interrupt(struct lc_cache *c);

/*
 * Write everything back until tail = head, while clients may go on. Returns 0 when nothing dirty
 * was left at some moment after the call, or what a store answered. -EBUSY while attaching or detaching.
 * Blocks that cannot be read from the SSD are not waited for: they go on the list of lost blocks (lc_stats.bad_blocks).
 */
int lc_cache_drain(struct lc_cache *c);
/* For a message, when it has returned RC: which store has failed, of which volume, and how. */
void lc_cache_drain_error(struct lc_cache *c, int rc, struct lc_error *why);

/*
 * Stop the threads, make the log durable, write the superblock with the clean flag, release
 * everything. No client call is in progress. Returns what failed (the memory is released all the
 * same): then the next opening recovers as after a crash. Works on a cache that was never started.
 */
int lc_cache_close(struct lc_cache *c);

/* How messages call the volume NAME: the default export, which has none, "(default)". */
const char *lc_volume_shown(const char *name);

/* The I-th volume of the specs given to lc_cache_open. */
struct lc_volume *lc_cache_volume(struct lc_cache *c, unsigned i);

/* Do the volumes go through a cache now? */
bool lc_cache_has_ssd(struct lc_cache *c);

/* Size in bytes: that of its backing store. */
u64 lc_volume_size_bytes(const struct lc_volume *v);

/* --- I/O: any thread, any alignment, any buffer; offset + len <= size --- */

/* Flags. */
#define LC_FUA 1u      /* return only when this is durable */
#define LC_MAY_TRIM 2u /* lc_zero: the backing store may give the space back */
#define LC_FAST_ONLY \
	4u /* lc_zero: fail with -EOPNOTSUPP, at once, where it is no faster than a write */

/* -EIO: the data cannot be had (a store failed, or a block is lost: never stale data, I10). */
int lc_read(struct lc_volume *v, void *buf, u32 len_bytes, u64 offset_bytes);

/*
 * When it returns 0 the data is visible to every reader; it is durable after a later lc_flush or with
 * LC_FUA. On failure any part of the range may have been written, sector by sector. BUF must not change before it
 * returns: the checksum is taken of what it held a moment before the copy, and a recovery cuts the log at a record that is wrong.
 * -ESHUTDOWN: given up, see lc_settings.abandoned.
 */
int lc_write(struct lc_volume *v, const void *buf, u32 len_bytes, u64 offset_bytes, unsigned flags);

/*
 * Write zeros: the same promises. A large range costs one entry of the log, and the backing store
 * is zeroed later, by write-back.
 */
int lc_zero(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags);

/*
 * The data is not needed any more. Each sector of the range reads as zeros afterwards, or as before; the space
 * of whole blocks is given back by write-back. Does nothing unless lc_volume_can_trim. Flags: LC_FUA.
 */
int lc_trim(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, unsigned flags);

/*
 * Every write, zero and trim acknowledged before this call, on any connection to any volume that shares
 * the log (or, without an SSD, to this volume), is durable when it returns 0; except for what an earlier failure was about.
 */
int lc_flush(struct lc_volume *v);

/*
 * Without an SSD a flush that fails may have lost what it was to make durable, whoever has written that, and nobody can bring it
 * back; and a store tells of it once. So each client (a connection) is told, once: by its next lc_client_flush, and
 * those under way. One that comes later is told what nobody has heard yet.
 */
struct lc_client {
	u64 failures_heard; /* the engine's own */
};

/* V's client C begins. Nothing ends it. */
void lc_client_begin(struct lc_volume *v, struct lc_client *c);
/* lc_flush() by a client of V. */
int lc_client_flush(struct lc_volume *v, struct lc_client *c);

/*
 * What begins at OFFSET, and how far it goes, at most LEN: cached blocks are data, ranges that were zeroed are
 * holes, for the rest the backing store is asked. The extent may end before the next change.
 */
int lc_extent(struct lc_volume *v, u64 len_bytes, u64 offset_bytes, struct lc_extent *out);

/* Can the backing store give space back, and zero faster than by writing zeros? */
bool lc_volume_can_trim(const struct lc_volume *v);
bool lc_volume_can_fast_zero(const struct lc_volume *v);

/* --- insight --- */

/*
 * Blocks of clients' requests by sixteen kinds, an index made of these: a write or a read; a hit (of a read: all that was
 * wanted is in the cache; of a write: the block was there before) or a miss; in a segment buffer in RAM or not; the
 * whole block or a part.
 */
#define LC_KIND_WRITE 8u
#define LC_KIND_HIT 4u
#define LC_KIND_BUFFER 2u
#define LC_KIND_WHOLE 1u
#define LC_NR_KINDS 16u

struct lc_stats {
	/*
	 * Clients: blocks by kind, requests and bytes. What each request counts comes first and is dense: aligned to a cache
	 * line, a read touches the first and third one, a write the second and third one.
	 */
	u64 blocks[LC_NR_KINDS];
	u64 reads, read_bytes, writes, write_bytes, flushes;
	u64 zeros, zero_bytes, trims, trim_bytes;
	/* the log */
	u64 records, segments, log_bytes, commits;
	/* write-back */
	u64 sweeps; /* sorted, from one flush of a backing store to the next */
	u64 rounds; /* from one end of a volume to the other: a round is made of sweeps */
	u64 writeback_blocks, writeback_ios, backing_flushes, superseded_blocks;
	u64 zeroed_blocks; /* on the backing stores */
	u64 writeback_ns;  /* spent in sweeps */
	/* trouble: I/O that stores failed (of all backing stores together), and what was wrong without an error */
	u64 ssd_errors, backing_errors, crc_errors, lost_blocks;
	/* state now; all but the first two are 0 without a cache */
	enum lc_cache_state state;
	u64 held_ns; /* so long writers were held at a stretch for the present or last attach or detach */
	u64 head_id, tail_id, durable_id; /* segments: the newest, written back, durable */
	u64 seq, durable_seq, epoch;
	/* free + clean + dirty = all, of one moment; open: 1 if the head, which is dirty, still takes records */
	u64 nr_segments, free_segments, clean_segments, dirty_segments, open_segments;
	u64 dirty_blocks, cached_blocks, capacity_blocks;
	u64 pending_zero_blocks; /* to be zeroed on the backing stores */
	u64 memory_bytes;	 /* index, tables and buffers */
	u32 segment_bytes;
	u32 waiting_writers; /* for space in the log */
	u64 pace_delay_ns; /* what a writer pays for a block now, because the log is nearly full; 0: nothing */
	u64 writeback_rate_blocks; /* a second, lately, while it is at work */
	u32 failing_volumes;	   /* whose backing stores failed when write-back last tried */
	bool log_failed;	   /* the SSD has, and the log is not durable again yet */
	u64 bad_blocks;		   /* on the list of lost blocks */
	/* how it was found at opening */
	bool was_clean;	       /* closed in good order */
	u64 recovered_records; /* above the tail */
	u64 opening_ns;	       /* so long that took */
};

/* Blocks of all kinds that have the bits in SET, and lack those in CLEAR. */
static inline u64 lc_stats_blocks(const struct lc_stats *st, u32 set, u32 clear)
{
	u64 nr = 0;

	for (u32 kind = 0; kind < LC_NR_KINDS; kind++)
		if ((kind & set) == set && !(kind & clear))
			nr += st->blocks[kind];
	return nr;
}

/* What takes how long below the clients. */
struct lc_latencies {
	struct lc_histogram backing_read;  /* a read of a backing store for a client */
	struct lc_histogram backing_write; /* a write of write-back, from its submission on */
	struct lc_histogram commit;	   /* a flush of the SSD */
};

void lc_cache_latencies(struct lc_cache *c, struct lc_latencies *out);

struct lc_volume_stats {
	u64 size_bytes;
	u64 cached_blocks, dirty_blocks, pending_zero_blocks;
	u64 backing_errors; /* I/O that its backing store failed */
	bool failing;	    /* its backing store, when write-back last tried */
};

void lc_volume_stats(struct lc_volume *v, struct lc_volume_stats *out);
const char *lc_volume_name(const struct lc_volume *v);
const char *lc_volume_backing_name(const struct lc_volume *v);

/* The ring of segments, for a picture: each place is one of these. */
enum lc_place_state { LC_PLACE_FREE, LC_PLACE_CLEAN, LC_PLACE_DIRTY, LC_PLACE_HEAD };

/*
 * The states of all places of the ring, scaled down to NR cells; each cell is the "worst" of its places, in the order of the
 * enum. Returns how many cells were filled in: 0 without a cache, fewer than NR if there are fewer places.
 */
u32 lc_cache_map(struct lc_cache *c, u8 *cells, u32 nr);

/* Count from 0 again: all but the state. */
void lc_cache_reset_stats(struct lc_cache *c);

void lc_cache_stats(struct lc_cache *c, struct lc_stats *out);

/* Bytes of RAM for each block of a cache with this segment size, apart from the buffers. */
double lc_memory_per_block(u32 segment_bytes);

#endif
