/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - logcache-sim: run histories, count them, and say how to replay the one that fails.
 *
 * One history is one seed. With --jobs, children take turns: child j of J runs the histories whose
 * number is j modulo J, so the set of seeds does not depend on J. Counters live in shared memory;
 * the first failure stops everybody after the history at hand.
 */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exhaustive.h"
#include "history.h"
#include "shrink.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define JOBS_MAX 64u
#define SHRINK_SECONDS 20.0

static struct {
	u64 seed, histories;
	double seconds; /* 0: no limit */
	unsigned jobs, volumes;
	bool faults, no_ssd, attach, remote, one, exhaustive, no_shrink, coverage;
	struct limits limits;
	u32 operations;
	const char *one_case;
} options = {.histories = 1000, .jobs = 1, .volumes = 1, .operations = 3, .limits = LIMITS_NONE};

/* Shared with the children. */
static struct {
	_Atomic u64 histories, crashes, ops, laps_max;
	_Atomic u64 covered[NR_COVER];
	_Atomic bool failed;
	_Atomic u64 failed_seed;
	char failure[SIM_FAILURE_BYTES];
} * shared;

static struct history history;
static const char *program;

static double monotonic_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Only what is safe in a signal handler. */
static void say_replay(void)
{
	const struct limits no_limits = LIMITS_NONE;
	char line[512];
	int n;

	n = snprintf(line, sizeof(line), "seed %llu; replay with:\n  %s --seed %llu%s%s%s --trace\n",
		     (unsigned long long)history.seed, program, (unsigned long long)history.seed,
		     options.faults ? " --faults" : "", options.remote ? " --remote" : "",
		     options.no_ssd ? " --no-ssd" :
		     options.attach ? " --attach" :
				      "");
	if (options.volumes > 1)
		n += snprintf(line + n - 1, sizeof(line) - (size_t)n, " --volumes %u\n",
			      options.volumes) -
		     1;
	if (memcmp(&history.limits, &no_limits, sizeof(no_limits)))
		n += snprintf(line + n - 1, sizeof(line) - (size_t)n, " --limits %u,%u,%u,%u,%u\n",
			      history.limits.lives, history.limits.clients, history.limits.ops,
			      history.limits.sectors, history.limits.salt) -
		     1;
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(1); /* nobody to tell */
}

void sim_report_and_exit(void)
{
	if (!exhaustive_report(program))
		say_replay();
	if (shared) {
		shared->failed_seed = history.seed;
		shared->failed = true;
	}
	fflush(NULL);
	_exit(1);
}

static void on_signal(int sig)
{
	char line[128];
	int n;

	snprintf(sim_failure, SIM_FAILURE_BYTES, "signal %d", sig);
	n = snprintf(line, sizeof(line), "\nFAILED: signal %d (%s) on fiber %s at step %llu\n", sig,
		     sig == SIGABRT ? "an assertion" : "a crash", sim_fiber_name(sim_self()),
		     (unsigned long long)sim_steps());

	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(1);
	sim_report_and_exit();
}

static void catch_signals(void)
{
	static char stack[64 << 10];
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	size_t i;

#if defined(__SANITIZE_ADDRESS__)
	/* AddressSanitizer says more about a bad access than we could. */
	__sanitizer_set_death_callback(say_replay);
#endif
	sigaltstack(&ss, NULL);
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
#if defined(__SANITIZE_ADDRESS__)
		if (signals[i] == SIGABRT)
#endif
			sigaction(signals[i], &sa, NULL);
}

/* --- running --- */

static void progress(double start, bool final)
{
	static double last;
	double now = monotonic_s(), elapsed = now - start;
	bool tty = isatty(STDERR_FILENO);

	if (last == 0)
		last = start;
	if (!final && now - last < (tty ? 1.0 : 5.0))
		return;
	last = now;
	fprintf(final ? stdout : stderr,
		"%s%llu histories, %llu crashes, %llu operations, %.1f s (%.0f histories/s)%s",
		!final && tty ? "\r" : "", (unsigned long long)shared->histories,
		(unsigned long long)shared->crashes, (unsigned long long)shared->ops, elapsed,
		elapsed > 0 ? (double)shared->histories / elapsed : 0.0, !final && tty ? "" : "\n");
	fflush(stdout);
}

