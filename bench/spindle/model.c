/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model.c - see model.h. Time goes from event to event in run(): the head becomes free, the head chooses, a request that
 * needs no platter is completed.
 */
#include "model.h"

#include <assert.h>
#include <stdlib.h>

struct disk_options disk_7200rpm(u64 size_bytes, bool write_cache)
{
	return (struct disk_options){
		.sheet = platter_7200rpm(size_bytes),
		.queue_depth = 32,
		.overhead_ns = 20000,
		.cache_bytes = write_cache ? 64u << 20 : 0,
		.destage_window = 1024,
	};
}

int disk_init(struct disk *d, const struct disk_options *options)
{
	int err;

	*d = (struct disk){.options = *options};
	err = platter_init(&d->platter, &options->sheet);
	if (err)
		return err;
	if (!options->queue_depth)
		return -EINVAL;
	d->queue = calloc(options->queue_depth, sizeof(struct disk_request *));
	if (!d->queue)
		return -ENOMEM;
	err = write_cache_init(&d->cache, options->cache_bytes);
	if (err) {
		free(d->queue);
		return err;
	}
	d->patience_ns = options->queue_depth *
			 (options->sheet.full_stroke_ns + options->sheet.revolution_ns);
	d->stats.first_ns = DISK_NEVER;
	d->decide_ns = DISK_NEVER;
	return 0;
}

void disk_destroy(struct disk *d)
{
	free(d->queue);
	write_cache_destroy(&d->cache);
}

/* --- lists --- */

static void push(struct disk_fifo *f, struct disk_request *r)
{
	r->next = NULL;
	*(f->first ? &f->last->next : &f->first) = r;
	f->last = r;
}

static struct disk_request *pop(struct disk_fifo *f)
{
	struct disk_request *r = f->first;

	if (r)
		f->first = r->next;
	return r;
}

/* --- completing --- */

static void complete(struct disk *d, struct disk_request *r, u64 done_ns)
{
	switch (r->op) {
	case DISK_READ:
		d->stats.reads++;
		d->stats.read_bytes += r->len_bytes;
		break;
	case DISK_WRITE:
		d->stats.writes++;
		d->stats.written_bytes += r->len_bytes;
		break;
	case DISK_FLUSH:
		d->stats.flushes++;
		break;
	}
	r->done_ns = done_ns;
	push(&d->done, r);
}

/* Without the platter. The overhead is always the same: they are in the order of their done_ns. */
static void complete_soon(struct disk *d, struct disk_request *r, u64 now_ns)
{
	r->done_ns = now_ns + d->options.overhead_ns;
	push(&d->soon, r);
}

static bool flush_satisfied(const struct disk *d, const struct disk_request *r)
{
	return (!d->cache.oldest || d->cache.oldest->seq > r->flush_through) &&
	       (!d->destage || d->destage->seq > r->flush_through);
}

static void complete_flushes(struct disk *d, u64 now_ns)
{
	while (d->flushes.first && flush_satisfied(d, d->flushes.first))
		complete(d, pop(&d->flushes), now_ns);
}

/* --- arriving --- */

/* R has a place in the queue: what it waits for there. */
static void enter(struct disk *d, struct disk_request *r, u64 now_ns)
{
	r->ready_ns = now_ns + d->options.overhead_ns;
	if (r->op == DISK_FLUSH) {
		r->flush_through = d->cache.seq;
		if (flush_satisfied(d, r))
			complete_soon(d, r, now_ns);
		else
			push(&d->flushes, r);
		return;
	}
	if (r->op == DISK_READ && write_cache_has(&d->cache, r->offset_bytes, r->len_bytes)) {
		d->stats.cache_read_hits++;
		complete_soon(d, r, now_ns);
		return;
	}
	if (r->op == DISK_WRITE && !r->fua && r->len_bytes <= d->cache.max_bytes) {
		if (!d->want_room.first && write_cache_put(&d->cache, r->offset_bytes, r->len_bytes)) {
			d->stats.cached_writes++;
			complete_soon(d, r, now_ns);
		} else {
			push(&d->want_room, r);
			d->nr_want_room++;
		}
		return;
	}
	d->queue[d->nr_queued++] = r;
}

/* Fill the queue from outside. */
static void let_in(struct disk *d, u64 now_ns)
{
	while (d->outside.first && d->nr_queued + d->nr_want_room < d->options.queue_depth)
		enter(d, pop(&d->outside), now_ns);
}

static void use_room(struct disk *d, u64 now_ns)
{
	struct disk_request *r;

	while ((r = d->want_room.first) && write_cache_put(&d->cache, r->offset_bytes, r->len_bytes)) {
		pop(&d->want_room);
		d->nr_want_room--;
		d->stats.cached_writes++;
		complete_soon(d, r, now_ns);
	}
}

/* --- choosing --- */

/* What the head may do next: one of both, if any. */
struct choice {
	u32 place; /* in the queue, if there is a request */
	struct disk_request *request;
	struct cached_write *destage;
	u64 start_ns; /* when the arm may move */
	struct platter_access access;
	u64 cost_ns;
};

static bool destaging(const struct disk *d)
{
	if (!d->cache.oldest)
		return false;
	return !d->nr_queued || d->flushes.first || d->want_room.first ||
	       d->cache.bytes > d->cache.max_bytes / 4 * 3;
}

static void consider(struct disk *d, struct choice *best, const struct choice *candidate,
		     u64 offset_bytes, u64 now_ns)
{
	struct choice c = *candidate;

	if (c.start_ns < now_ns)
		c.start_ns = now_ns;
	platter_position(&d->platter, c.start_ns, d->track, offset_bytes, &c.access);
	c.cost_ns = c.start_ns - now_ns + c.access.seek_ns + c.access.rotation_ns;
	if ((!best->request && !best->destage) || c.cost_ns < best->cost_ns)
		*best = c;
}

