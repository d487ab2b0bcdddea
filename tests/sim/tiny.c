/* SPDX-License-Identifier: BSD-3-Clause */
/* tiny.c - a tiny cache with an exact model; tiny.h says what that is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiny.h"

#define WORDS (LC_SECTOR / 8)
#define SSD_MAX_BYTES (2u << 20)

const struct tiny_shape tiny_shapes[] = {
	/* One block a segment; two segments may be dirty: the head waits for the tail at once. */
	{"fresh", 8u << 10, 4, 2, 100, "", false},
	/* Written back as soon as it is durable; old clean segments all around. */
	{"lapped", 8u << 10, 6, 3, 0, "2010101f01d", false},
	/* Several records a segment, a summary; the past is dirty. */
	{"records", 32u << 10, 4, 2, 100, "2f0d0f1f0f1f0", true},
	/*
	 * Half overwritten old segments: the next record lies over one that holds two versions of block 2, and has no
	 * summary that would say so.
	 */
	{"patched", 32u << 10, 5, 2, 0, "2f2d0d1d0d1d", false},
	/* A pending range, a block inside it that is newer, and an old range behind the tail. */
	{"pending", 16u << 10, 5, 2, 100, "bzd2btf1f", false},
};
const u32 tiny_nr_shapes = sizeof(tiny_shapes) / sizeof(tiny_shapes[0]);

void tiny_create(struct tiny *t)
{
	memset(t, 0, sizeof(*t));
	store_sim_create(&t->ssd, SSD_MAX_BYTES);
	store_sim_create(&t->backing, TINY_VOLUME_BLOCKS * LC_BLOCK);
	if (posix_memalign((void **)&t->buf, LC_BLOCK, TINY_BLOCKS * LC_BLOCK))
		abort();
}

/* --- content --- */

static void fill(u8 *buf, u32 sector, u32 version)
{
	u64 w = ((u64)version << 32 | sector) * 0x9e3779b97f4a7c15ull;
	u32 i;

	for (i = 0; i < WORDS; i++)
		memcpy(buf + i * 8, &w, 8);
}

/* Which of the versions that SECTOR ever had is this? */
static u32 parse(const struct tiny *t, const u8 *buf, u32 sector, const char *where)
{
	static const u8 zeros[LC_SECTOR];
	u8 expect[LC_SECTOR];
	u32 v;

	if (!memcmp(buf, zeros, LC_SECTOR))
		return 0;
	for (v = 1; v <= t->nr_past + t->nr_submitted; v++) {
		fill(expect, sector, v);
		if (!memcmp(buf, expect, LC_SECTOR))
			return v;
	}
	sim_fail("%s: sector %u (block %u.%u) holds nothing that was ever written there", where,
		 sector, sector / 8, sector % 8);
}

/* The version of SECTOR after the first K writes of the workload. */
static u32 after(const struct tiny *t, u32 sector, u32 k)
{
	while (k > 0) {
		const struct tiny_write *w = &t->writes[--k];

		if (sector >= w->first && sector < w->first + w->nr)
			return w->zero ? 0 : t->nr_past + k + 1;
	}
	return t->before[sector];
}

static bool is_prefix(const struct tiny *t, const u32 *found, u32 k)
{
	u32 x;

	for (x = 0; x < TINY_SECTORS; x++)
		if (found[x] != after(t, x, k) &&
		    (k == t->nr_submitted || found[x] != after(t, x, k + 1)))
			return false;
	return true;
}

static void say(const struct tiny *t, const u32 *found, char *text, size_t n)
{
	size_t at = 0;
	u32 x;

	(void)t;
	for (x = 0; x < TINY_SECTORS && at < n; x++)
		at += (size_t)snprintf(text + at, n - at, "%s%u",
				       x % 8 ? " " :
				       x     ? " | " :
					       "",
				       found[x]);
}

/* After a crash. */
static void judge(struct tiny *t, const u8 *buf)
{
	u32 found[TINY_SECTORS], x, k;
	char text[512], had[512];

	for (x = 0; x < TINY_SECTORS; x++)
		found[x] = parse(t, buf + x * LC_SECTOR, x, "after recovery");
	say(t, found, text, sizeof(text));
	sim_trace("recovered versions: %s", text);
	if (t->is_settled) {
		say(t, t->settled, had, sizeof(had));
		if (memcmp(found, t->settled, sizeof(found)))
			sim_fail("what recovery showed once has changed (I5): versions by sector\n"
				 "  then %s\n  now  %s",
				 had, text);
		return;
	}
	for (k = t->nr_durable; k <= t->nr_submitted && !is_prefix(t, found, k); k++)
		;
	if (k > t->nr_submitted)
		sim_fail("not a prefix of the writes, or too short (I2, I9): versions by sector %s; "
			 "writes are versions %u to %u, of which at least %u are durable",
			 text, t->nr_past + 1, t->nr_past + t->nr_submitted, t->nr_durable);
	memcpy(t->settled, found, sizeof(found));
	t->is_settled = true;
}

