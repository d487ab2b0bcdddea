/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * top.h - logcachectl top: what top.c has computed, for top_draw.c to draw.
 */
#ifndef LC_CTL_TOP_H
#define LC_CTL_TOP_H

#include <jansson.h>

#include "logcache/histogram.h"

enum top_row {
	TOP_READ,
	TOP_WRITE,
	TOP_ZERO,
	TOP_TRIM,
	TOP_FLUSH,
	TOP_BACKING_READ,
	TOP_BACKING_WRITE,
	TOP_COMMIT,
	NR_TOP_ROWS,
};

/* What happened between two looks. */
struct top_view {
	const char *socket;
	const char *error;    /* NULL, or why there is no newer look */
	const json_t *status; /* the newer one; NULL: there was none yet */
	double seconds;	      /* between the two; 0: there is only one */
	struct {
		const char *title;
		double per_second, bytes_per_second; /* bytes -1: has none */
		struct lc_histogram times;
	} rows[NR_TOP_ROWS];
	double read_hits, write_hits; /* shares; -1: no such blocks */
	double dirty_bytes_per_second;
	double writeback_bytes_per_second, log_bytes_per_second;
};

/* Pairs of colours, if the terminal has any. */
enum { TOP_DIRTY = 1, TOP_CLEAN = 2 };

/* Draw it on the whole screen, whatever its size. */
void top_draw(const struct top_view *v);

#endif
