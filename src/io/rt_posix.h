/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt_posix.h - what the program that embeds the POSIX runtime may set. The runtime itself is rt.h.
 */
#ifndef LOGCACHE_IO_RT_POSIX_H
#define LOGCACHE_IO_RT_POSIX_H

#include "logcache/rt.h"

/*
 * Send all lines of lc_log() to HOOK instead of standard error; NULL: back to standard error. LINE
 * has no newline and is valid during the call only. HOOK is called from any thread, several at a
 * time, and must not call lc_log(). Whoever sets a hook that lives in a module that can be unloaded
 * takes it away before. One hook for the whole process.
 */
void lc_log_hook(void (*hook)(enum lc_log_level level, const char *line));

#endif
