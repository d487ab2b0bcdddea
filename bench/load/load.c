/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.c - options, what to request, counting, the result as JSON. See load.h.
 */
#include "load.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

void load_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("nbd-load: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

u64 load_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * LC_NS_PER_S + (u64)ts.tv_nsec;
}

void *load_alloc(size_t nr, size_t size)
{
	void *p = calloc(nr, size);

	if (!p)
		load_die("out of memory");
	return p;
}

/* --- what to request --- */

static u64 pick_block(struct load_worker *w, u64 taken)
{
	const struct load *l = w->load;

	if (l->options.sequential)
		return taken % l->nr_blocks;
	if (l->sorted)
		return l->sorted[taken];
	if (l->options.distinct)
		return shuffle_at(&l->shuffle, taken % l->nr_blocks);
	return shuffle_mix(w->random++) % l->nr_blocks;
}

bool load_next(struct load_worker *w, struct load_slot *s)
{
	struct load *l = w->load;
	const struct load_options *o = &l->options;
	u64 taken;

	s->began_ns = load_now_ns();
	if (o->flush_every && s->unflushed == o->flush_every) {
		s->op = LOAD_FLUSH; /* also at the end: what was begun is completed */
		return true;
	}
	if (o->seconds > 0 && s->began_ns >= l->stop_ns)
		return false;
	taken = atomic_fetch_add_explicit(&l->taken, 1, memory_order_relaxed);
	if (o->count && taken >= o->count)
		return false;
	s->op = o->op;
	s->fua = o->fua;
	s->offset_bytes = o->start_bytes + pick_block(w, taken) * o->stride_bytes;
	if (s->op == LOAD_WRITE)
		memcpy(s->buffer, &taken, sizeof(taken)); /* no two blocks are alike */
	return true;
}

void load_done(struct load_worker *w, struct load_slot *s)
{
	w->ended_ns = load_now_ns();
	lc_histogram_add(&w->latency[s->op], w->ended_ns - s->began_ns);
	if (s->op == LOAD_FLUSH)
		s->unflushed = 0;
	else if (s->op == LOAD_WRITE)
		s->unflushed++;
}

/* --- workers --- */

static void *work(void *arg)
{
	struct load_worker *w = arg;
	struct load *l = w->load;

	pthread_barrier_wait(&l->start);
	w->began_ns = w->ended_ns = load_now_ns();
	l->engine->run(w);
	return NULL;
}

static void prepare(struct load *l, u32 nr)
{
	struct load_worker *w = &l->workers[nr];
	const struct load_options *o = &l->options;

	w->load = l;
	w->random = shuffle_mix(o->seed * 1000003 + nr);
	w->slots = load_alloc(o->depth, sizeof(*w->slots));
	for (u32 i = 0; i < o->depth; i++) {
		struct load_slot *s = &w->slots[i];
		u64 x = shuffle_mix(w->random + i);

		s->worker = w;
		if (posix_memalign(&s->buffer, 4096, o->block_bytes))
			load_die("out of memory");
		for (u32 at = 0; at + sizeof(x) <= o->block_bytes;
		     at += sizeof(x), x = shuffle_mix(x))
			memcpy((char *)s->buffer + at, &x, sizeof(x));
	}
}

