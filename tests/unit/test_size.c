/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_size.c - numbers and sizes as people write them (src/plugin/size.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* before cmocka.h, which needs them */
#include <cmocka.h>

#include "size.h"

#define UNTOUCHED 12345u

/* stall-timeout=030 was 24 s once, and dirty-low=0x10 was 16 per cent. */
static void numbers_are_decimal(void **state)
{
	static const struct {
		const char *text;
		u64 n;
	} good[] = {
		{"0", 0}, {"7", 7}, {"010", 10}, {"08", 8}, {"9223372036854775807", INT64_MAX},
	};
	static const char *const bad[] = {
		"",
		" 1",
		"1 ",
		"+1",
		"-1",
		"0x10",
		"0b1",
		"1e3",
		"1.0",
		"1K",
		"1s",
		"x",
		"9223372036854775808",
		"99999999999999999999999",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		u64 n = UNTOUCHED;

		assert_true(parse_number(good[i].text, &n));
		assert_int_equal(n, good[i].n);
	}
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		u64 n = UNTOUCHED;

		if (parse_number(bad[i], &n))
			fail_msg("'%s' is taken for a number", bad[i]);
		assert_int_equal(n, UNTOUCHED);
	}
}

static void sizes_have_a_suffix(void **state)
{
	static const struct {
		const char *text;
		u64 n;
	} good[] = {
		{"0", 0},
		{"4096", 4096},
		{"010", 10},
		{"010K", 10240},
		{"1k", 1024},
		{"3M", 3 << 20},
		{"8m", 8 << 20},
		{"2G", 2ull << 30},
		{"16T", 16ull << 40},
		{"3s", 1536},
		{"7E", 7ull << 60},
		{"1.5P", 1536ull << 40},
		{"1.5G", 1536ull << 20},
		{"0.75K", 768},
		{"1.0", 1},
		{"0.5s", 256},
		{"9223372036854775807", INT64_MAX},
	};
	static const char *const bad[] = {
		"",
		"K",
		".5K",
		"1.K",
		"1.",
		"1.5",
		"0.3K",
		"0x10",
		"0x10K",
		"1e3",
		"-1",
		"-1M",
		"+1M",
		" 1M",
		"1 M",
		"1MM",
		"1MB",
		"1Q",
		"inf",
		"nan",
		"8388607.99T",
		"8388608T",
		"8E",
		"0.999999E",
		"9223372036854775808",
		"99999999999G",
		"1.00000000G",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
		u64 n = UNTOUCHED;

		if (!parse_size(good[i].text, &n))
			fail_msg("'%s' is no size", good[i].text);
		assert_int_equal(n, good[i].n);
	}
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		u64 n = UNTOUCHED;

		if (parse_size(bad[i], &n))
			fail_msg("'%s' is taken for a size", bad[i]);
		assert_int_equal(n, UNTOUCHED);
	}
}

/* What a message says can be given back. */
static void what_is_written_can_be_read(void **state)
{
	static const u64 sizes[] = {0,		1,	   512,	       1234,	   4096,
				    1056 << 10, 256 << 20, 5ull << 40, 1ull << 50, 9999};
	char text[SIZE_TEXT_BYTES];

	(void)state;
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		u64 n = UNTOUCHED;

		assert_true(parse_size(size_text(text, sizes[i]), &n));
		assert_int_equal(n, sizes[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_decimal),
		cmocka_unit_test(sizes_have_a_suffix),
		cmocka_unit_test(what_is_written_can_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
