/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * metrics.c - GET /metrics: the Prometheus text format, version 0.0.4.
 *
 * Names follow its customs: logcache_ in front, base units (seconds, bytes) and _total behind, shares from 0 to
 * 1. docs/control.md lists them. Counters fall to 0 with POST /v1/stats/reset, as after a restart.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "latency.h"
#include "priv.h"

/* A bucket for each doubling from 8 us to 17 s; the engine's are four times as fine. */
#define LE_FIRST_SHIFT 13u
#define LE_LAST_SHIFT 34u

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP logcache_%s %s\n# TYPE logcache_%s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, double value)
{
	head(f, name, type, help);
	fprintf(f, "logcache_%s %.17g\n", name, value);
}

static void counter(FILE *f, const char *name, const char *help, u64 value)
{
	head(f, name, "counter", help);
	fprintf(f, "logcache_%s %" PRIu64 "\n", name, value);
}

static void gauge(FILE *f, const char *name, const char *help, u64 value)
{
	head(f, name, "gauge", help);
	fprintf(f, "logcache_%s %" PRIu64 "\n", name, value);
}

static void labelled(FILE *f, const char *name, const char *label, const char *word, u64 value)
{
	fprintf(f, "logcache_%s{%s=\"%s\"} %" PRIu64 "\n", name, label, word, value);
}

/* The value of a label: backslash, quote and newline are escaped. */
static void put_escaped(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", f);
		else if (*text == '\\' || *text == '"')
			fprintf(f, "\\%c", *text);
		else
			fputc(*text, f);
	}
}

/* --- histograms --- */

