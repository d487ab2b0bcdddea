/* SPDX-License-Identifier: BSD-3-Clause */
/* remote.c - see remote.h. */
#include <stdlib.h>
#include <string.h>

#include "remote.h"

/* A request on its way: at the server, or answered and the answer did not arrive yet. */
struct remote_io {
	struct remote *remote;
	struct lc_link_io *io;
	struct sim_io *sim;
	bool stuck; /* its answer never comes */
	struct remote_io *next;
};

static struct remote *remote_of(struct lc_link *l)
{
	return (struct remote *)l;
}

static void answer(struct remote *r, struct lc_link_io *io, int result)
{
	struct lc_link_io **p = &r->done;

	while (*p && sim_one_in(2))
		p = &(*p)->next;
	io->result = result;
	io->next = *p;
	*p = io;
	if (r->fiber)
		sim_wake(r->fiber);
}

static void forget(struct remote_io *x)
{
	struct remote_io **p = &x->remote->flight;

	while (*p != x)
		p = &(*p)->next;
	*p = x->next;
	free(x);
}

static void finished(struct sim_io *sim)
{
	struct remote_io *x = sim->arg;
	struct lc_link_io *io = x->io;
	int result = sim->result;

	if (x->stuck)
		return; /* until somebody gives it up */
	store_sim_end(sim);
	answer(x->remote, io, result);
	forget(x);
}

/* When nothing of what was in flight until now can take effect any more: before the fence ends, which begins later. */
static u64 haunted_until(const struct remote *r)
{
	return sim_now() + r->options.fence_ms * LC_NS_PER_MS;
}

/* Nobody waits for anything that is in flight. */
static void abandon_all(struct remote *r, bool tell)
{
	while (r->flight) {
		struct remote_io *x = r->flight;

		r->flight = x->next;
		store_sim_abandon(x->sim, haunted_until(r));
		if (tell)
			answer(r, x->io, -ENOTCONN);
		free(x);
	}
}

static void lost(struct remote *r)
{
	r->broken = true;
	sim_event_cancel(&r->breaks);
	abandon_all(r, true);
	if (r->fiber)
		sim_wake(r->fiber);
}

static bool changes_in_flight(const struct remote *r)
{
	const struct remote_io *x = r->flight;

	while (x && (x->io->op == LC_LINK_READ || x->io->op == LC_LINK_FLUSH || x->sim->done))
		x = x->next;
	return x;
}

static void break_fired(struct sim_event *ev)
{
	struct remote *r = (struct remote *)((char *)ev - offsetof(struct remote, breaks));
	bool restart = sim_one_in(2);

	/* Rather when something is at stake. */
	if (!changes_in_flight(r) && !sim_one_in(20)) {
		sim_event_arm(ev, sim_now() + sim_log_between(1000, r->session_max_ns / 8));
		return;
	}
	*r->covered_lost |= r->flight != NULL;
	*r->covered_restart |= restart;
	sim_trace("%s: the connection breaks%s", r->disk->store.name,
		  restart ? ", the server loses power" : "");
	lost(r);
	if (restart)
		store_sim_crash(r->disk, SIM_POWER_CUT);
	r->away_until_ns = sim_now() + (sim_one_in(3) ? 0 : sim_log_between(1000, r->away_max_ns));
}

/* --- the link --- */

static void link_main(void *arg)
{
	struct remote *r = arg;

	r->fiber = sim_self();
	while (!r->quit || r->done) {
		struct lc_link_io *list = r->done;

		r->done = NULL;
		if (list) {
			lc_fence_done(r->link.fence, list);
		} else if (r->broken && !r->told) {
			r->told = true;
			lc_fence_lost(r->link.fence, "it broke");
		} else {
			sim_block("answers from a server", r, LC_FOREVER);
		}
	}
	r->fiber = NULL;
}

static int link_connect(struct lc_link *link, u32 timeout_ms, struct lc_link_info *info,
			struct lc_error *err)
{
	struct remote *r = remote_of(link);
	const struct lc_store *s = &r->disk->store;
	int rc;

	(void)timeout_ms; /* it never takes long */
	sim_assert_unlocked("connecting");
	if (r->connected)
		sim_fail("%s: connected twice", s->name);
	sim_sleep(sim_log_between(100, 1000000));
	if (sim_now() < r->away_until_ns)
		return lc_fail(err, -ECONNREFUSED, "nobody is there");
	r->broken = r->told = r->quit = false;
	r->connected = true;
	rc = lc_thread_start(&r->thread, "link", link_main, r);
	assert(!rc);
	(void)rc;
	*info = (struct lc_link_info){
		.size_bytes = s->size_bytes,
		.block_bytes = s->block_bytes,
		.max_bytes = r->max_bytes,
		.zero_max_bytes = r->zero_max_bytes,
		.zero = s->ops->zero != NULL,
		.extent = s->ops->extent != NULL,
		.can_zero = s->can_zero,
		.can_punch = s->can_punch,
	};
	if (r->session_max_ns)
		sim_event_arm(&r->breaks, sim_now() + sim_log_between(r->session_max_ns / 64,
								      r->session_max_ns));
	return 0;
}

