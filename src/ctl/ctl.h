/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ctl.h - what the commands of logcachectl share.
 *
 * Each command is one function in a file of its own, and a line in the table in main.c. It gets its arguments as a
 * main() would, with its own name as the first, and returns the exit status:
 *
 *	CTL_OK		done, and nothing wrong was found
 *	CTL_FAILED	failed, or problems were found
 *	CTL_USAGE	the command line makes no sense; nothing was done
 *
 * What was asked for goes to standard output, everything else to standard error.
 */
#ifndef LC_CTL_H
#define LC_CTL_H

#include "logcache/logcache.h"

enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

struct command {
	const char *name;
	const char *arguments; /* for the usage */
	const char *text;      /* one line: what it does */
	int (*run)(int argc, char **argv);
};

int command_format(int argc, char **argv);
int command_check(int argc, char **argv);
int command_dump(int argc, char **argv);
int command_drain(int argc, char **argv);
int command_repair(int argc, char **argv);
int command_forget(int argc, char **argv);

/* --quiet: what the engine merely informs about is not shown. Set before there are threads. */
extern bool quiet_log;

/* One line to standard error. Returns CTL_FAILED. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with a hint at --help. Returns CTL_USAGE. */
int misused(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same about the option at which getopt_long() has stopped. */
int misused_option(const char *command, char **argv);

/* After a drain: what is on the list of lost blocks of CACHE did not get to the backing stores. Returns CTL_FAILED. */
int blocks_are_lost(const char *cache, u64 nr);

#endif
