/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dump.h - what logcachectl dump shows, in two forms: for people (dump_text.c) and as JSON (dump_json.c).
 *
 * dump.c walks over what there is and calls one of the two; both get the same. What there is to be said
 * of the cache as a whole they take from the inspection themselves.
 */
#ifndef LC_CTL_DUMP_H
#define LC_CTL_DUMP_H

#include "inspect.h"

/* What is known of one place that has a valid first header. */
struct dump_segment {
	const struct lc_inspect_place *place;
	u32 number; /* of the place */
	u64 last_seq;
	u32 records, entries, zeros; /* ZEROS: of the entries, those that zero or trim */
	u32 blocks;		     /* in use by records */
	bool summary;		     /* it has one, and that fits */
};

struct dump_form {
	void (*cache)(const struct lc_inspect *in);
	/* Only with --segments and --records; SEGMENTS brackets them all. */
	void (*segments)(const struct lc_inspect *in, bool begin);
	void (*segment)(const struct lc_inspect *in, const struct dump_segment *s, bool begin);
	/* Only with --records, inside its segment. */
	void (*record)(const struct lc_inspect *in, const struct lc_record_info *r,
		       const struct lc_slot *entries);
	void (*end)(const struct lc_inspect *in);
};

extern const struct dump_form dump_text, dump_json;

const char *dump_copy_state(enum lc_copy_state state);
const char *dump_content(enum lc_content state);
const char *dump_entry_type(u64 key);
const char *dump_uuid(char text[40], const u8 uuid[LC_UUID_BYTES]);
/* Which copy of a page counts: 0 or 1; -1: none. */
int dump_counts(const struct lc_inspect *in, u32 page);

#endif
