/* SPDX-License-Identifier: BSD-3-Clause */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cache.h"

/*
 * So many segments ahead of the head may have been written to, and lost, in a crash: a record in flight lies in
 * one of at most so many buffers.
 */
#define IN_FLIGHT_MAX 1024u

struct check {
	struct lc_inspect *in;
	lc_found found;
	lc_progress progress;
	void *arg;
	struct lc_check_result *result;
	struct lc_slot entries[LC_ENTRIES_MAX];
};

static void say(struct check *c, enum lc_finding finding, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(struct check *c, enum lc_finding finding, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	c->result->findings[finding]++;
	c->found(c->arg, finding, text);
}

typedef unsigned long long ull;

/* --- pages --- */

static const char *page_text(u32 page, char text[32])
{
	if (page == LC_PAGE_SUPERBLOCK)
		snprintf(text, 32, "superblock");
	else if (page < LC_PAGE_BAD)
		snprintf(text, 32, "volume table, page %u", page);
	else
		snprintf(text, 32, "list of lost blocks, page %u", page);
	return text;
}

static const char *copy_text(enum lc_copy_state state)
{
	static const char *const texts[] = {
		[LC_COPY_OK] = "good",
		[LC_COPY_BROKEN] = "damaged",
		[LC_COPY_UNKNOWN] = "of another version",
		[LC_COPY_FOREIGN] = "that of another cache",
		[LC_COPY_UNREADABLE] = "unreadable",
	};

	return texts[state];
}

static void check_page(struct check *c, u32 page)
{
	const struct lc_copy *copy = c->in->copies[page];
	char text[32];

	page_text(page, text);
	if (copy[0].state != LC_COPY_OK && copy[1].state != LC_COPY_OK) {
		say(c, LC_FOUND_CORRUPT,
		    "%s: both copies are bad (the first is %s, the second %s): what it said is lost",
		    text, copy_text(copy[0].state), copy_text(copy[1].state));
		return;
	}
	for (u32 i = 0; i < 2; i++)
		if (copy[i].state == LC_COPY_UNREADABLE)
			say(c, LC_FOUND_CORRUPT,
			    "%s: copy %u (block %u) cannot be read: the other one has the same, but the cache "
			    "does not start before this one can be read again",
			    text, i + 1, page * 2 + i);
		else if (copy[i].state != LC_COPY_OK)
			say(c, LC_FOUND_HARMLESS,
			    "%s: copy %u (block %u) is %s; the other one counts, and the next start "
			    "writes this one again",
			    text, i + 1, page * 2 + i, copy_text(copy[i].state));
	if (c->in->differ[page])
		say(c, LC_FOUND_CORRUPT,
		    "%s: its copies differ, though they have the same generation", text);
	else if (copy[0].state == copy[1].state && copy[0].generation != copy[1].generation)
		say(c, LC_FOUND_NOTE,
		    "%s: one copy is older than the other, as after a crash; the next start writes it "
		    "again",
		    text);
}

static void check_volumes(struct check *c)
{
	const struct lc_volume_entry *v = c->in->core.meta.volumes;
	const struct lc_bad *bad = &c->in->core.meta.bad;

	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		for (u32 k = id + 1; k <= LC_VOLUMES_MAX && v[id].id; k++)
			if (v[k].id && !strcmp(v[id].name, v[k].name))
				say(c, LC_FOUND_CORRUPT, "volumes %u and %u have the same name: %s",
				    id, k, lc_volume_shown(v[id].name));
	for (u32 i = 0; i < bad->used; i++) {
		u64 key = bad->entries[i].key;

		if (!key)
			continue;
		if (!v[lc_key_volume(key)].id)
			say(c, LC_FOUND_HARMLESS,
			    "the list of lost blocks has block %llu of volume %u, which the cache does "
			    "not know: a new volume may get its errors; logcachectl repair takes it off",
			    (ull)lc_key_block(key), lc_key_volume(key));
		else
			say(c, LC_FOUND_LOST,
			    "volume %s, block %llu (sectors 0x%02x): lost earlier; it answers with an "
			    "input/output error until it is overwritten",
			    lc_inspect_volume(c->in, lc_key_volume(key)), (ull)lc_key_block(key),
			    lc_key_mask(key));
	}
}

/* --- the log as a whole --- */

/* What must hold between a superblock and a log that can be followed. */
static void check_log(struct check *c)
{
	const struct lc_inspect *in = c->in;
	const struct lc_superblock *sb = &in->core.meta.sb;
	const struct lc_ring *ring = &in->core.ring;
	u64 cut = in->recovery.cut_seq, head = ring->head_id;
	u64 oldest = sb->tail_id - in->recovery.clean_segments;

	if (!sb->clean)
		say(c, LC_FOUND_NOTE,
		    "it was not closed in good order: the log ends at record %llu, in segment %llu",
		    (ull)cut, (ull)head);
	if (sb->clean && cut != sb->durable_seq)
		say(c, LC_FOUND_CORRUPT,
		    "superblock: closed in good order at record %llu, but the log ends at %llu",
		    (ull)sb->durable_seq, (ull)cut);
	if (in->recovery.max_epoch > sb->epoch)
		say(c, LC_FOUND_CORRUPT,
		    "superblock: epoch %llu, but a record is of epoch %llu: the superblock is an old one",
		    (ull)sb->epoch, (ull)in->recovery.max_epoch);
	if (head > sb->tail_id + ring->nr - 2)
		say(c, LC_FOUND_CORRUPT,
		    "segments %llu to %llu are dirty: of %u, two must be in reserve",
		    (ull)sb->tail_id + 1, (ull)head, ring->nr);
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		if (in->core.meta.volumes[id].from_seq > cut + 1)
			say(c, LC_FOUND_CORRUPT,
			    "volume %s begins at record %llu, but the log ends at %llu",
			    lc_inspect_volume(in, id), (ull)in->core.meta.volumes[id].from_seq,
			    (ull)cut);
	/* OLDEST is the first segment that could not be used. */
	if (oldest && oldest + ring->nr > head + IN_FLIGHT_MAX)
		say(c, LC_FOUND_HARMLESS,
		    "segment %llu (place %llu) is damaged: it and the older clean ones are not used, the "
		    "backing stores have what they hold",
		    (ull)oldest, (ull)((oldest - 1) % ring->nr));
}

/* Nothing is wrong with it, but the backing stores alone are old. */
static void tell_dirty(struct check *c)
{
	const struct lc_ring *ring = &c->in->core.ring;

	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		u64 dirty = ring->dirty_of[id] + ring->zeros.blocks_of[id];
		char text[LC_COUNT_BYTES];

		c->result->dirty_blocks += dirty;
		if (dirty)
			say(c, LC_FOUND_NOTE,
			    "volume %s: %s not written back: without the cache its backing store is old",
			    lc_inspect_volume(c->in, id), lc_count_text(text, dirty, "block"));
	}
}

