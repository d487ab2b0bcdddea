/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_find.c - which records are there above the tail, whether or not anything leads to them.
 */
#include "repair_priv.h"

#include <assert.h>
#include <string.h>

static int add(struct repair *r, struct found f)
{
	if (r->nr == r->max) {
		size_t max = r->max ? r->max * 2 : 1024;
		struct found *found = lc_alloc(max * sizeof *found);

		if (!found)
			return repair_no_memory(r);
		if (r->nr)
			memcpy(found, r->found, r->nr * sizeof *found);
		lc_free(r->found, r->max * sizeof *found);
		r->found = found;
		r->max = max;
	}
	r->found[r->nr++] = f;
	return 0;
}

/* Are all records that were found in the place, from FROM on, in its summary? */
static bool summary_fits(const struct repair *r, size_t from)
{
	const struct lc_summary_info *s = &r->summary;
	u32 position = 0, i = 0;

	for (size_t k = from; k < r->nr; k++) {
		const struct found *f = &r->found[k];

		while (i < s->nr_records && position < f->position)
			position += 1u + s->nr_blocks[i++];
		if (i == s->nr_records || position != f->position || s->first_seq + i != f->seq ||
		    f->end != position + 1u + s->nr_blocks[i] || s->epoch < f->epoch)
			return false;
	}
	return true;
}

/* Let the summary speak for the records whose headers were not found. */
static int add_from_summary(struct repair *r, u64 id, size_t from)
{
	const struct lc_summary_info *s = &r->summary;
	size_t had = r->nr - from;
	struct found old[LC_SUMMARY_RECORDS_MAX];
	u32 position = 0;
	size_t k = 0;
	int err = 0;

	assert(had <= LC_SUMMARY_RECORDS_MAX); /* it fits */
	memcpy(old, r->found + from, had * sizeof *old);
	r->nr = from;
	for (u32 i = 0; i < s->nr_records && !err; i++) {
		struct found f = {
			.id = id,
			.seq = s->first_seq + i,
			.epoch = s->epoch,
			.position = position,
			.end = position + 1 + s->nr_blocks[i],
			.rebuild = true,
			.closed = true,
		};

		if (k < had && old[k].position == position) {
			f = old[k++];
			f.closed = true;
		}
		err = add(r, f);
		position = f.end;
	}
	return err;
}

/*
 * As epoch_fits() in recover.c, but for its exception: what an earlier repair has put in place of lost records says
 * nothing about what was durable.
 */
static bool is_evidence(const struct repair *r, const struct lc_record_info *info)
{
	const struct lc_superblock *sb = &r->in->core.meta.sb;

	return !lc_inspect_void(r->in, info->epoch, info->seq) &&
	       (info->epoch != sb->epoch || info->first == sb->first);
}

/* Everything in the place of segment ID that looks like a record of it. */
static int collect_segment(struct repair *r, u64 id)
{
	struct lc_inspect *in = r->in;
	u64 tail_seq = in->core.meta.sb.tail_seq;
	size_t from = r->nr;
	u32 old_end = 0; /* up to here lies a record of the last lap, or one that is not this cache's work */
	int err = 0;

	lc_inspect_load(in, place_of(r, id), true);
	for (u32 k = 0; k < segment_blocks(r) && !err;) {
		const struct found *before = r->nr > from ? &r->found[r->nr - 1] : NULL;
		struct lc_record_info info;
		bool damaged = false;

		if (!lc_inspect_record(in, k, &info, r->entries)) {
			if (before && before->end != k)
				before = NULL;
			damaged = k >= old_end && repair_restore(r, id, k, before, &info);
			if (!damaged) {
				k++;
				continue;
			}
		}
		if (info.segment_id != id || info.seq < tail_seq || info.epoch > r->max_epoch) {
			old_end = k + 1 + info.nr_entries;
			k++;
			continue;
		}
		if (lc_inspect_birth(in, info.epoch, info.first))
			return repair_no_memory(r);
		if (info.durable_seq > r->known_durable && is_evidence(r, &info))
			r->known_durable = info.durable_seq;
		err = add(r, (struct found){.id = id,
					    .seq = info.seq,
					    .epoch = info.epoch,
					    .position = k,
					    .end = k + 1 + info.nr_entries,
					    .first = info.first,
					    .durable_seq = info.durable_seq,
					    .restore = damaged});
		k += 1 + info.nr_entries;
	}
	if (!err && lc_inspect_summary(in, id, &r->summary, r->summary_entries) &&
	    r->summary.first_seq >= tail_seq && r->summary.epoch <= r->max_epoch &&
	    summary_fits(r, from))
		err = add_from_summary(r, id, from);
	return err;
}

int repair_find(struct repair *r)
{
	struct lc_inspect *in = r->in;
	u64 tail = in->core.meta.sb.tail_id;
	u32 nr = in->core.ring.nr;
	size_t kept = 0;
	int err = 0;

	r->known_durable = in->core.meta.sb.durable_seq;
	if (lc_bad_newest(&in->core.meta.bad) > r->known_durable)
		r->known_durable = lc_bad_newest(&in->core.meta.bad);
	r->max_epoch = in->births[in->nr_births - 1].epoch;
	for (u32 i = 0; i < nr; i++) {
		const struct lc_inspect_place *p = &in->places[i];

		if (p->id && !lc_inspect_void(in, p->epoch, p->seq) &&
		    p->durable_seq > r->known_durable)
			r->known_durable = p->durable_seq;
	}
	for (u32 i = 1; i < nr && !err; i++) {
		if (r->progress)
			r->progress(r->arg, i, nr);
		err = collect_segment(r, tail + i);
	}
	for (size_t i = 0; i < r->nr; i++)
		if (!lc_inspect_void(in, r->found[i].epoch, r->found[i].seq))
			r->found[kept++] = r->found[i];
	r->nr = kept;
	return err;
}
