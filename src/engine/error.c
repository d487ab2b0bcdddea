/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c - lc_fail and lc_count_text of types.h: what went wrong, for a person. */
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

const char *lc_count_text(char text[LC_COUNT_BYTES], u64 nr, const char *what)
{
	snprintf(text, LC_COUNT_BYTES, "%llu %s%s", (unsigned long long)nr, what, nr == 1 ? "" : "s");
	return text;
}
