/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * content.h - what is in a sector that a client wrote: {magic, volume and sector, version, seed} and a filler that
 * depends on all of these, so that a mixture of two versions is recognised.
 *
 * A sector full of zeros says nothing of where it comes from: nobody wrote it yet, or any of the operations that
 * zeroed it. oracle.h says how these are told apart, as far as that is possible.
 */
#ifndef LOGCACHE_SIM_CONTENT_H
#define LOGCACHE_SIM_CONTENT_H

#include "logcache/types.h"

#define CONTENT_ZEROS (UINT32_MAX - 1)	/* instead of a version */
#define CONTENT_BROKEN (UINT32_MAX - 2) /* nothing that was ever written there */

void content_begin(u64 seed);
void content_fill(u8 *buf, unsigned volume, u32 sector, u32 version);
/*
 * Which version is this? NR_VERSIONS is one more than the newest. With WHERE, which describes the occasion, the
 * history fails if it is none, or somebody else's; without, the answer is CONTENT_BROKEN.
 */
u32 content_parse(const u8 *buf, unsigned volume, u32 sector, u32 nr_versions, const char *where);

#endif
