/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.c - what clients do: random reads, writes and flushes, and the verification of everything.
 *
 * Requests overlap, straddle blocks and hit the same few blocks on purpose. A buffer that was
 * written is changed as soon as lc_write has returned: the engine has no claim to it any more.
 * Client 0 alone uses the byte regions (oracle_bytes.h).
 */
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

#define MISALIGN_MAX 64u

void clients_create(struct history *h)
{
	u32 i;

	for (i = 0; i < CLIENTS_MAX; i++) {
		h->clients[i].history = h;
		h->clients[i].number = i;
		if (posix_memalign((void **)&h->clients[i].memory, LC_BLOCK,
				   SIM_IO_MAX + LC_BLOCK + MISALIGN_MAX))
			abort();
	}
}

void durable_at(unsigned volume, u32 tick)
{
	oracle_durable(volume, tick);
	bytes_durable(volume, tick);
}

u8 *client_buffer(const struct client *c)
{
	return c->memory + (sim_one_in(4) ? sim_below(MISALIGN_MAX) : 0);
}

/* --- where and how much --- */

void draw_range(struct client *c, unsigned volume, u32 *sector, u32 *nr)
{
	const struct workload *w = &c->load;
	u32 all = c->history->nr_sectors[volume], kind = sim_below(100);

	if (kind < w->big_percent)
		*nr = sim_between(64, SIM_IO_MAX / LC_SECTOR);
	else if (w->single)
		*nr = LC_SECTORS_PER_BLOCK;
	else if (kind < 45)
		*nr = sim_between(1, 2 * LC_SECTORS_PER_BLOCK);
	else if (kind < 85)
		*nr = LC_SECTORS_PER_BLOCK * sim_between(1, 4);
	else
		*nr = sim_between(1, 64);
	if (*nr > all)
		*nr = all;
	if (sim_below(100) < w->hot_percent)
		*sector = (w->hot_block + sim_below(w->hot_blocks)) * LC_SECTORS_PER_BLOCK;
	else if (w->sequential)
		*sector = c->cursor;
	else
		*sector = sim_below(all);
	if (w->single || sim_one_in(2)) /* whole blocks */
		*sector = *sector / LC_SECTORS_PER_BLOCK * LC_SECTORS_PER_BLOCK;
	else if (sim_one_in(2))
		*sector += sim_below(LC_SECTORS_PER_BLOCK);
	*sector %= all;
	if (*sector + *nr > all)
		*nr = all - *sector;
	if (*nr > c->history->limits.sectors)
		*nr = c->history->limits.sectors;
	c->cursor = (*sector + *nr) % all;
}

/* --- operations on sectors --- */

static void do_write(struct client *c, unsigned volume)
{
	struct history *h = c->history;
	bool fua = sim_below(100) < c->load.fua_percent;
	u8 *buf = client_buffer(c);
	u32 sector, nr, version, i;
	int r;

	draw_range(c, volume, &sector, &nr);
	if (nr * LC_SECTOR >= 512u << 10)
		h->covered[COVER_BIG_WRITE] = true;
	version = oracle_write_submit(volume, sector, nr, fua, buf);
	r = lc_write(volume_of(h, volume), buf, nr * LC_SECTOR, (u64)sector * LC_SECTOR,
		     fua ? LC_FUA : 0);
	for (i = 0; i < nr; i++)
		buf[i * LC_SECTOR + 100] ^= 0x55;
	oracle_write_done(version, r);
}

static void do_read(struct client *c, unsigned volume)
{
	u8 *buf = client_buffer(c);
	u32 sector, nr, ticket;
	int r;

	draw_range(c, volume, &sector, &nr);
	ticket = oracle_read_submit(buf, nr);
	r = lc_read(volume_of(c->history, volume), buf, nr * LC_SECTOR, (u64)sector * LC_SECTOR);
	oracle_read_done(ticket, volume, sector, nr, buf, r);
}

static void keep_promise(struct oracle_promise p)
{
	oracle_kept(p);
	if (p.tick && !p.loose)
		bytes_durable(ORACLE_ALL_VOLUMES, p.tick);
}

static void do_flush(struct client *c, unsigned volume)
{
	struct oracle_promise promise;
	u32 tick = oracle_tick();
	int r;

	promise = oracle_promise(tick);
	sim_trace("flush submit (tick %u)", tick);
	r = lc_client_flush(volume_of(c->history, volume), &c->connections[volume]);
	sim_trace("flush of %u done: %d", volume, r);
	if (!r) {
		durable_at(volume, tick);
		keep_promise(promise);
	} else if (!c->history->may_fail)
		sim_fail("a flush failed with %d, but no store did", r);
}

static void do_drain(struct client *c)
{
	struct oracle_promise promise;
	u32 tick = oracle_tick();
	int r;

	promise = oracle_promise(tick);
	sim_trace("drain (tick %u)", tick);
	r = lc_cache_drain(c->history->cache);
	sim_trace("drained: %d", r);
	if (r == -EBUSY && c->history->switches)
		return;
	if (!r && !promise.loose)
		keep_promise(promise);
	else if (r && !c->history->may_fail)
		sim_fail("a drain failed with %d, but no store did", r);
}

