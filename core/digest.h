/* SPDX-License-Identifier: Apache-2.0
 * digest.h - a fast 64-bit digest of bytes: tells checkpoints apart, is no proof against
 * forgery. Internal to core. */
#ifndef MG_DIGEST_H
#define MG_DIGEST_H

#include <stddef.h>
#include <stdint.h>

uint64_t mg_digest(const void *data, size_t len);

#endif
