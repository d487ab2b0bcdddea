/* SPDX-License-Identifier: BSD-3-Clause */
/* size.c - see size.h. */
#include "size.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

/* Beyond so many of a unit nobody counts them. */
#define EXACT_MAX 9999u

const char *size_text(char text[SIZE_TEXT_BYTES], u64 bytes)
{
	static const char suffixes[] = " KMGTPE";
	u64 unit = 1;
	unsigned i = 0;

	/* Exactly, if the largest unit that divides it is not too small for it. */
	while (bytes && i < 6 && bytes % (unit * 1024) == 0) {
		unit *= 1024;
		i++;
	}
	if (bytes / unit <= EXACT_MAX) {
		snprintf(text, SIZE_TEXT_BYTES, i ? "%" PRIu64 "%c" : "%" PRIu64, bytes / unit,
			 suffixes[i]);
		return text;
	}
	while (bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	snprintf(text, SIZE_TEXT_BYTES, "%.1f %ciB", (double)bytes / unit, suffixes[i]);
	return text;
}

/* Digits at *TEXT, which is moved behind them. False: there are none, or too many. */
static bool take_digits(const char **text, u64 *number)
{
	const char *s = *text;
	u64 n = 0;

	for (; *s >= '0' && *s <= '9'; s++) {
		u64 digit = *s - '0';

		if (n > (INT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	if (s == *text)
		return false;
	*text = s;
	*number = n;
	return true;
}

bool parse_number(const char *text, u64 *number)
{
	u64 n;

	if (!take_digits(&text, &n) || *text)
		return false;
	*number = n;
	return true;
}

static bool parse_suffix(const char *text, u64 *unit)
{
	static const struct {
		char small, large;
		u64 unit;
	} suffixes[] = {
		{'k', 'K', 1ull << 10}, {'m', 'M', 1ull << 20}, {'g', 'G', 1ull << 30},
		{'t', 'T', 1ull << 40}, {'p', 'P', 1ull << 50}, {'e', 'E', 1ull << 60},
		{'s', 'S', LC_SECTOR},
	};

	*unit = 1;
	if (!*text)
		return true;
	for (unsigned i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		if (*text != suffixes[i].small && *text != suffixes[i].large)
			continue;
		*unit = suffixes[i].unit;
		return text[1] == '\0';
	}
	return false;
}

/* Behind the point. */
#define FRACTION_DIGITS_MAX 6

bool parse_size(const char *text, u64 *bytes)
{
	u64 whole, fraction = 0, of = 1, unit;

	if (!take_digits(&text, &whole))
		return false;
	if (*text == '.') {
		const char *point = text++;

		if (!take_digits(&text, &fraction) || text - point > FRACTION_DIGITS_MAX + 1)
			return false;
		while (++point < text)
			of *= 10;
	}
	if (!parse_suffix(text, &unit) || __builtin_mul_overflow(fraction, unit, &fraction) ||
	    fraction % of)
		return false;
	fraction /= of;
	if (whole > (INT64_MAX - fraction) / unit)
		return false;
	*bytes = whole * unit + fraction;
	return true;
}