/* --- segments --- */

/* What a copy of a block that cannot be had means. FLAGS: those of its slot, if the log could be followed. */
static void bad_block(struct check *c, u64 id, u32 k, const struct lc_slot *s, const char *how)
{
	const struct lc_inspect *in = c->in;
	u32 block = in->core.ring.zone_blocks + in->loaded * in->core.ring.segment_blocks + k;
	const char *name = lc_inspect_volume(in, lc_key_volume(s->key));
	ull of = lc_key_block(s->key);

	if (in->log_error && id > in->core.meta.sb.tail_id)
		say(c, LC_FOUND_LOST,
		    "segment %llu, block %u: %s: dirty data of volume %s, block %llu (sectors 0x%02x), "
		    "lost unless there is a newer copy",
		    (ull)id, block, how, name, of, lc_key_mask(s->key));
	else if (s->key & LC_SLOT_DIRTY)
		say(c, LC_FOUND_LOST,
		    "segment %llu, block %u: %s: volume %s, block %llu (sectors 0x%02x) is lost, unless it "
		    "was written back already",
		    (ull)id, block, how, name, of, lc_key_mask(s->key));
	else if (s->key & LC_SLOT_LIVE || in->log_error)
		say(c, LC_FOUND_HARMLESS,
		    "segment %llu, block %u: %s: volume %s, block %llu is clean, the backing store has it",
		    (ull)id, block, how, name, of);
	else
		say(c, LC_FOUND_HARMLESS,
		    "segment %llu, block %u: %s: an old copy of volume %s, block %llu, which does not "
		    "count",
		    (ull)id, block, how, name, of);
}

static void check_data(struct check *c, u64 id, u32 k, const struct lc_slot *s)
{
	const u8 *data;

	if (lc_key_type(s->key) != LC_ENTRY_DATA)
		return;
	data = lc_inspect_block(c->in, k);
	c->result->blocks++;
	if (!data)
		bad_block(c, id, k, s, "cannot be read");
	else if (lc_crc32c(data, LC_BLOCK) != s->crc)
		bad_block(c, id, k, s, "wrong checksum");
}

static bool same_entries(const struct lc_slot *a, const struct lc_slot *b, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		if ((a[i].key ^ b[i].key) & ~LC_KEY_FLAGS || a[i].crc != b[i].crc)
			return false;
	return true;
}

/* The header at block K against what the recovery took for its entries, from the header itself or a summary. */
static void check_header(struct check *c, u64 id, u32 k, u64 seq, const struct lc_slot *slots, u32 nr)
{
	struct lc_record_info r;

	c->result->records++;
	if (!lc_inspect_record(c->in, k, &r, c->entries) || r.segment_id != id || r.seq != seq)
		say(c, LC_FOUND_HARMLESS,
		    "segment %llu: the header of record %llu (block %u of it) is damaged; the segment's "
		    "summary has what it said",
		    (ull)id, (ull)seq, k);
	else if (r.nr_entries != nr || !same_entries(c->entries, slots, nr))
		say(c, LC_FOUND_CORRUPT,
		    "segment %llu: the header of record %llu and the summary contradict each other",
		    (ull)id, (ull)seq);
}