static void run_job(unsigned job, double start, bool report)
{
	u64 i;
	u32 k;

	catch_signals();
	/*
	 * Every life allocates the same buffers; asking the kernel for them again costs half of the
	 * time.
	 */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	history_create(&history, options.volumes, options.faults, options.no_ssd, options.attach,
		       options.remote);
	history.limits = options.limits;
	for (i = job; i < options.histories && !shared->failed; i += options.jobs) {
		u64 crashes = history.nr_crashes, ops = history.nr_ops;

		if (options.seconds > 0 && monotonic_s() - start > options.seconds)
			break;
		history_run(&history, options.seed + i);
		shared->histories++;
		for (k = 0; k < NR_COVER; k++)
			shared->covered[k] += history.covered[k];
		if (history.laps_max > shared->laps_max)
			shared->laps_max = history.laps_max;
		shared->crashes += history.nr_crashes - crashes;
		shared->ops += history.nr_ops - ops;
		if (report)
			progress(start, false);
	}
}

static int run_children(double start)
{
	pid_t pids[JOBS_MAX];
	unsigned j, running = 0;
	int status, result = 0;

	fflush(NULL);
	for (j = 0; j < options.jobs; j++) {
		pids[j] = fork();
		if (pids[j] < 0) {
			perror("logcache-sim: fork");
			shared->failed = true;
			result = 1;
			break;
		}
		if (!pids[j]) {
			run_job(j, start, false);
			fflush(NULL);
			_exit(0);
		}
		running++;
	}
	while (running) {
		pid_t p = waitpid(-1, &status, WNOHANG);

		if (p > 0) {
			running--;
			if (!WIFEXITED(status) || WEXITSTATUS(status)) {
				shared->failed = true;
				result = 1;
			}
			continue;
		}
		usleep(50000);
		progress(start, false);
	}
	return result;
}

/* The smallest history that could be found, with what clients and disks did in its lives. */
static void shrink_and_show(void)
{
	char rule[SIM_FAILURE_BYTES];
	pid_t p;

	if (options.no_shrink || !*sim_failure)
		return;
	memcpy(rule, sim_failure, sizeof(rule));
	fprintf(stderr, "\nlooking for a smaller one (%.0f s) ...\n", SHRINK_SECONDS);
	catch_signals();
	history_create(&history, options.volumes, options.faults, options.no_ssd, options.attach,
		       options.remote);
	history.limits = shrink(&history, shared->failed_seed, rule, SHRINK_SECONDS);
	fprintf(stderr,
		"the smallest that was found: %u lives, %u clients, %u operations each, "
		"%u sectors\n",
		history.limits.lives, history.limits.clients, history.limits.ops,
		history.limits.sectors);
	fflush(NULL);
	p = fork();
	if (!p) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		setvbuf(stdout, NULL, _IOLBF, 0);
		sim_brief = sim_tracing = true;
		history_run(&history, shared->failed_seed);
		_exit(0);
	}
	waitpid(p, NULL, 0);
}

