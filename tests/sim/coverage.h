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
	X(PACED, "writers that pay for blocks")                             \
	X(ROUNDS, "rounds of write-back in several sweeps")                 \
	X(LAPS, "the log lapped")                                           \
	X(LAPS_DOZEN, "the log lapped a dozen times")                       \
	X(BIG_WRITE, "writes of 512 KiB and more")                          \
	X(TOGETHER, "several reads of the SSD at once")                     \
	X(TOGETHER_BACKING, "several reads of a backing store at once")     \
	X(TOGETHER_FAILED, "some of them failed")                           \
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
	X(NO_SSD_BETWEEN, "the same between two lives with one")            \
	X(LINK_LOST, "a connection that broke with I/O in flight")          \
	X(LINK_RESTART, "a server that lost power meanwhile")               \
	X(LINK_STUCK, "a request without an answer")                        \
	X(HAUNTED, "a lost write that took effect later")                   \
	X(ATTACHED, "a cache attached while clients work")                  \
	X(ATTACHED_AGAIN, "one that was detached before")                   \
	X(ATTACHED_LEFT, "one that was closed, but not detached")           \
	X(LEFT_AGAIN, "a crash while attaching that, and another try")      \
	X(ATTACHED_OTHER, "another one than before")                        \
	X(ATTACHED_NEW, "one that was formatted meanwhile")                 \
	X(ATTACH_SEEN, "clients saw that attaching had switched")           \
	X(ATTACH_FAILED, "attaching failed")                                \
	X(ATTACH_CANCELED, "attaching was interrupted")                     \
	X(REFUSED_DIRTY, "refused: attaching somebody's dirty cache")       \
	X(REFUSED_OWN, "refused: attaching the volumes' own dirty cache")   \
	X(REFUSED_SECOND, "refused: attaching a second one")                \
	X(REFUSED_NONE, "refused: detaching none")                          \
	X(DETACHED, "a cache detached while clients work")                  \
	X(DETACH_FAILED, "detaching failed")                                \
	X(SWITCHES_FIVE, "attached and detached five times in a life")      \
	X(CRASH_ATTACHING, "a crash while attaching")                       \
	X(CRASH_SWITCHED, "the same, and it was known to have switched")    \
	X(CRASH_ATTACHED, "a crash after attaching")                        \
	X(CRASH_DETACHING, "a crash while detaching")                       \
	X(CRASH_DETACHED, "a crash after detaching")                        \
	X(OPEN_DETACHED, "opened with one that was detached")               \
	X(OPEN_WITHOUT, "opened without, after a detach")                   \
	X(SETTING, "a setting changed while clients work")                  \
	X(SETTING_KEPT, "a setting kept")                                   \
	X(SETTING_FAILED, "a setting that could not be kept")               \
	X(SETTING_BACK, "a setting that had been kept, after opening")      \
	X(SETTING_ATTACHED, "the same, after attaching")

#define COVERAGE_ENUM(name, text) COVER_##name,
enum cover { COVERAGE(COVERAGE_ENUM) NR_COVER };

#endif
