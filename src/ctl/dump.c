/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dump.c - logcachectl dump: show what is on a cache, as far as it can be read.
 */
#include "dump.h"

#include <getopt.h>
#include <stdio.h>

#include "ctl.h"
#include "readonly.h"

/* --- words for both forms --- */

const char *dump_copy_state(enum lc_copy_state state)
{
	static const char *const texts[] = {
		[LC_COPY_OK] = "good",
		[LC_COPY_BROKEN] = "damaged",
		[LC_COPY_UNKNOWN] = "unknown version",
		[LC_COPY_FOREIGN] = "of another cache",
		[LC_COPY_UNREADABLE] = "unreadable",
	};

	return texts[state];
}

const char *dump_content(enum lc_content state)
{
	static const char *const texts[] = {
		[LC_CONTENT_EMPTY] = "empty",	    [LC_CONTENT_UNREADABLE] = "unreadable",
		[LC_CONTENT_DIRTY] = "dirty",	    [LC_CONTENT_CLEAN] = "clean",
		[LC_CONTENT_OLD] = "old",	    [LC_CONTENT_VOID] = "void",
		[LC_CONTENT_BEYOND] = "beyond end",
	};

	return texts[state];
}

const char *dump_entry_type(u64 key)
{
	switch (lc_key_type(key)) {
	case LC_ENTRY_DATA:
		return "data";
	case LC_ENTRY_ZERO:
		return "zero";
	case LC_ENTRY_TRIM:
		return "trim";
	default:
		return "unknown";
	}
}

const char *dump_uuid(char text[40], const u8 uuid[LC_UUID_BYTES])
{
	char *p = text;

	for (unsigned i = 0; i < LC_UUID_BYTES; i++)
		p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	return text;
}

int dump_counts(const struct lc_inspect *in, u32 page)
{
	const struct lc_copy *c = in->copies[page];

	if (c[1].state == LC_COPY_OK &&
	    (c[0].state != LC_COPY_OK || c[1].generation > c[0].generation))
		return 1;
	return c[0].state == LC_COPY_OK ? 0 : -1;
}

/* --- the walk --- */

struct walk {
	struct lc_inspect *in;
	const struct dump_form *form;
	bool records;
	struct lc_slot entries[LC_ENTRIES_MAX];
};

/*
 * The records of a place, one after the other: counted into S, or shown. The slot table does not serve: it has
 * only what counts.
 */
static void walk_records(struct walk *w, struct dump_segment *s, bool show)
{
	struct lc_record_info r;
	u32 k = 0;

	for (u64 seq = s->place->seq; k + 1 < w->in->core.ring.segment_blocks; seq++) {
		if (!lc_inspect_record(w->in, k, &r, w->entries) || r.segment_id != s->place->id ||
		    r.seq != seq)
			break;
		k += 1 + r.nr_entries;
		if (show) {
			w->form->record(w->in, &r, w->entries);
			continue;
		}
		s->records++;
		s->last_seq = seq;
		s->entries += r.nr_entries;
		for (u32 i = 0; i < r.nr_entries; i++)
			s->zeros += lc_key_zeroes(w->entries[i].key);
		s->blocks = k;
	}
}

static void walk_place(struct walk *w, u32 i)
{
	static struct lc_summary_info summary; /* large */
	struct dump_segment s = {.place = &w->in->places[i], .number = i};

	if (s.place->state == LC_CONTENT_EMPTY)
		return;
	lc_inspect_load(w->in, i, false);
	if (s.place->id) {
		walk_records(w, &s, false);
		s.summary = lc_inspect_summary(w->in, s.place->id, &summary, w->entries) &&
			    summary.first_seq == s.place->seq;
	}
	w->form->segment(w->in, &s, true);
	if (w->records && s.place->id)
		walk_records(w, &s, true);
	w->form->segment(w->in, &s, false);
}

/* In the order of ids, which is that of places, beginning behind the newest. */
static void walk_places(struct walk *w)
{
	u32 nr = w->in->core.ring.nr, newest = 0;

	for (u32 i = 0; i < nr; i++)
		if (w->in->places[i].id > w->in->places[newest].id)
			newest = i;
	w->form->segments(w->in, true);
	for (u32 i = 1; i <= nr; i++)
		walk_place(w, (newest + i) % nr);
	w->form->segments(w->in, false);
}

static int dump(struct lc_store *ssd, const struct dump_form *form, bool segments, bool records,
		struct lc_error *err)
{
	static struct walk w; /* large */
	struct lc_inspect *in;
	int rc = lc_inspect_open(ssd, &in, err);

	if (rc)
		return rc;
	if (!in->meta_error)
		rc = lc_inspect_log(in, NULL, NULL, err);
	if (!rc) {
		w = (struct walk){.in = in, .form = form, .records = records};
		form->cache(in);
		if (segments && !in->meta_error)
			walk_places(&w);
		form->end(in);
		if (in->meta_error)
			rc = lc_fail(err, in->meta_error, "%s", in->meta_text.text);
		else if (in->log_error)
			rc = lc_fail(err, in->log_error, "%s", in->log_text.text);
		else if (in->nr_lost)
			rc = lc_fail(err, -EUCLEAN,
				     "%s: metadata pages are damaged: see logcachectl check",
				     ssd->name);
	}
	lc_inspect_close(in);
	return rc;
}

int command_dump(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"segments", no_argument, NULL, 's'},
		{"records", no_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	bool segments = false, records = false, json = false;
	struct lc_error err = {""};
	struct lc_store *ssd;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'j')
			json = true;
		else if (c == 's')
			segments = true;
		else if (c == 'r')
			segments = records = true;
		else
			return misused_option("dump", argv);
	}
	if (argc - optind != 1)
		return misused("dump: give one CACHE");
	if (readonly_open(argv[optind], &ssd, &err))
		return fail("%s", err.text);
	rc = dump(ssd, json ? &dump_json : &dump_text, segments, records, &err);
	lc_store_close(ssd);
	return rc ? fail("%s", err.text) : CTL_OK;
}
