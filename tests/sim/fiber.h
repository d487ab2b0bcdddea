/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fiber.h - what the two halves of the simulated runtime share: rt_sim.c, which runs fibers, and
 * rt_api.c, which makes mutexes, conditions and threads of them. Nobody else includes it.
 */
#ifndef LOGCACHE_SIM_FIBER_H
#define LOGCACHE_SIM_FIBER_H

#include "rt_sim.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#endif

#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define SIM_FIBERS_MAX 48u

enum fiber_state { FIBER_FREE, FIBER_RUNNABLE, FIBER_BLOCKED, FIBER_DONE };

struct fiber {
	const char *name; /* a constant */
	enum fiber_state state;
	void (*fn)(void *);
	void *arg;
	bool engine;	/* started by lc_thread_start */
	bool timed_out; /* the last wait ended by its deadline */
	u32 held;	/* mutexes that it holds now */
	u32 priority;
	struct sim_event timer;
	const char *wait_what;
	const void *wait_obj;
	u64 wait_since_ns;
};

struct fiber *fiber_new(const char *name, void (*fn)(void *), void *arg, bool engine);
u32 fiber_number(const struct fiber *f);
/* The I-th fiber of this life, whatever its state; NULL when there are no more. */
struct fiber *fiber_at(u32 i);
u64 fiber_clock(void);

/* rt_api.c: free what the engine did not, and count it. */
void memory_drop(struct sim_leftover *left);
/* rt_api.c: for the dump; who holds what F waits for. */
void wait_describe(const struct fiber *f);

#endif
