/* SPDX-License-Identifier: BSD-3-Clause */
#include "repair_priv.h"

#include <stdio.h>
#include <string.h>

/* --- metadata pages --- */

static void plan_pages(struct repair *r)
{
	for (u32 page = 0; page < LC_NR_PAGES; page++) {
		const struct lc_copy *c = r->in->copies[page];

		for (u32 i = 0; i < 2; i++)
			if (c[i].state == LC_COPY_UNREADABLE && c[!i].state == LC_COPY_OK) {
				repair_tell(r, LC_REPAIR_DOES,
					    "metadata page %u: copy %u cannot be read, and is written again from the "
					    "other one",
					    page, i + 1);
				r->changed = true;
			}
		if (!r->in->lost[page])
			continue;
		r->changed = true;
		if (page < LC_PAGE_BAD) {
			u32 id = (page - LC_PAGE_VOLUMES) * LC_VOLUMES_PER_PAGE + 1;

			repair_tell(r, LC_REPAIR_DOES,
				    "metadata page %u is written empty: volumes %u to %u, if there were any, are "
				    "forgotten",
				    page, id, id + LC_VOLUMES_PER_PAGE - 1);
		} else {
			repair_tell(r, LC_REPAIR_DOES, "metadata page %u is written empty", page);
			repair_tell(r, LC_REPAIR_LOSES,
				    "it had up to %u of the blocks that were lost earlier, if there were any: "
				    "they do not answer with errors any more, but read as an older copy, or as "
				    "the backing store",
				    LC_BAD_PER_PAGE);
		}
	}
}

static bool on_lost_page(const struct repair *r, u8 id)
{
	return id && r->in->lost[lc_volume_page(id)];
}

/* Does anything that only the cache has depend on a page of the volume table that is lost? */
static int check_lost_volumes(struct repair *r)
{
	struct lc_inspect *in = r->in;
	const struct lc_ring *ring = &in->core.ring;
	u64 dirty = 0, bad = 0;
	char why[256];

	for (u64 id = in->core.meta.sb.tail_id + 1; id <= ring->head_id; id++)
		for (u32 i = 0; i < ring->segment_blocks; i++)
			dirty += on_lost_page(r,
					      lc_key_volume(
						      lc_index_slot(&ring->index,
								    lc_ring_first_slot(ring, id) + i)
							      ->key));
	for (u32 i = 0; i < in->core.meta.bad.used; i++)
		bad += on_lost_page(r, lc_key_volume(in->core.meta.bad.entries[i].key));
	if (!dirty && !bad)
		return 0;
	snprintf(why, sizeof why,
		 "a page of the volume table is lost, and with it the names of volumes for which the cache "
		 "holds up to %llu dirty blocks (%llu lost ones): nobody can say whose they are",
		 (ull)dirty, (ull)bad);
	return repair_impossible(r, why);
}

/* Lost blocks of a volume that is not in the table: a forget was interrupted. */
static int drop_orphans(struct repair *r)
{
	char text[LC_COUNT_BYTES];
	struct lc_meta *m = &r->in->core.meta;
	u32 nr = 0;

	for (u32 i = 0; i < m->bad.used; i++) {
		u64 key = m->bad.entries[i].key;

		if (!key || m->volumes[lc_key_volume(key)].id)
			continue;
		lc_bad_clear(&m->bad, lc_key_volume(key), lc_key_block(key), LC_MASK_FULL);
		nr++;
	}
	if (!nr)
		return 0;
	repair_tell(r, LC_REPAIR_DOES,
		    "taken off the list of lost blocks: %s of a volume that was forgotten",
		    lc_count_text(text, nr, "block"));
	return repair_write_lists(r);
}

/* --- the plan --- */

static u8 unused_volume(const struct repair *r)
{
	for (u32 id = LC_VOLUMES_MAX; id > 0; id--)
		if (!r->in->core.meta.volumes[id].id && !on_lost_page(r, id))
			return id;
	return 0;
}

static int plan(struct repair *r)
{
	struct lc_inspect *in = r->in;
	int err;

	if (in->meta_error)
		return lc_fail(r->err, -EUCLEAN,
			       "%s; without that nobody knows what it holds for the backing stores: it cannot "
			       "be repaired, only be formatted",
			       in->meta_text.text);
	plan_pages(r);
	err = lc_inspect_log(in, NULL, NULL, r->err);
	if (err)
		return err;
	if (in->log_error) {
		r->filler = unused_volume(r);
		err = repair_find(r);
		if (!err)
			err = repair_mend(r);
		if (err)
			return err;
		/* The proof: what an opening would find now. */
		lc_inspect_again(in);
		err = lc_inspect_log(in, NULL, NULL, r->err);
		if (err)
			return err;
		if (in->log_error)
			return lc_fail(r->err, -EUCLEAN, "it cannot be repaired: %s",
				       in->log_text.text);
		err = repair_lose_named(r);
		if (err)
			return err;
	}
	err = check_lost_volumes(r);
	return err ? err : drop_orphans(r);
}

int lc_repair_plan(struct lc_inspect *in, lc_repair_say say, lc_progress progress, void *arg,
		   struct lc_error *err)
{
	struct repair *r = lc_alloc(sizeof *r);
	int ret;

	if (!r)
		return lc_fail(err, -ENOMEM, "%s: no memory to repair it", in->ssd->name);
	r->in = in;
	r->say = say;
	r->progress = progress;
	r->arg = arg;
	r->err = err;
	ret = plan(r);
	if (!ret)
		ret = r->changed;
	lc_free(r->found, r->max * sizeof *r->found);
	lc_free(r->named, r->max_named * sizeof *r->named);
	lc_free(r, sizeof *r);
	return ret;
}

/* --- doing it --- */

int lc_repair_apply(struct lc_inspect *in, struct lc_error *err)
{
	u32 zone = in->core.meta.sb.zone_blocks;
	int ret = lc_overlay_apply(&in->overlay, zone, UINT64_MAX);

	/* The superblock last, and of each page the copy that counts last. */
	for (u32 page = LC_NR_PAGES; page-- > 0 && !ret;) {
		const struct lc_copy *c = in->copies[page];
		u32 newest = c[1].state == LC_COPY_OK &&
			     (c[0].state != LC_COPY_OK || c[1].generation > c[0].generation);

		ret = lc_overlay_apply(&in->overlay, page * 2 + !newest, page * 2 + !newest + 1);
		if (!ret)
			ret = lc_overlay_apply(&in->overlay, page * 2 + newest,
					       page * 2 + newest + 1);
	}
	if (ret)
		return lc_fail(err, ret,
			       "%s: cannot be written: %s; the cache can be repaired again, or looked at "
			       "with logcachectl check",
			       in->ssd->name, strerror(-ret));
	return 0;
}