/* The summary of a segment whose records and entries are in SLOTS, and fill it up to END. */
static void check_summary(struct check *c, u64 id, u64 first_seq, u64 last_seq,
			  const struct lc_slot *slots, u32 end)
{
	u32 blocks = c->in->core.ring.segment_blocks, at = 0, position = 0;
	struct lc_summary_info s;
	bool same = true;

	if (last_seq == first_seq || end + 3 <= blocks)
		return; /* one record, or closed before it was full: there is none */
	if (!lc_inspect_summary(c->in, id, &s, c->entries) || s.first_seq != first_seq ||
	    s.last_seq != last_seq) {
		/* The last record and the summary are one write: a crash may have torn it. */
		if (id != c->in->core.ring.head_id)
			say(c, LC_FOUND_HARMLESS,
			    "segment %llu: its summary is damaged or missing; the headers say the same",
			    (ull)id);
		return;
	}
	for (u32 i = 0; i < s.nr_records && same; i++) {
		same = position + 1u + s.nr_blocks[i] <= end &&
		       same_entries(&c->entries[at], &slots[position + 1], s.nr_blocks[i]);
		at += s.nr_blocks[i];
		position += 1 + s.nr_blocks[i];
	}
	if (!same)
		say(c, LC_FOUND_CORRUPT,
		    "segment %llu: its summary and its headers contradict each other", (ull)id);
}

/* A segment that the recovery uses: the slot table has what it took for its entries. */
static void check_segment(struct check *c, u32 place)
{
	const struct lc_ring *ring = &c->in->core.ring;
	const struct lc_segment *seg = &ring->segments[place];
	const struct lc_slot *slots = &ring->index.slots[(size_t)place * ring->segment_blocks];
	u64 first_seq = c->in->places[place].seq, seq = first_seq;
	u32 k = 0;

	while (k + 1 < ring->segment_blocks && lc_key_type(slots[k + 1].key) && seq <= seg->last_seq) {
		u32 nr = 0;

		while (k + 1 + nr < ring->segment_blocks && lc_key_type(slots[k + 1 + nr].key))
			nr++;
		check_header(c, seg->id, k, seq, &slots[k + 1], nr);
		for (u32 i = 0; i < nr; i++)
			check_data(c, seg->id, k + 1 + i, &slots[k + 1 + i]);
		k += 1 + nr;
		seq++;
	}
	check_summary(c, seg->id, first_seq, seq - 1, slots, k);
}

/* The log cannot be followed: what there is of this place's records, one by one. */
static void check_alone(struct check *c, u32 place)
{
	struct lc_inspect_place *p = &c->in->places[place];
	struct lc_record_info r;
	u32 k = 0;

	for (u64 seq = p->seq; k + 1 < c->in->core.ring.segment_blocks; seq++) {
		if (!lc_inspect_record(c->in, k, &r, c->entries) || r.segment_id != p->id ||
		    r.seq != seq || lc_inspect_void(c->in, r.epoch, r.seq))
			break;
		c->result->records++;
		for (u32 i = 0; i < r.nr_entries; i++)
			check_data(c, p->id, k + 1 + i, &c->entries[i]);
		k += 1 + r.nr_entries;
	}
}

static void check_segments(struct check *c)
{
	const struct lc_ring *ring = &c->in->core.ring;

	for (u32 i = 0; i < ring->nr; i++) {
		const struct lc_inspect_place *p = &c->in->places[i];
		bool used = c->in->log_error ? p->id && p->state != LC_CONTENT_VOID :
					       ring->segments[i].id;

		if (c->progress)
			c->progress(c->arg, i, ring->nr);
		if (p->state == LC_CONTENT_UNREADABLE)
			say(c, LC_FOUND_HARMLESS,
			    "place %u (block %u): its first header cannot be read%s", i,
			    ring->zone_blocks + i * ring->segment_blocks,
			    c->in->log_error ? "" : "; no segment in use is there");
		if (!used)
			continue;
		lc_inspect_load(c->in, i, true);
		c->result->segments++;
		if (c->in->log_error)
			check_alone(c, i);
		else
			check_segment(c, i);
	}
}

int lc_check(struct lc_inspect *in, lc_found found, lc_progress progress, void *arg,
	     struct lc_check_result *result, struct lc_error *err)
{
	struct check *c = lc_alloc(sizeof *c);
	int ret = 0;

	*result = (struct lc_check_result){0};
	if (!c)
		return lc_fail(err, -ENOMEM, "%s: no memory to check it", in->ssd->name);
	*c = (struct check){.in = in, .found = found, .progress = progress, .arg = arg, .result = result};
	for (u32 page = 0; page < LC_NR_PAGES; page++)
		check_page(c, page);
	if (in->meta_error) {
		say(c, LC_FOUND_CORRUPT, "%s", in->meta_text.text);
	} else {
		ret = lc_inspect_log(in, NULL, NULL, err);
		if (!ret)
			check_volumes(c); /* now: what was overwritten since is off the list */
		if (!ret && in->log_error)
			say(c, LC_FOUND_CORRUPT, "%s", in->log_text.text);
		else if (!ret)
			check_log(c);
		if (!ret && !in->log_error)
			tell_dirty(c);
		if (!ret)
			check_segments(c);
	}
	lc_free(c, sizeof *c);
	return ret;
}
