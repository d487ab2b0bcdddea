/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - logcachectl: which command is it?
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "online.h"
#include "rt_posix.h"

static const struct command commands[] = {
	{"status", "[--json]", "what the server and its cache are doing", command_status},
	{"top", "[--interval=SECONDS]", "the same, as a screen that goes along; q ends it",
	 command_top},
	{"watch", "[--interval=SECONDS]", "the same as top", command_top},
	{"get", "[KEY]", "show all settings, or the value of one", command_get},
	{"set", "KEY=VALUE ... [--persist]",
	 "change settings, until the next start or (--persist) for ever", command_set},
	{"flush", "", "make everything durable that was written until now", command_flush},
	{"drain", "[--wait]", "write everything back, while clients go on", command_drain_either},
	{"attach", "CACHE [--wait] [--format=auto|no|force] [--segment-size=SIZE]",
	 "give a cache to a server that runs without one", command_attach},
	{"detach", "[--wait]", "write everything back and run on without the cache", command_detach},
	{"reset-stats", "", "let counters and latencies begin at 0 again", command_reset_stats},
	{"format", "CACHE [--segment-size=SIZE] [--label=TEXT] [--size=SIZE] [--force]",
	 "make an empty cache", command_format},
	{"check", "CACHE [--progress] [--quiet]", "verify everything on a cache; writes nothing",
	 command_check},
	{"dump", "CACHE [--json] [--segments | --records]",
	 "show what is on a cache; writes nothing", command_dump},
	{"drain", "--offline cache=CACHE [volume=NAME] backing=PATH ... [--progress] [--quiet]",
	 "write everything back without serving", command_drain},
	{"repair", "CACHE [--yes] [--progress] [--quiet]",
	 "make a corrupt cache start again; without --yes only say how", command_repair},
	{"forget", "CACHE VOLUME [--yes-lose-data]", "remove a volume from a cache", command_forget},
};

#define NR_COMMANDS (sizeof commands / sizeof *commands)

static void say_line(const char *fmt, va_list ap, const char *hint)
{
	char line[1200];

	vsnprintf(line, sizeof line, fmt, ap);
	fprintf(stderr, "logcachectl: %s%s\n", line, hint);
}

int fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_line(fmt, ap, "");
	va_end(ap);
	return CTL_FAILED;
}

int misused(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_line(fmt, ap, "; see logcachectl --help");
	va_end(ap);
	return CTL_USAGE;
}

int misused_option(const char *command, char **argv)
{
	const char *word = argv[optind - 1];

	/* optopt: 0 behind a long option that is unknown, else that of a known one, or a letter */
	if (!optopt)
		return misused("%s: there is no option %s", command, word);
	if (word[0] != '-' || word[1] != '-')
		return misused("%s: there is no option -%c", command, optopt);
	return misused("%s: %s: %s", command, word,
		       strchr(word, '=') ? "takes no value" : "a value is missing");
}

int blocks_are_lost(const char *cache, u64 nr)
{
	char text[LC_COUNT_BYTES];

	return fail("%s cannot be read from %s and %s lost: the backing stores have what was there before; "
		    "logcachectl dump lists %s, when no server uses the cache",
		    lc_count_text(text, nr, "block"), cache, nr == 1 ? "is" : "are",
		    nr == 1 ? "it" : "them");
}

bool quiet_log;

/* Lines of the engine and the stores. */
static void hook(enum lc_log_level level, const char *line)
{
	if (level == LC_LOG_DEBUG || (quiet_log && level == LC_LOG_INFO))
		return;
	fprintf(stderr, "logcachectl: %s%s\n", level == LC_LOG_WARNING ? "warning: " : "", line);
}

static int usage(FILE *out)
{
	fprintf(out, "usage: logcachectl [-s SOCKET] COMMAND ...\n"
		     "       logcachectl --help | --version\n\n");
	for (unsigned i = 0; i < NR_COMMANDS; i++)
		fprintf(out, "  %s%s%s\n      %s\n", commands[i].name,
			*commands[i].arguments ? " " : "", commands[i].arguments, commands[i].text);
	fprintf(out,
		"\nSOCKET is the control= of a server, $LOGCACHE_SOCKET by default. CACHE is the\n"
		"SSD or the file. The exit status is 0 on success, 1 if the command failed or\n"
		"found problems, 2 if the command line is wrong. See logcachectl(1).\n");
	return out == stdout ? CTL_OK : CTL_USAGE;
}

int main(int argc, char **argv)
{
	lc_log_hook(hook);
	opterr = 0; /* misused_option() says it */
	if (argc > 1 && !strcmp(argv[1], "-s")) {
		if (argc < 3)
			return misused("-s: a SOCKET is missing, and a COMMAND");
		if (argc < 4)
			return misused("-s %s: a COMMAND is missing", argv[2]);
		setenv("LOGCACHE_SOCKET", argv[2], 1);
		argv[2] = argv[0];
		argc -= 2;
		argv += 2;
	}
	if (argc < 2)
		return usage(stderr);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
		return usage(stdout);
	if (!strcmp(argv[1], "--version")) {
		printf("logcachectl %s\n", LOGCACHE_VERSION);
		return CTL_OK;
	}
	for (unsigned i = 0; i < NR_COMMANDS; i++) {
		int status;

		if (strcmp(argv[1], commands[i].name))
			continue;
		if (argc > 2 && !strcmp(argv[2], "--help"))
			return usage(stdout);
		/* getopt() names the program by its first argument. */
		argv[1] = argv[0];
		status = commands[i].run(argc - 1, argv + 1);
		if (fflush(stdout) || ferror(stdout))
			return fail("cannot write to standard output");
		return status;
	}
	return misused("there is no command '%s'", argv[1]);
}
