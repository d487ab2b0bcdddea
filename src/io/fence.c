/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fence.c - when may something go over the link? See fence.h for the rules; judge() has them all.
 *
 * A session begins when the link has connected and ends in three steps: something breaks (lc_fence_lost, an I/O
 * that comes back with -ENOTCONN, an answer that is overdue), from then on nothing is sent; the thread cuts the link, and
 * everything in flight comes back; then it is known what was lost, and the fence begins: later than
 * the break, never earlier.
 */
#include "fence.h"

#include <stdio.h>
#include <string.h>

#include "fence_priv.h"
#include "mutant.h"

/* An I/O that was in flight on so many connections that broke may be what breaks them. */
#define NR_LOSSES 3u
/* Attempts to connect come at once, then after retry_ms, twice that, ... up to so many times that. */
#define BACKOFF_GROWTH 50u
/* What an attempt may take. The thread does nothing else meanwhile: a quarter of the patience at most. */
#define CONNECT_MIN_MS 1000u
#define CONNECT_MAX_MS 10000u

static void append(struct lc_link_list *l, struct lc_link_io *io)
{
	io->later = NULL;
	io->earlier = l->tail;
	if (l->tail)
		l->tail->later = io;
	else
		l->head = io;
	l->tail = io;
}

static void take_out(struct lc_link_list *l, struct lc_link_io *io)
{
	if (io->earlier)
		io->earlier->later = io->later;
	else
		l->head = io->later;
	if (io->later)
		io->later->earlier = io->earlier;
	else
		l->tail = io->earlier;
}

static bool is_change(const struct lc_link_io *io)
{
	return io->op == LC_LINK_WRITE || io->op == LC_LINK_ZERO;
}

/* When waiting since SINCE has been of no use. */
static u64 patience_ends(const struct lc_fence *f, u64 since_ns)
{
	return f->options.patience_ms ? since_ns + f->options.patience_ms * LC_NS_PER_MS : LC_FOREVER;
}

static u64 backoff_max_ns(const struct lc_fence *f)
{
	return f->options.retry_ms * LC_NS_PER_MS * BACKOFF_GROWTH;
}

/* Another attempt to connect is due after a pause, and the next one after a longer one. [lock] */
static void back_off(struct lc_fence *f, u64 now_ns)
{
	u64 next = f->backoff_ns ? f->backoff_ns * 2 : f->options.retry_ms * LC_NS_PER_MS;

	f->connect_ns = now_ns + f->backoff_ns;
	f->backoff_ns = next < backoff_max_ns(f) ? next : backoff_max_ns(f);
}

static u32 connect_timeout_ms(const struct lc_fence *f)
{
	u32 ms = f->options.patience_ms / 4;

	if (!ms || ms > CONNECT_MAX_MS)
		return CONNECT_MAX_MS;
	return ms < CONNECT_MIN_MS ? CONNECT_MIN_MS : ms;
}

/* --- what may become of an I/O --- */

enum verdict {
	SEND,
	WAIT,
	END, /* with io->error */
};

/* Would this flush have to cover changes that a broken connection may have taken along? [lock] */
static bool in_doubt(const struct lc_fence *f, const struct lc_link_io *io)
{
	return io->op == LC_LINK_FLUSH && f->settled < f->broken && io->covers > f->settled;
}

/* [lock] */
static enum verdict judge(const struct lc_fence *f, struct lc_link_io *io, u64 now_ns)
{
	bool fenced = is_change(io) && now_ns < f->fence_ns;
	bool none = f->session == SESSION_NONE;

	if (f->session == SESSION_BROKEN) /* until it is known what is lost with it */
		return WAIT;
	if (in_doubt(f, io))
		io->error = -EIO;
	if (io->error || (none && now_ns >= patience_ends(f, f->none_since_ns))) {
		if (io->lost && fenced)
			return WAIT; /* nobody knows yet what becomes of it */
		if (!io->error)
			io->error = -ENOTCONN;
		return END;
	}
	return none || fenced ? WAIT : SEND;
}

