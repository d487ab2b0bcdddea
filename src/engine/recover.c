/* SPDX-License-Identifier: BSD-3-Clause */
#include "recover.h"

#include <stdlib.h>
#include <string.h>

#include "recover_priv.h"

/* --- void records (I1) --- */

static int compare_births(const void *a, const void *b)
{
	const struct birth *x = a, *y = b;

	return (x->epoch > y->epoch) - (x->epoch < y->epoch);
}

static bool is_void(const struct recovery *r, u64 epoch, u64 seq);

/* When did each epoch begin, and up to where do valid records say that all was durable? */
static void sort_births(struct recovery *r)
{
	const struct lc_superblock *sb = &r->core->meta.sb;

	r->births[r->nr_births++] = (struct birth){sb->epoch, sb->first};
	qsort(r->births, r->nr_births, sizeof *r->births, compare_births);
	r->out->max_epoch = r->births[r->nr_births - 1].epoch;
	for (u32 i = r->nr_births - 1; i-- > 0;)
		if (r->births[i + 1].first < r->births[i].first)
			r->births[i].first = r->births[i + 1].first;
	for (u32 i = 0; i < r->core->ring.nr; i++) {
		const struct place *p = &r->places[i];

		if (p->id && !is_void(r, p->epoch, p->seq) && p->durable_seq > r->known_durable)
			r->known_durable = p->durable_seq;
	}
}

/* Did a later epoch begin at or before SEQ? Then a recovery has cut this record off. */
static bool is_void(const struct recovery *r, u64 epoch, u64 seq)
{
	u32 low = 0, high = r->nr_births;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (r->births[mid].epoch > epoch)
			high = mid;
		else
			low = mid + 1;
	}
	return low < r->nr_births && r->births[low].first <= seq && !LC_MUTANT(no_void);
}

/*
 * Can a record be of this epoch? Each is in the superblock before anything is written in it (I1), or in a first header, if
 * the superblock is an old one that was put back. What claims a later one, in a place that the log has not reached, is
 * not this cache's work; but no opening has seen it, so none has made it void, and it would count when the log comes
 * near.
 */
static bool is_known(const struct recovery *r, u64 epoch)
{
	return epoch <= r->out->max_epoch || LC_MUTANT(unknown_epoch_counts);
}

/*
 * Does the epoch of a record fit? An epoch begins once: what lay there waiting for the present one to come did not know
 * at which record that would be. (Older than that, and of the present epoch, can be what a repair put in place of a lost
 * record.)
 */
static bool epoch_fits(const struct recovery *r, const struct lc_record_info *info)
{
	const struct lc_superblock *sb = &r->core->meta.sb;

	return is_known(r, info->epoch) && !is_void(r, info->epoch, info->seq) &&
	       (info->epoch != sb->epoch || info->seq < sb->first || info->first == sb->first ||
		LC_MUTANT(any_first));
}

/* --- chains of headers --- */

/* What the walk up the log expects next. */
struct cursor {
	u64 seq;
	u64 epoch;
};

static int unreadable(struct recovery *r, u64 id, u32 slot, int error)
{
	return lc_fail(r->err, error,
		       "%s: segment %llu (block %u) cannot be read: %s; nothing was changed; a read "
		       "error is not taken for the end of the log, because what lies behind it may be "
		       "your newest data; logcachectl repair says what can be done",
		       r->core->ssd->name, (unsigned long long)id, slot, strerror(-error));
}

static int read_blocks(struct recovery *r, u64 id, u32 position, u32 nr, void *buf)
{
	struct lc_core *c = r->core;
	u32 slot = lc_ring_first_slot(&c->ring, id) + position;
	int ret = lc_store_read(c->ssd, buf, nr * LC_BLOCK, lc_slot_offset_bytes(slot));

	return ret ? unreadable(r, id, slot, ret) : 0;
}

