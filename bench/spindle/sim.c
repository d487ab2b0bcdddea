/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim.c - the disk of model.h without real time: how long would this take?
 *
 *	spindle-sim [--size BYTES] [--seed N] [--depth N] [--queue N] [--write-cache] WHAT
 *
 *	sheet             what the arm does: next track, average over random pairs, full stroke; rates
 *	random N          N writes of 4 KiB to different random places, DEPTH in flight
 *	reads N           the same with reads
 *	sweep N           one sorted sweep over N different random blocks, DEPTH in flight
 *	sweeps N K        the same N blocks in sweeps of K, in the order in which they would have been written
 *	sequential N      N reads of 1 MiB, one behind the other
 *	table             what was asked of the model, what it does, and what it would do without skew
 *
 * --depth is how many requests the host has in flight, --queue how many of them the disk sees (by default 32; the
 * host's queue if that is to be sorted by the disk). The blocks of a seed are those of the load generator's
 * --distinct.
 */
#include "../common/shuffle.h"
#include "model.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
	u64 size_bytes;
	u64 seed;
	u32 depth;
	u32 queue;
	bool write_cache;
	bool no_skew;
};

struct result {
	u64 ns;
	struct disk_stats stats;
};

static void die(const char *what)
{
	fprintf(stderr, "spindle-sim: %s\n", what);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

static void disk_open(struct disk *d, const struct args *a)
{
	struct disk_options o = disk_7200rpm(a->size_bytes, a->write_cache);

	o.queue_depth = a->queue;
	if (a->no_skew)
		o.sheet.skew_ns = 0;
	if (disk_init(d, &o) < 0)
		die("no such disk: it must be larger than a few MiB, and there must be memory for it");
}

/*
 * Requests OFFSETS[NR] of LEN_BYTES each in this order, at most DEPTH in flight, each of which is followed by the next at
 * the moment it is completed; then a flush. Goes on where D is.
 */
static void play(struct disk *d, enum disk_op op, const u64 *offsets, u64 nr, u64 len_bytes, u32 depth)
{
	struct disk_request *requests = must(calloc(depth + 1, sizeof(*requests)));
	struct disk_request *r, *next;
	u64 submitted = 0, completed = 0;
	u64 now_ns = d->now_ns;

	for (; submitted < nr && submitted < depth; submitted++) {
		requests[submitted] = (struct disk_request){
			.op = op,
			.offset_bytes = offsets[submitted],
			.len_bytes = len_bytes,
		};
		disk_submit(d, &requests[submitted], now_ns);
	}
	while (completed < nr) {
		now_ns = disk_next_ns(d);
		if (now_ns == DISK_NEVER)
			die("the disk stands still");
		for (r = disk_advance(d, now_ns); r; r = next) {
			next = r->next;
			completed++;
			if (submitted == nr)
				continue;
			r->offset_bytes = offsets[submitted++];
			disk_submit(d, r, now_ns);
		}
	}
	r = &requests[depth];
	r->op = DISK_FLUSH;
	disk_submit(d, r, now_ns);
	while (!disk_advance(d, now_ns)) {
		now_ns = disk_next_ns(d);
		if (now_ns == DISK_NEVER)
			die("the disk stands still in a flush");
	}
	free(requests);
}

static int ascending(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

/* NR different random blocks. */
static u64 *blocks(const struct args *a, u64 nr)
{
	struct shuffle s = shuffle_init(a->size_bytes / LC_BLOCK, a->seed);
	u64 *offsets;

	if (nr == 0 || nr > s.nr)
		die("the disk does not have so many blocks");
	offsets = must(calloc(nr, sizeof(u64)));
	for (u64 i = 0; i < nr; i++)
		offsets[i] = shuffle_at(&s, i) * LC_BLOCK;
	return offsets;
}

static struct result run(const struct args *a, enum disk_op op, u64 nr, u64 sweep)
{
	struct result result;
	u64 *offsets = blocks(a, nr);
	struct disk d;

	disk_open(&d, a);
	for (u64 i = 0; i < nr; i += sweep ? sweep : nr) {
		u64 n = sweep && sweep < nr - i ? sweep : nr - i;

		if (sweep)
			qsort(offsets + i, n, sizeof(u64), ascending);
		play(&d, op, offsets + i, n, LC_BLOCK, a->depth);
	}
	result = (struct result){.ns = d.now_ns, .stats = d.stats};
	disk_destroy(&d);
	free(offsets);
	return result;
}

static struct result sequential(const struct args *a, u64 nr)
{
	u64 *offsets = must(calloc(nr, sizeof(u64)));
	struct result result;
	struct disk d;

	disk_open(&d, a);
	for (u64 i = 0; i < nr; i++)
		offsets[i] = i << 20;
	if (nr << 20 > a->size_bytes)
		die("the disk is too small");
	play(&d, DISK_READ, offsets, nr, 1 << 20, a->depth);
	result = (struct result){.ns = d.now_ns, .stats = d.stats};
	disk_destroy(&d);
	free(offsets);
	return result;
}

static void print(const struct result *r, u64 nr)
{
	const struct disk_stats *s = &r->stats;
	double n = (double)s->accesses, ms = n * 1e6;

	printf("%.1f per second, %.3f s\n", (double)nr * 1e9 / (double)r->ns, (double)r->ns / 1e9);
	printf("per access: seek %.3f ms, rotation %.3f ms, transfer %.3f ms; %.1f to choose from; "
	       "%.1f %% coalesced, %.1f %% aged\n",
	       (double)s->seek_ns / ms, (double)s->rotation_ns / ms, (double)s->transfer_ns / ms,
	       (double)s->depth_sum / n, 100 * (double)s->coalesced / n, 100 * (double)s->aged / n);
}

static void sheet(const struct args *a)
{
	struct shuffle s;
	struct disk d;
	double sum_ns = 0;
	u64 nr = 1000000;

	disk_open(&d, a);
	s = shuffle_init(nr, a->seed);
	for (u64 i = 0; i < nr; i++) {
		u64 from = shuffle_mix(2 * shuffle_at(&s, i)) % d.platter.nr_tracks;
		u64 to = shuffle_mix(2 * shuffle_at(&s, i) + 1) % d.platter.nr_tracks;

		sum_ns += (double)platter_seek_ns(&d.platter, from, to);
	}
	printf("seek: next track %.2f ms, average %.2f ms, full stroke %.2f ms (c = %.3f, b = %.2f ms)\n",
	       (double)platter_seek_ns(&d.platter, 0, 1) / 1e6, sum_ns / (double)nr / 1e6,
	       (double)platter_seek_ns(&d.platter, 0, d.platter.nr_tracks - 1) / 1e6, d.platter.c,
	       d.platter.b_ns / 1e6);
	printf("tracks: %ju of %ju bytes, revolution %.2f ms\n", (uintmax_t)d.platter.nr_tracks,
	       (uintmax_t)d.platter.track_bytes, (double)d.platter.sheet.revolution_ns / 1e6);
	disk_destroy(&d);
}

static void row(struct args *a, const char *what, u64 nr, u64 sweep, double expected)
{
	double rate[2];

	for (unsigned i = 0; i < 2; i++) {
		struct result r;

		a->no_skew = i == 1;
		r = run(a, DISK_WRITE, nr, sweep);
		rate[i] = (double)nr * 1e9 / (double)r.ns;
	}
	printf("%-42s %8.0f %8.0f %+5.0f %% %10.0f %+5.0f %%\n", what, expected, rate[0],
	       100 * (rate[0] / expected - 1), rate[1], 100 * (rate[1] / expected - 1));
}

/* The figures that issue 6 gives for its model, which must have had tracks without skew. */
static void table(const struct args *args)
{
	static const struct {
		u32 depth;
		double expected;
	} random[] = {{1, 76}, {32, 187}, {1024, 400}};
	static const struct {
		u64 blocks;
		double expected[2]; /* depth 1, 32 */
	} sweeps[] = {
		{4 << 10, {197, 405}},	 {16 << 10, {212, 537}}, {64 << 10, {271, 696}},
		{256 << 10, {563, 972}}, {1 << 20, {910, 2022}},
	};
	struct args a = *args;
	char what[64];

	printf("%-42s %8s %8s %7s %10s\n", "4 KiB writes to a disk of 64 GiB, per second",
	       "expected", "model", "", "no skew");
	for (unsigned i = 0; i < sizeof(random) / sizeof(*random); i++) {
		a.queue = a.depth = random[i].depth;
		snprintf(what, sizeof(what), "random, depth %u", a.depth);
		row(&a, what, 8192, 0, random[i].expected);
	}
	for (unsigned deep = 0; deep < 2; deep++) {
		for (unsigned i = 0; i < sizeof(sweeps) / sizeof(*sweeps); i++) {
			a.queue = a.depth = deep ? 32 : 1;
			snprintf(what, sizeof(what), "one sorted sweep over %ju Ki, depth %u",
				 (uintmax_t)sweeps[i].blocks >> 10, a.depth);
			row(&a, what, sweeps[i].blocks, sweeps[i].blocks, sweeps[i].expected[deep]);
		}
	}
}

static u64 number(const char *text)
{
	char *end;
	u64 n = strtoull(text, &end, 0);

	if (*end || end == text || *text == '-')
		die("not a number");
	return n;
}

static void usage(void)
{
	die("usage: spindle-sim [--size BYTES] [--seed N] [--depth N] [--queue N] [--write-cache]\n"
	    "    sheet | random N | reads N | sweep N | sweeps N K | sequential N | table");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},	 {"seed", required_argument, NULL, 'r'},
		{"depth", required_argument, NULL, 'd'}, {"queue", required_argument, NULL, 'q'},
		{"write-cache", no_argument, NULL, 'w'}, {0},
	};
	struct args a = {.size_bytes = 64ull << 30, .seed = 1, .depth = 32, .queue = 32};
	struct result r;
	const char *what;
	u64 nr = 0, sweep = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			a.size_bytes = number(optarg);
			break;
		case 'r':
			a.seed = number(optarg);
			break;
		case 'd':
			a.depth = (u32)number(optarg);
			break;
		case 'q':
			a.queue = (u32)number(optarg);
			break;
		case 'w':
			a.write_cache = true;
			break;
		default:
			usage();
		}
	}
	if (optind == argc || !a.depth || !a.queue)
		usage();
	what = argv[optind++];
	if (optind < argc)
		nr = number(argv[optind++]);
	if (optind < argc)
		sweep = number(argv[optind++]);

	if (!strcmp(what, "sheet")) {
		sheet(&a);
		return 0;
	}
	if (!strcmp(what, "table")) {
		table(&a);
		return 0;
	}
	if (!nr)
		usage();
	if (!strcmp(what, "random"))
		r = run(&a, DISK_WRITE, nr, 0);
	else if (!strcmp(what, "reads"))
		r = run(&a, DISK_READ, nr, 0);
	else if (!strcmp(what, "sweep"))
		r = run(&a, DISK_WRITE, nr, nr);
	else if (!strcmp(what, "sweeps") && sweep)
		r = run(&a, DISK_WRITE, nr, sweep);
	else if (!strcmp(what, "sequential"))
		r = sequential(&a, nr);
	else
		usage();
	print(&r, nr);
	return 0;
}
