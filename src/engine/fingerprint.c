/* SPDX-License-Identifier: BSD-3-Clause */
#include "fingerprint.h"

#include <string.h>

u64 lc_sample_block(u64 size_bytes, unsigned i)
{
	return (lc_blocks_of(size_bytes) - 1) * i / (LC_NR_SAMPLES - 1);
}

/* The first sample that does not lie before a block: a whole number is at most floor(x) if it is at most x. */
static u64 first_sample_from(u64 last, u64 block)
{
	u64 i = (block * (LC_NR_SAMPLES - 1) + last - 1) / last;

	return i < LC_NR_SAMPLES ? i : LC_NR_SAMPLES;
}

u64 lc_samples_in(u64 size_bytes, u64 block, u32 nr)
{
	u64 last = lc_blocks_of(size_bytes) - 1, from, end;

	if (!last) /* all of them are the only block */
		return block == 0 && nr ? ~0ull : 0;
	from = first_sample_from(last, block);
	/* Almost always there is none. Opening asks for each block of the log: it takes no second division. */
	if (from == LC_NR_SAMPLES || lc_sample_block(size_bytes, from) >= block + nr)
		return 0;
	end = first_sample_from(last, block + nr);
	return ~0ull >> (LC_NR_SAMPLES - (end - from)) << from;
}

int lc_samples_read(struct lc_store *s, u64 size_bytes, u64 which, void *scratch,
		    u32 samples[LC_NR_SAMPLES])
{
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++) {
		u64 at = lc_sample_block(size_bytes, i) * LC_BLOCK;
		int err;

		if (!(which & 1ull << i))
			continue;
		err = lc_store_read(s, scratch, LC_BLOCK, at);
		if (err)
			return err;
		/* In a store that has grown, what lies behind its old end is not part of it. */
		if (size_bytes - at < LC_BLOCK)
			memset((u8 *)scratch + (size_bytes - at), 0, LC_BLOCK - (size_bytes - at));
		samples[i] = lc_crc32c(scratch, LC_BLOCK);
	}
	return 0;
}
