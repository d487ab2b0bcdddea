/* SPDX-License-Identifier: BSD-3-Clause */
/* request.c - see request.h. */
#include "request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "latency.h"
#include "name.h"

/* nbdkit sets it before there are threads. */
NBDKIT_DLL_PUBLIC int logcache_debug_requests;

static const char *const kinds[] = {
	[REQUEST_READ] = "read", [REQUEST_WRITE] = "write", [REQUEST_ZERO] = "zero",
	[REQUEST_TRIM] = "trim", [REQUEST_FLUSH] = "flush", [REQUEST_EXTENTS] = "block status",
};

static const enum latency_kind latency_kinds[] = {
	[REQUEST_READ] = LATENCY_READ,	 [REQUEST_WRITE] = LATENCY_WRITE,
	[REQUEST_ZERO] = LATENCY_ZERO,	 [REQUEST_TRIM] = LATENCY_TRIM,
	[REQUEST_FLUSH] = LATENCY_FLUSH, [REQUEST_EXTENTS] = LATENCY_EXTENTS,
};

/* Much more than nbdkit needs from its look at the connection to the end of its answer. */
#define LEAVE_STEP_NS (2 * LC_NS_PER_MS)

/* Guarded by lock. */
static struct {
	u64 second_ns; /* when the present second of this kind began */
	u32 told;      /* in it */
	u64 untold;
} failures[NR_REQUEST_KINDS];
static u64 leave_ns; /* when the next request whose client went away may end */
static struct lc_mutex lock;

/*
 * Since when can the request that a thread has read have been waiting? If the thread had to wait for it, longer than it takes
 * to send an answer, then it has just come. Otherwise it may have lain in the socket while the thread was busy with
 * those that had been sent before it. But no more than AHEAD_MAX of these are ever on their way at a time (the kernel's
 * client has 128 on each connection): when the thread began one that lies further back, this one had not been sent.
 */
#define AHEAD_MAX 256u
#define IDLE_NS (10 * LC_NS_PER_MS)

static __thread struct {
	u64 since_ns; /* the present request was not sent before this; */
	u64 next_ns;  /* the one that comes NR requests later not before this */
	u32 nr;
	u64 ended_ns; /* when the last one ended */
} mine;

static void note_begin(u64 now_ns)
{
	if (now_ns >= mine.ended_ns + IDLE_NS) {
		mine.since_ns = mine.next_ns = now_ns;
		mine.nr = AHEAD_MAX;
	} else if (!--mine.nr) {
		mine.since_ns = mine.next_ns;
		mine.next_ns = now_ns;
		mine.nr = AHEAD_MAX;
	}
}

u64 request_waits_since(void)
{
	return mine.since_ns;
}

void requests_init(void)
{
	lc_mutex_init(&lock);
	memset(failures, 0, sizeof failures);
}

static void tell_number(enum request_kind kind, u64 nr)
{
	if (nr)
		nbdkit_error("%" PRIu64 " more %s requests failed", nr, kinds[kind]);
}

void requests_tell_rest(void)
{
	for (unsigned kind = 0; kind < NR_REQUEST_KINDS; kind++) {
		tell_number(kind, failures[kind].untold);
		failures[kind].untold = 0;
	}
}

void requests_fini(void)
{
	lc_mutex_destroy(&lock);
}

struct request request_begin(enum request_kind kind, const void *volume, u32 len_bytes,
			     u64 offset_bytes, u32 flags)
{
	u64 now_ns = lc_now_ns();

	note_begin(now_ns);
	return (struct request){
		.kind = kind,
		.volume = volume,
		.len_bytes = len_bytes,
		.offset_bytes = offset_bytes,
		.flags = flags,
		.start_ns = now_ns,
	};
}

/* May one more failure be told? *UNTOLD: how many were not, and shall be mentioned now. */
static bool may_tell(enum request_kind kind, u64 *untold)
{
	u64 now_ns = lc_now_ns();
	bool tell;

	*untold = 0;
	lc_mutex_lock(&lock);
	if (now_ns - failures[kind].second_ns >= LC_NS_PER_S) {
		*untold = failures[kind].untold;
		failures[kind].second_ns = now_ns;
		failures[kind].told = 0;
		failures[kind].untold = 0;
	}
	tell = failures[kind].told < REQUEST_ERRORS_PER_S;
	failures[kind].told += tell;
	failures[kind].untold += !tell;
	lc_mutex_unlock(&lock);
	return tell;
}

