/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * size.h - numbers of bytes as people write them.
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

#endif
