/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * json.h - write JSON to standard output, as it comes: a dump can be much larger than memory.
 *
 * KEY is NULL inside an array.
 */
#ifndef LC_CTL_JSON_H
#define LC_CTL_JSON_H

#include "logcache/types.h"

struct json {
	unsigned depth;
	bool comma; /* something precedes in this object or array */
};

void json_open(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json *j, char bracket);		       /* '}' or ']' */
void json_number(struct json *j, const char *key, u64 value);
void json_bool(struct json *j, const char *key, bool value);
/* VALUE may be any bytes: what is not UTF-8 is taken for Latin-1. */
void json_text(struct json *j, const char *key, const char *value);

#endif
