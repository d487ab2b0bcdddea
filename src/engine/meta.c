/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta.h"

#include <assert.h>
#include <string.h>

#define ZONE_USED_BYTES (LC_NR_PAGES * 2 * LC_BLOCK)

int lc_meta_flush_store(void *arg)
{
	return lc_store_flush(arg);
}

static u64 copy_offset_bytes(u32 page, u32 copy)
{
	return ((u64)page * 2 + copy) * LC_BLOCK;
}

/* --- format --- */

int lc_meta_format(struct lc_store *ssd, const struct lc_superblock *sb, struct lc_error *err)
{
	struct lc_page_info info = {.generation = 1};
	u8 *zone = lc_alloc(ZONE_USED_BYTES);
	int ret;

	if (!zone)
		return lc_fail(err, -ENOMEM, "%s: no memory to format the cache", ssd->name);
	lc_random(info.uuid, sizeof info.uuid);
	/* An empty volume table and an empty list of lost blocks are all zeros. */
	for (info.page = 0; info.page < LC_NR_PAGES; info.page++) {
		u8 *page = zone + copy_offset_bytes(info.page, 0);

		if (info.page == LC_PAGE_SUPERBLOCK)
			lc_superblock_encode(page, sb);
		lc_page_seal(page, &info);
		memcpy(page + LC_BLOCK, page, LC_BLOCK);
	}
	ret = lc_store_write(ssd, zone, ZONE_USED_BYTES, 0);
	if (!ret)
		ret = lc_store_flush(ssd);
	lc_free(zone, ZONE_USED_BYTES);
	if (ret)
		return lc_fail(err, ret, "%s: cannot write the metadata of a new cache: %s",
			       ssd->name, strerror(-ret));
	return 0;
}

/* --- load --- */

static int decode_superblock(struct lc_meta *m, const void *page, struct lc_error *err)
{
	const char *name = m->ssd->name;

	if (!lc_superblock_decode(page, &m->sb))
		return lc_fail(err, -EUCLEAN,
			       "%s: the superblock has a good checksum but impossible values", name);
	if (m->sb.incompat & ~LC_FEATURES_INCOMPAT)
		return lc_fail(err, -EMEDIUMTYPE,
			       "%s: the cache uses features (0x%llx) of a newer logcache: "
			       "use that version",
			       name, (unsigned long long)(m->sb.incompat & ~LC_FEATURES_INCOMPAT));
	if (m->sb.ro_compat & ~LC_FEATURES_RO_COMPAT)
		return lc_fail(err, -EMEDIUMTYPE,
			       "%s: the cache uses features (0x%llx) that only a newer logcache may "
			       "write to: use that version",
			       name, (unsigned long long)(m->sb.ro_compat & ~LC_FEATURES_RO_COMPAT));
	if (m->sb.device_blocks * LC_BLOCK > m->ssd->size_bytes)
		return lc_fail(err, -EUCLEAN,
			       "%s: the device has %llu bytes but the cache on it was made for %llu: "
			       "it was truncated, or this is an incomplete copy",
			       name, (unsigned long long)m->ssd->size_bytes,
			       (unsigned long long)m->sb.device_blocks * LC_BLOCK);
	return 0;
}

static int decode_page(struct lc_meta *m, u32 page, const void *block, struct lc_error *err)
{
	if (page == LC_PAGE_SUPERBLOCK)
		return decode_superblock(m, block, err);

	if (page < LC_PAGE_BAD) {
		u32 id = (page - LC_PAGE_VOLUMES) * LC_VOLUMES_PER_PAGE + 1;

		for (u32 i = 0; i < LC_VOLUMES_PER_PAGE && id + i <= LC_VOLUMES_MAX; i++) {
			struct lc_volume_entry *v = &m->volumes[id + i];

			if (!lc_volume_decode(block, i, v) || (v->id != 0 && v->id != id + i))
				return lc_fail(err, -EUCLEAN,
					       "%s: entry %u of the volume table has impossible values",
					       m->ssd->name, id + i);
		}
	} else {
		u32 at = (page - LC_PAGE_BAD) * LC_BAD_PER_PAGE;
		int nr = lc_bad_decode(block, m->bad.entries + at);

		if (nr < 0)
			return lc_fail(err, -EUCLEAN,
				       "%s: the list of lost blocks has impossible values",
				       m->ssd->name);
		m->bad.nr += nr;
		if (nr)
			m->bad.used = at + nr;
	}
	return 0;
}