/* I1: is the header in BLOCK the record that comes next at this place? */
static bool belongs(const struct recovery *r, const struct lc_record_info *info, u64 id,
		    u32 position, const struct cursor *at)
{
	return our_uuid(r, info->uuid) && info->segment_id == id && info->position == position &&
	       (info->seq == at->seq || LC_MUTANT(no_seq_check)) &&
	       (info->epoch >= at->epoch || LC_MUTANT(no_epoch_check)) && epoch_fits(r, info) &&
	       position + 1 + info->nr_entries <= r->core->ring.segment_blocks;
}

/* Nobody said that this record was durable: is all of it there? 1, 0 or -errno. */
static int intact(struct recovery *r, u64 id, u32 position, const struct lc_slot *entries, u32 nr)
{
	int ret = read_blocks(r, id, position + 1, nr, r->segment);

	for (u32 i = 0; i < nr && !ret; i++)
		if (lc_key_type(entries[i].key) == LC_ENTRY_DATA &&
		    lc_crc32c(r->segment + (size_t)i * LC_BLOCK, LC_BLOCK) != entries[i].crc)
			return 0;
	return ret ? ret : 1;
}

/*
 * Does the summary, which is in the slot table, say the same of the record at POSITION as its header? Once it is known to be
 * durable the summary counts alone: if they differ, the next opening would see another log than this one.
 */
static bool summary_agrees(const struct recovery *r, u64 id, u32 position, u32 nr)
{
	const struct lc_slot *s = slots_of(r, place_of(r, id)) + position;
	u32 end = position + 1 + nr;

	if (lc_key_type(s->key) != LC_ENTRY_NONE ||
	    (end < r->core->ring.segment_blocks && lc_key_type(s[1 + nr].key) != LC_ENTRY_NONE))
		return false;
	for (u32 i = 0; i < nr; i++)
		if ((s[1 + i].key ^ r->entries[i].key) & ~LC_KEY_FLAGS ||
		    s[1 + i].crc != r->entries[i].crc)
			return false;
	return true;
}

static int contradiction(struct recovery *r, u64 id)
{
	return lc_fail(r->err, -EUCLEAN,
		       "%s: the summary of segment %llu and its headers contradict each other, though both "
		       "have good checksums: the cache device is corrupt; nothing was changed",
		       r->core->ssd->name, (unsigned long long)id);
}

/* See walk(). *END: the block behind the last record that was found. */
static int walk_headers(struct recovery *r, u64 id, struct cursor *at, u64 stop_seq, bool verify,
			u32 *end)
{
	const struct place *p = &r->places[place_of(r, id)];
	u32 blocks = r->core->ring.segment_blocks, position = 0;
	struct lc_slot *slots = slots_of(r, place_of(r, id));

	/* Behind the last block that another record could begin at, the engine closes the segment. */
	while (position + (position ? 3 : 2) <= blocks && at->seq != stop_seq) {
		struct lc_record_info info;
		int ret = read_blocks(r, id, position, 1, r->segment);

		if (ret)
			return ret;
		if (!lc_record_decode(r->segment, &info, r->entries) ||
		    !belongs(r, &info, id, position, at))
			return 0;
		if (verify && at->seq > r->known_durable && !LC_MUTANT(no_data_crc_at_cut)) {
			ret = intact(r, id, position, r->entries, info.nr_entries);
			if (ret <= 0)
				return ret;
		}
		if (summary_fits(p) && !summary_agrees(r, id, position, info.nr_entries) &&
		    !LC_MUTANT(contradictions_pass))
			return contradiction(r, id);
		memcpy(&slots[position + 1], r->entries, info.nr_entries * sizeof *slots);
		if (info.durable_seq > r->known_durable)
			r->known_durable = info.durable_seq;
		at->epoch = info.epoch;
		at->seq++;
		position += 1 + info.nr_entries;
		*end = position;
	}
	return 0;
}

/*
 * Follow the chain in segment ID as far as it goes (or up to STOP_SEQ, if that is not 0), filling in the slot
 * table. The cursor ends at the seq after it. VERIFY: records beyond known_durable must be intact.
 */
