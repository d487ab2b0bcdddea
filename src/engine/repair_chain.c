/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_chain.c - mend the chain of records.
 */
#include "repair_priv.h"

#include <string.h>

/* The epoch of a lost record between two others, and where that began. */
static struct lc_birth epoch_of(const struct repair *r, u64 seq, const struct found *a,
				const struct found *b)
{
	const struct lc_inspect *in = r->in;
	struct lc_birth e = {a->epoch ? a->epoch : b->epoch, seq};

	for (u32 i = 0; i < in->nr_births; i++)
		if (in->births[i].epoch >= a->epoch && in->births[i].epoch <= b->epoch &&
		    in->births[i].first <= seq)
			e = in->births[i];
	/* What an earlier repair put there may say that it began before: the superblock knows. */
	if (e.epoch == in->core.meta.sb.epoch && seq >= in->core.meta.sb.first)
		e.first = in->core.meta.sb.first;
	return e;
}

/* The header of F again, from the summary of its segment. */
static int rebuild(struct repair *r, const struct found *f)
{
	struct lc_birth e = epoch_of(r, f->seq, f, f);
	struct lc_record_info info = {
		.segment_id = f->id,
		.seq = f->seq,
		.epoch = f->epoch,
		.first = e.first,
		.position = f->position,
		.nr_entries = f->end - f->position - 1,
	};
	bool there;
	u32 at = 0;

	lc_inspect_load(r->in, place_of(r, f->id), false);
	there = lc_inspect_summary(r->in, f->id, &r->summary, r->summary_entries);
	if (!there)
		return repair_impossible(r, "a summary cannot be read any more");
	for (u64 seq = r->summary.first_seq; seq < f->seq; seq++)
		at += r->summary.nr_blocks[seq - r->summary.first_seq];
	memcpy(info.uuid, r->in->core.meta.uuid, LC_UUID_BYTES);
	lc_record_encode(r->block, &info, &r->summary_entries[at]);
	repair_tell(r, LC_REPAIR_DOES,
		    "segment %llu: the header of record %llu is written again, from the segment's summary: "
		    "nothing of it is lost",
		    (ull)f->id, (ull)f->seq);
	return repair_put(r, f->id, f->position, r->block);
}

/* The header of F again, of which everything is known. */
static int restore(struct repair *r, const struct found *f)
{
	struct found before = {
		.id = f->id,
		.seq = f->seq - 1,
		.epoch = f->epoch,
		.first = f->first,
		.end = f->position,
	};
	struct lc_record_info info;

	lc_inspect_load(r->in, place_of(r, f->id), true);
	if (!repair_restore(r, f->id, f->position, &before, &info))
		return repair_impossible(r, "a header cannot be read any more");
	lc_record_encode(r->block, &info, r->entries);
	repair_tell(r, LC_REPAIR_DOES,
		    "segment %llu: the header of record %llu is damaged, but what it said is known from its "
		    "checksum, and is written again: nothing of it is lost",
		    (ull)f->id, (ull)f->seq);
	return repair_put(r, f->id, f->position, r->block);
}

/* A record about nobody's blocks, [position, end) of segment ID. */
static int put_filler(struct repair *r, u64 id, u32 position, u32 end, u64 seq, struct lc_birth epoch)
{
	struct lc_record_info info = {
		.segment_id = id,
		.seq = seq,
		.epoch = epoch.epoch,
		.first = epoch.first,
		.position = position,
		.nr_entries = end - position - 1,
	};
	int err = 0;

	/* It has to be a good record: its crcs are those of what lies there. */
	lc_inspect_load(r->in, place_of(r, id), true);
	for (u32 i = 0; i < info.nr_entries && !err; i++) {
		const u8 *data = lc_inspect_block(r->in, position + 1 + i);

		if (!data) {
			memset(r->block, 0, LC_BLOCK);
			err = repair_put(r, id, position + 1 + i, r->block);
			data = r->block;
		}
		r->entries[i].key = lc_key(r->filler, i, LC_MASK_FULL, LC_ENTRY_DATA);
		r->entries[i].crc = lc_crc32c(data, LC_BLOCK);
	}
	if (err)
		return err;
	memcpy(info.uuid, r->in->core.meta.uuid, LC_UUID_BYTES);
	lc_record_encode(r->block, &info, r->entries);
	return repair_put(r, id, position, r->block);
}

/* Blocks [from, to) of a segment, in which records are missing. */
struct span {
	u64 id;
	u32 from, to;
	bool exact; /* a record begins at TO */
	u64 nr;	    /* how many are to be put there */
};

static u64 capacity(const struct repair *r, const struct span *s)
{
	u64 nr = 0;

	if (s->exact)
		return (s->to - s->from) / 2;
	/* As recover.c walks: behind this another record is not looked for. */
	for (u32 k = s->from; k + (k ? 3 : 2) <= segment_blocks(r); k += 2)
		nr++;
	return nr;
}

