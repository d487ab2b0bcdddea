/* SPDX-License-Identifier: BSD-3-Clause */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define AFTER_NS (2 * LC_NS_PER_S)
#define TERMINAL_NS (LC_NS_PER_S / 4)
#define ELSEWHERE_NS (5 * LC_NS_PER_S)

void progress_begin(struct progress *p, const char *what, bool wanted, bool quiet)
{
	*p = (struct progress){.what = what, .begun_ns = lc_now_ns()};
	p->terminal = isatty(STDERR_FILENO);
	p->off = quiet || !(wanted || p->terminal);
}

static void duration(char text[32], double seconds)
{
	if (seconds < 100)
		snprintf(text, 32, "%.0f s", seconds);
	else if (seconds < 6000)
		snprintf(text, 32, "%.0f min", seconds / 60);
	else
		snprintf(text, 32, "%.1f h", seconds / 3600);
}

void progress_tell(struct progress *p, u64 done, u64 total, u64 unit_bytes)
{
	u64 now = lc_now_ns();
	double seconds = (double)(now - p->begun_ns) / LC_NS_PER_S;
	char rate[48] = "", left[48] = "", text[32];

	if (p->off || now - p->begun_ns < AFTER_NS || !total ||
	    now - p->told_ns < (p->terminal ? TERMINAL_NS : ELSEWHERE_NS))
		return;
	p->told_ns = now;
	if (unit_bytes)
		snprintf(rate, sizeof rate, ", %.1f MiB/s",
			 (double)done * (double)unit_bytes / (1 << 20) / seconds);
	if (done && done < total) {
		duration(text, seconds / (double)done * (double)(total - done));
		snprintf(left, sizeof left, ", %s left", text);
	}
	fprintf(stderr, "%s%s: %.1f %%%s%s%s", p->terminal ? "\r\033[K" : "", p->what,
		100.0 * (double)done / (double)total, rate, left, p->terminal ? "" : "\n");
	fflush(stderr);
	p->shown = p->terminal;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
	p->shown = false;
}
