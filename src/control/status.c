/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * status.c - GET /v1/status and /v1/volumes: all that the server knows of itself, as JSON. docs/control.md explains
 * each field.
 */
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "latency.h"
#include "priv.h"

/* The map has so many cells at most: a line or a few of them on a terminal. */
#define MAP_CELLS_MAX 256u

/* A share; null if there is no whole. */
static json_t *ratio(double part, double whole)
{
	return whole > 0 ? json_real(part / whole) : json_null();
}

u64 resident_bytes(void)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%*u %llu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

/* --- the ring --- */

/* In which cell of NR is segment ID? */
static u32 cell_of(const struct lc_stats *st, u64 id, u32 nr)
{
	return id ? (id - 1) % st->nr_segments * nr / st->nr_segments : 0;
}

static json_t *map(const u8 *cells, u32 nr)
{
	static const char letters[] =
		{[LC_PLACE_FREE] = '.', [LC_PLACE_CLEAN] = '-', [LC_PLACE_DIRTY] = '#', [LC_PLACE_HEAD] = 'H'};
	char text[MAP_CELLS_MAX];

	for (u32 i = 0; i < nr; i++)
		text[i] = letters[cells[i]];
	return json_stringn(text, nr);
}

static json_t *segments(struct control *c, const struct lc_stats *st)
{
	u8 cells[MAP_CELLS_MAX];
	u32 nr = lc_cache_map(c->config.cache, cells, MAP_CELLS_MAX);
	json_t *o = json_object();

	json_object_set_new(o, "total", json_number_of(st->nr_segments));
	json_object_set_new(o, "free", json_number_of(st->free_segments));
	json_object_set_new(o, "clean", json_number_of(st->clean_segments));
	json_object_set_new(o, "dirty", json_number_of(st->dirty_segments));
	json_object_set_new(o, "open", json_number_of(st->open_segments));
	json_object_set_new(o, "head_id", json_number_of(st->head_id));
	json_object_set_new(o, "durable_id", json_number_of(st->durable_id));
	json_object_set_new(o, "tail_id", json_number_of(st->tail_id));
	json_object_set_new(o, "map", map(cells, nr));
	json_object_set_new(o, "map_head", json_number_of(cell_of(st, st->head_id, nr)));
	json_object_set_new(o, "map_tail", json_number_of(cell_of(st, st->tail_id, nr)));
	return o;
}

/* --- the cache --- */

static json_t *cache(struct control *c, const struct lc_stats *st)
{
	char path[PATH_MAX];
	json_t *o;

	if (!st->nr_segments)
		return json_null();
	jobs_cache_path(&c->jobs, path);
	o = json_object();
	json_object_set_new(o, "path", json_text(path));
	json_object_set_new(o, "segment_bytes", json_number_of(st->segment_bytes));
	json_object_set_new(o, "segments", segments(c, st));
	json_object_set_new(o, "dirty_share", ratio(st->dirty_segments, st->nr_segments));
	json_object_set_new(o, "capacity_blocks", json_number_of(st->capacity_blocks));
	json_object_set_new(o, "cached_blocks", json_number_of(st->cached_blocks));
	json_object_set_new(o, "dirty_blocks", json_number_of(st->dirty_blocks));
	json_object_set_new(o, "dirty_bytes", json_number_of(st->dirty_blocks * LC_BLOCK));
	json_object_set_new(o, "pending_zero_blocks", json_number_of(st->pending_zero_blocks));
	json_object_set_new(o, "bad_blocks", json_number_of(st->bad_blocks));
	json_object_set_new(o, "seq", json_number_of(st->seq));
	json_object_set_new(o, "durable_seq", json_number_of(st->durable_seq));
	json_object_set_new(o, "epoch", json_number_of(st->epoch));
	json_object_set_new(o, "was_clean", json_boolean(st->was_clean));
	json_object_set_new(o, "recovered_records", json_number_of(st->recovered_records));
	json_object_set_new(o, "waiting_writers", json_number_of(st->waiting_writers));
	json_object_set_new(o, "pace_delay_ns", json_number_of(st->pace_delay_ns));
	json_object_set_new(o, "log_failed", json_boolean(st->log_failed));
	json_object_set_new(o, "memory_bytes", json_number_of(st->memory_bytes));
	return o;
}

/* --- counters --- */

static json_t *clients(const struct lc_stats *st)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "reads",
			 (json_int_t)st->reads, "read_bytes", (json_int_t)st->read_bytes, "writes",
			 (json_int_t)st->writes, "write_bytes", (json_int_t)st->write_bytes,
			 "zeros", (json_int_t)st->zeros, "zero_bytes", (json_int_t)st->zero_bytes,
			 "trims", (json_int_t)st->trims, "trim_bytes", (json_int_t)st->trim_bytes,
			 "flushes", (json_int_t)st->flushes);
}

