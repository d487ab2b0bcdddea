/* SPDX-License-Identifier: BSD-3-Clause */
/* shutdown.c - see shutdown.h. */
#include "shutdown.h"

#include <errno.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "notify.h"
#include "size.h"

/* Whoever ended the server, or the draining, should not have to wait for an answer. */
#define ASK_NS (1 * LC_NS_PER_S)
#define LOOK_NS (200 * LC_NS_PER_MS)
#define PROGRESS_NS (10 * LC_NS_PER_S)

/* [lock] */
static void enter(struct shutdown *s, enum control_phase phase)
{
	s->phase = phase;
	control_set_phase(s->control, phase);
}

/* Was nbdkit asked to end? Also a sleep of no time at all is refused then. This thread belongs to no connection. */
static bool is_ending(void)
{
	return nbdkit_nanosleep(0, 0) == -1 && errno == ESHUTDOWN;
}

static void tell_waiting(unsigned nr)
{
	char clients[LC_COUNT_BYTES];

	lc_count_text(clients, nr, "connection");
	notify_systemd("STOPPING=1\nSTATUS=waiting for %s to be closed", clients);
	lc_log(LC_LOG_INFO,
	       "asked to end: waiting for %s to be closed, without a time limit; until then requests are "
	       "answered with an error: disconnect the clients",
	       clients);
}

/* [lock; released meanwhile] */
static void serve(struct shutdown *s)
{
	bool ending;

	if (!s->nr_clients) {
		(void)lc_cond_wait(&s->wake, &s->lock, LC_FOREVER); /* never times out */
		return;
	}
	/* First, so that nobody is asked about clients that are about to leave. */
	(void)lc_cond_wait(&s->wake, &s->lock, lc_now_ns() + ASK_NS); /* early is all right, too */
	if (s->stop || s->phase != CONTROL_SERVING || !s->nr_clients)
		return;
	lc_mutex_unlock(&s->lock);
	ending = is_ending();
	lc_mutex_lock(&s->lock);
	if (ending && s->phase == CONTROL_SERVING && s->nr_clients) {
		enter(s, CONTROL_WAITING);
		tell_waiting(s->nr_clients);
	}
}

static u64 left_bytes(struct lc_cache *c)
{
	struct lc_stats st;

	lc_cache_stats(c, &st);
	return (st.dirty_blocks + st.pending_zero_blocks) * LC_BLOCK;
}

static void tell_progress(u64 left, u64 total, u64 ns)
{
	char l[SIZE_TEXT_BYTES], t[SIZE_TEXT_BYTES];

	size_text(l, left);
	size_text(t, total);
	notify_systemd("STATUS=writing everything back, %s of %s left", l, t);
	lc_log(LC_LOG_INFO, "writing everything back: %s of %s left after %.0f s", l, t,
	       (double)ns / LC_NS_PER_S);
}

/* Until the end. [lock; released meanwhile] */
static void drain(struct shutdown *s)
{
	u64 begun_ns = lc_now_ns(), told_ns = begun_ns, total, left;
	bool interrupted = false;

	lc_mutex_unlock(&s->lock);
	total = left_bytes(s->cache);
	lc_mutex_lock(&s->lock);
	while (!s->stop) {
		(void)lc_cond_wait(&s->wake, &s->lock,
				   lc_now_ns() + LOOK_NS); /* the loop looks itself */
		if (s->stop)
			break;
		lc_mutex_unlock(&s->lock);
		if (!interrupted && !__atomic_load_n(s->drain_on_exit, __ATOMIC_RELAXED)) {
			lc_cache_interrupt(s->cache);
			interrupted = true;
		}
		if (lc_now_ns() - told_ns >= PROGRESS_NS) {
			told_ns = lc_now_ns();
			left = left_bytes(s->cache);
			tell_progress(left, total, told_ns - begun_ns);
		}
		lc_mutex_lock(&s->lock);
	}
}

static void shutdown_thread(void *arg)
{
	struct shutdown *s = arg;

	lc_mutex_lock(&s->lock);
	while (!s->stop) {
		if (s->phase == CONTROL_SERVING)
			serve(s);
		else if (s->phase == CONTROL_DRAINING)
			drain(s);
		else
			(void)lc_cond_wait(&s->wake, &s->lock, LC_FOREVER); /* for cleanup */
	}
	lc_mutex_unlock(&s->lock);
}

int shutdown_start(struct shutdown *s, struct lc_cache *cache, struct control *control,
		   const bool *drain_on_exit)
{
	int rc;

	*s = (struct shutdown){
		.cache = cache,
		.control = control,
		.drain_on_exit = drain_on_exit,
		.phase = CONTROL_SERVING,
	};
	lc_mutex_init(&s->lock);
	lc_cond_init(&s->wake);
	rc = lc_thread_start(&s->thread, "lc-shutdown", shutdown_thread, s);
	s->running = rc == 0;
	if (rc < 0) {
		lc_cond_destroy(&s->wake);
		lc_mutex_destroy(&s->lock);
	}
	return rc;
}

void shutdown_client(struct shutdown *s, bool came)
{
	if (!s->running)
		return;
	lc_mutex_lock(&s->lock);
	if (came && !s->nr_clients++)
		lc_cond_signal(&s->wake);
	else if (!came)
		s->nr_clients--;
	lc_mutex_unlock(&s->lock);
}

void shutdown_draining(struct shutdown *s)
{
	if (!s->running)
		return;
	lc_mutex_lock(&s->lock);
	enter(s, CONTROL_DRAINING);
	lc_cond_signal(&s->wake);
	lc_mutex_unlock(&s->lock);
}

void shutdown_stop(struct shutdown *s)
{
	if (!s->running)
		return;
	lc_mutex_lock(&s->lock);
	s->stop = true;
	lc_cond_signal(&s->wake);
	lc_mutex_unlock(&s->lock);
	lc_thread_join(&s->thread);
	lc_cond_destroy(&s->wake);
	lc_mutex_destroy(&s->lock);
	s->running = false;
}