/* --- lives --- */

static void open_and_start(struct tiny *t)
{
	struct lc_volume_spec spec = {.name = "", .backing = &t->backing.store};
	struct lc_error err = {.text = ""};
	struct lc_settings s;
	int r;

	lc_settings_init(&s);
	s.nr_buffers = t->shape->nr_buffers;
	s.dirty_low_percent = t->shape->dirty_low_percent;
	s.idle_ms = 0;
	s.flush_interval_ms = 0;
	s.retry_ms = 1;
	r = lc_cache_open(&t->ssd.store, &spec, 1, &s, &t->cache, &err);
	if (r)
		sim_fail("lc_cache_open: %d, %s", r, err.text);
	r = lc_cache_start(t->cache, &err);
	if (r)
		sim_fail("lc_cache_start: %d, %s", r, err.text);
}

static void expect(int r, const char *what)
{
	if (r)
		sim_fail("%s: %d, but no store failed", what, r);
}

static void read_all(struct tiny *t)
{
	memset(t->buf, 0xa5, TINY_BLOCKS * LC_BLOCK);
	expect(lc_read(lc_cache_volume(t->cache, 0), t->buf, TINY_BLOCKS * LC_BLOCK, 0), "lc_read");
}

static void check_all(struct tiny *t, const u8 *buf, const char *where)
{
	u32 x, v, want;

	for (x = 0; x < TINY_SECTORS; x++) {
		v = parse(t, buf + x * LC_SECTOR, x, where);
		want = t->is_settled ? t->settled[x] : after(t, x, t->nr_submitted);
		if (v != want)
			sim_fail("%s: sector %u (block %u.%u) holds version %u instead of %u",
				 where, x, x / 8, x % 8, v, want);
	}
}

static void do_write(struct tiny *t, u32 first, u32 nr, bool fua)
{
	u32 k = t->nr_submitted++, x;

	assert(k < TINY_WRITES_MAX);
	t->writes[k] = (struct tiny_write){first, nr, false};
	for (x = 0; x < nr; x++)
		fill(t->buf + x * LC_SECTOR, first + x, t->nr_past + k + 1);
	expect(lc_write(lc_cache_volume(t->cache, 0), t->buf, nr * LC_SECTOR,
			(u64)first * LC_SECTOR, fua ? LC_FUA : 0),
	       "lc_write");
	if (fua)
		t->nr_durable = t->nr_submitted;
}

/* All but the last block: an entry of the log. */
static void do_zero(struct tiny *t, bool fua)
{
	u32 k = t->nr_submitted++;

	assert(k < TINY_WRITES_MAX);
	t->writes[k] = (struct tiny_write){0, TINY_SECTORS, true};
	expect(lc_zero(lc_cache_volume(t->cache, 0), (TINY_VOLUME_BLOCKS - 1) * LC_BLOCK, 0,
		       fua ? LC_FUA : 0),
	       "lc_zero");
	if (fua)
		t->nr_durable = t->nr_submitted;
}

static void do_trim(struct tiny *t)
{
	u32 k = t->nr_submitted++;

	assert(k < TINY_WRITES_MAX);
	t->writes[k] = (struct tiny_write){0, 2 * LC_SECTORS_PER_BLOCK, true};
	expect(lc_trim(lc_cache_volume(t->cache, 0), 2 * LC_BLOCK, 0, 0), "lc_trim");
}

const char *tiny_letter_text(char letter)
{
	switch (letter) {
	case '0':
		return "write block 0";
	case '1':
		return "write block 1";
	case '2':
		return "write block 2";
	case 'b':
		return "write blocks 0 and 1";
	case 's':
		return "write one sector of block 0";
	case ')':
		return "write block 0 with FUA";
	case '!':
		return "write block 1 with FUA";
	case 'B':
		return "write blocks 0 and 1 with FUA";
	case 'S':
		return "write one sector of block 0 with FUA";
	case 'z':
		return "zero blocks 0 to 16";
	case 'Z':
		return "zero blocks 0 to 16 with FUA";
	case 't':
		return "trim blocks 0 and 1";
	case 'f':
		return "flush";
	case 'r':
		return "read everything";
	case 'd':
		return "drain";
	case 'c':
		return "close, open again";
	default:
		return "(no such operation)";
	}
}

