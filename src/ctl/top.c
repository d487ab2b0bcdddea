/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * top.c - logcachectl top: look at a server again and again, and show what happened in between.
 *
 * The server only counts; rates and the latencies of the last interval are differences of two looks.
 */
#include "top.h"

#include <curses.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "http.h"
#include "online.h"

#define INTERVAL_MIN_S 0.1
#define INTERVAL_MAX_S 3600.0

/* What each row is made of. */
static const struct {
	const char *title;
	const char *latency; /* below "latencies" */
	const char *bytes;   /* NULL: none */
} sources[NR_TOP_ROWS] = {
	[TOP_READ] = {"read", "read", "clients.read_bytes"},
	[TOP_WRITE] = {"write", "write", "clients.write_bytes"},
	[TOP_ZERO] = {"zero", "zero", "clients.zero_bytes"},
	[TOP_TRIM] = {"trim", "trim", "clients.trim_bytes"},
	[TOP_FLUSH] = {"flush", "flush", NULL},
	[TOP_BACKING_READ] = {"backing read", "backing_read", NULL},
	[TOP_BACKING_WRITE] = {"write-back", "backing_write", NULL},
	[TOP_COMMIT] = {"cache flush", "commit", NULL},
};

static void histogram_of(const json_t *st, const char *name, struct lc_histogram *out)
{
	const json_t *h = json_object_get(json_object_get(st, "latencies"), name), *pair;
	size_t i;

	*out = (struct lc_histogram){0};
	json_array_foreach(json_object_get(h, "buckets"), i, pair)
	{
		u64 bound_ns = json_integer_value(json_array_get(pair, 0));
		u64 nr = json_integer_value(json_array_get(pair, 1));

		out->buckets[lc_histogram_bucket(bound_ns - 1)] = nr;
		out->count += nr;
	}
}

/* NOW minus BEFORE, or NOW if somebody has reset the counters in between. */
static double moved(const json_t *now, const json_t *before, const char *path)
{
	double a = number_of(now, path), b = number_of(before, path);

	return a >= b ? a - b : a;
}

/* The longest time of an interval, as exactly as the buckets tell. */
static u64 longest_ns(const struct lc_histogram *h)
{
	for (u32 i = LC_HISTOGRAM_BUCKETS; i > 0; i--)
		if (h->buckets[i - 1])
			return lc_histogram_bound_ns(i - 1);
	return 0;
}

static void compute_row(struct top_view *v, unsigned i, const json_t *now, const json_t *before)
{
	struct lc_histogram *h = &v->rows[i].times, earlier;

	histogram_of(now, sources[i].latency, h);
	histogram_of(before, sources[i].latency, &earlier);
	if (h->count >= earlier.count)
		lc_histogram_since(h, &earlier);
	h->max_ns = longest_ns(h);
	v->rows[i].title = sources[i].title;
	v->rows[i].per_second = v->seconds > 0 ? (double)h->count / v->seconds : 0;
	v->rows[i].bytes_per_second = -1;
	if (sources[i].bytes)
		v->rows[i].bytes_per_second = v->seconds > 0 ? moved(now, before, sources[i].bytes) /
								       v->seconds :
							       0;
}

/* Of the blocks of OP ("read", "write"): how many were hits? */
static double hits(const json_t *now, const json_t *before, const char *op)
{
	static const char *const ends[] = {"buffer.whole", "buffer.part", "other.whole",
					   "other.part"};
	double hit = 0, miss = 0;
	char path[64];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "blocks.%s.hit.%s", op, ends[i]);
		hit += moved(now, before, path);
		snprintf(path, sizeof path, "blocks.%s.miss.%s", op, ends[i]);
		miss += moved(now, before, path);
	}
	return hit + miss > 0 ? hit / (hit + miss) : -1;
}

