/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * image.h - cache images, described by a few bytes: a valid image and what was done to it.
 *
 * An input is one struct image_head and any number of struct image_step. The head chooses a
 * template, which the engine itself wrote when the process started (it formats, writes, drains,
 * crashes, reopens; see `templates` in image.c), and says how the cache is opened. Each step
 * damages the image a little: a field of a header, a segment that is swapped with another, a
 * record forged from nothing. At the end checksums are made right, or some of them, or none, so
 * that recovery is reached.
 *
 * Every sequence of bytes is a valid description, and a step means the same wherever it stands:
 * what libFuzzer does to bytes (erase, repeat, cross over) makes sense here too. Integers are
 * little-endian.
 */
#ifndef LOGCACHE_FUZZ_IMAGE_H
#define LOGCACHE_FUZZ_IMAGE_H

#include "layout.h"
#include "world.h"

#define IMAGE_VOLUMES 2u
#define IMAGE_STEPS_MAX 64u

/* image_head.fix: what is made right at the end */
#define FIX_BLOCKS 1u  /* the crc of each block that has one of our magics */
#define FIX_DATA 2u    /* the crc of each data block in the entry that names it */
#define FIX_SAMPLES 4u /* the fingerprints of the backing stores */

/* image_head.specs: what the cache is opened with */
#define SPEC_WITHOUT_B 1u /* the volume "b" is not given */
#define SPEC_GROWN 2u	  /* the backing store of "b" has grown a little */
#define SPEC_SHRUNK 4u	  /* the other one has shrunk */
#define SPEC_4K 8u	  /* logical blocks of 4096 bytes */
#define SPEC_SWAPPED 16u  /* "b" is given first */
#define SPEC_NEW 32u	  /* "b" is called "new" */

/* image_head.disk */
#define DISK_SLOW_ZERO 1u  /* the backing stores zero no faster than they write, */
#define DISK_NO_PUNCH 2u   /* they give no space back, */
#define DISK_ZERO_FAILS 4u /* and zeroing fails */
#define DISK_ZEROES 8u	   /* the clients zero and trim */

/* image_head.life */
#define LIFE_NO_DRAIN 1u
#define LIFE_NO_WRITEBACK 2u
#define LIFE_NEVER_START 4u
#define LIFE_ABANDON 8u /* ends with a crash */
#define LIFE_FEW_BUFFERS 16u
#define LIFE_IDLE 32u /* leave time to write back */
#define LIFE_NO_WRITES 64u
#define LIFE_MANY_WRITES 128u /* the log laps */

struct image_head {
	u8 template;
	u8 fix;
	u8 specs;
	u8 life;
	u8 seed;	  /* of the scheduler */
	u8 unreadable;	  /* place of the ring with a block that cannot be read; 0: none */
	u8 unreadable_at; /* position in it */
	u8 disk;
};

enum image_op {
	IMAGE_SET,	  /* field of block (kind, place, position) = value */
	IMAGE_ADD,	  /* += value */
	IMAGE_XOR,	  /* ^= 1 << value */
	IMAGE_COPY_FIELD, /* = the same field of block (mode, aux) */
	IMAGE_RAW,	  /* eight bytes of value at byte aux of the block */
	IMAGE_FLIP,	  /* bit aux of the block */
	IMAGE_SWAP,	  /* places `place` and `position` */
	IMAGE_COPY,	  /* place `place` to `position` */
	IMAGE_ERASE,	  /* fill a place with a byte */
	IMAGE_COPY_BLOCK, /* block (kind, place, position) to block (mode, aux) */
	IMAGE_LAP,	  /* a place's segment id += value */
	IMAGE_ALL,	  /* field of all records of a place += value */
	IMAGE_RECORD,	  /* forge a record at (place, position) */
	IMAGE_SUMMARY,	  /* write the summary that the place's records ask for */
	IMAGE_FIX,	  /* make checksums right now: what comes after tears them again */
	IMAGE_OVERLAY,	  /* the next 1 + mode % 16 steps lie over the block from byte aux on */
	IMAGE_LOST,	  /* a page of lost blocks: aux of volume `field`, from value on */
	IMAGE_ZERO,	  /* entry `field` of a record zeroes value blocks; see make_zero */
	IMAGE_NR_OPS
};

/* How a step names a block. */
enum image_kind {
	KIND_SB,      /* copy `place` of the superblock */
	KIND_VOLUMES, /* copy `place` of the volume page `position` */
	KIND_LOST,    /* copy `place` of the lost-block page `position` */
	KIND_HEADER,  /* header `position` of place `place` */
	KIND_LAST,    /* the last block of the place: its summary */
	KIND_BLOCK,   /* block `position` of the place */
	KIND_ANY,     /* block 256 * place + position of the device */
	KIND_BOTH_SB, /* both superblocks */
	IMAGE_NR_KINDS
};

struct image_step {
	u8 op, kind, place, position, field, mode;
	u16 aux;
	u64 value;
};

_Static_assert(sizeof(struct image_head) == 8 && sizeof(struct image_step) == 16, "no padding");

struct image_template {
	const char *what;
	u32 segment_blocks, nr_segments;
	const char *lives; /* see image.c */
	u64 ssd_bytes;
	u8 *ssd, *backing[IMAGE_VOLUMES]; /* STORE_BLOCKS_MAX blocks each */
};

#define IMAGE_NR_TEMPLATES 10u

/*
 * Let the engine write all templates. SSD and BACKING are the stores that it uses for that, and
 * hereafter.
 */
void image_init(struct fuzz_store *ssd, struct fuzz_store backing[IMAGE_VOLUMES]);

/* The sizes that the backing stores have in the templates. */
u64 image_backing_bytes(unsigned volume);

/*
 * Make the stores what the N bytes at DATA describe, and copy the head to HEAD. Returns the
 * template.
 */
const struct image_template *image_build(const u8 *data, size_t n, struct image_head *head);

#endif
