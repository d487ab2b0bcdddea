/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt_posix.c - the runtime (rt.h) over POSIX threads, for production.
 *
 * The opaque storage of rt.h holds the pthread object itself; static assertions see to it that it
 * fits. Time is CLOCK_MONOTONIC everywhere, conditions included, so that a clock that is set by
 * hand or by NTP neither delays nor hurries anything.
 *
 * Threads that are started here block all signals: signals belong to the program that embeds us
 * (nbdkit stops on SIGTERM, in its own thread), and no system call of ours is interrupted by them.
 *
 * Memory of 1 MiB and more is mapped by itself: it comes zeroed without being touched, and goes
 * back to the system when it is released. The large tables ask for huge pages, because the index is
 * visited at random and each visit would cost a TLB miss.
 *
 * Locks: none of its own. The only global is the hook of the log, an atomic pointer.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "rt_posix.h"

#define MAP_FROM_BYTES (1u << 20)
/* Below a few huge pages the rounding at both ends eats the gain. */
#define HUGE_FROM_BYTES (8u << 20)

struct thread {
	pthread_t id;
	void (*fn)(void *);
	void *arg;
	const char *name;
};

static_assert(sizeof(pthread_mutex_t) <= sizeof(struct lc_mutex), "a mutex does not fit");
static_assert(_Alignof(pthread_mutex_t) <= _Alignof(struct lc_mutex), "a mutex is not aligned");
static_assert(sizeof(pthread_cond_t) <= sizeof(struct lc_cond), "a condition does not fit");
static_assert(_Alignof(pthread_cond_t) <= _Alignof(struct lc_cond), "a condition is not aligned");
static_assert(sizeof(struct thread) <= sizeof(struct lc_thread), "a thread does not fit");
static_assert(_Alignof(struct thread) <= _Alignof(struct lc_thread), "a thread is not aligned");

/* A lock that fails protects nothing: there is no safe way on. */
static void check(int rc, const char *what)
{
	if (rc == 0)
		return;
	lc_log(LC_LOG_ERROR, "%s failed: %s: this is a bug, stopping", what, strerror(rc));
	abort();
}

static pthread_mutex_t *mutex_of(struct lc_mutex *m)
{
	return (pthread_mutex_t *)(void *)m->opaque;
}

static pthread_cond_t *cond_of(struct lc_cond *c)
{
	return (pthread_cond_t *)(void *)c->opaque;
}

static struct thread *thread_of(struct lc_thread *t)
{
	return (struct thread *)(void *)t->opaque;
}

/* --- mutex --- */

void lc_mutex_init(struct lc_mutex *m)
{
	pthread_mutexattr_t attr;

	check(pthread_mutexattr_init(&attr), "pthread_mutexattr_init");
	/* Critical sections are shorter than a system call: try again for a moment before sleeping. */
	check(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP),
	      "pthread_mutexattr_settype");
	check(pthread_mutex_init(mutex_of(m), &attr), "pthread_mutex_init");
	check(pthread_mutexattr_destroy(&attr), "pthread_mutexattr_destroy");
}

void lc_mutex_destroy(struct lc_mutex *m)
{
	check(pthread_mutex_destroy(mutex_of(m)), "pthread_mutex_destroy");
}

void lc_mutex_lock(struct lc_mutex *m)
{
	check(pthread_mutex_lock(mutex_of(m)), "pthread_mutex_lock");
}

void lc_mutex_unlock(struct lc_mutex *m)
{
	check(pthread_mutex_unlock(mutex_of(m)), "pthread_mutex_unlock");
}

/* --- condition --- */

void lc_cond_init(struct lc_cond *c)
{
	pthread_condattr_t attr;

	check(pthread_condattr_init(&attr), "pthread_condattr_init");
	check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC), "pthread_condattr_setclock");
	check(pthread_cond_init(cond_of(c), &attr), "pthread_cond_init");
	check(pthread_condattr_destroy(&attr), "pthread_condattr_destroy");
}

void lc_cond_destroy(struct lc_cond *c)
{
	check(pthread_cond_destroy(cond_of(c)), "pthread_cond_destroy");
}

