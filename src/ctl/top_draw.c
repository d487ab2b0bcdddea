/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * top_draw.c - the screen of logcachectl top.
 *
 * Made for 80x24: everything fits there with a ring of 256 cells. On a smaller screen the last lines are missing and long
 * ones are cut; on a larger one the ring has longer rows.
 */
#include "top.h"

#include <curses.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "logcache/types.h"
#include "online.h"

#define BAR_CELLS 30
#define LINE_BYTES 512

/* One line of text at row *Y, cut at the edge; *Y moves on. */
static void line(int *y, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void line(int *y, const char *fmt, ...)
{
	char text[LINE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (*y < LINES)
		mvaddnstr(*y, 0, text, COLS);
	++*y;
}

static const char *bar_text(char text[BAR_CELLS + 1], double share)
{
	int filled = (int)(share * BAR_CELLS + 0.5);

	memset(text, '.', BAR_CELLS);
	memset(text, '#', filled < 0 ? 0 : filled > BAR_CELLS ? BAR_CELLS : filled);
	text[BAR_CELLS] = '\0';
	return text;
}

static void draw_head(const struct top_view *v, int *y)
{
	char uptime[TEXT_BYTES];

	line(y, "logcache %-6s %-38.38s up %-13s q quits", text_of(v->status, "server.version"),
	     v->socket, duration_text(uptime, number_of(v->status, "server.uptime_seconds")));
	mvchgat(*y - 1, 0, -1, A_REVERSE, 0, NULL);
}

static void draw_cache(const struct top_view *v, int *y)
{
	const json_t *st = v->status;
	char bar[BAR_CELLS + 1], a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];
	double capacity = number_of(st, "cache.capacity_blocks");
	double filled = capacity > 0 ? number_of(st, "cache.cached_blocks") / capacity : 0;
	double moves = v->dirty_bytes_per_second, dirty = number_of(st, "cache.dirty_bytes");
	bool falls = moves < 0 && dirty >= -moves; /* for another second at least */

	if (!json_is_object(json_object_get(st, "cache"))) {
		line(y, "cache   %s", text_of(st, "state"));
		return;
	}
	line(y, "cache   %s, %s, %.0f segments of %s", text_of(st, "cache.path"),
	     text_of(st, "state"), number_of(st, "cache.segments.total"),
	     bytes_text(a, number_of(st, "cache.segment_bytes")));
	line(y, "dirty   [%s] %5.1f %%  %s, %s%s/s",
	     bar_text(bar, number_of(st, "cache.dirty_share")),
	     number_of(st, "cache.dirty_share") * 100, bytes_text(a, dirty), moves < 0 ? "-" : "+",
	     bytes_text(b, moves < 0 ? -moves : moves));
	line(y, "filled  [%s] %5.1f %%  of %s", bar_text(bar, filled), filled * 100,
	     bytes_text(a, capacity * LC_BLOCK));
	line(y, "write-back %s/s%s%s; %.1f blocks a write; log %s/s",
	     bytes_text(a, v->writeback_bytes_per_second), falls ? ", clean in " : "",
	     falls ? duration_text(b, dirty / -moves) : "",
	     number_of(st, "writeback.blocks_per_io"), bytes_text(c, v->log_bytes_per_second));
}

static const char *hits_text(char text[TEXT_BYTES], double share)
{
	if (share < 0)
		return strcpy(text, "-");
	snprintf(text, TEXT_BYTES, "%.1f %%", share * 100);
	return text;
}

static void draw_rows(const struct top_view *v, int *y)
{
	char rate[TEXT_BYTES], bytes[TEXT_BYTES], t[4][TEXT_BYTES];

	attron(A_BOLD);
	line(y, "%-13s %8s %12s %9s %9s %9s %9s", "", "IOPS", "bytes/s", "p50", "p99", "p99.9",
	     "max");
	attroff(A_BOLD);
	for (unsigned i = 0; i < NR_TOP_ROWS; i++) {
		const struct lc_histogram *h = &v->rows[i].times;

		bytes[0] = '\0';
		if (v->rows[i].bytes_per_second >= 0)
			bytes_text(bytes, v->rows[i].bytes_per_second);
		line(y, "%-13s %8s %12s %9s %9s %9s %9s", v->rows[i].title,
		     amount_text(rate, v->rows[i].per_second), bytes,
		     latency_text(t[0], lc_histogram_quantile_ns(h, 500)),
		     latency_text(t[1], lc_histogram_quantile_ns(h, 990)),
		     latency_text(t[2], lc_histogram_quantile_ns(h, 999)),
		     latency_text(t[3], h->max_ns));
	}
	line(y, "hits          reads %s, writes %s (of blocks)", hits_text(t[0], v->read_hits),
	     hits_text(t[1], v->write_hits));
}

static void draw_trouble(const struct top_view *v, int *y)
{
	const json_t *st = v->status, *job = json_object_get(st, "job"),
		     *e = json_object_get(st, "errors");
	double errors = number_of(e, "cache") + number_of(e, "backing") + number_of(e, "crc") +
			number_of(e, "lost_blocks");
	char text[TEXT_BYTES], total[TEXT_BYTES];

	if (errors > 0 || json_is_true(member(st, "cache.log_failed"))) {
		attron(A_BOLD);
		line(y, "ERRORS  cache %.0f%s, backing stores %.0f, checksums %.0f, blocks lost %.0f",
		     number_of(e, "cache"),
		     json_is_true(member(st, "cache.log_failed")) ? " (fails)" : "",
		     number_of(e, "backing"), number_of(e, "crc"), number_of(e, "lost_blocks"));
		attroff(A_BOLD);
	}
	if (number_of(st, "cache.pace_delay_ns") > 0)
		line(y, "slowed  a block written waits %s: the log is nearly full",
		     latency_text(text, number_of(st, "cache.pace_delay_ns")));
	if (number_of(e, "failing_volumes") > 0 || number_of(st, "cache.waiting_writers") > 0)
		line(y, "waiting %.0f writers for space in the log; backing stores that fail: %.0f",
		     number_of(st, "cache.waiting_writers"), number_of(e, "failing_volumes"));
	if (strcmp(text_of(job, "state"), "running") == 0)
		line(y, "job     %s, %s of %s left", text_of(job, "kind"),
		     bytes_text(text, number_of(job, "blocks_left") * LC_BLOCK),
		     bytes_text(total, number_of(job, "blocks") * LC_BLOCK));
	else if (strcmp(text_of(job, "state"), "failed") == 0)
		line(y, "job     %s failed: %s", text_of(job, "kind"), text_of(job, "error"));
}

/* How a cell of the ring looks, with colours where the terminal has them. */
static chtype cell(char letter, bool is_tail)
{
	if (letter == 'H')
		return 'H' | A_REVERSE;
	if (is_tail)
		return 'T' | A_BOLD;
	return (chtype)(unsigned char)letter | (letter == '#' ? COLOR_PAIR(TOP_DIRTY) :
						letter == '-' ? COLOR_PAIR(TOP_CLEAN) :
								0);
}

/* The places of the ring in rows, the tail among them: the head chases it. */
static void draw_ring(const struct top_view *v, int *y)
{
	const char *map = text_of(v->status, "cache.segments.map");
	int n = (int)strlen(map), width = COLS < 64 ? COLS : COLS / 64 * 64;
	int tail = (int)number_of(v->status, "cache.segments.map_tail");

	if (!n)
		return;
	line(y, "ring    head %.0f, tail %.0f   H head, T tail, # dirty, - clean, . free",
	     number_of(v->status, "cache.segments.head_id"),
	     number_of(v->status, "cache.segments.tail_id"));
	for (int i = 0; i < n && *y < LINES; i += width, ++*y) {
		for (int k = i; k < n && k < i + width; k++)
			mvaddch(*y, k - i, cell(map[k], k == tail));
	}
}

void top_draw(const struct top_view *v)
{
	int y = 0;

	erase();
	if (v->status) {
		draw_head(v, &y);
		draw_cache(v, &y);
		draw_rows(v, &y);
		draw_trouble(v, &y);
		draw_ring(v, &y);
	}
	if (v->error) {
		int last = LINES - 1;

		attron(A_REVERSE);
		line(&last, "%s", v->error);
		attroff(A_REVERSE);
	}
	refresh();
}
