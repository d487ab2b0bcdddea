/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mutant.h - faults that can be switched on, to prove that the simulation would find them.
 *
 * `if (LC_MUTANT(name))` is constant false, and folded away, except in the build with -Dmutants=true: there it is true
 * if the environment says LC_MUTANT=name. Each one disables a flush, a wait or a check that an invariant
 * needs; scripts/mutants finds them all, and scripts/test fails if one survives.
 */
#ifndef LC_MUTANT_H
#define LC_MUTANT_H

#ifdef LC_MUTANTS
#include <stdlib.h>
#include <string.h>

static inline bool lc_mutant_is(const char *name)
{
	const char *wanted = getenv("LC_MUTANT");

	return wanted && !strcmp(wanted, name);
}

#define LC_MUTANT(name) lc_mutant_is(#name)
#else
#define LC_MUTANT(name) false
#endif

#endif
