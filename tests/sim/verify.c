/* SPDX-License-Identifier: BSD-3-Clause */
/* verify.c - read everything, while no client does anything, and let the oracles judge. */
#include <string.h>

#include "history.h"
#include "oracle_bytes.h"

void verify_bytes(struct history *h, unsigned volume, u8 *buf)
{
	u32 len = bytes_len(volume);
	int r;

	memset(buf, 0xa5, len);
	r = lc_read(volume_of(h, volume), buf, len, bytes_offset(volume));
	if (r) {
		if (!h->may_fail)
			sim_fail("a read of the byte region failed with %d, but no store did", r);
		h->lost = true;
		return;
	}
	if (bytes_settled(volume))
		bytes_check(volume, 0, len, buf, "read again");
	else
		bytes_judge(volume, buf);
}

/* A hole reads as zeros. */
static void check_hole(struct history *h, unsigned volume, u64 at, u64 len)
{
	u8 *buf = h->clients[0].memory;
	u64 end = at + len;

	while (at < end) {
		u32 nr = end - at < SIM_IO_MAX ? (u32)(end - at) : SIM_IO_MAX, i;

		memset(buf, 0xa5, nr);
		if (lc_read(volume_of(h, volume), buf, nr, at))
			return; /* verification sees to that */
		for (i = 0; i < nr; i++)
			if (buf[i])
				sim_fail("byte %llu of volume %u is in a hole, and is not zero",
					 (unsigned long long)at + i, volume);
		at += nr;
	}
}

/* Extents cover the volume. */
static void verify_extents(struct history *h, unsigned volume)
{
	struct lc_volume *v = volume_of(h, volume);
	u64 size = lc_volume_size_bytes(v), at = 0;
	u32 largest = sim_one_in(2) ? UINT32_MAX : sim_log_between(LC_BLOCK, SIM_IO_MAX);

	while (at < size) {
		u64 len = size - at < largest ? size - at : largest;
		struct lc_extent e = {.len_bytes = 0};
		int r = lc_extent(v, len, at, &e);

		if (r && h->may_fail)
			return;
		if (r || !e.len_bytes || e.len_bytes > len)
			sim_fail("lc_extent of %llu bytes at %llu: %d, %llu bytes",
				 (unsigned long long)len, (unsigned long long)at, r,
				 (unsigned long long)e.len_bytes);
		h->covered[COVER_HOLE] |= e.hole;
		if (e.hole)
			check_hole(h, volume, at, e.len_bytes);
		at += e.len_bytes;
	}
}

void verify_all(struct history *h)
{
	struct client *c = &h->clients[0];
	u32 largest = sim_log_between(1, SIM_IO_MAX / LC_SECTOR), nr;
	unsigned volume, i;
	u32 x;

	if (largest < 16 && sim_one_in(2))
		largest = SIM_IO_MAX / LC_SECTOR;
	for (i = 0; i < h->nr_served; i++) {
		struct lc_volume *v;

		volume = h->served[i];
		v = volume_of(h, volume);
		for (x = 0; x < h->nr_sectors[volume]; x += nr) {
			u8 *buf = client_buffer(c);
			int r;

			nr = sim_between(1, largest);
			if (nr > h->nr_sectors[volume] - x)
				nr = h->nr_sectors[volume] - x;
			memset(buf, 0xa5, nr * LC_SECTOR);
			r = lc_read(v, buf, nr * LC_SECTOR, (u64)x * LC_SECTOR);
			oracle_verify_read(volume, x, nr, buf, r);
			h->lost |= r != 0;
		}
		verify_bytes(h, volume, c->memory);
		if (sim_one_in(3))
			verify_extents(h, volume);
	}
	oracle_verify_judge();
}
