/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_file.h - a file or block device as a target, opened with O_DIRECT by each worker.
 */
#ifndef BENCH_LOAD_FILE_H
#define BENCH_LOAD_FILE_H

#include "load.h"

u64 load_file_open(struct load_worker *w);
int load_file_fd(const struct load_worker *w);
void load_file_close(struct load_worker *w);

#endif
