/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stress.c - the engine with real threads and real I/O, for the sanitizers.
 *
 *	stress [--seconds N] [--dir D] [--seed S]
 *
 * The simulation runs one fiber at a time, so it cannot see two threads touch the same memory without
 * a lock. Here they do run together: on the POSIX runtime and the file store, over three small files
 * in D: the cache and two volumes. A round opens the cache with settings drawn at random, and for about a second
 *
 *	owners    write, zero, trim, read and compare the pieces of the volumes that are theirs alone, whole and
 *	          unaligned: neighbours in one sector belong to different owners
 *	sharers   write and read the same few sectors, which say who wrote them (below)
 *	others    flush, drain, poll statistics
 *
 * then all is verified, closed, opened, verified again. The cache is so small that the log laps many
 * times in a round. After a round that ended with a drain the second volume may be left out. After some rounds
 * everything is drained, the backing stores verified by themselves, served for a round without a cache, and a
 * cache of another geometry formatted.
 *
 * Shared sectors. The content of a write is its ticket and the sector's number. A reader must find sectors
 * that are whole, and of a write that may be seen (linearizability of one sector): not of one that was
 * acknowledged before another one was submitted that was acknowledged before the read began.
 *
 * Exit status 0; a finding prints one line and aborts. Seeds repeat the workload, not the schedule.
 *
 * Locking: an owner's pieces of the shadow are its own; the sharers' history consists of atomics.
 */
#include <assert.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "logcache/logcache.h"
#include "rt_posix.h"

#define OWNERS 6u
#define SHARERS 4u
#define VOLUMES 2u
/*
 * Bytes of a volume: [0, OWNED) belongs to owners, the rest is shared (on the first one) but for an odd
 * end.
 */
#define OWNED_BYTES (3u << 20)
#define SHARED_SECTORS 512u
#define SHARED_OFFSET OWNED_BYTES
/* Not a multiple of anything: the last block reaches past the end. */
#define VOLUME_BYTES (OWNED_BYTES + SHARED_SECTORS * LC_SECTOR + 1000u)
#define PIECE_MAX_BYTES (96u << 10)
#define PIECES_MAX 1024u
#define REQUEST_MAX_BYTES (256u << 10)
#define TICKETS (1u << 20)
/* Nothing takes so long but a deadlock. */
#define PATIENCE_S 120u

struct piece {
	unsigned volume;
	u32 offset;
	u32 len;
	unsigned owner;
};

struct round {
	struct lc_cache *cache;
	unsigned nr_volumes;
	u64 end_ns;
	atomic_bool stop; /* for those who only keep others company */
};

struct worker {
	pthread_t thread;
	struct round *round;
	unsigned number;
	u64 random;
	u8 *buf; /* REQUEST_MAX_BYTES */
	u64 requests;
};

static struct piece pieces[PIECES_MAX];
static unsigned nr_pieces;
static u8 shadow[VOLUMES][OWNED_BYTES]; /* what owners expect; each touches its own pieces */
static bool drained;			/* nothing is dirty: the second volume may be left out */

/*
 * The clock of the sharers: a number for each event. Of write T: acked[T] is the time when it was known to be
 * done, 0 before that. settled[S]: the latest time of submission of an acknowledged write of sector S.
 */
static atomic_uint_fast64_t clock_now = 1;
static atomic_uint_fast64_t acked[TICKETS];
static atomic_uint_fast64_t settled[SHARED_SECTORS];
static atomic_uint next_ticket = 1;

static unsigned long long seed;
static atomic_ullong total_requests;

/* --- small things --- */

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	flockfile(stderr);
	fprintf(stderr, "stress: seed %llu: ", seed);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	funlockfile(stderr);
	va_end(ap);
	abort();
}

static void must(int rc, const char *what)
{
	if (rc)
		fail("%s: %s", what, strerror(-rc));
}