static const char *reason(int rc)
{
	/* nbdkit has said which of these: in the line before. */
	return rc == -ESHUTDOWN ? "its client went away, or the server is to end, while it waited" :
				  strerror(-rc);
}

#define RANGE_TEXT_BYTES (NAME_TEXT_BYTES + 64u)

static const char *range_text(char text[RANGE_TEXT_BYTES], const struct request *r)
{
	char name[NAME_TEXT_BYTES];

	name_text(name, r->volume->name);
	if (r->kind == REQUEST_FLUSH)
		snprintf(text, RANGE_TEXT_BYTES, "of %s", name);
	else
		snprintf(text, RANGE_TEXT_BYTES, "of %" PRIu32 " bytes at offset %" PRIu64 " of %s",
			 r->len_bytes, r->offset_bytes, name);
	return text;
}

static void show(const struct request *r, int rc)
{
	u64 us = (mine.ended_ns - r->start_ns) / 1000;
	char range[RANGE_TEXT_BYTES];

	nbdkit_debug("%s %s%s%s%s: %s, %" PRIu64 " us", kinds[r->kind], range_text(range, r),
		     r->flags & NBDKIT_FLAG_FUA ? ", fua" : "",
		     r->flags & NBDKIT_FLAG_MAY_TRIM ? ", may trim" : "",
		     r->flags & NBDKIT_FLAG_FAST_ZERO ? ", fast" : "", rc < 0 ? reason(rc) : "done",
		     us);
}

/*
 * All threads that wait for the same client hear at the same moment that it went away, and nbdkit 1.32 does not survive that they
 * answer at once: the first to fail closes the socket, and one that had seen it open, and waits to send, aborts the process
 * (connections.c: Assertion `sock >= 0'). So they leave one by one: the others find it closed.
 */
static void leave_in_turn(void)
{
	u64 now_ns = lc_now_ns(), turn_ns;

	lc_mutex_lock(&lock);
	turn_ns = leave_ns > now_ns ? leave_ns : now_ns;
	leave_ns = turn_ns + LEAVE_STEP_NS;
	lc_mutex_unlock(&lock);
	if (turn_ns > now_ns) {
		struct timespec left = {.tv_sec = (time_t)((turn_ns - now_ns) / LC_NS_PER_S),
					.tv_nsec = (long)((turn_ns - now_ns) % LC_NS_PER_S)};

		while (nanosleep(&left, &left) < 0)
			;
	}
}

int request_end(const struct request *r, int rc)
{
	char range[RANGE_TEXT_BYTES];
	bool known;
	u64 untold;

	mine.ended_ns = lc_now_ns();
	latency_add(latency_kinds[r->kind], mine.ended_ns - r->start_ns);
	if (logcache_debug_requests)
		show(r, rc);
	if (rc >= 0)
		return 0;
	/*
	 * An answer, not a failure: the client wanted to know. Never without that flag: nbdkit 1.32
	 * would fall back to writing, and writes the first 64 MiB of the range again and again.
	 */
	if (rc == -EOPNOTSUPP && r->kind == REQUEST_ZERO && r->flags & NBDKIT_FLAG_FAST_ZERO) {
		nbdkit_set_error(EOPNOTSUPP);
		return -1;
	}
	if (may_tell(r->kind, &untold)) {
		tell_number(r->kind, untold);
		nbdkit_error("%s %s failed: %s", kinds[r->kind], range_text(range, r), reason(rc));
	}
	if (rc == -ESHUTDOWN) {
		leave_in_turn();
		mine.ended_ns = lc_now_ns();
	}
	/*
	 * The protocol knows few error numbers, and nbdkit turns the rest into EINVAL, which blames
	 * the client.
	 */
	known = rc == -ENOSPC || rc == -ENOMEM || rc == -ESHUTDOWN || rc == -EINVAL;
	nbdkit_set_error(known ? -rc : EIO);
	return -1;
}
