/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * size.h - numbers and sizes as people write them: on nbdkit's command line, and on logcachectl's.
 *
 * They are decimal, whatever they begin with: 010 is ten, and 0x10 is nothing. (What nbdkit lends to plugins, and C has,
 * takes these for octal and hexadecimal.)
 */
#ifndef LC_PLUGIN_SIZE_H
#define LC_PLUGIN_SIZE_H

#include "logcache/types.h"

#define SIZE_TEXT_BYTES 24u

/*
 * Write BYTES into TEXT, and return TEXT: exactly where that is short, in a form that can be given
 * back as a parameter ("256M", "1056K", "1234"), otherwise rounded to one decimal ("1.5 GiB").
 */
const char *size_text(char text[SIZE_TEXT_BYTES], u64 bytes);

/* Digits and nothing else, at most INT64_MAX. False: something else, and *NUMBER is as before. */
bool parse_number(const char *text, u64 *number);

/*
 * A whole number of bytes: "4096", "10M", "1.5G", with K, M, G, T, P, E (powers of 1024) or s (sectors of 512), large or
 * small letters; at most INT64_MAX. False: something else, and *BYTES is as before.
 */
bool parse_size(const char *text, u64 *bytes);

#endif