static json_t *whole_and_part(const struct lc_stats *st, u32 kind)
{
	return json_pack("{s:I, s:I}", "whole", (json_int_t)st->blocks[kind | LC_KIND_WHOLE],
			 "part", (json_int_t)st->blocks[kind]);
}

static json_t *buffer_and_not(const struct lc_stats *st, u32 kind)
{
	return json_pack("{s:o, s:o}", "buffer", whole_and_part(st, kind | LC_KIND_BUFFER), "other",
			 whole_and_part(st, kind));
}

static json_t *hit_and_miss(const struct lc_stats *st, u32 kind)
{
	return json_pack("{s:o, s:o}", "hit", buffer_and_not(st, kind | LC_KIND_HIT), "miss",
			 buffer_and_not(st, kind));
}

/* The sixteen. */
static json_t *blocks(const struct lc_stats *st)
{
	json_t *o = json_pack("{s:o, s:o}", "read", hit_and_miss(st, 0), "write",
			      hit_and_miss(st, LC_KIND_WRITE));

	json_object_set_new(o, "read_hit_share",
			    ratio(lc_stats_blocks(st, LC_KIND_HIT, LC_KIND_WRITE),
				  lc_stats_blocks(st, 0, LC_KIND_WRITE)));
	json_object_set_new(o, "write_hit_share",
			    ratio(lc_stats_blocks(st, LC_KIND_WRITE | LC_KIND_HIT, 0),
				  lc_stats_blocks(st, LC_KIND_WRITE, 0)));
	return o;
}

static json_t *log_of(const struct lc_stats *st)
{
	json_t *o = json_pack("{s:I, s:I, s:I, s:I}", "records", (json_int_t)st->records,
			      "segments", (json_int_t)st->segments, "bytes",
			      (json_int_t)st->log_bytes, "commits", (json_int_t)st->commits);

	json_object_set_new(o, "write_amplification", ratio(st->log_bytes, st->write_bytes));
	json_object_set_new(o, "flushes_per_commit", ratio(st->flushes, st->commits));
	return o;
}

static json_t *writeback(const struct lc_stats *st)
{
	double bytes = (double)st->writeback_blocks * LC_BLOCK, seconds = st->writeback_ns / 1e9;
	double rate = st->writeback_rate_blocks * (double)LC_BLOCK;
	json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "sweeps",
			      (json_int_t)st->sweeps, "rounds", (json_int_t)st->rounds, "blocks",
			      (json_int_t)st->writeback_blocks, "ios", (json_int_t)st->writeback_ios,
			      "superseded_blocks", (json_int_t)st->superseded_blocks,
			      "zeroed_blocks", (json_int_t)st->zeroed_blocks, "backing_flushes",
			      (json_int_t)st->backing_flushes, "seconds", seconds);

	json_object_set_new(o, "sweep_bytes", ratio(bytes, st->sweeps));
	json_object_set_new(o, "blocks_per_io", ratio(st->writeback_blocks, st->writeback_ios));
	json_object_set_new(o, "bytes_per_second", ratio(bytes, seconds));
	json_object_set_new(o, "bytes_per_second_now",
			    json_number_of(st->writeback_rate_blocks * LC_BLOCK));
	json_object_set_new(o, "clean_in_seconds",
			    st->dirty_blocks ? ratio(st->dirty_blocks * (double)LC_BLOCK, rate) :
					       json_real(0));
	return o;
}

static json_t *errors(const struct lc_stats *st)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "cache", (json_int_t)st->ssd_errors,
			 "backing", (json_int_t)st->backing_errors, "crc",
			 (json_int_t)st->crc_errors, "lost_blocks", (json_int_t)st->lost_blocks,
			 "failing_volumes", (json_int_t)st->failing_volumes);
}

/* --- latencies --- */

/* [[bound, count], ...]: how many took less than the bound, and not less than the one before. */
static json_t *buckets_of(const struct lc_histogram *h)
{
	json_t *all = json_array();

	for (u32 i = 0; i < LC_HISTOGRAM_BUCKETS; i++)
		if (h->buckets[i])
			json_array_append_new(all, json_pack("[I, I]",
							     (json_int_t)lc_histogram_bound_ns(i),
							     (json_int_t)h->buckets[i]));
	return all;
}

static json_t *histogram(const struct lc_histogram *h, bool buckets)
{
	json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "count", (json_int_t)h->count,
			      "sum_ns", (json_int_t)h->sum_ns, "p50_ns",
			      (json_int_t)lc_histogram_quantile_ns(h, 500), "p99_ns",
			      (json_int_t)lc_histogram_quantile_ns(h, 990), "p999_ns",
			      (json_int_t)lc_histogram_quantile_ns(h, 999), "max_ns",
			      (json_int_t)h->max_ns);

	if (buckets)
		json_object_set_new(o, "buckets", buckets_of(h));
	return o;
}

