/* SPDX-License-Identifier: BSD-3-Clause */
/* backing.c - see backing.h. */
#include "backing.h"

#include <string.h>

#include "file.h"

int lc_backing_open(const char *where, unsigned file_flags, const struct lc_nbd_options *o,
		    struct lc_store **out, struct lc_error *err)
{
	return lc_is_uri(where) ? lc_nbd_open(where, o, out, err) :
				  lc_file_open(where, file_flags, out, err);
}

bool lc_backing_same(const char *a, const char *b)
{
	if (lc_is_uri(a) || lc_is_uri(b))
		return strcmp(a, b) == 0;
	return lc_file_same_path(a, b) == 1;
}
