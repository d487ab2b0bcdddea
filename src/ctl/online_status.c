/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * online_status.c - logcachectl status: one look at a running server. Counters are those since its start, or since the
 * last reset-stats; "top" shows what happens just now.
 */
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "http.h"
#include "online.h"

#define MAP_COLUMNS 64

/* The share that PATH names, or a dash for null. */
static const char *percent_text(char text[TEXT_BYTES], const json_t *o, const char *path)
{
	if (json_is_number(member(o, path)))
		snprintf(text, TEXT_BYTES, "%.1f %%", number_of(o, path) * 100);
	else
		snprintf(text, TEXT_BYTES, "-");
	return text;
}

static void show_server(const json_t *st)
{
	char uptime[TEXT_BYTES], memory[TEXT_BYTES];
	const char *phase = text_of(st, "server.phase");

	printf("server     logcache %s, process %.0f, up %s, %s of RAM\n",
	       text_of(st, "server.version"), number_of(st, "server.pid"),
	       duration_text(uptime, number_of(st, "server.uptime_seconds")),
	       bytes_text(memory, number_of(st, "server.resident_bytes")));
	if (strcmp(phase, "waiting") == 0)
		printf("ENDING     it was asked to end, and waits for its clients to disconnect\n");
	if (strcmp(phase, "draining") == 0)
		printf("ENDING     it writes everything back before\n");
}

static void show_map(const json_t *st)
{
	const char *map = text_of(st, "cache.segments.map");
	size_t n = strlen(map);

	printf("ring       head %.0f, durable %.0f, tail %.0f   (H head, # dirty, - clean, . free)\n",
	       number_of(st, "cache.segments.head_id"), number_of(st, "cache.segments.durable_id"),
	       number_of(st, "cache.segments.tail_id"));
	for (size_t i = 0; i < n; i += MAP_COLUMNS)
		printf("           %.*s\n", MAP_COLUMNS, map + i);
}

static void show_cache(const json_t *st)
{
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];
	double capacity = number_of(st, "cache.capacity_blocks");

	if (json_is_null(member(st, "cache"))) {
		printf("cache      %s\n",
		       strcmp(text_of(st, "state"), "none") == 0 ?
			       "none: volumes are served from their backing stores" :
			       text_of(st, "state"));
		return;
	}
	printf("cache      %s, %s\n", text_of(st, "cache.path"), text_of(st, "state"));
	printf("epoch      %.0f, begun after a %s", number_of(st, "cache.epoch"),
	       json_is_true(member(st, "cache.was_clean")) ? "clean shutdown" : "crash");
	if (number_of(st, "cache.recovered_records") > 0)
		printf(" with %.0f unwritten records", number_of(st, "cache.recovered_records"));
	printf("\nsegments   %.0f of %s: %.0f dirty (%.0f open), %.0f clean, %.0f free\n",
	       number_of(st, "cache.segments.total"),
	       bytes_text(a, number_of(st, "cache.segment_bytes")),
	       number_of(st, "cache.segments.dirty"), number_of(st, "cache.segments.open"),
	       number_of(st, "cache.segments.clean"), number_of(st, "cache.segments.free"));
	printf("dirty      %s of the segments, %s", percent_text(a, st, "cache.dirty_share"),
	       bytes_text(b, number_of(st, "cache.dirty_bytes")));
	if (json_is_number(member(st, "writeback.clean_in_seconds")) &&
	    number_of(st, "cache.dirty_bytes") > 0)
		printf("; clean in %s at the usual rate",
		       duration_text(c, number_of(st, "writeback.clean_in_seconds")));
	if (number_of(st, "cache.pending_zero_blocks") > 0)
		printf("; %s to be zeroed",
		       bytes_text(a, number_of(st, "cache.pending_zero_blocks") * LC_BLOCK));
	printf("\nfilled     %.1f %% of %s; index and buffers take %s of RAM\n",
	       capacity > 0 ? number_of(st, "cache.cached_blocks") / capacity * 100 : 0,
	       bytes_text(a, capacity * LC_BLOCK),
	       bytes_text(b, number_of(st, "cache.memory_bytes")));
	show_map(st);
	printf("hits       reads %s, writes %s (of blocks)\n",
	       percent_text(a, st, "blocks.read_hit_share"),
	       percent_text(b, st, "blocks.write_hit_share"));
	printf("log        record %.0f, durable %.0f; %s in %.0f records",
	       number_of(st, "cache.seq"), number_of(st, "cache.durable_seq"),
	       bytes_text(a, number_of(st, "log.bytes")), number_of(st, "log.records"));
	if (json_is_number(member(st, "log.write_amplification")))
		printf(", %.2f times the writes", number_of(st, "log.write_amplification"));
	printf("\nflushes    %.0f of clients, %.0f of the cache device",
	       number_of(st, "clients.flushes"), number_of(st, "log.commits"));
	if (json_is_number(member(st, "log.flushes_per_commit")))
		printf(" (%.1f for each)", number_of(st, "log.flushes_per_commit"));
	printf("\n");
	printf("write-back %s/s in %.0f sweeps of %s; %.1f blocks a write\n",
	       bytes_text(a, number_of(st, "writeback.bytes_per_second")),
	       number_of(st, "writeback.sweeps"),
	       bytes_text(b, number_of(st, "writeback.sweep_bytes")),
	       number_of(st, "writeback.blocks_per_io"));
}

