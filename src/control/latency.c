/* SPDX-License-Identifier: BSD-3-Clause */
/* latency.c - see latency.h. */
#include "latency.h"

#include <pthread.h>
#include <stdatomic.h>

/* Written by one thread alone; whole pages, so that no two share a cache line. */
struct shard {
	struct shard *next; /* all shards; constant */
	bool taken;	    /* guarded by lock */
	struct lc_histogram histograms[NR_LATENCY_KINDS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shard *shards;			     /* guarded by lock */
static struct lc_histogram resets[NR_LATENCY_KINDS]; /* guarded by lock: sums at the last reset */
static atomic_bool on;
static pthread_key_t key;   /* its destructor tells that a thread has ended */
static unsigned generation; /* constant while threads run: how often there was an init */

static __thread struct shard *mine;
static __thread unsigned mine_generation;

static void leave(void *shard)
{
	struct shard *s = shard;

	pthread_mutex_lock(&lock);
	s->taken = false;
	pthread_mutex_unlock(&lock);
}

int latency_init(void)
{
	int rc = pthread_key_create(&key, leave);

	if (rc)
		return -rc;
	generation++;
	atomic_store(&on, true);
	return 0;
}

void latency_fini(void)
{
	if (!atomic_load(&on))
		return;
	atomic_store(&on, false);
	pthread_key_delete(key); /* threads that still end do not call us: we may not be loaded any more */
	while (shards) {
		struct shard *s = shards;

		shards = s->next;
		lc_free(s, sizeof *s);
	}
	for (unsigned i = 0; i < NR_LATENCY_KINDS; i++)
		resets[i] = (struct lc_histogram){0};
}

/* The shard of this thread; NULL: there is no memory, and nothing is counted. */
static struct shard *take_shard(void)
{
	struct shard *s;

	pthread_mutex_lock(&lock);
	for (s = shards; s && s->taken; s = s->next)
		;
	if (!s) {
		s = lc_alloc(sizeof *s);
		if (s) {
			s->next = shards;
			shards = s;
		}
	}
	if (s)
		s->taken = true;
	pthread_mutex_unlock(&lock);
	if (s && pthread_setspecific(key, s)) {
		leave(s); /* nobody would, when this thread ends */
		return NULL;
	}
	mine = s;
	mine_generation = generation;
	return s;
}

static u64 get(const u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Only its own thread adds to a counter, so that it need not be one atomic operation. */
static void add(u64 *counter, u64 n)
{
	__atomic_store_n(counter, get(counter) + n, __ATOMIC_RELAXED);
}

void latency_add(enum latency_kind kind, u64 ns)
{
	struct shard *s = mine;
	struct lc_histogram *h;

	if (!atomic_load_explicit(&on, memory_order_relaxed))
		return;
	if (!s || mine_generation != generation) {
		s = take_shard();
		if (!s)
			return;
	}
	h = &s->histograms[kind];
	add(&h->buckets[lc_histogram_bucket(ns)], 1);
	add(&h->sum_ns, ns);
	add(&h->count, 1);
	if (ns > get(&h->max_ns))
		__atomic_store_n(&h->max_ns, ns, __ATOMIC_RELAXED);
}

/* The sum of all shards, since the beginning. [lock] */
static void sum(enum latency_kind kind, struct lc_histogram *out)
{
	*out = (struct lc_histogram){0};
	for (const struct shard *s = shards; s; s = s->next) {
		const struct lc_histogram *h = &s->histograms[kind];

		if (get(&h->max_ns) > out->max_ns)
			out->max_ns = get(&h->max_ns);
		out->sum_ns += get(&h->sum_ns);
		for (u32 i = 0; i < LC_HISTOGRAM_BUCKETS; i++) {
			u64 nr = get(&h->buckets[i]);

			out->buckets[i] += nr;
			out->count += nr; /* so that they add up, whatever is being counted just now */
		}
	}
}

void latency_read(enum latency_kind kind, struct lc_histogram *out)
{
	pthread_mutex_lock(&lock);
	sum(kind, out);
	lc_histogram_since(out, &resets[kind]);
	pthread_mutex_unlock(&lock);
}

void latency_reset(void)
{
	pthread_mutex_lock(&lock);
	for (unsigned kind = 0; kind < NR_LATENCY_KINDS; kind++) {
		sum(kind, &resets[kind]);
		/* A maximum cannot be subtracted. A request that ends just now may bring the old one back. */
		for (struct shard *s = shards; s; s = s->next)
			__atomic_store_n(&s->histograms[kind].max_ns, 0, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
}

const char *latency_name(enum latency_kind kind)
{
	static const char *const names[] = {
		[LATENCY_READ] = "read", [LATENCY_WRITE] = "write", [LATENCY_ZERO] = "zero",
		[LATENCY_TRIM] = "trim", [LATENCY_FLUSH] = "flush", [LATENCY_EXTENTS] = "extents",
	};

	return names[kind];
}
