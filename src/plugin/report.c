/* SPDX-License-Identifier: BSD-3-Clause */
/* report.c - see report.h. */
#include "report.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "name.h"
#include "size.h"

#define LINE_BYTES 1200u

static double percent(u64 part, u64 whole)
{
	return whole ? 100.0 * part / whole : 0;
}

static void report_cache(const struct served *served)
{
	char cache[SIZE_TEXT_BYTES], memory[SIZE_TEXT_BYTES];
	struct lc_stats s;
	char records[32];

	lc_cache_stats(served->cache, &s);
	snprintf(records, sizeof records, "%" PRIu64 " records", s.recovered_records);
	lc_log(LC_LOG_INFO,
	       "cache %s (%s, %" PRIu64 " segments of %" PRIu32
	       "K): %.1f%% dirty, %.1f%% filled, head %" PRIu64 ", tail %" PRIu64 ", epoch %" PRIu64
	       ", %s found after %s; opened in %.2f s; %s of RAM, of which %.1f bytes per cached block",
	       served->ssd->name, size_text(cache, served->ssd->size_bytes), s.nr_segments,
	       s.segment_bytes >> 10, percent(s.dirty_segments, s.nr_segments),
	       percent(s.cached_blocks, s.capacity_blocks), s.head_id, s.tail_id, s.epoch,
	       s.recovered_records ? records : "nothing unwritten",
	       s.was_clean ? "a clean shutdown" : "a crash", (double)s.opening_ns / LC_NS_PER_S,
	       size_text(memory, s.memory_bytes), lc_memory_per_block(s.segment_bytes));
}

void report_opened(const struct served *s)
{
	char size[SIZE_TEXT_BYTES], name[NAME_TEXT_BYTES];

	if (s->ssd)
		report_cache(s);
	for (unsigned i = 0; i < s->nr_volumes; i++) {
		const struct served_volume *v = &s->volumes[i];

		lc_log(LC_LOG_INFO, "serving %s (%s) as %s%s", v->backing->name,
		       size_text(size, v->backing->size_bytes), name_text(name, v->name),
		       s->ssd ? "" : ", without a cache");
	}
}

/* Append to LINE, of which N bytes are used. Returns how many are used then. */
static int append(char *line, int n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int append(char *line, int n, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	n += vsnprintf(line + n, LINE_BYTES - n, fmt, args);
	va_end(args);
	assert(n < (int)LINE_BYTES); /* numbers have 20 digits at most */
	return n;
}

/* Fields are separated by "; " and begin with what they are about, so that a script can cut them. */
static void log_line(struct lc_cache *c, const struct lc_stats *s)
{
	char read[SIZE_TEXT_BYTES], written[SIZE_TEXT_BYTES], zeroed[SIZE_TEXT_BYTES];
	char trimmed[SIZE_TEXT_BYTES], logged[SIZE_TEXT_BYTES], line[LINE_BYTES];
	u64 found = lc_stats_blocks(s, LC_KIND_HIT, LC_KIND_WRITE);
	int n = 0;

	n = append(line, n, "statistics: client reads %" PRIu64 " (%s", s->reads,
		   size_text(read, s->read_bytes));
	if (lc_cache_has_ssd(c))
		n = append(line, n, ", %.1f%% of the blocks cached",
			   percent(found, lc_stats_blocks(s, 0, LC_KIND_WRITE)));
	n = append(line, n, "); client writes %" PRIu64 " (%s", s->writes,
		   size_text(written, s->write_bytes));
	if (lc_cache_has_ssd(c))
		n = append(line, n, ", %.1f%% of the blocks cached",
			   percent(lc_stats_blocks(s, LC_KIND_WRITE | LC_KIND_HIT, 0),
				   lc_stats_blocks(s, LC_KIND_WRITE, 0)));
	n = append(line, n, "); zeros %" PRIu64 " (%s); trims %" PRIu64 " (%s); flushes %" PRIu64,
		   s->zeros, size_text(zeroed, s->zero_bytes), s->trims,
		   size_text(trimmed, s->trim_bytes), s->flushes);
	if (lc_cache_has_ssd(c))
		n = append(line, n,
			   "; log %s in %" PRIu64 " records, %" PRIu64 " segments, %" PRIu64
			   " commits; write-back %" PRIu64 " sweeps, %" PRIu64 " blocks in %" PRIu64
			   " writes, %" PRIu64 " blocks superseded, %" PRIu64 " zeroed; "
			   "dirty %.1f%% of the segments (%" PRIu64 " blocks, %" PRIu64
			   " to be zeroed); filled %.1f%% of the blocks",
			   size_text(logged, s->log_bytes), s->records, s->segments, s->commits,
			   s->sweeps, s->writeback_blocks, s->writeback_ios, s->superseded_blocks,
			   s->zeroed_blocks, percent(s->dirty_segments, s->nr_segments),
			   s->dirty_blocks, s->pending_zero_blocks,
			   percent(s->cached_blocks, s->capacity_blocks));
	if (s->ssd_errors || s->backing_errors || s->crc_errors || s->lost_blocks)
		append(line, n,
		       "; errors: cache %" PRIu64 ", backing store %" PRIu64 ", checksums %" PRIu64
		       ", blocks lost %" PRIu64,
		       s->ssd_errors, s->backing_errors, s->crc_errors, s->lost_blocks);
	lc_log(LC_LOG_INFO, "%s", line);
}

static void log_if_changed(struct report *r)
{
	const struct lc_stats *last = &r->last;
	struct lc_stats now;

	lc_cache_stats(r->cache, &now);
	if (now.reads == last->reads && now.writes == last->writes && now.zeros == last->zeros &&
	    now.trims == last->trims && now.flushes == last->flushes &&
	    now.commits == last->commits && now.sweeps == last->sweeps &&
	    now.ssd_errors == last->ssd_errors && now.backing_errors == last->backing_errors)
		return;
	r->last = now;
	log_line(r->cache, &now);
}

static void report_thread(void *arg)
{
	struct report *r = arg;

	lc_mutex_lock(&r->lock);
	while (!r->stop) {
		u64 next_ns = lc_now_ns() + r->interval_s * LC_NS_PER_S;

		while (!r->stop && lc_now_ns() < next_ns)
			(void)lc_cond_wait(&r->wake, &r->lock, next_ns); /* the loop looks itself */
		if (r->stop)
			break;
		lc_mutex_unlock(&r->lock);
		log_if_changed(r);
		lc_mutex_lock(&r->lock);
	}
	lc_mutex_unlock(&r->lock);
}

int report_start(struct report *r, struct lc_cache *c, u32 interval_s)
{
	int rc;

	memset(r, 0, sizeof *r);
	if (!interval_s)
		return 0;
	r->cache = c;
	r->interval_s = interval_s;
	lc_mutex_init(&r->lock);
	lc_cond_init(&r->wake);
	lc_cache_stats(c, &r->last);
	rc = lc_thread_start(&r->thread, "lc-report", report_thread, r);
	if (rc < 0) {
		lc_cond_destroy(&r->wake);
		lc_mutex_destroy(&r->lock);
		return rc;
	}
	r->running = true;
	return 0;
}

void report_stop(struct report *r)
{
	struct lc_stats now;

	if (!r->running)
		return;
	lc_mutex_lock(&r->lock);
	r->stop = true;
	lc_cond_signal(&r->wake);
	lc_mutex_unlock(&r->lock);
	lc_thread_join(&r->thread);
	lc_cond_destroy(&r->wake);
	lc_mutex_destroy(&r->lock);
	r->running = false;

	lc_cache_stats(r->cache, &now);
	log_line(r->cache, &now);
}