static u64 max_bytes(const struct lc_fence *f, const struct lc_link_io *io)
{
	if (io->op == LC_LINK_ZERO)
		return f->info.zero_max_bytes;
	return io->op == LC_LINK_EXTENT || io->op == LC_LINK_FLUSH ? UINT64_MAX : f->info.max_bytes;
}

/* How much goes into the request that is sent now: the link may take less than the last one did. [lock] */
static void cut_to_size(const struct lc_fence *f, struct lc_link_io *io)
{
	u64 total = io->len_bytes + io->left_bytes, max = max_bytes(f, io);

	io->len_bytes = total < max ? total : max;
	io->left_bytes = total - io->len_bytes;
}

/* A piece of it is done: on to the next. */
static void next_piece(struct lc_link_io *io)
{
	io->offset_bytes += io->len_bytes;
	if (io->buf)
		io->buf = (u8 *)io->buf + io->len_bytes;
	io->len_bytes = io->left_bytes;
	io->left_bytes = 0;
	io->losses = 0;
}

/* [lock] */
static void finish(struct lc_fence *f, struct lc_link_io *io, int result)
{
	if (is_change(io) && !result)
		f->nr_done++;
	/* Also a flush that failed: who asked for it knows that nothing is known of what it covers. */
	if (io->op == LC_LINK_FLUSH && f->settled < io->covers)
		f->settled = io->covers;
	lc_fence_deliver(io, result);
}

/*
 * IO is nowhere: put it where it belongs now. True: it is in flight, and to be submitted as soon as the lock is released.
 * [lock]
 */
static bool place(struct lc_fence *f, struct lc_link_io *io, u64 now_ns)
{
	switch (judge(f, io, now_ns)) {
	case SEND:
		cut_to_size(f, io);
		io->sent_ns = now_ns;
		io->lost = false;
		append(&f->flight, io);
		f->nr_flight++;
		if (!f->watching) {
			f->watching = true;
			lc_cond_signal(&f->change);
		}
		return true;
	case WAIT:
		append(&f->waiting, io);
		lc_cond_signal(&f->change); /* it has to be let go in time */
		return false;
	case END:
		finish(f, io, io->error);
		break;
	}
	return false;
}

void lc_fence_begin(struct lc_fence *f, struct lc_link_io *io, u64 len_bytes)
{
	bool send;

	lc_mutex_lock(&f->lock);
	io->len_bytes = len_bytes;
	io->covers = f->nr_done;
	send = place(f, io, lc_now_ns());
	lc_mutex_unlock(&f->lock);
	if (send)
		f->link->ops->submit(f->link, io);
}

static void submit_all(struct lc_fence *f, struct lc_link_io *list)
{
	while (list) {
		struct lc_link_io *io = list;

		list = io->next;
		f->link->ops->submit(f->link, io);
	}
}

/* --- what the link says --- */

/* [lock] */
static void broke(struct lc_fence *f, const char *why)
{
	if (f->session == SESSION_BROKEN)
		return;
	if (f->session == SESSION_NONE)
		f->stillborn = true;
	else
		f->session = SESSION_BROKEN;
	snprintf(f->why, sizeof f->why, "%s", why);
	lc_cond_signal(&f->change);
}

void lc_fence_lost(struct lc_fence *f, const char *why)
{
	lc_mutex_lock(&f->lock);
	broke(f, why);
	lc_mutex_unlock(&f->lock);
}

/* IO was in flight when the connection broke. It waits for what is to become of it. [lock] */
static void lose(struct lc_fence *f, struct lc_link_io *io)
{
	broke(f, "an I/O was cut off");
	io->losses++;
	if (lc_now_ns() >= patience_ends(f, io->sent_ns))
		io->error = -ETIMEDOUT;
	else if (io->losses >= NR_LOSSES)
		io->error = -ENOTCONN;
	if (is_change(io)) {
		io->lost = true;
		f->nr_lost++;
	}
	append(&f->waiting, io);
}

