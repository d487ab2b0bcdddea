/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * name.h - names of volumes: which ones are allowed, and how messages call them.
 */
#ifndef LC_PLUGIN_NAME_H
#define LC_PLUGIN_NAME_H

#include "logcache/logcache.h"

/* Is TEXT well-formed UTF-8 without control characters? NBD strings have to be, and so have log lines. */
bool name_is_text(const char *text);

#define NAME_TEXT_BYTES (LC_NAME_BYTES + 16u)

/* Write "volume 'NAME'", or "the default export" for the empty name, into TEXT, and return TEXT. */
const char *name_text(char text[NAME_TEXT_BYTES], const char *name);

#endif
