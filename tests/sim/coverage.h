/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * coverage.h - what histories really contain: how many had each feature. `logcache-sim --coverage` prints it, and
 * says so if one never came up: a history that is not drawn proves nothing.
 */
#ifndef LOGCACHE_SIM_COVERAGE_H
#define LOGCACHE_SIM_COVERAGE_H

#define COVERAGE(X)                                             \
	X(CRASH_OPEN, "a crash during an opening")              \
	X(CRASH_OPEN_TWICE, "two such in a row")                \
	X(CRASH_FIVE, "five generations of crashes or more")    \
	X(KILL_ALL, "all stores killed without a power cut")    \
	X(CUT_ALL, "all stores cut from power")                 \
	X(CUT_SOME, "some cut, some killed")                    \
	X(TEAR_SECTOR, "writes torn at 512 bytes")              \
	X(TEAR_BLOCK, "writes torn at 4096 bytes")              \
	X(NEVER_FLUSH, "clients that never flush")              \
	X(RING_FULL, "a full ring")                             \
	X(LAPS, "the log lapped")                               \
	X(LAPS_DOZEN, "the log lapped a dozen times")           \
	X(BIG_WRITE, "writes of 512 KiB and more")              \
	X(FAULTS, "stores that fail")                           \
	X(GONE, "a store that vanishes and comes back")         \
	X(DAMAGE, "damage in the log")                          \
	X(METADATA, "damage in one copy of a metadata page")    \
	X(REFUSED, "a cache that refused to open")              \
	X(DRAINED, "a drain")                                   \
	X(STUTTER, "scenario: stutter")                         \
	X(STAMMER, "scenario: stammer")                         \
	X(FULL, "scenario: full ring")                          \
	X(SUPERSEDE, "scenario: superseded while written back") \
	X(PATCHWORK, "scenario: patchwork")

#define COVERAGE_ENUM(name, text) COVER_##name,
enum cover { COVERAGE(COVERAGE_ENUM) NR_COVER };

#endif