static int walk(struct recovery *r, u64 id, struct cursor *at, u64 stop_seq, bool verify)
{
	u32 end = 0;
	int ret = walk_headers(r, id, at, stop_seq, verify, &end);

	r->places[place_of(r, id)].walked = true;
	memset(slots_of(r, place_of(r, id)) + end, 0,
	       (r->core->ring.segment_blocks - end) * sizeof(struct lc_slot));
	return ret;
}

/* Is the segment, whole as the scan saw it up to LAST_SEQ, known to be durable, and not void? */
static bool whole_counts(const struct recovery *r, const struct place *p, u64 last_seq)
{
	if (!p->summary_id)
		return last_seq <= r->known_durable;
	return (last_seq <= r->known_durable || LC_MUTANT(trust_summary)) &&
	       is_known(r, p->summary_epoch) && !is_void(r, p->summary_epoch, last_seq);
}

/*
 * Bring the cursor from the first record of segment ID, which is at hand, to the seq after its last one. The
 * scan has read all there is to know of a whole segment; the others are walked.
 */
static int follow(struct recovery *r, u64 id, struct cursor *at, u64 stop_seq, bool verify)
{
	const struct place *p = &r->places[place_of(r, id)];
	u64 last_seq;

	if (is_whole(r, p, &last_seq) && whole_counts(r, p, last_seq)) {
		at->seq = last_seq + 1;
		at->epoch = p->summary_id ? p->summary_epoch : p->epoch;
		return 0;
	}
	return walk(r, id, at, stop_seq, verify);
}

/* --- the dirty part: tail + 1 and up --- */

void lc_recover_set_segment(struct recovery *r, u64 id, u64 last_seq)
{
	struct lc_ring *ring = &r->core->ring;

	lc_ring_set_segment(ring, id,
			    (struct lc_segment){
				    .id = id,
				    .last_seq = last_seq,
				    .live = lc_ring_segment(ring, id)->live,
				    .buffer = -1,
				    .state = LC_SEGMENT_CLOSED,
			    });
}

/* Segment ID, up to LAST_SEQ, is part of the log. */
static void count_segment(struct recovery *r, u64 id, u64 last_seq)
{
	lc_recover_set_segment(r, id, last_seq);
	r->places[place_of(r, id)].counts = true;
}

static int corrupt(struct recovery *r, u64 id, u64 seq)
{
	return lc_fail(r->err, -EUCLEAN,
		       "%s: record %llu (in segment %llu or after it) is damaged or missing, though "
		       "records up to %llu were durable: the cache device is corrupt, and what "
		       "it holds for the backing store cannot all be found; nothing was changed",
		       r->core->ssd->name, (unsigned long long)seq, (unsigned long long)id,
		       (unsigned long long)r->known_durable);
}

static int chain_dirty(struct recovery *r)
{
	struct lc_core *c = r->core;
	struct lc_ring *ring = &c->ring;
	struct cursor at = {.seq = c->meta.sb.tail_seq};
	u64 id = c->meta.sb.tail_id;

	ring->head_id = id;
	for (id++; id < c->meta.sb.tail_id + ring->nr; id++) {
		struct place *p = &r->places[place_of(r, id)];
		u64 begin = at.seq;
		int ret;

		if (p->unreadable)
			return unreadable(r, id, lc_ring_first_slot(ring, id), -EIO);
		if (p->id != id || (p->seq != at.seq && !LC_MUTANT(no_seq_check)) ||
		    (p->epoch < at.epoch && !LC_MUTANT(no_epoch_check)) ||
		    is_void(r, p->epoch, p->seq))
			break;
		ret = follow(r, id, &at, 0, true);
		if (ret)
			return ret;
		if (at.seq == begin)
			break; /* its first record is torn */
		count_segment(r, id, at.seq - 1);
		ring->head_id = id;
		r->out->dirty_records += at.seq - begin;
		/* The segment went on, if nothing cut it off: no other one can follow here. */
		if (summary_fits(p) && at.seq <= p->summary_last_seq &&
		    !is_void(r, p->summary_epoch, p->summary_last_seq) &&
		    !LC_MUTANT(log_passes_summary))
			break;
	}
	r->out->cut_seq = at.seq - 1;
	return 0;
}