void lc_fence_done(struct lc_fence *f, struct lc_link_io *list)
{
	struct lc_link_io *again = NULL;

	lc_mutex_lock(&f->lock);
	while (list) {
		struct lc_link_io *io = list;

		list = io->next;
		take_out(&f->flight, io);
		f->nr_flight--;
		if (io->result == -ENOTCONN) {
			lose(f, io);
		} else if (io->result || !io->left_bytes) {
			finish(f, io, io->result);
		} else {
			/* It can be lost with this connection, whatever becomes of the rest. */
			if (is_change(io) && !LC_MUTANT(pieces_are_nothing))
				f->nr_done++;
			next_piece(io);
			if (place(f, io, lc_now_ns())) {
				io->next = again;
				again = io;
			}
		}
	}
	if (!f->nr_flight && f->session == SESSION_BROKEN)
		lc_cond_signal(&f->change);
	lc_mutex_unlock(&f->lock);
	submit_all(f, again);
}

/* --- the thread --- */

/* Judge again all that waits. Returns what is to be submitted. [lock] */
static struct lc_link_io *release(struct lc_fence *f, u64 now_ns)
{
	struct lc_link_io *io = f->waiting.head, *list = NULL, **last = &list, *later;

	f->waiting = (struct lc_link_list){0};
	for (; io; io = later) {
		later = io->later;
		if (!place(f, io, now_ns))
			continue;
		*last = io;
		io->next = NULL;
		last = &io->next;
	}
	return list;
}

/* The connection is gone, and nothing is in flight: what has to be remembered? [lock] */
static void account(struct lc_fence *f)
{
	u64 now_ns = lc_now_ns();

	f->session = SESSION_NONE;
	f->none_since_ns = now_ns;
	/* A connection that breaks again and again is not made again and again at once. */
	if (now_ns - f->connected_ns >= backoff_max_ns(f))
		f->backoff_ns = 0;
	back_off(f, now_ns);
	/* The server may have lost what it did not flush. */
	if (f->nr_done > f->settled && !LC_MUTANT(flush_ignores_reconnect))
		f->broken = f->nr_done;
	/* Whoever has asked by now shall know, not only the first of them: that one's answer settles it. */
	for (struct lc_link_io *io = f->waiting.head; io; io = io->later)
		if (in_doubt(f, io))
			io->error = -EIO;
	if (f->nr_lost && !LC_MUTANT(no_fence)) {
		f->fence_ns = now_ns + f->options.fence_ms * LC_NS_PER_MS;
		f->fence_of_start = false;
	}
}

/* [lock; released meanwhile] */
static void end_session(struct lc_fence *f)
{
	char why[sizeof f->why], fence[160] = "";

	lc_mutex_unlock(&f->lock);
	f->link->ops->cut(f->link);
	lc_mutex_lock(&f->lock);
	while (f->nr_flight) /* somebody is just about to submit it */
		lc_cond_wait(&f->change, &f->lock, LC_FOREVER);
	account(f);
	if (f->nr_lost && f->options.fence_ms)
		snprintf(fence, sizeof fence,
			 "; %u writes were in flight: nothing is written for %g s, until none of them can "
			 "be executed any more",
			 f->nr_lost, f->options.fence_ms / 1000.0);
	else if (f->nr_lost)
		snprintf(fence, sizeof fence, "; %u writes were in flight, and are issued again",
			 f->nr_lost);
	f->nr_lost = 0;
	f->told = true;
	memcpy(why, f->why, sizeof why);
	lc_mutex_unlock(&f->lock);
	lc_log(LC_LOG_WARNING, "'%s': the connection is lost (%s)%s", f->name, why, fence);
	lc_mutex_lock(&f->lock);
}

