/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * readonly.h - a store that cannot be written to.
 *
 * For commands that only look: they need no right to write, leave the time of modification alone, and whatever is
 * wrong with them, they cannot spoil anything. The lock is a shared one: several of them can look at a cache, but none
 * while a server uses it, since what they saw would change under their hands; and no server starts meanwhile.
 */
#ifndef LC_CTL_READONLY_H
#define LC_CTL_READONLY_H

#include "logcache/store.h"

/* -EBUSY: a server has it. Writes fail with -EROFS; queues are not supported. Close with lc_store_close. */
int readonly_open(const char *path, struct lc_store **out, struct lc_error *err);

#endif