static void choose(struct disk *d, struct choice *best, u64 now_ns)
{
	u32 window = d->options.destage_window;
	u32 depth = d->nr_queued;

	*best = (struct choice){0};
	/*
	 * The queue is in the order of arrival: the first one is the oldest. Counted is the time in the queue, not
	 * that outside: otherwise a host with many in flight would turn this into first come, first served.
	 */
	if (d->nr_queued && now_ns > d->queue[0]->ready_ns + d->patience_ns) {
		struct choice c = {.request = d->queue[0], .start_ns = d->queue[0]->ready_ns};

		consider(d, best, &c, c.request->offset_bytes, now_ns);
		d->stats.aged++;
		window = 0;
		depth = 1;
	} else {
		for (u32 i = 0; i < d->nr_queued; i++) {
			struct choice c = {
				.place = i,
				.request = d->queue[i],
				.start_ns = d->queue[i]->ready_ns,
			};

			consider(d, best, &c, c.request->offset_bytes, now_ns);
		}
	}
	if (destaging(d)) {
		/* A flush waits for the old ones alone. */
		u64 through = d->flushes.first ? d->flushes.first->flush_through : UINT64_MAX;

		for (struct cached_write *w = d->cache.oldest; w && window && w->seq <= through;
		     w = w->newer, window--) {
			struct choice c = {.destage = w};

			consider(d, best, &c, w->offset_bytes, now_ns);
			depth++;
		}
	}
	d->stats.depth_sum += depth;
	if (depth > d->stats.depth_max)
		d->stats.depth_max = depth;
}

/* The head is free and chooses. */
static void start(struct disk *d, u64 now_ns)
{
	struct disk_stats *s = &d->stats;
	struct platter_access *a;
	struct choice best;

	choose(d, &best, now_ns);
	assert(best.request || best.destage);
	a = &best.access;
	if (best.request) {
		d->request = best.request;
		platter_transfer(&d->platter, d->request->offset_bytes, d->request->len_bytes, a);
		for (u32 i = best.place; i + 1 < d->nr_queued; i++)
			d->queue[i] = d->queue[i + 1];
		d->nr_queued--;
	} else {
		d->destage = best.destage;
		write_cache_take(&d->cache, d->destage);
		platter_transfer(&d->platter, d->destage->offset_bytes, d->destage->len_bytes, a);
	}
	d->free_ns = best.start_ns + a->seek_ns + a->rotation_ns + a->transfer_ns;
	d->track = a->end_track;
	d->decide_ns = DISK_NEVER;

	s->accesses++;
	s->seeks += a->seek_ns > 0;
	s->coalesced += best.cost_ns == 0 ||
			(a->seek_ns == d->platter.sheet.skew_ns && !a->rotation_ns);
	s->seek_ns += a->seek_ns;
	s->rotation_ns += a->rotation_ns;
	s->transfer_ns += a->transfer_ns;
	s->busy_ns += d->free_ns - now_ns;
}

/* The access ends. */
static void finish(struct disk *d, u64 now_ns)
{
	d->stats.last_ns = now_ns;
	if (d->request) {
		complete(d, d->request, now_ns);
		d->request = NULL;
	} else {
		write_cache_release(&d->cache, d->destage);
		d->destage = NULL;
		complete_flushes(d, now_ns);
		use_room(d, now_ns);
	}
	let_in(d, now_ns);
}

/* --- time --- */

static bool accessing(const struct disk *d)
{
	return d->request || d->destage;
}

static void plan(struct disk *d, u64 now_ns)
{
	if (!accessing(d) && d->decide_ns == DISK_NEVER && (d->nr_queued || destaging(d)))
		d->decide_ns = now_ns;
}

u64 disk_next_ns(const struct disk *d)
{
	u64 next = accessing(d) ? d->free_ns : d->decide_ns;

	if (d->done.first)
		return d->now_ns;
	if (d->soon.first && d->soon.first->done_ns < next)
		next = d->soon.first->done_ns;
	return next;
}

/* All events before END_NS. */
static void run(struct disk *d, u64 end_ns)
{
	for (;;) {
		u64 head_ns = accessing(d) ? d->free_ns : d->decide_ns;

		if (d->soon.first && d->soon.first->done_ns <= head_ns) {
			u64 done_ns = d->soon.first->done_ns;

			if (done_ns >= end_ns)
				return;
			complete(d, pop(&d->soon), done_ns);
			continue;
		}
		if (head_ns >= end_ns)
			return;
		if (accessing(d))
			finish(d, head_ns);
		else
			start(d, head_ns);
		plan(d, head_ns);
	}
}

void disk_submit(struct disk *d, struct disk_request *r, u64 now_ns)
{
	assert(now_ns >= d->now_ns);
	assert(r->op == DISK_FLUSH || r->len_bytes > 0);
	/*
	 * What happens at this very moment happens after the arrival: of all that arrive together the head
	 * chooses the best.
	 */
	run(d, now_ns);
	d->now_ns = now_ns;
	if (now_ns < d->stats.first_ns)
		d->stats.first_ns = now_ns;
	r->arrival_ns = now_ns;
	push(&d->outside, r);
	let_in(d, now_ns);
	plan(d, now_ns);
}

struct disk_request *disk_advance(struct disk *d, u64 now_ns)
{
	struct disk_request *done;

	assert(now_ns >= d->now_ns);
	run(d, now_ns + 1);
	d->now_ns = now_ns;
	done = d->done.first;
	d->done = (struct disk_fifo){0};
	return done;
}
