/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recover_replay.c - the entries of the segments into the index.
 *
 * Which segments count is known when the scan has ended: void records, the end of the log, gaps of the clean part. Almost always
 * it is those whose last record was durable, so a second thread enters these while the scan goes on, in the order in
 * which they come, clean. If it was wrong about a single one, all that it did is taken back, and everything is
 * replayed in order; otherwise only the rest is: segments that had to be walked, ranges that were zeroed, and
 * what of it is dirty.
 */
#include <assert.h>
#include <string.h>

#include "recover_priv.h"

/* Places that are handed over at a time: waking a thread costs as much as entering some blocks. */
#define EAGER_BATCH 8u

/* The volume of an entry, NULL if the entry is void: the volume is gone, or began anew since. */
static const struct lc_volume_entry *volume_of(const struct recovery *r, u64 key, u64 seq)
{
	const struct lc_volume_entry *v = &r->core->meta.volumes[lc_key_volume(key)];

	return v->id && seq >= v->from_seq ? v : NULL;
}

static u64 end_of(const struct lc_slot *s)
{
	return lc_key_block(s->key) + (lc_key_zeroes(s->key) ? s->crc : 1);
}

static bool is_beyond_end(const struct lc_slot *s, const struct lc_volume_entry *v)
{
	return end_of(s) > (v->size_bytes + LC_BLOCK - 1) / LC_BLOCK;
}

static int beyond_end(struct recovery *r, u64 id, const struct lc_volume_entry *v,
		      const struct lc_slot *s)
{
	return lc_fail(r->err, -EUCLEAN,
		       "%s: segment %llu holds block %llu of volume \"%s\", which has only %llu bytes: the "
		       "cache device is corrupt; nothing was changed",
		       r->core->ssd->name, (unsigned long long)id,
		       (unsigned long long)(end_of(s) - 1), v->name,
		       (unsigned long long)v->size_bytes);
}

/* Slots on their way from the cache of the scan's CPU into ours at a time. */
#define SLOTS_AHEAD 48u

/* The entries of a segment, one after the other. */
struct entries {
	u32 slot, end; /* the next one's */
	u64 seq;       /* of the record of the last one */
};

static struct entries entries_of(const struct recovery *r, const struct place *p)
{
	const struct lc_ring *ring = &r->core->ring;
	u32 first = lc_ring_first_slot(ring, p->id);

	return (struct entries){first, first + ring->segment_blocks, p->seq - 1};
}

/* The slot of the next entry that is not void, 0 if there is none. */
static u32 next_entry(const struct recovery *r, struct entries *at, const struct lc_volume_entry **v)
{
	const struct lc_ring *ring = &r->core->ring;

	while (at->slot < at->end) {
		u32 slot = at->slot++;
		const struct lc_slot *s = lc_index_slot(&ring->index, slot);
		u64 key = s->key;

		/* a number, because it may lie behind the table: then it is fetched for nothing */
		__builtin_prefetch((void *)((uintptr_t)s + SLOTS_AHEAD * sizeof *s), 1);
		if (lc_key_type(key) == LC_ENTRY_NONE) {
			at->seq++; /* a header; behind the last record it does not matter */
			continue;
		}
		*v = volume_of(r, key, at->seq);
		if (*v)
			return slot;
	}
	return 0;
}

/* --- while the scan goes on --- */

/*
 * The blocks of a place that was handed over. Which copy of a block is the newest does not depend on the order in
 * which they come (I5); that of ranges that were zeroed does: they are left for later.
 */
static void enter_blocks(struct recovery *r, struct place *p)
{
	struct lc_ring *ring = &r->core->ring;
	struct entries at = entries_of(r, p);
	const struct lc_volume_entry *v;
	u32 slot;

	while ((slot = next_entry(r, &at, &v))) {
		const struct lc_slot *s = lc_index_slot(&ring->index, slot);

		if (is_beyond_end(s, v)) {
			r->eager.failed = true;
			return;
		}
		if (lc_key_zeroes(s->key))
			p->zeroes = true;
		else
			lc_bulk_add(&r->bulk, slot);
	}
}

/*
 * Enter a place unless it is clear that it cannot count, or not as it is. This is a guess, and has not to be
 * right: eager_holds() looks.
 */
