/* SPDX-License-Identifier: BSD-3-Clause */
/* size.c - see size.h. */
#include "size.h"

#include <inttypes.h>
#include <stdio.h>

/* Beyond so many of a unit nobody counts them. */
#define EXACT_MAX 9999u

const char *size_text(char text[SIZE_TEXT_BYTES], u64 bytes)
{
	static const char suffixes[] = " KMGTPE";
	u64 unit = 1;
	unsigned i = 0;

	/* Exactly, if the largest unit that divides it is not too small for it. */
	while (bytes && i < 6 && bytes % (unit * 1024) == 0) {
		unit *= 1024;
		i++;
	}
	if (bytes / unit <= EXACT_MAX) {
		snprintf(text, SIZE_TEXT_BYTES, i ? "%" PRIu64 "%c" : "%" PRIu64, bytes / unit,
			 suffixes[i]);
		return text;
	}
	while (bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	snprintf(text, SIZE_TEXT_BYTES, "%.1f %ciB", (double)bytes / unit, suffixes[i]);
	return text;
}