static int fill_span(struct repair *r, const struct span *s, u64 seq, const struct found *a,
		     const struct found *b)
{
	u32 position = s->from;
	int err = 0;

	for (u64 i = 0; i < s->nr && !err; i++) {
		u32 end = s->exact && i == s->nr - 1 ? s->to : position + 2;

		err = put_filler(r, s->id, position, end, seq + i, epoch_of(r, seq + i, a, b));
		position = end;
	}
	return err;
}

/* The I-th span of the gap between A and B. */
static struct span span_at(const struct repair *r, const struct found *a, const struct found *b, u64 i)
{
	struct span s = {.id = a->id + i, .to = segment_blocks(r)};

	if (i == 0)
		s.from = a->end;
	if (s.id == b->id) {
		s.to = b->position;
		s.exact = true;
	}
	return s;
}

/*
 * Records between A and B are lost: fillers, one for each seq. Each segment on the way held at least one, however many
 * they were; where exactly they began does not matter any more.
 */
static int fill(struct repair *r, const struct found *a, const struct found *b)
{
	char text[LC_COUNT_BYTES];
	u64 missing = b->seq - a->seq - 1, nr = b->id - a->id + 1, left = missing, seq = a->seq + 1;
	u64 blocks = 0, named = 0;
	struct span *spans = lc_alloc(nr * sizeof *spans);
	int err = 0;

	if (!spans)
		return repair_no_memory(r);
	for (u64 i = 0; i < nr; i++) {
		bool must;

		spans[i] = span_at(r, a, b, i);
		must = spans[i].exact ? spans[i].from < spans[i].to : i > 0;
		if (must && (!left || !capacity(r, &spans[i])))
			err = -EUCLEAN;
		spans[i].nr = must;
		left -= must && left;
	}
	for (u64 i = nr; i-- > 0 && left && !err;) {
		u64 room = (i == 0 && !spans[0].exact && a->closed ? 0 : capacity(r, &spans[i])) -
			   spans[i].nr;
		u64 more = room < left ? room : left;

		if (spans[i].exact && spans[i].from == spans[i].to)
			continue;
		spans[i].nr += more;
		left -= more;
	}
	if (err || left) {
		lc_free(spans, nr * sizeof *spans);
		return repair_impossible(r, "the records that are left do not fit each other");
	}
	for (u64 i = 0; i < nr && !err; i++) {
		if (spans[i].nr) {
			blocks += spans[i].to - spans[i].from - spans[i].nr;
			err = repair_name(r, spans[i].id, spans[i].from, spans[i].to, a->seq + 1,
					  b->seq - 1, b->seq - 1, &named);
		}
		if (err)
			break;
		err = fill_span(r, &spans[i], seq, a, b);
		seq += spans[i].nr;
	}
	lc_free(spans, nr * sizeof *spans);
	if (err)
		return err;
	repair_tell(r, LC_REPAIR_DOES,
		    "segments %llu to %llu: fillers take the place of records %llu to %llu, whose headers are "
		    "damaged, so that the newer ones count again",
		    (ull)a->id + (a->end == segment_blocks(r)), (ull)b->id, (ull)a->seq + 1,
		    (ull)b->seq - 1);
	repair_tell(r, LC_REPAIR_LOSES,
		    "records %llu to %llu: at most %s; what is left of their headers names %llu; of others "
		    "nobody knows which they were, and unless newer records hold them, too, they read as they were "
		    "before",
		    (ull)a->seq + 1, (ull)b->seq - 1, lc_count_text(text, blocks, "block"),
		    (ull)named);
	return 0;
}

static bool readable(struct repair *r, u64 id, u32 position)
{
	lc_inspect_load(r->in, place_of(r, id), false);
	return lc_inspect_block(r->in, position);
}

/* Where the record after A would be; the walk goes there only if another record fits. */
static bool next_is_readable(struct repair *r, const struct found *a)
{
	if (a->end + 3 <= segment_blocks(r) && !a->closed && !readable(r, a->id, a->end))
		return false;
	return readable(r, a->id + 1, 0);
}

static int make_readable(struct repair *r, u64 id, u32 position)
{
	if (readable(r, id, position))
		return 0;
	memset(r->block, 0, LC_BLOCK);
	repair_tell(r, LC_REPAIR_DOES,
		    "segment %llu, block %u of it: cannot be read and is overwritten", (ull)id,
		    position);
	repair_tell(r, LC_REPAIR_LOSES,
		    "if a record began there, it is lost, and nobody knows what it held; nothing says that there "
		    "was one");
	return repair_put(r, id, position, r->block);
}

/*
 * Records are missing behind A, up to an opening that saw epoch NEXT. If there was another opening in between, of which
 * nothing is left, nobody knows at which record its epoch began: it may have cut A off, and those before it that nobody
 * says to have been durable.
 */
static void tell_uncertain(struct repair *r, const struct found *a, u64 next)
{
	const struct lc_inspect *in = r->in;
	u64 seen = a->epoch;

	for (u32 i = 0; i < in->nr_births && in->births[i].epoch < next; i++)
		if (in->births[i].epoch == seen + 1)
			seen++;
	if (!a->epoch || seen + 1 >= next)
		return;
	repair_tell(r, LC_REPAIR_LOSES,
		    "the cache was opened after record %llu (epoch %llu), and nothing is left of what was written then: if "
		    "that opening cut the newest records before it off, as torn in a crash, they count again now",
		    (ull)a->seq, (ull)a->epoch);
}