static int ascending(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

static void sort(struct load *l)
{
	u64 count = l->options.count;

	if (!count || count > l->nr_blocks)
		load_die("--sorted takes a --count of at most %ju", (uintmax_t)l->nr_blocks);
	l->sorted = load_alloc(count, sizeof(u64));
	for (u64 i = 0; i < count; i++)
		l->sorted[i] = shuffle_at(&l->shuffle, i);
	qsort(l->sorted, count, sizeof(u64), ascending);
}

static void run(struct load *l)
{
	const struct load_options *o = &l->options;

	l->workers = load_alloc(o->connections, sizeof(*l->workers));
	for (u32 i = 0; i < o->connections; i++) {
		u64 size;

		prepare(l, i);
		size = l->engine->open(&l->workers[i]);
		if (o->size_bytes > size)
			load_die("%s has only %ju bytes", o->target, (uintmax_t)size);
		size = o->size_bytes ? o->size_bytes : size;
		if (size < o->start_bytes + o->block_bytes)
			load_die("%s is smaller than one request", o->target);
		l->nr_blocks = (size - o->start_bytes - o->block_bytes) / o->stride_bytes + 1;
	}
	l->shuffle = shuffle_init(l->nr_blocks, o->seed);
	if (o->sorted)
		sort(l);
	pthread_barrier_init(&l->start, NULL, o->connections + 1);
	for (u32 i = 0; i < o->connections; i++) {
		if (pthread_create(&l->workers[i].thread, NULL, work, &l->workers[i]))
			load_die("cannot start a thread");
	}
	l->stop_ns = load_now_ns() + (u64)(o->seconds * 1e9);
	pthread_barrier_wait(&l->start);
	for (u32 i = 0; i < o->connections; i++)
		pthread_join(l->workers[i].thread, NULL);
	for (u32 i = 0; i < o->connections; i++)
		l->engine->close(&l->workers[i]);
}

/* --- the result --- */

static void print_latency(const char *name, const struct lc_histogram *h, double seconds)
{
	printf("\"%s\": {\"count\": %ju, \"per_second\": %.2f, \"mean_us\": %.2f, \"p50_us\": %.2f, "
	       "\"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}",
	       name, (uintmax_t)h->count, (double)h->count / seconds,
	       h->count ? (double)h->sum_ns / (double)h->count / 1e3 : 0,
	       (double)lc_histogram_quantile_ns(h, 500) / 1e3,
	       (double)lc_histogram_quantile_ns(h, 990) / 1e3,
	       (double)lc_histogram_quantile_ns(h, 999) / 1e3, (double)h->max_ns / 1e3);
}

static void print(const struct load *l)
{
	static const char *const names[] = {"read", "write", "flush"};
	struct lc_histogram sum[NR_LOAD_OPS] = {0};
	u64 began = UINT64_MAX, ended = 0;
	struct rusage ru;
	double seconds;

	for (u32 i = 0; i < l->options.connections; i++) {
		const struct load_worker *w = &l->workers[i];

		for (u32 op = 0; op < NR_LOAD_OPS; op++)
			lc_histogram_merge(&sum[op], &w->latency[op]);
		began = w->began_ns < began ? w->began_ns : began;
		ended = w->ended_ns > ended ? w->ended_ns : ended;
	}
	seconds = ended > began ? (double)(ended - began) / 1e9 : 1e-9;
	getrusage(RUSAGE_SELF, &ru);
	printf("{\"seconds\": %.6f, \"block_bytes\": %u, \"client_cpu_s\": %.6f", seconds,
	       l->options.block_bytes,
	       (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
		       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	for (u32 op = 0; op < NR_LOAD_OPS; op++) {
		printf(", ");
		print_latency(names[op], &sum[op], seconds);
	}
	printf("}\n");
}

/* --- options --- */

static const char help[] =
	"usage: nbd-load [OPTION]... TARGET\n"
	"\n"
	"Makes requests of one size to TARGET, an NBD URI, or the path of a file or block device (opened\n"
	"with O_DIRECT), and prints rate and latencies as JSON. Writes destroy what is there.\n"
	"\n"
	"  --op=read|write        (write)\n"
	"  --seconds=S            for so long; or\n"
	"  --count=N              so many\n"
	"  --connections=N        each with a thread of its own (1)\n"
	"  --depth=N              in flight on each (1). A path with a depth of 1 gets a bare loop\n"
	"                         of pread, or pwrite and fdatasync; otherwise io_uring\n"
	"  --block=BYTES          (4096)\n"
	"  --size=BYTES           how much of the target is used (all)\n"
	"  --start=BYTES          from there on (0)\n"
	"  --stride=BYTES         from one place to the next (that of --block)\n"
	"  --sequential           instead of random places\n"
	"  --distinct             random places, each block once before any comes again\n"
	"  --sorted               the same, the --count of them in ascending order: one sweep\n"
	"  --flush-every=N        flush after so many writes (0: never); each of the requests in flight\n"
	"                         counts for itself: with --depth=16 there are 16 who flush\n"
	"  --fua                  write with FUA\n"
	"  --seed=N               of the random places (1)\n";

static u64 number(const char *option, const char *text, u64 max)
{
	char *end;
	u64 n = strtoull(text, &end, 10);

	if (end == text || *end || *text == '-' || n > max)
		load_die("--%s=%s: give a number up to %ju", option, text, (uintmax_t)max);
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"op", required_argument, NULL, 'o'},
		{"seconds", required_argument, NULL, 't'},
		{"count", required_argument, NULL, 'n'},
		{"connections", required_argument, NULL, 'c'},
		{"depth", required_argument, NULL, 'd'},
		{"block", required_argument, NULL, 'b'},
		{"size", required_argument, NULL, 's'},
		{"start", required_argument, NULL, 'p'},
		{"stride", required_argument, NULL, 'e'},
		{"sequential", no_argument, NULL, 'q'},
		{"distinct", no_argument, NULL, 'u'},
		{"sorted", no_argument, NULL, 'i'},
		{"flush-every", required_argument, NULL, 'f'},
		{"fua", no_argument, NULL, 'a'},
		{"seed", required_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct load_options o = {
		.op = LOAD_WRITE,
		.connections = 1,
		.depth = 1,
		.block_bytes = 4096,
		.seed = 1,
	};
	struct load l = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			if (!strcmp(optarg, "read"))
				o.op = LOAD_READ;
			else if (strcmp(optarg, "write") != 0)
				load_die("--op=%s: read or write", optarg);
			break;
		case 't':
			o.seconds = strtod(optarg, NULL);
			break;
		case 'n':
			o.count = number("count", optarg, UINT64_MAX);
			break;
		case 'c':
			o.connections = (u32)number("connections", optarg, 1024);
			break;
		case 'd':
			o.depth = (u32)number("depth", optarg, 4096);
			break;
		case 'b':
			o.block_bytes = (u32)number("block", optarg, 32 << 20);
			break;
		case 's':
			o.size_bytes = number("size", optarg, INT64_MAX);
			break;
		case 'p':
			o.start_bytes = number("start", optarg, INT64_MAX);
			break;
		case 'e':
			o.stride_bytes = number("stride", optarg, INT64_MAX);
			break;
		case 'q':
			o.sequential = true;
			break;
		case 'u':
			o.distinct = true;
			break;
		case 'i':
			o.distinct = o.sorted = true;
			break;
		case 'f':
			o.flush_every = (u32)number("flush-every", optarg, UINT32_MAX);
			break;
		case 'a':
			o.fua = true;
			break;
		case 'r':
			o.seed = number("seed", optarg, UINT64_MAX);
			break;
		case 'h':
			fputs(help, stdout);
			return 0;
		default:
			return 1;
		}
	}
	if (optind + 1 != argc)
		load_die("give one target (--help)");
	if (!(o.seconds > 0) && !o.count)
		load_die("give --seconds or --count: for how long? (--help)");
	if (!o.connections || !o.depth || o.block_bytes < 512 || o.block_bytes % 512)
		load_die("connections and depth are at least 1, a block is a multiple of 512 bytes");
	if (!o.stride_bytes)
		o.stride_bytes = o.block_bytes;
	o.target = argv[optind];
	l.options = o;
	l.engine = strstr(o.target, "://") ? &load_nbd : o.depth > 1 ? &load_uring : &load_loop;
	run(&l);
	print(&l);
	return 0;
}
