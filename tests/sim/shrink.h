/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shrink.h - look for a smaller history that fails by the same rule.
 *
 * All draws come from one stream, so an operation cannot be taken out of a history and leave the rest as it was.
 * Limits are put on the history instead (fewer lives, clients, operations, sectors; no faults), and each smaller
 * one is tried with some hundred schedules (the salt) until one of them fails in the same way.
 */
#ifndef LOGCACHE_SIM_SHRINK_H
#define LOGCACHE_SIM_SHRINK_H

#include "history.h"

/*
 * Shrink the history of SEED, which failed with the message RULE; at most so many seconds. Forks; the caller has not
 * run a history in this process. Returns the limits of the smallest one found.
 */
struct limits shrink(struct history *h, u64 seed, const char *rule, double seconds);
/* Do two messages name the same rule? Numbers in them may differ. */
bool same_rule(const char *a, const char *b);

#endif