static void do_letter(struct tiny *t, char letter)
{
	bool fua = strchr(")!BS", letter);

	sim_trace("%s", tiny_letter_text(letter));
	switch (letter) {
	case '0':
	case ')':
		do_write(t, 0, 8, fua);
		break;
	case '1':
	case '!':
		do_write(t, 8, 8, fua);
		break;
	case '2':
		do_write(t, 16, 8, fua);
		break;
	case 'b':
	case 'B':
		do_write(t, 0, 16, fua);
		break;
	case 's':
	case 'S':
		do_write(t, (t->nr_submitted * 3 + 1) % 8, 1, fua);
		break;
	case 'z':
	case 'Z':
		do_zero(t, letter == 'Z');
		break;
	case 't':
		do_trim(t);
		break;
	case 'f':
		expect(lc_flush(lc_cache_volume(t->cache, 0)), "lc_flush");
		t->nr_durable = t->nr_submitted;
		break;
	case 'r':
		read_all(t);
		check_all(t, t->buf, "read");
		break;
	case 'd':
		expect(lc_cache_drain(t->cache), "lc_cache_drain");
		t->nr_durable = t->nr_submitted;
		check_all(t, t->backing.media, "on the backing store after a drain");
		break;
	case 'c':
		expect(lc_cache_close(t->cache), "lc_cache_close");
		t->nr_durable = t->nr_submitted;
		open_and_start(t);
		break;
	}
	t->done++;
	sim_trace("done");
}

void tiny_work(void *tiny)
{
	struct tiny *t = tiny;
	const char *p;

	t->working = !*t->ops; /* the opening matters where nothing follows */
	open_and_start(t);
	t->working = true;
	for (p = t->ops; *p; p++)
		do_letter(t, *p);
	read_all(t);
	check_all(t, t->buf, "read before the close");
	expect(lc_cache_close(t->cache), "lc_cache_close");
	t->nr_durable = t->nr_submitted;
}

void tiny_recover(void *tiny)
{
	struct tiny *t = tiny;

	open_and_start(t);
	read_all(t);
	judge(t, t->buf);
	expect(lc_cache_drain(t->cache), "lc_cache_drain");
	check_all(t, t->backing.media, "on the backing store after recovery and drain");
	read_all(t);
	check_all(t, t->buf, "read after the drain");
	expect(lc_cache_close(t->cache), "lc_cache_close");
}

static void past_main(void *tiny)
{
	struct tiny *t = tiny;
	struct lc_format_options o = {.segment_bytes = t->shape->segment_bytes};
	struct lc_error err = {.text = ""};

	if (lc_cache_format(&t->ssd.store, &o, &err))
		sim_fail("lc_cache_format: %s", err.text);
	if (*t->ops)
		tiny_work(t);
}

void tiny_reset(struct tiny *t)
{
	t->nr_submitted = t->nr_durable = t->done = 0;
	t->is_settled = t->working = false;
}

void tiny_begin(struct tiny *t, const struct tiny_shape *shape)
{
	u64 size = lc_cache_min_bytes(shape->segment_bytes) +
		   (u64)(shape->nr_segments - LC_SEGMENTS_MIN) * shape->segment_bytes;
	u32 x;

	t->shape = shape;
	store_sim_reset(&t->ssd, "ssd", size, LC_BLOCK, false);
	store_sim_reset(&t->backing, "backing", TINY_VOLUME_BLOCKS * LC_BLOCK, LC_SECTOR, true);
	store_sim_enable(&t->backing);
	t->backing.zero_works = t->backing.punch_works = !shape->zero_fails;
	tiny_reset(t);
	memset(t->before, 0, sizeof(t->before));
	t->nr_past = 0;
	t->ops = shape->past;
	if (sim_life("past", past_main, t) != SIM_RETURNED)
		sim_fail("the past of shape %s does not end", shape->name);
	sim_life_end();
	store_sim_settle(&t->ssd);
	store_sim_settle(&t->backing);
	for (x = 0; x < TINY_SECTORS; x++)
		t->before[x] = after(t, x, t->nr_submitted);
	t->nr_past = t->nr_submitted;
	tiny_reset(t);
}