/* Is it what it was? It may have grown: that shows at the next start. */
static int compare(const struct lc_fence *f, const struct lc_link_info *info, struct lc_error *err)
{
	if (info->size_bytes < f->store.size_bytes)
		return lc_fail(err, -ESTALE,
			       "it has shrunk from %llu to %llu bytes: give it its size again",
			       (unsigned long long)f->store.size_bytes,
			       (unsigned long long)info->size_bytes);
	if (info->block_bytes > f->store.block_bytes)
		return lc_fail(err, -ESTALE,
			       "it wants blocks of %u bytes now, and accepted %u before: restart "
			       "logcache, or change the server back",
			       info->block_bytes, f->store.block_bytes);
	return 0;
}

/* The link has connected; but what broke since then is not ours to use. [lock] */
static void begin_session(struct lc_fence *f)
{
	f->session = f->stillborn ? SESSION_BROKEN : SESSION_UP;
	f->connected_ns = lc_now_ns();
}

/* [lock; released meanwhile] */
static void reconnect(struct lc_fence *f)
{
	struct lc_link_info info = {0};
	struct lc_error err = {""};
	u64 down_ns;
	bool tell;
	int rc;

	f->stillborn = false;
	lc_mutex_unlock(&f->lock);
	rc = f->link->ops->connect(f->link, connect_timeout_ms(f), &info, &err);
	if (!rc) {
		rc = compare(f, &info, &err);
		if (rc)
			f->link->ops->cut(f->link);
	}
	lc_mutex_lock(&f->lock);
	if (f->stop && rc)
		return;
	if (!rc) {
		tell = f->told;
		f->told = false;
		begin_session(f);
		f->info = info;
		if (f->session == SESSION_UP)
			f->why[0] = '\0';
		down_ns = f->connected_ns - f->none_since_ns;
		lc_mutex_unlock(&f->lock);
		if (tell)
			lc_log(LC_LOG_INFO, "'%s': connected again after %.1f s", f->name,
			       (double)down_ns / LC_NS_PER_S);
		lc_mutex_lock(&f->lock);
		return;
	}
	/* Once for each reason. */
	tell = strncmp(f->why, err.text, sizeof f->why - 1) != 0;
	snprintf(f->why, sizeof f->why, "%.*s", (int)sizeof f->why - 1, err.text);
	back_off(f, lc_now_ns());
	f->told = true;
	lc_mutex_unlock(&f->lock);
	if (tell)
		lc_log(LC_LOG_WARNING, "'%s' is away: %s; it is tried again every few seconds",
		       f->name, err.text);
	lc_mutex_lock(&f->lock);
}

/* When there is something to be done next, if nobody asks for it. [lock] */
static u64 next_ns(const struct lc_fence *f, u64 now_ns)
{
	u64 next = LC_FOREVER, t;

	if (f->session == SESSION_NONE)
		next = f->connect_ns;
	if (f->waiting.head && f->fence_ns > now_ns && f->fence_ns < next)
		next = f->fence_ns;
	t = patience_ends(f, f->none_since_ns);
	if (f->waiting.head && f->session == SESSION_NONE && t > now_ns && t < next)
		next = t;
	t = f->flight.head ? patience_ends(f, f->flight.head->sent_ns) : LC_FOREVER;
	return t < next ? t : next;
}

static void fence_main(void *arg)
{
	struct lc_fence *f = arg;

	lc_mutex_lock(&f->lock);
	while (!f->stop) {
		u64 now_ns = lc_now_ns();
		struct lc_link_io *list;
		char why[64];

		if (f->flight.head && now_ns >= patience_ends(f, f->flight.head->sent_ns)) {
			snprintf(why, sizeof why, "no answer for %g s",
				 f->options.patience_ms / 1000.0);
			broke(f, why);
		}
		if (f->session == SESSION_BROKEN) {
			end_session(f);
			continue;
		}
		list = release(f, now_ns);
		if (list) {
			lc_mutex_unlock(&f->lock);
			submit_all(f, list);
			lc_mutex_lock(&f->lock);
			continue;
		}
		if (f->session == SESSION_NONE && now_ns >= f->connect_ns) {
			reconnect(f);
			continue;
		}
		f->watching = f->flight.head;
		lc_cond_wait(&f->change, &f->lock, next_ns(f, now_ns));
		f->watching = true;
	}
	lc_mutex_unlock(&f->lock);
}

