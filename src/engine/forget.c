/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * forget.c - see forget.h.
 *
 * An entry of the log counts only if the table knows its volume, so taking the table's entry away voids all of them,
 * and a volume that gets the same id later has a from_seq behind them. The table's page comes
 * first: a crash after it leaves lost blocks of a volume that there is not, which a later forget
 * or repair takes off the list; the other way round stale data could be read.
 */
#include "forget.h"

#include <string.h>

#include "cache.h"
#include "inspect.h"

static struct lc_volume_entry *find(struct lc_meta *m, const char *name)
{
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		if (m->volumes[id].id && !strcmp(m->volumes[id].name, name))
			return &m->volumes[id];
	return NULL;
}

static u64 lost_blocks_of(const struct lc_bad *bad, u8 id)
{
	u64 nr = 0;

	for (u32 i = 0; i < bad->used; i++)
		nr += bad->entries[i].key && lc_key_volume(bad->entries[i].key) == id;
	return nr;
}

/* Its entry, then the lost blocks of whatever volume is not in the table. */
static int write_pages(struct lc_core *core, u8 id)
{
	struct lc_flusher flusher = {lc_meta_flush_store, NULL, core->meta.ssd};
	struct lc_meta *m = &core->meta;
	int err;

	m->volumes[id] = (struct lc_volume_entry){0};
	err = lc_meta_write(m, &core->lock, lc_volume_page(id), flusher);
	for (u32 i = 0; i < m->bad.used; i++) {
		u64 key = m->bad.entries[i].key;

		if (key && !m->volumes[lc_key_volume(key)].id)
			lc_bad_clear(&m->bad, lc_key_volume(key), lc_key_block(key), LC_MASK_FULL);
	}
	for (u32 i = 0; i < LC_NR_BAD_PAGES && !err; i++)
		if (m->bad.changed[i])
			err = lc_meta_write(m, &core->lock, LC_PAGE_BAD + i, flusher);
	return err;
}

static int forget(struct lc_inspect *in, const char *name, bool lose, struct lc_forgotten *out,
		  struct lc_error *err)
{
	char dirty[LC_COUNT_BYTES], lost[LC_COUNT_BYTES];
	struct lc_core *core = &in->core;
	struct lc_volume_entry *v;
	int ret;

	if (in->meta_error)
		return lc_fail(err, in->meta_error, "%s", in->meta_text.text);
	v = find(&core->meta, name);
	if (!v)
		return lc_fail(err, -ENOENT, "%s: the cache knows no volume %s: see logcachectl dump",
			       in->ssd->name, lc_volume_shown(name));
	out->size_bytes = v->size_bytes;
	if (in->nr_lost)
		return lc_fail(err, -EUCLEAN,
			       "%s: metadata pages are damaged: see logcachectl check and repair first",
			       in->ssd->name);
	ret = lc_inspect_log(in, NULL, NULL, err);
	if (!ret && in->log_error)
		ret = lc_fail(err, in->log_error, "%s; see logcachectl repair first",
			      in->log_text.text);
	if (ret)
		return ret;
	v = find(&core->meta, name); /* it was loaded again */
	out->dirty_blocks = core->ring.dirty_of[v->id] + core->ring.zeros.blocks_of[v->id];
	out->lost_blocks = lost_blocks_of(&core->meta.bad, v->id);
	if (!lose && (out->dirty_blocks || out->lost_blocks))
		return lc_fail(err, -EBUSY,
			       "%s: volume %s has %s not written back to its backing store yet, and %s already: "
			       "nothing was changed",
			       in->ssd->name, lc_volume_shown(name),
			       lc_count_text(dirty, out->dirty_blocks, "block"),
			       lc_count_text(lost, out->lost_blocks, "lost block"));
	/* From here on it is written, as at an opening: what was read is durable. */
	core->meta.ssd = in->ssd;
	ret = write_pages(core, v->id);
	if (ret)
		return lc_fail(err, ret, "%s: cannot write the metadata of the cache: %s",
			       in->ssd->name, strerror(-ret));
	return 0;
}

int lc_forget(struct lc_store *ssd, const char *name, bool lose, struct lc_forgotten *out,
	      struct lc_error *err)
{
	struct lc_inspect *in;
	int ret;

	*out = (struct lc_forgotten){0};
	/* What we are about to read is to be durable, as when it is opened. */
	ret = lc_store_flush(ssd);
	if (ret)
		return lc_fail(err, ret, "%s: flush fails: %s", ssd->name, strerror(-ret));
	ret = lc_inspect_open(ssd, &in, err);
	if (ret)
		return ret;
	ret = forget(in, name, lose, out, err);
	lc_inspect_close(in);
	return ret;
}