/*
 * Could a place hold records beyond the cut? Where the chain ended; wherever a first header says so; and after a crash in the
 * places that come next, as far as the buffers reached: what was in them was under way, in any order. There the first header of a segment
 * may be the very write that was lost, and an older one lies there still, while a later record of that segment has arrived.
 */
static bool beyond_cut(const struct recovery *r, u32 i)
{
	const struct lc_superblock *sb = &r->core->meta.sb;
	const struct place *p = &r->places[i];
	u32 nr = r->core->ring.nr;
	u64 head = r->core->ring.head_id;
	u64 id = head + 1 + (i + nr - place_of(r, head + 1)) % nr; /* what may be there */

	if (!sb->clean && id <= head + LC_BUFFERS_MAX && id < sb->tail_id + nr &&
	    !LC_MUTANT(evidence_needs_a_header))
		return true;
	return p->id >= head && p->id != sb->tail_id && !is_void(r, p->epoch, p->seq);
}

/*
 * One place into r->segment. What cannot be read becomes zeros: it is a data block, or a header that nothing leads
 * to; that the chain's own next header cannot be read was refused before.
 */
static void read_what_can_be_read(struct recovery *r, u32 place)
{
	struct lc_core *c = r->core;
	u32 blocks = c->ring.segment_blocks;
	u64 at = lc_slot_offset_bytes(c->ring.zone_blocks + place * blocks);

	if (!lc_store_read(c->ssd, r->segment, blocks * LC_BLOCK, at))
		return;
	for (u32 k = 0; k < blocks; k++) {
		u8 *block = r->segment + (size_t)k * LC_BLOCK;

		if (lc_store_read(c->ssd, block, LC_BLOCK, at + (u64)k * LC_BLOCK))
			memset(block, 0, LC_BLOCK);
	}
}

/*
 * I11: does a record beyond the cut, though nothing leads to it any more, prove that the record at the cut
 * had been durable? Then that was no torn tail.
 */
static int look_beyond(struct recovery *r)
{
	struct lc_ring *ring = &r->core->ring;
	u64 cut = r->out->cut_seq, head = ring->head_id;

	for (u32 i = 0; i < ring->nr; i++) {
		struct lc_record_info info;

		if (!beyond_cut(r, i))
			continue;
		read_what_can_be_read(r, i);
		for (u32 k = 0; k < ring->segment_blocks; k++)
			if (lc_record_decode(r->segment + (size_t)k * LC_BLOCK, &info, r->entries) &&
			    our_uuid(r, info.uuid) && info.segment_id >= head &&
			    info.segment_id < r->core->meta.sb.tail_id + ring->nr &&
			    place_of(r, info.segment_id) == i && info.seq > cut &&
			    info.position == k && epoch_fits(r, &info) &&
			    info.durable_seq > r->known_durable)
				r->known_durable = info.durable_seq;
	}
	return r->known_durable > cut ? corrupt(r, head, cut + 1) : 0;
}

/* --- the clean part: the tail and down --- */

/* Load segment ID if its last record is END_SEQ - 1. 1, 0 if there is a gap here. Read errors are gaps. */
static int load_clean(struct recovery *r, u64 id, u64 end_seq)
{
	struct place *p = &r->places[place_of(r, id)];
	struct cursor at = {.seq = p->seq};
	struct lc_error *err = r->err;
	int ret;

	if (p->unreadable || p->id != id || p->seq >= end_seq || is_void(r, p->epoch, p->seq))
		return 0;
	r->err = NULL; /* a clean segment that cannot be read is merely cold */
	ret = follow(r, id, &at, end_seq, false);
	r->err = err;
	if (ret || (at.seq != end_seq && !LC_MUTANT(clean_past_gap)))
		return 0;
	count_segment(r, id, end_seq - 1);
	return 1;
}