static u64 draw(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* A number below N. */
static u32 below(u64 *state, u32 n)
{
	return (u32)((draw(state) >> 32) * n >> 32);
}

static void nap(u64 *state, u32 most_us)
{
	usleep(below(state, most_us));
}

static void on_alarm(int sig)
{
	static const char text[] = "stress: no progress: a deadlock, or much too slow\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	abort();
}

/* --- owners --- */

static void cut_pieces(u64 *state, unsigned volume)
{
	u32 at = 0;

	while (at < OWNED_BYTES && nr_pieces < PIECES_MAX) {
		u32 most = below(state, 3) ? PIECE_MAX_BYTES : 2000;
		u32 len = 1 + below(state, most);

		if (len > OWNED_BYTES - at)
			len = OWNED_BYTES - at;
		pieces[nr_pieces] = (struct piece){volume, at, len, nr_pieces % OWNERS};
		nr_pieces++;
		at += len;
	}
}

static void compare(const u8 *found, unsigned volume, u32 offset, u32 len, const char *when)
{
	const u8 *want = shadow[volume] + offset;

	for (u32 i = 0; i < len; i++) {
		if (found[i] != want[i])
			fail("%s: volume %u, byte %u is %02x, not %02x (request of %u+%u)", when,
			     volume, offset + i, found[i], want[i], offset, len);
	}
}

/* A piece of a volume that is served now. */
static const struct piece *draw_piece(struct worker *w)
{
	const struct piece *p;

	do
		p = &pieces[below(&w->random, nr_pieces)];
	while (p->owner != w->number || p->volume >= w->round->nr_volumes);
	return p;
}

static void owner_zero(struct worker *w, const struct piece *p, u32 offset, u32 len)
{
	static const unsigned flags[] = {0, 0, LC_MAY_TRIM, LC_FUA, LC_FUA | LC_MAY_TRIM};

	must(lc_zero(lc_cache_volume(w->round->cache, p->volume), len, offset,
		     flags[below(&w->random, 5)]),
	     "zero");
	memset(shadow[p->volume] + offset, 0, len);
}

static void owner_trim(struct worker *w, const struct piece *p, u32 offset, u32 len)
{
	struct lc_volume *v = lc_cache_volume(w->round->cache, p->volume);
	u32 first = (offset + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
	u32 end = (offset + len) / LC_BLOCK * LC_BLOCK;

	must(lc_trim(v, len, offset, below(&w->random, 8) ? 0 : LC_FUA), "trim");
	if (lc_volume_can_trim(v) && first < end)
		memset(shadow[p->volume] + first, 0, end - first);
}

/* Whatever is called a hole reads as zeros. */
static void owner_extent(struct worker *w, const struct piece *p, u32 offset, u32 len)
{
	struct lc_extent e;

	must(lc_extent(lc_cache_volume(w->round->cache, p->volume), len, offset, &e), "extent");
	if (!e.len_bytes || e.len_bytes > len)
		fail("an extent of %llu bytes in %u", (unsigned long long)e.len_bytes, len);
	for (u32 i = 0; e.hole && i < e.len_bytes; i++)
		if (shadow[p->volume][offset + i])
			fail("volume %u: byte %u is %02x, in what is called a hole (%u+%u)",
			     p->volume, offset + i, shadow[p->volume][offset + i], offset, len);
}

static void owner_request(struct worker *w)
{
	const struct piece *p = draw_piece(w);
	struct lc_volume *v = lc_cache_volume(w->round->cache, p->volume);
	u32 offset, len;

	offset = p->offset + below(&w->random, p->len);
	len = 1 + below(&w->random, p->offset + p->len - offset);
	/* Where a whole block is in the piece, mostly whole blocks. */
	if (below(&w->random, 4)) {
		u32 first = (p->offset + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
		u32 end = (p->offset + p->len) / LC_BLOCK * LC_BLOCK;

		if (first < end) {
			u32 nr = (end - first) / LC_BLOCK;
			u32 block = below(&w->random, nr);

			offset = first + block * LC_BLOCK;
			len = (1 + below(&w->random, nr - block)) * LC_BLOCK;
		}
	}
	switch (below(&w->random, 16)) {
	case 0 ... 4:
		must(lc_read(v, w->buf, len, offset), "read");
		compare(w->buf, p->volume, offset, len, "an owner reads");
		return;
	case 5:
		owner_zero(w, p, offset, len);
		return;
	case 6:
		/* all of it: most large pieces have room for an entry */
		owner_zero(w, p, p->offset, p->len);
		return;
	case 7:
		owner_trim(w, p, offset, len);
		return;
	case 8:
		owner_extent(w, p, offset, len);
		return;
	}
	for (u32 i = 0; i < len; i += 8) {
		u64 r = draw(&w->random);

		memcpy(w->buf + i, &r, len - i < 8 ? len - i : 8);
	}
	must(lc_write(v, w->buf, len, offset, below(&w->random, 32) == 0 ? LC_FUA : 0), "write");
	memcpy(shadow[p->volume] + offset, w->buf, len);
}

static void *owner_main(void *opaque)
{
	struct worker *w = opaque;

	while (lc_now_ns() < w->round->end_ns) {
		owner_request(w);
		w->requests++;
	}
	return NULL;
}

/* --- sharers --- */

static u64 tick(void)
{
	return atomic_fetch_add(&clock_now, 1);
}

static void fill_sector(u8 *to, u32 sector, u64 ticket)
{
	u64 word = ticket << 32 | sector;

	for (u32 i = 0; i < LC_SECTOR; i += sizeof(word))
		memcpy(to + i, &word, sizeof(word));
}

/* The ticket in a sector; 0: never written. */
static u32 sector_ticket(const u8 *from, u32 sector)
{
	u64 first;

	memcpy(&first, from, sizeof(first));
	for (u32 i = sizeof(first); i < LC_SECTOR; i += sizeof(first)) {
		if (memcmp(from + i, &first, sizeof(first)) != 0)
			fail("shared sector %u is torn: %016llx at 0, something else at %u", sector,
			     (unsigned long long)first, i);
	}
	if (first && (u32)first != sector)
		fail("shared sector %u has the content of sector %u", sector, (u32)first);
	return (u32)(first >> 32);
}

static void check_shared(struct lc_volume *v, u8 *buf, u32 first, u32 nr)
{
	u64 floors[SHARED_SECTORS];

	for (u32 i = 0; i < nr; i++)
		floors[i] = atomic_load(&settled[first + i]);
	must(lc_read(v, buf, nr * LC_SECTOR, SHARED_OFFSET + first * LC_SECTOR), "shared read");
	for (u32 i = 0; i < nr; i++) {
		u32 ticket = sector_ticket(buf + i * LC_SECTOR, first + i);
		u64 done = atomic_load(&acked[ticket]);

		if (ticket >= atomic_load(&next_ticket))
			fail("shared sector %u has ticket %u, which was not drawn yet", first + i,
			     ticket);
		if (ticket == 0 ? floors[i] > 0 : done && done < floors[i])
			fail("shared sector %u is stale: ticket %u was done at %llu, and another "
			     "write submitted at %llu was done before this read",
			     first + i, ticket, (unsigned long long)done,
			     (unsigned long long)floors[i]);
	}
}

static void shared_write(struct worker *w, u32 first, u32 nr, u32 ticket)
{
	u64 submitted, done;

	for (u32 i = 0; i < nr; i++)
		fill_sector(w->buf + i * LC_SECTOR, first + i, ticket);
	submitted = tick();
	must(lc_write(lc_cache_volume(w->round->cache, 0), w->buf, nr * LC_SECTOR,
		      SHARED_OFFSET + first * LC_SECTOR, below(&w->random, 64) == 0 ? LC_FUA : 0),
	     "shared write");
	done = tick();
	atomic_store(&acked[ticket], done);
	for (u32 i = 0; i < nr; i++) {
		uint_fast64_t was = atomic_load(&settled[first + i]);

		while (was < submitted &&
		       !atomic_compare_exchange_weak(&settled[first + i], &was, submitted))
			;
	}
}

static void *sharer_main(void *opaque)
{
	struct worker *w = opaque;

	while (lc_now_ns() < w->round->end_ns) {
		u32 most = below(&w->random, 4) ? 16 : 128;
		u32 nr = 1 + below(&w->random, most);
		/* Half of them on a few blocks. */
		u32 room = (below(&w->random, 2) ? SHARED_SECTORS : 160) - nr;
		u32 first = below(&w->random, room + 1);
		u32 ticket = 0;

		if (below(&w->random, 2))
			ticket = atomic_fetch_add(&next_ticket, 1);
		if (ticket >= TICKETS)
			break; /* enough for one run */
		if (ticket)
			shared_write(w, first, nr, ticket);
		else
			check_shared(lc_cache_volume(w->round->cache, 0), w->buf, first, nr);
		w->requests++;
	}
	return NULL;
}

/* --- the others --- */

static void *flusher_main(void *opaque)
{
	struct worker *w = opaque;

	while (!atomic_load(&w->round->stop)) {
		must(lc_flush(lc_cache_volume(w->round->cache,
					      below(&w->random, w->round->nr_volumes))),
		     "flush");
		w->requests++;
		nap(&w->random, 4000);
	}
	return NULL;
}

static void *drainer_main(void *opaque)
{
	struct worker *w = opaque;

	while (!atomic_load(&w->round->stop)) {
		nap(&w->random, 200000);
		must(lc_cache_drain(w->round->cache), "drain");
		w->requests++;
	}
	return NULL;
}

static void *stats_main(void *opaque)
{
	struct worker *w = opaque;
	struct lc_stats before = {0}, s;

	while (!atomic_load(&w->round->stop)) {
		lc_cache_stats(w->round->cache, &s);
		if (s.tail_id > s.head_id || s.durable_seq > s.seq ||
		    s.dirty_segments > s.nr_segments || s.dirty_blocks > s.cached_blocks ||
		    s.cached_blocks > s.capacity_blocks)
			fail("statistics that cannot be: tail %llu, head %llu, durable %llu, seq "
			     "%llu, dirty %llu, cached %llu, capacity %llu",
			     (unsigned long long)s.tail_id, (unsigned long long)s.head_id,
			     (unsigned long long)s.durable_seq, (unsigned long long)s.seq,
			     (unsigned long long)s.dirty_blocks, (unsigned long long)s.cached_blocks,
			     (unsigned long long)s.capacity_blocks);
		if (s.writes < before.writes || s.reads < before.reads || s.seq < before.seq ||
		    s.tail_id < before.tail_id || s.durable_seq < before.durable_seq)
			fail("statistics that went back");
		if (s.ssd_errors || s.backing_errors || s.crc_errors || s.lost_blocks)
			fail("trouble: %llu ssd errors, %llu backing errors, %llu crc errors, %llu "
			     "lost blocks",
			     (unsigned long long)s.ssd_errors, (unsigned long long)s.backing_errors,
			     (unsigned long long)s.crc_errors, (unsigned long long)s.lost_blocks);
		before = s;
		nap(&w->random, 500);
	}
	return NULL;
}

static void *(*const others[])(void *) = {flusher_main, flusher_main, drainer_main, drainer_main,
					  stats_main};

#define NR_OTHERS (sizeof(others) / sizeof(others[0]))
#define NR_CLIENTS (OWNERS + SHARERS)

/* --- a round --- */

static void verify(const struct round *round, const char *when)
{
	static u8 buf[REQUEST_MAX_BYTES];

	for (unsigned i = 0; i < round->nr_volumes; i++)
		for (u32 at = 0; at < OWNED_BYTES; at += sizeof(buf)) {
			u32 len = OWNED_BYTES - at < sizeof(buf) ? OWNED_BYTES - at : sizeof(buf);

			must(lc_read(lc_cache_volume(round->cache, i), buf, len, at), "read");
			compare(buf, i, at, len, when);
		}
	check_shared(lc_cache_volume(round->cache, 0), buf, 0, SHARED_SECTORS);
}

static void work(struct round *round, u64 *state)
{
	struct worker workers[NR_CLIENTS + NR_OTHERS] = {0};
	u64 requests = 0;

	round->end_ns = lc_now_ns() + 200 * LC_NS_PER_MS + below(state, 1000) * LC_NS_PER_MS;
	atomic_store(&round->stop, false);
	for (unsigned i = 0; i < NR_CLIENTS + NR_OTHERS; i++) {
		struct worker *w = &workers[i];
		void *(*fn)(void *) = i < OWNERS     ? owner_main :
				      i < NR_CLIENTS ? sharer_main :
						       others[i - NR_CLIENTS];

		w->round = round;
		w->number = i;
		w->random = draw(state) | 1;
		w->buf = malloc(REQUEST_MAX_BYTES);
		if (!w->buf)
			fail("no memory");
		must(-pthread_create(&w->thread, NULL, fn, w), "pthread_create");
	}
	for (unsigned i = 0; i < NR_CLIENTS + NR_OTHERS; i++) {
		if (i == NR_CLIENTS)
			atomic_store(&round->stop, true);
		must(-pthread_join(workers[i].thread, NULL), "pthread_join");
		requests += workers[i].requests;
		free(workers[i].buf);
	}
	atomic_fetch_add(&total_requests, requests);
}

static void draw_settings(struct lc_settings *s, u64 *state)
{
	static const u32 flush_intervals[] = {0, 1, 20, 1000};
	static const u32 lows[] = {0, 10, 50, 100};

	lc_settings_init(s);
	s->nr_buffers = 2 + below(state, 6);
	s->writeback = below(state, 4) != 0;
	s->dirty_low_percent = lows[below(state, 4)];
	s->flush_interval_ms = flush_intervals[below(state, 4)];
	s->idle_ms = below(state, 2) * 50;
	s->batch_bytes = below(state, 2) ? 0 : 64u << 10;
	s->flush_deadline_ms = below(state, 3) ? 0 : 2;
	s->superblock_interval_ms = below(state, 2) * 20;
	s->writeback_threshold_percent = below(state, 2) ? 100 : 30;
	s->dirty_high_percent = 50;
}

/* SSD NULL: without a cache. */
static void open_cache(struct round *round, struct lc_store *ssd, struct lc_store *backing[VOLUMES],
		       unsigned nr, const struct lc_settings *settings)
{
	struct lc_volume_spec specs[VOLUMES] = {{"", backing[0]}, {"second", backing[1]}};
	struct lc_error err;

	if (lc_cache_open(ssd, specs, nr, settings, &round->cache, &err))
		fail("open: %s", err.text);
	round->nr_volumes = nr;
	if (lc_cache_start(round->cache, &err))
		fail("start: %s", err.text);
}

static void run_round(struct lc_store *ssd, struct lc_store *backing[VOLUMES], u64 *state)
{
	unsigned nr = drained && below(state, 3) == 0 ? 1 : VOLUMES;
	struct lc_settings settings;
	struct round round = {0};

	draw_settings(&settings, state);
	open_cache(&round, ssd, backing, nr, &settings);
	verify(&round, "after opening");
	work(&round, state);
	verify(&round, "after a round");
	if (below(state, 2))
		must(lc_flush(lc_cache_volume(round.cache, 0)), "flush");
	drained = below(state, 2);
	if (drained)
		must(lc_cache_drain(round.cache), "drain");
	must(lc_cache_close(round.cache), "close");
}

/* Everything to the backing stores, which then hold all by themselves; then a new cache. */
static void start_anew(struct lc_store *ssd, struct lc_store *backing[VOLUMES], u64 *state)
{
	struct lc_format_options options = {0};
	u8 *copy = lc_alloc(OWNED_BYTES);
	struct lc_settings settings;
	struct round round = {0};
	struct lc_error err;

	if (!copy)
		fail("no memory");
	options.segment_bytes = LC_SEGMENT_MIN_BYTES << below(state, 5);
	lc_settings_init(&settings);
	if (lc_cache_probe(ssd, &err) == 1) {
		open_cache(&round, ssd, backing, VOLUMES, &settings);
		must(lc_cache_drain(round.cache), "drain");
		must(lc_cache_close(round.cache), "close");
	}
	for (unsigned i = 0; i < VOLUMES; i++) {
		must(lc_store_read(backing[i], copy, OWNED_BYTES, 0), "read of the backing store");
		compare(copy, i, 0, OWNED_BYTES, "in the drained backing store");
	}
	lc_free(copy, OWNED_BYTES);
	drained = true;
	if (below(state, 3) == 0)
		run_round(NULL, backing, state);
	drained = true;
	if (lc_cache_format(ssd, &options, &err))
		fail("format: %s", err.text);
}

/* --- main --- */

static struct lc_store *create(const char *dir, const char *name, u64 size_bytes, char *path,
			       size_t path_bytes)
{
	struct lc_store *store;
	struct lc_error err;

	if (snprintf(path, path_bytes, "%s/stress-%ld-%s", dir, (long)getpid(), name) >=
	    (int)path_bytes)
		fail("--dir is too long");
	if (lc_file_create(path, size_bytes, &err) || lc_file_open(path, 0, &store, &err))
		fail("%s", err.text);
	return store;
}

/* Findings are errors here; the rest is noise. */
static void quiet(enum lc_log_level level, const char *line)
{
	if (level == LC_LOG_ERROR)
		fprintf(stderr, "stress: %s\n", line);
}

static int usage(const char *argv0)
{
	fprintf(stderr, "usage: %s [--seconds N] [--dir D] [--seed S]\n", argv0);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 't'},
		{"dir", required_argument, NULL, 'd'},
		{"seed", required_argument, NULL, 's'},
		{0},
	};
	char ssd_path[4096], backing_paths[VOLUMES][4096];
	struct lc_store *ssd, *backing[VOLUMES];
	unsigned rounds = 0;
	u32 seconds = 10;
	const char *dir = "/tmp";
	u64 end_ns, state;
	int c;

	lc_random(&seed, sizeof(seed));
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 't':
			seconds = (u32)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			dir = optarg;
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		default:
			return usage(argv[0]);
		}
	}
	if (optind < argc)
		return usage(argv[0]);
	state = seed | 1;
	signal(SIGALRM, on_alarm);
	lc_log_hook(quiet);
	for (unsigned i = 0; i < VOLUMES; i++)
		cut_pieces(&state, i);
	/* Room for 16 of the largest segments that start_anew() takes, and for 256 of the smallest. */
	ssd = create(dir, "ssd", (1u << 20) + (2u << 20), ssd_path, sizeof(ssd_path));
	for (unsigned i = 0; i < VOLUMES; i++)
		backing[i] = create(dir, i ? "second" : "backing", VOLUME_BYTES, backing_paths[i],
				    sizeof(backing_paths[i]));

	end_ns = lc_now_ns() + seconds * LC_NS_PER_S;
	while (lc_now_ns() < end_ns) {
		alarm(PATIENCE_S);
		if (rounds % 3 == 0)
			start_anew(ssd, backing, &state);
		run_round(ssd, backing, &state);
		rounds++;
	}
	alarm(PATIENCE_S);
	start_anew(ssd, backing, &state);
	lc_store_close(ssd);
	unlink(ssd_path);
	for (unsigned i = 0; i < VOLUMES; i++) {
		lc_store_close(backing[i]);
		unlink(backing_paths[i]);
	}
	printf("stress: %u rounds, %llu requests, seed %llu\n", rounds,
	       (unsigned long long)atomic_load(&total_requests), seed);
	return 0;
}
