/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * json.h - small helpers over jansson.
 *
 * Memory that is not there: jansson's functions take NULL for a value and fail, so a document that is
 * being built stays valid and merely lacks a member. Nobody checks each step.
 */
#ifndef LC_CONTROL_JSON_H
#define LC_CONTROL_JSON_H

#include <jansson.h>

#include "logcache/types.h"

/* A string; what is not UTF-8 (a path may be anything) has '?' for its bytes above 0x7f. */
json_t *json_text(const char *text);

/* Numbers of ours are far below 2^63. */
static inline json_t *json_number_of(u64 n)
{
	return json_integer((json_int_t)n);
}

/* A time of the wall clock as "2026-11-21T09:30:00Z". */
json_t *json_wall_time(int64_t seconds);

/* One of its members does not have a name out of NAMES (which ends with NULL)? NULL: all do. */
const char *json_stranger(json_t *object, const char *const *names);

#endif