/* What the headers behind A, the last record that is left, still name. */
static int name_behind(struct repair *r, const struct found *a, u64 *nr)
{
	u64 first = a->seq + 1, last = r->known_durable;
	u64 ids = last - a->seq;
	int err = 0;

	if (a->end < segment_blocks(r))
		err = repair_name(r, a->id, a->end, segment_blocks(r), first, last, a->seq, nr);
	for (u64 i = 1; i <= ids && i < r->in->core.ring.nr && !err; i++)
		err = repair_name(r, a->id + i, 0, segment_blocks(r), first, last, a->seq, nr);
	return err;
}

static bool adjoins(const struct found *a, const struct found *b)
{
	return b->id == a->id ? b->position == a->end : b->id == a->id + 1 && !b->position;
}

/* The first epoch behind that of A of which no first record is left, if it is an earlier one than that of B; or 0. */
static u64 lost_epoch(const struct lc_inspect *in, const struct found *a, const struct found *b)
{
	u64 epoch = a->epoch + 1;

	for (u32 i = 0; i < in->nr_births && epoch < b->epoch; i++)
		if (in->births[i].epoch == epoch)
			epoch++;
	return epoch < b->epoch ? epoch : 0;
}

/* Does a record of an epoch before EPOCH say that SEQ was durable? Then that one's opening did not cut it off. */
static bool was_durable(const struct repair *r, u64 seq, u64 epoch)
{
	for (size_t i = 0; i < r->nr; i++)
		if (r->found[i].epoch < epoch && r->found[i].durable_seq >= seq)
			return true;
	return false;
}

/*
 * Segments between two records hold at least one each, but not so many are missing. Then there was an opening in between, of which
 * nothing is left, and it cut the first one off, as torn, and wrote others of its seq there. So that one is void (I1),
 * and those before it as far as need be; what takes the place of the others will say so.
 */
static int drop_cut_off(struct repair *r)
{
	for (size_t i = 1; i < r->nr; i++) {
		const struct found *b = &r->found[i];
		u64 lost = lost_epoch(r->in, &r->found[i - 1], b);
		size_t kept = i;

		while (lost && kept > 1 && !was_durable(r, r->found[kept - 1].seq, lost)) {
			const struct found *a = &r->found[kept - 1];
			u64 missing = b->seq > a->seq ? b->seq - a->seq - 1 : 0;

			if (a->id >= b->id || missing >= b->id - a->id - 1 + (b->position > 0))
				break;
			kept--;
		}
		if (kept == i)
			continue;
		repair_tell(r, LC_REPAIR_DOES,
			    "records %llu to %llu, of epoch %llu: the next opening, of which nothing else is left, had "
			    "cut them off as torn: they stay so",
			    (ull)r->found[kept].seq, (ull)r->found[i - 1].seq, (ull)lost - 1);
		if (lc_inspect_birth(r->in, lost, r->found[kept].seq))
			return repair_no_memory(r);
		memmove(&r->found[kept], &r->found[i], (r->nr - i) * sizeof *r->found);
		r->nr -= i - kept;
		i = kept;
	}
	return 0;
}

int repair_mend(struct repair *r)
{
	const struct lc_superblock *sb = &r->in->core.meta.sb;
	struct found a = {.id = sb->tail_id,
			  .seq = sb->tail_seq - 1,
			  .end = segment_blocks(r),
			  .closed = true};
	int err = drop_cut_off(r);

	for (size_t i = 0; i < r->nr && !err; i++) {
		const struct found b = r->found[i];
		bool follows = b.seq == a.seq + 1;

		/* Nothing is missing, so nothing may lie between; or something is, and it lay somewhere. */
		if (b.seq <= a.seq || b.epoch < a.epoch || (follows && !adjoins(&a, &b)) ||
		    (!follows && b.id == a.id && b.position == a.end))
			return repair_impossible(r, "its records contradict each other");
		if (!follows && a.seq >= r->known_durable && next_is_readable(r, &a))
			break; /* a torn tail, which an opening cuts */
		if (!follows && !r->filler)
			return repair_impossible(r,
						 "there are 255 volumes: no id is left for fillers");
		if (!follows) {
			tell_uncertain(r, &a, b.epoch);
			err = fill(r, &a, &b);
		}
		if (!err && b.rebuild)
			err = rebuild(r, &b);
		if (!err && b.restore)
			err = restore(r, &b);
		a = b;
	}
	if (!err && a.seq < r->known_durable) {
		u64 named = 0;

		tell_uncertain(r, &a, sb->epoch);
		err = name_behind(r, &a, &named);
		if (!err)
			err = repair_cut(r, a.seq, named);
	}
	if (!err && a.end + 3 <= segment_blocks(r) && !a.closed)
		err = make_readable(r, a.id, a.end);
	return err ? err : make_readable(r, a.id + 1, 0);
}
