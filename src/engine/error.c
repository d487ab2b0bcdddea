/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c - lc_fail of types.h: what went wrong, for a person. */
#include <stdarg.h>
#include <stdio.h>

#include "logcache/types.h"

int lc_fail(struct lc_error *err, int code, const char *fmt, ...)
{
	va_list args;

	if (err) {
		va_start(args, fmt);
		vsnprintf(err->text, sizeof err->text, fmt, args);
		va_end(args);
	}
	return code;
}