static void show_latency(const json_t *st, const char *name, const char *title, double bytes)
{
	const json_t *h = json_object_get(json_object_get(st, "latencies"), name);
	char count[TEXT_BYTES], size[TEXT_BYTES] = "", t[4][TEXT_BYTES];

	if (number_of(h, "count") == 0)
		return;
	if (bytes >= 0)
		bytes_text(size, bytes);
	printf("  %-14s %8s %11s %9s %9s %9s %9s\n", title,
	       amount_text(count, number_of(h, "count")), size,
	       latency_text(t[0], number_of(h, "p50_ns")), latency_text(t[1], number_of(h, "p99_ns")),
	       latency_text(t[2], number_of(h, "p999_ns")),
	       latency_text(t[3], number_of(h, "max_ns")));
}

static void show_requests(const json_t *st)
{
	printf("\n  %-14s %8s %11s %9s %9s %9s %9s\n", "", "number", "bytes", "p50", "p99", "p99.9",
	       "max");
	show_latency(st, "read", "read", number_of(st, "clients.read_bytes"));
	show_latency(st, "write", "write", number_of(st, "clients.write_bytes"));
	show_latency(st, "zero", "zero", number_of(st, "clients.zero_bytes"));
	show_latency(st, "trim", "trim", number_of(st, "clients.trim_bytes"));
	show_latency(st, "flush", "flush", -1);
	show_latency(st, "backing_read", "backing read", -1);
	show_latency(st, "backing_write", "backing write", -1);
	show_latency(st, "commit", "cache flush", -1);
}

static void show_volumes(const json_t *st)
{
	const json_t *v;
	size_t i;

	printf("\n  %-20s %10s %10s %10s  %s\n", "volume", "size", "cached", "dirty",
	       "backing store");
	json_array_foreach(json_object_get(st, "volumes"), i, v)
	{
		const char *name = text_of(v, "name");
		char size[TEXT_BYTES], cached[TEXT_BYTES], dirty[TEXT_BYTES];

		printf("  %-20s %10s %10s %10s  %s%s\n", *name ? name : "(default)",
		       bytes_text(size, number_of(v, "size_bytes")),
		       bytes_text(cached, number_of(v, "cached_blocks") * LC_BLOCK),
		       bytes_text(dirty, number_of(v, "dirty_bytes")), text_of(v, "backing"),
		       json_is_true(json_object_get(v, "failing")) ? " FAILING" : "");
	}
}

static void show_trouble(const json_t *st)
{
	const json_t *e = json_object_get(st, "errors");
	char text[TEXT_BYTES];

	if (number_of(e, "cache") + number_of(e, "backing") + number_of(e, "crc") +
		    number_of(e, "lost_blocks") + number_of(st, "cache.bad_blocks") >
	    0)
		printf("\nERRORS     cache %.0f, backing stores %.0f, checksums %.0f, blocks lost %.0f; "
		       "%.0f blocks cannot be read\n",
		       number_of(e, "cache"), number_of(e, "backing"), number_of(e, "crc"),
		       number_of(e, "lost_blocks"), number_of(st, "cache.bad_blocks"));
	if (json_is_true(member(st, "cache.log_failed")))
		printf("\nERROR      the cache device fails: nothing is durable until it works again\n");
	if (number_of(st, "cache.pace_delay_ns") > 0)
		printf("\nslowed     a block written waits %s: the log is nearly full\n",
		       latency_text(text, number_of(st, "cache.pace_delay_ns")));
	if (number_of(st, "cache.waiting_writers") > 0)
		printf("\nwaiting    %.0f writers wait for space in the log\n",
		       number_of(st, "cache.waiting_writers"));
}

static void show_job(const json_t *st)
{
	const json_t *job = json_object_get(st, "job");
	char left[TEXT_BYTES], total[TEXT_BYTES], lost[LC_COUNT_BYTES];

	if (!json_is_object(job))
		return;
	printf("\njob %-6.0f %s %s", number_of(job, "id"), text_of(job, "kind"),
	       text_of(job, "state"));
	if (json_object_get(job, "blocks_left") && strcmp(text_of(job, "state"), "running") == 0)
		printf(", %s of %s left", bytes_text(left, number_of(job, "blocks_left") * LC_BLOCK),
		       bytes_text(total, number_of(job, "blocks") * LC_BLOCK));
	if (json_object_get(job, "error"))
		printf(": %s", text_of(job, "error"));
	else if (number_of(job, "bad_blocks") > 0)
		printf(", but for %s",
		       lc_count_text(lost, number_of(job, "bad_blocks"), "lost block"));
	printf("\n");
}

int command_status(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);
	bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
	json_t *st;

	if (!socket)
		return CTL_USAGE;
	if (argc > 1 + json)
		return misused("status: '%s' is too much", argv[1 + json]);
	if (!http_ask(socket, "GET", "/v1/status", NULL, &st))
		return CTL_FAILED;
	if (json) {
		json_dumpf(st, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		printf("\n");
	} else {
		show_server(st);
		show_cache(st);
		show_requests(st);
		show_volumes(st);
		show_trouble(st);
		show_job(st);
	}
	json_decref(st);
	return CTL_OK;
}