/* The oldest id that could be loaded; tail + 1 if there is none. */
static u64 chain_clean(struct recovery *r)
{
	const struct lc_ring *ring = &r->core->ring;
	u64 id = r->core->meta.sb.tail_id, end_seq = r->core->meta.sb.tail_seq;

	while (id > 0 && id + ring->nr > ring->head_id && load_clean(r, id, end_seq)) {
		end_seq = r->places[place_of(r, id)].seq;
		r->out->clean_segments++;
		id--;
	}
	return id + 1;
}

static int scan(struct recovery *r)
{
	int ret = lc_eager_start(r);

	if (ret)
		return lc_fail(r->err, ret, "%s: cannot start a thread for recovery: %s",
			       r->core->ssd->name, strerror(-ret));
	ret = lc_recover_scan(r);
	lc_eager_finish(r);
	return ret;
}

/* What is written from here on has to be valid at the next opening, too. No cache ever comes near this. */
static int check_counters(struct recovery *r)
{
	u64 seq = r->out->cut_seq, id = r->core->ring.head_id, epoch = r->out->max_epoch;

	if ((seq < LC_COUNT_OPEN_MAX && id < LC_COUNT_OPEN_MAX && epoch < LC_COUNT_OPEN_MAX) ||
	    LC_MUTANT(counters_end))
		return 0;
	return lc_fail(r->err, -EUCLEAN,
		       "%s: record %llu, segment %llu or epoch %llu is a number that no cache reaches: the cache "
		       "device is corrupt; nothing was changed",
		       r->core->ssd->name, (unsigned long long)seq, (unsigned long long)id,
		       (unsigned long long)epoch);
}

/* Which segments count? All that *OLDEST, which is the first of them, and the head have between them. */
static int chain(struct recovery *r, u64 *oldest)
{
	int ret = chain_dirty(r);

	if (!ret)
		ret = look_beyond(r);
	if (!ret)
		ret = check_counters(r);
	if (!ret)
		*oldest = chain_clean(r);
	return ret;
}

static int run(struct recovery *r)
{
	struct lc_ring *ring = &r->core->ring;
	u64 oldest = 0;
	int ret = scan(r);

	if (!ret) {
		sort_births(r);
		ret = chain(r, &oldest);
	}
	if (ret) {
		lc_eager_undo(r);
		return ret;
	}
	ret = lc_recover_replay(r, oldest);
	ring->tail_id = r->core->meta.sb.tail_id;
	ring->free_id = ring->head_id;
	return ret;
}

int lc_recover(struct lc_core *core, struct lc_recovery *out, struct lc_error *err)
{
	const struct lc_ring *ring = &core->ring;
	size_t segment_bytes = (size_t)ring->segment_blocks * LC_BLOCK;
	size_t places_bytes = ring->nr * sizeof(struct place);
	size_t births_bytes = ((size_t)ring->nr + 1) * sizeof(struct birth);
	struct recovery *r = lc_alloc(sizeof *r);
	int ret = -ENOMEM;

	*out = (struct lc_recovery){0};
	if (!r)
		return lc_fail(err, ret, "%s: no memory for recovery", core->ssd->name);
	r->core = core;
	r->out = out;
	r->err = err;
	r->known_durable = core->meta.sb.durable_seq;
	if (lc_bad_newest(&core->meta.bad) > r->known_durable && !LC_MUTANT(lost_is_no_evidence))
		r->known_durable = lc_bad_newest(&core->meta.bad);
	r->places = lc_alloc(places_bytes);
	r->births = lc_alloc(births_bytes);
	r->segment = lc_alloc(segment_bytes);
	if (r->places && r->births && r->segment && !lc_bulk_init(&r->bulk, &core->ring))
		ret = run(r);
	else
		lc_fail(err, ret, "%s: no memory for recovery", core->ssd->name);
	lc_bulk_destroy(&r->bulk);
	lc_free(r->places, places_bytes);
	lc_free(r->births, births_bytes);
	lc_free(r->segment, segment_bytes);
	lc_free(r, sizeof *r);
	return ret;
}