static void enter_place(struct recovery *r, struct place *p)
{
	const struct lc_superblock *sb = &r->core->meta.sb;
	u64 last_seq;

	if (p->entered || !is_whole(r, p, &last_seq) || last_seq > r->eager.durable_seq)
		return;
	if (p->epoch < sb->epoch && last_seq >= sb->first)
		return; /* void (I1) */
	p->entered = true;
	lc_recover_set_segment(r, p->id, last_seq);
	enter_blocks(r, p);
}

/* Wait for more places than SEEN to be scanned, or for the end. Returns how many are. */
static u32 wait_scanned(struct lc_eager *e, u32 seen, bool *finished)
{
	u32 scanned;

	lc_mutex_lock(&e->lock);
	while (e->scanned == seen && !e->finished)
		(void)lc_cond_wait(&e->more, &e->lock, LC_FOREVER); /* the loop looks itself */
	scanned = e->scanned;
	*finished = e->finished;
	lc_mutex_unlock(&e->lock);
	return scanned;
}

static void eager_main(void *arg)
{
	struct recovery *r = arg;
	struct lc_eager *e = &r->eager;
	bool finished = false;
	u32 seen = 0;

	while (!finished && !e->failed) {
		u32 scanned = wait_scanned(e, seen, &finished);

		for (u32 i = seen; i < scanned; i++)
			if (r->places[i].id && r->places[i].durable_seq > e->durable_seq)
				e->durable_seq = r->places[i].durable_seq;
		/* At the end some are known to be durable that were not when they came. */
		for (u32 i = finished ? 0 : seen; i < scanned && !e->failed; i++)
			enter_place(r, &r->places[i]);
		seen = scanned;
	}
	lc_bulk_finish(&r->bulk);
}

int lc_eager_start(struct recovery *r)
{
	struct lc_eager *e = &r->eager;
	int ret;

	/* What becomes of lost blocks is a matter of order. */
	if (r->core->meta.bad.nr)
		return 0;
	e->durable_seq = r->core->meta.sb.durable_seq;
	lc_mutex_init(&e->lock);
	lc_cond_init(&e->more);
	ret = lc_thread_start(&e->thread, "lc-recover", eager_main, r);
	e->running = !ret;
	if (ret) {
		lc_cond_destroy(&e->more);
		lc_mutex_destroy(&e->lock);
	}
	return ret;
}

static void tell(struct lc_eager *e, u32 scanned, bool finished)
{
	lc_mutex_lock(&e->lock);
	e->scanned = scanned;
	e->finished = finished;
	lc_cond_signal(&e->more);
	lc_mutex_unlock(&e->lock);
}

void lc_eager_scanned(struct recovery *r, u32 scanned)
{
	/* Only we write it, so it may be read without the lock. */
	if (r->eager.running && scanned >= r->eager.scanned + EAGER_BATCH)
		tell(&r->eager, scanned, false);
}

void lc_eager_finish(struct recovery *r)
{
	struct lc_eager *e = &r->eager;

	if (!e->running)
		return;
	tell(e, r->core->ring.nr, true);
	lc_thread_join(&e->thread);
	e->running = false;
	lc_cond_destroy(&e->more);
	lc_mutex_destroy(&e->lock);
}

/*
 * Was nothing entered that does not count, or not as it was entered? Then the index is what the replay would
 * have made of these segments.
 */
static bool eager_holds(const struct recovery *r)
{
	if (LC_MUTANT(eager_always_holds))
		return true;
	for (u32 i = 0; i < r->core->ring.nr; i++) {
		const struct place *p = &r->places[i];

		if (p->entered && (!p->counts || p->walked))
			return false;
	}
	return !r->eager.failed;
}

void lc_eager_undo(struct recovery *r)
{
	struct lc_ring *ring = &r->core->ring;

	for (u32 i = 0; i < ring->nr; i++) {
		struct place *p = &r->places[i];
		struct lc_slot *slots = slots_of(r, i);

		if (!p->entered)
			continue;
		for (u32 k = 0; k < ring->segment_blocks; k++)
			slots[k].key &= ~LC_KEY_FLAGS;
		ring->segments[i].live = 0;
		if (!p->counts)
			lc_ring_set_segment(ring, p->id, (struct lc_segment){.buffer = -1});
		p->entered = p->zeroes = false;
	}
	lc_index_clear(&ring->index);
	memset(ring->live_of, 0, sizeof ring->live_of);
}

/* --- when it is known what counts --- */