/* Choose the newest valid copy of a page, and remember which one to overwrite first. */
static int load_page(struct lc_meta *m, u32 page, const u8 *zone, struct lc_error *err)
{
	struct lc_page_info info[2];
	bool ok[2];
	int unknown = -1;
	u32 newest;

	for (u32 i = 0; i < 2; i++) {
		enum lc_page_state s = lc_page_verify(zone + copy_offset_bytes(page, i), page,
						      &info[i]);

		ok[i] = s == LC_PAGE_OK;
		/* The superblock says whose the other pages are: what an older cache left is no page. */
		if (page != LC_PAGE_SUPERBLOCK && memcmp(info[i].uuid, m->uuid, LC_UUID_BYTES))
			ok[i] = false;
		if (s == LC_PAGE_UNKNOWN && page == LC_PAGE_SUPERBLOCK)
			unknown = i;
	}
	/* Where no copy is good, one of another version may merely have its checksum elsewhere. */
	for (u32 i = 0; i < 2 && page == LC_PAGE_SUPERBLOCK && !ok[0] && !ok[1]; i++)
		if (lc_page_recognize(zone + copy_offset_bytes(page, i)) &&
		    info[i].version != LC_FORMAT_VERSION)
			unknown = i;
	if (unknown >= 0) {
		return lc_fail(err, -EMEDIUMTYPE,
			       "%s: the cache has format version %u, this logcache knows version %u: "
			       "use the version that made it, or format=force to lose its content",
			       m->ssd->name, info[unknown].version, LC_FORMAT_VERSION);
	}
	if (ok[0] && ok[1] && page == LC_PAGE_SUPERBLOCK &&
	    memcmp(info[0].uuid, info[1].uuid, LC_UUID_BYTES))
		return lc_fail(err, -EUCLEAN, "%s: the two superblocks belong to different caches",
			       m->ssd->name);
	if (!ok[0] && !ok[1])
		return lc_fail(err, page == LC_PAGE_SUPERBLOCK ? -EMEDIUMTYPE : -EUCLEAN,
			       "%s: both copies of metadata page %u are damaged%s; nothing was changed",
			       m->ssd->name, page,
			       page == LC_PAGE_SUPERBLOCK ?
				       ", or this is no logcache: format=force makes a new cache of it, which "
				       "gives up what it held" :
				       "");

	newest = ok[1] && (!ok[0] || info[1].generation > info[0].generation);
	m->generation[page] = info[newest].generation;
	m->next[page] = !newest;
	m->lonely[page] = !ok[!newest] || info[!newest].generation != info[newest].generation;
	if (page == LC_PAGE_SUPERBLOCK)
		memcpy(m->uuid, info[newest].uuid, LC_UUID_BYTES);
	return decode_page(m, page, zone + copy_offset_bytes(page, newest), err);
}

int lc_meta_load(struct lc_meta *m, struct lc_store *ssd, struct lc_error *err)
{
	u8 *zone;
	int ret;

	*m = (struct lc_meta){.ssd = ssd};
	lc_cond_init(&m->idle);
	if (ssd->size_bytes < ZONE_USED_BYTES)
		return lc_fail(err, -EMEDIUMTYPE, "%s: too small to hold a cache", ssd->name);
	m->page = lc_alloc(LC_BLOCK);
	m->volumes = lc_alloc((LC_VOLUMES_MAX + 1) * sizeof *m->volumes);
	zone = lc_alloc(ZONE_USED_BYTES);
	ret = lc_bad_init(&m->bad);
	if (!m->page || !m->volumes || !zone || ret) {
		ret = lc_fail(err, -ENOMEM, "%s: no memory to read the metadata", ssd->name);
		goto out;
	}
	ret = lc_store_read(ssd, zone, ZONE_USED_BYTES, 0);
	if (ret) {
		lc_fail(err, ret,
			"%s: cannot read the metadata of the cache: %s; check it, and the kernel's log",
			ssd->name, strerror(-ret));
		goto out;
	}
	for (u32 page = 0; page < LC_NR_PAGES && !ret; page++)
		ret = load_page(m, page, zone, err);
out:
	lc_free(zone, ZONE_USED_BYTES);
	return ret;
}

void lc_meta_destroy(struct lc_meta *m)
{
	lc_free(m->page, LC_BLOCK);
	lc_free(m->volumes, (LC_VOLUMES_MAX + 1) * sizeof *m->volumes);
	lc_bad_destroy(&m->bad);
	lc_cond_destroy(&m->idle);
}

/* --- write --- */

static void encode_page(struct lc_meta *m, u32 page)
{
	memset(m->page, 0, LC_BLOCK);
	if (page == LC_PAGE_SUPERBLOCK) {
		lc_superblock_encode(m->page, &m->sb);
	} else if (page < LC_PAGE_BAD) {
		u32 id = (page - LC_PAGE_VOLUMES) * LC_VOLUMES_PER_PAGE + 1;

		for (u32 i = 0; i < LC_VOLUMES_PER_PAGE && id + i <= LC_VOLUMES_MAX; i++)
			if (m->volumes[id + i].id)
				lc_volume_encode(m->page, i, &m->volumes[id + i]);
	} else {
		lc_bad_encode(m->page, m->bad.entries + (page - LC_PAGE_BAD) * LC_BAD_PER_PAGE,
			      LC_BAD_PER_PAGE);
		m->bad.changed[page - LC_PAGE_BAD] = false;
	}
}

int lc_meta_write(struct lc_meta *m, struct lc_mutex *lock, u32 page, struct lc_flusher flusher)
{
	struct lc_page_info info = {.page = page};
	int err = 0;

	lc_mutex_lock(lock);
	while (m->busy)
		lc_cond_wait(&m->idle, lock, LC_FOREVER);
	m->busy = true;
	encode_page(m, page);
	lc_mutex_unlock(lock);

	memcpy(info.uuid, m->uuid, LC_UUID_BYTES);
	info.generation = ++m->generation[page];
	lc_page_seal(m->page, &info);
	if (flusher.settle)
		err = flusher.settle(flusher.arg);
	for (u32 i = 0; i < 2 && !err; i++) {
		err = lc_store_write(m->ssd, m->page, LC_BLOCK,
				     copy_offset_bytes(page, m->next[page]));
		if (LC_MUTANT(one_superblock_copy) && i)
			break;
		if (!err && !LC_MUTANT(superblock_without_flush))
			err = flusher.flush(flusher.arg);
		if (!err)
			m->next[page] = !m->next[page]; /* this copy is good now: spare it */
	}

	lc_mutex_lock(lock);
	m->busy = false;
	if (!err)
		m->lonely[page] = false;
	if (err && page >= LC_PAGE_BAD)
		m->bad.changed[page - LC_PAGE_BAD] = true;
	lc_cond_broadcast(&m->idle);
	lc_mutex_unlock(lock);
	return err;
}
