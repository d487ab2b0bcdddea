/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter.h - how long the arm and the rotation of a disk take: geometry, and nothing else.
 *
 * One platter, one head, circular tracks of equal capacity that are filled in the order of their addresses. The platter
 * turns for ever; its angle is the time modulo one revolution, so an angle is given in nanoseconds, too.
 *
 * Rotation. Track t begins at the angle t * skew: by so much later than its predecessor, that the arm has
 * just moved on when the first sector comes. So sequential access costs one revolution and one skew for
 * each track, and a track holds what makes this the sustained rate that a data sheet gives:
 *
 *	track_bytes = rate * (revolution + skew)
 *
 * (180 MB/s at 7200 rpm: 1.64 MB; while the head is over the sectors it reads 197 MB/s.)
 *
 * Seek. a + b * sqrt(distance) has two parameters, a data sheet three numbers: from track to track, on
 * average over random pairs, and over the full stroke. The square root is an arm that accelerates half of the way
 * and brakes the other half; a real one reaches its highest speed and coasts (Ruemmler and Wilkes, 1994).
 * So: the square root up to a distance c, and behind it the tangent in c. With a distance x between 0 (the next track) and
 * 1 (the full stroke)
 *
 *	seek(x) = a + b * sqrt(x)                              x <= c
 *	          a + b * (sqrt(c) + (x - c) / (2 * sqrt(c)))  x >  c
 *
 * a is the time from track to track; c and b follow from the average, which is the integral of 2 * (1 - x) * seek(x),
 * and from the full stroke. (0.8, 8.5 and 16 ms: c = 0.51, b = 14.4 ms. The bare square root from 0.8 to 16 ms has
 * an average of 8.9 ms.)
 *
 * Everything here is a pure function of a struct platter that does not change: callable from anywhere.
 */
#ifndef SPINDLE_PLATTER_H
#define SPINDLE_PLATTER_H

#include "logcache/types.h"

/* What a data sheet says. */
struct platter_sheet {
	u64 size_bytes;
	u64 rate_bytes_per_s; /* sustained */
	u64 revolution_ns;
	u64 next_track_ns;
	u64 average_seek_ns;
	u64 full_stroke_ns;
	u64 skew_ns; /* next_track_ns; 0: each change of track costs sequential access a revolution */
};

struct platter {
	struct platter_sheet sheet;
	u64 track_bytes; /* whole blocks of 4 KiB */
	u64 nr_tracks;
	double b_ns; /* see above; a is next_track_ns */
	double c;
	double sqrt_c;
};

/* A 7200 rpm drive with SIZE_BYTES. */
struct platter_sheet platter_7200rpm(u64 size_bytes);

/* -EINVAL: no such disk; the average must lie between 0.45 and 0.53 of the way from next track to full stroke. */
int platter_init(struct platter *p, const struct platter_sheet *sheet);

/* From track FROM to track TO. */
u64 platter_seek_ns(const struct platter *p, u64 from, u64 to);

static inline u64 platter_track(const struct platter *p, u64 offset_bytes)
{
	return offset_bytes / p->track_bytes;
}

/* One access: what it is made of. They follow one another. */
struct platter_access {
	u64 seek_ns;
	u64 rotation_ns;
	u64 transfer_ns; /* with the changes of track under way */
	u64 end_track;	 /* where it leaves the head */
};

/* What moving the head from track FROM, at the time START_NS, and waiting for OFFSET_BYTES takes. */
void platter_position(const struct platter *p, u64 start_ns, u64 from, u64 offset_bytes,
		      struct platter_access *a);
/* And the transfer of LEN_BYTES > 0 from there; fills in the rest of A. */
void platter_transfer(const struct platter *p, u64 offset_bytes, u64 len_bytes,
		      struct platter_access *a);

#endif
