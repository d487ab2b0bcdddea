/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * messages.h - where the lines of lc_log() go.
 *
 *	debug		nbdkit_debug(): shown by `nbdkit -v -D logcache.engine=1`
 *	error		nbdkit_error(): wherever nbdkit's own errors go (--log=)
 *	info, warning	the administrator must see these without -v, and nbdkit has no such levels:
 *			standard error while there is one, the system log once nbdkit has gone into
 *			the background and closed it
 *
 * Safe from any thread.
 */
#ifndef LC_PLUGIN_MESSAGES_H
#define LC_PLUGIN_MESSAGES_H

#include "logcache/rt.h"

/* Take over all lines of lc_log(). */
void messages_init(void);

/* nbdkit may have forked: find out whether standard error is still there. Called once, before threads. */
void messages_after_fork(void);

#endif