/* The series of one histogram; LABEL is empty, or ends with a comma. */
static void histogram(FILE *f, const char *name, const char *label, const struct lc_histogram *h)
{
	int bare = *label ? (int)strlen(label) - 1 : 0; /* without the comma */
	u64 seen = 0;
	u32 i = 0;

	for (u32 shift = LE_FIRST_SHIFT; shift <= LE_LAST_SHIFT; shift++) {
		for (; lc_histogram_bound_ns(i) <= 1ull << shift; i++)
			seen += h->buckets[i];
		fprintf(f, "logcache_%s_bucket{%sle=\"%.10g\"} %" PRIu64 "\n", name, label,
			(double)(1ull << shift) / 1e9, seen);
	}
	fprintf(f, "logcache_%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, label, h->count);
	fprintf(f, "logcache_%s_sum%s%.*s%s %.9f\n", name, *label ? "{" : "", bare, label,
		*label ? "}" : "", h->sum_ns / 1e9);
	fprintf(f, "logcache_%s_count%s%.*s%s %" PRIu64 "\n", name, *label ? "{" : "", bare, label,
		*label ? "}" : "", h->count);
}

static void latencies(FILE *f, struct lc_cache *c)
{
	struct lc_latencies below;
	struct lc_histogram h;
	char label[32];

	head(f, "client_latency_seconds", "histogram", "Time that requests of clients took.");
	for (unsigned kind = 0; kind < NR_LATENCY_KINDS; kind++) {
		latency_read(kind, &h);
		snprintf(label, sizeof label, "op=\"%s\",", latency_name(kind));
		histogram(f, "client_latency_seconds", label, &h);
	}
	lc_cache_latencies(c, &below);
	head(f, "backing_read_latency_seconds", "histogram",
	     "Time that reads of the backing stores for clients took.");
	histogram(f, "backing_read_latency_seconds", "", &below.backing_read);
	head(f, "backing_write_latency_seconds", "histogram",
	     "Time that writes of write-back to the backing stores took.");
	histogram(f, "backing_write_latency_seconds", "", &below.backing_write);
	head(f, "commit_latency_seconds", "histogram", "Time that flushes of the cache device took.");
	histogram(f, "commit_latency_seconds", "", &below.commit);
}

/* --- counters --- */

static void clients(FILE *f, const struct lc_stats *st)
{
	head(f, "client_requests_total", "counter", "Requests of clients.");
	labelled(f, "client_requests_total", "op", "read", st->reads);
	labelled(f, "client_requests_total", "op", "write", st->writes);
	labelled(f, "client_requests_total", "op", "zero", st->zeros);
	labelled(f, "client_requests_total", "op", "trim", st->trims);
	labelled(f, "client_requests_total", "op", "flush", st->flushes);
	head(f, "client_bytes_total", "counter", "Bytes that clients' requests were about.");
	labelled(f, "client_bytes_total", "op", "read", st->read_bytes);
	labelled(f, "client_bytes_total", "op", "write", st->write_bytes);
	labelled(f, "client_bytes_total", "op", "zero", st->zero_bytes);
	labelled(f, "client_bytes_total", "op", "trim", st->trim_bytes);
}

static void blocks(FILE *f, const struct lc_stats *st)
{
	head(f, "client_blocks_total", "counter",
	     "Blocks of 4096 bytes of reads and writes, by where they were found and how much was wanted.");
	for (u32 kind = 0; kind < LC_NR_KINDS; kind++)
		fprintf(f,
			"logcache_client_blocks_total{op=\"%s\",found=\"%s\",in_buffer=\"%s\",part=\"%s\"} "
			"%" PRIu64 "\n",
			kind & LC_KIND_WRITE ? "write" : "read",
			kind & LC_KIND_HIT ? "hit" : "miss", kind & LC_KIND_BUFFER ? "yes" : "no",
			kind & LC_KIND_WHOLE ? "no" : "yes", st->blocks[kind]);
}

static void below(FILE *f, const struct lc_stats *st)
{
	counter(f, "log_records_total", "Records written to the log.", st->records);
	counter(f, "log_segments_total", "Segments begun by the log.", st->segments);
	counter(f, "log_bytes_total", "Bytes written to the cache device by the log.", st->log_bytes);
	counter(f, "commits_total", "Flushes of the cache device.", st->commits);
	counter(f, "writeback_sweeps_total", "Sweeps of write-back.", st->sweeps);
	counter(f, "writeback_rounds_total", "Rounds over a volume, made of sweeps.", st->rounds);
	counter(f, "writeback_bytes_total", "Bytes written back.", st->writeback_blocks * LC_BLOCK);
	counter(f, "writeback_ios_total", "Writes to the backing stores by write-back.",
		st->writeback_ios);
	counter(f, "writeback_superseded_bytes_total",
		"Bytes that write-back need not write, because newer ones replaced them.",
		st->superseded_blocks * LC_BLOCK);
	counter(f, "writeback_zeroed_bytes_total",
		"Bytes zeroed on the backing stores by write-back.", st->zeroed_blocks * LC_BLOCK);
	one(f, "writeback_seconds_total", "counter", "Time spent in sweeps.", st->writeback_ns / 1e9);
	counter(f, "backing_flushes_total", "Flushes of the backing stores.", st->backing_flushes);
	head(f, "store_errors_total", "counter", "I/O that a store failed.");
	labelled(f, "store_errors_total", "store", "cache", st->ssd_errors);
	labelled(f, "store_errors_total", "store", "backing", st->backing_errors);
	counter(f, "crc_errors_total", "Blocks on the cache device whose checksum was wrong.",
		st->crc_errors);
	counter(f, "lost_blocks_total", "Dirty blocks that could not be read back.", st->lost_blocks);
}

/* --- state --- */

static void state(FILE *f, const struct lc_stats *st)
{
	static const char *const states[] = {
		[LC_CACHE_NONE] = "none",
		[LC_CACHE_ATTACHING] = "attaching",
		[LC_CACHE_ATTACHED] = "attached",
		[LC_CACHE_DETACHING] = "detaching",
	};

	head(f, "cache_state", "gauge", "1 for the state that the cache is in.");
	for (unsigned i = 0; i < sizeof states / sizeof *states; i++)
		labelled(f, "cache_state", "state", states[i], i == st->state);
}

static void segments(FILE *f, const struct lc_stats *st)
{
	head(f, "segments", "gauge", "Segments of the cache device.");
	labelled(f, "segments", "state", "free", st->free_segments);
	labelled(f, "segments", "state", "clean", st->clean_segments);
	labelled(f, "segments", "state", "dirty", st->dirty_segments);
	gauge(f, "open_segments", "Of the dirty segments, those that still take records.",
	      st->open_segments);
}

static void cache(FILE *f, const struct lc_stats *st)
{
	gauge(f, "segment_bytes", "Size of a segment; 0 without a cache.", st->segment_bytes);
	gauge(f, "head_segment_id", "The newest segment.", st->head_id);
	gauge(f, "tail_segment_id", "The newest segment that is written back as a whole.",
	      st->tail_id);
	gauge(f, "durable_segment_id", "The newest segment that is durable.", st->durable_id);
	gauge(f, "seq", "The newest record of the log.", st->seq);
	gauge(f, "durable_seq", "The newest record that is durable.", st->durable_seq);
	one(f, "dirty_ratio", "gauge", "Share of the segments that is dirty.",
	    st->nr_segments ? (double)st->dirty_segments / st->nr_segments : 0);
	gauge(f, "capacity_bytes", "What the cache can hold.", st->capacity_blocks * LC_BLOCK);
	gauge(f, "cached_bytes", "What the cache holds.", st->cached_blocks * LC_BLOCK);
	gauge(f, "dirty_bytes", "What the backing stores do not have yet.",
	      st->dirty_blocks * LC_BLOCK);
	gauge(f, "pending_zero_bytes", "What is still to be zeroed on the backing stores.",
	      st->pending_zero_blocks * LC_BLOCK);
	gauge(f, "bad_blocks", "Lost blocks, whose sectors fail to be read.", st->bad_blocks);
	gauge(f, "epoch", "How often this cache was opened.", st->epoch);
	gauge(f, "waiting_writers", "Requests that wait for space in the log.", st->waiting_writers);
	one(f, "pace_delay_seconds", "gauge",
	    "What a writer waits for a block now, because the log is nearly full.",
	    st->pace_delay_ns / 1e9);
	gauge(f, "writeback_rate_bytes",
	      "What write-back did per second lately, while it was at work.",
	      st->writeback_rate_blocks * LC_BLOCK);
	gauge(f, "failing_volumes", "Volumes whose backing stores fail.", st->failing_volumes);
	gauge(f, "log_failed", "1: the cache device has failed, and the log is not durable.",
	      st->log_failed);
	gauge(f, "memory_bytes", "Memory for index, tables and buffers.", st->memory_bytes);
}

static void volume_series(FILE *f, struct control *c, const char *name, const char *type,
			  const char *help, u64 (*value)(const struct lc_volume_stats *st))
{
	head(f, name, type, help);
	for (unsigned i = 0; i < c->config.nr_volumes; i++) {
		struct lc_volume *v = lc_cache_volume(c->config.cache, i);
		struct lc_volume_stats st;

		lc_volume_stats(v, &st);
		fprintf(f, "logcache_%s{volume=\"", name);
		put_escaped(f, lc_volume_name(v));
		fprintf(f, "\"} %" PRIu64 "\n", value(&st));
	}
}

static u64 size_of(const struct lc_volume_stats *st)
{
	return st->size_bytes;
}

static u64 cached_of(const struct lc_volume_stats *st)
{
	return st->cached_blocks * LC_BLOCK;
}

static u64 dirty_of(const struct lc_volume_stats *st)
{
	return st->dirty_blocks * LC_BLOCK;
}

static u64 pending_of(const struct lc_volume_stats *st)
{
	return st->pending_zero_blocks * LC_BLOCK;
}

static u64 errors_of(const struct lc_volume_stats *st)
{
	return st->backing_errors;
}

static u64 failing_of(const struct lc_volume_stats *st)
{
	return st->failing;
}

static void volumes(FILE *f, struct control *c)
{
	volume_series(f, c, "volume_size_bytes", "gauge", "Size of the volume.", size_of);
	volume_series(f, c, "volume_cached_bytes", "gauge", "What the cache holds of the volume.",
		      cached_of);
	volume_series(f, c, "volume_dirty_bytes", "gauge",
		      "What its backing store does not have yet.", dirty_of);
	volume_series(f, c, "volume_pending_zero_bytes", "gauge",
		      "What is still to be zeroed on its backing store.", pending_of);
	volume_series(f, c, "volume_errors_total", "counter", "I/O that its backing store failed.",
		      errors_of);
	volume_series(f, c, "volume_failing", "gauge", "1: its backing store fails.", failing_of);
}

void metrics_get(struct exchange *x)
{
	struct control *c = exchange_control(x);
	struct lc_stats st;
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (f) {
		lc_cache_stats(c->config.cache, &st);
		head(f, "info", "gauge", "Always 1.");
		labelled(f, "info", "version", c->config.version, 1);
		gauge(f, "resident_bytes", "Physical memory of the whole process.", resident_bytes());
		one(f, "start_time_seconds", "gauge", "When the server was started, since 1970.",
		    c->started_s);
		state(f, &st);
		segments(f, &st);
		cache(f, &st);
		volumes(f, c);
		clients(f, &st);
		blocks(f, &st);
		below(f, &st);
		latencies(f, c->config.cache);
		if (fclose(f) != 0) {
			free(text);
			text = NULL;
		}
	}
	exchange_text(x, text, n, "text/plain; version=0.0.4; charset=utf-8");
}
