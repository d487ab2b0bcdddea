/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout.h - where the fields of the structures on disk are (docs/format.md), for those who damage
 * them.
 *
 * The engine's own room for this is src/engine/format.c, which writes only what is right. Here a
 * field is an offset and a length, chosen by a number that a fuzzer picked.
 */
#ifndef LOGCACHE_FUZZ_LAYOUT_H
#define LOGCACHE_FUZZ_LAYOUT_H

#include "format.h"

enum kind { KIND_OTHER, KIND_PAGE, KIND_RECORD, KIND_SUMMARY };

struct field {
	u16 at, bytes;
};

/* By its magic alone. */
enum kind layout_kind(const u8 *block);
void layout_set_kind(u8 *block, enum kind kind);
/*
 * Field NUMBER of whatever BLOCK is; any number is one. A block of another kind counts as a
 * record.
 */
struct field layout_field(const u8 *block, unsigned number);

u64 layout_get(const u8 *block, struct field f);
void layout_put(u8 *block, struct field f, u64 value);

/* Make the crc of a block that has one of our magics right. */
void layout_reseal(u8 *block);

/*
 * A number with which arithmetic goes wrong, or a small one; R is a random number, NOW the present
 * value.
 */
u64 layout_value(u64 r, u64 now);

/* One random change of one field; R is a random number. */
void layout_mutate(u8 *block, u64 r);

/* splitmix64 */
u64 layout_random(u64 *state);

#endif