static void replay_data(struct recovery *r, u32 slot, u64 seq, bool dirty, bool entered)
{
	struct lc_core *c = r->core;
	u64 key = lc_index_slot(&c->ring.index, slot)->key;
	u8 volume = lc_key_volume(key);

	if (!entered) {
		if (!LC_MUTANT(lost_copies_count) &&
		    lc_bad_voids(&c->meta.bad, volume, lc_key_block(key), seq))
			return; /* I10: it, or what superseded it, was found to be lost */
		lc_bulk_add(&r->bulk, slot);
	}
	if (!dirty || !(lc_index_slot(&c->ring.index, slot)->key & LC_SLOT_LIVE))
		return;
	lc_block_soil(&c->ring, slot);
	lc_bad_clear(&c->meta.bad, volume, lc_key_block(key), lc_key_mask(key));
}

/* Forget the blocks of a range that are older than SLOT: newer ones may have been entered before. */
static void drop_older(struct lc_ring *ring, u8 volume, u64 block, u64 end, u32 slot)
{
	for (; block < end && ring->live_of[volume]; block++) {
		u32 old = lc_index_find(&ring->index, volume, block);

		if (old && (lc_slot_newer(ring, slot, old) || LC_MUTANT(replayed_zero_wins)))
			lc_block_drop(ring, old);
	}
}

/*
 * A range was zeroed. Above the tail the backing store may not know it, or only partly: the range is pending
 * again. At or below the tail only older blocks in the index have to go.
 */
static int replay_zero(struct recovery *r, u64 id, u32 slot, u64 seq, bool dirty)
{
	struct lc_core *c = r->core;
	struct lc_ring *ring = &c->ring;
	const struct lc_slot *s = lc_index_slot(&ring->index, slot);
	u8 volume = lc_key_volume(s->key);
	u64 block = lc_key_block(s->key);

	if (LC_MUTANT(replay_without_zeros))
		return 0;
	if (!LC_MUTANT(zeros_pass_blocks))
		lc_bulk_finish(&r->bulk);
	drop_older(ring, volume, block, block + s->crc, slot);
	if (!dirty)
		return 0;
	if (lc_ring_zeros_full(ring))
		return lc_fail(r->err, -EUCLEAN,
			       "%s: segment %llu zeroes a range, and so do more than %u records above the "
			       "tail: the cache device is corrupt; nothing was changed",
			       c->ssd->name, (unsigned long long)id, ring->zeros.max);
	lc_zeros_claim(ring, slot);
	lc_zeros_add(ring, slot);
	/* Copies that were lost at or after this record stay lost; seq - 1: what is older is not. */
	lc_bad_clear_range(&c->meta.bad, volume, block, s->crc, seq - 1);
	return 0;
}

static int replay_segment(struct recovery *r, u64 id)
{
	const struct lc_ring *ring = &r->core->ring;
	const struct place *p = &r->places[place_of(r, id)];
	bool dirty = id > r->core->meta.sb.tail_id;
	struct entries at = entries_of(r, p);
	const struct lc_volume_entry *v;
	u32 slot;
	int ret = 0;

	if (p->entered && !p->zeroes && !dirty)
		return 0; /* nothing is left to be done */
	while (!ret && (slot = next_entry(r, &at, &v))) {
		const struct lc_slot *s = lc_index_slot(&ring->index, slot);

		if (is_beyond_end(s, v))
			ret = beyond_end(r, id, v, s);
		else if (lc_key_zeroes(s->key))
			ret = replay_zero(r, id, slot, at.seq, dirty);
		else
			replay_data(r, slot, at.seq, dirty, p->entered);
	}
	return ret;
}

int lc_recover_replay(struct recovery *r, u64 oldest)
{
	const struct lc_ring *ring = &r->core->ring;
	u64 progress_ns = lc_now_ns() + LC_RECOVER_PROGRESS_NS;
	int ret = 0;

	if (!eager_holds(r))
		lc_eager_undo(r);
	for (u32 i = 0; i < ring->nr; i++)
		r->out->early_segments += r->places[i].entered;
	assert(ring->nr > 0); /* clang-tidy would doubt it */
	for (u64 id = oldest; id <= ring->head_id && !ret; id++) {
		ret = replay_segment(r, id);
		if (lc_now_ns() < progress_ns)
			continue;
		lc_log(LC_LOG_INFO, "%s: recovery: %llu of %llu segments replayed",
		       r->core->ssd->name, (unsigned long long)(id + 1 - oldest),
		       (unsigned long long)(ring->head_id + 1 - oldest));
		progress_ns = lc_now_ns() + LC_RECOVER_PROGRESS_NS;
	}
	lc_bulk_finish(&r->bulk);
	return ret;
}
