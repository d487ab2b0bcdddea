/* SPDX-License-Identifier: BSD-3-Clause */
/* name.c - see name.h. */
#include "name.h"

#include <stdio.h>

/*
 * Decode the character at S. Returns its length in bytes, or 0 if it is not UTF-8: a stray or missing
 * continuation byte, a longer form than necessary, a surrogate, or beyond U+10FFFF.
 */
static unsigned decode(const u8 *s, u32 *character)
{
	static const u32 least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	u32 c;

	if (n == 0 || s[0] >= 0xf8)
		return 0;
	c = n == 1 ? s[0] : s[0] & (0x7f >> n);
	for (unsigned i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the closing NUL is none either */
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*character = c;
	return n;
}

bool name_is_text(const char *text)
{
	const u8 *s = (const u8 *)text;

	while (*s) {
		u32 c;
		unsigned n = decode(s, &c);

		if (n == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0))
			return false;
		s += n;
	}
	return true;
}

const char *name_text(char text[NAME_TEXT_BYTES], const char *name)
{
	if (name[0])
		snprintf(text, NAME_TEXT_BYTES, "volume '%s'", name);
	else
		snprintf(text, NAME_TEXT_BYTES, "the default export");
	return text;
}
