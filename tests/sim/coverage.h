/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * coverage.h - what histories really contain: how many had each feature. `logcache-sim --coverage` prints it, and
 * says so if one never came up: a history that is not drawn proves nothing.
 */
#ifndef LOGCACHE_SIM_COVERAGE_H
#define LOGCACHE_SIM_COVERAGE_H

#define COVERAGE(X)                                                         \
	X(CRASH_OPEN, "a crash during an opening")                          \
	X(CRASH_OPEN_TWICE, "two such in a row")                            \
	X(CRASH_FIVE, "five generations of crashes or more")                \
	X(KILL_ALL, "all stores killed without a power cut")                \
	X(CUT_ALL, "all stores cut from power")                             \
	X(CUT_SOME, "some cut, some killed")                                \
	X(TEAR_SECTOR, "writes torn at 512 bytes")                          \
	X(TEAR_BLOCK, "writes torn at 4096 bytes")                          \
	X(NEVER_FLUSH, "clients that never flush")                          \
	X(RING_FULL, "a full ring")                                         \
	X(LAPS, "the log lapped")                                           \
	X(LAPS_DOZEN, "the log lapped a dozen times")                       \
	X(BIG_WRITE, "writes of 512 KiB and more")                          \
	X(FAULTS, "stores that fail")                                       \
	X(GONE, "a store that vanishes and comes back")                     \
	X(DAMAGE, "damage in the log")                                      \
	X(METADATA, "damage in one copy of a metadata page")                \
	X(REFUSED, "a cache that refused to open")                          \
	X(DRAINED, "a drain")                                               \
	X(STUTTER, "scenario: stutter")                                     \
	X(STAMMER, "scenario: stammer")                                     \
	X(FULL, "scenario: full ring")                                      \
	X(SUPERSEDE, "scenario: superseded while written back")             \
	X(PATCHWORK, "scenario: patchwork")                                 \
	X(PENDING, "scenario: many pending zeros")                          \
	X(ZERO_ENTRY, "a zero that is an entry of the log")                 \
	X(ZERO_DATA, "a zero that is data")                                 \
	X(ZERO_WHOLE, "a zero or trim of the whole volume")                 \
	X(ZERO_PUNCH, "a zero that may give space back")                    \
	X(ZERO_FAST, "a zero that was too slow to be wanted")               \
	X(TRIM, "a trim")                                                   \
	X(TRIM_NONE, "a trim without effect")                               \
	X(ZEROS_MANY, "40 or more pending zeros at once")                   \
	X(ZEROS_WRITTEN, "zeros written back as data")                      \
	X(ZEROS_AGAIN, "zeros pending at a crash")                          \
	X(ZEROS_DONE, "zeros executed, then a crash before the tail moved") \
	X(ZERO_LOST, "lost blocks zeroed")                                  \
	X(HOLE, "a hole")                                                   \
	X(LEFT_OUT, "a volume left out")                                    \
	X(BACK, "a volume that is back")                                    \
	X(FOREIGN, "written by others while it was left out")               \
	X(FOREIGN_SEEN, "written by others, to be noticed")                 \
	X(REFUSED_LEFT_OUT, "refused: a dirty volume left out")             \
	X(REFUSED_SWAPPED, "refused: backing stores swapped")               \
	X(REFUSED_WRITTEN, "refused: a dirty volume that others wrote to")  \
	X(REFUSED_STRANGE, "refused: a strange volume instead")             \
	X(ONE_FAILS, "one volume fails, the others are drained")            \
	X(NO_SSD, "lives without an SSD")                                   \
	X(NO_SSD_BETWEEN, "the same between two lives with one")

#define COVERAGE_ENUM(name, text) COVER_##name,
enum cover { COVERAGE(COVERAGE_ENUM) NR_COVER };

#endif
