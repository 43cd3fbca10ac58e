/* SPDX-License-Identifier: Apache-2.0
 * receipt.c - see receipt.h. */
#include "receipt.h"

#include "dialect.h"
#include "etag.h"

static int add_member(struct buffer *out, const char *name, const char *value) {
    return buffer_puts(out, name) || buffer_puts(out, "\"") || buffer_puts(out, value) ||
           buffer_puts(out, "\"");
}

int receipt_write(const struct request *r, const char *fingerprint, const char *reply,
                  size_t len, struct buffer *out) {
    char digest[ETAG_DIGEST];
    etag_digest(reply, len, digest);
    int rc = add_member(out, "{\"fingerprint\":", fingerprint) ||
             add_member(out, ",\"route\":", r->dialect->route) ||
             buffer_puts(out, ",\"request\":") ||
             buffer_add(out, r->canonical.bytes, r->canonical.len) ||
             buffer_puts(out, ",\"status\":200") ||
             add_member(out, ",\"digest\":", digest) ||
             add_member(out, ",\"etag\":", r->plain_etag) || buffer_puts(out, "}");
    return rc ? -1 : 0;
}

int receipt_add(const struct request *r, const char *fingerprint, struct buffer *out) {
    struct buffer receipt = {.budget = out->budget};
    int rc = receipt_write(r, fingerprint, out->bytes, out->len, &receipt);
    out->len--; /* the brace */
    if (!rc)
        rc = buffer_puts(out, ",\"receipt\":") ||
             buffer_add(out, receipt.bytes, receipt.len) || buffer_puts(out, "}");
    buffer_free(&receipt);
    return rc ? -1 : 0;
}