static json_t *latencies(struct control *c, bool buckets)
{
	json_t *o = json_object();
	struct lc_latencies below;
	struct lc_histogram h;

	for (unsigned kind = 0; kind < NR_LATENCY_KINDS; kind++) {
		latency_read(kind, &h);
		json_object_set_new(o, latency_name(kind), histogram(&h, buckets));
	}
	lc_cache_latencies(c->config.cache, &below);
	json_object_set_new(o, "backing_read", histogram(&below.backing_read, buckets));
	json_object_set_new(o, "backing_write", histogram(&below.backing_write, buckets));
	json_object_set_new(o, "commit", histogram(&below.commit, buckets));
	return o;
}

/* --- volumes --- */

static json_t *volume(struct control *c, unsigned i)
{
	struct lc_volume *v = lc_cache_volume(c->config.cache, i);
	struct lc_volume_stats st;

	lc_volume_stats(v, &st);
	return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "name",
			 json_text(lc_volume_name(v)), "backing",
			 json_text(lc_volume_backing_name(v)), "size_bytes",
			 (json_int_t)st.size_bytes, "cached_blocks", (json_int_t)st.cached_blocks,
			 "dirty_blocks", (json_int_t)st.dirty_blocks, "dirty_bytes",
			 (json_int_t)(st.dirty_blocks * LC_BLOCK), "pending_zero_blocks",
			 (json_int_t)st.pending_zero_blocks, "errors",
			 (json_int_t)st.backing_errors, "failing", st.failing);
}

static json_t *volumes(struct control *c)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < c->config.nr_volumes; i++)
		json_array_append_new(all, volume(c, i));
	return all;
}

void volumes_get(struct exchange *x)
{
	exchange_json(x, MHD_HTTP_OK, json_pack("{s:o}", "volumes", volumes(exchange_control(x))));
}

void volume_get(struct exchange *x)
{
	struct control *c = exchange_control(x);

	for (unsigned i = 0; i < c->config.nr_volumes; i++) {
		if (strcmp(lc_volume_name(lc_cache_volume(c->config.cache, i)), exchange_rest(x)) != 0)
			continue;
		exchange_json(x, MHD_HTTP_OK, volume(c, i));
		return;
	}
	exchange_error(x, MHD_HTTP_NOT_FOUND, "there is no volume '%s'", exchange_rest(x));
}

/* --- all of it --- */

static json_t *server(struct control *c)
{
	static const char *const phases[] = {
		[CONTROL_SERVING] = "serving",
		[CONTROL_WAITING] = "waiting",
		[CONTROL_DRAINING] = "draining",
	};

	return json_pack("{s:s, s:I, s:s, s:o, s:f, s:I}", "version", c->config.version, "pid",
			 (json_int_t)getpid(), "phase",
			 phases[__atomic_load_n(&c->phase, __ATOMIC_RELAXED)], "started",
			 json_wall_time(c->started_s), "uptime_seconds",
			 (lc_now_ns() - c->started_ns) / 1e9, "resident_bytes",
			 (json_int_t)resident_bytes());
}

/* ?buckets=1: with the histograms. */
void status_get(struct exchange *x)
{
	static const char *const states[] = {
		[LC_CACHE_NONE] = "none",
		[LC_CACHE_ATTACHING] = "attaching",
		[LC_CACHE_ATTACHED] = "attached",
		[LC_CACHE_DETACHING] = "detaching",
	};
	struct control *c = exchange_control(x);
	const char *wanted = exchange_query(x);
	json_t *o = json_object(), *job;
	struct lc_stats st;

	lc_cache_stats(c->config.cache, &st);
	job = jobs_one(&c->jobs, 0);
	json_object_set_new(o, "server", server(c));
	json_object_set_new(o, "state", json_string(states[st.state]));
	json_object_set_new(o, "cache", cache(c, &st));
	json_object_set_new(o, "volumes", volumes(c));
	json_object_set_new(o, "clients", clients(&st));
	json_object_set_new(o, "blocks", blocks(&st));
	json_object_set_new(o, "log", log_of(&st));
	json_object_set_new(o, "writeback", writeback(&st));
	json_object_set_new(o, "latencies", latencies(c, wanted && strcmp(wanted, "1") == 0));
	json_object_set_new(o, "errors", errors(&st));
	json_object_set_new(o, "settings", settings_values(c));
	json_object_set_new(o, "job", job ? job : json_null());
	exchange_json(x, MHD_HTTP_OK, o);
}