int lc_cond_wait(struct lc_cond *c, struct lc_mutex *m, u64 deadline_ns)
{
	struct timespec ts;
	int rc;

	if (deadline_ns == LC_FOREVER) {
		check(pthread_cond_wait(cond_of(c), mutex_of(m)), "pthread_cond_wait");
		return 0;
	}
	ts.tv_sec = (time_t)(deadline_ns / LC_NS_PER_S);
	ts.tv_nsec = (long)(deadline_ns % LC_NS_PER_S);
	rc = pthread_cond_timedwait(cond_of(c), mutex_of(m), &ts);
	if (rc == ETIMEDOUT)
		return -ETIMEDOUT;
	check(rc, "pthread_cond_timedwait");
	return 0;
}

void lc_cond_signal(struct lc_cond *c)
{
	check(pthread_cond_signal(cond_of(c)), "pthread_cond_signal");
}

void lc_cond_broadcast(struct lc_cond *c)
{
	check(pthread_cond_broadcast(cond_of(c)), "pthread_cond_broadcast");
}

/* --- thread --- */

static void *thread_main(void *opaque)
{
	struct thread *t = opaque;

	/* A name that is refused costs nothing but a nameless line in top. */
	(void)pthread_setname_np(pthread_self(), t->name);
	t->fn(t->arg);
	return NULL;
}

int lc_thread_start(struct lc_thread *lt, const char *name, void (*fn)(void *), void *arg)
{
	struct thread *t = thread_of(lt);
	sigset_t all, before;
	int rc;

	assert(strlen(name) <= 15);
	t->fn = fn;
	t->arg = arg;
	t->name = name;
	/* The new thread inherits the mask: no signal can arrive before it is blocked. */
	sigfillset(&all);
	check(pthread_sigmask(SIG_SETMASK, &all, &before), "pthread_sigmask");
	rc = pthread_create(&t->id, NULL, thread_main, t);
	check(pthread_sigmask(SIG_SETMASK, &before, NULL), "pthread_sigmask");
	return -rc;
}

void lc_thread_join(struct lc_thread *lt)
{
	check(pthread_join(thread_of(lt)->id, NULL), "pthread_join");
}

/* --- clock, random --- */

u64 lc_now_ns(void)
{
	struct timespec ts;
	int rc = clock_gettime(CLOCK_MONOTONIC, &ts);

	assert(rc == 0);
	(void)rc; /* only the assertion reads it */
	return (u64)ts.tv_sec * LC_NS_PER_S + (u64)ts.tv_nsec;
}

void lc_random(void *buf, size_t n)
{
	u8 *p = buf;

	while (n > 0) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			check(errno, "getrandom");
		}
		p += got;
		n -= (size_t)got;
	}
}

/* --- memory --- */

void *lc_alloc(size_t n)
{
	size_t align = n >= LC_BLOCK ? LC_BLOCK : 16;
	size_t rounded;
	void *p;

	if (n >= MAP_FROM_BYTES) {
		p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		/* A wish only: without huge pages it works as well, just slower. */
		if (n >= HUGE_FROM_BYTES)
			(void)madvise(p, n, MADV_HUGEPAGE);
		return p;
	}
	rounded = (n + align - 1) / align * align;
	p = aligned_alloc(align, rounded ? rounded : align);
	if (p)
		memset(p, 0, rounded);
	return p;
}

void lc_free(void *p, size_t n)
{
	if (!p)
		return;
	if (n >= MAP_FROM_BYTES) {
		int rc = munmap(p, n);

		assert(rc == 0);
		(void)rc; /* only the assertion reads it */
	} else {
		free(p);
	}
}

void lc_copy(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
}

/* --- log --- */

static void log_to_stderr(enum lc_log_level level, const char *line)
{
	static const char *const word[] = {
		[LC_LOG_DEBUG] = "debug: ",
		[LC_LOG_INFO] = "",
		[LC_LOG_WARNING] = "warning: ",
		[LC_LOG_ERROR] = "error: ",
	};

	/* stdio locks the stream for the whole call: lines of different threads do not mix. */
	fprintf(stderr, "logcache: %s%s\n", word[level], line);
}

static _Atomic(void (*)(enum lc_log_level, const char *)) log_hook = log_to_stderr;

void lc_log_hook(void (*hook)(enum lc_log_level level, const char *line))
{
	atomic_store(&log_hook, hook ? hook : log_to_stderr);
}

void lc_log(enum lc_log_level level, const char *fmt, ...)
{
	int saved = errno;
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	atomic_load (&log_hook)(level, line);
	/* Callers log between a failed call and their look at errno. */
	errno = saved;
}
