/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt_sim.h - the simulated runtime: fibers, a seeded scheduler, a clock that jumps.
 *
 * The engine library is linked against this instead of POSIX threads. All of it runs in one kernel
 * thread: a "thread" of the engine is a fiber, and only at a scheduling point can another fiber
 * run. Scheduling points are: lock, unlock, wait, signal, the middle of a copy, and every I/O. What
 * happens at each of them follows from the seed alone, so a history that failed fails again.
 *
 * Words
 *	life	  from one opening of the cache to its close or crash; a history has several
 *	root	  the plain stack of main(): between lives, and the judge after one
 *	step	  one scheduling point. Crashes are planned by step
 *	event	  something that happens by itself at a virtual time: an I/O completes, a wait ends
 *
 * A crash abandons all fibers where they stand, without unwinding, and drops their memory.
 */
#ifndef LOGCACHE_SIM_RT_H
#define LOGCACHE_SIM_RT_H

#include "logcache/rt.h"

/* --- randomness: one stream, so that the order of draws is part of the history --- */

void sim_seed(u64 seed);
u64 sim_rand(void);
/* Uniform in 0 .. n-1. */
u32 sim_below(u32 n);
/* Uniform in lo .. hi. */
u32 sim_between(u32 lo, u32 hi);
/* True once in N. */
static inline bool sim_one_in(u32 n)
{
	return sim_below(n) == 0;
}
/* As many below 10 as below 100 as below 1000: lo .. hi. */
u32 sim_log_between(u32 lo, u32 hi);

/* --- events --- */

struct sim_event {
	u64 at_ns;
	u32 tie; /* random: events at one time fire in any order */
	u32 pos; /* place in the heap from 1; 0: not armed */
	void (*fire)(struct sim_event *ev);
};

/* FIRE runs on whatever fiber is at a scheduling point then; it may wake fibers, never block. */
void sim_event_arm(struct sim_event *ev, u64 at_ns);
void sim_event_cancel(struct sim_event *ev);

/* --- fibers --- */

struct fiber;

struct fiber *sim_self(void);
const char *sim_fiber_name(const struct fiber *f);
/* Start a fiber of the test itself (a client). NAME is a constant. */
struct fiber *sim_fiber_start(const char *name, void (*fn)(void *), void *arg);
void sim_fiber_join(struct fiber *f);
void sim_sleep(u64 ns);

/* A scheduling point. */
void sim_point(void);
/*
 * Sleep until sim_wake or the deadline; true if it was the deadline. WHAT and OBJ say for the dump
 * of a deadlock what is waited for.
 */
bool sim_block(const char *what, const void *obj, u64 deadline_ns);
void sim_wake(struct fiber *f);
/* The engine promises to hold no mutex when it does something slow; WHAT names it. */
void sim_assert_unlocked(const char *what);

u64 sim_now(void);
u64 sim_steps(void);

/* --- lives --- */

enum sim_outcome { SIM_RETURNED, SIM_CRASHED };

/* A new history: clock, step count and scheduling policy start again from the seed. */
void sim_history_begin(u64 step_limit);
/* The same without any randomness: fibers take turns, I/O takes the shortest time, until the next beginning. */
void sim_history_begin_calm(u64 step_limit);
/* Run FN on the first fiber of a new life until it returns or the planned crash comes. */
enum sim_outcome sim_life(const char *name, void (*fn)(void *), void *arg);
/* Crash so many steps from now (0: never). May be called from inside the life. */
void sim_plan_crash(u64 steps);
/* Crash here and now, on a fiber of the life. */
_Noreturn void sim_crash_now(void);
/*
 * Drop the fibers and the memory of the life that just ended. Returns what was left over: fibers
 * that are still there, and bytes not freed. Not zero after a clean close is a bug; after a crash
 * it is normal.
 */
struct sim_leftover {
	u32 fibers, allocations;
	u64 bytes;
} sim_life_end(void);

/* --- saying what happened --- */

/* Brief: only what clients do and what becomes of the disks. */
extern bool sim_tracing, sim_brief;
void sim_trace_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define sim_trace(...)                               \
	do {                                         \
		if (sim_tracing)                     \
			sim_trace_line(__VA_ARGS__); \
	} while (0)

/*
 * The history violates something. Prints the reason, the fibers, how to replay; ends the process.
 */
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Its message; shared with children that were forked, if main() made it so. */
#define SIM_FAILURE_BYTES 256u
extern char *sim_failure;
/* Part of a failure's report: what each fiber is doing. */
void sim_dump_fibers(void);
/* main.c's: the end of every failure report (seed, replay command); does not return. */
_Noreturn void sim_report_and_exit(void);

#endif
