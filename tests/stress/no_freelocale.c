/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * no_freelocale.c - scripts/sanitize preloads it into nbdkit, behind libasan and for the same processes alone.
 *
 * nbdkit links gnutls, and that p11-kit, whose destructor calls freelocale() when nbdkit exits. With libasan
 * preloaded and our module loaded that hangs in glibc's lock of setlocale, whose count of readers is -1 since the
 * start (Debian 12; why is not known; none of our code uses locales). The process ends anyway: nothing is freed.
 */
#include <locale.h>

void freelocale(locale_t locale)
{
	(void)locale;
}