static void say_coverage(void)
{
#define COVERAGE_TEXT(name, text) text,
	static const char *const texts[] = {COVERAGE(COVERAGE_TEXT)};
	u32 k;

	for (k = 0; k < NR_COVER; k++)
		printf("%10llu %s%s\n", (unsigned long long)shared->covered[k], texts[k],
		       shared->covered[k] ? "" : ": NEVER DRAWN");
	printf("%10llu laps of the log at most\n", (unsigned long long)shared->laps_max);
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: %s [--seed N] [--histories N] [--seconds S] [--jobs J] [--trace] "
		"[--faults]\n"
		"  --seed N       first seed; alone: replay exactly that history\n"
		"  --histories N  how many (default 1000, seeds N, N+1, ...)\n"
		"  --seconds S    stop after so long (then --histories is unlimited by default)\n"
		"  --jobs J       processes\n"
		"  --trace        print everything that happens\n"
		"  --faults       stores fail now and then\n"
		"  --volumes V    volumes on the cache (default 1)\n"
		"  --no-ssd       no life has a cache; otherwise some do\n"
		"  --attach       a cache comes and goes, and settings change, while clients work\n"
		"  --remote       backing stores behind connections that break\n"
		"  --coverage     how many histories had what\n"
		"  --no-shrink    do not look for a smaller history when one fails\n"
		"  --limits L     what a smaller one was limited to\n"
		"  --exhaustive   every small workload, every moment for a crash, every state\n"
		"  --operations N with it: all workloads up to N operations (default 3)\n"
		"  --case CASE    with it: only what a failure reported\n",
		program);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"seed", required_argument, NULL, 's'},
		{"histories", required_argument, NULL, 'n'},
		{"seconds", required_argument, NULL, 't'},
		{"jobs", required_argument, NULL, 'j'},
		{"trace", no_argument, NULL, 'v'},
		{"faults", no_argument, NULL, 'f'},
		{"remote", no_argument, NULL, 'R'},
		{"volumes", required_argument, NULL, 'V'},
		{"no-ssd", no_argument, NULL, 'N'},
		{"attach", no_argument, NULL, 'A'},
		{"exhaustive", no_argument, NULL, 'x'},
		{"operations", required_argument, NULL, 'o'},
		{"case", required_argument, NULL, 'c'},
		{"coverage", no_argument, NULL, 'C'},
		{"shrink", no_argument, NULL, 'Y'},
		{"no-shrink", no_argument, NULL, 'S'},
		{"limits", required_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	bool seeded = false, counted = false;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			seeded = true;
			break;
		case 'n':
			options.histories = strtoull(optarg, NULL, 0);
			counted = true;
			break;
		case 't':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'j':
			options.jobs = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'v':
			sim_tracing = true;
			break;
		case 'f':
			options.faults = true;
			break;
		case 'N':
			options.no_ssd = true;
			break;
		case 'A':
			options.attach = true;
			break;
		case 'R':
			options.remote = true;
			break;
		case 'V':
			options.volumes = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'C':
			options.coverage = true;
			break;
		case 'Y':
			options.no_shrink = false;
			break;
		case 'S':
			options.no_shrink = true;
			break;
		case 'l':
			options.no_shrink = true;
			if (sscanf(optarg, "%u,%u,%u,%u,%u", &options.limits.lives,
				   &options.limits.clients, &options.limits.ops,
				   &options.limits.sectors, &options.limits.salt) != 5) {
				usage(stderr);
				exit(2);
			}
			break;
		case 'x':
			options.exhaustive = true;
			break;
		case 'o':
			options.operations = (u32)strtoul(optarg, NULL, 0);
			break;
		case 'c':
			options.one_case = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind != argc || !options.jobs || options.jobs > JOBS_MAX || !options.volumes ||
	    options.volumes > ORACLE_VOLUMES_MAX || (options.attach && options.no_ssd) ||
	    (options.remote && (options.attach || options.no_ssd))) {
		usage(stderr);
		exit(2);
	}
	if (!seeded) /* short enough to type */
		options.seed = (u64)time(NULL) * 1000 % 1000000000ull + (u64)getpid() % 1000;
	if (!counted && options.seconds > 0)
		options.histories = UINT64_MAX;
	else if (!counted && seeded)
		options.histories = 1;
	options.one = options.histories == 1;
}

int main(int argc, char **argv)
{
	double start = monotonic_s();
	int result = 0;

	program = argv[0];
	/* That a mutant fails is no news, and small it is hardly clearer: --shrink asks for it. */
	options.no_shrink = getenv("LC_MUTANT") != NULL;
	parse(argc, argv);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED) {
		perror("logcache-sim: mmap");
		return 2;
	}
	sim_failure = shared->failure;
	if (options.exhaustive) {
		catch_signals();
		mallopt(M_MMAP_THRESHOLD, 1 << 30);
		mallopt(M_TRIM_THRESHOLD, 1 << 30);
		exhaustive_run(options.operations, options.one_case);
		return 0;
	}
	if (!options.one)
		fprintf(stderr, "first seed %llu\n", (unsigned long long)options.seed);
	if (options.jobs == 1 && (options.no_shrink || sim_tracing))
		run_job(0, start, true);
	else
		result = run_children(start);
	if (result)
		shrink_and_show();
	progress(start, true);
	if (options.coverage)
		say_coverage();
	return result;
}
