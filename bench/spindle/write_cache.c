/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write_cache.c - see write_cache.h.
 */
#include "write_cache.h"

#include <assert.h>
#include <stdlib.h>

int write_cache_init(struct write_cache *w, u64 max_bytes)
{
	u32 nr = (u32)(max_bytes / LC_BLOCK);

	*w = (struct write_cache){.max_bytes = max_bytes};
	if (!max_bytes)
		return 0;
	w->nr_buckets = 2 * nr + 1;
	w->pool = calloc(nr, sizeof(*w->pool));
	w->buckets = calloc(w->nr_buckets, sizeof(struct cached_write *));
	if (!w->pool || !w->buckets) {
		write_cache_destroy(w);
		return -ENOMEM;
	}
	for (u32 i = 0; i < nr; i++) {
		w->pool[i].chain = w->free;
		w->free = &w->pool[i];
	}
	return 0;
}

void write_cache_destroy(struct write_cache *w)
{
	free(w->pool);
	free(w->buckets);
	*w = (struct write_cache){0};
}

static struct cached_write **bucket(const struct write_cache *w, u64 offset_bytes)
{
	u64 hash = (offset_bytes / LC_SECTOR) * 0x9e3779b97f4a7c15u;

	return &w->buckets[(hash >> 32) % w->nr_buckets];
}

static struct cached_write *find(const struct write_cache *w, u64 offset_bytes, u64 len_bytes)
{
	struct cached_write *c;

	if (!w->max_bytes)
		return NULL;
	for (c = *bucket(w, offset_bytes); c; c = c->chain)
		if (c->offset_bytes == offset_bytes && c->len_bytes >= len_bytes)
			return c;
	return NULL;
}

bool write_cache_has(const struct write_cache *w, u64 offset_bytes, u64 len_bytes)
{
	return find(w, offset_bytes, len_bytes);
}

bool write_cache_put(struct write_cache *w, u64 offset_bytes, u64 len_bytes)
{
	struct cached_write *c = find(w, offset_bytes, len_bytes);
	struct cached_write **head;

	if (c)
		return true;
	if (!w->free || w->bytes + len_bytes > w->max_bytes)
		return false;
	c = w->free;
	w->free = c->chain;
	head = bucket(w, offset_bytes);
	*c = (struct cached_write){
		.offset_bytes = offset_bytes,
		.len_bytes = len_bytes,
		.seq = ++w->seq,
		.older = w->newest,
		.chain = *head,
	};
	*head = c;
	*(w->newest ? &w->newest->newer : &w->oldest) = c;
	w->newest = c;
	w->bytes += len_bytes;
	return true;
}

void write_cache_take(struct write_cache *w, struct cached_write *c)
{
	struct cached_write **link = bucket(w, c->offset_bytes);

	while (*link != c)
		link = &(*link)->chain;
	*link = c->chain;
	*(c->older ? &c->older->newer : &w->oldest) = c->newer;
	*(c->newer ? &c->newer->older : &w->newest) = c->older;
}

void write_cache_release(struct write_cache *w, struct cached_write *c)
{
	assert(w->bytes >= c->len_bytes);
	w->bytes -= c->len_bytes;
	c->chain = w->free;
	w->free = c;
}