static void do_stats(struct client *c)
{
	struct lc_stats st;

	lc_cache_stats(c->history->cache, &st);
	history_covers(c->history, &st);
	c->history->covered[COVER_ZEROS_MANY] |= st.pending_zero_blocks >= 40;
	if (st.durable_seq > st.seq || st.tail_id > st.head_id ||
	    st.dirty_blocks > st.cached_blocks || st.cached_blocks > st.capacity_blocks)
		sim_fail("statistics make no sense: seq %llu durable %llu, head %llu tail %llu, "
			 "blocks %llu "
			 "cached %llu dirty %llu",
			 (unsigned long long)st.seq, (unsigned long long)st.durable_seq,
			 (unsigned long long)st.head_id, (unsigned long long)st.tail_id,
			 (unsigned long long)st.capacity_blocks,
			 (unsigned long long)st.cached_blocks, (unsigned long long)st.dirty_blocks);
}

/* --- the byte region --- */

static void do_bytes(struct client *c, unsigned volume)
{
	struct history *h = c->history;
	u8 *buf = client_buffer(c);
	u32 len = bytes_len(volume), at, n;
	struct lc_volume *v = volume_of(h, volume);
	int r;

	if (!bytes_settled(volume)) {
		verify_bytes(h, volume, buf);
		return;
	}
	at = sim_below(len);
	n = sim_one_in(2) ? sim_between(1, 600) : sim_between(1, len);
	if (n > len - at)
		n = len - at;
	if (sim_one_in(6) && do_whole(c, volume, sim_one_in(2)))
		return;
	if (sim_one_in(5) && bytes_may_write(volume)) {
		do_zero_bytes(c, volume, at, n, sim_one_in(2));
		return;
	}
	if (sim_one_in(3) || !bytes_may_write(volume)) {
		memset(buf, 0xa5, n);
		r = lc_read(v, buf, n, bytes_offset(volume) + at);
		if (!r)
			bytes_check(volume, at, n, buf, "read");
		else if (!h->may_fail)
			sim_fail("a read of %u bytes failed with %d, but no store did", n, r);
	} else {
		bool fua = sim_below(100) < c->load.fua_percent;

		bytes_write_submit(volume, at, n, fua, buf);
		r = lc_write(v, buf, n, bytes_offset(volume) + at, fua ? LC_FUA : 0);
		if (r && !h->may_fail)
			sim_fail("a write of %u bytes failed with %d, but no store did", n, r);
		memset(buf, 0x5a, n);
		bytes_write_done(volume, r);
	}
}

/* --- a client's life --- */

static void client_main(void *arg)
{
	struct client *c = arg;
	struct history *h = c->history;
	const struct workload *w = &c->load;
	u32 total = w->write + w->read + w->flush + w->think + w->bytes + w->zero + w->trim +
		    w->extent;
	u32 n;

	for (n = 0; n < h->nr_served; n++)
		lc_client_begin(volume_of(h, h->served[n]), &c->connections[h->served[n]]);
	for (n = 0; n < c->nr_ops; n++) {
		unsigned volume = h->served[sim_below(h->nr_served)];
		u32 k = sim_below(total);

		h->nr_ops++;
		if (h->state == LC_CACHE_ATTACHING && sim_one_in(3))
			switch_watch(h);
		if (w->drains && sim_below(1000) < w->drains)
			do_drain(c);
		else if (sim_one_in(50))
			do_stats(c);
		else if (k < w->write)
			do_write(c, volume);
		else if (k < w->write + w->read)
			do_read(c, volume);
		else if (k < w->write + w->read + w->flush)
			do_flush(c, volume);
		else if (k < w->write + w->read + w->flush + w->think)
			sim_sleep(1 + sim_log_between(1, w->think_max_ns));
		else if ((k -= w->write + w->read + w->flush + w->think) < w->zero)
			do_zero(c, volume);
		else if (k < w->zero + w->trim)
			do_trim(c, volume);
		else if (k < w->zero + w->trim + w->extent)
			do_extent(c, volume);
		else if (c->number == 0)
			do_bytes(c, volume);
		else
			do_read(c, volume);
	}
}

void clients_run(struct history *h)
{
	static const char *const names[CLIENTS_MAX] = {"client0", "client1", "client2",
						       "client3", "client4", "client5"};
	struct fiber *fibers[CLIENTS_MAX];
	u32 i, nr = h->nr_clients;

	for (i = 0; i < nr; i++) {
		struct client *c = &h->clients[i];

		c->load = h->load;
		c->nr_ops = h->ops_per_client;
		c->cursor = 0;
		if (h->scenario == SCENARIO_ANY &&
		    sim_one_in(4)) /* one that is different from the others */
			workload_draw(&c->load, h->nr_sectors[0] / LC_SECTORS_PER_BLOCK + 1);
		if (!h->load.flush && h->scenario == SCENARIO_ANY)
			c->load.flush = c->load.fua_percent = 0;
		fibers[i] = sim_fiber_start(names[i], client_main, c);
	}
	if (h->switches)
		switch_start(h);
	for (i = 0; i < nr; i++)
		sim_fiber_join(fibers[i]);
	if (h->switches)
		switch_finish(h);
}
