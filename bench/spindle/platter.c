/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter.c - see platter.h.
 */
#include "platter.h"

#include <assert.h>
#include <math.h>

struct platter_sheet platter_7200rpm(u64 size_bytes)
{
	return (struct platter_sheet){
		.size_bytes = size_bytes,
		.rate_bytes_per_s = 180000000,
		.revolution_ns = 60 * LC_NS_PER_S / 7200,
		.next_track_ns = 800000,
		.average_seek_ns = 8500000,
		.full_stroke_ns = 16000000,
		.skew_ns = 800000,
	};
}

/* --- the arm --- */

/* seek(x) with a = 0 and b = 1. */
static double shape(double c, double x)
{
	return x <= c ? sqrt(x) : sqrt(c) + (x - c) / (2 * sqrt(c));
}

/* Its average over random pairs of tracks, whose distance x has the density 2 * (1 - x). */
static double shape_average(double c)
{
	double root = sqrt(c), rest = 1 - c;
	double up_to_c = root * c * (4.0 / 3 - 0.8 * c);
	/* with y = x - c: the integral of 2 * (rest - y) * (root + y / (2 * root)) */
	double behind = root * rest * rest + rest * rest * rest / (6 * root);

	return up_to_c + behind;
}

/*
 * The average as a share of the full stroke rises with c, from 0.45 where the arm nearly always coasts up to
 * 0.5333 where it never does: bisection finds c.
 */
#define C_LOWEST 0.05

static double share(double c)
{
	return shape_average(c) / shape(c, 1);
}

static int fit_arm(struct platter *p)
{
	const struct platter_sheet *s = &p->sheet;
	double stroke_ns = (double)s->full_stroke_ns - (double)s->next_track_ns;
	double wanted = ((double)s->average_seek_ns - (double)s->next_track_ns) / stroke_ns;
	double low = C_LOWEST, high = 1;

	if (!(stroke_ns > 0) || wanted < share(low) || wanted > share(high))
		return -EINVAL;
	for (int i = 0; i < 60; i++) {
		double middle = (low + high) / 2;

		*(share(middle) < wanted ? &low : &high) = middle;
	}
	p->c = low;
	p->sqrt_c = sqrt(p->c);
	p->b_ns = stroke_ns / shape(p->c, 1);
	return 0;
}

u64 platter_seek_ns(const struct platter *p, u64 from, u64 to)
{
	u64 tracks = from < to ? to - from : from - to;
	double x;

	if (tracks == 0)
		return 0;
	if (tracks == 1)
		return p->sheet.next_track_ns;
	x = (double)(tracks - 1) / (double)(p->nr_tracks - 2);
	x = x <= p->c ? sqrt(x) : p->sqrt_c + (x - p->c) / (2 * p->sqrt_c);
	return p->sheet.next_track_ns + (u64)(p->b_ns * x);
}

/* --- the rotation --- */

/*
 * When OFFSET_BYTES passes the head in sequential access that began at the time 0 with the first track. Modulo
 * the revolution it is the angle of a sector. All times come from differences of this: what follows
 * directly is met exactly, no rounding costs it a revolution.
 */
static u64 along_ns(const struct platter *p, u64 track, u64 in_track_bytes)
{
	return track * (p->sheet.revolution_ns + p->sheet.skew_ns) +
	       in_track_bytes * p->sheet.revolution_ns / p->track_bytes;
}

void platter_position(const struct platter *p, u64 start_ns, u64 from, u64 offset_bytes,
		      struct platter_access *a)
{
	u64 track = platter_track(p, offset_bytes);
	u64 revolution = p->sheet.revolution_ns;
	u64 target, now;

	a->seek_ns = platter_seek_ns(p, from, track);
	target = along_ns(p, track, offset_bytes % p->track_bytes) % revolution;
	now = (start_ns + a->seek_ns) % revolution;
	a->rotation_ns = target >= now ? target - now : target + revolution - now;
}

void platter_transfer(const struct platter *p, u64 offset_bytes, u64 len_bytes,
		      struct platter_access *a)
{
	u64 track = platter_track(p, offset_bytes);
	u64 end = offset_bytes + len_bytes;

	assert(len_bytes > 0);
	a->end_track = platter_track(p, end - 1);
	/* The end of a track, not the begin of the next: the arm has not moved yet. */
	a->transfer_ns = along_ns(p, a->end_track, end - a->end_track * p->track_bytes) -
			 along_ns(p, track, offset_bytes - track * p->track_bytes);
}

int platter_init(struct platter *p, const struct platter_sheet *sheet)
{
	double track;

	*p = (struct platter){.sheet = *sheet};
	if (!sheet->revolution_ns || !sheet->next_track_ns || !sheet->rate_bytes_per_s)
		return -EINVAL;
	track = (double)sheet->rate_bytes_per_s * (double)(sheet->revolution_ns + sheet->skew_ns) /
		1e9;
	p->track_bytes = (u64)(track / LC_BLOCK + 0.5) * LC_BLOCK;
	if (!p->track_bytes)
		return -EINVAL;
	p->nr_tracks = (sheet->size_bytes + p->track_bytes - 1) / p->track_bytes;
	if (p->nr_tracks < 3)
		return -EINVAL;
	return fit_arm(p);
}