static void link_cancel(struct lc_link *link)
{
	(void)link; /* it never takes long */
	sim_point();
}

/* Cut off a sector that the store ends in: it has no more than that of it. */
static u32 sectors_of(const struct lc_link_io *io)
{
	return (u32)((io->len_bytes + LC_SECTOR - 1) / LC_SECTOR * LC_SECTOR);
}

static void link_submit(struct lc_link *link, struct lc_link_io *io)
{
	static const enum lc_io_op ops[] = {
		[LC_LINK_READ] = LC_IO_READ,
		[LC_LINK_WRITE] = LC_IO_WRITE,
		[LC_LINK_FLUSH] = LC_IO_FLUSH,
		[LC_LINK_ZERO] = LC_IO_WRITE,
	};
	struct remote *r = remote_of(link);
	struct store_sim *s = r->disk;
	struct remote_io *x;

	sim_assert_unlocked("submitting to a link");
	sim_point();
	if (!r->connected || r->broken || r->quit) {
		io->result = -ENOTCONN;
		io->next = NULL;
		lc_fence_done(link->fence, io);
		return;
	}
	if (io->len_bytes > (io->op == LC_LINK_ZERO ? r->zero_max_bytes : r->max_bytes) &&
	    io->op != LC_LINK_EXTENT)
		sim_fail("%s: a request of %llu bytes is too large", s->store.name,
			 (unsigned long long)io->len_bytes);
	if (io->op == LC_LINK_EXTENT) {
		struct lc_extent e = image_extent(s, io->len_bytes, io->offset_bytes);

		io->extent = e;
		answer(r, io, 0);
		return;
	}
	if (io->op == LC_LINK_ZERO && !(io->punch ? s->punch_works : s->zero_works)) {
		answer(r, io, -EOPNOTSUPP);
		return;
	}
	x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->remote = r;
	x->io = io;
	x->stuck = r->session_max_ns && sim_one_in(500);
	/* Nor does a crash come by chance while something is at stake. */
	if (r->session_max_ns && io->op != LC_LINK_READ && sim_one_in(40))
		sim_plan_crash(sim_log_between(1, 300));
	*r->covered_stuck |= x->stuck;
	x->next = r->flight;
	r->flight = x;
	x->sim = store_sim_begin(s, ops[io->op], io->op == LC_LINK_ZERO ? image_zeros() : io->buf,
				 sectors_of(io), io->offset_bytes, finished, x);
	sim_point();
}

static void link_cut(struct lc_link *link)
{
	struct remote *r = remote_of(link);

	sim_assert_unlocked("cutting a link");
	if (!r->connected)
		return;
	if (!r->broken)
		lost(r);
	r->quit = r->told = true;
	if (r->fiber)
		sim_wake(r->fiber);
	lc_thread_join(&r->thread);
	r->connected = false;
}

static void link_close(struct lc_link *link)
{
	if (remote_of(link)->connected)
		sim_fail("a link is closed that was not cut");
}

/* --- lives --- */

void remote_create(struct remote *r, struct store_sim *disk)
{
	static const struct lc_link_ops ops = {
		.connect = link_connect,
		.cancel = link_cancel,
		.submit = link_submit,
		.cut = link_cut,
		.close = link_close,
	};

	*r = (struct remote){.link.ops = &ops, .disk = disk, .breaks.fire = break_fired};
}

void remote_begin(struct remote *r)
{
	r->options.fence_ms = sim_log_between(1, 200);
	r->options.retry_ms = 1;
}

void remote_draw(struct remote *r, bool steady)
{
	r->session_max_ns = steady ? 0 : sim_log_between(2000000, 1000000000);
	r->away_max_ns = sim_log_between(2000, sim_one_in(3) ? 800000000 : 20000000);
	/* For ever, because it may be the engine that takes no notice of an answer for long. */
	r->options.patience_ms = steady ? 0 : sim_log_between(50, 600);
	r->max_bytes = LC_BLOCK * (sim_one_in(2) ? 1024 : sim_log_between(1, 32));
	r->zero_max_bytes = LC_BLOCK * (sim_one_in(2) ? 2048 : sim_log_between(1, 64));
	r->away_until_ns = 0;
}

struct lc_store *remote_open(struct remote *r)
{
	struct lc_error err = {.text = ""};
	struct lc_store *s;
	int rc = lc_fence_open(&r->link, r->disk->store.name, &r->options, &s, &err);

	if (rc)
		sim_fail("lc_fence_open: %d, %s", rc, err.text);
	return s;
}

void remote_crash(struct remote *r)
{
	sim_event_cancel(&r->breaks);
	abandon_all(r, false);
	r->done = NULL;
	r->fiber = NULL;
	r->connected = false;
}
