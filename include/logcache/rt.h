/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt.h - the runtime: all that the engine asks of its surroundings besides storage.
 *
 * Functions only, over opaque storage, so that the very same engine library is linked against
 * POSIX threads in production (src/io/rt_posix.c) and against fibers under a seeded scheduler in
 * the simulation (tests/sim). The engine itself has no spin loops, no thread-local variables, no
 * clock of its own, and nothing whose order depends on the value of a pointer.
 *
 * None of these functions fails unless it says so: a runtime that cannot lock a mutex cannot
 * promise anything, and aborts.
 */
#ifndef LOGCACHE_RT_H
#define LOGCACHE_RT_H

#include "logcache/types.h"

struct lc_mutex {
	_Alignas(16) unsigned char opaque[64];
};

struct lc_cond {
	_Alignas(16) unsigned char opaque[64];
};

struct lc_thread {
	_Alignas(16) unsigned char opaque[64];
};

void lc_mutex_init(struct lc_mutex *m);
void lc_mutex_destroy(struct lc_mutex *m);
void lc_mutex_lock(struct lc_mutex *m);
void lc_mutex_unlock(struct lc_mutex *m);

void lc_cond_init(struct lc_cond *c);
void lc_cond_destroy(struct lc_cond *c);
/*
 * Release M, wait for a signal or until lc_now_ns() reaches DEADLINE_NS (LC_FOREVER: no limit),
 * take M again. Returns 0, or -ETIMEDOUT when the deadline passed. May wake without a cause:
 * callers loop over their condition.
 */
int lc_cond_wait(struct lc_cond *c, struct lc_mutex *m, u64 deadline_ns);
void lc_cond_signal(struct lc_cond *c);
void lc_cond_broadcast(struct lc_cond *c);

/*
 * Run FN(ARG) in a new thread. NAME (at most 15 characters, a string constant) is for debuggers and
 * traces. Returns 0 or -errno.
 */
int lc_thread_start(struct lc_thread *t, const char *name, void (*fn)(void *), void *arg);
/* Wait for the thread to return. Each started thread is joined exactly once. */
void lc_thread_join(struct lc_thread *t);

/* A clock that never goes back; its origin means nothing. No system call where the kernel allows. */
u64 lc_now_ns(void);

/* Fill N bytes at BUF with random bytes (uuids; not for secrets). */
void lc_random(void *buf, size_t n);

/*
 * N bytes, zeroed, aligned to 4096 if N >= 4096 and to 16 otherwise; NULL if there is no memory.
 * Never called on the path of a small write. lc_free takes the same N; lc_free(NULL, n) does nothing.
 */
void *lc_alloc(size_t n);
void lc_free(void *p, size_t n);

/*
 * Copy client or block data. Like memcpy, but the simulation yields in the middle of it, so that
 * whoever looks at the target too early sees a torn copy.
 */
void lc_copy(void *dst, const void *src, size_t n);

enum lc_log_level { LC_LOG_DEBUG, LC_LOG_INFO, LC_LOG_WARNING, LC_LOG_ERROR };

/* One line for the administrator: lower case, no newline. Safe from any thread. */
void lc_log(enum lc_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
