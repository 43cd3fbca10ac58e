/* SPDX-License-Identifier: Apache-2.0
 * FastCGI records: the scanner says the same of a stream however it is cut, and never
 * takes more bytes than there are. */
#include "../../fcgi/record.h"
#include "fuzz.h"

static enum record_state whole(const uint8_t *data, size_t size, size_t *used) {
    struct record_scan s;
    record_scan_init(&s);
    return record_scan(&s, data, size, used);
}

static enum record_state cut(struct fuzz_bytes cuts, const uint8_t *data, size_t size,
                             size_t *used) {
    struct record_scan s;
    enum record_state state = RECORD_MORE;
    record_scan_init(&s);
    for (*used = 0; state == RECORD_MORE && *used < size;) {
        size_t n = 1 + fuzz_byte(&cuts) % 32, k;
        if (n > size - *used) n = size - *used;
        state = record_scan(&s, data + *used, n, &k);
        FUZZ_CHECK(k <= n);
        *used += k;
        if (state == RECORD_MORE) FUZZ_CHECK(k == n);
    }
    FUZZ_CHECK(s.params <= RECORD_MAX_PARAMS || state == RECORD_BAD);
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t a, b;
    enum record_state one = whole(data, size, &a);
    FUZZ_CHECK(a <= size);
    FUZZ_CHECK(cut((struct fuzz_bytes){data, size}, data, size, &b) == one);
    if (one != RECORD_BAD) FUZZ_CHECK(a == b);
    return 0;
}