/* --- begin and end --- */

static int start_thread(struct lc_fence *f, struct lc_error *err)
{
	int rc;

	f->stop = false;
	f->watching = true;
	rc = lc_thread_start(&f->thread, "lc-fence", fence_main, f);
	if (rc)
		return lc_fail(err, rc,
			       "'%s': cannot start a thread: %s; raise the limit (TasksMax=, "
			       "ulimit -u)",
			       f->name, strerror(-rc));
	f->running = true;
	return 0;
}

void lc_fence_destroy(struct lc_fence *f)
{
	f->link->ops->close(f->link);
	lc_cond_destroy(&f->change);
	lc_mutex_destroy(&f->lock);
	lc_free(f->name, f->name_bytes);
	lc_free(f, sizeof *f);
}

int lc_fence_open(struct lc_link *link, const char *name, const struct lc_fence_options *o,
		  struct lc_store **out, struct lc_error *err)
{
	struct lc_fence *f = lc_alloc(sizeof *f);
	struct lc_error why = {""};
	int rc;

	if (f) {
		f->name_bytes = strlen(name) + 1;
		f->name = lc_alloc(f->name_bytes);
	}
	if (!f || !f->name) {
		link->ops->close(link);
		lc_free(f, sizeof *f);
		return lc_fail(err, -ENOMEM, "'%s': no memory: free some", name);
	}
	memcpy(f->name, name, f->name_bytes);
	f->link = link;
	link->fence = f;
	f->options = *o;
	lc_mutex_init(&f->lock);
	lc_cond_init(&f->change);
	rc = link->ops->connect(link, CONNECT_MAX_MS, &f->info, &why);
	if (rc) {
		lc_fail(err, rc, "'%s': %s", name, why.text);
		lc_fence_destroy(f);
		return rc;
	}
	f->store = (struct lc_store){
		.ops = &lc_fence_ops,
		.name = f->name,
		.size_bytes = f->info.size_bytes,
		.block_bytes = f->info.block_bytes,
		.can_zero = f->info.can_zero,
		.can_punch = f->info.can_punch,
	};
	lc_mutex_lock(&f->lock);
	begin_session(f);
	f->fence_of_start = true;
	if (!LC_MUTANT(no_fence_at_start))
		f->fence_ns = f->connected_ns + o->fence_ms * LC_NS_PER_MS;
	lc_mutex_unlock(&f->lock);
	rc = start_thread(f, err);
	if (rc) {
		link->ops->cut(link);
		lc_fence_destroy(f);
		return rc;
	}
	*out = &f->store;
	return 0;
}

void lc_fence_pause(struct lc_store *s)
{
	struct lc_fence *f = lc_fence_of(s);

	if (!f->running)
		return;
	lc_mutex_lock(&f->lock);
	f->stop = true;
	lc_cond_signal(&f->change);
	lc_mutex_unlock(&f->lock);
	f->link->ops->cancel(f->link);
	lc_thread_join(&f->thread);
	f->running = false;
	f->link->ops->cut(f->link);
	assert(!f->nr_flight && !f->waiting.head);
	account(f);
}

int lc_fence_resume(struct lc_store *s, struct lc_error *err)
{
	struct lc_fence *f = lc_fence_of(s);

	assert(!f->running && f->session == SESSION_NONE);
	f->none_since_ns = lc_now_ns();
	f->connect_ns = f->backoff_ns = 0;
	return start_thread(f, err);
}

bool lc_is_fence(const struct lc_store *s)
{
	return s->ops == &lc_fence_ops;
}
