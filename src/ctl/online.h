/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * online.h - the commands of logcachectl that talk to a running server.
 *
 * The server is found by its control socket: -s SOCKET, before or behind the command, or $LOGCACHE_SOCKET.
 */
#ifndef LC_CTL_ONLINE_H
#define LC_CTL_ONLINE_H

#include <getopt.h>
#include <jansson.h>

#include "logcache/types.h"

int command_status(int argc, char **argv);
int command_top(int argc, char **argv);
int command_get(int argc, char **argv);
int command_set(int argc, char **argv);
int command_flush(int argc, char **argv);
int command_reset_stats(int argc, char **argv);
int command_attach(int argc, char **argv);
int command_detach(int argc, char **argv);
/* With --offline it is command_drain() (ctl.h). */
int command_drain_either(int argc, char **argv);

/*
 * Take -s SOCKET out of the arguments. ARGV[0] is the program; with *ARGC and *ARGV as they are left the
 * command goes on. NULL: no socket was given, and a message has said so.
 */
const char *online_socket(int *argc, char **argv);

/* --- members of answers: 0, "" or false where there is none --- */

json_t *member(const json_t *o, const char *path); /* "cache.segments.total" */
double number_of(const json_t *o, const char *path);
const char *text_of(const json_t *o, const char *path);

/* --- numbers as people read them; each writes into TEXT and returns it --- */

#define TEXT_BYTES 32u

const char *bytes_text(char text[TEXT_BYTES], double bytes);	  /* "12.3 MiB" */
const char *latency_text(char text[TEXT_BYTES], double ns);	  /* "12.3 us" */
const char *duration_text(char text[TEXT_BYTES], double seconds); /* "2 min 5 s" */
const char *amount_text(char text[TEXT_BYTES], double n);	  /* "12.3k" */

#endif