static void compute(struct top_view *v, const json_t *now, const json_t *before)
{
	double s;

	v->status = now;
	v->seconds = before ? number_of(now, "server.uptime_seconds") -
				      number_of(before, "server.uptime_seconds") :
			      0;
	if (v->seconds < 0)
		v->seconds = 0; /* another server */
	for (unsigned i = 0; i < NR_TOP_ROWS; i++)
		compute_row(v, i, now, v->seconds > 0 ? before : NULL);
	s = v->seconds > 0 ? v->seconds : 1;
	if (v->seconds == 0)
		before = now; /* nothing has moved */
	v->read_hits = hits(now, before, "read");
	v->write_hits = hits(now, before, "write");
	v->dirty_bytes_per_second = (number_of(now, "cache.dirty_bytes") -
				     number_of(before, "cache.dirty_bytes")) /
				    s;
	v->writeback_bytes_per_second = moved(now, before, "writeback.blocks") * LC_BLOCK / s;
	v->log_bytes_per_second = moved(now, before, "log.bytes") / s;
}

/* Wait for the end of the interval. False: q was pressed. */
static bool wait_for_key(struct top_view *v, u64 until_ns)
{
	for (;;) {
		u64 now_ns = lc_now_ns();
		int key;

		if (now_ns >= until_ns)
			return true;
		timeout((int)((until_ns - now_ns) / LC_NS_PER_MS) + 1);
		key = getch();
		if (key == 'q' || key == 'Q')
			return false;
		if (key == ' ' || key == '\n')
			return true;
		if (key == KEY_RESIZE)
			top_draw(v);
	}
}

static void go_on(const char *socket, double interval_s)
{
	struct top_view v = {.socket = socket};
	json_t *now = NULL, *before = NULL;
	char error[1024];
	u64 next_ns;

	do {
		json_t *newer;

		next_ns = lc_now_ns() + (u64)(interval_s * LC_NS_PER_S);
		v.error = NULL;
		if (http_ask_quietly(socket, "GET", "/v1/status?buckets=1", NULL, &newer, error,
				     sizeof error)) {
			json_decref(before);
			before = now;
			now = newer;
			compute(&v, now, before);
		} else {
			v.error = error; /* it may come back: go on */
		}
		top_draw(&v);
	} while (wait_for_key(&v, next_ns));
	json_decref(now);
	json_decref(before);
}

static bool take_interval(int argc, char **argv, double *seconds)
{
	static const char option[] = "--interval=";
	char *end;

	if (argc == 1)
		return true;
	if (argc > 2 || strncmp(argv[1], option, sizeof option - 1) != 0) {
		misused("top: '%s' is too much", argv[argc - 1]);
		return false;
	}
	*seconds = strtod(argv[1] + sizeof option - 1, &end);
	if (!*end && *seconds >= INTERVAL_MIN_S && *seconds <= INTERVAL_MAX_S)
		return true;
	misused("top: %s: must be %g to %g seconds", argv[1], INTERVAL_MIN_S, INTERVAL_MAX_S);
	return false;
}

int command_top(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);
	double interval_s = 1;
	json_t *answer;
	SCREEN *screen;

	if (!socket || !take_interval(argc, argv, &interval_s))
		return CTL_USAGE;
	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		return fail("top: this is not a terminal: use \"status\", or \"status --json\"");
	/* Whoever gives a wrong socket shall not read of it on a screen that is gone at once. */
	if (!http_ask(socket, "GET", "/v1/status", NULL, &answer))
		return CTL_FAILED;
	json_decref(answer);

	setlocale(LC_ALL, "");
	screen = newterm(NULL, stdout, stdin);
	if (!screen)
		return fail("top: the terminal '%s' is not known",
			    getenv("TERM") ? getenv("TERM") : "");
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	if (has_colors() && start_color() == OK && use_default_colors() == OK) {
		init_pair(TOP_DIRTY, COLOR_YELLOW, -1);
		init_pair(TOP_CLEAN, COLOR_GREEN, -1);
	}
	go_on(socket, interval_s);
	endwin();
	delscreen(screen);
	return CTL_OK;
}
